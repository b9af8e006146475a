"""The comparison with other libraries' own code: what its page makes of the units, and what its clock counts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from studies.peers import __main__ as study
from studies.peers.contestants import Budget, Trial, segue_arm

import segue


def evaluations(means: dict[int, float], minutes: float) -> list[dict[str, Any]]:
    """At these steps, a unit of time apart."""
    return [
        {"step": step, "mean_return": mean, "returns": [mean, mean], "processor_s": 60 * minutes * i, "wall_s": 1e6}
        for i, (step, mean) in enumerate(means.items(), start=1)
    ]


SLOW = {"offline": {50_000: 500.0}, "online": {0: 500.0, 25_000: 450.0, 50_000: 800.0}}
FAST = {"offline": {10_000: 600.0}, "online": {0: 600.0, 25_000: 910.0, 50_000: 1000.0}}
SCRATCH = {"offline": {}, "online": {0: 10.0, 25_000: 100.0, 50_000: 950.0}}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text("# Peers\n\n<!-- results -->\n<!-- /results -->\n\nFindings.\n")
    return tmp_path


def store(out: Path, arm: str, seed: int, found: dict[str, dict[int, float]], minutes: float) -> None:
    offline, online = (evaluations(found[phase], minutes) for phase in ("offline", "online"))
    unit = {
        "status": "complete",
        "offline_score": offline[-1]["mean_return"] if offline else None,
        "offline_evaluations": offline,
        "online_evaluations": [{**e, "processor_s": e["processor_s"] + 60 * minutes * len(offline)} for e in online],
        "machine": {"processor": "abacus"},
    }
    file = study.Unit("hopper-mixed", arm, seed).file(out)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(unit))


def rows(page: Path) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in (page / "README.md").read_text().splitlines() if "|" in line]
    return {cells[0]: cells[1:] for cells in lines}


@pytest.mark.pictures
def test_the_table_has_the_time_to_90_percent_of_the_best_final_return(page: Path) -> None:
    out = page / "runs"
    store(out, "Segue auto", 0, FAST, minutes=2)
    store(out, "d3rlpy IQL", 0, SLOW, minutes=7)
    store(out, "SBX SAC from scratch", 0, SCRATCH, minutes=3)
    assert study.main(["--redraw", "--out", str(out)], page) == 0
    table = rows(page)
    assert table["arm"] == ["offline score", "final", "area", "dip", "minutes to 900", "minutes in all"]
    assert table["Segue auto"][-2:] == ["6.0", "8.0"]
    assert table["d3rlpy IQL"] == ["500", "800", "550", "50", "never", "28.0"]
    assert table["SBX SAC from scratch"][-2:] == ["9.0", "9.0"]
    text = (page / "README.md").read_text()
    assert "One seed" in text
    assert "Not run yet: hopper-mixed: Segue BC → RLPD, promoted, hopper-mixed: Segue BC → PPO" in text
    assert text.endswith("\n\nFindings.\n")
    assert (page / "curves.png").stat().st_size > 10_000


def test_times_of_several_seeds_are_a_median_with_its_range(page: Path) -> None:
    out = page / "runs"
    for seed, found in enumerate([FAST, FAST, SCRATCH]):
        store(out, "Segue auto", seed, found, minutes=1 + seed)
    study.main(["--redraw", "--out", str(out)], page)
    assert rows(page)["Segue auto"][-2:] == ["6.0 (3.0–9.0)", "8.0 (4.0–9.0)"]


def test_only_what_is_missing_runs_and_a_failure_is_told(
    page: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, done = page / "runs", []

    def stub(unit: study.Unit, file: Path, core: int) -> int:
        done.append(unit)
        if unit.arm == "SBX SAC from scratch":
            return 1
        store(out, unit.arm, unit.seed, FAST, minutes=1)
        return 0

    monkeypatch.setattr(study, "run", stub)
    task = ["--only", "hopper-mixed", "--arm", "d3rlpy IQL", "--arm", "SBX SAC from scratch", "--out", str(out)]
    assert study.main([*task, "--seeds", "1"], page) == 1
    assert "SBX SAC from scratch, seed 0" in capsys.readouterr().out
    assert study.main([*task, "--seeds", "2"], page) == 1
    kinds = [(unit.arm.split()[0], unit.seed) for unit in done]
    assert kinds == [("SBX", 0), ("d3rlpy", 0), ("SBX", 0), ("SBX", 1), ("d3rlpy", 1)], "first seeds first, none twice"
    for file in (out / "hopper-mixed").glob("*.json"):
        file.unlink()
    done.clear()
    study.main([*task, "--seeds", "2"], page)
    assert {unit.arm for unit in done} == {"SBX SAC from scratch"}, "results that are stored serve without their files"


def test_what_is_put_aside_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([(0.0, 0.0), (3.0, 30.0), (8.0, 90.0), (10.0, 100.0)])
    monkeypatch.setattr("studies.peers.contestants.Stopwatch.now", staticmethod(lambda: next(now)))
    trial = Trial("hopper-mixed", 0, Budget())
    trial.watch.put_aside(trial.watch.now())
    trial.note("online", 2_500, [1.0, 2.0])
    assert trial.evaluations["online"] == [
        {"step": 2_500, "mean_return": 1.5, "returns": [1.0, 2.0], "processor_s": 5.0, "wall_s": 40.0}
    ]


def test_segues_evaluations_are_put_aside_by_their_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that comes between what an evaluation tells changes nothing."""
    now = [0.0]
    monkeypatch.setattr("studies.peers.contestants.Stopwatch.now", staticmethod(lambda: (now[0], now[0])))

    def run(recipe: Any, out: str, on_event: Any, **options: Any) -> None:
        for seconds, event in [
            (5, {"event": "metrics", "phase": "online", "step": 2_500, "values": {}}),
            (100, {"event": "metrics", "phase": "online", "step": 2_500, "values": {}}),
            (1, {"event": "note", "message": "something else"}),
            (1, {"event": "evaluation", "phase": "online", "step": 2_500, "returns": [1.0, 2.0]}),
        ]:
            now[0] += seconds
            on_event(None, event)

    monkeypatch.setattr(segue, "run", run)
    trial = Trial("hopper-mixed", 0, Budget())
    segue_arm("auto")(trial)
    assert [e["processor_s"] for e in trial.evaluations["online"]] == [5.0]
