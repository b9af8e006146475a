"""Learning from a dataset on disk is learning from the same dataset in memory, to the bit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import segue
from segue.algorithms.base import Algorithm
from segue.chunks import sequence_batch
from segue.conformance import copy_of, dataset, learner_of, same_bits, small, spaces_of
from segue.core import Normaliser, Spaces
from segue.data import mapped
from segue.data.dataset import Dataset
from segue.errors import RecipeError
from segue.replay import REPLAYS, Replay, append
from segue.replay.on_disk import OnDisk, transitions_of
from segue.runner.start import check_on_disk
from segue.training.update import Updates, run_updates, train
from toys import REACH, pendulum, pendulum_log

#: An algorithm for every column that not all of them learn from.
NAMES = ("td3-bc", "cal-ql", "rebrac", "fql", "cql-lagrangian", "discrete-cql")


def logged(spaces: Spaces) -> Dataset:
    made = dataset(spaces)
    following = made.observations[made.next_rows()]
    joined = (made.next_rows() >= 0)[:, None]
    masks = np.ones((len(made), spaces.action_size), bool) if spaces.discrete else None
    return dataclasses.replace(
        made, next_observations=np.where(joined, following, made.next_observations), allowed_actions=masks
    )


def both(algorithm: Algorithm, path: Path, **options: Any) -> tuple[Replay, Replay]:
    """The replay of a dataset in memory, and of the same on disk."""
    spaces = spaces_of(algorithm)
    log, normaliser = logged(spaces), Normaliser.identity(spaces.observation_size)
    on_disk = transitions_of(algorithm, mapped.write(path, [log]), normaliser)
    assert isinstance(on_disk, OnDisk)
    return tuple(
        Replay.create(
            rows, options.get("capacity", 0), spaces, algorithm.chunk_length > 1, algorithm.needs_costs, spaces.discrete
        )
        for rows in (algorithm.transitions(log, normaliser), on_disk)
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_rows_of_a_batch_hold_what_they_hold_in_memory(name: str, tmp_path: Path) -> None:
    """Also the steps that follow them, and live transitions among them."""
    algorithm = dataclasses.replace(small(name), chunk=3) if name == "fql" else small(name)
    memory, disk = both(algorithm, tmp_path / "log", capacity=9)
    live = jax.tree.map(lambda column: np.asarray(column[:5]), memory.offline)
    live = live._replace(following=None if live.following is None else np.array([1, 2, -1, 4, -1], np.int32))
    memory, disk = append(memory, live), append(disk, live)
    rows = np.array([[0, 7, 8, 63], [64, 68, 31, 6]])
    length = algorithm.chunk_length
    window, places = disk.window(rows, length)
    unused = {"return_to_go"} - set(algorithm.columns)
    for drawn, there in zip(rows, places, strict=True):
        expected, found = memory.gather(drawn), window.gather(there)
        if length > 1:
            expected = sequence_batch(memory, jnp.asarray(drawn), expected, length, True)
            found = sequence_batch(window, there, found, length, True)
        for column in set(expected._fields) - unused - {"following"}:
            assert same_bits(getattr(expected, column), getattr(found, column)), column


@pytest.mark.parametrize("name", ["bc", *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES)])
def test_updates_from_disk_are_those_from_memory(name: str, tmp_path: Path) -> None:
    """In two dispatches, the second from rows that were read ahead."""
    algorithm = dataclasses.replace(small(name), chunk=2) if name == "fql" else small(name)
    memory, disk = both(algorithm, tmp_path / "log")
    key, now = jax.random.key(5), jnp.zeros(())
    ours = theirs = learner_of(algorithm)
    for _ in range(2):
        ours, _ = train(Updates(copy_of(ours), disk, key, 0.0, algorithm, blocks=3))
        theirs, _ = run_updates(copy_of(theirs), memory, key, now, algorithm, blocks=3)
        assert disk.disk is not None
        assert disk.disk.ahead is not None
    assert same_bits(ours, theirs)


def test_a_sample_for_what_fits_the_whole_dataset_is_the_dataset_where_it_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, disk = both(small("cal-ql"), tmp_path / "log")
    assert disk.disk is not None
    assert same_bits(disk.disk.sample(), jax.tree.map(np.asarray, memory.offline))
    monkeypatch.setattr("segue.replay.on_disk.EXCERPT", 20)
    assert 5 < len(disk.disk.sample().reward) <= 20


def recipe(path: Path, **changes: Any) -> segue.Recipe:
    uri = f"mapped:{path}"
    if not path.exists():
        mapped.write(path, [segue.load(pendulum_log())])
    return pendulum(**({"dataset": uri, "eval_episodes": 1, "held_out": 0.5} | changes))


def test_what_needs_the_dataset_in_memory_is_refused(tmp_path: Path) -> None:
    stateful = [name for name, cls in REPLAYS.items() if cls.needs_dataset and not cls.stateless()]
    assert {"balanced", "replaced"} <= set(stateful)
    for name in ("balanced", "replaced"):
        with pytest.raises(RecipeError, match=f"replay {name} keeps a number for every transition .* mixed"):
            segue.run(recipe(tmp_path / "log", replay=name), tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("replay", ["mixed", "appended", "annealed", "online-only"])
def test_a_run_from_disk_is_the_run_from_memory(tmp_path: Path, replay: str) -> None:
    log = tmp_path / "log"
    steps = {"offline_steps": 250, "online_steps": 200, "warmup_steps": 30, "eval_every": 100, "replay": replay}
    disk = recipe(log, bridges=(segue.QFilter(rule="average"),), **steps)
    memory = dataclasses.replace(disk, dataset=segue.load(pendulum_log()))
    digests = []
    for one, name in ((disk, "disk"), (memory, "memory")):
        found = sorted(segue.run(one, tmp_path / name).directory.glob("records/*/seed-0/result.json"))
        digests.append([json.loads(path.read_text())["parameters_sha256"] for path in found])
    assert digests[0] == digests[1]
    assert len(digests[0]) == 2


def test_hindsight_of_a_dataset_on_disk_is_refused_with_the_way_out(tmp_path: Path) -> None:
    on_disk = mapped.write(tmp_path / "log", [logged(Spaces(6, 2))])
    recipe = pendulum(env=REACH, dataset_hindsight=2, offline=segue.CalQL())
    with pytest.raises(RecipeError, match=r"dataset_hindsight copies the dataset with other goals, and .* lies on"):
        check_on_disk(recipe, on_disk)
    check_on_disk(recipe, logged(Spaces(6, 2)))
