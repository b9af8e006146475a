"""The online phase fed by a live log: it learns from what the service has written, and stages candidates in the log.

    Learner("live.db", "runs/x/checkpoints/run/seed-0/final", out="runs/live").run()

What a learner is at row n of the log follows from the log, the checkpoint and the recipe. It saves itself together with
n in one step, so a learner that was killed at any instant goes on to the same bytes.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from segue import rng
from segue.bridges.base import Bridge
from segue.compiled import visible_cores
from segue.core import Spaces
from segue.deployment.export import export_policy
from segue.deployment.policy import read_actions
from segue.deployment.spaces import DiscreteActions, flat_size
from segue.envs.spec import NO_ENVIRONMENT
from segue.errors import Diverged, RecipeError, SegueError
from segue.live.database import Unavailable, open_database
from segue.live.policies import require_same_spaces, stage
from segue.live.schema import AuditRow, CursorRow
from segue.live.stream import Lost, Step, Stream, Told
from segue.recipe import Recipe, read_recipes
from segue.replay import Replay
from segue.replay.on_disk import transitions_of
from segue.runner import checkpoint as checkpoints
from segue.runner.checkpoint import Checkpoint
from segue.runner.checkpointer import JobCheckpointer
from segue.runner.directory import RunDirectory
from segue.runner.job import Inputs
from segue.runner.jobs import Event, Job
from segue.runner.recorder import JobRecorder
from segue.runner.start import check_on_disk, hand_over_to_online
from segue.runner.stopping import Stop
from segue.seen import Observed
from segue.training.agent import Agent, AgentSettings
from segue.training.checkpointing import Position
from segue.training.online import MAX_DISPATCH
from segue.training.recovery import sound
from segue.training.update import replace

#: Live transitions that a learner keeps, unless the recipe's replay says how many.
CAPACITY = 1_000_000
#: Rows of the log per query.
PAGE = 10_000
#: Seconds between looks at a log that goes no further.
LOOK = 1.0


class Learner:
    """Learns from a live log.

    Args:
        db: the live log: a path, `sqlite:///PATH` or `postgresql://…`. The service may be writing it.
        checkpoint: where to start: a checkpoint in a run directory, of its offline phase or its end.
        recipe: what learns, and how; by default as the run's (`recipe_of`).
        out: a run directory of the learner's own; a learner that was stopped goes on there.
        every: transitions between candidates: then it saves itself, exports its policy and stages it.
        arm: only learn from episodes of this arm (live, candidate, fallback, application); None: from all.
        overdue: rows of the log for which a missing outcome is waited for before what comes after it is learnt from.
        settle: rows of the log for which it is waited whether a decision was overridden, after its outcome.
        on_event: called with progress, metrics and notes (see `segue.runner.jobs`).

    Raises:
        SegueError: if log, checkpoint and recipe do not fit together, or `out` holds something else.
    """

    def __init__(
        self,
        db: str | Path,
        checkpoint: str | Path,
        recipe: Recipe | None = None,
        *,
        out: str | Path,
        every: int = 1000,
        arm: str | None = None,
        overdue: int = 100_000,
        settle: int = 0,
        on_event: Callable[[Event], None] = lambda event: None,
    ) -> None:
        for name, value, least in (("every", every, 1), ("overdue", overdue, 1), ("settle", settle, 0)):
            if value < least:
                raise SegueError(f"{name} is {value}; expected at least {least}")
        self.every, self.on_event = every, on_event
        self.chunk_length = max(n for n in range(1, MAX_DISPATCH + 1) if every % n == 0)
        self._checkpoint = Path(checkpoint)
        self.recipe = recipe or recipe_of(self._checkpoint)
        require_learnable(self.recipe)
        self.source = checkpoints.load(self._checkpoint)
        self.reader = Path(out).resolve().name
        self.database = open_database(db, create=False)
        self.stream = Stream(self.database, arm, overdue, settle)
        self._require_spaces()
        self.directory = RunDirectory(Path(out), {"run": self.recipe})
        self.job = dataclasses.replace(
            self.directory.jobs_of("run", self.recipe.seed)[-1], pretrained=self._checkpoint.resolve()
        )
        self.inputs = Inputs(self.job)
        self._claim({"every": every, "arm": arm, "overdue": overdue, "settle": settle})
        self.agent: Agent | None = None
        self.staged: str | None = None
        self._chunk: list[Told | Lost] = []
        self._due, self._candidate_at, self._warned = False, 0, False
        self._observed = self.source.observed
        dataset = self.inputs.dataset
        if self._observed is not None and dataset is not None and (of_dataset := dataset.observed()) is not None:
            new = len(np.setdiff1d(self.inputs.seen, self.source.seen))
            self._observed = self._observed.wider(dataclasses.replace(of_dataset, episodes=new))

    def run(self, once: bool = False) -> None:
        """Learn from what is in the log and what comes, until Ctrl-C or SIGTERM; `once`: until its end, and stop.

        Raises:
            Stopped: if it was asked to stop; it has saved where it stands.
            Diverged: if learning diverged twice. What it staged before stays.
            SegueError: if something cannot be read or written.
        """
        with self.directory.lock(), Stop().listening() as stop:
            checkpointer = JobCheckpointer(self.job, stop, self._capacity, self.on_event)
            state = checkpointer.state
            recorder = JobRecorder(self.job, self.on_event, None if state is None else state.plain["records"])
            checkpointer.recorder = recorder
            try:
                self._begin(checkpointer, recorder)
                self._follow(stop, once)
            except Diverged as error:
                row = AuditRow(time.time(), self.reader, "diverged", json.dumps({"why": str(error)}))
                self.database.append([row])
                raise
            finally:
                recorder.close()

    def close(self) -> None:
        """Close the log."""
        self.database.close()

    def status(self) -> str:
        """Where it stands, in one line."""
        step = 0 if self.agent is None else self.agent.step
        words = [f"{step:,} transitions learnt from", f"row {self.stream.read_to:,} of {self.stream.last():,}"]
        if waiting := self.stream.waiting():
            words.append(f"{waiting:,} wait for an earlier step")
        if self.stream.passed_over:
            words.append(f"{self.stream.passed_over:,} left out")
        if self.staged is not None:
            words.append(f"last candidate {self.staged[:12]}")
        return " · ".join(words)

    # Beginning.

    @property
    def _capacity(self) -> int:
        return self.recipe.effective_replay.capacity or CAPACITY

    def _require_spaces(self) -> None:
        manifests = self.database.read("SELECT manifest FROM policies ORDER BY seq LIMIT 1")
        if not manifests:
            raise SegueError(f"{self.database.url}: the log has no policy yet; segue serve --policy begins one")
        about = json.loads(manifests[0][0])
        actions = read_actions(about["action_space"])
        there = Spaces(flat_size(about["observation_space"]), actions.size, isinstance(actions, DiscreteActions))
        here = self.source.spaces
        if here.image is not None:
            raise SegueError(f"{self._checkpoint}: its observations are images, which a live log does not hold")
        if here != there:
            raise SegueError(
                f"{self._checkpoint}: it has {here.describe()}, the log {there.describe()}; expected a checkpoint for "
                "the system that the log is of"
            )

    def _claim(self, settings: dict[str, Any]) -> None:
        """Make the run directory, or find this learner there."""
        dataset = self.inputs.dataset
        live = {**settings, "log": self.database.url, "checkpoint": checkpoints.parameters_sha256(self.source.learner)}
        provenance: dict[str, Any] = {
            "datasets": {} if dataset is None else {str(self.recipe.dataset): dataset.fingerprint()},
            "cores_per_job": len(visible_cores()),
            "live": live,
        }
        for note in self.directory.claim(provenance, resume=True):
            self.on_event({"event": "note", "message": note})
        before: dict[str, Any] = (self.directory.provenance() or provenance).get("live", {})
        for name, value in live.items():
            if before.get(name) != value:
                raise SegueError(
                    f"{self.directory.path} was begun with another {name} ({before.get(name)!r}, now {value!r}); "
                    "choose another --out"
                )
        self._take_offline_phase_along()

    def _take_offline_phase_along(self) -> None:
        """Its records, for the report."""
        run = self._checkpoint.resolve().parents[3]
        finished = {_phase_of(job): job for job in RunDirectory(run, read_recipes(run)).jobs() if job.result()}
        for mine in self.directory.jobs():
            theirs = finished.get(_phase_of(mine))
            if mine.phase == "offline" and theirs is not None and not mine.records.exists():
                for place in ("checkpoints", "tensorboard", "records"):
                    shutil.copytree(getattr(theirs, place), getattr(mine, place), dirs_exist_ok=True)

    def _begin(self, checkpointer: JobCheckpointer, recorder: JobRecorder) -> None:
        """The agent as it was saved, or as it is handed over."""
        recipe, dataset, spaces = self.recipe, self.inputs.dataset, self.source.spaces
        algorithm, bridges, strategy = recipe.online, recipe.bridges, recipe.effective_replay
        assert algorithm is not None
        check_on_disk(recipe, dataset)
        logged = None if dataset is None else transitions_of(algorithm, dataset, self.source.learner.normaliser)
        parts = None if dataset is None else dataset.part_rows()
        kept = logged if strategy.needs_dataset else None
        masks = logged is not None and logged.allowed is not None
        replay = Replay.create(
            kept, self._capacity, spaces, algorithm.sequence_length > 1, algorithm.needs_costs, masks, parts
        )
        sampler = strategy.init(replay, spaces, rng.stream(self.job.seed, "sampler"))
        learner = checkpoints.skeleton(algorithm, bridges, spaces, sampler)
        position = checkpointer.position(learner)
        if position is None:
            learner, checkpointer.lines = hand_over_to_online(
                self.source, recipe, dataset, logged, spaces, recorder, self.job.seed
            )
            learner = replace(learner, sampler=sampler)
            for line in checkpointer.lines:
                recorder.note(line)
        updates = self.chunk_length * recipe.effective_updates_per_step
        settings = AgentSettings(
            steps=recipe.online_steps,
            warmup_steps=recipe.warmup_steps,
            updates_per_step=recipe.effective_updates_per_step,
            seed=self.job.seed,
            slots=0 if position is None else len(position.plain["reviews"]["running"]),
            dispatch=max(int(updates // algorithm.updates_per_block), 1),
        )
        log = checkpointer.replay_log
        self.agent = Agent(algorithm, bridges, strategy, learner, replay, recorder, settings, log, position)
        self._recorder, self._checkpointer = recorder, checkpointer
        if position is None:
            with tempfile.TemporaryDirectory() as place:  # what could not be staged is better known now
                require_same_spaces(self.database, self._export(Path(place) / "policy"), str(self._checkpoint))
            self._save()
        else:
            self._restore(position.plain)

    def _restore(self, plain: dict[str, Any]) -> None:
        self.stream.restore(plain["stream"])
        self._due, self._candidate_at = plain["due"], plain["candidate_at"]
        self._observed = None if plain["observed"] is None else Observed.read(plain["observed"])
        steps = self.stream.numbered([seq for _, seq in plain["chunk"] if seq is not None])
        self._chunk = [Lost(slot) if seq is None else Told(slot, steps[seq]) for slot, seq in plain["chunk"]]

    def _save(self) -> None:
        """Everything, with how far the log was read, in one step; raises Stopped if it was asked to stop."""
        assert self.agent is not None
        plain, learners = self.agent.position()
        chunk = [(one.slot, one.step.seq if isinstance(one, Told) else None) for one in self._chunk]
        mine = {"stream": self.stream.position(), "chunk": chunk, "due": self._due, "candidate_at": self._candidate_at}
        mine["observed"] = None if self._observed is None else self._observed.plain()
        self._checkpointer.save(Position(self.agent.step, learners, {**plain, **mine}, {}))

    # Learning. Between two calls of `_take` everything can be saved, and nothing that is saved depends on when.

    def _follow(self, stop: Stop, once: bool) -> None:
        assert self.agent is not None
        while True:
            self._stage_if_due(patient=not once)
            steps = self._read(patient=not once)
            for step in steps:
                self._take(step)
                if stop.requested is not None:
                    self._save()
            if steps:
                continue
            if stop.requested is not None:
                self._save()
            if once:
                break
            self._recorder.progress("online", self.agent.step, self.recipe.online_steps)
            time.sleep(LOOK)
        self._due = self._due or self._has_learnt(self.agent)
        self._candidate_at = self.agent.step
        self._save()
        self._stage_if_due(patient=False)

    def _read(self, patient: bool) -> list[Step]:
        try:
            return self.stream.read(PAGE)
        except Unavailable as error:
            if not patient:
                raise
            self._recorder.note(f"WARNING: {error}; tries again")
            return []

    def _take(self, step: Step) -> None:
        """One step of the log."""
        agent = self.agent
        assert agent is not None
        self._chunk += self.stream.take(step)
        missing = self.stream.slots - agent.settings.slots
        if missing > 0:
            agent.add_slots(max(agent.settings.slots, missing))
        while sum(isinstance(one, Told) for one in self._chunk) >= self.chunk_length:
            self._learn(agent)
            if agent.step % self.every == 0:
                self._candidate(agent)

    def _learn(self, agent: Agent) -> None:
        """Tell so many transitions, and do the updates that are then owed."""
        taken, wave = 0, dict[int, Step]()
        left = self.chunk_length
        for one in self._chunk:
            if not left:
                break
            taken += 1
            if one.slot in wave:
                left -= self._tell(agent, wave)
            if isinstance(one, Lost):
                agent.abandon([one.slot])
            else:
                wave[one.slot] = one.step
                if len(wave) == left:
                    left -= self._tell(agent, wave)
        del self._chunk[:taken]
        agent.take_in()
        agent.learn()
        while agent.pending is not None:
            agent.take_in()
            agent.learn()
        self._recorder.progress("online", agent.step, self.recipe.online_steps)

    def _tell(self, agent: Agent, wave: dict[int, Step]) -> int:
        """One step of each of these slots; how many they were."""
        steps, count = list(wave.values()), len(wave)
        discrete = self.source.spaces.discrete
        actions = np.frombuffer(b"".join(step.action or b"" for step in steps), np.int64 if discrete else np.float32)
        # What follows a terminal has no effect; the row needs some observation.
        following = b"".join(step.next_observation or step.observation for step in steps)
        observations = np.frombuffer(b"".join(step.observation for step in steps), np.float32).reshape(count, -1)
        if self._observed is not None:
            ended = sum(step.terminated or step.truncated for step in steps)
            self._observed = self._observed.wider(Observed.of(observations, ended))
        agent.tell_raw(
            np.array(list(wave)),
            observations,
            actions.astype(np.int32) if discrete else actions.reshape(count, -1),
            np.array([step.reward for step in steps], np.float32),
            np.frombuffer(following, np.float32).reshape(count, -1),
            np.array([step.terminated for step in steps]),
            np.array([step.truncated for step in steps]),
        )
        wave.clear()
        return count

    # Candidates.

    def _candidate(self, agent: Agent) -> None:
        """Save the learner, then stage its policy; one that is killed in between stages it when it goes on."""
        returns = self.stream.ended()
        if returns:
            self._recorder.evaluation("online", agent.step, np.array(returns))
        late = self.stream.overridden_late()
        if late and not self._warned:
            self._warned = True
            self._recorder.note(
                f"WARNING: {late:,} decisions were overridden, and the log heard of it too late: they may have been "
                "learnt from as decided; send activations before outcomes, or begin a learner with a larger settle"
            )
        agent.recovery.mark(agent.learner, agent.step)
        self._due, self._candidate_at = self._has_learnt(agent), agent.step
        self._save()
        self._stage_if_due(patient=True)

    def _has_learnt(self, agent: Agent) -> bool:
        """Whether it is another policy than at the last candidate; before the warm-up is over, nothing is learnt."""
        return agent.step > max(self._candidate_at, self.recipe.warmup_steps)

    def _stage_if_due(self, patient: bool) -> None:
        assert self.agent is not None
        if not self._due:
            return
        if not sound(self.agent.learner):
            self._recorder.event("online", self.agent.step, "the learner is not finite; it was not staged")
            self._due = False
            return
        try:
            self._stage(self.agent)
        except Unavailable as error:
            if not patient:
                raise
            self._recorder.note(f"WARNING: {error}; the candidate is staged later")
        else:
            self._due = False

    def _stage(self, agent: Agent) -> None:
        digest = checkpoints.parameters_sha256(replace(agent.learner, sampler=()))
        cursor = CursorRow(time.time(), self.reader, self.stream.read_to, digest)
        done = "SELECT 1 FROM cursors WHERE reader = ? AND read_to = ? AND checkpoint = ?"
        if self.database.read(done, *cursor[1:]):
            return
        name = f"{self.reader}-{agent.step}"
        with tempfile.TemporaryDirectory() as place:
            self._export(Path(place) / "policy")
            self.staged = stage(self.database, Path(place) / "policy", name, self._parent(), self.stream.read_to)
        self.database.append([cursor])
        self._recorder.note(f"staged {self.staged[:12]} ({name}), trained to row {self.stream.read_to:,}")

    def _export(self, to: Path) -> dict[str, Any]:
        """Write the policy of now, and what it is."""
        agent = self.agent
        assert agent is not None
        environment = self.recipe.environment or self.source.environment
        progress = min(agent.step / self.recipe.online_steps, 1.0)
        seen = np.union1d(self.source.seen, self.inputs.seen)
        final = self.job.checkpoints / "final"
        now = Checkpoint(
            agent.algorithm,
            agent.bridges,
            self.source.spaces,
            environment,
            agent.learner,
            seen,
            progress,
            self.source.encoding,
            self.source.action_bounds,
            self._observed,
        )
        checkpoints.save(final, now)
        return export_policy(final, to).policy.about

    def _parent(self) -> str | None:
        """The candidate before, or the policy of the checkpoint that all began with, if the log has it."""
        prefix = f"{self.reader}-"
        before = self.database.read(
            "SELECT policy FROM policies WHERE trained_to <= ? AND substr(name, 1, ?) = ? ORDER BY seq DESC LIMIT 1",
            self.stream.read_to,
            len(prefix),
            prefix,
        )
        if before:
            return before[0][0]
        digest = checkpoints.parameters_sha256(self.source.learner)
        for policy, manifest in self.database.read("SELECT policy, manifest FROM policies ORDER BY seq"):
            if json.loads(manifest)["provenance"]["parameters_sha256"] == digest:
                return policy
        return None


def recipe_of(checkpoint: str | Path) -> Recipe:
    """The recipe of the run that a checkpoint lies in, for its seed alone, as a learner begins with it.

    Raises:
        SegueError: if it lies in none.
    """
    place = Path(checkpoint).resolve()
    if len(place.parents) < 4 or not (place.parents[3] / "recipe.json").exists():
        raise SegueError(
            f"{checkpoint}: expected a checkpoint in a run directory (RUN/checkpoints/ARM/seed-0/final), whose recipe "
            "says how to go on; a policy that was exported has no critics"
        )
    run, arm, seed = place.parents[3], place.parents[1].name, place.parents[0].name.removeprefix("seed-")
    recipes = read_recipes(run)
    directory = RunDirectory(run, recipes)
    arms = {job.checkpoints.parent.name: name for name in recipes for job in directory.jobs_of(name, int(seed))}
    recipe = recipes[arms[arm]]
    env = None if recipe.env == NO_ENVIRONMENT else recipe.env
    return dataclasses.replace(recipe, seed=int(seed), seeds=1, env=env)


def require_learnable(recipe: Recipe) -> None:
    """Refuse what does not go with a log that others write.

    Raises:
        RecipeError: saying what, and why.
    """
    online = recipe.online
    if online is None:
        raise RecipeError("learning from a live log needs an online algorithm: --online NAME")
    if online.on_policy:
        raise RecipeError(
            f"{online.name} learns from what its own policy does, and in live operation the service decides who acts; "
            "expected an off-policy algorithm"
        )
    if online.needs_costs:
        raise RecipeError(
            f"{online.name} learns from costs, which segue learn does not read from the log; expected another online "
            "algorithm (the service can still bound the cost of a policy)"
        )
    if recipe.hindsight or recipe.dataset_hindsight:
        raise RecipeError("hindsight asks the environment for the rewards of other goals, which a log cannot answer")
    for bridge in recipe.bridges:
        if decides(bridge):
            raise RecipeError(
                f"bridge {bridge.name} decides who acts, or judges by episodes of its own policy; in live operation "
                "that is the service's (shadow, canary, rollback): leave it out"
            )


def decides(bridge: Bridge) -> bool:
    """Whether a bridge decides who acts, or judges by episodes of its own policy, which is the service's part."""
    return bridge.needs_reference or type(bridge).act is not Bridge.act


def _phase_of(job: Job) -> str:
    """What phase a job is, as text."""
    return json.dumps([job.phase, job.seed, job.recipe["offline"], job.recipe["offline_steps"]], sort_keys=True)
