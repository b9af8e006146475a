"""Images from end to end: environments, datasets, both phases, evaluation, export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import segue
from segue.data import load, npz
from segue.data.dataset import Columns, Dataset
from segue.data.inspection import inspect
from segue.deployment import load_policy
from segue.deployment.export import export_policy
from segue.envs import Episodes, environment_spaces, make, spaces_of
from segue.envs.record import as_columns, record
from segue.errors import DataError, RecipeError
from segue.evaluation import evaluate
from segue.runner.checkpoint import load as load_checkpoint
from segue.training import online
from toys import SIDE, SPOT


def small(**changes: Any) -> dict[str, Any]:
    return {"hidden_sizes": (32,), "batch_size": 32, **changes}


def log(env_id: str, rows: int = 200) -> Columns:
    return as_columns(record(None, env_id, rows, explore=True, seed=0, part=0), env_id)


def test_image_spaces_are_known_by_their_shape_and_stay_bytes() -> None:
    assert environment_spaces(SPOT) == segue.core.Spaces(120, 1, image=(12, 10))
    episodes = Episodes(SPOT, 2, 0, "test")
    following, *_ = episodes.step(np.zeros((2, 1), np.float32))
    assert episodes.observation.dtype == following.dtype == np.uint8
    episodes.close()


def test_frames_are_stacked_by_gymnasiums_wrapper() -> None:
    gym.register("Stacked-v0", lambda: gym.wrappers.FrameStackObservation(gym.make(SPOT), 3))
    assert environment_spaces("Stacked-v0").image == (3, 12, 10)
    del gym.registry["Stacked-v0"]


def test_vectors_of_bytes_are_no_images() -> None:
    env = gym.wrappers.FlattenObservation(gym.make(SPOT))
    gym.register("Flat-v0", lambda: env)
    assert spaces_of(make("Flat-v0")).observation_size == 120
    del gym.registry["Flat-v0"]


@pytest.mark.parametrize("layout", [(12, 10), (12, 10, 1), (1, 12, 10)])
def test_a_dataset_of_images_is_stored_as_bytes_and_written_as_it_was_read(layout: Any, tmp_path: Path) -> None:
    columns = log(SPOT, 20)
    shaped = {name: getattr(columns, name).reshape(-1, *layout) for name in ("observations", "next_observations")}
    dataset = Dataset.from_columns(dataclasses.replace(columns, **shaped), "made")
    assert dataset.spaces.image == layout
    assert dataset.observations.dtype == dataset.next_observations.dtype == np.uint8
    rows = dataset.transitions(0.99, dataset.normaliser())
    assert np.shares_memory(rows.observation, dataset.observations)
    npz.write(tmp_path / "x.npz", dataset.columns())
    again = load(f"npz:{tmp_path / 'x.npz'}")
    assert (again.spaces, again.fingerprint()) == (dataset.spaces, dataset.fingerprint())


def test_a_recording_of_images_has_the_spaces_of_its_environment() -> None:
    assert Dataset.from_columns(log(SPOT, 10), "made").spaces == environment_spaces(SPOT)


def test_next_observations_of_another_type_are_refused() -> None:
    columns = log(SPOT, 10)
    assert columns.next_observations is not None
    wrong = dataclasses.replace(columns, next_observations=columns.next_observations / 255)
    with pytest.raises(DataError, match="'next_observations' holds float64 of shape \\(10, 12, 10\\)"):
        Dataset.from_columns(wrong, "made")


def test_an_inspection_says_what_images_there_are() -> None:
    inspection = inspect(Dataset.from_columns(log(SPOT, 20), "made"))
    assert inspection.image == (12, 10)
    assert not any("observation" in problem.found for problem in inspection.problems)


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """Pretrained on random actions, and fine-tuned; and what the online phase learnt from."""
    out, replays = tmp_path_factory.mktemp("learnt") / "x", []

    class Watched(online.Agent):  # type: ignore[name-defined]
        def take_in(self) -> None:
            super().take_in()
            replays[:] = [self.replay]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "Agent", Watched)
        result = segue.run(
            segue.Recipe(
                dataset=Dataset.from_columns(log(SIDE), "made"),
                env=SIDE,
                offline=segue.DQN(**small(discount=0.0, critic_learning_rate=1e-3)),
                offline_steps=50,
                online=segue.DQN(**small(discount=0.0)),
                online_steps=100,
                warmup_steps=50,
                eval_every=50,
                eval_episodes=10,
                held_out=0.0,
            ),
            out,
            workers=1,
        )
    assert result.status == "complete", result.summary["arms"]["run"]["seeds"]["0"]["error"]
    return out, replays


def test_a_policy_learns_from_images_and_is_handed_over(learnt: Any) -> None:
    """Always the same action earns −1 on average, since the wrong side costs 3."""
    policy = load_checkpoint(next(learnt[0].glob("checkpoints/offline*/seed-0/final"))).policy()
    assert evaluate(policy, SIDE, 40, seed=1).mean() > 0.8
    policy = load_checkpoint(learnt[0] / "checkpoints/run/seed-0/final").policy()
    assert evaluate(policy, SIDE, 40, seed=1).mean() > 0.8


def test_the_ring_holds_bytes(learnt: Any) -> None:
    (replay,) = learnt[1]
    for part in (replay.offline, replay.online):
        assert part.observation.dtype == part.next_observation.dtype == np.uint8
    assert replay.online.observation[0].any()


def test_an_exported_policy_sees_the_environments_own_images(learnt: Any, tmp_path: Path) -> None:
    final = learnt[0] / "checkpoints/run/seed-0/final"
    export_policy(final, tmp_path / "exported")
    exported, policy = load_policy(tmp_path / "exported"), load_checkpoint(final).policy()
    pictures = np.stack([gym.make(SPOT).reset(seed=seed)[0] for seed in range(20)])
    np.testing.assert_array_equal(exported(pictures), policy(pictures.reshape(20, -1)))


def test_what_cannot_do_with_images_is_refused_in_a_sentence() -> None:
    dataset = Dataset.from_columns(log(SPOT, 20), "made")
    with pytest.raises(RecipeError, match="samg models observations"):
        segue.Recipe(
            dataset=dataset,
            env=SPOT,
            offline=segue.IQL(**small()),
            offline_steps=5,
            online=segue.IQL(**small()),
            online_steps=10,
            warmup_steps=1,
            bridges=(segue.SAMG(),),
            replay=segue.OnlineOnly(),
        ).check_fit(dataset, dataset.spaces)


@pytest.mark.slow
def test_cartpole_is_learnt_from_pixels(tmp_path: Path) -> None:
    """The dataset's episodes earn 57 on average."""
    from studies.pixels.__main__ import recipe

    result = segue.run(dataclasses.replace(recipe(1), online=None, online_steps=0), tmp_path / "x", workers=1)
    seed = result.summary["arms"]["run"]["seeds"]["0"]
    assert seed["final_score"] > 120
