"""The one update that serves every algorithm and every set of bridges: it executes an algorithm's steps, in order.

    BellmanStep   target = reward + discount · bridges.bootstrap(V(s′)), then a step down the critic's loss
    PolicyStep    Σ w·ℓ / Σ w + Σ bridge penalties,  w = Π bridge.actor_weight
    Step          a step down any other role's loss
    Follow        target ← τ·role + (1 − τ)·target
    at last       the bridges' own states

A block is d updates: the steps that are due at each of them, each time on a batch of its own, then once, on the last
batch, the steps that are due every d. Many blocks run in one dispatch: batches are sampled on the device inside a
`lax.scan`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Float, Int

from segue import rng
from segue.algorithms.base import Algorithm, AnyStep, Aux, BellmanStep, Follow, PolicyStep, Step
from segue.bridges.base import Bridge, weighted_mean
from segue.chunks import sequence_batch
from segue.core import Array, Key, Learner, Metrics, Nets, Transition, origin
from segue.errors import SegueError
from segue.networks.encoder import image_shape, randomly_shifted
from segue.replay.base import Replay, ReplayStrategy

Bridges = tuple[Bridge, ...]


def init_learner(algorithm: Algorithm, nets: Nets, normaliser: Any) -> Learner:
    """A learner with fresh optimiser states and no bridges."""
    check_steps(algorithm)
    roles = nets.roles()
    states = {role: optimiser.init(roles[role]) for role, optimiser in algorithm.optimisers().items()}
    return Learner(nets, states, (), jnp.zeros((), jnp.int32), jax.tree.map(jnp.asarray, normaliser))


def check_steps(algorithm: Algorithm) -> None:
    """Refuse steps that `run_updates` does not execute as they say.

    Raises:
        SegueError: naming the algorithm.
    """
    steps = algorithm.steps()
    trained = [step.role for step in steps if not isinstance(step, Follow)]
    periods = {step.every for step in steps} - {1}
    for wrong, words in (
        (len(set(trained)) < len(trained), f"steps of one role twice: {', '.join(trained)}"),
        (
            len(periods) > 1,
            f"steps every {sorted(periods)} updates; expected 1 and one other number",
        ),
        (sum(isinstance(step, PolicyStep) for step in steps) > 1, "two steps of a policy"),
        (sum(isinstance(step, BellmanStep) for step in steps) > 1, "two Bellman steps"),
    ):
        if wrong:
            raise SegueError(f"{algorithm.name}: {words}")


def require_rows(what: str, values: jax.Array, batch: Transition) -> None:
    """Refuse, while it is traced, what is not one number per sample: [B] against [B, 1] would become [B, B].

    Raises:
        SegueError: naming the quantity, its shape and the one expected.
    """
    if values.shape != batch.reward.shape:
        raise SegueError(f"{what} has shape {values.shape}; expected one number per sample, {batch.reward.shape}")


def take(
    step: AnyStep, algorithm: Algorithm, bridges: Bridges, learner: Learner, batch: Transition, key: Key, aux: Aux
) -> tuple[Learner, Aux]:
    """One step of an update; `aux` is what earlier ones reported, per sample.

    Returns:
        The learner, and what this step reports.
    """
    match step:
        case Follow():
            return follow(learner, step), {}
        case BellmanStep():
            target, reported = bellman_target(step, algorithm, bridges, learner, batch, rng.named(key, "target"))
            loss_key, nets = rng.named(key, "loss"), learner.nets
            learner, own = descend(step, learner, lambda critic: step.loss(critic, nets, batch, target, loss_key))
            return learner, {**reported, **own, "target_q": target}
        case PolicyStep():
            return policy_step(step, bridges, learner, batch, key)
        case Step():
            loss_key, nets = rng.named(key, "loss"), learner.nets
            return descend(step, learner, lambda parameters: step.loss(parameters, nets, batch, loss_key, aux))


def bellman_target(
    step: BellmanStep, algorithm: Algorithm, bridges: Bridges, learner: Learner, batch: Transition, key: Key
) -> tuple[Float[jax.Array, " batch"], Aux]:
    """reward + discount · V(s′), detached, where the bridges may have changed V; and what they report."""
    value_key = rng.named(key, "next_value")
    value = step.next_value(learner.nets, batch, value_key)
    require_rows(f"{algorithm.name}: V(s′) of the step of the {step.role}", value, batch)
    reported: Aux = {}
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        bridge_key = rng.named(key, "bootstrap", bridge.name)
        value, aux = bridge.bootstrap(state, algorithm, learner.nets, batch, value, value_key, bridge_key)
        reported |= aux
    return jax.lax.stop_gradient(jnp.asarray(batch.reward) + batch.discount * value), reported


def policy_step(
    step: PolicyStep, bridges: Bridges, learner: Learner, batch: Transition, key: Key
) -> tuple[Learner, Aux]:
    """A step of the policy, down its own loss as the bridges weigh it plus what they add."""
    nets = learner.nets
    weight: jax.Array | None = None
    scale: jax.Array | None = None
    reported: Aux = {}
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        factor, aux = bridge.actor_weight(state, nets, batch, rng.named(key, "weight", bridge.name))
        reported |= aux
        if factor is not None:
            weight = factor if weight is None else weight * factor
        rate = bridge.actor_rate(state)
        if rate is not None:
            scale = rate if scale is None else scale * rate
    weight = jax.lax.stop_gradient(weight)

    def loss(actor: Any) -> tuple[jax.Array, Aux]:
        per_sample, aux = step.loss(actor, nets, batch, rng.named(key, "loss"))
        require_rows(f"the loss of the {step.role}", per_sample, batch)
        total = per_sample.mean() if weight is None else weighted_mean(per_sample, weight)
        size = jax.lax.stop_gradient(per_sample)
        for bridge, state in zip(bridges, learner.bridges, strict=True):
            bridge_key = rng.named(key, "penalty", bridge.name)
            penalty, penalty_aux = bridge.actor_penalty(state, actor, nets, batch, size, bridge_key)
            aux = {**aux, **penalty_aux}
            total = total if penalty is None else total + penalty
        return total, {"actor_loss": total, **aux}

    learner, own = descend(step, learner, loss, scale)
    return learner, {**own, **reported}


def descend(
    step: Step | BellmanStep | PolicyStep,
    learner: Learner,
    loss: Callable[[Any], tuple[jax.Array, Aux]],
    scale: Float[jax.Array, ""] | None = None,
) -> tuple[Learner, Aux]:
    """One optimiser step of one role, its length times `scale`; every other role is a constant of the loss."""
    parameters = getattr(learner.nets, step.role)
    gradient, aux = jax.grad(loss, has_aux=True)(parameters)
    move, state = step.optimiser.update(gradient, learner.optimisers[step.role], parameters)
    if scale is not None:
        move = jax.tree.map(lambda leaf: scale * leaf, move)
    nets = learner.nets.replace(**{step.role: optax.apply_updates(parameters, move)})
    return replace(learner, nets=nets, optimisers={**learner.optimisers, step.role: state}), aux


def follow(learner: Learner, step: Follow) -> Learner:
    """target ← τ·role + (1 − τ)·target."""
    moved = optax.incremental_update(
        getattr(learner.nets, step.role),
        getattr(learner.nets, step.target),
        step.rate,
    )
    return replace(learner, nets=learner.nets.replace(**{step.target: moved}))


def take_all(
    steps: Sequence[AnyStep],
    algorithm: Algorithm,
    bridges: Bridges,
    learner: Learner,
    batch: Transition,
    key: Key,
    aux: Aux,
) -> tuple[Learner, Aux]:
    """Steps in their order, each with a key of its own; and all that has been reported."""
    for step in steps:
        role_key = rng.named(key, step.target if isinstance(step, Follow) else step.role)
        learner, own = take(step, algorithm, bridges, learner, batch, role_key, aux)
        aux = {**aux, **own}
    return learner, aux


def update_bridges(
    algorithm: Algorithm, bridges: Bridges, learner: Learner, batch: Transition, key: Key, aux: Aux
) -> tuple[Learner, Aux]:
    """The bridges' own states, after all steps of a block."""
    states = []
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        bridge_key = rng.named(key, "update", bridge.name)
        state, own = bridge.update(state, algorithm, learner.nets, batch, aux, bridge_key)
        states.append(state)
        aux = {**aux, **own}
    return replace(learner, bridges=tuple(states)), aux


def steps_of(algorithm: Algorithm, policy: bool) -> tuple[AnyStep, ...]:
    """The algorithm's steps; without the policy: not its own, not what follows it, nor losses that come after it."""
    steps = algorithm.steps()
    if policy:
        return steps
    place = next((i for i, step in enumerate(steps) if isinstance(step, PolicyStep)), len(steps))
    later = {step.role for step in steps[place:] if not isinstance(step, Follow)}
    return tuple(step for step in steps if step.role not in later)


def means(aux: Aux) -> Metrics:
    """One number per quantity."""
    return {name: jnp.mean(value) for name, value in aux.items()}


def replace(learner: Learner, **fields: Any) -> Learner:
    """A copy of the learner with these fields exchanged."""
    return Learner(**{name: fields.get(name, getattr(learner, name)) for name in Learner.__dataclass_fields__})


@partial(jax.jit, static_argnames=("blocks", "train_policy"), donate_argnames=("learner",))
def run_updates(
    learner: Learner,
    replay: Replay,
    key: Key,
    progress: Float[jax.Array, ""],
    algorithm: Algorithm,
    bridges: Bridges = (),
    strategy: ReplayStrategy | None = None,
    *,
    rows: Int[jax.Array, "blocks length batch"] | None = None,
    blocks: int,
    train_policy: bool = True,
) -> tuple[Learner, Metrics]:
    """So many blocks of `algorithm.updates_per_block` updates in one dispatch; the given learner's buffers are reused.

    `progress` is the share of the phase that is over, for replay strategies and schedules. `key` is the phase's; each
    block folds in the learner's step, so results do not depend on how many blocks share a dispatch. `strategy` None
    samples the dataset uniformly; `rows` are drawn already. Images are randomly shifted. Returns metrics averaged over
    the blocks.
    """
    current = algorithm.at(progress)
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        current = bridge.adjust(state, current, progress)
    length, steps = algorithm.updates_per_block, steps_of(current, train_policy)
    image = image_shape(learner.nets)
    often, seldom = (tuple(step for step in steps if (step.every == 1) == due) for due in (True, False))

    def sample(carry: Learner, sample_key: Key, drawn: Int[jax.Array, " batch"] | None) -> tuple[Learner, Transition]:
        rows = draw_rows(carry.sampler, sample_key, replay, progress, algorithm, strategy) if drawn is None else drawn
        batch = replay.gather(rows)
        if strategy is not None:
            sampler = strategy.update(carry.sampler, rows, batch, replay, rng.named(sample_key, "sampler"))
            carry = replace(carry, sampler=sampler)
        if algorithm.sequence_length > 1:
            batch = sequence_batch(replay, rows, batch, algorithm.sequence_length, algorithm.chunk_length > 1)
        if image is not None:
            batch = randomly_shifted(batch, image, rng.named(sample_key, "shift"))
        return carry, batch

    def update(
        carry: Learner, given: tuple[Key, Int[jax.Array, " batch"] | None]
    ) -> tuple[Learner, tuple[Transition, Aux]]:
        update_key, drawn = given
        carry, batch = sample(carry, rng.named(update_key, "sample"), drawn)
        carry, aux = take_all(often, current, bridges, carry, batch, update_key, {})
        return carry, (batch, aux)

    def block(carry: Learner, drawn: Int[jax.Array, "length batch"] | None) -> tuple[Learner, Metrics]:
        block_key, keys = update_keys(key, carry.step, length)
        if length == 1:
            carry, (batch, aux) = update(carry, (block_key, None if drawn is None else drawn[0]))
            metrics: Metrics = {}
        else:
            carry, (batches, reports) = jax.lax.scan(update, carry, (keys, drawn))
            metrics = means(reports)
            batch, aux = jax.tree.map(lambda column: column[-1], (batches, reports))
        carry, aux = take_all(seldom, current, bridges, carry, batch, block_key, aux)
        if train_policy:
            carry, aux = update_bridges(current, bridges, carry, batch, block_key, aux)
        return replace(carry, step=carry.step + length), {**means(aux), **metrics}

    learner, metrics = jax.lax.scan(block, learner, rows, length=blocks)
    return learner, {**means(metrics), **norms(learner.nets)}


def update_keys(key: Key, step: Int[Array, ""], length: int) -> tuple[Key, Key]:
    """Of the block after this step of a phase: its own key, and those of its updates."""
    block_key = rng.named(key, "step", step)
    return block_key, block_key[None] if length == 1 else jax.random.split(rng.named(block_key, "update"), length)


def draw_rows(
    sampler: Any,
    sample_key: Key,
    replay: Replay,
    progress: Float[jax.Array, ""],
    algorithm: Algorithm,
    strategy: ReplayStrategy | None,
) -> Int[jax.Array, " batch"]:
    """The rows of one update."""
    rows_key = rng.named(sample_key, "rows")
    if strategy is None:
        return replay.draw_dataset(rows_key, algorithm.batch_size)
    return strategy.rows(sampler, rows_key, algorithm.batch_size, replay, progress)


@partial(jax.jit, static_argnames=("blocks",))
def plan_rows(
    step: Int[Array, ""],
    replay: Replay,
    key: Key,
    progress: Float[jax.Array, ""],
    algorithm: Algorithm,
    strategy: ReplayStrategy | None,
    *,
    blocks: int,
) -> Int[jax.Array, "blocks length batch"]:
    """The rows that `run_updates` would draw in its updates after this step, with a strategy that has no state."""
    length = algorithm.updates_per_block

    def one(block_step: Int[Array, ""]) -> Int[jax.Array, "length batch"]:
        _, keys = update_keys(key, block_step, length)
        return jax.vmap(
            lambda update_key: draw_rows((), rng.named(update_key, "sample"), replay, progress, algorithm, strategy)
        )(keys)

    return jax.vmap(one)(step + length * jnp.arange(blocks))


@dataclasses.dataclass(frozen=True)
class Updates:
    """What a loop asks for: `run_updates` with these arguments, of a learner that has made `step` in this phase."""

    learner: Learner
    replay: Replay
    key: Key
    progress: float
    algorithm: Algorithm
    bridges: Bridges = ()
    strategy: ReplayStrategy | None = None
    _: dataclasses.KW_ONLY
    blocks: int
    train_policy: bool = True
    step: int = 0


def train(asked: Updates) -> tuple[Learner, Metrics]:
    """Run them, also where the dataset lies on disk: what they need of it is read first.

    In the offline phase (without a strategy) the rows of the next dispatch are read while this one runs.
    """
    learner, replay, algorithm, strategy = asked.learner, asked.replay, asked.algorithm, asked.strategy
    given = (asked.key, jnp.asarray(asked.progress, jnp.float32), algorithm)
    run = partial(run_updates, blocks=asked.blocks, train_policy=asked.train_policy)
    if replay.disk is None:
        return run(learner, replay, *given, asked.bridges, strategy)

    def plan(step: Int[Array, ""]) -> np.ndarray:
        return np.asarray(plan_rows(step, replay, *given, strategy, blocks=asked.blocks))

    window, rows = replay.window(plan(learner.step), algorithm.sequence_length)
    ahead = plan(learner.step + asked.blocks * algorithm.updates_per_block) if strategy is None else None
    after = run(learner, window, *given, asked.bridges, strategy, rows=rows)
    if ahead is not None:
        replay.disk.read_ahead(ahead.reshape(-1), algorithm.sequence_length)
    return after


def norms(nets: Nets) -> Metrics:
    """The Euclidean norm of each role's parameters; one that is not finite shows what the losses may still hide."""
    return {f"{role}_norm": optax.tree.norm(net) for role, net in nets.roles().items() if origin(role) is None}
