"""`segue watch`: a video of a policy, and a sentence where there can be none."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import imageio
import numpy as np
import pytest
from gymnasium.envs.classic_control import PendulumEnv

import segue
from segue.cli.main import main
from toys import SMALL


class Drawn(PendulumEnv):
    """Pendulum without pygame: the picture's brightness is the number of the step."""

    def reset(self, **options: object) -> object:
        self.time = 0
        return super().reset(**options)

    def step(self, action: object) -> object:
        self.time += 1
        return super().step(action)

    def render(self) -> object:
        if self.render_mode != "rgb_array":
            raise ValueError("no pictures were asked for")
        return np.full((16, 16, 3), 10 * self.time, np.uint8)


class NoDriver(Drawn):
    def render(self) -> object:
        raise RuntimeError("no driver")


class Blind(Drawn):
    metadata = {"render_modes": ["human"]}  # noqa: RUF012 - Gymnasium's own form


class Mute(Exception):
    """PyOpenGL's errors may fail to describe themselves."""

    def __str__(self) -> str:
        raise TypeError("no description of this error")


class NoWords(Drawn):
    def render(self) -> object:
        raise Mute


class NoScreen(Drawn):
    def render(self) -> object:
        exec(compile("raise OSError('no EGL device')", "site-packages/mujoco/egl/__init__.py", "exec"))


for name, env in (
    ("Drawn", Drawn),
    ("NoDriver", NoDriver),
    ("Blind", Blind),
    ("NoWords", NoWords),
    ("NoScreen", NoScreen),
):
    gym.register(f"SegueTest{name}-v0", env, max_episode_steps=5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = segue.Recipe(
        env="SegueTestDrawn-v0",
        online=segue.SAC(**SMALL),
        online_steps=20,
        warmup_steps=10,
        eval_every=20,
        eval_episodes=1,
    )
    return segue.run(recipe, tmp_path_factory.mktemp("film") / "x", workers=1).directory


def test_a_video_shows_every_step_of_every_episode(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "out.gif"
    assert main(["watch", str(run), "--video", str(film), "--episodes", "2"]) == 0
    brightness = [int(frame.mean().round()) for frame in imageio.mimread(film)]
    assert brightness == [0, 10, 20, 30, 40, 50] * 2
    assert capsys.readouterr().out.count("return -") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out.gif"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--video", "x.txt"], "expected a file that ends in .mp4 or .gif"),
        (["--video", "nowhere/x.gif"], "its folder does not exist"),
        (["--video", "x.gif", "--episodes", "0"], "--episodes is 0; expected at least 1"),
        (["--video", "x.gif", "--arm", "rnu"], "did you mean 'run'"),
        (["--video", "x.gif", "--env", "SegueTestNoDriver-v0"], "cannot be drawn: RuntimeError: no driver"),
        (["--video", "x.gif", "--env", "SegueTestNoWords-v0"], "cannot be drawn: Mute: no description"),
        (["--video", "x.gif", "--env", "SegueTestNoScreen-v0"], "no EGL device; MUJOCO_GL is "),
        (["--video", "x.gif", "--env", "SegueTestBlind-v0"], "draws no pictures: it has no render mode 'rgb_array'"),
        (["--video", "x.mp4"], "x.mp4: .mp4 needs a package that is not installed: pip install 'segue[video]'"),
    ],
)
def test_what_cannot_be_filmed_is_a_sentence_and_no_file(
    flags: list[str],
    message: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segue.envs.film.importlib.util.find_spec", lambda name: None)
    assert main(["watch", str(run), *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_cannot_be_written_leaves_nothing_behind(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out.gif").mkdir()
    assert main(["watch", str(run), "--video", str(tmp_path / "out.gif"), "--episodes", "1"]) == 2
    assert "out.gif: cannot be written: [Errno 21] Is a directory" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out.gif"]


def test_an_episode_without_an_end_is_not_filmed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("segue.envs.film.MAX_EPISODE_STEPS", 3)
    assert main(["watch", str(run), "--video", str(tmp_path / "out.gif")]) == 2
    assert "an episode had not ended after 3 steps; give --max-episode-steps" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
