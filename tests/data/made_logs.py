"""Logs made up for the tests: every observation in them is different, so any mix-up shows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from segue.data import Columns


class MadeEpisode(NamedTuple):
    observations: np.ndarray  # one row more than steps
    actions: np.ndarray
    rewards: np.ndarray
    terminal: bool


def make_episodes(endings, *, seed=0, observation_size=3, action_size=2):
    """One episode per (length, terminal) pair."""
    rng = np.random.default_rng(seed)
    return [
        MadeEpisode(
            rng.normal(size=(length + 1, observation_size)).astype(np.float32),
            rng.uniform(-1, 1, size=(length, action_size)).astype(np.float32),
            rng.normal(size=length).astype(np.float32),
            terminal,
        )
        for length, terminal in endings
    ]


def episodes(max_size=6):
    """Hypothesis strategy: a few episodes of 1 to 6 steps, ended by terminals and time-outs in any order."""
    endings = st.lists(st.tuples(st.integers(1, 6), st.booleans()), min_size=1, max_size=max_size)
    return st.builds(
        lambda endings, seed, size: make_episodes(endings, seed=seed, observation_size=size),
        endings,
        st.integers(0, 2**32 - 1),
        st.integers(1, 4),
    )


def as_dict(made, *, next_observations=True):
    """The episodes as a dict of arrays by D4RL's names."""
    last = np.concatenate([np.arange(len(e.rewards)) == len(e.rewards) - 1 for e in made])
    terminal = np.concatenate([np.full(len(e.rewards), e.terminal) for e in made])
    log = {
        "observations": np.concatenate([e.observations[:-1] for e in made]),
        "actions": np.concatenate([e.actions for e in made]),
        "rewards": np.concatenate([e.rewards for e in made]),
        "terminals": last & terminal,
        "timeouts": last & ~terminal,
    }
    if next_observations:
        log["next_observations"] = np.concatenate([e.observations[1:] for e in made])
    return log


def as_columns(made, **options):
    return Columns(**as_dict(made, **options))


def has_a_successor(made):
    """Whether any transition is left when only observations were logged."""
    return any(e.terminal or len(e.rewards) > 1 for e in made)


def same_log(left, right):
    """Whether two datasets hold exactly the same arrays."""
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "episode_starts")
    return all(np.array_equal(getattr(left, name), getattr(right, name)) for name in names)
