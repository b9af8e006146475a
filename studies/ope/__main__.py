"""Every estimator against exactly computed values: `python -m studies.ope`; needs the extra `ope` (ICU-Sepsis).

ICU-Sepsis (Choudhary, Gupta & Thomas 2024) is a tabular MDP fitted to hospital records: 713 states of a patient, 25
treatments, a reward of 1 for survival, no discount. Logs of the clinicians' policy and of random treatment are drawn,
and policies are judged from them: those two, the optimal one, and the clinicians' with a fifth of its probability moved
to the optimal treatment. Two parts, both into results.json: all estimators on one log, and those without a model on
forty, to count how often their bounds are wrong. About four minutes of computing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segue.data import Dataset, load
from segue.ope import ESTIMATORS, FQE, DiscretePolicy, Episodes, evaluate_offline

HERE = Path(__file__).parent
PATIENTS = 713
CONFIDENCE = 0.9
#: Propensities are stored in 32 bits, so equal policies differ by less than this.
ROUNDING = 1e-5
EPISODES, FEW_LOGS, MANY_LOGS = 1000, 1, 40
#: One weight per state and treatment: it can represent every Q.
TABULAR = FQE(hidden_sizes=(), steps=1500, learning_rate=0.05, polyak=0.05, members=4)


class Sepsis:
    """The MDP as arrays: chances of the next patient state, of survival, of death."""

    def __init__(self) -> None:
        from icu_sepsis import ICUSepsisEnv

        env = ICUSepsisEnv()
        dynamics = env.dynamics
        chances, reward = dynamics["tx_mat"][:PATIENTS], dynamics["r_mat"][:PATIENTS]
        self.onward, self.reward = chances[..., :PATIENTS], (chances * reward).sum(-1)
        self.start = dynamics["d_0"][:PATIENTS]
        # Cumulative chances of what follows, the terminal states last.
        self.cumulative = chances.cumsum(-1)
        self.step_reward = reward
        self.clinician = env.expert_policy[:PATIENTS]
        self.random = np.full_like(self.clinician, 1 / self.clinician.shape[1])
        self.optimal = self._optimal()

    def q(self, policy: np.ndarray) -> np.ndarray:
        """Q^π by a linear solve."""
        p = np.einsum("sa,sat->st", policy, self.onward)
        v = np.linalg.solve(np.eye(PATIENTS) - p, (policy * self.reward).sum(1))
        return self.reward + self.onward @ v

    def value(self, policy: np.ndarray) -> float:
        """J(π): the chance of survival."""
        return float(self.start @ (policy * self.q(policy)).sum(1))

    def _optimal(self) -> np.ndarray:
        """Policy iteration from random treatment; ties go to the lower number."""
        policy = self.random
        while True:
            better = np.eye(policy.shape[1])[self.q(policy).round(12).argmax(1)]
            if (better == policy).all():
                return policy
            policy = better

    def log(self, policy: np.ndarray, episodes: int, seed: int, one_hot: bool) -> Dataset:
        """Episodes to their end, with propensities; a state is its number, or a one-hot vector."""
        rng = np.random.default_rng(seed)
        state = rng.choice(PATIENTS, episodes, p=self.start)
        running, rows = np.arange(episodes), []
        while len(running):
            action = (policy[state].cumsum(1) < rng.uniform(size=(len(state), 1))).sum(1).clip(0, policy.shape[1] - 1)
            following = (self.cumulative[state, action] < rng.uniform(size=(len(state), 1))).sum(1)
            following = following.clip(0, self.cumulative.shape[-1] - 1)
            reward = self.step_reward[state, action, following]
            ends = following >= PATIENTS
            rows.append((running, state, action, reward, np.where(ends, state, following), ends))
            running, state = running[~ends], following[~ends]
        episode, state, action, reward, following, ends = (np.concatenate(c) for c in zip(*rows, strict=True))
        order = np.argsort(episode, kind="stable")

        def shown(states: np.ndarray) -> np.ndarray:
            return np.eye(PATIENTS, dtype=np.float32)[states] if one_hot else states[:, None].astype(np.float32)

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


def cases(world: Sepsis) -> Iterator[tuple[str, np.ndarray, str, np.ndarray]]:
    """Whose log, and who is judged."""
    judged = {
        "clinician": world.clinician,
        "nearly clinician": 0.8 * world.clinician + 0.2 * world.optimal,
        "random": world.random,
        "optimal": world.optimal,
    }
    for log, names in (("clinician", list(judged)), ("random", ["clinician", "optimal"])):
        for name in names:
            yield log, judged[log], name, judged[name]


def with_models(world: Sepsis, behaviour: np.ndarray, policy: np.ndarray) -> dict[str, Any]:
    """What every method says, over a few logs."""
    target = DiscretePolicy(lambda observation: observation @ policy)
    found = [
        evaluate_offline(
            target,
            world.log(behaviour, EPISODES, seed, one_hot=True),
            confidence=CONFIDENCE,
            discount=1.0,
            fqe=TABULAR,
            seed=seed,
        )
        for seed in range(FEW_LOGS)
    ]
    methods: dict[str, Any] = {}
    for method in [estimate.method for estimate in found[0].estimates]:
        each = [result[method] for result in found]
        methods[method] = {
            "mean": mean(e.value for e in each),
            "root mean squared error": float(np.sqrt(np.mean([(e.value - world.value(policy)) ** 2 for e in each]))),
            "mean lower bound": mean(e.bounds.value_lower for e in each),
            "answers": [e.verdict.answer for e in each],
        }
        if each[0].support is not None:
            methods[method]["mean effective episodes"] = mean(e.support.effective_episodes for e in each if e.support)
            methods[method]["largest weight"] = max(e.support.max_weight for e in each if e.support)
    return methods


def without_models(world: Sepsis, behaviour: np.ndarray, policy: np.ndarray) -> dict[str, Any]:
    """How often a bound at CONFIDENCE is on the wrong side of the truth, over many logs."""
    log = world.log(behaviour, EPISODES * MANY_LOGS, 1, one_hot=False)
    target = DiscretePolicy(lambda observation: policy[observation[:, 0].astype(int)])
    log_ratio = target.log_prob(log.observations, log.actions) - log.behaviour_log_prob
    together = Episodes.of(log, 1.0, log_ratio)
    better = world.value(policy) - world.value(behaviour)
    wrong: dict[str, Any] = {}
    for name, estimator in ESTIMATORS.items():
        if not estimator.uses_model:
            logs = [together[i * EPISODES : (i + 1) * EPISODES] for i in range(MANY_LOGS)]
            bounds = [estimator.bounds(part, CONFIDENCE, np.random.default_rng(i)) for i, part in enumerate(logs)]
            wrong[name] = {
                "lower bound of the difference too high": mean(b.difference_lower > better + ROUNDING for b in bounds),
                "upper bound of the difference too low": mean(b.difference_upper < better - ROUNDING for b in bounds),
                "lower bound above 0": mean(b.difference_lower > ROUNDING for b in bounds),
                "mean effective episodes": mean(estimator.support(part).effective_episodes for part in logs),
            }
    return wrong


def mean(values: Iterable[Any]) -> float | None:
    """None where a value does not exist."""
    average = float(np.mean(list(values)))
    return average if np.isfinite(average) else None


def main() -> None:
    """Both parts, case by case."""
    world = Sepsis()
    parts: dict[str, Callable[..., dict[str, Any]]] = {"few logs": with_models, "many logs": without_models}
    results: dict[str, Any] = {
        "episodes per log": EPISODES,
        "logs": {"few logs": FEW_LOGS, "many logs": MANY_LOGS},
        "confidence": CONFIDENCE,
        "cases": [],
    }
    for log, behaviour, name, policy in cases(world):
        case = {"log": log, "judged": name, "log's value": world.value(behaviour), "value": world.value(policy)}
        results["cases"].append(
            {**case, **{part: measure(world, behaviour, policy) for part, measure in parts.items()}}
        )
        print(
            f"{name} from the log of {log}: {world.value(policy):.4f} against {world.value(behaviour):.4f}", flush=True
        )
        (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
