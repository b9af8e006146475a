"""Every estimator against exactly computed values: `python -m studies.ope`; needs the extra `healthcare` (ICU-Sepsis).

ICU-Sepsis (Choudhary, Gupta & Thomas 2024) is a tabular MDP fitted to hospital records: 713 states of a patient, 25
treatments, a reward of 1 for survival, no discount. Logs of the clinicians' policy and of random treatment are drawn,
and policies are judged from them: those two, the optimal one, and the clinicians' with a fifth of its probability moved
to the optimal treatment. A small world of the same kind is one that a dataset of that size does show. Two parts, both
into results.json: all estimators on 4 logs (the small world: 30), and those without a model on 40, to count how often
their bounds are wrong. Four minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from segue.data import Dataset, load
from segue.ope import ESTIMATORS, FQE, METHODS, Bounds, DiscretePolicy, Episodes, evaluate_offline

HERE = Path(__file__).parent
CONFIDENCE = 0.9
#: Propensities are stored in 32 bits, so equal policies differ by less than this.
ROUNDING = 1e-5
EPISODES, MANY_LOGS = 1000, 40
#: One weight per state and treatment: it can represent every Q.
TABULAR = FQE(hidden_sizes=(), steps=1500, learning_rate=0.05, polyak=0.05, members=4)


class World:
    """An MDP as arrays, not discounted: chances of the next state, the terminal ones last, and its reward."""

    name: ClassVar[str]
    logs_with_models: ClassVar[int]
    """As many as its fits of Q leave time for."""

    def __init__(self, chances: np.ndarray, step_reward: np.ndarray, start: np.ndarray) -> None:
        self.states = len(start)
        self.onward, self.reward = chances[..., : self.states], (chances * step_reward).sum(-1)
        self.start, self.step_reward, self.cumulative = start, step_reward, chances.cumsum(-1)
        self.random = np.full(chances.shape[:-1], 1 / chances.shape[1])
        self.optimal = self._optimal()

    def within(self, policy: np.ndarray) -> np.ndarray:
        """I − P_π of the states that do not end."""
        return np.eye(self.states) - np.einsum("sa,sat->st", policy, self.onward)

    def q(self, policy: np.ndarray) -> np.ndarray:
        """Q^π by a linear solve."""
        v = np.linalg.solve(self.within(policy), (policy * self.reward).sum(1))
        return self.reward + self.onward @ v

    def value(self, policy: np.ndarray) -> float:
        """J(π): the chance of survival."""
        return float(self.start @ (policy * self.q(policy)).sum(1))

    def visits(self, policy: np.ndarray) -> np.ndarray:
        """How often an episode does each action in each state, on average."""
        return np.linalg.solve(self.within(policy).T, self.start)[:, None] * policy

    def _optimal(self) -> np.ndarray:
        """Policy iteration from random actions; ties go to the lower number."""
        policy: np.ndarray = self.random
        while True:
            better = np.eye(policy.shape[-1])[self.q(policy).round(12).argmax(1)]
            if (better == policy).all():
                return policy
            policy = better

    def log(self, policy: np.ndarray, episodes: int, seed: int, one_hot: bool) -> Dataset:
        """Episodes to their end, with propensities; a state is its number, or a one-hot vector."""
        rng = np.random.default_rng(seed)
        state = rng.choice(self.states, episodes, p=self.start)
        running, rows = np.arange(episodes), []
        while len(running):
            action = (policy[state].cumsum(1) < rng.uniform(size=(len(state), 1))).sum(1).clip(0, policy.shape[1] - 1)
            following = (self.cumulative[state, action] < rng.uniform(size=(len(state), 1))).sum(1)
            following = following.clip(0, self.cumulative.shape[-1] - 1)
            reward = self.step_reward[state, action, following]
            ends = following >= self.states
            rows.append((running, state, action, reward, np.where(ends, state, following), ends))
            running, state = running[~ends], following[~ends]
        episode, state, action, reward, following, ends = (np.concatenate(c) for c in zip(*rows, strict=True))
        order = np.argsort(episode, kind="stable")

        def shown(states: np.ndarray) -> np.ndarray:
            return np.eye(self.states, dtype=np.float32)[states] if one_hot else states[:, None].astype(np.float32)

        return load(
            {
                "observations": shown(state[order]),
                "actions": action[order],
                "rewards": reward[order],
                "next_observations": shown(following[order]),
                "terminals": ends[order],
                "timeouts": np.zeros(len(order)),
                "discrete_actions": policy.shape[1],
                "behaviour_log_prob": np.log(policy[state, action])[order],
            }
        )


class Sepsis(World):
    """ICU-Sepsis: 713 states of a patient, 25 treatments."""

    name = "ICU-Sepsis"
    logs_with_models = 4

    def __init__(self) -> None:
        from icu_sepsis import ICUSepsisEnv

        env = ICUSepsisEnv()
        dynamics, patients = env.dynamics, 713
        super().__init__(dynamics["tx_mat"][:patients], dynamics["r_mat"][:patients], dynamics["d_0"][:patients])
        self.clinician = env.expert_policy[:patients]

    def cases(self) -> Iterator[tuple[str, np.ndarray, str, np.ndarray]]:
        """Whose log, and who is judged."""
        judged = {
            "clinician": self.clinician,
            "nearly clinician": 0.8 * self.clinician + 0.2 * self.optimal,
            "random": self.random,
            "optimal": self.optimal,
        }
        for log, names in (("clinician", list(judged)), ("random", ["clinician", "optimal"])):
            for name in names:
                yield log, judged[log], name, judged[name]


class Small(World):
    """Six states and three actions of random chances: 18 pairs, each of which a dataset of 1,000 episodes shows
    often."""

    name = "small"
    logs_with_models = 30

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        states, actions, ending = 6, 3, 0.2
        survival = rng.uniform(size=(states, actions, 1))
        onward = rng.dirichlet(np.ones(states), (states, actions))
        chances = np.concatenate([(1 - ending) * onward, ending * (1 - survival), ending * survival], axis=2)
        super().__init__(chances, np.broadcast_to(np.arange(states + 2) > states, chances.shape), np.eye(states)[0])

    def cases(self) -> Iterator[tuple[str, np.ndarray, str, np.ndarray]]:
        """Whose log, and who is judged."""
        for name, policy in (
            ("random", self.random),
            ("nearly random", 0.8 * self.random + 0.2 * self.optimal),
            ("optimal", self.optimal),
        ):
            yield "random", self.random, name, policy


def with_models(world: World, behaviour: np.ndarray, policy: np.ndarray) -> dict[str, Any]:
    """What every method says, over a few datasets."""
    target = DiscretePolicy(lambda observation: observation @ policy)
    logs = [world.log(behaviour, EPISODES, seed, one_hot=True) for seed in range(world.logs_with_models)]
    found = [
        evaluate_offline(target, log, confidence=CONFIDENCE, discount=1.0, fqe=TABULAR, seed=seed)
        for seed, log in enumerate(logs)
    ]
    value, better = world.value(policy), world.value(policy) - world.value(behaviour)
    methods: dict[str, Any] = {}
    for method in METHODS:
        each = [result[method] for result in found]
        square = mean((e.value - value) ** 2 for e in each)
        methods[method] = {
            "mean": mean(e.value for e in each),
            "lowest": finite(min(e.value for e in each)),
            "highest": finite(max(e.value for e in each)),
            "root mean squared error": None if square is None else square**0.5,
            "mean lower bound": mean(e.bounds.value_lower for e in each),
            **wrong([e.bounds for e in each], better),
            "answers": Counter(e.verdict.answer for e in each),
        }
        if each[0].support is not None:
            methods[method]["mean effective episodes"] = mean(e.support.effective_episodes for e in each if e.support)
            methods[method]["largest weight"] = max(e.support.max_weight for e in each if e.support)
    visits, shown = world.visits(policy), [pairs(policy.shape, log) for log in logs]
    return {
        "logs": len(logs),
        "share of the judged policy's steps in no row of the dataset": mean(
            visits[~s].sum() / visits.sum() for s in shown
        ),
        "value if what no row of the dataset shows were worth 0": mean(world.value(policy * s) for s in shown),
        "methods": methods,
    }


def pairs(shape: tuple[int, ...], log: Dataset) -> np.ndarray:
    """Which states and actions a dataset of one-hot states shows together."""
    shown = np.zeros(shape, bool)
    shown[log.observations.argmax(1), log.actions] = True
    return shown


def without_models(world: World, behaviour: np.ndarray, policy: np.ndarray) -> dict[str, Any]:
    """How often a bound at CONFIDENCE is on the wrong side of the truth, over many datasets."""
    log = world.log(behaviour, EPISODES * MANY_LOGS, 1, one_hot=False)
    target = DiscretePolicy(lambda observation: policy[observation[:, 0].astype(int)])
    log_ratio = target.log_prob(log.observations, log.actions) - log.behaviour_log_prob
    together = Episodes.of(log, 1.0, log_ratio)
    better = world.value(policy) - world.value(behaviour)
    methods: dict[str, Any] = {}
    for name, estimator in ESTIMATORS.items():
        if not estimator.uses_model:
            logs = [together[i * EPISODES : (i + 1) * EPISODES] for i in range(MANY_LOGS)]
            bounds = [estimator.bounds(part, CONFIDENCE, np.random.default_rng(i)) for i, part in enumerate(logs)]
            methods[name] = {
                **wrong(bounds, better),
                "lower bound above 0": mean(b.difference_lower > ROUNDING for b in bounds),
                "mean effective episodes": mean(estimator.support(part).effective_episodes for part in logs),
            }
    return {"logs": MANY_LOGS, "methods": methods}


def wrong(bounds: Sequence[Bounds], better: float) -> dict[str, float | None]:
    """In which share of the datasets a bound of the difference excludes the true one."""
    return {
        "lower bound of the difference too high": mean(b.difference_lower > better + ROUNDING for b in bounds),
        "upper bound of the difference too low": mean(b.difference_upper < better - ROUNDING for b in bounds),
    }


def mean(values: Iterable[Any]) -> float | None:
    """None where a value does not exist."""
    return finite(np.mean(list(values)))


def finite(number: Any) -> float | None:
    """The number, None where it does not exist."""
    return float(number) if np.isfinite(number) else None


def main() -> None:
    """Both parts, case by case."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    worlds: list[Small | Sepsis] = [Small(), Sepsis()]
    results: dict[str, Any] = {"episodes per log": EPISODES, "confidence": CONFIDENCE, "cases": []}
    started = time.monotonic()
    for world in worlds:
        for log, behaviour, name, policy in world.cases():
            results["cases"].append(
                {
                    "world": world.name,
                    "log": log,
                    "judged": name,
                    "dataset's value": world.value(behaviour),
                    "value": world.value(policy),
                    "all methods": with_models(world, behaviour, policy),
                    "without a model": without_models(world, behaviour, policy),
                }
            )
            print(
                f"{time.monotonic() - started:.0f} s: {world.name}, {name} from the dataset of {log}: "
                f"{world.value(policy):.4f} against {world.value(behaviour):.4f}",
                flush=True,
            )
            (HERE / "results.json").write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
