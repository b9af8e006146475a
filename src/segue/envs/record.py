"""Recording: whole episodes of a policy, as the environment gave them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from segue import random
from segue.data.dataset import Columns
from segue.data.minari import Episode
from segue.envs.make import make_raw, shape


class ActingPolicy(Protocol):
    """Anything that maps flat observations to actions in [-1, 1] (or integers from 0)."""

    def __call__(
        self, observation: np.ndarray, source: np.random.Generator, *, explore: bool, time: np.ndarray
    ) -> np.ndarray:
        """One action for one observation; `time` is the number of steps since the episode began, a scalar array."""


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
        self.rewards.append(result[1])
        return result


def record(
    policy: ActingPolicy | None, env_id: str, steps: int, *, explore: bool, seed: int, part: int
) -> list[Episode]:
    """Episodes with `steps` steps in all; the last one is cut where they are reached.

    Args:
        policy: what acts; None draws from the action space.
        env_id: Gymnasium id.
        steps: environment steps.
        explore: act with the policy's exploration noise.
        seed: of episodes and actions.
        part: number of this recording within its dataset, so that two parts differ.
    """
    tape = _Tape(make_raw(env_id))
    env = shape(tape)
    source = random.generator(seed, "record", part)
    env.action_space.seed(int(source.integers(2**31 - 1)))
    start = getattr(env.action_space, "start", 0)
    episodes: list[Episode] = []
    while steps > 0:
        episode_seed = random.environment_seed(seed, "record", part, len(episodes))
        observation, _ = env.reset(seed=episode_seed)
        terminated = truncated = False
        time = 0
        while not (terminated or truncated) and steps > 0:
            if policy is None:
                action = env.action_space.sample()
            else:
                seen = np.asarray(observation, np.float32)
                action = policy(seen, source, explore=explore, time=np.asarray(time)) + start
            observation, _, terminated, truncated, _ = env.step(action)
            time += 1
            steps -= 1
        episodes.append(
            Episode(
                observations=_stack(tape.observations),
                actions=np.asarray(tape.actions),
                rewards=np.asarray(tape.rewards, np.float64),
                terminal=bool(terminated),
                seed=episode_seed,
            )
        )
    env.close()
    return episodes


def as_columns(episodes: Sequence[Episode], env_id: str) -> Columns:
    """The episodes as flat columns, with the environment's action bounds."""
    env = make_raw(env_id)
    space, actions = env.observation_space, env.action_space
    env.close()
    start = actions.start if isinstance(actions, gym.spaces.Discrete) else 0
    flat = [
        np.stack(
            [
                np.asarray(gym.spaces.flatten(space, _row(episode.observations, t)))
                for t in range(len(episode.rewards) + 1)
            ]
        )
        for episode in episodes
    ]
    lasts = [np.arange(len(episode.rewards)) == len(episode.rewards) - 1 for episode in episodes]
    return Columns(
        observations=np.concatenate([observations[:-1] for observations in flat]),
        next_observations=np.concatenate([observations[1:] for observations in flat]),
        actions=np.concatenate([e.actions - start if start else e.actions for e in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        terminals=np.concatenate([last & e.terminal for last, e in zip(lasts, episodes, strict=True)]),
        timeouts=np.concatenate([last & (not e.terminal) for last, e in zip(lasts, episodes, strict=True)]),
        env_id=env_id,
        action_bounds=(actions.low, actions.high) if isinstance(actions, gym.spaces.Box) else None,
        discrete_actions=int(actions.n) if isinstance(actions, gym.spaces.Discrete) else None,
    )


def _stack(values: Sequence[Any]) -> Any:
    if isinstance(values[0], dict):
        return {name: _stack([value[name] for value in values]) for name in values[0]}
    return np.stack(values)


def _row(observations: Any, row: int) -> Any:
    if isinstance(observations, dict):
        return {name: _row(value, row) for name, value in observations.items()}
    return observations[row]
