"""Insulin for a patient with type 1 diabetes: Bergman's minimal model with meals.

A toy for trying live operation, and no medical model: insulin acts without the delay of an injection under the skin.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float

#: Fisher (1991), A semiclosed-loop algorithm for the control of blood glucose levels in diabetics: rates per minute,
#: the sensitivity P3 in L/(mU min²), litres. Glucose is in mg/dL, insulin in mU/L.
P1, P2, P3, N, VOLUME = 0.0, 0.025, 0.000013, 5 / 54, 12.0
BASAL_GLUCOSE, BASAL_INSULIN = 81.0, 15.0
#: What keeps insulin at its basal value, and the most that may be given, in mU/min.
BASAL_RATE, MOST = N * VOLUME * BASAL_INSULIN, 60.0
#: Minutes of a decision; decisions of an episode (twelve hours).
MINUTES, STEPS = 5, 144
#: Below and above these an episode ends.
LOWEST, HIGHEST = 40.0, 400.0
#: Standard deviation of the behaviour policy, of actions in [-1, 1].
SPREAD = 0.2


class Glucose(gym.Env):
    """How much insulin flows in the next five minutes, 0 to 60 mU/min.

    dG/dt = −p₁(G − G_b) − X·G + D(t), dX/dt = −p₂X + p₃(I − I_b), dI/dt = −n·I + u/V (Bergman et al. 1979; parameters
    and the meals' D(t) = B·exp(−0.05 t) from Fisher 1991). The reward is minus Kovatchev's (1997) risk of the glucose,
    10·(1.509·(ln(G)^1.084 − 5.381))², divided by 100; leaving 40 … 400 mg/dL costs 10 and ends the episode.

    An observation has five numbers: glucose as a sensor with noise of 5 mg/dL shows it, and how it has changed, both
    /100; insulin given above the basal rate that still acts; hours since the last meal; and hours of the day /24.
    Patients differ in their sensitivity to insulin.
    """

    observation_space = gym.spaces.Box(-100.0, 100.0, (5,), np.float32)
    action_space = gym.spaces.Box(0.0, MOST, (1,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Float[np.ndarray, " observation"], dict[str, Any]]:
        """Half a day of a patient begins; `options={"unit": n}` says of which, by default of any."""
        super().reset(seed=seed)
        unit = int((options or {}).get("unit", self.np_random.integers(1_000)))
        self._sensitivity = P3 * math.exp(0.3 * np.random.default_rng(unit).normal())
        self._glucose, self._insulin = float(self.np_random.uniform(90.0, 200.0)), BASAL_INSULIN
        self._acting, self._active, self._meal, self._since = 0.0, 0.0, 0.0, 6 * 60.0
        self._step, self._start = 0, float(self.np_random.uniform(0.0, 24.0))
        self._meals = set(self.np_random.choice(STEPS, 3, replace=False).tolist())
        self._shown = self._sensor()
        return self._observation(self._shown), {}

    def step(self, action: Any) -> tuple[Float[np.ndarray, " observation"], float, bool, bool, dict[str, Any]]:
        """Give this much insulin, in mU/min, for five minutes."""
        rate = float(np.clip(np.asarray(action, np.float64).reshape(-1)[0], 0.0, MOST))
        if self._step in self._meals:
            self._meal, self._since = self._meal + float(self.np_random.uniform(2.0, 6.0)), 0.0
        for _ in range(MINUTES):
            glucose, acting, insulin = self._glucose, self._acting, self._insulin
            self._glucose += -P1 * (glucose - BASAL_GLUCOSE) - acting * glucose + self._meal
            self._acting += -P2 * acting + self._sensitivity * (insulin - BASAL_INSULIN)
            self._insulin += -N * insulin + rate / VOLUME
            self._meal *= math.exp(-0.05)
        self._active = self._active * math.exp(-P2 * MINUTES) + (rate - BASAL_RATE) / MOST
        self._since, self._step = self._since + MINUTES, self._step + 1
        ended = not LOWEST <= self._glucose <= HIGHEST
        self._glucose = min(max(self._glucose, 1.0), 1000.0)
        reward = -10.0 if ended else -risk(self._glucose) / 100.0
        before, self._shown = self._shown, self._sensor()
        return self._observation(before), reward, ended, not ended and self._step == STEPS, {}

    def behaviour(
        self, observation: Float[np.ndarray, " observation"], source: np.random.Generator
    ) -> tuple[np.ndarray, float]:
        """The basal rate, more in proportion to glucose above 120 mg/dL, and normal noise; and its log-density."""
        mean = (BASAL_RATE + 15.0 * (float(observation[0]) - 1.2)) / (MOST / 2) - 1.0
        while not -1.0 <= (drawn := float(source.normal(mean, SPREAD))) <= 1.0:
            pass  # truncated to the bounds
        noise = statistics.NormalDist(mean, SPREAD)
        density = noise.pdf(drawn) / (noise.cdf(1.0) - noise.cdf(-1.0))
        return np.array([(drawn + 1.0) * MOST / 2], np.float32), math.log(density)

    def _sensor(self) -> float:
        return self._glucose + 5.0 * float(self.np_random.normal())

    def _observation(self, before: float) -> Float[np.ndarray, " observation"]:
        hour = (self._start + self._step * MINUTES / 60.0) % 24.0
        numbers = [self._shown / 100.0, (self._shown - before) / 100.0, self._active, self._since / 60.0, hour / 24.0]
        return np.array(numbers, np.float32)


def risk(glucose: float) -> float:
    """Kovatchev et al. (1997): 0 at 112.5 mg/dL, more below and above."""
    return 10.0 * (1.509 * (math.log(glucose) ** 1.084 - 5.381)) ** 2
