"""The contestants of studies/peers in short: each library trains, and is evaluated where the study says."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("d3rlpy", reason="d3rlpy is not installed; `make peers` installs it apart")
pytest.importorskip("sbx", reason="SBX is not installed; `make peers` installs it apart")

from studies.peers.contestants import Budget, mdp_dataset, run

import segue

SHORT = Budget(offline_updates=40, live_steps=200, eval_every=20, eval_episodes=2)
#: d3rlpy's Cal-QL updates every thousand live steps only.
CAL_QL = dataclasses.replace(SHORT, live_steps=1_000, eval_every=40)


@pytest.fixture(autouse=True)
def _double_precision() -> None:
    """Not here: the other tests of peers have it, and SBX learns in single precision only."""


@pytest.mark.parametrize(
    ("arm", "budget"),
    [
        ("d3rlpy IQL", SHORT),
        ("d3rlpy TD3+BC", SHORT),
        pytest.param("d3rlpy Cal-QL", CAL_QL, marks=pytest.mark.slow),
        ("SBX SAC from scratch", SHORT),
        ("SB3 SAC from scratch", SHORT),
    ],
)
def test_a_peer_trains_and_is_evaluated_where_it_is_due(arm: str, budget: Budget) -> None:
    found = run("hopper-mixed", arm, 0, budget)
    offline, online = found["offline_evaluations"], found["online_evaluations"]
    due = range(budget.eval_every, budget.offline_updates + 1, budget.eval_every)
    assert [e["step"] for e in offline] == ([] if "scratch" in arm else list(due))
    assert [e["step"] for e in online] == list(range(0, budget.live_steps + 1, budget.eval_every))
    assert all(len(e["returns"]) == 2 for e in offline + online)
    assert online[0]["returns"] != online[-1]["returns"], "it has not learnt anything"
    times = [e["processor_s"] for e in offline + online]
    assert times == sorted(times)


def test_d3rlpy_gets_the_same_episodes_and_their_ends() -> None:
    data = segue.load("segue:hopper-mixed")
    episodes = mdp_dataset(data).episodes
    assert [episode.size() for episode in episodes] == data.episode_lengths.tolist()
    np.testing.assert_allclose([episode.compute_return() for episode in episodes], data.episode_returns, rtol=1e-5)
    ends = [episode.terminated for episode in episodes]
    assert ends == data.episode_terminals.tolist()
    assert 0 < sum(ends) < len(ends), "ends of both kinds"
