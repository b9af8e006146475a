"""examples/robotics: the changed world is changed where it says, and the short form ends in tables and a figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from examples.robotics import page, pushing
from examples.robotics.__main__ import main
from examples.robotics.pusher import Pusher
from examples.robotics.trials import trials
from examples.robotics.worlds import ACHIEVED, DESIRED, GRIPPER, OBJECT, push

from segue.envs.make import shape

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def test_only_the_friction_and_the_mass_of_the_block_are_changed() -> None:
    plain, changed = push(), push(friction=0.2, mass=3.0)
    models = [env.unwrapped.model for env in (plain, changed)]
    block = mujoco.mj_name2id(models[0], mujoco.mjtObj.mjOBJ_GEOM, "object0")
    others = np.arange(models[0].ngeom) != block
    frictions = [model.geom_friction for model in models]
    assert frictions[1][block].tolist() == pytest.approx([0.2, *frictions[0][block][1:]])
    np.testing.assert_array_equal(frictions[0][others], frictions[1][others])
    body = models[0].geom_bodyid[block]
    masses = [model.body_mass for model in models]
    assert masses[1][body] == pytest.approx(3 * masses[0][body])
    assert masses[1].sum() - masses[0].sum() == pytest.approx(2 * masses[0][body])


def test_the_parts_of_a_flat_observation_lie_where_the_controller_looks() -> None:
    env = shape(push(), "push")
    flat, _ = env.reset(seed=3)
    raw = env.unwrapped._get_obs()
    np.testing.assert_allclose(flat[ACHIEVED], raw["achieved_goal"], atol=1e-6)
    np.testing.assert_allclose(flat[DESIRED], raw["desired_goal"], atol=1e-6)
    np.testing.assert_allclose(flat[GRIPPER], raw["observation"][:3], atol=1e-6)
    np.testing.assert_allclose(flat[OBJECT], raw["observation"][3:6], atol=1e-6)


def test_the_controller_pushes_the_block_home_and_on_the_slick_table_too_far() -> None:
    fast = Pusher(noise=0.0, gain=1.0)
    there, changed = (trials(fast, world, pushing.SUCCESS, 6, 1) for world in (pushing.SIMULATOR, pushing.CHANGED))
    assert there["success"] >= 0.6
    assert changed["success"] <= 0.5
    assert changed["ever"] > changed["success"]  # it gets there, and slides on


@pytest.mark.slow
def test_the_short_form_of_pushing_ends_in_tables_and_a_figure(tmp_path: Path) -> None:
    found = pushing.run(tmp_path, pushing.SHORT, workers=1)
    assert set(found["arms"]) == set(pushing.arms(f"npz:{tmp_path}/demonstrations.npz", pushing.SHORT, 0))
    for seeds in found["arms"].values():
        assert [[point["step"] for point in seed["points"]] for seed in seeds] == [[0, 50, 100]] * 2
    starts = [found["arms"][arm][0]["points"][0]["deployed"] for arm in (pushing.PLAIN, "promotion")]
    assert starts[0] == starts[1]  # they start from the same clone
    assert "| plain fine-tuning |" in page.tables({"pushing": found})["pushing"]
    page.draw({"pushing": found}, tmp_path / "robotics.png")
    assert (tmp_path / "robotics.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "lerobot-g1").exists(), reason="needs a LeRobot sample")
def test_the_exported_clone_is_compared_on_every_episode_left_out(tmp_path: Path) -> None:
    arguments = ["--skip-pushing", "--lerobot", str(DATA / "lerobot-g1"), "--out", str(tmp_path)]
    assert main(arguments) == 0
    found: dict[str, Any] = json.loads((tmp_path / "results.json").read_text())["humanoid"]
    for part, joints in found["joints"].items():
        errors = found["errors"][part]
        assert joints in (12, 14)
        assert {len(of_episodes) for of_episodes in errors.values()} == {found["episodes"]}
        assert np.mean(errors["action of the step before"]) < np.mean(errors["mean action"])


def test_a_file_that_is_not_there_ends_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--skip-pushing", "--lerobot", str(tmp_path / "none"), "--out", str(tmp_path)]) == 2
    assert "there is no such folder" in capsys.readouterr().err
