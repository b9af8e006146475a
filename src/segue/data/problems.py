"""What can be wrong with a dataset that loads: one check per function, in plain words, with what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from segue.data.dataset import Dataset

#: An action this close to ±1 counts as being at its bound.
AT_BOUND = 0.99
#: Share of steps at a bound from which the distribution of a policy matters.
MANY_AT_BOUND = 0.1


@dataclasses.dataclass(frozen=True)
class Problem:
    """One finding."""

    found: str
    """What is in the dataset."""
    meaning: str
    """What that does to training."""
    advice: str
    """What to do."""


def problems(dataset: Dataset) -> tuple[Problem, ...]:
    """Everything the checks find, in the order of `CHECKS`."""
    found = (check(dataset) for check in CHECKS)
    return tuple(problem for problem in found if problem is not None)


def short_dataset(dataset: Dataset) -> Problem | None:
    """Fewer than 10,000 transitions."""
    if len(dataset) >= 10_000:
        return None
    return Problem(
        f"a short dataset: {len(dataset):,} transitions in {len(dataset.episode_starts):,} episodes",
        "a network of the usual size learns it by heart, and Q-values outside it are guesses",
        "prefer behaviour cloning or TD3+BC, few offline steps, and look at scores early; or record more",
    )


def duplicate_episodes(dataset: Dataset) -> Problem | None:
    """Episodes that are byte for byte the same."""
    _, first, which = np.unique(dataset.episode_fingerprints(), return_index=True, return_inverse=True)
    original = first[which]
    copies = np.flatnonzero(original != np.arange(len(original)))
    if not len(copies):
        return None
    return Problem(
        f"{_count(len(copies), 'episode')} repeated exactly (first: episode {copies[0]} is episode "
        f"{original[copies[0]]})",
        "what is repeated weighs more, and the dataset holds less than its size says",
        "remove the copies, unless the weight is meant",
    )


def constant_rewards(dataset: Dataset) -> Problem | None:
    """Every reward the same."""
    if np.ptp(dataset.rewards) > 0:
        return None
    return Problem(
        f"every reward is {dataset.rewards[0]:g}",
        "nothing tells a good action from a bad one: Q-learning has only episode ends to learn from",
        "check the 'rewards' column; with no reward to be had, use behaviour cloning",
    )


def reward_scale(dataset: Dataset) -> Problem | None:
    """Rewards, where there are any, of a size that learning rates and entropy are not made for."""
    sizes = np.abs(dataset.rewards[dataset.rewards != 0], dtype=np.float64)
    if not sizes.size or 1e-3 <= sizes.mean() <= 100:
        return None
    large = sizes.mean() > 100
    return Problem(
        f"rewards are {'large' if large else 'small'}: {sizes.mean():.3g} on average, where they are not 0",
        f"at a discount of 0.99, Q-values are near {100 * sizes.mean():.2g}: "
        + ("critic losses explode and gradients drown the actor" if large else "entropy and penalties outweigh them"),
        f"{'divide' if large else 'multiply'} rewards by a constant so that they are near 1, here and online alike",
    )


def no_terminals(dataset: Dataset) -> Problem | None:
    """Not one true terminal."""
    if dataset.terminals.any():
        return None
    return Problem(
        "no terminals: every episode ended by a time-out, or was cut",
        "every step bootstraps, as it should where the task has no end of its own (HalfCheetah, most "
        "manipulation); if falling or failing ends an episode, training will not know that it is bad",
        "make sure that 'terminals' was recorded",
    )


def terminals_at_the_limit(dataset: Dataset) -> Problem | None:
    """Many terminals at exactly the longest length: probably time-outs."""
    lengths, ended = dataset.episode_lengths, dataset.episode_terminals
    suspects = int((ended & (lengths == lengths.max())).sum())
    if lengths.max() < 10 or suspects < 3 or suspects < 0.1 * len(lengths):
        return None
    return Problem(
        f"{suspects} of {int(ended.sum())} terminals come after exactly {lengths.max()} steps, the longest episode",
        "they look like time-outs recorded as terminals; values before them would be far too low",
        "if a time limit ended those episodes, mark their last steps in 'timeouts', not 'terminals'",
    )


def constant_observations(dataset: Dataset) -> Problem | None:
    """Observation dimensions that never change; the pixels of an image often do not."""
    if dataset.spaces.image is not None:
        return None
    constant = np.flatnonzero(np.ptp(dataset.observations, axis=0) == 0)
    if not constant.size:
        return None
    return Problem(
        f"{_count(len(constant), 'observation dimension')} of {dataset.spaces.observation_size} never "
        f"changing: {_few(constant)}",
        "nothing can be learnt from them; if they move online, normalisation makes a difference of 0.01 into 10",
        "if they can move online, record logs in which they do, or train without normalisation",
    )


def outlying_observations(dataset: Dataset) -> Problem | None:
    """Observations more than 20 standard deviations from their mean; those of images have bounds."""
    if dataset.spaces.image is not None:
        return None
    normaliser = dataset.normaliser()
    low, high = dataset.observations.min(0), dataset.observations.max(0)
    deviations = np.maximum(np.abs(normaliser(low)), np.abs(normaliser(high)))
    outlying = np.flatnonzero(deviations > 20)
    if not outlying.size:
        return None
    worst = int(np.argmax(deviations))
    row = int(np.argmax(np.abs(normaliser(dataset.observations)[:, worst])))
    return Problem(
        f"{_count(len(outlying), 'observation dimension')} with outliers: {_few(outlying)}; the worst, "
        f"dimension {worst}, is {deviations[worst]:.0f} standard deviations off at row {row} "
        f"({dataset.observations[row, worst]:.4g})",
        "a network extrapolates there, and a few such rows can dominate a loss",
        "look at those rows: a sensor fault or a diverged simulation should be removed, a rare event can stay",
    )


def idle_actions(dataset: Dataset) -> Problem | None:
    """Action dimensions that never vary, or discrete actions never taken."""
    if dataset.spaces.discrete:
        taken = np.bincount(dataset.actions, minlength=dataset.spaces.action_size)
        idle = np.flatnonzero(taken == 0)
        what = f"{_count(len(idle), 'action')} of {dataset.spaces.action_size} never taken: {_few(idle)}"
    else:
        idle = np.flatnonzero(np.ptp(dataset.actions, axis=0) == 0)
        of = dataset.spaces.action_size
        what = f"{_count(len(idle), 'action dimension')} of {of} never varying: {_few(idle)}"
    if not idle.size:
        return None
    return Problem(
        what,
        "the dataset cannot say what they do: their value is a guess, and fine-tuning starts by testing it",
        "use a conservative method (CQL, TD3+BC), or record them varied",
    )


def saturated_actions(dataset: Dataset) -> Problem | None:
    """Action dimensions that are at a bound in 10 % of the steps or more."""
    if dataset.spaces.discrete:
        return None
    shares = (np.abs(dataset.actions) > AT_BOUND).mean(0)
    saturated = np.flatnonzero(shares >= MANY_AT_BOUND)
    if not saturated.size:
        return None
    return Problem(
        f"{_count(len(saturated), 'action dimension')} at a bound in {MANY_AT_BOUND:.0%} of the steps or more: "
        f"{_few(saturated)} (up to {shares.max():.0%})",
        "a squashed (tanh) Gaussian reaches a bound only in the limit: fitted by likelihood, its mean runs after those "
        "actions and away from the others",
        "keep distribution gaussian, the default of IQL, AWAC and BC, or use a squared error (TD3+BC); if the actions "
        "were clipped while loading, look for the real bounds",
    )


CHECKS: Sequence[Callable[[Dataset], Problem | None]] = (
    short_dataset,
    duplicate_episodes,
    constant_rewards,
    reward_scale,
    no_terminals,
    terminals_at_the_limit,
    constant_observations,
    outlying_observations,
    idle_actions,
    saturated_actions,
)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _few(indices: Iterable[int]) -> str:
    indices = list(indices)
    return ", ".join(map(str, indices[:8])) + (f" and {len(indices) - 8} more" if len(indices) > 8 else "")
