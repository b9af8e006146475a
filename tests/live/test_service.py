"""The decision service: every answer is in the log, once, and says what was really done."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import Made
from serving import Serve

from segue.acting import Acted
from segue.errors import SegueError
from segue.live import Service
from segue.live.database import Unavailable
from segue.live.overview import happened
from segue.live.policies import Deployment, stage
from segue.live.promotion import Promoter, canary, promote, resume
from segue.live.schema import AuditRow, DecisionRow, DeploymentRow, EpisodeRow
from segue.live.trial import declare
from segue.live.values import Refused

COUNT = itertools.count()
X = [0.1, -0.2, 0.3]
Y = [1.0, 2.0, 3.0]


def rows(service: Service, table: str) -> list[tuple[Any, ...]]:
    service.log.append([])  # behind what is sent without waiting for it
    return service.database.read(f"SELECT * FROM {table} ORDER BY seq")


def deploy(service: Service, **changes: Any) -> Deployment:
    now = service.deployment
    row = DeploymentRow(0.0, now.mode, now.live, now.candidate, now.share, now.explore, "test", "", 0)
    return service.deploy(row._replace(**changes))


def test_a_decision_is_answered_and_in_the_log(serve: Serve, switch: Made) -> None:
    service = serve(seed=0)
    decided = service.decide(decision_id="d", episode_id="e", observation=X)
    policy = switch.exported
    [row] = rows(service, "decisions")
    action, observation = np.frombuffer(row[7], np.int64)[0], np.frombuffer(row[5], np.float32)
    assert decided.action == action + 1
    np.testing.assert_array_equal(observation, np.float32(X))
    assert decided.log_prob == row[8]
    assert decided.log_prob < 0
    assert decided.policy == policy.about["sha256"]
    assert (decided.t, decided.arm, decided.mode) == (0, "live", "live")


def test_actions_are_in_the_environments_units(serve: Serve, crane: Made) -> None:
    service = serve(policy=crane.directory, explore="no")
    seen = {"swing": [0.5], "gear": 4}
    decided = service.decide(decision_id="d", episode_id="e", observation=seen)
    np.testing.assert_allclose(decided.action, crane.exported(seen), atol=1e-6)
    assert decided.log_prob is None


def test_a_retry_is_given_the_first_answer(serve: Serve) -> None:
    service = serve()
    first = [service.decide(decision_id=f"d{i}", episode_id="e", observation=X) for i in range(30)]
    again = [service.decide(decision_id=f"d{i}", episode_id="e", observation=X) for i in range(30)]
    assert again == first
    assert len(rows(service, "decisions")) == 30


@pytest.mark.parametrize("durability", ["after", "process", "power"])
def test_a_retry_after_a_restart_is_given_the_first_answer(serve: Serve, place: str, durability: str) -> None:
    service = serve(place, durability=durability)
    first = [service.decide(decision_id=f"d{i}", episode_id="e", observation=X) for i in range(10)]
    service.close()
    service = serve(place, durability=durability)
    assert [service.decide(decision_id=f"d{i}", episode_id="e", observation=X) for i in range(10)] == first
    assert service.decide(decision_id="next", episode_id="e", observation=X).t == 10


def test_retries_that_overlap_are_one_decision(serve: Serve) -> None:
    service = serve()
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda i: service.decide(decision_id=f"d{i % 10}", episode_id=f"e{i % 10}", observation=X), range(200)
            )
        )
    assert len(rows(service, "decisions")) == 10
    assert len({(answer.decision_id, answer.action, answer.log_prob) for answer in answers}) == 10


def test_steps_of_an_episode_are_counted_also_side_by_side(serve: Serve) -> None:
    service = serve()
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda i: service.decide(decision_id=f"d{i}", episode_id=f"e{i % 3}", observation=X), range(120))
        )
    for episode in range(3):
        assert sorted(a.t for a in answers if a.episode_id == f"e{episode}") == list(range(40))


def test_an_id_is_not_used_for_another_question(serve: Serve) -> None:
    service = serve()
    service.decide(decision_id="d", episode_id="e", observation=X)
    with pytest.raises(Refused, match="another observation"):
        service.decide(decision_id="d", episode_id="e", observation=Y)
    with pytest.raises(Refused, match="another observation or episode"):
        service.decide(decision_id="d", episode_id="f", observation=X)
    assert len(rows(service, "decisions")) == 1


@given(st.lists(st.sampled_from([("d", 1.0), ("d", 2.0), ("other", 1.0), ("unknown", 0.0)]), max_size=6))
@settings(max_examples=15)
def test_an_outcome_is_recorded_once_whatever_is_sent(
    switch: Made, tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[str, float]]
) -> None:
    with Service(tmp_path_factory.mktemp("log") / "live.db", switch.directory) as service:
        for name in ("d", "other"):
            service.decide(decision_id=name, episode_id="e", observation=X)
        first: dict[str, float] = {}
        for name, reward in sent:
            if name == "unknown":
                with pytest.raises(Refused, match="no decision 'unknown'"):
                    service.outcome(decision_id=name, reward=reward)
            elif first.setdefault(name, reward) == reward:
                service.outcome(decision_id=name, reward=reward)
            else:
                with pytest.raises(Refused, match="what was recorded stands"):
                    service.outcome(decision_id=name, reward=reward)
        assert {row[3]: row[4] for row in rows(service, "outcomes")} == first


def test_what_is_refused_is_kept(serve: Serve) -> None:
    service = serve()
    with pytest.raises(Refused):
        service.outcome(decision_id="nobody", reward=12.5)
    with pytest.raises(Refused):
        service.decide(decision_id="d", episode_id="e", observation=[1.0, 2.0])
    service.close()
    kept = rows(serve(), "refused")
    assert [(row[2], row[3]) for row in kept] == [("outcomes", "unknown_decision"), ("decisions", "observation")]
    assert "12.5" in kept[0][5]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"observation": [1.0, float("nan"), 0.0]}, "not_finite"),
        ({"observation": [1e39, 0.0, 0.0]}, "not_finite"),
        ({"observation": "abc"}, "observation"),
        ({"observation": [[1.0, 2.0, 3.0]]}, "observation"),
        ({"observation": X, "allowed": []}, "allowed"),
        ({"observation": X, "allowed": [0]}, "allowed"),
        ({"observation": X, "action": 1}, "not_apprentice"),
        ({"observation": X, "decision_id": ""}, "malformed"),
        ({"observation": X, "episode_id": "e" * 201}, "malformed"),
        ({"observation": X, "colour": 1}, "malformed"),
    ],
)
def test_what_no_policy_can_use_is_refused_and_leaves_no_row(serve: Serve, fields: dict[str, Any], code: str) -> None:
    service = serve()
    with pytest.raises(Refused) as refused:
        service.decide(**{"decision_id": "d", "episode_id": "e", **fields})
    assert refused.value.code == code
    assert not rows(service, "decisions")
    assert not rows(service, "episodes")
    assert service.decide(decision_id="d", episode_id="e", observation=X).t == 0


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"action": ["left", 1]}, "action is .*; expected 2 numbers within the policy's bounds"),
        ({"action": [0.0]}, "expected 2 numbers"),
        ({"action": [9.0, 1.0]}, "expected 2 numbers within"),
        ({"action": [0.0, 1.0], "allowed": [1]}, "a policy whose actions are numbers; leave it out"),
    ],
)
def test_an_action_that_is_none_of_the_policys_is_refused(
    serve: Serve, crane: Made, fields: dict[str, Any], said: str
) -> None:
    service = serve(policy=crane.directory, mode="apprentice")
    asked = {"episode_id": "e", "observation": {"swing": [0.5], "gear": 3}}
    with pytest.raises(Refused, match=said):
        service.decide(decision_id="d", **asked, **fields)
    assert service.decide(decision_id="d", **asked, action=[0.0, 1.0]).t == 0


def test_an_ended_episode_stays_ended(serve: Serve) -> None:
    service = serve()
    service.decide(decision_id="d", episode_id="e", observation=X)
    service.outcome(decision_id="d", reward=1, terminated=True)
    for _ in range(2):
        with pytest.raises(Refused, match="has ended"):
            service.decide(decision_id="d2", episode_id="e", observation=X)
        service.close()
        service = serve()


def test_transitions_are_complete_when_what_follows_is_known(serve: Serve) -> None:
    service = serve()
    for i, x in enumerate((X, Y)):
        service.decide(decision_id=f"d{i}", episode_id="e", observation=x)
    service.outcome(decision_id="d1", reward=2, truncated=True)  # early, and without what follows
    assert rows(service, "transitions") == []
    service.outcome(decision_id="d0", reward=1)
    [row] = rows(service, "transitions")
    np.testing.assert_array_equal(np.frombuffer(row[6], np.float32), np.float32(X))
    np.testing.assert_array_equal(np.frombuffer(row[12], np.float32), np.float32(Y))
    assert row[10] == 1


def test_what_was_overridden_counts_as_what_was_done(serve: Serve) -> None:
    service = serve()
    for i in range(3):
        service.decide(decision_id=f"d{i}", episode_id="e", observation=X)
    service.activation(decision_id="d0", executed=True)
    service.activation(decision_id="d1", executed=False, action=3, who="nurse")
    service.activation(decision_id="d2", executed=False)
    for i in range(3):
        service.outcome(decision_id=f"d{i}", reward=1, next_observation=Y)
    done = rows(service, "transitions")
    assert [row[2] for row in done] == ["d0", "d1"]  # what was done in d2 is not known
    assert np.frombuffer(done[1][8], np.int64)[0] == 2  # 3, counted from 1
    assert done[1][9] is None
    with pytest.raises(Refused, match="recorded stands"):
        service.activation(decision_id="d0", executed=False)
    with pytest.raises(Refused, match="expected a number from 1 to 4"):
        service.activation(decision_id="d2", executed=False, action=9)


def test_a_unit_keeps_its_arm_and_a_larger_share_keeps_the_units() -> None:
    small, large = (Deployment(1, "canary", "old", "new", share, "no") for share in (0.1, 0.5))
    units = [f"user-{i}" for i in range(4000)]
    few, many = ({unit for unit in units if one.arm(unit)[0] == "candidate"} for one in (small, large))
    assert few < many
    assert abs(len(few) / 4000 - 0.1) < 0.02
    assert abs(len(many) / 4000 - 0.5) < 0.03
    following = dataclasses.replace(large, candidate="newer")
    again = {unit for unit in units if following.arm(unit)[0] == "candidate"}
    assert abs(len(again & many) / 4000 - 0.25) < 0.03  # the draw is another one for another candidate


def test_a_canary_acts_in_its_share_with_its_own_policy(serve: Serve, other: Made, switch: Made) -> None:
    service = serve()
    candidate = stage(service.database, other.directory)
    deploy(service, mode="canary", candidate=candidate, share=0.5)
    begun = [service.begin(episode_id=f"e{i}", unit_id=f"u{i % 20}") for i in range(60)]
    assert {b.arm: b.policy for b in begun} == {"live": switch.exported.about["sha256"], "candidate": candidate}
    assert {b.probability for b in begun} == {0.5}
    assert len({(b.unit_id, b.arm) for b in begun}) == 20
    for one in begun:
        assert service.decide(decision_id=one.episode_id, episode_id=one.episode_id, observation=X).policy == one.policy


def test_a_rollback_stops_the_candidate_at_once_and_keeps_arms(serve: Serve, other: Made) -> None:
    service = serve()
    candidate = stage(service.database, other.directory)
    live = service.deployment.live
    deploy(service, mode="canary", candidate=candidate, share=1.0)
    before = service.decide(decision_id="a", episode_id="e", observation=X)
    deploy(service, mode="live", candidate=None, share=0.0)
    after = service.decide(decision_id="b", episode_id="e", observation=X)
    assert (before.policy, after.policy) == (candidate, live)
    assert after.arm == "candidate"  # what the unit was assigned to
    assert service.begin(episode_id="f", unit_id="e").arm == "live"


def test_an_episode_keeps_its_policy_at_a_promotion_and_loses_it_at_a_rollback(serve: Serve, other: Made) -> None:
    service = serve()
    first, second = service.deployment.live, stage(service.database, other.directory)

    def policy_of(episode: str) -> str:
        return service.decide(decision_id=f"{episode}{next(COUNT)}", episode_id=episode, observation=X).policy

    assert policy_of("before") == first
    deploy(service, live=second)
    assert (policy_of("before"), policy_of("since")) == (first, second)
    deploy(service, live=first)
    assert (policy_of("before"), policy_of("since")) == (first, first)
    service.close()
    service = serve()
    assert policy_of("since") == first


def test_what_another_process_deploys_is_taken_over(serve: Serve, other: Made, monkeypatch: Any) -> None:
    service = serve()
    now = service.deployment
    candidate = stage(service.database, other.directory)
    service.database.append([DeploymentRow(0.0, "live", candidate, None, 0.0, now.explore, "cli", "", 1)])
    monkeypatch.setattr("segue.live.service.LOOK", 0.0)
    assert service.decide(decision_id="d", episode_id="e", observation=X).policy == candidate


def test_shadow_decides_on_paper_only(serve: Serve, other: Made) -> None:
    service = serve()
    candidate = stage(service.database, other.directory)
    deploy(service, mode="shadow", candidate=candidate)
    decided = service.decide(decision_id="d", episode_id="e", observation=X)
    assert decided.policy == service.deployment.live
    [paper] = rows(service, "on_paper")
    assert paper[1:3] == ("d", candidate)


def test_an_apprentice_watches(serve: Serve) -> None:
    service = serve(mode="apprentice")
    with pytest.raises(Refused, match="expected the action that was taken"):
        service.decide(decision_id="d", episode_id="e", observation=X)
    decided = service.decide(decision_id="d", episode_id="e", observation=X, action=4, log_prob=-1.5)
    assert (decided.action, decided.log_prob, decided.arm, decided.policy) == (4, -1.5, "application", "")
    [paper] = rows(service, "on_paper")
    assert paper[2] == service.deployment.live
    for impossible in (0.5, -math.inf):
        with pytest.raises(Refused, match="log_prob is"):
            service.decide(decision_id="more", episode_id="e", observation=X, action=4, log_prob=impossible)


def test_a_candidate_acts_for_its_units_beside_an_application_that_acts(serve: Serve, other: Made) -> None:
    service = serve(mode="apprentice")
    candidate = stage(service.database, other.directory)
    deploy(service, mode="apprentice", candidate=candidate, share=0.5)
    arms = {name: service.begin(episode_id=name).arm for name in map(str, range(20))}
    mine, theirs = (next(name for name in arms if arms[name] == arm) for arm in ("candidate", "application"))
    decided = service.decide(decision_id="mine", episode_id=mine, observation=X)
    assert (decided.policy, decided.arm) == (candidate, "candidate")
    with pytest.raises(Refused, match="expected the action that was taken"):
        service.decide(decision_id="theirs", episode_id=theirs, observation=X)
    with pytest.raises(Refused, match="episodes whose arm is application"):
        service.decide(decision_id="more", episode_id=mine, observation=X, action=1)
    deploy(service, candidate=None, share=0.0)
    withdrawn = service.decide(decision_id="more", episode_id=mine, observation=X, action=1)
    assert (withdrawn.policy, withdrawn.arm, withdrawn.action) == ("", "candidate", 1)


def test_an_application_that_acts_again_gets_the_episodes_of_the_policy_that_was_live(
    serve: Serve, other: Made
) -> None:
    service = serve(mode="apprentice")
    first, second = service.deployment.live, stage(service.database, other.directory)
    deploy(service, mode="live", live=second)
    assert service.decide(decision_id="a", episode_id="e", observation=X).policy == second
    deploy(service, mode="apprentice", live=first)
    assert service.decide(decision_id="b", episode_id="e", observation=X, action=1).policy == ""
    deploy(service, candidate=second, share=0.5)
    assert service.decide(decision_id="c", episode_id="e", observation=X, action=1).policy == ""


def test_frozen_stops_every_candidate(serve: Serve, other: Made) -> None:
    service = serve()
    candidate = stage(service.database, other.directory)
    deploy(service, mode="canary", candidate=candidate, share=1.0)
    service.decide(decision_id="a", episode_id="e", observation=X)
    deploy(service, mode="frozen")
    assert service.decide(decision_id="b", episode_id="e", observation=X).policy == service.deployment.live
    assert service.begin(episode_id="f").arm == "fallback"


def test_a_share_of_random_actions_has_the_right_probability(serve: Serve) -> None:
    service = serve(explore="0.5", seed=0)
    answers = [service.decide(decision_id=f"{i}", episode_id=f"{i}", observation=X) for i in range(400)]
    chances = {round(math.exp(a.log_prob), 6): a.action for a in answers if a.log_prob is not None}
    assert set(chances) == {0.625, 0.125}
    greedy = sum(a.action == chances[0.625] for a in answers) / 400
    assert abs(greedy - 0.625) < 0.1


@pytest.mark.parametrize("explore", ["no", "policy", "0.5"])
def test_only_what_is_allowed_is_done_with_its_probability(serve: Serve, explore: str) -> None:
    service = serve(explore=explore, seed=0)
    answers = [service.decide(decision_id=f"{i}", episode_id=f"{i}", observation=X, allowed=[2, 4]) for i in range(200)]
    chances = {a.action: math.exp(a.log_prob) for a in answers if a.log_prob is not None}
    assert set(chances) <= {2, 4}
    if explore == "no":
        assert list(chances.values()) == [1.0]
    else:
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
    [row, *_] = rows(service, "decisions")
    assert row[6] == b"\0\1\0\1"


def breaks(service: Service, policy: str, monkeypatch: pytest.MonkeyPatch, times: int = 10**9) -> None:
    """Let a policy give no action so many times."""
    act, left = service.policy(policy).act, iter(range(times))

    def broken(*given: Any, **more: Any) -> Acted:
        if next(left, None) is None:
            return act(*given, **more)
        raise SegueError("NaN")

    monkeypatch.setattr(service.policy(policy), "act", broken)


def audit(service: Service) -> list[tuple[str, dict[str, Any]]]:
    service.tick("test")
    return [(row[3], json.loads(row[4])) for row in rows(service, "audit")]


def test_a_candidate_that_gives_no_action_is_replaced_by_the_live_policy(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    candidate = stage(service.database, other.directory)
    deploy(service, mode="canary", candidate=candidate, share=1.0)
    breaks(service, candidate, monkeypatch)
    decided = service.decide(decision_id="d", episode_id="e", observation=X)
    assert (decided.arm, decided.policy) == ("candidate", service.deployment.live)
    assert decided.log_prob is not None
    assert audit(service) == [("no action", {"policy": candidate, "failures": 1, "why": "NaN"})]


def test_an_episode_of_a_policy_that_gives_no_action_is_not_begun(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    candidate = stage(service.database, other.directory)
    deploy(service, mode="canary", candidate=candidate, share=1.0)
    breaks(service, candidate, monkeypatch, times=1)
    breaks(service, service.deployment.live, monkeypatch, times=1)
    with pytest.raises(Refused, match="NaN"):
        service.decide(decision_id="d", episode_id="e", observation=X)
    assert rows(service, "episodes") == []
    assert service.decide(decision_id="d", episode_id="e", observation=X).t == 0
    assert len(rows(service, "episodes")) == 1


def fails_at(service: Service, policy: str, decisions: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a policy give no action in these of its decisions, counted from 0."""
    act, numbers = service.policy(policy).act, itertools.count()

    def broken(*given: Any, **more: Any) -> Acted:
        if next(numbers) in decisions:
            raise SegueError("NaN")
        return act(*given, **more)

    monkeypatch.setattr(service.policy(policy), "act", broken)


def on_trial(service: Service, made: Made) -> str:
    """A candidate that nearly all units belong to."""
    candidate = stage(service.database, made.directory)
    declare(service.database, 0.0, "me", {"window": 10.0, "run_length": None})
    canary(service.database, candidate, "me", force=True, share=0.9999)
    service.look()
    return candidate


def review(service: Service) -> Deployment:
    """Review the evidence once everything that was noted is written, and follow."""
    service.tick("test")
    Promoter(service.log).review()
    return service.look()


@pytest.mark.parametrize(("second", "given_up"), [(19, True), (20, False)])
def test_a_candidate_is_given_up_that_gives_no_action_in_2_of_20_decisions(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch, second: int, given_up: bool
) -> None:
    service = serve()
    fails_at(service, on_trial(service, other), {0, second}, monkeypatch)
    for i in range(30):
        service.decide(decision_id=f"{i}", episode_id=f"{i}", observation=X)
    assert ("given up" in [what for what, _ in audit(service)]) == given_up


@pytest.mark.parametrize("mode", ["live", "apprentice"])
def test_a_candidate_that_fails_is_withdrawn_in_the_log_also_after_a_restart(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    service = serve(mode=mode)
    candidate = on_trial(service, other)
    breaks(service, candidate, monkeypatch)
    for i in range(2):
        with contextlib.suppress(Refused):  # where the application acts
            service.decide(decision_id=f"{i}", episode_id=f"{i}", observation=X)
    service.tick("test")
    service.close()
    service = serve()  # in it, the candidate would act
    with contextlib.nullcontext() if mode == "live" else pytest.raises(Refused, match="send what you do"):
        assert service.decide(decision_id="a", episode_id="a", observation=X).policy == service.deployment.live
    now = review(service)
    assert (now.mode, now.candidate) == (mode, None)
    what, detail = audit(service)[-1]
    assert (what, detail["why"]) == ("rollback", "alarm: the candidate gave no action in 2 of its last 2 decisions")
    with pytest.raises(Refused, match="not on trial" if mode == "live" else "the last one is: canary 0.9999, alarm"):
        promote(service.log, candidate, "me")
    with pytest.raises(Refused, match=r"the last one is: canary 0\.9999, alarm"):
        canary(service.log, candidate, "me")


@pytest.mark.parametrize("before", ["none", "policy", "application"])
def test_a_live_policy_that_gives_no_action_is_an_alarm(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    service = serve(mode="apprentice" if before == "application" else "live")
    first = service.deployment.live
    declare(service.database, 0.0, "me", {"run_length": None})
    if before != "none":
        promote(service.log, stage(service.database, other.directory), "me", force=True)
    live = service.look().live
    breaks(service, live, monkeypatch)
    for name in ("a", "a", "b"):
        with pytest.raises(Refused, match="NaN"):
            service.decide(decision_id=name, episode_id=name, observation=X)
        now = review(service)
        assert (now.live == live and now.mode == "live") == (name == "a")
    modes = {"none": "frozen", "policy": "live", "application": "apprentice"}
    assert (now.mode, now.live) == (modes[before], first)
    seen = audit(service)
    assert [detail["failures"] for what, detail in seen if what == "no action"] == [1, 2]
    [alarm] = [detail for what, detail in seen if what == "alarm"]
    assert (alarm["changed"], alarm["why"]) == (
        "actions",
        "the live policy gave no action in 2 of its last 2 decisions",
    )
    assert seen[-1][1]["why"] == (alarm["why"] if before == "none" else f"alarm: {alarm['why']}")


def test_a_live_policy_that_fails_again_after_it_was_resumed_is_an_alarm_again(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    breaks(service, service.deployment.live, monkeypatch)
    for start in (0, 10):
        for i in range(start, start + 2):
            with pytest.raises(Refused, match="NaN"):
                service.decide(decision_id=f"{i}", episode_id=f"{i}", observation=X)
        assert review(service).mode == "frozen"
        resume(service.log, "me")
        assert review(service).mode == "live"


def test_a_slow_candidate_loses_its_episodes(serve: Serve, other: Made) -> None:
    service = serve(budget=0.0)  # nothing is as fast
    candidate = stage(service.database, other.directory)
    deploy(service, mode="canary", candidate=candidate, share=1.0)
    by = [service.decide(decision_id=f"{i}", episode_id=f"{i}", observation=X).policy for i in range(30)]
    assert by == [candidate] * 20 + [service.deployment.live] * 10
    [(what, detail)] = audit(service)
    assert (what, detail["why"]) == (
        "given up",
        "took more than 0 s in 20 of its last 20 decisions",
    )
    deploy(service, mode="live", candidate=None, share=0.0)
    deploy(service, mode="canary", candidate=candidate, share=1.0)  # another trial
    assert service.decide(decision_id="again", episode_id="again", observation=X).policy == candidate


@pytest.mark.parametrize("restart", [False, True])
def test_where_the_application_acts_it_gets_the_episodes_that_a_candidate_fails(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    service = serve(mode="apprentice")
    candidate = stage(service.database, other.directory)
    deploy(service, candidate=candidate, share=0.75)
    name = next(name for name in map(str, range(99)) if service.deployment.arm(name)[0] == "candidate")
    breaks(service, candidate, monkeypatch, times=1)
    with pytest.raises(Refused, match="send what you do") as refused:
        service.decide(decision_id="d", episode_id=name, observation=X)
    assert refused.value.code == "no_action"
    if restart:  # by now the candidate would act
        service.close()
        service = serve()
    decided = service.decide(decision_id="d", episode_id=name, observation=X, action=4, log_prob=-1.5)
    assert (decided.arm, decided.policy, decided.action, decided.log_prob) == ("candidate", "", 4, -1.5)
    service.outcome(decision_id="d", reward=1.0)
    service.close()
    service = serve()  # it stays the application's, also after a restart
    with pytest.raises(Refused, match="the application acts in this episode"):
        service.decide(decision_id="f", episode_id=name, observation=X)
    service.decide(decision_id="f", episode_id=name, observation=X, action=1)
    [seen] = service.database.read("SELECT arm, policy, mode, log_prob, reward FROM transitions")
    assert seen == ("candidate", "", "apprentice", -1.5, 1.0)
    assert audit(service) == [
        ("no action", {"policy": candidate, "failures": 1, "why": "NaN"}),
        ("handed back", {"episode": name}),
    ]
    assert [one.what for one in happened(service.log)][-1:] == [f"no action: {other.directory.name}"]
    assert service.decide(decision_id="g", episode_id=f"{name}x{name}", observation=X, unit_id=name).policy == candidate


def test_units_that_a_candidate_fails_stay_in_its_arm_with_their_probability(
    serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(mode="apprentice")
    candidate = stage(service.database, other.directory)
    deploy(service, candidate=candidate, share=0.75)
    breaks(service, candidate, monkeypatch)
    for name in map(str, range(60)):
        acted = {"action": 1, "log_prob": -2.0} if service.deployment.arm(name)[0] == "application" else {}
        with contextlib.suppress(Refused):  # the application does not ask again
            service.decide(decision_id=name, episode_id=name, observation=X, **acted)
    seen = audit(service)
    found = service.database.read("SELECT arm, probability, episode FROM episodes")
    assert len(found) == 60
    assert {row[:2] for row in found} == {("candidate", 0.75), ("application", 0.25)}
    assert [detail["episode"] for what, detail in seen if what == "handed back"] == [
        name for arm, _, name in found if arm == "candidate"
    ]
    assert all(service.deployment.arm(name)[0] == arm for arm, _, name in found)
    assert service.database.read("SELECT DISTINCT policy, log_prob FROM decisions") == [("", -2.0)]
    notes = [(what, detail) for what, detail in seen if what != "handed back"]
    assert [detail.get("failures") for _, detail in notes] == [1, 2, None]  # it is not asked again
    assert notes[-1][1]["why"] == "gave no action in 2 of its last 2 decisions"


def test_another_process_takes_what_the_application_did_where_a_candidate_failed(
    shared: str, switch: Made, other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        Service(shared, switch.directory, mode="apprentice") as one,
        Service(shared, switch.directory) as two,
    ):
        deploy(one, candidate=stage(one.database, other.directory), share=0.99)
        two.look()
        name = next(name for name in map(str, range(99)) if one.deployment.arm(name)[0] == "candidate")
        for service in (one, two):
            service.decide(decision_id=f"first of {name}", episode_id=name, observation=X)  # both know the episode
        breaks(one, str(one.deployment.candidate), monkeypatch, times=1)
        with pytest.raises(Refused, match="send what you do"):
            one.decide(decision_id="d", episode_id=name, observation=X)
        decided = two.decide(decision_id="d", episode_id=name, observation=X, action=4)
        assert (decided.policy, decided.t) == ("", 1)
        with pytest.raises(Refused, match="episodes whose arm is application"):
            two.decide(decision_id="e", episode_id=f"{name}x", unit_id=name, observation=X, action=4)


@pytest.mark.parametrize("watching", [True, False])
def test_beside_an_application_a_slow_candidate_loses_its_episodes_to_it(
    serve: Serve, other: Made, watching: bool
) -> None:
    service = serve(mode="apprentice", budget=0.0)
    candidate = service.deployment.live if watching else stage(service.database, other.directory)
    deploy(service, candidate=candidate, share=0.99)
    names = [name for name in map(str, range(40)) if service.deployment.arm(name)[0] == "candidate"]
    for name in names[:20]:
        assert service.decide(decision_id=name, episode_id=name, observation=X).policy == candidate
    on_paper = len(rows(service, "on_paper"))
    for name in (names[0], names[20]):  # in the midst, and at the beginning
        with pytest.raises(Refused, match="send what you do"):
            service.decide(decision_id=f"{name}b", episode_id=name, observation=X)
        assert service.decide(decision_id=f"{name}b", episode_id=name, observation=X, action=2).policy == ""
    assert len(rows(service, "on_paper")) == on_paper  # nobody waits for it any more
    assert [what for what, _ in audit(service)] == ["given up", "handed back", "handed back"]


def test_numbers_are_in_the_order_of_commits_and_times_never_fall(serve: Serve, monkeypatch: Any) -> None:
    service = serve()
    times = iter([5e9, 4e9, 3e9, 6e9] * 20)
    monkeypatch.setattr("segue.live.service.time.time", lambda: next(times))
    for i in range(20):
        service.decide(decision_id=f"{i}", episode_id="e", observation=X)
    service.close()
    service = serve()
    monkeypatch.setattr("segue.live.service.time.time", lambda: 1e9)
    service.decide(decision_id="after a restart", episode_id="e", observation=X)
    found = service.database.read("SELECT seq, at FROM decisions ORDER BY seq")
    assert [at for _, at in found] == sorted(at for _, at in found)
    numbers = [seq for seq, _ in found]
    assert numbers == sorted(set(numbers))


def test_two_services_do_not_share_a_file(serve: Serve) -> None:
    serve()
    with pytest.raises(SegueError, match="another service has this log"):
        serve()


def test_a_policy_of_other_spaces_is_refused(serve: Serve, crane: Made) -> None:
    service = serve()
    with pytest.raises(SegueError, match="observation space"):
        stage(service.database, crane.directory)
    assert len(service.database.read("SELECT 1 FROM policies")) == 1


def test_a_log_without_a_policy_says_what_it_needs(serve: Serve) -> None:
    with pytest.raises(SegueError, match="--policy"):
        serve(policy=None)


def test_exploration_that_the_policy_does_not_have_is_refused(serve: Serve, crane: Made, tmp_path: Path) -> None:
    with pytest.raises(SegueError, match="for discrete policies"):
        serve(tmp_path / "a.db", crane.directory, explore="0.1")
    with pytest.raises(SegueError, match="expected no, policy, or a share"):
        serve(tmp_path / "b.db", explore="much")


def test_what_cannot_be_written_is_not_answered(serve: Serve, monkeypatch: Any) -> None:
    service = serve()
    append, broken = service.database.append, threading.Event()
    broken.set()

    def failing(rows: Any) -> Any:
        if broken.is_set():
            raise Unavailable("the disk is full")
        return append(rows)

    monkeypatch.setattr(service.database, "append", failing)
    with pytest.raises(Unavailable, match="disk is full"):
        service.decide(decision_id="d", episode_id="e", observation=X)
    assert service.healthy() == "the disk is full"
    broken.clear()
    assert service.decide(decision_id="d", episode_id="e", observation=X).t == 0
    assert service.healthy() is None


def calls(service: Service) -> dict[str, Callable[[], Any]]:
    """What an application asks while the episode e goes on, each of which writes."""
    return {
        "begin": lambda: service.begin(episode_id="new"),
        "decide": lambda: service.decide(decision_id="d1", episode_id="e", observation=Y),
        "outcome": lambda: service.outcome(decision_id="d0", reward=1.0, terminated=True),
        "activation": lambda: service.activation(decision_id="d0", executed=False),
    }


@pytest.mark.parametrize("call", ["begin", "decide", "outcome", "activation"])
@pytest.mark.parametrize(
    ("durability", "fails"),
    [
        ("process", "segue.live.writer.Writer.write"),
        ("process", "segue.live.database.Sqlite.append"),
        ("after", "segue.live.writer.Writer.write"),
    ],
)
def test_what_is_not_written_did_not_happen_and_is_taken_when_it_is_sent_again(
    call: str, fails: str, durability: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(durability=durability)
    service.decide(decision_id="d0", episode_id="e", observation=X)
    service.log.append([])  # what is on its way is written
    with monkeypatch.context() as patch:
        patch.setattr(fails, lambda *given: (_ for _ in ()).throw(Unavailable("65536 writes wait already")))
        with pytest.raises(Unavailable, match="65536 writes wait"):
            calls(service)[call]()
    if call == "outcome":
        assert service.decide(decision_id="d", episode_id="e", observation=Y).t == 1, "it has not ended"
    calls(service)[call]()
    assert service.begin(episode_id="new") is not None
    assert len(rows(service, "decisions")) == 1 + (call in ("decide", "outcome"))


def test_an_outcome_that_is_not_taken_disturbs_no_decisions_that_are_on_their_way(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, slow = serve(durability="after"), threading.Event()
    service.decide(decision_id="before", episode_id="other", observation=X)
    service.log.append([])
    append = service.database.append
    monkeypatch.setattr(service.database, "append", lambda rows: slow.wait() and append(rows))
    service.decide(decision_id="d0", episode_id="e", observation=X)
    with monkeypatch.context() as patch:
        patch.setattr(
            "segue.live.writer.Writer.write", lambda *given: (_ for _ in ()).throw(Unavailable("65536 writes wait"))
        )
        with pytest.raises(Unavailable):
            service.outcome(decision_id="d0", reward=1.0)
    service.decide(decision_id="d1", episode_id="e", observation=Y)
    slow.set()
    service.log.append([])
    order = service.database.read("SELECT decision, t FROM decisions WHERE episode = 'e' ORDER BY seq")
    assert order == [("d0", 0), ("d1", 1)]


def test_an_end_that_contradicts_what_is_recorded_ends_nothing(serve: Serve) -> None:
    service = serve()
    service.decide(decision_id="d0", episode_id="e", observation=X)
    service.outcome(decision_id="d0", reward=1.0)
    with pytest.raises(Refused, match="another one of decision 'd0' is recorded; what was recorded stands"):
        service.outcome(decision_id="d0", reward=1.0, terminated=True)
    assert service.decide(decision_id="d1", episode_id="e", observation=Y).t == 1


def test_a_refusal_is_answered_also_where_it_cannot_be_kept(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = serve()
    monkeypatch.setattr(
        "segue.live.writer.Writer.write", lambda *given: (_ for _ in ()).throw(Unavailable("the log is closed"))
    )
    with pytest.raises(Refused, match="no decision 'nobody'"):
        service.outcome(decision_id="nobody", reward=1.0)
    assert "a refused request was not kept: there is no decision 'nobody'" in caplog.text


def overtaken(
    service: Service, monkeypatch: pytest.MonkeyPatch, kind: type[Any], times: int = 1, **changes: Any
) -> None:
    """Another process writes the rows of this kind first, so many times, with these changes."""
    append, left = service.database.append, iter(range(times))

    def second(given: Any) -> Any:
        theirs = [row for row in given if isinstance(row, (kind, EpisodeRow))]
        if any(isinstance(row, kind) for row in theirs) and (number := next(left, None)) is not None:
            made = {name: value.format(number) if isinstance(value, str) else value for name, value in changes.items()}
            append([row._replace(**made) if isinstance(row, kind) else row for row in theirs])
        return append(given)

    monkeypatch.setattr(service.database, "append", second)


def test_an_episode_that_another_process_assigned_first_is_answered_as_it_was(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    overtaken(service, monkeypatch, EpisodeRow, probability=0.25)
    assert service.begin(episode_id="e").probability == 0.25
    assert len(rows(service, "episodes")) == 1


def test_a_decision_that_another_process_made_first_is_answered_as_it_was_or_refused_for_another_question(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    overtaken(service, monkeypatch, DecisionRow, log_prob=-7.0)
    assert service.decide(decision_id="d", episode_id="e", observation=X).log_prob == -7.0
    overtaken(service, monkeypatch, DecisionRow, observation=np.float32(Y).tobytes())
    with pytest.raises(Refused, match="another observation"):
        service.decide(decision_id="d1", episode_id="e", observation=X)
    assert [row[2] for row in rows(service, "refused")] == ["decisions"]


def test_an_episode_that_another_process_keeps_deciding_is_left_to_it(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve()
    overtaken(service, monkeypatch, DecisionRow, times=100, decision="theirs-{}")
    with pytest.raises(Unavailable, match="episode 'e' is being decided elsewhere; try again"):
        service.decide(decision_id="d", episode_id="e", observation=X)
    monkeypatch.undo()
    done = len(rows(service, "decisions"))
    assert service.decide(decision_id="d", episode_id="e", observation=X).t == done > 1


@pytest.mark.parametrize("fault", ["not written", "assigned elsewhere"])
def test_an_episode_is_given_to_the_application_only_with_a_row_in_the_log(
    fault: str, serve: Serve, other: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(mode="apprentice")
    candidate = on_trial(service, other)
    breaks(service, candidate, monkeypatch)
    with monkeypatch.context() as patch:
        if fault == "not written":
            patch.setattr(
                service.database, "append", lambda rows: (_ for _ in ()).throw(Unavailable("the disk is full"))
            )
        else:
            overtaken(service, patch, EpisodeRow)
        with pytest.raises((Unavailable, Refused), match="disk is full" if fault == "not written" else "send what you"):
            service.decide(decision_id="d", episode_id="e", observation=X)
    with pytest.raises(Refused, match=r"send what you do|expected the action that was taken"):
        service.decide(decision_id="d", episode_id="e", observation=X)
    assert service.decide(decision_id="d", episode_id="e", observation=X, action=2).action == 2


def test_what_has_left_memory_is_answered_from_the_log(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segue.live.service.KEPT", 0)
    service = serve()
    first = [service.decide(decision_id=f"{i}", episode_id="e", observation=X) for i in range(3)]
    assert [service.decide(decision_id=f"{i}", episode_id="e", observation=X) for i in range(3)] == first
    assert service.outcome(decision_id="0", reward=1.0).status == "recorded"
    assert len(rows(service, "decisions")) == 3


def test_a_policy_remembers_its_episode_across_a_restart(serve: Serve, chunks: Made, tmp_path: Path) -> None:
    seen = {"swing": [0.5], "gear": 3}

    def played(db: str, restarts: bool) -> list[Any]:
        actions = []
        for t in range(3):
            if t == 0 or restarts:
                service = serve(tmp_path / db, chunks.directory, explore="no", seed=0)
            actions.append(service.decide(decision_id=f"{t}", episode_id="e", observation=seen).action)
            if restarts:
                service.close()
        return actions

    actions = played("once.db", restarts=False)
    assert actions[0] != actions[1] != actions[2]
    assert played("again.db", restarts=True) == actions


def test_a_log_begins_with_no_candidate(serve: Serve) -> None:
    with pytest.raises(SegueError, match="mode is 'shadow'; a new log begins with live or apprentice"):
        serve(mode="shadow")
    assert serve(mode="apprentice").deployment.mode == "apprentice", "the log can be begun as it should be"


def test_a_place_that_cannot_be_a_log_is_named(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(
        SegueError, match=r"file/live\.db: cannot be opened as a live log \(.*/file: .*\); expected a file"
    ):
        serve(tmp_path / "file" / "live.db")


def test_what_was_answered_first_is_written_when_it_can_be(serve: Serve, monkeypatch: Any) -> None:
    monkeypatch.setattr("segue.live.writer.RETRY", 0.0)
    service = serve(durability="after")
    append, failures = service.database.append, iter([True] * 5)

    def failing(rows: Any) -> Any:
        if next(failures, False):
            raise Unavailable("locked")
        return append(rows)

    monkeypatch.setattr(service.database, "append", failing)
    answers = [service.decide(decision_id=f"{i}", episode_id="e", observation=X) for i in range(5)]
    service.close()
    service = serve()
    assert [row[4] for row in rows(service, "decisions")] == [a.t for a in answers] == list(range(5))


def test_what_was_answered_and_never_written_is_a_critical_line_in_the_log(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("segue.live.writer.RETRY", 0.0)
    monkeypatch.setattr("segue.live.writer.LAST_ATTEMPTS", 2)
    service = serve(durability="after")
    monkeypatch.setattr(service.database, "append", lambda rows: (_ for _ in ()).throw(Unavailable("the disk is full")))
    service.decide(decision_id="d", episode_id="e", observation=X)
    service.close()
    assert "2 rows that were answered are lost: the disk is full" in caplog.text


def test_what_a_log_does_not_write_in_time_is_not_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    service, written = serve(), threading.Event()
    append = service.database.append
    monkeypatch.setattr("segue.live.writer.PATIENCE", 0.0)
    monkeypatch.setattr(service.database, "append", lambda rows: written.wait(30) and append(rows))
    with pytest.raises(Unavailable, match="not written within 0 seconds; look at the log before you try again"):
        service.log.append([AuditRow(0.0, "me", "noted", "{}")])
    written.set()


def test_services_that_share_a_log_are_one_service(serve: Serve, shared: str) -> None:
    services = [serve(shared) for _ in range(3)]
    asked = [{"decision_id": f"d{i % 90}", "episode_id": f"e{i % 9}", "observation": X} for i in range(270)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda i: services[i % 3].decide(**asked[i]), np.random.default_rng(0).permutation(270))
        )
    assert len({(a.decision_id, a.action, a.log_prob, a.t) for a in answers}) == 90
    for episode in range(9):
        taken = services[0].database.read("SELECT t FROM decisions WHERE episode = ? ORDER BY t", f"e{episode}")
        assert [t for (t,) in taken] == list(range(10))
    with ThreadPoolExecutor(12) as pool:
        noted = list(pool.map(lambda i: services[i % 3].outcome(decision_id=f"d{i % 90}", reward=1).status, range(270)))
    assert noted.count("recorded") == 90
