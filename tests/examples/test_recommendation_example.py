"""The recommendation example: what it logs is what it says, and its short form runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from examples.recommendation import figures, open_bandit, tables

pytest.importorskip("sardine", reason="pip install 'segue[recommendation]'")
from examples.recommendation import shop
from examples.recommendation.__main__ import MADE, SHORT, alike


def test_the_logger_shows_items_as_often_as_the_log_says() -> None:
    log = shop.log(sessions=300, seed=3)
    propensity = np.exp(log["behaviour_log_prob"])
    assert set(propensity.round(6)) == {round(shop.EPSILON / shop.ITEMS, 6), round(1 - shop.EPSILON * (1 - 1 / 20), 6)}
    # E[1{a = b} / b(a)] over any fixed item is 1: the weights of "always item 7" have mean 1.
    weights = (log["actions"] == 7) / propensity
    assert abs(weights.mean() - 1) < 5 * weights.std() / np.sqrt(len(weights))
    assert log["terminals"].sum() == 300


def test_a_page_holds_parts_of_one_seed_and_size_only() -> None:
    default, other = {"seed": 0, "size": "default"}, {"seed": 1, "size": "default"}
    results = {"open bandit": ["old"], MADE: {"open bandit": default}}
    assert alike(results, default) == results
    assert alike(results, other) == {MADE: {}}
    assert alike({"open bandit": ["of unknown seed"]}, default) == {MADE: {}}


@pytest.mark.slow
def test_each_log_of_open_bandit_judges_the_other_policy_and_refuses_what_it_never_shows(tmp_path: Path) -> None:
    rows = {"bts": [], "random": []}
    source = np.random.default_rng(0)
    for name, lines in rows.items():
        for _ in range(300):
            position = int(source.integers(3)) + 1
            item = int(source.integers(34))
            lines.append(f"{len(lines)},{position},{item},{int(source.random() < 0.3)},{1 / 34}")
        header = "timestamp,position,item_id,click,propensity_score"
        (tmp_path / f"{name}-men.csv").write_text("\n".join([header, *lines]))
    found = open_bandit.go(tmp_path, tmp_path / "out", steps=10, seed=0)
    assert [one["verdict"]["answer"] for one in found] == ["not enough evidence"] * 3
    random = found[0]
    assert random["estimates"][0]["value"] == pytest.approx(random["log"]["rate"])  # the same policy: weights are 1
    figures.clicks(found, tmp_path)
    assert "random, from the bts log | pdis" in tables.clicks(found)


def test_a_shop_that_is_finished_is_not_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "shop.json").write_text('{"seed": 7}')
    assert shop.go(tmp_path, SHORT, seed=7) == {"seed": 7}
    assert "nothing is run again" in capsys.readouterr().out


@pytest.mark.slow
def test_the_shop_goes_from_a_log_to_a_second_trial(tmp_path: Path) -> None:
    found = shop.go(tmp_path / "shop", SHORT, seed=0)
    assert [one["status"] for one in found["trials"]] != []
    assert set(found["clicks per session"]) == {"logger", "logged, cloned", "pretrained", "fine-tuned"}
    figures.shop(found, tmp_path)
    assert "| truth |" in tables.shop(found)
