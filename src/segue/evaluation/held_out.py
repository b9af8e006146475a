"""How well a learner fits episodes that it has not learnt from: no live episode is needed."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from segue.algorithms.base import Algorithm
from segue.core import Nets, Normaliser, Transition, as_numbers
from segue.data.dataset import Dataset
from segue.errors import RecipeError

#: Rows that are compared at most, evenly spaced.
ROWS = 4096
#: Rows that pass through the networks at a time, which bounds the memory of images.
BLOCK = 256
#: Episodes that judge, at least: the standard error is computed over them.
EPISODES = 10
#: A return-to-go is compared if at most this share of its discounted weight lies behind the cut of its episode.
CUT_OFF = 0.2
#: What is measured of an algorithm with a critic, and of one without.
AGREEMENT, LOSS = "held_out_agreement", "held_out_loss"


class Fit(NamedTuple):
    """How well a learner fits the held-out episodes."""

    measure: str
    """`AGREEMENT` or `LOSS`."""
    value: float
    """The agreement, or the loss negated: higher is better."""
    parts: Float[np.ndarray, " episodes"]
    """What each episode adds to the value's deviation from that of endlessly many episodes."""

    @property
    def shown(self) -> float:
        """The agreement or the loss, as it is recorded."""
        return -self.value if self.measure == LOSS else self.value

    @property
    def tells(self) -> bool:
        """Whether anything is learnt: an agreement is above 0 by more than its standard error. A loss always tells."""
        return self.measure == LOSS or self.value > _standard_error(self.parts)

    def better_than(self, other: Fit) -> bool:
        """Whether it is higher by more than one standard error of the difference, on the same episodes."""
        return self.value - other.value > _standard_error(self.parts - other.parts)


def rank_correlation(
    one: Float[np.ndarray, " rows"], other: Float[np.ndarray, " rows"], episode: Int[np.ndarray, " rows"]
) -> Fit:
    """Spearman's rank correlation, 0 if one of them is constant; `episode` numbers the rows' episodes from 0.

    The parts are its influence function at the observed ranks, summed over the rows of an episode.
    """
    from scipy.stats import rankdata  # imported here, as its import takes a second and few runs need it

    x, y = (_standardised(rankdata(values)) for values in (one, other))
    value = float((x * y).mean())
    return Fit(AGREEMENT, value, np.bincount(episode, x * y - value * (x**2 + y**2) / 2) / len(x))


def negative_mean(losses: Float[np.ndarray, " rows"], episode: Int[np.ndarray, " rows"]) -> Fit:
    """−mean of the losses."""
    value = -float(losses.mean())
    return Fit(LOSS, value, np.bincount(episode, -losses - value) / len(losses))


def _standard_error(parts: Float[np.ndarray, " episodes"]) -> float:
    return math.sqrt(len(parts) / (len(parts) - 1) * float((parts**2).sum()))


def _standardised(ranks: Float[np.ndarray, " rows"]) -> Float[np.ndarray, " rows"]:
    deviation = ranks.std()
    return (ranks - ranks.mean()) / deviation if deviation > 0 else np.zeros_like(ranks)


class HeldOut:
    """The held-out rows as an algorithm learns from them.

    An algorithm with a critic is judged by the rank correlation of min_i Q_i(s, a) with the discounted return-to-go.
    Rows count if the end of their episode is a terminal, or is so far that at most a fifth of the discounted weight
    lies behind it. Another algorithm is judged by the mean loss of its policy.

    Args:
        dataset: held-out episodes.
        normaliser: of the episodes that are learnt from.
    """

    def __init__(self, algorithm: Algorithm, dataset: Dataset, normaliser: Normaliser) -> None:
        part = algorithm.select(dataset.excerpt())
        rows = judged_rows(algorithm, part)
        every: Transition = algorithm.transitions(part, normaliser)._replace(following=None)
        # The last block repeats its last row, so that all are one program.
        blocks = rows[np.minimum(np.arange(-(-len(rows) // BLOCK) * BLOCK), len(rows) - 1)].reshape(-1, BLOCK)
        self.blocks: list[Transition] = [
            jax.tree.map(lambda column, block=block: jnp.asarray(column[block]), every) for block in blocks
        ]
        self.returns = np.asarray(every.return_to_go)[rows]
        numbers = np.repeat(np.arange(len(part.episode_starts)), part.episode_lengths)[rows]
        self.episode = np.unique(numbers, return_inverse=True)[1]

    def fit(self, algorithm: Algorithm, nets: Nets) -> Fit:
        """How well these networks fit."""
        blocks = [np.asarray(_of_each_row(algorithm, nets, block), np.float64) for block in self.blocks]
        found = np.concatenate(blocks)[: len(self.returns)]
        if algorithm.bellman_step is None:
            return negative_mean(found, self.episode)
        return rank_correlation(found, self.returns, self.episode)


def judged_rows(algorithm: Algorithm, part: Dataset) -> Int[np.ndarray, " rows"]:
    """The rows of held-out episodes that judge the algorithm, at most `ROWS`."""
    rows = np.arange(len(part))
    if algorithm.bellman_step is not None:
        left = np.concatenate([np.arange(length, 0, -1) for length in part.episode_lengths])
        ended = np.repeat(part.episode_terminals, part.episode_lengths)
        rows = np.flatnonzero(ended | (algorithm.discount**left <= CUT_OFF))
    return rows[np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int)]


def check_judges(algorithm: Algorithm, part: Dataset) -> None:
    """Refuse held-out episodes that cannot judge the algorithm; `part` is what it selects of them.

    Raises:
        RecipeError: if too few can, or all returns-to-go are equal.
    """
    count, rows = len(part.episode_starts), judged_rows(algorithm, part)
    judging = np.unique(np.searchsorted(part.episode_starts, rows, side="right") - 1)
    needs = f"patience needs {EPISODES} held-out episodes that can judge {algorithm.name}"
    if count < EPISODES:
        raise RecipeError(f"{needs}, which selects {count:,}: hold out more (--held-out), or leave patience out")
    if len(judging) < EPISODES:
        longest = np.delete(part.episode_lengths, judging).max()
        horizon = math.log(CUT_OFF) / math.log(algorithm.discount) if 0 < algorithm.discount < 1 else math.inf
        counts = "up to a terminal" if horizon == math.inf else f"from {math.ceil(horizon):,} steps before a cut"
        more = "hold out more (--held-out), " if len(judging) else ""
        raise RecipeError(
            f"{needs}, and {len(judging):,} of {count:,} can. The others end by time-out within {longest:,} steps, and "
            f"a return counts only {counts} (discount {algorithm.discount:g}). Give a lower discount, {more}or leave "
            "patience out"
        )
    if algorithm.bellman_step is None:
        return
    learnt = dataclasses.replace(part, rewards=algorithm.learning_rewards(part.rewards))
    returns = learnt.returns_to_go(algorithm.discount, algorithm.sparse_failure_reward)[rows]
    if (returns == returns[0]).all():
        raise RecipeError(
            f"patience compares Q with returns-to-go, and in all {len(judging):,} held-out episodes that judge "
            f"{algorithm.name} they are {returns[0]:g}. It needs some that differ, such as those of a success: hold "
            "out more (--held-out), or leave patience out"
        )


@jax.jit
def _of_each_row(algorithm: Algorithm, nets: Nets, rows: Transition) -> Float[jax.Array, " rows"]:
    """min_i Q_i(s, a), or the policy's loss."""
    rows = jax.tree.map(as_numbers, rows)
    if (critic := algorithm.bellman_step) is not None:
        return nets.get(critic.role)(rows.observation, rows.action).min(0)
    policy = algorithm.policy_step
    assert policy is not None
    return policy.loss(nets.get(policy.role), nets, rows, jax.random.key(0))[0]
