"""What may be an environment, and what a space means: refused in a sentence, or the same for everybody."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import PendulumEnv
from hypothesis import given
from hypothesis import strategies as st

import segue
from segue.acting import Stateless
from segue.cli.main import main
from segue.data.dataset import Columns, Dataset
from segue.envs import Environment, Episodes, environment_spaces, make
from segue.envs.episodes import number
from segue.envs.make import Looks, make_raw, same
from segue.envs.record import as_columns, record
from segue.envs.spaces import Actions
from segue.errors import DataError, RecipeError
from segue.evaluation import roll_out
from segue.recipe import Recipe
from segue.runner import _check, _environment_notes, _Loaded
from toys import PENDULUM, SMALL, Aim, pendulum_log

ONLINE: dict[str, Any] = {"online": segue.SAC(**SMALL), "online_steps": 20, "warmup_steps": 10, "eval_every": 10}


class Own(gym.Env):
    """Has the spaces that a test gives it, and pays one number in an array."""

    def __init__(self, actions: gym.Space | None = None, observations: gym.Space | None = None) -> None:
        self.action_space = actions or spaces.Box(-1, 1, (2,))
        self.observation_space = observations or spaces.Box(-1, 1, (3,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.time = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        assert action in self.action_space, action
        self.time += 1
        return self.observation_space.sample(), np.array([1.0]), self.time == 5, False, {}


gym.register("SegueTestOwn-v0", Own, max_episode_steps=7, disable_env_checker=True)


def moon(gravity: float = 1.6, *, limit: int = 30) -> gym.Env:
    """A function that makes an environment, with a limit of its own."""
    return gym.wrappers.TimeLimit(PendulumEnv(g=gravity), limit)


HERE = __name__
#: Does nothing.
STILL = Stateless(lambda observation, source, explore: np.zeros((len(observation), 2), np.float32))


@pytest.mark.parametrize("env", [moon, f"{HERE}:moon"], ids=["function", "name"])
def test_a_function_or_its_name_makes_the_environment_with_its_arguments(env: Any):
    recipe = Recipe(env=env, env_kwargs={"limit": np.int64(12), "gravity": 2.5}, **ONLINE)
    assert (recipe.env, recipe.env_kwargs) == (f"{HERE}:moon", {"limit": 12, "gravity": 2.5})
    again = Recipe.from_dict(json.loads(json.dumps(recipe.to_dict())))
    assert again == recipe
    assert again.environment is not None
    made: Any = make(again.environment)
    assert made.unwrapped.g == 2.5
    assert made.spec.max_episode_steps == 12


def test_a_class_and_a_specification_are_written_by_name():
    assert Recipe(env=Aim, **ONLINE).env == "toys:Aim"
    spec = gym.make("Pendulum-v1", g=3.0, max_episode_steps=50).spec
    recipe = Recipe(env=spec, **ONLINE)
    assert (recipe.env, recipe.env_kwargs, recipe.max_episode_steps) == ("Pendulum-v1", {"g": 3.0}, 50)
    own = Recipe(env=gym.spec("SegueTestOwn-v0"), **ONLINE)
    assert own.env == "SegueTestOwn-v0"


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (Aim(), "env is an instance of toys:Aim; expected what makes one"),
        (lambda: Aim(), "define it at the top level of a module"),
        (3, "env is 3; expected a Gymnasium id"),
    ],
    ids=["instance", "lambda", "number"],
)
def test_what_no_worker_can_make_again_is_refused_with_the_way_out(env: Any, said: str):
    with pytest.raises(RecipeError, match=said):
        Recipe(env=env, **ONLINE)


def test_kwargs_that_json_cannot_hold_are_refused():
    with pytest.raises(RecipeError, match=r"env_kwargs: config is <object.*module:function"):
        Recipe(env="Pendulum-v1", env_kwargs={"config": object()}, **ONLINE)


def test_an_id_of_the_users_own_becomes_a_name_that_other_processes_understand():
    assert Environment("Pendulum-v1").portable() == Environment("Pendulum-v1")
    own = Environment("SegueTestOwn-v0", {"actions": None}).portable()
    assert own == Environment(f"{HERE}:Own", {"actions": None}, 7)
    gym.register("SegueTestPlain-v0", "gymnasium.envs.classic_control.pendulum:PendulumEnv", max_episode_steps=9)
    plain = Environment("SegueTestPlain-v0").portable()
    assert plain == Environment("gymnasium.envs.classic_control.pendulum:PendulumEnv", {}, 9)
    assert environment_spaces(plain) == environment_spaces("Pendulum-v1")


@pytest.mark.slow
def test_workers_find_what_lies_beside_a_script_and_what_is_in_it_is_refused_with_the_way_out(tmp_path: Path):
    (tmp_path / "beside.py").write_text("from toys import Aim\n\n\nclass Mine(Aim):\n    pass\n")
    (tmp_path / "script.py").write_text(
        "import sys, gymnasium as gym, segue\n"
        "from beside import Mine\n"
        "class Here(Mine): pass\n"
        "gym.register('Beside-v0', entry_point=Mine)\n"
        "SMALL = dict(hidden_sizes=(8, 8), batch_size=16)\n"
        "def run(env, out, **options):\n"
        "    recipe = segue.Recipe(env=env, seeds=2, eval_episodes=1, online_steps=20, warmup_steps=10,\n"
        "                          eval_every=20, online=segue.SAC(**SMALL))\n"
        "    try: return segue.run(recipe, out, **options).status\n"
        "    except segue.SegueError as error: return str(error)\n"
        "print(run('Beside-v0', 'a', workers=2), run(Here, 'c', workers=2), sep='\\n')\n"
    )
    path = os.pathsep.join([str(Path(segue.__file__).parents[1]), str(Path(__file__).parents[1])])
    (tmp_path / "elsewhere").mkdir()
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    beside, refused = done.stdout.splitlines()
    assert beside == "complete", done.stderr
    assert "'__main__:Here' is defined in the script" in refused
    assert "name it module:ID, or use workers=1" in refused


@pytest.mark.slow
def test_what_a_script_defines_itself_runs_with_several_seeds_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = type("Here", (Aim,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Here", here, raising=False)
    said: list[str] = []
    result = segue.run(
        Recipe(env=here, seeds=2, eval_episodes=1, **ONLINE),
        tmp_path / "x",
        on_event=lambda job, event: said.append(str(event.get("message"))),
    )
    assert result.status == "complete"
    assert any("'__main__:Here' is defined in the script" in message for message in said)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("SegueTestNone-v0", "One of your own is named MODULE:ID"),
        ("no_such_module:Env-v0", "module 'no_such_module' cannot be imported.*current folder"),
        ("toys:Aims", "did you mean 'Aim'"),
        ("toys.py:Aim", "name the module, not the file: toys:Aim"),
        ("toys:SMALL", "SMALL is no class or function"),
        ("dm_control/cheetah-run-v0", r"pip install 'shimmy\[dm-control\]'"),
        ("ALE/Pong-v5", r"pip install 'gymnasium\[atari\]'"),
    ],
)
def test_a_name_that_is_none_is_answered_with_what_to_do(env: str, said: str):
    with pytest.raises(RecipeError, match=said):
        make_raw(env)


def test_robotics_are_named_where_they_are_not_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None)
    monkeypatch.setattr(gym.envs.registration, "registry", {})
    monkeypatch.setattr(gym, "registry", {})
    with pytest.raises(
        RecipeError, match=r"gymnasium-robotics, which is not installed: pip install 'segue\[robotics\]'"
    ):
        make_raw("AntMaze_UMaze-v5")


def raising() -> gym.Env:
    raise ValueError("no\nlicence")


def needing(config: str) -> gym.Env:
    return Aim()


def nothing() -> None:
    return None


def without_its_simulator() -> gym.Env:
    raise gym.error.DependencyNotInstalled("box2d is not installed")


def without_its_package() -> gym.Env:
    raise ImportError("No module named 'robot'")


class Shapeless(gym.Env):
    action_space = Aim.action_space


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("without_its_simulator", "without_its_simulator' cannot be made: box2d is not installed"),
        ("without_its_package", "needs a package that is not installed: No module named 'robot'"),
        ("Shapeless", "Shapeless' has no observation_space; expected one of gymnasium.spaces"),
        ("raising", "cannot be made: ValueError: no licence$"),
        ("needing", "missing 1 required positional argument: 'config'.*--env-kwargs"),
        ("nothing", "must inherit from the gymnasium.Env class"),
    ],
)
def test_a_constructor_that_fails_is_one_line(name: str, said: str):
    with pytest.raises(RecipeError, match=said) as error:
        make(f"{HERE}:{name}")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("plain", [3, ["Pendulum-v1"], {"name": "Pendulum-v1", "speed": 2}, {"kwargs": {}}])
def test_what_describes_no_environment_is_refused(plain: Any):
    with pytest.raises(RecipeError, match="describes no environment; expected a name, or name and kwargs"):
        Environment.read(plain)


def test_wrappers_that_are_not_described_and_a_specification_of_nothing_are_refused():
    with pytest.raises(RecipeError, match=r"env_wrappers: .*; expected name, entry_point and kwargs of each"):
        make(Environment("Pendulum-v1", wrappers=({"wrapper": "Clip"},)))
    with pytest.raises(RecipeError, match=r"'Nothing-v0': its EnvSpec has no entry_point; expected module:Class"):
        Environment.of(gym.envs.registration.EnvSpec("Nothing-v0"))


def test_what_cannot_be_made_here_or_says_nothing_of_itself_is_no_environment_twice():
    pendulum, look = Environment("Pendulum-v1"), Looks()
    assert same(pendulum, Environment("gymnasium.envs.classic_control.pendulum:PendulumEnv", {}, 200), look)
    assert not same(pendulum, Environment("NoSuch-v0"), look)


ACTIONS = st.one_of(
    st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3)),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(lambda n: spaces.MultiDiscrete(n, start=[2] * len(n))),
    st.just(spaces.MultiDiscrete([[2, 3], [1, 2]])),
    st.integers(1, 4).map(spaces.MultiBinary),
    st.just(spaces.Box(-2.0, 3.0, (), np.float32)),
    st.just(spaces.Box(-2.0, 3.0, (2, 2), np.float64)),
    st.just(spaces.Box(np.array([0, -4]), np.array([7, -4]), dtype=np.int64)),
    st.just(spaces.Box(np.array([0.0, 1.0]), np.array([2.0, 1.0]), dtype=np.float32)),
    st.just(spaces.Box(0, 255, (3,), np.uint8)),
)


@given(space=ACTIONS, seed=st.integers(0, 99))
def test_a_logged_action_and_the_live_one_are_the_same(space: gym.Space, seed: int):
    """What a policy would do to repeat a logged action is that action."""
    space.seed(seed)
    actions = Actions.of(space, "here")
    logged = np.stack([space.sample() for _ in range(4)])
    dataset = Dataset.from_columns(
        Columns(
            observations=np.zeros((4, 1)),
            actions=actions.from_environment(logged),
            rewards=np.zeros(4),
            terminals=np.ones(4),
            action_bounds=None if actions.low is None or actions.high is None else (actions.low, actions.high),
            discrete_actions=actions.size if actions.discrete else None,
        ),
        "test",
    )
    env = make_of(space)
    assert (dataset.spaces.discrete, dataset.spaces.action_size) == (actions.discrete, actions.size)
    again = [env.action(action) for action in dataset.actions]
    np.testing.assert_allclose(np.stack(again), logged, rtol=1e-5, atol=1e-5)


def make_of(space: gym.Space) -> Any:
    """An object whose `action` is what the environment gets."""

    class Chain:
        def __init__(self) -> None:
            self.start = getattr(space, "start", 0) if isinstance(space, spaces.Discrete) else 0
            self.env = Actions.of(space, "here").shaped(Own(space))

        def action(self, action: Any) -> Any:
            return self.env.action(action) if isinstance(self.env, gym.ActionWrapper) else action + self.start

    return Chain()


def odd(kind: str) -> gym.Env:
    """An environment with a space that is out of the ordinary."""
    box = spaces.Box(-1, 1, (2,))
    return {
        "counts": lambda: Own(spaces.MultiDiscrete([3, 2])),
        "torques": lambda: Own(spaces.Box(-5, 5, (2,), np.int32)),
        "stuck": lambda: Own(spaces.Box(np.array([-2.0, 1.0], np.float32), np.array([2.0, 1.0], np.float32))),
        "scalar": lambda: Own(spaces.Box(-2.0, 2.0, ()), spaces.Box(-1.0, 1.0, ())),
        "grid": lambda: Own(spaces.Box(-2.0, 2.0, (2, 2))),
        "nested": lambda: Own(
            spaces.Discrete(2, start=1),
            spaces.Dict(a=spaces.Tuple([box, spaces.Discrete(3)]), b=spaces.MultiDiscrete([2, 2])),
        ),
        "infinite": lambda: Own(spaces.Box(-np.inf, np.inf, (2,))),
        "huge": lambda: Own(spaces.MultiBinary(20)),
        "constant": lambda: Own(spaces.Box(np.ones(1, np.float32), np.ones(1, np.float32))),
        "words": lambda: Own(box, spaces.Dict(said=spaces.Text(5))),
        "points": lambda: Own(box, spaces.Sequence(box)),
    }[kind]()


@pytest.mark.parametrize("kind", ["counts", "torques", "stuck", "scalar", "grid", "nested"])
def test_an_odd_space_is_acted_in_recorded_and_read_again(kind: str):
    environment = Environment(f"{HERE}:odd", {"kind": kind})
    episodes = Episodes(environment, 2, 0, "test")
    actions = episodes.envs[0].action_space
    size = episodes.spaces.action_size
    action = np.zeros(2, np.int32) if isinstance(actions, spaces.Discrete) else np.full((2, size), 0.3, np.float32)
    following, reward, *_ = episodes.step(action)
    assert (episodes.bad, reward.tolist()) == (0, [1.0, 1.0])
    assert np.isfinite(following).all()
    episodes.close()
    columns = as_columns(record(None, environment, 12, explore=True, seed=0, part=0), environment)
    dataset = Dataset.from_columns(columns, "test")
    assert dataset.spaces == environment_spaces(environment)
    assert dataset.environment == environment
    assert (dataset.behaviour_log_prob is None) == (kind == "torques")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("infinite", "is unbounded; expected finite bounds: wrap it"),
        ("huge", "has 1,048,576 combinations; expected at most 4,096"),
        ("constant", "leaves nothing to choose"),
        ("words", "entry 'said': the observations are a Text; expected Box"),
        ("points", "the observations are a Sequence"),
    ],
)
def test_a_space_that_cannot_be_used_is_refused_when_the_environment_is_made(kind: str, said: str):
    with pytest.raises(RecipeError, match=said):
        environment_spaces(Environment(f"{HERE}:odd", {"kind": kind}))


def first_action(start: int) -> gym.Env:
    return Own(spaces.Discrete(3, start=start))


def log_of_integers(actions: np.ndarray, **more: Any) -> dict[str, Any]:
    return {
        "observations": np.zeros((len(actions), 3)),
        "actions": actions,
        "rewards": np.zeros(len(actions)),
        "terminals": np.ones(len(actions)),
        **more,
    }


@pytest.mark.parametrize(
    ("start", "logged", "learnt"), [(0, [0, 1], [0, 1]), (1, [1, 2], [0, 1]), (1, [1, 2, 3], [0, 1, 2])]
)
def test_the_environment_settles_what_the_integers_of_a_dataset_mean(start: int, logged: Any, learnt: Any):
    recipe = Recipe(
        dataset=log_of_integers(np.array(logged)),
        env=first_action,
        env_kwargs={"start": start},
        offline=segue.DiscreteCQL(),
        offline_steps=1,
    )
    dataset = _check("run", recipe, Path("x"), Looks(), _Loaded())[1]
    assert dataset is not None
    assert (dataset.actions.tolist(), dataset.spaces.action_size) == (learnt, 3)
    wrong = log_of_integers(np.array([0, 3]))
    if start:
        with pytest.raises(DataError, match="'actions' goes from 0 to 3, the environment's from 1 to 3"):
            segue.load(wrong).in_space(spaces.Discrete(3, start=1))


def endless() -> gym.Env:
    class Endless(Own):
        def step(self, action: Any) -> Any:
            return self.observation_space.sample(), 0.0, False, False, {}

    return Endless()


def test_an_environment_without_a_time_limit_is_noticed_in_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("segue.evaluation.rollout.UNLIMITED_STEPS", 40)
    environment = Environment(f"{HERE}:endless")
    with pytest.raises(RecipeError, match=r"ended after 40 steps, and it has no time limit.*--max-episode-steps N"):
        roll_out(STILL, environment, 2, 0)
    later = roll_out(STILL, environment, 2, 0, must_end=False)
    assert [len(rewards) for rewards in later.rewards] == [40, 40]
    cut = roll_out(STILL, Environment(environment.name, max_episode_steps=15), 2, 0)
    assert [len(rewards) for rewards in cut.rewards] == [15, 15]
    (note,) = _environment_notes(Recipe(env=environment.name, **ONLINE), None, Looks())
    assert "has no time limit" in note


@pytest.fixture
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_dataset_of_minari_names_its_whole_environment(minari_root: Path):
    import minari

    env = gym.make("Pendulum-v1", g=3.0, max_episode_steps=20)
    collector = minari.DataCollector(gym.wrappers.ClipReward(env, -5.0, 5.0))
    for seed in range(2):
        collector.reset(seed=seed)
        for _ in range(20):
            collector.step(env.action_space.sample())
    made = collector.create_dataset(
        "moon-v0", algorithm_name="random", code_permalink="-", author="-", author_email="-"
    )
    dataset = segue.load("minari:moon-v0")
    offline: dict[str, Any] = {"offline": segue.BC(), "offline_steps": 1, "dataset": dataset}
    checked, _ = _check("run", Recipe(**offline), Path("x"), Looks(), _Loaded())
    assert (checked.env, checked.env_kwargs, checked.max_episode_steps) == ("Pendulum-v1", {"g": 3.0}, 20)
    assert [wrapper["name"] for wrapper in checked.env_wrappers] == ["ClipReward"]
    live: Any = make_raw(checked.environment)
    assert live.unwrapped.g == 3.0
    assert live.spec.additional_wrappers == made.recover_environment().spec.additional_wrappers
    assert (
        "is the dataset's: Pendulum-v1 (g=3.0, max_episode_steps=20" in _environment_notes(checked, dataset, Looks())[0]
    )
    other, _ = _check("run", Recipe(env="Pendulum-v1", **offline), Path("x"), Looks(), _Loaded())
    assert "they differ" in _environment_notes(other, dataset, Looks())[0]
    assert segue.Recipe(env="none", **offline).environment_with(dataset) is None


def test_the_command_line_reaches_an_environment_in_the_current_folder(
    minari_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(minari_root)
    (minari_root / "segue_test_beside.py").write_text(
        "import gymnasium as gym\nfrom toys import Aim\n\n\ndef aim(scale=1.0):\n    return Aim()\n\n\n"
        "gym.register('SegueTestBeside-v0', entry_point=aim, max_episode_steps=5)\n"
    )
    for i, name in enumerate(("SegueTestBeside-v0", "aim")):
        env = ["--env", f"segue_test_beside:{name}", "--env-kwargs", '{"scale": 2.0}', "--max-episode-steps", "3"]
        place = f"minari:test/aim{i}-v0"
        assert main(["collect", "random:20", *env, "--to", place]) == 0
        found = segue.load(place).environment
        assert found == Environment("segue_test_beside:aim", {"scale": 2.0}, 3)
        assert same(found, Environment(f"segue_test_beside:{name}", {"scale": 2.0}, 3), Looks())
    steps = ["--online", "sac", "--online-steps", "20", "--warmup-steps", "10", "--eval-every", "20"]
    small = ["--online.hidden-sizes", "8", "8", "--online.batch-size", "16", "--eval-episodes", "1"]
    assert main(["run", *env, *steps, *small, "--out", "run"]) == 0
    assert main(["evaluate", "run", "--episodes", "2", "--max-episode-steps", "2", "--json"]) == 0
    printed = capsys.readouterr().out
    judged = json.loads(printed[printed.index("[\n {") :])[0]["env"]
    assert judged == {"name": "segue_test_beside:aim", "kwargs": {"scale": 2.0}, "max_episode_steps": 2}
    assert main(["run", *env[:2], "--env-kwargs", "{scale: 2}", *steps, "--out", "other"]) == 2
    assert "which is no JSON" in capsys.readouterr().err


def test_no_environment_is_a_choice():
    log = {**pendulum_log(), "env_id": PENDULUM}
    recipe = segue.preset("auto", dataset=log, env="none")
    assert (recipe.online, recipe.environment_with(segue.load(log))) == (None, None)
    with pytest.raises(RecipeError, match="sac learns online, but env is none"):
        Recipe(env="none", **ONLINE)


def test_a_number_that_is_no_number_is_a_bad_step():
    assert number(np.array([[2]])) == 2.0
    with pytest.raises(segue.SegueError, match="expected one number"):
        number(np.ones(2))


def test_the_worked_example_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def small(part: str) -> list[str]:
        return [f"--{part}.hidden-sizes", "8", "8", f"--{part}.batch-size", "16"]

    page = (Path(__file__).parents[2] / "docs" / "environments.md").read_text()
    code, script = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    commands, *_ = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pole.py").write_text(code)
    collect, train = commands.replace("\\\n", "").strip().splitlines()
    assert main(shlex.split(collect)[1:]) == 0
    assert main([*shlex.split(train)[1:], "--eval-every", "200", *small("offline"), *small("online")]) == 0
    recipe = json.loads((tmp_path / "runs/pole/recipe.json").read_text())
    assert (recipe["env"], recipe["env_kwargs"], recipe["max_episode_steps"]) == ("pole:Pole", {"reach": 2.0}, 20)
    names: dict[str, Any] = {}
    exec(script, names)
    assert names["recipe"].environment == Environment("pole:Pole", {"reach": 2.0}, 20)
