"""Every hyper-parameter with a range refuses what lies outside, and says what it expected."""

from __future__ import annotations

import dataclasses

import pytest

from helpers import for_each
from segue.algorithms import ALGORITHMS
from segue.errors import RecipeError

NAN, INFINITE = float("nan"), float("inf")
POSITIVE, AT_LEAST_ONE, NOT_NEGATIVE = (
    ((0.0, -1.0), "above 0"),
    ((0, -1), "at least 1"),
    ((-0.1,), "at least 0"),
)

WIDTHS = (((0,), (256, -1)), "positive widths")
SHARE, SHARE_ABOVE_ZERO = ((-0.1, 1.1), "between 0 and 1"), ((0.0, -0.1, 1.1), "above 0 and at most 1")

#: field → values to refuse, and the words that name the range
RANGES = {
    "discount": SHARE,
    "reward_scale": POSITIVE,
    "batch_size": AT_LEAST_ONE,
    "hidden_sizes": (((0,), (256, -1), (200_000,)), "positive widths up to 100,000"),
    "critic_hidden_sizes": WIDTHS,
    "behaviour_hidden_sizes": WIDTHS,
    "actor_learning_rate": POSITIVE,
    "critic_learning_rate": POSITIVE,
    "temperature_learning_rate": NOT_NEGATIVE,
    "initial_temperature": POSITIVE,
    "ensemble_size": ((0, -1, 1001), "between 1 and 1,000"),
    "polyak": SHARE_ABOVE_ZERO,
    "critic_updates_per_actor_update": AT_LEAST_ONE,
    "target_noise": NOT_NEGATIVE,
    "target_noise_clip": NOT_NEGATIVE,
    "exploration_noise": NOT_NEGATIVE,
    "alpha": NOT_NEGATIVE,
    "bc_weight": NOT_NEGATIVE,
    "conservative_weight": NOT_NEGATIVE,
    "sampled_actions": AT_LEAST_ONE,
    "value_learning_rate": POSITIVE,
    "expectile": ((0.0, 1.0), "between 0 and 1, both excluded"),
    "inverse_temperature": NOT_NEGATIVE,
    "weight_limit": POSITIVE,
    "temperature": POSITIVE,
    "actor_bc_weight": NOT_NEGATIVE,
    "critic_bc_weight": NOT_NEGATIVE,
    "diversity_weight": NOT_NEGATIVE,
    "subset_size": ((0, 11), "between 1 and ensemble_size"),
    "top_fraction": SHARE_ABOVE_ZERO,
    "behaviour_learning_rate": POSITIVE,
    "kl_weight": NOT_NEGATIVE,
    "perturbation_size": NOT_NEGATIVE,
    "minimum_weight": SHARE,
    "target_samples": AT_LEAST_ONE,
    "acting_samples": AT_LEAST_ONE,
    "initial_epsilon": SHARE,
    "final_epsilon": SHARE,
    "epsilon_until": SHARE_ABOVE_ZERO,
    "threshold": ((-0.1, 1.0), "at least 0 and below 1"),
    "logit_penalty": NOT_NEGATIVE,
    "rollout_steps": ((0, 63), "at least batch_size"),
    "epochs": AT_LEAST_ONE,
    "value_fit_epochs": ((-1,), "at least 0"),
    "gae_lambda": SHARE,
    "clip": POSITIVE,
    "entropy_weight": NOT_NEGATIVE,
    "kl_until": SHARE_ABOVE_ZERO,
    "max_gradient_norm": POSITIVE,
    "flow_steps": AT_LEAST_ONE,
    "chunk": AT_LEAST_ONE,
    "n_step": ((0, 101), "between 1 and 100"),
    "cost_limit": ((-0.1,), "at least 0"),
    "cost_horizon": ((0, -1), "at least 1"),
    "cost_critic_learning_rate": POSITIVE,
    "cost_multiplier_learning_rate": POSITIVE,
    "initial_cost_multiplier": ((0.0, 1e5), "between 0.001 and 10,000"),
}
#: numbers that may take any value
UNBOUNDED = {"reward_shift", "target_entropy_scale", "lagrange_threshold", "failure_reward"}
#: choices and switches, which the recipe's own types check
CHOICES = {
    "activation",
    "actor_schedule",
    "critic_schedule",
    "value_schedule",
    "loss",
    "actor_layer_norm",
    "critic_layer_norm",
    "distribution",
    "orthogonal_init",
    "backup_entropy",
    "max_q_backup",
    "variant",
    "weighting",
    "target_value",
    "actor_value",
    "normalise_q",
}


@for_each("name", ALGORITHMS)
def test_a_hyper_parameter_out_of_range_names_the_range(name):
    cls = ALGORITHMS[name]
    for field in {field.name for field in dataclasses.fields(cls)} & RANGES.keys():
        values, expected = RANGES[field]
        for value in values:
            with pytest.raises(RecipeError) as error:
                cls(**{field: value})
            assert str(error.value) == f"{name}: {field} is {value!r}; expected {expected}"


@for_each("name", ALGORITHMS)
def test_no_hyper_parameter_may_be_infinite_or_not_a_number(name):
    defaults = ALGORITHMS[name]()
    numbers = [f.name for f in dataclasses.fields(defaults) if isinstance(getattr(defaults, f.name), float)]
    assert len(numbers) >= 3
    for field in numbers:
        for value in (NAN, INFINITE, -INFINITE):
            with pytest.raises(RecipeError, match=f"^{name}: {field} is {value!r}; expected a finite number"):
                ALGORITHMS[name](**{field: value})


@for_each("name", ALGORITHMS)
def test_every_hyper_parameter_has_a_tested_range_or_is_known_to_need_none(name):
    assert {field.name for field in dataclasses.fields(ALGORITHMS[name])} <= set(RANGES) | UNBOUNDED | CHOICES


@for_each("name", ALGORITHMS)
def test_defaults_and_the_ends_of_ranges_are_accepted(name):
    ends = {"discount": 0.0, "batch_size": 1, "polyak": 1.0, "ensemble_size": 1, "alpha": 0.0, "target_noise": 0.0}
    cls = ALGORITHMS[name]
    fields = {field.name for field in dataclasses.fields(cls)}
    if "subset_size" in fields:
        ends["subset_size"] = 1
    if name == "edac":
        ends["ensemble_size"] = 2  # pairs of members disagree
    algorithm = cls(**{field: value for field, value in ends.items() if field in fields})
    assert algorithm.discount == 0
    assert hash(cls()) == hash(cls())
    assert cls() == cls()
