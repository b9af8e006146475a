"""Cautious online updates, repeated many times: the exact survival of what acts is known after every patient.

1. records    the clinicians treat; the learner learns from their records
2. shadow     the clinicians treat on; the learner decides on paper, and off-policy evaluation may stop it
3. trial      patients are randomised: 10 % to the learner while only alarms count, then half until the evidence that it
              is better suffices, then 90 %; the others stay with the clinicians
In 3 the learner is updated after every four thousand patients. The evidence is about the arm, not about one policy: its
null hypothesis is that the arm changes nobody's outcome, which an update that looks at the past alone leaves as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from examples.healthcare.learner import Records
from examples.healthcare.world import STATES, Patients, World

from segue.data import Dataset, load
from segue.evidence import RankComparison, required_evidence
from segue.ope import DiscretePolicy, OfflineEvaluation, evaluate_offline

#: Patients between two looks at the evidence, and between two updates of the learner.
LOOK, UPDATE = 500, 4000
#: Shares of the patients that the learner treats.
WATCHED, TESTED, TRUSTED = 0.1, 0.5, 0.9
ALPHA = 0.05
#: Visits from which the learner may prefer a treatment.
FEWEST = 10


@dataclasses.dataclass(frozen=True)
class Plan:
    """How many patients each part has."""

    records: int = 8_000
    shadow: int = 2_000
    trial: int = 20_000
    watched: int = 1_000
    """Of the trial, those at 10 % while only alarms count."""


#: How the learner goes wrong, if it does, and whether anything stands between it and the patients.
ARMS = {
    "cautious": (1.0, True),
    "at once": (1.0, False),
    "cautious, reward with the wrong sign": (-1.0, True),
    "at once, reward with the wrong sign": (-1.0, False),
}


def repeat(world: World, arm: str, seed: int, plan: Plan) -> dict[str, Any]:
    """One repetition: the exact survival of what acts and of the learner, look by look, and what decided."""
    sign, careful = ARMS[arm]
    source = np.random.default_rng([seed, 1])
    records = Records(world)
    records.add(world.treat(world.clinician, plan.records, source))
    policy, promised = records.improved(FEWEST, sign)
    learner = world.value(policy)
    found: dict[str, Any] = {"seed": seed, "at first": learner, "promised": promised}
    path: list[tuple[int, float, float]] = []

    def note(patients: int, share: float) -> None:
        """A new patient is the learner's with this probability, and else the clinicians'."""
        deployed = share * learner + (1 - share) * world.clinician_value
        path.append((patients, round(deployed, 5), round(learner, 5)))

    treated, share, ended = 0, 0.0 if careful else 1.0, None
    if careful:
        note(0, share)
        shadow = world.treat(world.clinician, plan.shadow, source)
        gate = judge(policy, shadow, seed)
        found["gate"] = {
            "answer": gate.verdict.answer,
            "estimate": gate["pdis"].value,
            "at least": gate["pdis"].bounds.value_lower,
            "effective": 0.0 if gate["pdis"].support is None else gate["pdis"].support.effective_episodes,
        }
        records.add(shadow)
        treated, share = plan.shadow, WATCHED
        if gate.verdict.answer == "no":
            share, ended = 0.0, "stopped by the off-policy gate"
    whole, half = RankComparison(), RankComparison()
    passed, updated = None, treated
    while treated < plan.shadow + plan.trial:
        if treated - updated >= UPDATE and ended is None:
            policy, _ = records.improved(FEWEST, sign, policy)
            updated, learner = treated, world.value(policy)
        note(treated, share)
        own = source.uniform(size=LOOK) < share
        patients = world.treat(world.clinician, LOOK, source, policy, own)
        records.add(patients)
        treated += LOOK
        if not careful or ended is not None:
            continue
        _, worse = whole.update(patients.survived, own, share)
        if share == TESTED:
            better, _ = half.update(patients.survived, own, share)
            if better.max() >= math.log(required_evidence(ALPHA, 1, 0)):
                passed, share = treated - plan.shadow, TRUSTED
        elif share == WATCHED and treated - plan.shadow >= plan.watched:
            share = TESTED
        if worse.max() >= math.log(2 / ALPHA):
            ended, share = f"withdrawn by the alarm after {treated - plan.shadow} patients", 0.0
    note(treated, share)
    return {**found, "passed": passed, "ended": ended, "path": path}


@functools.cache
def world() -> World:
    """Of this process."""
    return World()


def one(job: tuple[str, int]) -> dict[str, Any]:
    """The repetition of this arm and seed, with the usual numbers of patients."""
    return repeat(world(), *job, Plan())


def judge(policy: np.ndarray, patients: Patients, seed: int) -> OfflineEvaluation:
    """The learner's policy, from patients of the clinicians that it has not learnt from."""
    target = DiscretePolicy(lambda observation: policy[observation[:, 0].astype(int)])
    return evaluate_offline(target, dataset(patients), methods=["pdis"], discount=1.0, seed=seed, fresh=True)


def dataset(patients: Patients) -> Dataset:
    """Records as Segue reads them, with their propensities; a state is its number."""
    last = patients.following >= STATES
    return load(
        {
            "observations": patients.state[:, None].astype(np.float32),
            "actions": patients.action,
            "rewards": last * patients.survived[patients.patient],
            "next_observations": np.where(last, patients.state, patients.following)[:, None].astype(np.float32),
            "terminals": last,
            "timeouts": np.zeros(len(last)),
            "discrete_actions": 25,
            "behaviour_log_prob": patients.log_prob,
        }
    )
