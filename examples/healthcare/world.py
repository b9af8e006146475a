"""ICU-Sepsis as arrays: patients of a policy, and the exact chance of survival of any policy.

ICU-Sepsis (Choudhary, Gupta & Thomas 2024, arXiv 2406.05646) is a tabular MDP fitted to the MIMIC-III records of sepsis
patients: 713 states of a patient, 25 treatments, a reward of 1 for survival, no discount.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import warnings
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse

#: States of a patient; death, survival and an absorbing state come after them.
STATES, ACTIONS, ALL = 713, 25, 716


@dataclasses.dataclass(frozen=True)
class Patients:
    """Steps of some patients, one after the other in time; those of one patient in order."""

    patient: Int[np.ndarray, " steps"]
    """Number of the patient, from 0."""
    state: Int[np.ndarray, " steps"]
    action: Int[np.ndarray, " steps"]
    following: Int[np.ndarray, " steps"]
    """The next state; from STATES on it is the end."""
    log_prob: Float[np.ndarray, " steps"]
    """log of the probability with which the treatment was chosen."""
    survived: Float[np.ndarray, " patients"]
    """1 or 0."""


class World:
    """The MDP, with the clinicians' policy."""

    def __init__(self) -> None:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")  # the package imports a Gym that warns, and prints, of its age
            from icu_sepsis import ICUSepsisEnv

            env = ICUSepsisEnv()
        chances, reward = env.dynamics["tx_mat"][:STATES], env.dynamics["r_mat"][:STATES]
        self.start: Float[np.ndarray, " states"] = env.dynamics["d_0"][:STATES]
        self.clinician: Float[np.ndarray, "states actions"] = env.expert_policy[:STATES]
        self.allowed: Bool[np.ndarray, "states actions"] = np.zeros((STATES, ACTIONS), bool)
        for state, actions in enumerate(env.dynamics["admissible_actions"][:STATES]):
            self.allowed[state, actions] = True
        self.chances, self.reward = chances, (chances * reward).sum(-1)
        #: Which of the last three states is survival.
        self.survival = STATES + int(reward.max((0, 1))[STATES:].argmax())
        row, self._following = np.nonzero(chances.reshape(-1, ALL))
        # Chances of a row add up to 1, so that one sorted array has them all.
        summed = chances.reshape(-1, ALL).cumsum(1)[row, self._following]
        self._reached = row + np.minimum(summed / chances.reshape(-1, ALL).sum(1)[row], 1.0)

    @cached_property
    def clinician_value(self) -> float:
        """Survival under the clinicians' policy."""
        return self.value(self.clinician)

    @cached_property
    def optimal_value(self) -> float:
        """The best survival with admissible treatments, by policy iteration."""
        policy, best = self.allowed / self.allowed.sum(1, keepdims=True), 0.0
        while True:
            q = self.reward + self.chances[..., :STATES] @ self.values(policy)
            policy = np.eye(ACTIONS)[np.where(self.allowed, q, -np.inf).argmax(1)]
            if self.value(policy) < best + 1e-12:
                return best
            best = self.value(policy)

    def value(self, policy: Float[np.ndarray, "states actions"]) -> float:
        """Exact chance of survival under a policy."""
        return float(self.start @ self.values(policy))

    def values(self, policy: Float[np.ndarray, "states actions"]) -> Float[np.ndarray, " states"]:
        """Exact chance of survival from each state, by a linear solve."""
        state, action = np.nonzero(policy)
        weights = sparse.csr_array((policy[state, action], (state, np.arange(len(state)))), (STATES, len(state)))
        onward = weights @ self.chances[state, action, :STATES]
        return np.linalg.solve(np.eye(STATES) - onward, (policy * self.reward).sum(1))

    def treat(
        self,
        policy: Float[np.ndarray, "states actions"],
        patients: int,
        source: np.random.Generator,
        other: Float[np.ndarray, "states actions"] | None = None,
        others: Bool[np.ndarray, " patients"] | None = None,
    ) -> Patients:
        """So many patients, treated by this policy until they survive or die; `others` by the other one."""
        state = source.choice(STATES, patients, p=self.start / self.start.sum())
        here, survived, parts = np.arange(patients), np.zeros(patients), []
        policies = np.stack([policy, policy if other is None else other])
        summed = policies.cumsum(2) / policies.sum(2, keepdims=True)
        whose = np.zeros(patients, int) if others is None else others.astype(int)
        while len(here):
            which = whose[here]
            action = (summed[which, state] < source.uniform(size=(len(here), 1))).sum(1).clip(0, ACTIONS - 1)
            place = state * ACTIONS + action + source.uniform(size=len(here))
            following = self._following[np.searchsorted(self._reached, place).clip(0, len(self._reached) - 1)]
            parts.append((here, state, action, following, np.log(policies[which, state, action])))
            survived[here] = following == self.survival
            on = following < STATES
            here, state = here[on], following[on]
        patient, state, action, following, log_prob = map(np.concatenate, zip(*parts, strict=True))
        order = np.argsort(patient, kind="stable")
        return Patients(patient[order], state[order], action[order], following[order], log_prob[order], survived)
