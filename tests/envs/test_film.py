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


for name, env in (("Drawn", Drawn), ("NoDriver", NoDriver)):
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
    assert main(["watch", str(run), *flags]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
