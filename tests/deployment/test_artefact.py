"""The exported directory: what it takes, what it refuses, and that it works without what it was trained with."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made import ENVS, Crane, Made, Switch, make

import segue
from helpers import small
from segue import load_policy
from segue.cli.main import main
from segue.deployment.export import describe, export_policy, require_fit
from segue.deployment.policy import FORMAT, Model, digest
from segue.deployment.spaces import flat_size, flatten
from segue.envs.make import shape
from segue.errors import SegueError
from segue.evaluation import evaluate
from toys import pendulum_log


@pytest.fixture(scope="module")
def crane(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("crane"), "sac", "continuous")


@pytest.fixture(scope="module")
def switch(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("switch"), "dqn", "discrete")


def test_actions_are_what_the_environment_gets_in_training(crane: Made) -> None:
    env = Crane()
    wrapped, got = shape(env, "crane"), []
    env.reset()
    env.step = lambda action: got.append(action) or (env.observation_space.sample(), 0.0, False, False, {})  # type: ignore[method-assign]
    rng = np.random.default_rng(0)
    for _ in range(20):
        observation = {"swing": rng.normal(size=1).astype(np.float32) * 5, "gear": int(rng.integers(3, 5))}
        flat = gym.spaces.flatten(env.observation_space, observation)
        wrapped.step(crane.original(flat[None])[0])
        action = crane.exported(observation)
        assert action.dtype == np.float32
        np.testing.assert_allclose(action, got[-1], rtol=0, atol=1e-6)
        assert env.action_space.contains(action.astype(np.float64))


def test_an_exported_policy_says_what_it_takes_and_gives(crane: Made, switch: Made) -> None:
    assert repr(crane.exported) == (
        "ExportedPolicy(sac; observations Dict (3,) as the environment gives them; actions (2,) from -2 to 3)"
    )
    assert repr(switch.exported).endswith("actions () from 1 to 4)")


def test_bounds_hold_where_the_policy_saturates_and_float32_rounds_up(crane: Made) -> None:
    x = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32) * 1e6
    for action in (crane.exported(x), crane.onnx(x)["action"], crane.exported(x, explore=True)):
        assert (action >= Crane.action_space.low).all()
        assert (action <= Crane.action_space.high).all()


def test_discrete_actions_are_counted_as_the_environment_does(switch: Made) -> None:
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    action = switch.exported(x)
    assert action.dtype == np.int64
    assert set(action) <= {1, 2, 3, 4}
    assert gym.make(ENVS["discrete"]).action_space.contains(switch.exported(x[0]))


SPACES = [
    gym.spaces.Box(-1, 1, (4,)),
    gym.spaces.Box(0, 255, (2, 3), np.uint8),
    gym.spaces.Box(-1, 1, ()),
    gym.spaces.Discrete(5, start=-2),
    gym.spaces.MultiBinary((2, 2)),
    gym.spaces.MultiDiscrete([[2, 3], [4, 1]], start=[[1, 0], [0, 5]]),
    gym.spaces.Tuple((gym.spaces.Discrete(3), gym.spaces.Box(-1, 1, (2,)))),
    gym.spaces.Dict(z=gym.spaces.Discrete(2), a=gym.spaces.Dict(b=gym.spaces.Box(-1, 1, (1, 2)))),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_observations_are_flattened_as_gymnasium_does_one_at_a_time_or_batched(space: gym.Space) -> None:
    space.seed(0)
    described = json.loads(json.dumps(describe(space)))
    samples = [space.sample() for _ in range(5)]
    expected = np.stack([gym.spaces.flatten(space, sample) for sample in samples]).astype(np.float32)
    assert flat_size(described) == expected.shape[1]
    for sample, row in zip(samples, expected, strict=True):
        assert np.array_equal(flatten(described, sample), row)
    batch = gym.vector.utils.concatenate(space, samples, gym.vector.utils.create_empty_array(space, 5))
    assert np.array_equal(flatten(described, batch), expected)
    if flat_size(described) > 1:
        assert np.array_equal(flatten(described, expected), expected), "already flat"


@pytest.mark.parametrize(
    ("observation", "expected"),
    [
        (np.zeros(4, np.float32), r"array of float32 with shape \(4,\); expected a dictionary of gear, swing"),
        ({"swing": [0.0]}, "a dictionary of swing; expected a dictionary of gear, swing"),
        ({"swing": [0.0, 1.0], "gear": 3}, r"\['swing'\] has shape \(2,\); expected \(1,\)"),
        ({"swing": ["x"], "gear": 3}, r"\['swing'\] is \['x'\]; expected numbers"),
        ({"swing": [0.0], "gear": 5}, r"\['gear'\] is 5; expected numbers from 3 to 4"),
        ({"swing": [0.0], "gear": 3.5}, r"\['gear'\] is 3.5; expected whole numbers"),
        ({"swing": [[0.0], [1.0]], "gear": [3]}, "parts of different batch sizes"),
        (None, "is None; expected a dictionary"),
    ],
)
def test_an_observation_of_another_form_is_named(crane: Made, observation: Any, expected: str) -> None:
    with pytest.raises(SegueError, match=expected):
        crane.exported(observation)


def test_a_space_that_cannot_be_described_is_named() -> None:
    with pytest.raises(SegueError, match="has a Text, which exported policies do not flatten"):
        describe(gym.spaces.Dict(a=gym.spaces.Text(3)))


def test_it_works_where_nothing_of_the_training_stack_is_installed(crane: Made) -> None:
    """Everything but the standard library, NumPy and onnxruntime is refused at import."""
    script = """
        import sys, json
        class Only:
            def find_spec(self, name, path=None, target=None):
                top = name.split(".")[0]
                if top not in {"segue", "numpy", "onnxruntime"} | set(sys.stdlib_module_names):
                    raise ImportError(f"{name} is not installed here")
        sys.meta_path.insert(0, Only())
        import segue
        policy = segue.load_policy(sys.argv[1])
        action = policy({"swing": [0.5], "gear": 4})
        policy.decide({"swing": [0.5], "gear": 4}, explore=True)
        acted = policy.act([[0.5, 0, 1]], policy.start(1), None, True)
        assert policy.log_prob([[0.5, 0, 1]], acted.action, explore=True) < acted.log_prob() + 1e-3
        stack = {"jax", "jaxlib", "equinox", "optax", "gymnasium", "mujoco", "jaxtyping", "pickle5", "onnx"}
        assert not stack & {name.split(".")[0] for name in sys.modules}
        print(json.dumps(action.tolist()))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(crane.directory)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout) == crane.exported({"swing": [0.5], "gear": 4}).tolist()


def test_what_is_read_back_is_what_was_written_and_says_where_it_comes_from(crane: Made) -> None:
    about = json.loads((crane.directory / "policy.json").read_text())
    assert about == crane.exported.about
    assert about["algorithm"]["name"] == "sac"
    assert about["env"] == ENVS["continuous"]
    assert about["sha256"] == digest(about)
    assert crane.exported.seen.tolist() == [3, 5, 5]
    files = {file.name for file in crane.directory.iterdir()}
    assert (
        files
        == {"policy.json", *about["files"]}
        == {
            "policy.json",
            "policy.onnx",
            "exploring.onnx",
            "density.onnx",
            "seen.npy",
        }
    )


def test_threads_may_share_a_policy(crane: Made) -> None:
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        assert np.array_equal(np.stack(list(pool.map(crane.exported, x))), np.stack([crane.exported(row) for row in x]))


def test_a_policy_that_remembers_is_judged_through_whole_episodes(tmp_path: Path) -> None:
    made = make(tmp_path, small("fql", chunk=3), "continuous")
    assert evaluate(made.exported, ENVS["continuous"], 2, 0).shape == (2,)


def copied(made: Made, where: Path) -> Path:
    where.mkdir()
    for file in made.directory.iterdir():
        (where / file.name).write_bytes(file.read_bytes())
    return where


def test_damage_is_named_with_what_to_do(crane: Made, tmp_path: Path) -> None:
    def refused(directory: Path) -> str:
        with pytest.raises(SegueError) as error:
            load_policy(directory)
        return str(error.value)

    assert "no exported policy here" in refused(tmp_path / "nowhere")
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    assert f"`segue export {tmp_path}/run --to FOLDER` wrote" in refused(tmp_path / "run")
    place = copied(crane, tmp_path / "x")
    for name in ("policy.onnx", "exploring.onnx", "density.onnx", "seen.npy"):
        content = (place / name).read_bytes()
        (place / name).write_bytes(content[:-1])
        assert f"{name}: damaged (its hash is not the one in policy.json" in refused(place)
        (place / name).unlink()
        assert f"{name}: cannot be read" in refused(place)
        (place / name).write_bytes(content)
    text = (place / "policy.json").read_text()
    (place / "policy.json").write_text(text.replace(f'"format": {FORMAT}', f'"format": {FORMAT - 1}'))
    assert f"format {FORMAT - 1}; this version of Segue reads {FORMAT}" in refused(place)
    (place / "policy.json").write_text(text.replace("3.0", "4.0"))
    assert "damaged or edited" in refused(place)
    for content in ("", "[]", "null", "{}", "\x00", "[" * 100_000):
        (place / "policy.json").write_text(content)
        assert "damaged, or not of an exported policy" in refused(place)


@given(st.data())
def test_no_flipped_bit_goes_unnoticed(
    crane: Made, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    place = copied(crane, tmp_path_factory.mktemp("flipped") / "x")
    file = place / data.draw(
        st.sampled_from(["policy.json", "policy.onnx", "exploring.onnx", "density.onnx", "seen.npy"])
    )
    content = bytearray(file.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(bytes(content))
    try:
        policy = load_policy(place)
    except SegueError:
        return
    assert policy.about == crane.exported.about, "white space, or another spelling of the same"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(carry=[{"dtype": "float32", "start": [0.0]}]),
        lambda d: d.update(carry=[{"dtype": "pickle", "start": 0}]),
        lambda d: d.pop("carry"),
        lambda d: d.pop("dependence"),
        lambda d: d["distribution"].update(greedy="density"),
        lambda d: d["files"].pop("density.onnx"),
        lambda d: d.pop("action_space"),
        lambda d: d.update(observation_space={"type": "Box", "shape": [4]}),
        lambda d: d.update(observation_space={"type": "Graph"}),
        lambda d: d["action_space"].update(low=[1.0], high=[2.0]),
        lambda d: d["action_space"].update(low=[9.0, 9.0]),
        lambda d: d["action_space"].update(type="Discrete", n=4, start=0),
    ],
)
def test_parts_that_do_not_fit_are_refused_though_the_hashes_are_right(
    crane: Made, tmp_path: Path, change: Any
) -> None:
    place = copied(crane, tmp_path / "x")
    document = json.loads((place / "policy.json").read_text())
    change(document)
    document["sha256"] = digest(document)
    (place / "policy.json").write_text(json.dumps(document))
    with pytest.raises(SegueError, match="do not fit together"):
        load_policy(place)


def test_a_place_that_is_taken_or_cannot_be_written_is_left_as_it_is(crane: Made, tmp_path: Path) -> None:
    final = crane.directory.parent / "final"
    before = {file.name: file.read_bytes() for file in crane.directory.iterdir()}
    with pytest.raises(SegueError, match="already holds an exported policy; nothing was changed"):
        export_policy(final, crane.directory)
    assert before == {file.name: file.read_bytes() for file in crane.directory.iterdir()}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    (tmp_path / "file").touch()
    for taken in ("mine", "file"):
        with pytest.raises(SegueError, match="already holds something else"):
            export_policy(final, tmp_path / taken)
    with pytest.raises(SegueError, match="cannot be written"):
        export_policy(final, tmp_path / "file/x")
    (tmp_path / "empty").mkdir()
    export_policy(final, tmp_path / "empty")
    again = {file.name: file.read_bytes() for file in (tmp_path / "empty").iterdir()}
    assert again == before, "the same bytes every time"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "mine"], "nothing is left over"


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_its_packages_an_export_says_how_to_get_them(
    crane: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "segue.deployment.translate")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SegueError, match=r"onnxruntime: pip install 'segue\[export\]'"):
        export_policy(crane.directory.parent / "final", tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_the_command_line_exports_evaluates_and_collects(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    flags = ["--env", "Pendulum-v1", "--online", "sac", "--online.hidden-sizes", "8", "--online.batch-size", "16"]
    flags += ["--online-steps", "20", "--warmup-steps", "10", "--eval-every", "20", "--eval-episodes", "1"]
    assert main(["run", *flags, "--seeds", "2", "--workers", "1", "--out", str(run)]) == 0
    place = str(tmp_path / "policy")

    def error(*arguments: str) -> str:
        capsys.readouterr()
        assert main([*arguments]) == 2
        return capsys.readouterr().err

    assert "run/seed-0, run/seed-1; choose by --arm and --seed" in error("export", str(run), "--to", place)
    assert "unknown arm 'rum': did you mean 'run'?" in error("export", str(run), "--arm", "rum", "--to", place)
    final = str(run / "checkpoints/run/seed-1/final")
    assert "is one checkpoint" in error("export", final, "--seed", "1", "--to", place)
    assert main(["export", str(run), "--seed", "1", "--to", place]) == 0
    assert "policy.onnx" in capsys.readouterr().out
    provenance = load_policy(place).about["provenance"]
    assert provenance["checkpoint"] == "run/seed-1/final"
    assert provenance["recipe"]["online"]["name"] == "sac"

    returns = []
    for policy in (final, place):
        capsys.readouterr()
        assert main(["evaluate", policy, "--episodes", "2", "--json"]) == 0
        returns.append(json.loads(capsys.readouterr().out)[0]["returns"])
    np.testing.assert_allclose(*returns, rtol=1e-6)
    assert "expected the same" in error("evaluate", place, "--env", "CartPole-v1")
    other = error("evaluate", place, "--offline", "--dataset", "segue:hopper-mixed")
    assert "the policy has 3 observation dimensions and 1 action dimensions" in other
    log = tmp_path / "log.npz"
    assert (
        main(["collect", f"{place}:30", "--env", "Pendulum-v1", "--max-episode-steps", "10", "--to", f"npz:{log}"]) == 0
    )
    with np.load(log) as columns:
        assert np.isfinite(columns["behaviour_log_prob"]).all(), (
            "an exported policy knows how probable its actions were"
        )
    judged = []
    for policy in (final, place):
        capsys.readouterr()
        flags = ["--offline", "--explore", "--dataset", f"npz:{log}", "--method", "wis", "--json"]
        assert main(["evaluate", policy, *flags]) == 0
        judged.append(json.loads(capsys.readouterr().out)[0]["estimates"][0]["value"])
    assert judged[1] == pytest.approx(judged[0], rel=1e-3)


def test_without_an_environment_actions_have_the_unit_of_the_dataset(tmp_path: Path) -> None:
    np.savez(tmp_path / "log.npz", **{**pendulum_log(), "action_low": [-4.0], "action_high": [2.0]})
    log = f"npz:{tmp_path / 'log.npz'}"
    recipe = segue.Recipe(dataset=log, env="none", offline=segue.BC(hidden_sizes=(8,), batch_size=16), offline_steps=4)
    result = segue.run(recipe, tmp_path / "run", workers=1)
    made = export_policy(result.checkpoint(), tmp_path / "policy")
    assert "actions have the unit of the dataset" in made.notes[0]
    observations = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    np.testing.assert_allclose(made.policy(observations), -1 + 3 * result.policy()(observations), atol=1e-5)
    learnt_from = segue.load(log)
    low, high = learnt_from.observations.min(0).tolist(), learnt_from.observations.max(0).tolist()
    require_fit(made.policy, "Pendulum-v1")
    with pytest.raises(SegueError, match=r"exported for \(3, 1\), SegueTestSwitch-v0 has \(3, 4\); expected the same"):
        require_fit(made.policy, "SegueTestSwitch-v0")
    assert made.policy.about["observed"] == {"low": low, "high": high, "episodes": len(learnt_from.episode_starts)}


def test_a_model_that_is_none_and_a_source_that_draws_nothing_are_named(switch: Made) -> None:
    with pytest.raises(SegueError, match="onnxruntime cannot read the model"):
        Model(b"no model")
    with pytest.raises(
        SegueError, match="the source is 3; expected a NumPy generator, from which exported policies draw"
    ):
        switch.exported.act(np.zeros((1, 3), np.float32), switch.exported.start(1), 3, True)


class Knobs(Switch):
    """Two knobs with two positions each."""

    action_space = gym.spaces.MultiDiscrete([2, 2])


class Table(Crane):
    """Two numbers in a table of one row."""

    observation_space = gym.spaces.Box(-9, 9, (3,))
    action_space = gym.spaces.Box(-1, 1, (1, 2))


for name, env in (("SegueTestKnobs-v0", Knobs), ("SegueTestTable-v0", Table)):
    gym.register(name, env, disable_env_checker=True)


@pytest.mark.parametrize(
    ("algorithm", "kind", "env", "note"),
    [
        (
            "dqn",
            "discrete",
            "SegueTestKnobs-v0",
            "an action is the number of a combination: numpy.unravel_index(action",
        ),
        ("bc", "continuous", "SegueTestTable-v0", "an action is flat: reshape it to (1, 2)"),
    ],
)
def test_an_application_is_told_how_an_action_becomes_the_environments(
    algorithm: str, kind: str, env: str, note: str, tmp_path: Path
) -> None:
    assert any(note in said for said in make(tmp_path, algorithm, kind, env=env).notes)
