"""Which arms belong to one task, and which are one method on several tasks.

A task is an environment together with the log; an arm without a log of its own, such as one from scratch, belongs to
the log that the other arms of its run use, if that is only one. A method is what carries one name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from segue.report.runs import Summary


def tasks(summary: Summary) -> dict[str, list[str]]:
    """Name of the task → its arms, in the summary's order. The log is in the name where the environment does not do."""
    places = {name: _place(summary, arm) for name, arm in summary["arms"].items()}
    distinct = list(dict.fromkeys(places.values()))
    environments = [env for env, _ in distinct]
    names = {
        (env, log): env if environments.count(env) == 1 else f"{env} · {without_folder(log) or 'no log'}"
        for env, log in distinct
    }
    grouped: dict[str, list[str]] = defaultdict(list)
    for name, place in places.items():
        grouped[names[place]].append(name)
    return dict(grouped)


def method(summary: Summary, name: str) -> str:
    """What this arm is called within its task."""
    return str(summary["arms"][name].get("method", name))


def places(summary: Summary) -> dict[str, int]:
    """Arm → place of its method among the methods, which decides colour and line style."""
    order = list(dict.fromkeys(method(summary, name) for name in summary["arms"]))
    return {name: order.index(method(summary, name)) for name in summary["arms"]}


def scratch(summary: Summary, names: Sequence[str]) -> str | None:
    """The first of these arms without pretraining, where there are others to hold against it."""
    fresh = (name for name in names if not _recipe(summary["arms"][name]).get("offline"))
    return next(fresh, None) if len(names) > 1 else None


def without_folder(log: str) -> str:
    """A log's URI as a name: `segue:hopper-mixed`, `door.hdf5`."""
    return log.rsplit("/", 1)[-1]


def environment(arm: Mapping[str, Any]) -> str | None:
    """Gymnasium id of the arm's environment."""
    found = _recipe(arm).get("env")
    return None if found is None else str(found)


def _place(summary: Summary, arm: Mapping[str, Any]) -> tuple[str, str]:
    log = _recipe(arm).get("dataset")
    if log is None:
        logs = {_recipe(a).get("dataset") for a in summary["arms"].values() if a.get("run") == arm.get("run")} - {None}
        log = logs.pop() if len(logs) == 1 else None
    return environment(arm) or "Offline to online", str(log or "")


def _recipe(arm: Mapping[str, Any]) -> Mapping[str, Any]:
    return arm.get("recipe") or {}
