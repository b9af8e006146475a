"""A study's runs on a Ray cluster are those of this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_grid import PRETRAINED, SCRATCH, study

from ray_nodes import cluster_of_two_nodes
from studies import grid


@pytest.mark.slow
def test_a_study_on_two_nodes_finds_what_it_finds_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for place in ("here", "ray"):
        folder = tmp_path / place
        folder.mkdir()
        arguments = ["--out", str(folder / "runs"), "--workers", "2"]
        if place == "here":
            assert grid.main(study(folder, {"scratch": SCRATCH, "plain": PRETRAINED}), None, arguments) == 0
        else:
            with cluster_of_two_nodes(cores=1) as cluster:
                monkeypatch.setenv("RAY_ADDRESS", cluster.address)
                arms = {"scratch": SCRATCH, "plain": PRETRAINED}
                assert grid.main(study(folder, arms), None, [*arguments, "--on", "ray"]) == 0
        results = json.loads((folder / "results.json").read_text())["arms"]
        seeds = [seed for arm in results.values() for seed in arm["seeds"].values()]
        assert {seed["status"] for seed in seeds} == {"complete"}
        found.append([seed["parameters_sha256"] for seed in seeds])
    assert found[0] == found[1]
