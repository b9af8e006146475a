"""SARDINE as the users of a shop: a session of ten recommendations, one item each, and clicks.

The simulator is `sardine/SingleItem-Static-v0` (naver/sardine): a user has hidden tastes for topics, and clicks on an
item with a probability that rises steeply with the item's relevance. Changed are the length of a session (10 steps
instead of 100) and the catalogue (every 50th of its 1,000 items).
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import Float
from sardine.consts import DATA_REC_SIM_EMBEDDS
from sardine.policies import EpsilonGreedyOracle

ITEMS, TOPICS, STEPS = 20, 10, 10
#: Clicks of one item weigh about one in the observation.
SCALE = 3.0


@functools.cache
def catalogue() -> Float[np.ndarray, "items topics"]:
    """What each item is about: unit vectors over the topics."""
    whole = np.load(Path(DATA_REC_SIM_EMBEDDS) / "item_embeddings_focused_small.npy")
    return whole[:: len(whole) // ITEMS]


class Sessions(gym.Env):
    """Which of 20 items is shown to a user next; the reward is 1 for a click, and a session ends after ten steps.

    An observation has 21 numbers, which any shop has: the sum of the topics of the items that were clicked in this
    session, the same of those that were shown and not clicked, both divided by 3, and how much of the session is over.
    The first item is SARDINE's own random recommendation.
    """

    observation_space = gym.spaces.Box(0.0, 10.0, (2 * TOPICS + 1,), np.float32)
    action_space = gym.spaces.Discrete(ITEMS)

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            np.save(file, catalogue())
            file.flush()
            # An absolute path stands for itself among the package's own files.
            self._users: Any = gym.make(
                "sardine/SingleItem-Static-v0", num_items=ITEMS, env_embedds=file.name, episode_length=STEPS
            ).unwrapped

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, " observation"], dict[str, Any]]:
        """A user begins a session; each seed is another one."""
        first, info = self._users.reset(seed=seed)
        self._seen = np.zeros((2, TOPICS), np.float32)
        return self._after(first), info

    def step(self, action: Any) -> tuple[Float[np.ndarray, " observation"], float, bool, bool, dict[str, Any]]:
        """Show an item."""
        shown, clicks, ended, cut, info = self._users.step(np.array([int(action)]))
        return self._after(shown), float(clicks), bool(ended), bool(cut), info

    def relevances(self) -> Float[np.ndarray, " items"]:
        """With which probability the user clicks on each item: what only the simulator knows."""
        scores = catalogue() @ self._users.cur_user_embedd / self._users.max_score
        return 1 / (1 + np.exp(-(scores - self._users.offset) * self._users.slope))

    def logger(self, epsilon: float, seed: int) -> Callable[[], tuple[int, float]]:
        """SARDINE's ε-greedy oracle: what it shows now, and the logarithm of the probability of that."""
        oracle = EpsilonGreedyOracle(epsilon, env=self, seed=seed)

        def choose() -> tuple[int, float]:
            best = self._users.get_st_oracle_slate(np.array([-1]), self.relevances())
            wanted = oracle.get_action(None)
            item = int(best[0] if wanted[0] == -1 else wanted[0])
            return item, float(np.log(epsilon / ITEMS + (1 - epsilon) * (item == best[0])))

        return choose

    @property
    def slate_size(self) -> int:
        """Items that are shown at a time; SARDINE's loggers ask for it."""
        return int(self._users.slate_size)

    @property
    def num_items(self) -> int:
        """Size of the catalogue; SARDINE's loggers ask for it."""
        return ITEMS

    def _after(self, shown: dict[str, Any]) -> Float[np.ndarray, " observation"]:
        self._seen[0 if shown["clicks"][0] else 1] += catalogue()[int(shown["slate"][0])] / SCALE
        return np.append(self._seen, (self._users.t - 1) / STEPS).astype(np.float32)
