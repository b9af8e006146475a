"""The on-policy loop: collect a rollout, learn from it, forget it.

Environments wait while the policy learns: every action of a rollout comes from the policy that the update starts from.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from segue import rng
from segue.algorithms.base import log_prob_of
from segue.algorithms.ppo import PPO
from segue.bridges.base import Bridge
from segue.core import Array, Key, Learner, Metrics, Transition, as_numbers
from segue.evaluation import Probe
from segue.policy import Policy
from segue.replay.replay_log import COLUMNS
from segue.training.bridge_reviews import BridgeReviews
from segue.training.checkpointing import NO_CHECKPOINTS, Checkpointer, Position
from segue.training.collect import Collector
from segue.training.online import NO_PROBE, Keep, OnlineSettings, judge, reference
from segue.training.recorder import Recorder
from segue.training.recovery import Recovery
from segue.training.update import means, norms, replace, steps_of, take_all, update_bridges


def train_on_policy(
    algorithm: PPO,
    bridges: tuple[Bridge, ...],
    learner: Learner,
    recorder: Recorder,
    settings: OnlineSettings,
    probe: Probe = NO_PROBE,
    keep: Keep = lambda step, learner, observed: None,
    checkpointer: Checkpointer = NO_CHECKPOINTS,
    position: Position | None = None,
) -> Learner:
    """Collect `steps` environment steps in rollouts of `rollout_steps`, with `epochs` passes over each.

    The policy waits while the warm-up lasts and V is fitted. Evaluates before the first step, every `eval_every` steps
    (also in the middle of a rollout) and at the end; `keep` is called with the learner at each of these points. A
    bridge that slows learning down makes the passes fewer, down to one. With a `position` it goes on from there,
    and ignores `learner`.
    """
    s = settings
    key = rng.stream(s.seed, "online")
    step, fitted = 0, False

    def tell(message: str) -> None:
        recorder.event("online", step, message)

    episodes = s.episodes(recorder, tell)
    collector = Collector(algorithm, episodes, s.seed)
    rows: list[tuple[Transition, np.ndarray]] = []
    reviews: BridgeReviews | None = None
    if position is not None:
        step, learner, fitted = position.step, position.learners["learner"], position.plain["fitted"]
        rows = _unstacked(position.arrays)
        reviews = BridgeReviews.restored(bridges, position, recorder)
    recovery = Recovery("online", recorder, learner, position)
    policy = Policy(algorithm, learner, bridges)
    if position is not None:
        collector.restore(position, policy)

    def full() -> bool:
        return len(rows) * s.environments >= algorithm.rollout_steps

    def due() -> bool:
        return step == s.next_evaluation(step - s.environments)

    def look() -> None:
        judge(policy, step, recorder, s, probe, tell)
        keep(step, learner, collector.observed())
        recovery.mark(learner, step)

    try:
        if reviews is None:
            look()
            returns, costs = reference(policy, bridges, recorder, s, tell)
            reviews = BridgeReviews(bridges, learner, returns, recorder, s.environments, costs)
        while True:
            while not full() and step < s.steps:
                seen = collector.step(policy)
                if seen.broken is not None:
                    reviews.abandon(seen.broken)
                    if rows:  # what came before is cut off there, and bootstraps
                        rows[-1][1][seen.broken] = True
                rows.append((seen.batch, seen.done))
                reviews.watch(seen.reward, seen.done, carry=seen.carry, cost=seen.cost)
                step += s.environments
                if due() and step < s.steps and not full():
                    look()  # with the policy that collects; at the end of a rollout, with what was learnt from it
                recorder.progress("online", step, s.steps)
                if step >= s.steps or checkpointer.due():
                    plain, arrays = collector.position()
                    plain |= {
                        "fitted": fitted,
                        "reviews": reviews.position(),
                        "recovery": recovery.position(),
                    }
                    arrays |= _stacked(rows)
                    learners = {**reviews.learners(learner), "recovery": recovery.good}
                    checkpointer.save(Position(step, learners, plain, arrays))
            if len(rows) * s.environments >= algorithm.batch_size:
                rollout = jax.tree.map(lambda *parts: np.stack(parts), *(batch for batch, _ in rows))
                done = np.stack([ended for _, ended in rows])
                progress = jnp.asarray((step - len(rows) * s.environments) / s.steps, jnp.float32)
                good = True
                for fit in (False,) if fitted else (True, False):
                    paced = max(round(algorithm.epochs * reviews.pace), 1)
                    epochs = algorithm.value_fit_epochs if fit else paced
                    if epochs == 0 or (not fit and step <= s.warmup_steps):
                        continue
                    with recorder.clock("online", "compile"):
                        learner, metrics = learn(
                            learner,
                            rollout,
                            done,
                            key,
                            progress,
                            algorithm,
                            bridges,
                            epochs=epochs,
                            train_policy=not fit,
                        )
                    learner, good = recovery.fetch(learner, step, metrics)
                    if not good:
                        break
                else:
                    fitted = fitted or step > s.warmup_steps
                if good:
                    learner = reviews.review(learner, step)
                else:  # what the lost policy earned says nothing of the one that takes its place
                    reviews.start_again(step)
                policy = Policy(algorithm, learner, bridges)
            rows = []
            if due():
                look()
            if step >= s.steps:
                break
    finally:
        episodes.close()
    return learner


def _stacked(rows: list[tuple[Transition, np.ndarray]]) -> dict[str, np.ndarray]:
    """The unfinished rollout as columns."""
    if not rows:
        return {}
    there = [name for name in COLUMNS if getattr(rows[0][0], name) is not None]
    named = {f"rollout.{name}": np.stack([getattr(batch, name) for batch, _ in rows]) for name in there}
    return {**named, "rollout.ended": np.stack([ended for _, ended in rows])}


def _unstacked(arrays: Mapping[str, np.ndarray]) -> list[tuple[Transition, np.ndarray]]:
    """The rows that `_stacked` made columns of."""
    there = [name for name in COLUMNS if f"rollout.{name}" in arrays]
    return [
        (Transition(**{name: arrays[f"rollout.{name}"][i] for name in there}), ended)
        for i, ended in enumerate(arrays.get("rollout.ended", ()))
    ]


@partial(jax.jit, static_argnames=("epochs", "train_policy"), donate_argnames=("learner",))
def learn(
    learner: Learner,
    rollout: Transition,
    done: Bool[Array, "steps envs"],
    key: Key,
    progress: Float[jax.Array, ""],
    algorithm: PPO,
    bridges: tuple[Bridge, ...] = (),
    *,
    epochs: int,
    train_policy: bool = True,
) -> tuple[Learner, Metrics]:
    """`epochs` passes over a rollout [steps, envs] in shuffled minibatches, all in one dispatch.

    With `train_policy` False only V learns, on undiminished returns (λ = 1).
    """
    current: PPO = algorithm.at(progress)
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        current = bridge.adjust(state, current, progress)  # type: ignore[assignment]
    rollout = jax.tree.map(as_numbers, rollout)
    rollout = current.advantages(rollout, done, learner.nets.value, current.gae_lambda if train_policy else 1.0)
    batch: Transition = jax.tree.map(lambda column: jnp.reshape(column, (-1, *column.shape[2:])), rollout)
    # From the action as it is stored, so that the ratio of the first minibatch is 1, but for rounding.
    batch = batch._replace(log_prob=log_prob_of(learner.nets.actor, batch, batch.action))
    rows = batch.reward.shape[0]
    count, steps = rows // current.batch_size, steps_of(current, train_policy)

    def minibatch(carry: Learner, step: tuple[jax.Array, Key]) -> tuple[Learner, Metrics]:
        chosen, step_key = step
        part = jax.tree.map(lambda column: column[chosen], batch)
        carry, aux = take_all(steps, current, bridges, carry, part, step_key, {})
        if train_policy:
            carry, aux = update_bridges(current, bridges, carry, part, step_key, aux)
        return replace(carry, step=carry.step + 1), means(aux)

    def epoch(carry: Learner, epoch_key: Key) -> tuple[Learner, Metrics]:
        order = jax.random.permutation(rng.named(epoch_key, "order"), rows)
        order = order[: count * current.batch_size].reshape(count, -1)
        keys = jax.random.split(rng.named(epoch_key, "minibatch"), count)
        return jax.lax.scan(minibatch, carry, (order, keys))

    keys = jax.random.split(rng.named(key, "step", learner.step), epochs)
    learner, metrics = jax.lax.scan(epoch, learner, keys)
    return learner, {**means(metrics), **norms(learner.nets)}
