"""Small recipes that between them pass through every part of a run that has a state."""

from __future__ import annotations

from typing import Any

import segue

SMALL: dict[str, Any] = {"hidden_sizes": (16, 16), "batch_size": 32}
HOPPER: dict[str, Any] = {"dataset": "segue:hopper-mixed", "env": "Hopper-v5", "offline": segue.TD3BC(**SMALL)}
CARTPOLE: dict[str, Any] = {"dataset": "segue:cartpole-mixed", "env": "CartPole-v1"}
BUDGET: dict[str, Any] = {
    "offline_steps": 600,
    "online_steps": 1200,
    "warmup_steps": 200,
    "distil_steps": 50,
    "eval_every": 300,
    "eval_episodes": 2,
}


NAMES = ("sac", "balanced", "guard", "samg", "iql", "cal-ql", "dqn", "ppo")


def scenarios() -> dict[str, segue.Recipe]:
    """By name: off-policy and on-policy, both kinds of actions, bridges with a state, a ring that runs over."""
    cal_ql = segue.CalQL(**SMALL, sampled_actions=2)
    ppo = segue.PPO(**SMALL, rollout_steps=256, epochs=2)
    guarded = (segue.Guard(), segue.JumpStart(stages=3, window=2))
    ring = segue.Balanced(capacity=500, hidden_sizes=(16,))
    parts: dict[str, dict[str, Any]] = {
        "sac": HOPPER | {"online": segue.SAC(**SMALL), "bridges": (segue.QFilter(),)},
        "balanced": HOPPER | {"online": segue.TD3(**SMALL), "replay": ring, "environments": 2},
        "guard": HOPPER | {"online": segue.SAC(**SMALL), "bridges": guarded},
        "samg": HOPPER | {"online": segue.SAC(**SMALL), "bridges": (segue.SAMG(fit_steps=50),), "environments": 3},
        "iql": CARTPOLE | {"offline": segue.IQL(**SMALL), "online": segue.IQL(**SMALL)},
        "cal-ql": HOPPER | {"offline": cal_ql, "online": cal_ql},
        "dqn": CARTPOLE | {"offline": segue.DiscreteCQL(**SMALL), "online": segue.DQN(**SMALL)},
        "ppo": CARTPOLE | {"offline": segue.BC(**SMALL), "online": ppo, "environments": 2},
    }
    parts["samg"]["replay"] = segue.OnlineOnly()
    parts["dqn"]["replay"] = segue.Annealed()
    parts["guard"]["keep_policies"] = True
    return {name: segue.Recipe(**(BUDGET | fields)) for name, fields in parts.items()}


def essence(summary: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on where a run was interrupted: every number that is not a time."""
    kept = ("parameters_sha256", "offline_evaluations", "online_evaluations", "final_score", "events", "status")
    return {
        f"{arm}/{seed}": {name: result[name] for name in kept}
        for arm, found in summary["arms"].items()
        for seed, result in found["seeds"].items()
    }
