"""What can be wrong with a dataset that loads: one check per function, in plain words, with what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import gymnasium as gym
import numpy as np
from jaxtyping import Float

from segue.data.dataset import Dataset, listed

#: An action this close to ±1 counts as being at its bound.
AT_BOUND = 0.99
#: Share of steps at a bound from which the distribution of a policy matters.
MANY_AT_BOUND = 0.2
#: Actions that use less than this share of their range have other bounds, or another unit.
NARROW = 0.05
#: Share of actions, at either end, that do not count as using the range.
RARE = 0.01
#: From this number on, integers that nobody named as ids may be amounts.
MANY_ACTIONS = 40
#: Share of rows after the live environment's time limit from which that matters.
LATE = 0.05
#: Rows from which the timing of rewards is judged.
SAMPLE = 4000


@dataclasses.dataclass(frozen=True)
class Problem:
    """One finding."""

    found: str
    """What is in the dataset."""
    meaning: str
    """What that does to training."""
    advice: str
    """What to do."""

    def __str__(self) -> str:
        return f"{self.found}; {self.meaning}. What to do: {self.advice}"


#: Of a dataset that loads only if its actions are clipped.
OUT_OF_BOUNDS = Problem(
    "actions outside their bounds (see the note)",
    "a run refuses the dataset as it is, and what is shown here is of the clipped actions",
    "add --clip-actions if the environment clips them too; otherwise give the real bounds, or rescale the actions",
)


def problems(dataset: Dataset) -> tuple[Problem, ...]:
    """Everything the checks find, in the order of `CHECKS`."""
    dataset = dataset.excerpt()
    found = (check(dataset) for check in CHECKS)
    return tuple(problem for problem in found if problem is not None)


def short_dataset(dataset: Dataset) -> Problem | None:
    """Fewer than 10,000 transitions."""
    if len(dataset) >= 10_000:
        return None
    return Problem(
        f"a short dataset: {counted(len(dataset), 'transition')} in {counted(len(dataset.episode_starts), 'episode')}",
        "a network of the usual size learns it by heart, and Q-values outside it are guesses",
        "prefer behaviour cloning or TD3+BC, few offline steps, and look at scores early; or record more",
    )


def duplicate_episodes(dataset: Dataset) -> Problem | None:
    """Episodes of two steps or more that are byte for byte the same, where observations seldom repeat by chance."""
    if (dataset.episode_lengths == 1).all() or len(np.unique(dataset.observations, axis=0)) < 0.1 * len(dataset):
        return None
    _, first, which = np.unique(dataset.episode_fingerprints(), return_index=True, return_inverse=True)
    original = first[which]
    copies = np.flatnonzero((original != np.arange(len(original))) & (dataset.episode_lengths > 1))
    if not len(copies):
        return None
    return Problem(
        f"{counted(len(copies), 'episode')} repeated exactly (first: episode {copies[0]} is episode "
        f"{original[copies[0]]})",
        "what is repeated weighs more, and the dataset holds less than its size says",
        "remove the copies, unless the weight is meant",
    )


def constant_rewards(dataset: Dataset) -> Problem | None:
    """Every reward the same, and no task of lasting long, or ending soon."""
    if not dataset.rewards_known or np.ptp(dataset.rewards) > 0:
        return None
    if dataset.rewards[0] and dataset.terminals.any() and np.ptp(dataset.episode_lengths):
        return None
    return Problem(
        f"every reward is {dataset.rewards[0]:g}",
        "nothing tells a good action from a bad one: Q-learning has only episode ends to learn from",
        "check the 'rewards' column; with no reward to be had, use behaviour cloning",
    )


def reward_scale(dataset: Dataset) -> Problem | None:
    """Rewards, where there are any, of a size that learning rates and entropy are not made for."""
    sizes = np.abs(dataset.rewards[dataset.rewards != 0], dtype=np.float64)
    if not dataset.rewards_known or not sizes.size or 1e-3 <= sizes.mean() <= 100:
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


def late_rewards(dataset: Dataset) -> Problem | None:
    """Rewards that follow from the step before, or stand in the first rows of episodes."""
    first = np.zeros(len(dataset), bool)
    first[dataset.episode_starts[dataset.episode_lengths > 1]] = True
    if not dataset.rewards_known or not first.any() or np.ptp(dataset.rewards) == 0:
        return None
    paid = np.flatnonzero(dataset.rewards)
    starts = dataset.episode_starts
    if len(paid) >= 3 and first[paid].all() and len(paid) < 0.5 * len(dataset):
        evidence = f"rewards are 0 but in the first row of {len(paid):,} episodes (first: row {paid[0]})"
    elif (
        first.sum() >= 3
        and (dataset.rewards[first] == 0).all()
        and (dataset.rewards[~first] != 0).mean() > 0.95
        and np.ptp(dataset.observations[starts], axis=0).any()
    ):
        evidence = f"the reward is 0 in the first row of all {int(first.sum()):,} episodes and hardly anywhere else"
    else:
        explained = _explained_rewards(dataset)
        if explained is None or not (explained[1] > 0.5 and 1 - explained[1] < 0.5 * (1 - explained[0])):
            return None
        evidence = (
            f"observation and action of the row before explain {explained[1]:.1%} of the rewards' variance, those of "
            f"their own row {explained[0]:.1%}"
        )
    return Problem(
        f"rewards seem to be one row late: {evidence}",
        "each action is credited with what the one before it earned",
        "move 'rewards' up by one row within each episode, if they were recorded with the observation that follows",
    )


def _explained_rewards(dataset: Dataset) -> tuple[float, float] | None:
    """Share of the rewards' variance that a quadratic fit explains, from the same row and from the one before."""
    inner = np.ones(len(dataset), bool)
    inner[dataset.episode_starts] = False
    rows = np.flatnonzero(inner)
    rows = rows[np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows))).astype(int)]
    discrete, size = dataset.spaces.discrete, dataset.spaces.action_size
    if 4 * dataset.spaces.observation_size + 2 * size + 1 > len(rows) / 8:
        return None
    fitted = np.arange(len(rows)) // 20 % 2 == 0  # in blocks, since neighbours are alike
    rewards = dataset.rewards[rows].astype(np.float64)
    if rewards[~fitted].var() == 0:
        return None
    explained = []
    for of in (rows, rows - 1):
        actions = np.eye(size)[dataset.actions[of]] if discrete else dataset.actions[of]
        parts = [dataset.observations[of], actions, dataset.next_observations[of]]
        x = np.concatenate(parts, 1, dtype=np.float64)
        x = np.clip((x - x.mean(0)) / (x.std(0) + 1e-6), -5, 5)
        x = np.column_stack([x, x**2, np.ones(len(x))])
        fit = x[fitted]
        weights = np.linalg.solve(fit.T @ fit + 1e-6 * len(fit) * np.eye(x.shape[1]), fit.T @ rewards[fitted])
        errors = rewards[~fitted] - x[~fitted] @ weights
        explained.append(float(1 - (errors**2).mean() / rewards[~fitted].var()))
    return explained[0], explained[1]


def terminals_at_the_limit(dataset: Dataset) -> Problem | None:
    """Terminals at the environment's time limit, at one length throughout, or often at the longest length."""
    ended = dataset.episode_terminals
    # An end of the recording says nothing of the task.
    lengths = dataset.episode_lengths[: len(ended) if ended[-1] else -1]
    ended = ended[: len(lengths)]
    if not ended.any() or lengths.max() < 10:
        return None
    spec = gym.registry.get(dataset.env_id or "")
    limit = None if spec is None else spec.max_episode_steps
    suspects = int((ended & (lengths == lengths.max())).sum())
    if not suspects:
        return None
    if lengths.max() == limit:
        place = f"exactly {limit:,} steps, the time limit of {dataset.env_id}"
    elif len(lengths) >= 2 and ended.all() and np.ptp(lengths) == 0:
        place = f"exactly {lengths.max():,} steps, the length of every episode"
    elif suspects >= 3 and suspects >= 0.1 * len(lengths):
        place = f"exactly {lengths.max():,} steps, the longest episode"
    else:
        return None
    return Problem(
        f"{suspects:,} of {int(ended.sum()):,} terminals come after {place}",
        "they look like time-outs recorded as terminals; values before them would be far too low",
        "if a time limit ended those episodes, mark their last steps in 'timeouts', not 'terminals'",
    )


def cut_short(dataset: Dataset, limit: int | None) -> Problem | None:
    """Episodes that last longer than the live environment lets one last, which is `limit` steps."""
    lengths = dataset.episode_lengths
    if limit is None or np.maximum(lengths - limit, 0).sum() < LATE * len(dataset):
        return None
    meaning = "what they show after that step cannot be reached live"
    if dataset.rewards_known:
        seen = dataset.excerpt()
        within, whole = earned_within(seen, limit).mean(), seen.episode_returns.mean()
        meaning += f": on average an episode earns {within:,.4g} in that time, and {whole:,.4g} in all"
    return Problem(
        f"{counted(int((lengths > limit).sum()), 'episode')} of {len(lengths):,} longer than the {limit:,} steps after "
        f"which the live environment ends one (up to {lengths.max():,})",
        meaning,
        f"--max-episode-steps {lengths.max()} (in Python: max_episode_steps), if the task itself has no such limit",
    )


def earned_within(dataset: Dataset, limit: int | None) -> Float[np.ndarray, " episodes"]:
    """What each episode earns in its first `limit` steps."""
    if limit is None:
        return dataset.episode_returns
    late = np.arange(len(dataset)) - np.repeat(dataset.episode_starts, dataset.episode_lengths) >= limit
    return np.add.reduceat(np.where(late, 0.0, dataset.rewards), dataset.episode_starts)


def constant_observations(dataset: Dataset) -> Problem | None:
    """Observation dimensions that never change; the pixels of an image often do not."""
    if dataset.spaces.image is not None:
        return None
    constant = np.flatnonzero(np.ptp(dataset.observations, axis=0) == 0)
    if not constant.size:
        return None
    return Problem(
        f"{counted(len(constant), 'observation dimension')} of {dataset.spaces.observation_size:,} never "
        f"changing: {listed(_observed(dataset, constant))}",
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
    # A rare category is no outlier.
    deviations[np.isin(dataset.observations, (0, 1)).all(0)] = 0
    outlying = np.flatnonzero(deviations > 20)
    if not outlying.size:
        return None
    worst = int(np.argmax(deviations))
    row = int(np.argmax(np.abs(normaliser(dataset.observations)[:, worst])))
    kind = "dimension" if dataset.encoding is None else "column"
    return Problem(
        f"{counted(len(outlying), 'observation dimension')} with outliers: {listed(_observed(dataset, outlying))}; the "
        f"worst, {kind} {_observed(dataset, [worst])[0]}, is {deviations[worst]:.0f} standard deviations off at row "
        f"{row} ({dataset.observations[row, worst]:.4g})",
        "a network extrapolates there, and a few such rows can dominate a loss",
        "look at those rows: a sensor fault or a diverged simulation should be removed, a rare event can stay",
    )


def idle_actions(dataset: Dataset) -> Problem | None:
    """Action dimensions that never vary, or discrete actions never taken."""
    if dataset.spaces.discrete:
        taken = np.bincount(dataset.actions, minlength=dataset.spaces.action_size)
        idle = np.flatnonzero(taken == 0)
        what = f"{counted(len(idle), 'action')} of {dataset.spaces.action_size:,} never taken: {listed(idle)}"
    else:
        idle = np.flatnonzero(np.ptp(dataset.actions, axis=0) == 0)
        of = dataset.spaces.action_size
        what = f"{counted(len(idle), 'action dimension')} of {of:,} never varying: {listed(idle)}"
    if not idle.size:
        return None
    if not dataset.spaces.discrete and idle.size == dataset.spaces.action_size:
        return Problem(
            what,
            "every step has the same action, so the dataset tells nothing of what actions do, and no method can choose",
            "check that the column of actions is the right one; if it is, record steps with other actions",
        )
    return Problem(
        what,
        "the dataset cannot say what they do: their value is a guess, and fine-tuning starts by testing it",
        "use a conservative method (CQL, TD3+BC), or record them varied",
    )


def ids_as_floats(dataset: Dataset) -> Problem | None:
    """A single continuous action that is always 0 or 1."""
    if dataset.spaces.discrete or dataset.bounds_known or dataset.spaces.action_size > 1:
        return None
    if not np.isin(dataset.actions, (0, 1)).all() or np.ptp(dataset.actions) == 0:
        return None
    return Problem(
        f"every action is 0 or 1, stored as a float (1 in {dataset.actions.mean():.0%} of the steps)",
        "they are learnt as a continuous action from -1 to 1",
        "if they are the ids of two discrete actions, store them as integers: actions.astype(int)",
    )


def amounts_as_ids(dataset: Dataset) -> Problem | None:
    """Many discrete actions that nothing but their integers says are discrete."""
    if not dataset.spaces.discrete or dataset.bounds_known or dataset.spaces.action_size < MANY_ACTIONS:
        return None
    taken, count = len(np.unique(dataset.actions)), dataset.spaces.action_size
    return Problem(
        f"integer actions up to {count - 1:,} are taken to be {count:,} discrete ones, of which {taken:,} occur",
        "nothing learnt of one then tells of its neighbours, as it would for amounts (a dose, a price, a speed)",
        "for amounts add action_low and action_high, and actions are continuous; for ids add discrete_actions="
        f"{count}, and number them without gaps",
    )


def narrow_actions(dataset: Dataset) -> Problem | None:
    """Action dimensions that use only a small part of their range."""
    if dataset.spaces.discrete:
        return None
    low, high = np.quantile(dataset.actions, [RARE, 1 - RARE], axis=0)
    spans = (high - low) / 2
    off = (np.abs(dataset.actions) > 0.999).mean(0) > 0.5  # a brake that is hardly used stays at its bound
    narrow = np.flatnonzero((np.ptp(dataset.actions, axis=0) > 0) & (spans < NARROW) & ~off)
    if not narrow.size:
        return None
    return Problem(
        f"{counted(len(narrow), 'action dimension')} within {spans[narrow].max():.2%} of the range of the bounds in "
        f"{1 - 2 * RARE:.0%} of the steps: {listed(narrow)} (from {low[narrow].min():.3g} to {high[narrow].max():.3g}, "
        "where the bounds are -1 and 1)",
        "to a network all these actions are one, and exploration goes far beyond them",
        "give the real bounds (action_low and action_high), in the unit of the actions",
    )


def saturated_actions(dataset: Dataset) -> Problem | None:
    """Action dimensions that are at a bound in 20 % of the steps or more."""
    if dataset.spaces.discrete:
        return None
    shares = (np.abs(dataset.actions) > AT_BOUND).mean(0)
    saturated = np.flatnonzero(shares >= MANY_AT_BOUND)
    if not saturated.size:
        return None
    return Problem(
        f"{counted(len(saturated), 'action dimension')} at a bound in {MANY_AT_BOUND:.0%} of the steps or more: "
        f"{listed(saturated)} (up to {shares.max():.0%})",
        "a squashed (tanh) Gaussian reaches a bound only in the limit: where it is fitted by likelihood, as by IQL, "
        "AWAC and BC, its mean may run after those actions and away from the others",
        "where IQL, AWAC or BC have distribution squashed, compare with gaussian, their default; others, such as CQL "
        "and SAC, are not concerned; if the actions were clipped while loading, look for the real bounds",
    )


CHECKS: Sequence[Callable[[Dataset], Problem | None]] = (
    short_dataset,
    duplicate_episodes,
    constant_rewards,
    reward_scale,
    no_terminals,
    late_rewards,
    terminals_at_the_limit,
    constant_observations,
    outlying_observations,
    idle_actions,
    ids_as_floats,
    amounts_as_ids,
    narrow_actions,
    saturated_actions,
)


def counted(number: int, noun: str) -> str:
    """The number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _observed(dataset: Dataset, dimensions: Iterable[int]) -> list[str]:
    """What these dimensions of the observations are called: by their column, if the dataset was a table."""
    names = None if dataset.encoding is None else dataset.encoding.observations
    return [str(i) if names is None else repr(names[i]) for i in dimensions]
