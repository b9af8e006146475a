"""Recording: whole episodes of a policy, as the environment gave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from segue import rng
from segue.acting import ActingPolicy, act
from segue.data.dataset import Columns
from segue.data.minari import Episode
from segue.envs.cost import cost_of
from segue.envs.episodes import number
from segue.envs.make import make_raw, shape, spaces_of
from segue.envs.masks import KEY, mask_of
from segue.envs.spaces import Actions, logged_observations
from segue.envs.spec import Environment


class _Tape(gym.Wrapper):
    """Keeps what passes through, in the environment's own spaces."""

    def reset(self, **options: Any) -> Any:
        observation, info = self.env.reset(**options)
        self.observations, self.actions, self.rewards = [observation], [], []  # type: ignore[var-annotated]
        return observation, info

    def step(self, action: Any) -> Any:
        result = self.env.step(action)
        self.observations.append(result[0])
        self.actions.append(action)
        self.rewards.append(number(result[1]))
        return result


def record(
    policy: ActingPolicy | None,
    env_id: str | Environment,
    steps: int,
    *,
    explore: bool,
    seed: int,
    part: int,
    cost_key: str | None = None,
) -> list[Episode]:
    """Episodes with `steps` steps in all; the last one is cut where they are reached.

    Args:
        policy: what acts; None draws from the action space.
        env_id: the environment, or its id.
        steps: environment steps.
        explore: act with the policy's exploration noise.
        seed: of episodes and actions.
        part: number of this recording within its dataset, so that two parts differ.
        cost_key: where the environment's `info` has the cost of a step; None records none.

    Raises:
        RecipeError: if a step does not report its cost.
    """
    tape = _Tape(make_raw(env_id))
    env = shape(tape, env_id)
    source = rng.generator(seed, "record", part)
    env.action_space.seed(int(source.integers(2**31 - 1)))
    start, spaces = getattr(env.action_space, "start", 0), spaces_of(env)
    uniform, stretch = _log_volumes(Actions.of(tape.action_space, str(env_id)))
    episodes: list[Episode] = []
    while steps > 0:
        episode_seed = rng.environment_seed(seed, "record", part, len(episodes))
        observation, info = env.reset(seed=episode_seed)
        terminated = truncated = False
        carry = None if policy is None else policy.start(1)
        log_probs, costs, masks = [], [], []
        masked = spaces.discrete and KEY in info
        while not (terminated or truncated) and steps > 0:
            allowed = mask_of(info, spaces, env_id)[None] if masked else None
            if allowed is not None:
                masks.append(allowed[0])
            if policy is None and allowed is not None:
                action, log_prob = source.choice(np.flatnonzero(allowed)) + start, -float(np.log(allowed.sum()))
            elif policy is None:
                action, log_prob = env.action_space.sample(), uniform
            else:
                acted = act(policy, np.asarray(observation, np.float32)[None], carry, source, explore, allowed)
                action, carry, log_prob = np.asarray(acted.action)[0] + start, acted.carry, float(acted.log_prob()[0])
            observation, _, terminated, truncated, info = env.step(action)
            log_probs.append(log_prob - stretch)
            if cost_key is not None:
                costs.append(cost_of(info, cost_key, env_id))
            steps -= 1
        episodes.append(
            Episode(
                observations=_stack(tape.observations),
                actions=np.asarray(tape.actions),
                rewards=np.asarray(tape.rewards, np.float64),
                terminal=bool(terminated),
                seed=episode_seed,
                log_probs=np.asarray(log_probs, np.float64),
                costs=None if cost_key is None else np.asarray(costs, np.float64),
                allowed=np.stack(masks) if masked else None,
            )
        )
    env.close()
    return episodes


def _log_volumes(actions: Actions) -> tuple[float, float]:
    """log-probability of a uniform action in [-1, 1] or 0…n−1, and log of how much larger the space's own box is.

    Of integers that are rounded from a density, the probability is not known: NaN.
    """
    if actions.discrete:
        return -float(np.log(actions.size)), 0.0
    assert actions.low is not None
    assert actions.high is not None
    if not np.issubdtype(actions.space.dtype, np.floating):
        return np.nan, 0.0
    half = (actions.high - actions.low) / 2
    return -half.size * float(np.log(2)), float(np.log(half[half > 0]).sum())


def as_columns(episodes: Sequence[Episode], env_id: str | Environment) -> Columns:
    """The episodes as flat columns, with the environment's action bounds."""
    environment = Environment.of(env_id)
    env = make_raw(environment)
    space, where = env.observation_space, f"environment {str(environment)!r}"
    actions = Actions.of(env.action_space, where)
    env.close()
    flat = [logged_observations(space, episode.observations) for episode in episodes]
    lasts = [np.arange(len(episode.rewards)) == len(episode.rewards) - 1 for episode in episodes]
    return Columns(
        observations=np.concatenate([observations[:-1] for observations in flat]),
        next_observations=np.concatenate([observations[1:] for observations in flat]),
        actions=np.concatenate([actions.from_environment(episode.actions) for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        terminals=np.concatenate([last & e.terminal for last, e in zip(lasts, episodes, strict=True)]),
        timeouts=np.concatenate([last & (not e.terminal) for last, e in zip(lasts, episodes, strict=True)]),
        env_id=environment.name,
        env_spec=environment.options(),
        action_bounds=None if actions.low is None or actions.high is None else (actions.low, actions.high),
        discrete_actions=actions.size if actions.discrete else None,
        behaviour_log_prob=propensities(episodes),
        cost=_costs(episodes),
        allowed_actions=_masks(episodes),
    )


def propensities(episodes: Sequence[Episode]) -> np.ndarray | None:
    """log b(a|s) of every step, or None if it is not known everywhere."""
    if any(episode.log_probs is None or not np.isfinite(episode.log_probs).all() for episode in episodes):
        return None
    return np.concatenate([episode.log_probs for episode in episodes if episode.log_probs is not None])


def _costs(episodes: Sequence[Episode]) -> np.ndarray | None:
    found = [episode.costs for episode in episodes if episode.costs is not None]
    return np.concatenate(found) if len(found) == len(episodes) else None


def _masks(episodes: Sequence[Episode]) -> np.ndarray | None:
    found = [episode.allowed for episode in episodes if episode.allowed is not None]
    return np.concatenate(found) if len(found) == len(episodes) else None


def _stack(values: Sequence[Any]) -> Any:
    """Observations of several steps as one, with the steps as the first axis of every array."""
    if isinstance(values[0], dict):
        return {name: _stack([value[name] for value in values]) for name in values[0]}
    if isinstance(values[0], tuple):
        return tuple(_stack([value[index] for value in values]) for index in range(len(values[0])))
    return np.stack(values)
