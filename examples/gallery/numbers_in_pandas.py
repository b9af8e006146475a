"""The numbers behind a report, in pandas: finals, their spread, and single episodes."""

from __future__ import annotations

from typing import Any

import segue

shared: dict[str, Any] = {"dataset": "segue:cartpole-mixed", "offline_steps": 200, "eval_episodes": 3, "seeds": 2}
arms = {
    "BC": segue.Recipe(**shared, offline=segue.BC(hidden_sizes=(32, 32))),
    "discrete CQL": segue.Recipe(**shared, offline=segue.DiscreteCQL(hidden_sizes=(32, 32))),
}
result = segue.compare(arms, "runs/pandas", progress=False)

curves = result.curves()  # a row per evaluation
last = curves[curves["step"] == curves["step"].max()]
print(last.groupby("arm")["mean_return"].agg(["mean", "min", "max", "count"]))

episodes = last.assign(episode_return=last["episode_returns"].str.split()).explode("episode_return")
print(episodes.astype({"episode_return": float}).groupby("arm")["episode_return"].describe())
