"""On a Ray cluster a run is what it is on this machine, also when a node dies on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import segue
from ray_nodes import cluster_of_two_nodes, ray
from segue.cli.launch import where
from segue.errors import RecipeError, SegueError
from segue.recipe import Recipe, read_recipes
from segue.runner.on_ray import Ray, portable_dataset
from segue.workers import ray_connection
from segue.workers.ray_task import NODE
from toys import SMALL, pendulum

pytestmark = pytest.mark.usefixtures("no_reports")


def recipe(**changes: Any) -> Recipe:
    steps = {"offline_steps": 150, "online_steps": 320, "warmup_steps": 30, "eval_every": 80, "eval_episodes": 1}
    return pendulum(**(steps | {"online": segue.TD3BC(**SMALL), "seeds": 2} | changes))


def short(**changes: Any) -> Recipe:
    return recipe(**{"offline_steps": 20, "online": None, "online_steps": 0, "eval_every": 20, "seeds": 1} | changes)


def essence(directory: Path) -> Any:
    """Everything that a run says, but for times."""
    summary = json.loads((directory / "summary.json").read_text())
    kept = ("parameters_sha256", "offline_evaluations", "online_evaluations", "final_score", "status")
    seeds = {name: {k: seed[k] for k in kept} for name, seed in summary["arms"]["run"]["seeds"].items()}
    return seeds, (directory / "metrics.csv").read_text()


def files(directory: Path) -> set[str]:
    """The files of a run but for TensorBoard's, whose names hold the time, and locks."""
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("tensorboard") and not name.endswith(".lock")}


ON_ONE_CORE = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
import segue
from segue.recipe import read_recipes
from segue.runner import compare
segue.runner.write_report = lambda out: out
assert compare(read_recipes(sys.argv[1]), sys.argv[2], workers=1).status == "complete"
"""


def the_same_here(directory: Path, out: Path) -> Path:
    """The run again on this machine, on one core."""
    subprocess.run([sys.executable, "-c", ON_ONE_CORE, str(directory), str(out)], check=True, capture_output=True)
    return out


def listening() -> set[str]:
    """The addresses at which processes of Ray accept connections."""
    found = subprocess.run(["ss", "-Hltnp"], capture_output=True, text=True, check=True).stdout.splitlines()
    rays = ("gcs_server", "raylet", "ray::", "monitor")
    return {line.split()[3].rpartition(":")[0] for line in found if any(name in line for name in rays)}


def test_a_run_on_a_ray_that_it_starts_itself_is_the_run_of_this_machine(tmp_path: Path):
    heard: list[Any] = []

    def listen(job: Any, event: Any) -> None:
        heard.append({"at": listening(), **event} if event["event"] == "start" else event)

    result = segue.run(short(), tmp_path / "ray", on="ray", on_event=listen)
    assert result.status == "complete"
    assert not ray.is_initialized()
    assert {"127.0.0.1", "[::ffff:127.0.0.1]"} >= next(e["at"] for e in heard if e["event"] == "start") != set()
    assert any(event.get("message") == "on node 127.0.0.1, 1 core" for event in heard)
    here = the_same_here(tmp_path / "ray", tmp_path / "here")
    assert essence(tmp_path / "ray") == essence(here)
    assert files(tmp_path / "ray") - files(here) == {next(Path(tmp_path / "ray").glob("log-*.npz")).name}


def test_what_is_asked_of_a_cluster_is_refused_without_one():
    place = types.SimpleNamespace(on=None, cores=2, gpus=0.0)
    with pytest.raises(RecipeError, match="--cores and --gpus go with --on ray"):
        where(place)


@pytest.mark.parametrize(
    ("given", "said"),
    [({"cores": 0}, "cores is 0; expected at least 1"), ({"gpus": -0.5}, "gpus is -0.5; expected at least 0")],
)
def test_jobs_on_a_cluster_have_at_least_a_core_and_no_gpus_below_none(given: dict[str, Any], said: str):
    with pytest.raises(RecipeError, match=said):
        Ray(**given)


def test_a_cluster_without_its_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    assert Ray.of(Ray(cores=2)) == Ray(cores=2)
    monkeypatch.setattr("segue.runner.on_ray.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SegueError, match=r"--on ray needs a package that is not installed: pip install 'segue\[ray\]'"):
        Ray.of("ray")


def test_a_place_that_is_no_ray_cluster_is_refused_before_anything_is_written(tmp_path: Path):
    with pytest.raises(RecipeError, match="--on is 'slurm'; expected ray, or ray://HOST:PORT"):
        segue.run(short(), tmp_path / "x", on="slurm")
    assert not (tmp_path / "x").exists()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one core."""
    with cluster_of_two_nodes(1) as made:
        yield made


def once(act: Callable[[], None], phase: str = "online", step: int = 160) -> Callable[[Any, Any], None]:
    """At the first evaluation of this phase and step."""
    done: list[bool] = []

    def listen(job: Any, event: Any) -> None:
        if event["event"] == "evaluation" and (event["phase"], event["step"]) == (phase, step) and not done:
            done.append(True)
            act()

    return listen


@pytest.mark.slow
def test_a_run_on_two_nodes_of_which_one_is_killed_ends_as_if_it_had_not_been(tmp_path: Path, cluster: Any):
    said: list[str] = []
    kill = once(lambda: cluster.remove_node(cluster.nodes[0], allow_graceful=False))

    def listen(job: Any, event: Any) -> None:
        kill(job, event)
        said.extend([event["message"]] if event["event"] == "note" else [])

    place = segue.Ray(address=cluster.address)
    result = segue.run(recipe(), tmp_path / "ray", on=place, checkpoint_every=0, on_event=listen)
    assert result.status == "complete"
    assert sum("lost on its node" in line for line in said) == 1
    assert any("goes on from step" in line for line in said)
    assert essence(tmp_path / "ray") == essence(the_same_here(tmp_path / "ray", tmp_path / "here"))


DRIVER = """
import sys
import segue
from segue.recipe import read_recipes
from segue.runner import compare
segue.runner.write_report = lambda out: out
place = segue.Ray(address=sys.argv[2])
def tell(job, event):
    if event["event"] == "evaluation":
        print(event["phase"], event["step"], flush=True)
try:
    print(compare(read_recipes(sys.argv[1]), sys.argv[1], on=place, checkpoint_every=0, on_event=tell).status)
except segue.SegueError as error:
    print(error)
"""


@pytest.mark.slow
def test_after_the_head_has_died_the_same_command_goes_on_to_the_same_numbers(tmp_path: Path, cluster: Any):
    from ray.cluster_utils import Cluster

    begun = segue.run(short(offline_steps=150, seeds=2), tmp_path / "whole", workers=2).directory
    directory = tmp_path / "ray"
    directory.mkdir()
    for file in ("recipe.json", "provenance.json", *(path.name for path in begun.glob("log-*.npz"))):
        (directory / file).write_bytes((begun / file).read_bytes())
    longer = read_recipes(directory)["run"]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(directory), cluster.address], stdout=subprocess.PIPE, text=True
    )
    assert driver.stdout is not None
    assert driver.stdout.readline().startswith("offline")
    cluster.shutdown()
    assert "complete" not in driver.communicate(timeout=180)[0]
    second = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        result = segue.run(longer, directory, on=segue.Ray(address=second.address))
    finally:
        second.shutdown()
    assert result.status == "complete"
    assert essence(directory) == essence(begun)


@pytest.mark.slow
def test_ctrl_c_saves_on_every_node_and_the_same_command_goes_on_here(tmp_path: Path, cluster: Any):
    stop = once(lambda: signal.raise_signal(signal.SIGINT), step=80)
    place = segue.Ray(address=cluster.address)
    result = segue.run(recipe(online_steps=4000), tmp_path / "x", on=place, on_event=stop)
    assert result.status == "interrupted"
    assert not list((tmp_path / "x/records/run").rglob("result.json"))
    here = len(os.sched_getaffinity(0))  # one core for each job, as there
    segue.runner.compare(read_recipes(tmp_path / "x"), tmp_path / "x", workers=here)
    assert essence(tmp_path / "x") == essence(the_same_here(tmp_path / "x", tmp_path / "here"))


def test_a_run_directory_that_a_node_does_not_see_is_said():
    from segue.workers.ray_task import Task, attend

    told: list[Any] = []

    class Box:
        class exchange:
            @staticmethod
            def remote(label: str, attempt: int, events: Any) -> None:
                told.extend(events)

    job = {"home": "/nowhere/runs/x", "records": "/nowhere/runs/x/records"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray, "get", lambda value: value)
        patch.setattr(ray.util, "get_node_ip_address", lambda: "10.0.0.7")
        attend(Task("x", 1, job, 1, {}, False, {}), {}, Box())
    assert told == [
        {
            "event": "exit",
            "status": "failed",
            "error": "node 10.0.0.7: /nowhere/runs/x is not there; expected the run directory on storage that every "
            "node mounts",
        }
    ]


@pytest.mark.parametrize(
    "uri", ["segue:cartpole-mixed", "segue:cartpole-mixed@3 + {csv}@1", "{csv}"], ids=["one", "weights", "table"]
)
def test_what_a_node_gets_of_a_dataset_is_the_dataset(tmp_path: Path, uri: str):
    rows = ["episode,x,v,angle,spin,push,reward", *(f"{i // 20},{i},0.5,0.25,{i % 3},{i % 2},1" for i in range(200))]
    (tmp_path / "log.csv").write_text("\n".join(rows))
    options = "episode=episode&observation=x,v,angle,spin&action=push&reward=reward&discrete=2"
    there = segue.load(uri.format(csv=f"csv:{tmp_path}/log.csv?{options}"))
    name, archives = portable_dataset(uri.format(csv=f"csv:{tmp_path}/log.csv?{options}"), False)
    for file, content in archives.items():
        (tmp_path / file).write_bytes(content)
    again = segue.load(name.replace(NODE, str(tmp_path)))
    assert again.fingerprint() == there.fingerprint()
    assert (again.spaces, again.bounds_known, again.part_weights) == (
        there.spaces,
        there.bounds_known,
        there.part_weights,
    )
    assert (again.environment, again.encoding) == (there.environment, there.encoding)


@pytest.mark.slow  # half a minute of waiting
def test_a_cluster_that_cannot_be_reached_is_said_in_a_line(tmp_path: Path):
    with pytest.raises(SegueError, match=r"^Ray at ray://127\.0\.0\.1:1 cannot be reached"):
        segue.run(short(), tmp_path / "x", on="ray://127.0.0.1:1")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "[::1]:1", "127.0.0.1:99999"])
def test_an_address_where_nobody_listens_is_refused_soon(address: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_connection, "ANSWER_SECONDS", 0.0)
    with pytest.raises(SegueError, match=r"^Ray at .* cannot be reached"):
        ray_connection.connect(address)
