"""Learning from records with caution: better treatments only where the records show them often enough.

Safe policy improvement with baseline bootstrapping (SPIBB, Laroche, Trichelair & Tachet des Combes 2019, arXiv
1712.06924, the policy-based form): in each state, a treatment that was seen at least `fewest` times may take over the
probability of others like it; a treatment that was seen less often keeps the clinicians' probability.
"""

from __future__ import annotations

import numpy as np
from examples.healthcare.world import ACTIONS, ALL, STATES, Patients, World
from jaxtyping import Float
from scipy import sparse

#: Weight of a state's average transition in that of each of its treatments, in visits.
PRIOR = 2.0
#: Chance that an episode ends in death at each step of the estimated model, so that every episode ends in it.
LEAK = 1e-4


class Records:
    """How often each admissible treatment led from each state to each other."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.state, self.action = np.nonzero(world.allowed)
        self._place = np.full((STATES, ACTIONS), -1)
        self._place[self.state, self.action] = np.arange(len(self.state))
        self.counts = np.zeros((len(self.state), ALL))
        own = world.clinician * world.allowed
        #: The clinicians' policy among admissible treatments.
        self.baseline = own / own.sum(1, keepdims=True)

    def add(self, patients: Patients) -> None:
        """Steps with an inadmissible treatment say nothing of the others."""
        place = self._place[patients.state, patients.action]
        known = place >= 0
        np.add.at(self.counts, (place[known], patients.following[known]), 1)

    def improved(
        self, fewest: float, sign: float = 1.0, start: Float[np.ndarray, "states actions"] | None = None
    ) -> tuple[Float[np.ndarray, "states actions"], float]:
        """The policy, and what the records promise of it beyond the baseline: an optimistic estimate.

        Args:
            fewest: visits from which a treatment may be preferred.
            sign: −1 for a learner with a mistake in its reward, which looks for the worst treatment.
            start: the policy that policy iteration begins with, such as the last one; by default the baseline.
        """
        pooled = self._per_state(np.ones(len(self.state))) @ self.counts
        pooled /= np.maximum(pooled.sum(1, keepdims=True), 1)
        seen = self.counts.sum(1, keepdims=True)
        chances = (self.counts + PRIOR * pooled[self.state]) / (seen + PRIOR)
        known = np.zeros((STATES, ACTIONS), bool)
        known[self.state, self.action] = seen[:, 0] >= fewest
        kept = np.where(known, 0, self.baseline)
        free = 1 - kept.sum(1)
        usual = self._promised(self.baseline, chances)
        policy, values = (self.baseline, usual) if start is None else (start, self._promised(start, chances))
        while True:
            q = np.full((STATES, ACTIONS), -np.inf)
            q[self.state, self.action] = sign * (chances @ np.append(values, self._ends()))
            best = np.where(known, q, -np.inf).argmax(1)
            better = kept.copy()
            better[np.arange(STATES), best] += np.where(known.any(1), free, 0)
            promised = self._promised(better, chances)
            gained = sign * float(self.world.start @ (promised - values))
            policy, values = better, promised
            if abs(gained) < 1e-4:  # treatments that are equally good may take turns
                return policy, float(self.world.start @ (promised - usual))

    def _per_state(self, weights: Float[np.ndarray, " pairs"]) -> sparse.csr_array:
        """What sums pairs of state and treatment up by state, with these weights."""
        pairs = len(self.state)
        return sparse.csr_array((weights, (self.state, np.arange(pairs))), (STATES, pairs))

    def _ends(self) -> Float[np.ndarray, " ends"]:
        return (np.arange(STATES, ALL) == self.world.survival).astype(float)

    def _promised(
        self, policy: Float[np.ndarray, "states actions"], chances: Float[np.ndarray, "pairs all"]
    ) -> Float[np.ndarray, " states"]:
        onward = self._per_state(policy[self.state, self.action]) @ chances
        # A state that no record has shown leads nowhere, and one that records show no way out of leads nowhere else.
        lasting = np.eye(STATES) - (1 - LEAK) * onward[:, :STATES]
        return np.linalg.solve(lasting, onward[:, STATES:] @ self._ends())
