"""Published hyper-parameters by name: what they are, who has them, and what a flag does to them."""

from __future__ import annotations

import dataclasses

import pytest

from helpers import for_each
from segue.algorithms import ALGORITHMS, CQL, IQL, CalQL, ReBRAC
from segue.cli.main import main
from segue.cli.recipe_flags import recipe_from_flags
from segue.errors import RecipeError

PRESETS = [(name, preset) for name, cls in ALGORITHMS.items() for preset in cls.presets]
every_preset = for_each(("name", "preset"), PRESETS)
#: The published values are the defaults.
DEFAULTS = {("td3-bc", "locomotion"), ("cal-ql", "locomotion"), ("rlpd", "locomotion")}
#: Spelt out because they are listed by task, although this task's are the defaults.
SPELT_OUT = {
    ("rebrac", "halfcheetah-expert"),
    ("rebrac", "hopper-medium"),
    ("rebrac", "hopper-full-replay"),
    ("rebrac", "walker2d-medium-expert"),
    ("rebrac", "walker2d-full-replay"),
    ("sac-n", "halfcheetah"),
    ("edac", "halfcheetah"),
    ("edac", "walker2d"),
    ("edac", "antmaze"),
}


@every_preset
def test_every_preset_constructs_and_holds_only_fields_of_its_algorithm(name, preset):
    cls = ALGORITHMS[name]
    values = cls.presets[preset]
    algorithm = cls.preset(preset)
    assert type(algorithm) is cls
    given = {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(cls)}
    rest = {field: value for field, value in dataclasses.asdict(cls()).items() if field not in values}
    assert given == rest | values


@every_preset
def test_a_preset_changes_a_default_or_says_that_it_changes_none(name, preset):
    cls = ALGORITHMS[name]
    assert (cls.presets[preset] == {}) == ((name, preset) in DEFAULTS)
    assert (cls.preset(preset) == cls()) == ((name, preset) in DEFAULTS | SPELT_OUT)


def test_the_algorithms_of_the_family_that_were_tuned_by_domain_have_presets():
    tuned = {name for name, cls in ALGORITHMS.items() if cls.presets}
    assert tuned == {"td3-bc", "rebrac", "fql", "iql", "awac", "cql", "cal-ql", "sac-n", "edac", "rlpd"}


def test_an_algorithm_without_presets_of_its_own_does_not_inherit_its_parents():
    for cls in ALGORITHMS.values():
        for parent in cls.__mro__[1:]:
            if getattr(parent, "presets", None):
                assert cls.presets is not parent.presets, f"{cls.name} has {parent.__name__}'s"


def test_a_preset_can_be_changed():
    algorithm = ReBRAC.preset("antmaze-umaze", discount=0.9, hidden_sizes=(8,))
    assert (algorithm.discount, algorithm.hidden_sizes) == (0.9, (8,))
    assert (algorithm.reward_scale, algorithm.actor_bc_weight, algorithm.critic_bc_weight) == (100, 0.003, 0.002)
    with pytest.raises(RecipeError, match="discount is 2"):
        ReBRAC.preset("antmaze-umaze", discount=2)


def test_an_unknown_preset_gets_the_nearest_name():
    with pytest.raises(RecipeError, match=r"unknown preset of iql 'antmase': did you mean 'antmaze'\?$"):
        IQL.preset("antmase")
    with pytest.raises(RecipeError, match="unknown preset of sac 'antmaze': there is none"):
        ALGORITHMS["sac"].preset("antmaze")


def from_flags(text: str):
    words = ["--dataset", "npz:log.npz", "--offline-steps", "9", "--online-steps", "2000", *text.split()]
    return recipe_from_flags(words, "run", "")[0]


def test_a_preset_sets_what_flags_start_from():
    recipe = from_flags("--offline cql --online cal-ql --preset antmaze")
    assert recipe.offline == CQL.preset("antmaze")
    assert recipe.online == CalQL.preset("antmaze")
    assert from_flags("--offline cql --online cal-ql").online == CalQL()


@pytest.mark.parametrize("order", ["{preset} {flags}", "{flags} {preset}"])
def test_a_flag_goes_before_the_preset_wherever_it_stands(order):
    flags = "--offline.lagrange-threshold 5 --offline.no-max-q-backup --online.reward-scale 1 --online.reward-shift 0"
    flags = f"--offline cql --online cal-ql {flags}"
    recipe = from_flags(order.format(preset="--preset=antmaze", flags=flags))
    assert recipe.offline == CQL.preset("antmaze", lagrange_threshold=5.0, max_q_backup=False)
    assert recipe.online == CalQL.preset("antmaze", reward_scale=1.0, reward_shift=0.0)


@pytest.mark.parametrize(("offline", "online"), [("rebrac", "td3"), ("rebrac", "iql")])
def test_an_algorithm_without_the_preset_takes_the_others_returns_and_nothing_else(offline, online):
    recipe = from_flags(f"--offline {offline} --online {online} --preset antmaze-umaze")
    assert recipe.offline == ReBRAC.preset("antmaze-umaze")
    assert recipe.online == ALGORITHMS[online](discount=0.999, reward_scale=100.0)


def test_it_does_not_matter_which_of_the_two_has_the_preset():
    recipe = from_flags("--offline td3-bc --online rlpd --preset adroit")
    assert recipe.offline == ALGORITHMS["td3-bc"]()
    assert recipe.online == ALGORITHMS["rlpd"].preset("adroit")
    recipe = from_flags("--offline sac --online iql --preset antmaze")
    assert recipe.offline == ALGORITHMS["sac"](reward_shift=-1.0)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (
            "--offline cql --online sac --preset antmase",
            "unknown preset of cql or sac 'antmase': did you mean 'antmaze'",
        ),
        ("--online sac --preset antmaze", "unknown preset of sac 'antmaze': did you mean 'wsrl-antmaze'?"),
        ("--preset antmaze", "unknown preset 'antmaze'"),
    ],
)
def test_an_unknown_preset_is_one_line_with_the_nearest_match(flags, expected, capsys):
    assert main(["run", "--online-steps", "2000", *flags.split()]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1
