"""The run directory: which recipe it holds, where each job writes, and the summary made of what the jobs wrote.

log-….npz             a dataset that was handed over in memory
recipe.json           the recipe (or {"arms": …}); running it again repeats the run
provenance.json       what the results depend on besides: the datasets' content and the cores per job
summary.json          scores, evaluations, times and hashes per arm and seed
metrics.csv           every training metric of every job
report.html           the page; its tables in report.md and measures.csv, its picture in learning_curves.png
curves.csv            every evaluation with the returns of its episodes
comparisons.csv, statistics.png   where there are two arms of two seeds or more
tensorboard/          event files, one folder a job
checkpoints/          learners at the end of each phase
states/               where each job stands, to go on from
tracking.json         the ids of the runs at an experiment tracker, with --track
wall_time.json        seconds that all calls have worked on the run
records/              what each job wrote as it went; the summary is made from it
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from segue.errors import SegueError
from segue.files import write_atomically
from segue.recipe import CHECKPOINT_EVERY, Recipe, portable
from segue.runner.executor import Outcome
from segue.runner.jobs import OFFLINE_FIELDS, Job
from segue.runner.recorder import has_records
from segue.runner.repair import reopen
from segue.runner.state_store import saved_step

#: The status of a summary whose run has gone on since.
RUNNING = "running"

#: Seconds to wait for workers that are leaving because the process that started them has ended.
PATIENCE = 2.0


class WallTime:
    """Seconds that all calls have worked on a run; kept on disk, so that a call that was killed counts too.

    A killed call counts up to the last `tick` that wrote.
    """

    def __init__(self, directory: Path, earlier: float = 0.0, now: Callable[[], float] = time.perf_counter) -> None:
        self.file, self.now, self.start, self.last = directory / "wall_time.json", now, now(), -math.inf
        self.before = earlier
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            self.before = max(earlier, float(json.loads(self.file.read_bytes())["seconds"]))

    @property
    def total(self) -> float:
        """Seconds so far, those of earlier calls included."""
        return self.before + self.now() - self.start

    def tick(self, every: float = 0.0) -> None:
        """Write them, unless that was done in the last `every` seconds. A full disk is for others to report."""
        if self.now() - self.last >= every:
            self.last = self.now()
            with contextlib.suppress(SegueError):
                write_atomically(self.file, json.dumps({"seconds": self.total}) + "\n")


class RunDirectory:
    """One directory on disk that holds one recipe (or several arms) for good."""

    def __init__(self, path: Path, arms: Mapping[str, Recipe], checkpoint_every: float = CHECKPOINT_EVERY) -> None:
        self.path, self.checkpoint_every = path, checkpoint_every
        # As it will be read back: tuples become lists.
        self.arms: dict[str, Any] = {}
        for name, recipe in arms.items():
            plain = json.loads(json.dumps(recipe.to_dict()))
            self.arms[name] = {**plain, "dataset": portable(plain["dataset"], path)}

    @property
    def plain(self) -> dict[str, Any]:
        """What recipe.json holds."""
        return self.arms["run"] if set(self.arms) == {"run"} else {"arms": self.arms}

    def claim(
        self, provenance: dict[str, Any], resume: bool = False, keep_datasets: Callable[[], None] = lambda: None
    ) -> list[str]:
        """Create the directory and write the recipe, or find the same recipe there.

        Args:
            provenance: what the results depend on besides the recipe: the datasets' content and the cores per job.
            keep_datasets: writes the datasets that were handed over in memory into the directory, once that is known
                to be this run's, and before a recipe names them.
            resume: go on also with another number of cores, and look whether every phase's checkpoint is whole.

        Returns:
            What somebody who goes on should know.

        Raises:
            SegueError: if the directory holds another recipe, another provenance or other files, or cannot be written.
        """
        provenance = {
            **provenance,
            "datasets": {portable(uri, self.path): dataset for uri, dataset in provenance["datasets"].items()},
        }
        file = self.path / "recipe.json"
        try:
            if file.exists():
                if "live" in (self.provenance() or {}) and "live" not in provenance:
                    raise SegueError(f"{self.path} is of segue learn, which goes on with it; choose another --out")
                before = json.loads(file.read_bytes())
                self._begin_with(before)
                notes = self._same_provenance(provenance, resume)
                if before == self.plain:
                    keep_datasets()
                else:
                    with self.lock():
                        self._grow(provenance, keep_datasets)
                return notes + reopen(self.jobs(), resume, self.lock)
            # The recipe is written last: what is there besides may be a beginning that was cut short.
            if self.path.exists() and any(_not_ours(entry) for entry in self.path.iterdir()):
                raise SegueError(f"{self.path} is not empty and holds no recipe.json; choose another --out")
            self.path.mkdir(parents=True, exist_ok=True)
            keep_datasets()
            write_atomically(self.path / "provenance.json", json.dumps(provenance, indent=1) + "\n")
            write_atomically(file, json.dumps(self.plain, indent=1) + "\n")
        except (OSError, ValueError) as error:
            raise SegueError(f"{self.path} cannot be used for a run: {error}") from error
        return []

    def _begin_with(self, before: Any) -> None:
        """Put the arms that are there first: the names of the offline phases that arms share follow their order.

        Raises:
            SegueError: if what is there is neither this nor a comparison of some of these arms.
        """
        there = before.get("arms") if isinstance(before, dict) else None
        if not isinstance(there, dict) or "arms" not in self.plain:
            if before != self.plain:
                raise SegueError(
                    f"{self.path} already holds a run of another recipe; nothing was changed: choose another --out, or "
                    "remove that directory"
                )
            return
        amiss = [f"{name!r} is not among these" for name in there if name not in self.arms]
        amiss += [f"{name!r} is another" for name, arm in there.items() if self.arms.get(name, arm) != arm]
        if amiss:
            raise SegueError(
                f"{self.path} already holds a comparison, and of its arms {' and '.join(amiss)}; nothing was changed: "
                "give those that it has as they are (others may be added), or choose another --out"
            )
        self.arms = {**there, **self.arms}

    def _grow(self, provenance: dict[str, Any], keep_datasets: Callable[[], None]) -> None:
        """Write down the arms that are new, the recipe last."""
        keep_datasets()
        before = self.provenance() or provenance
        datasets = {**before["datasets"], **provenance["datasets"]}
        write_atomically(self.path / "provenance.json", json.dumps({**before, "datasets": datasets}, indent=1) + "\n")
        write_atomically(self.path / "recipe.json", json.dumps(self.plain, indent=1) + "\n")

    def _same_provenance(self, now: dict[str, Any], resume: bool) -> list[str]:
        before = self.provenance()
        if before is None:
            return self._new_provenance(now, resume)
        for uri, fingerprint in now["datasets"].items():
            if before["datasets"].get(uri, fingerprint) != fingerprint:
                raise SegueError(
                    f"{self.path} holds results from {uri} as it was; the dataset has changed since: choose another "
                    "--out"
                )
        cores = before["cores_per_job"], now["cores_per_job"]
        if cores[0] == cores[1] or self.complete() is not None:
            return []
        said = f"{self.path} was begun with {cores[0]} cores per job, now there would be {cores[1]}"
        if not resume:
            raise SegueError(
                f"{said}; the numbers depend on it: give --workers accordingly, or another --out; "
                "segue run --resume goes on all the same"
            )
        return [f"WARNING: {said}: the numbers will not be those of an uninterrupted run"]

    def provenance(self) -> dict[str, Any] | None:
        """What was written when the run began; None if that is damaged or gone."""
        try:
            found = json.loads((self.path / "provenance.json").read_bytes())
        except (FileNotFoundError, ValueError, RecursionError):
            return None
        whole = isinstance(found, dict) and isinstance(found.get("datasets"), dict)
        whole = whole and isinstance(found.get("cores_per_job"), int)
        return found if whole else None

    def _new_provenance(self, now: dict[str, Any], resume: bool) -> list[str]:
        """Nobody can say any more whether logs and cores are still the same; who goes on all the same is told once."""
        said = (
            f"{self.path / 'provenance.json'} is damaged or gone: whether the datasets and the cores per job are those "
            "that the run began with cannot be checked"
        )
        if not resume:
            raise SegueError(f"{said}; segue run --resume {self.path} goes on all the same, or choose another --out")
        write_atomically(self.path / "provenance.json", json.dumps(now, indent=1) + "\n")
        return [f"WARNING: {said}; if they are not, the numbers will not be those of an uninterrupted run"]

    def complete(self) -> dict[str, Any] | None:
        """The summary, if every job of this recipe is done."""
        summary = self.earlier_summary()
        done = summary is not None and summary["status"] == "complete" and set(summary["arms"]) == set(self.arms)
        return summary if done and all(job.result() for job in self.jobs()) else None

    @contextlib.contextmanager
    def lock(self) -> Iterator[int | None]:
        """Hold the directory, so that no second process writes into it; gives the descriptor that holds it.

        Raises:
            SegueError: if another process does, or the directory cannot be written.
        """
        try:
            import fcntl
        except ImportError:  # not on Windows
            yield None
            return
        try:
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise SegueError(f"{self.path} cannot be written: {error.strerror}") from None
        with file:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() >= deadline:
                        raise SegueError(
                            f"{self.path} is in use by another process; wait for it, or choose another --out"
                        ) from None
                    time.sleep(0.05)
            yield file.fileno()

    def jobs(self) -> list[Job]:
        """Every job, offline phases first; arms with the same offline phase share its job."""
        found: dict[str, Job] = {}
        for arm, seed in self.seeds():
            for job in self.jobs_of(arm, seed):
                found.setdefault(job.label, job)
        return sorted(found.values(), key=lambda job: job.phase != "offline")

    def seeds(self) -> list[tuple[str, int]]:
        """Every arm with each of its seeds."""
        return [
            (arm, seed)
            for arm, plain in self.arms.items()
            for seed in range(plain["seed"], plain["seed"] + plain["seeds"])
        ]

    def jobs_of(self, arm: str, seed: int) -> list[Job]:
        """The jobs of one seed of an arm, the offline phase first."""
        plain, found, pretrained = self.arms[arm], [], None
        if plain["offline"] is not None:
            found.append(self._job("offline", self._offline_name(plain), plain, seed))
            pretrained = found[0].checkpoints / "final"
        if plain["online"] is not None:
            found.append(self._job("online", arm, plain, seed, pretrained))
        return found

    def _job(self, phase: Any, name: str, plain: dict[str, Any], seed: int, pretrained: Path | None = None) -> Job:
        place = Path(slug(name)) / f"seed-{seed}"
        return Job(
            phase=phase,
            label=f"{name} · seed {seed}",
            recipe=plain,
            home=self.path,
            seed=seed,
            records=self.path / "records" / place,
            checkpoints=self.path / "checkpoints" / place,
            tensorboard=self.path / "tensorboard" / place,
            states=self.path / "states" / place,
            pretrained=pretrained,
            checkpoint_every=self.checkpoint_every,
        )

    def _offline_name(self, plain: dict[str, Any]) -> str:
        """The first of an algorithm has its name, others also a key: more arms do not rename those that are there."""
        algorithm = plain["offline"]["name"]
        first = next(arm for arm in self.arms.values() if arm["offline"] and arm["offline"]["name"] == algorithm)
        return f"offline {algorithm}" if _key(plain) == _key(first) else f"offline {algorithm} {_key(plain)}"

    def final(self, arm: str, seed: int) -> Path:
        """The checkpoint that an arm ends with, online or offline."""
        plain = self.arms[arm]
        name = arm if plain["online"] is not None else self._offline_name(plain)
        return self.path / "checkpoints" / slug(name) / f"seed-{seed}" / "final"

    def earlier_summary(self) -> dict[str, Any] | None:
        """The summary that an earlier call wrote here, if there is a whole one; else the records make it again."""
        try:
            found = json.loads((self.path / "summary.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if _is_summary(found, set(self.arms)) else None

    def begin(self) -> dict[str, Any] | None:
        """Mark the summary of an earlier call as overtaken, so that who looks in while this one runs, or after it was
        killed, is shown the records; and return it.
        """
        earlier = self.earlier_summary()
        if earlier is not None:
            write_atomically(self.path / "summary.json", json.dumps({**earlier, "status": RUNNING}, indent=1) + "\n")
        return earlier

    def summarise(
        self,
        outcomes: Mapping[str, Outcome],
        about: dict[str, Any],
        datasets: Mapping[str, dict[str, Any]],
        place: Path | None = None,
    ) -> dict[str, Any]:
        """Write `summary.json` and `metrics.csv` from the records, here or in another place; return the summary.

        `about` goes into the summary as it is, `logs` into the arms of these names.
        """
        arms: dict[str, Any] = {}
        for arm, plain in self.arms.items():
            seeds: dict[str, Any] = {}
            handover: list[str] = []
            for seed in range(plain["seed"], plain["seed"] + plain["seeds"]):
                seeds[str(seed)], lines = _summarise_seed(self.jobs_of(arm, seed), outcomes)
                handover = handover or lines
            arms[arm] = {"recipe": plain, "dataset": datasets.get(arm), "handover": handover, "seeds": seeds}
        states = {outcome.status for outcome in outcomes.values()}
        status = "failed" if "failed" in states else "complete" if states == {"complete"} else "interrupted"
        summary = {"status": status, **about, "arms": arms}
        place = place or self.path
        self.write_metrics(place)
        # Written last: its presence says that the rest is complete.
        write_atomically(place / "summary.json", json.dumps(summary, indent=1) + "\n")
        return summary

    def so_far(self, place: Path) -> dict[str, Any]:
        """Write summary and metrics of what the records hold by now into another place, and return the summary.

        For a run that has written none, because it was killed or still runs: this one is left as it is.
        """
        outcomes = {
            job.label: Outcome("complete" if job.result() else "interrupted" if has_records(job) else "pending")
            for job in self.jobs()
        }
        return self.summarise(outcomes, {"wall_time_s": WallTime(self.path).before}, {}, place)

    def write_metrics(self, place: Path) -> None:
        """Write `metrics.csv` from the records, into the run directory or another place."""
        rows = [
            {"arm": _listed(job), "seed": job.seed, **row}
            for job in self.jobs()
            for row in read_lines(job.records / "metrics.jsonl")
        ]
        first = ["arm", "seed", "phase", "step"]
        names = first + sorted({name for row in rows for name in row} - set(first))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, names)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(place / "metrics.csv", table.getvalue())


def _summarise_seed(jobs: Sequence[Job], outcomes: Mapping[str, Outcome]) -> tuple[dict[str, Any], list[str]]:
    by_phase: dict[str, Job] = {job.phase: job for job in jobs}
    offline, online = by_phase.get("offline"), by_phase.get("online")
    results = {
        "offline": offline.result() if offline else None,
        "online": online.result() if online else None,
    }
    last = results["online" if online else "offline"]
    ended = [outcomes[job.label] for job in jobs]
    status = next((o.status for o in ended if o.status != "complete"), "complete")

    def per_phase(field: str) -> dict[str, float | None]:
        return {phase: result.get(field) if result else None for phase, result in results.items()}

    def steps(job: Job | None) -> int | None:
        """Those done: as the result says, or else the newest saved state, or what the records show beyond it."""
        if job is None:
            return None
        if (result := results[job.phase]) is not None:
            return result.get("stopped_at", result["steps"])
        recorded = [row["step"] for row in read_lines(job.records / "evaluations.jsonl") if "step" in row]
        return max([saved_step(job.states) or 0, *recorded])

    def evaluations(job: Job | None) -> list[dict[str, Any]]:
        found = read_lines(job.records / "evaluations.jsonl") if job else []
        fields = ("step", "mean_return", "returns")
        kept = (*fields, "mean_cost", "costs")
        return [{name: row[name] for name in kept if name in row} for row in found if row.keys() >= set(fields)]

    online_evaluations = evaluations(online)
    # The handed-over policy is judged again as the online phase starts, with that phase's evaluation episodes.
    offline_score = None
    if offline is not None and online_evaluations:
        offline_score = online_evaluations[0]["mean_return"]
    elif results["offline"]:
        offline_score = results["offline"]["score"]
    seed = {
        "status": status,
        "error": next((o.error for o in ended if o.error), None),
        "steps": {phase: steps(by_phase.get(phase)) for phase in results},
        "offline_score": offline_score,
        "offline_evaluations": evaluations(offline),
        "online_evaluations": online_evaluations,
        "final_score": last["score"] if last else None,
        "training_return": _training_return(online),
        "wall_time_s": per_phase("wall_time_s"),
        "evaluation_s": per_phase("evaluation_s"),
        "compile_s": per_phase("compile_s"),
        "handover_s": per_phase("handover_s"),
        "updates_per_second": per_phase("updates_per_second"),
        "parameters_sha256": last["parameters_sha256"] if last else None,
        "actions": (results["offline"] or {}).get("actions"),
        "events": [event for job in jobs for event in read_lines(job.records / "events.jsonl")],
        "metrics_of": {"offline": _listed(offline), "online": _listed(online)},
    }
    return seed, (results["online"] or {}).get("handover", [])


def _training_return(job: Job | None) -> float | None:
    """Mean return of the training episodes of the online phase; None if none has ended."""
    rows = read_lines(job.records / "metrics.jsonl") if job else ()
    returns = [row["training_return"] for row in rows if "training_return" in row]
    return math.fsum(returns) / len(returns) if returns else None


def _is_summary(found: Any, arms: set[str]) -> bool:
    """Whether there is in it what is read again: status, time, and an outcome for every seed of some of these arms."""
    try:
        seeds = [seed for arm in found["arms"].values() for seed in arm["seeds"].values()]
        return (
            set(found["arms"]) <= arms
            and isinstance(found["status"], str)
            and isinstance(found["wall_time_s"], int | float)
            and all("error" in seed for seed in seeds)
        )
    except (LookupError, TypeError, AttributeError):
        return False


def _listed(job: Job | None) -> str | None:
    """What metrics.csv calls the arm of this job: an offline phase that arms share has a name of its own."""
    return None if job is None else job.label.rsplit(" · ", 1)[0]


def read_lines(file: Path) -> Iterator[dict[str, Any]]:
    """The records in a file, up to the first that is none: the line that an interruption cut, or a damaged one."""
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(record, dict):
            return
        yield record


def _not_ours(entry: Path) -> bool:
    begun = r"provenance\.json|log-[0-9a-f]+\.npz|\.(provenance\.json|recipe\.json|log-[0-9a-f]+\.npz)\.\d+\.tmp"
    return not re.fullmatch(begun, entry.name)


def _key(plain: dict[str, Any]) -> str:
    text = json.dumps([plain[field] for field in OFFLINE_FIELDS], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def slug(name: str) -> str:
    """A name as a folder."""
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.") or "arm"
