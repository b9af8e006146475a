"""The off-policy gate: what the log's episodes say of a candidate before it acts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made import Made
from serving import Serve

from segue.data import load
from segue.errors import SegueError
from segue.live import gate
from segue.live.gate import evaluate
from segue.live.policies import stage
from segue.live.promotion import canary, last_verdict
from segue.live.trial import declare
from segue.live.values import Refused


def asked_of(
    monkeypatch: pytest.MonkeyPatch,
    policy: Made,
    episodes: int,
    likes: bool = True,
    explore: bool = False,
    cost: float | None = None,
) -> list[str]:
    """Episodes of one random step, whose reward is 1 for what the policy would (not) do; which log is asked for.

    What the policy would do costs `cost`, and everything else 1.
    """
    rng, asked = np.random.default_rng(0), []
    observations = rng.normal(size=(episodes, 3)).astype(np.float32)
    actions = rng.integers(4, size=episodes)
    same = actions == policy.exported(observations, explore=explore) - 1
    data = {
        "observations": observations,
        "actions": actions,
        "rewards": (same == likes).astype(float),
        "terminals": np.ones(episodes, bool),
        "behaviour_log_prob": np.full(episodes, np.log(1 / 4)),
        "discrete_actions": 4,
    }
    if cost is not None:
        data["cost"] = np.where(same, cost, 1.0)

    def read(uri: str) -> Any:
        asked.append(uri)
        return load(data)

    monkeypatch.setattr(gate, "load", read)
    return asked


@pytest.mark.parametrize(
    ("episodes", "likes", "verdict"),
    [(600, True, "passed"), (600, False, "failed"), (20, True, "not enough evidence")],
)
def test_a_candidate_passes_if_its_lower_bound_is_above_the_live_policy(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch, episodes: int, likes: bool, verdict: str
) -> None:
    service = serve(explore="no")
    declare(service.database, 0.0, "me", {"window": 10.0})
    policy = stage(service.database, other.directory, "other", trained_to=7)
    asked = asked_of(monkeypatch, other, episodes, likes)
    found = evaluate(service.database, "other", "me", "to see")
    live = service.deployment.live
    assert found.verdict == verdict
    assert found == last_verdict(service.database, policy)
    assert (found.evidence["live"], found.evidence["trained_to"]) == (live, 7)
    assert asked == [f"live:{service.database.url}?arm=live&policy={live}&from=7&propensities=known"]
    if verdict == "passed":
        assert canary(service.database, "other", "me").candidate == policy
    else:
        with pytest.raises(Refused, match=verdict):
            canary(service.database, "other", "me")


def test_too_few_effective_episodes_are_not_enough_evidence(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(explore="no")
    declare(service.database, 0.0, "me", {"effective": 1000})
    stage(service.database, other.directory, "other")
    asked_of(monkeypatch, other, 600)
    found = evaluate(service.database, "other", "me")
    assert found.verdict == "not enough evidence"
    assert "effective episodes; expected 1000" in found.evidence["reason"]


@pytest.mark.parametrize(
    ("cost", "verdict", "said"),
    [
        (0.1, "passed", "better by"),
        (0.6, "not enough evidence", "and the limit is 0.5"),
        (None, "not enough evidence", "not every outcome has a cost"),
    ],
)
def test_a_candidate_passes_only_if_the_upper_bound_of_its_cost_is_within_the_limit(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch, cost: float | None, verdict: str, said: str
) -> None:
    service = serve(explore="no")
    declare(service.database, 0.0, "me", {"cost_limit": 0.5})
    stage(service.database, other.directory, "other")
    asked_of(monkeypatch, other, 1000, cost=cost)
    found = evaluate(service.database, "other", "me")
    assert found.verdict == verdict
    assert said in found.evidence["reason"]
    if cost is not None:
        assert cost < found.evidence["cost_upper"] < cost + 0.3


def test_a_candidate_is_judged_as_it_would_explore(
    serve: Serve, other: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {}
    for explore in ("no", "0.5", "1.0"):
        service = serve(tmp_path / f"{explore}.db", explore=explore)
        stage(service.database, other.directory, "other")
        asked_of(monkeypatch, other, 2000)
        [estimate] = evaluate(service.database, "other", "me").evidence["estimates"]
        values[explore] = estimate["value"]
    # Greedy actions earn 1; drawn from all four, a quarter of that.
    assert values["no"] == pytest.approx(1.0, abs=0.1)
    assert values["0.5"] == pytest.approx(0.5 + 0.5 / 4, abs=0.1)
    assert values["1.0"] == pytest.approx(1 / 4, abs=0.05)


def test_where_the_application_acts_a_candidate_is_judged_against_it(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(explore="no", mode="apprentice")
    stage(service.database, other.directory, "other")
    asked = asked_of(monkeypatch, other, 600)
    assert evaluate(service.database, "other", "me").verdict == "passed"
    assert "?arm=application&from=0" in asked[0]


def test_a_candidate_is_judged_from_the_log_of_the_service_itself(serve: Serve, other: Made) -> None:
    service, rng = serve(explore="0.9", seed=0), np.random.default_rng(0)
    policy = stage(service.database, other.directory, "other")
    for i in range(300):
        x = rng.normal(size=3).astype(np.float32)
        action = service.decide(decision_id=f"d{i}", episode_id=f"e{i}", observation=x.tolist()).action
        likes = action == int(other.exported(x))
        service.outcome(decision_id=f"d{i}", reward=float(likes), terminated=True)
    found = evaluate(service.database, policy, "me")
    assert found.evidence["dataset_episodes"] == 300
    assert found.verdict == "passed"


def test_a_candidate_that_has_learnt_from_all_there_is_has_to_wait(serve: Serve, other: Made) -> None:
    service = serve()
    policy = stage(service.database, other.directory, "other", trained_to=7)
    with pytest.raises(SegueError, match=f"policy {policy[:12]} cannot be judged: .* after row 7, up to which"):
        evaluate(service.database, "other", "me")
    assert last_verdict(service.database, policy) is None
