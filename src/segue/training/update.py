"""The one update that serves every algorithm and every set of bridges.

    target  = reward + discount · bridges.bootstrap(next_value)
    critic  : Σ_members mean (Q − target)² + critic_penalty              (n times, each on a batch of its own)
    actor   : Σ w·ℓ / Σ w + Σ bridge penalties,  w = Π bridge.actor_weight   (once, on the last batch)
    then temperature, Polyak targets, the bridges' own states

Many updates run in one dispatch: batches are sampled on the device inside a `lax.scan`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Float, Int

from segue import random
from segue.algorithms.base import Algorithm, Aux
from segue.bridges.base import Bridge, weighted_mean
from segue.replay.base import Replay, ReplayStrategy
from segue.types import COPIES, TARGETS, Key, Learner, Metrics, Nets, Spaces, Transition

Bridges = tuple[Bridge, ...]


def init_learner(algorithm: Algorithm, nets: Nets, normaliser: Any) -> Learner:
    """A learner with fresh optimiser states and no bridges."""
    roles = nets.roles()
    states = {role: optimiser.init(roles[role]) for role, optimiser in algorithm.optimisers().items()}
    return Learner(nets, states, (), jnp.zeros((), jnp.int32), jax.tree.map(jnp.asarray, normaliser))


def bootstrapped(
    algorithm: Algorithm, bridges: Bridges, learner: Learner, batch: Transition, key: Key
) -> tuple[Float[jax.Array, " batch"], Aux]:
    """V(s′) as the bridges leave it, and what they report."""
    value_key = random.named(key, "next_value")
    value = algorithm.next_value(learner.nets, batch, value_key)
    reported: Aux = {}
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        bridge_key = random.named(key, "bootstrap", bridge.name)
        value, aux = bridge.bootstrap(state, algorithm, learner.nets, batch, value, value_key, bridge_key)
        reported |= aux
    return value, reported


def bellman_target(
    algorithm: Algorithm, bridges: Bridges, learner: Learner, batch: Transition, key: Key
) -> Float[jax.Array, " batch"]:
    """reward + discount · V(s′), where the bridges may have changed V; detached."""
    value, _ = bootstrapped(algorithm, bridges, learner, batch, key)
    return jax.lax.stop_gradient(jnp.asarray(batch.reward) + batch.discount * value)


def critic_update(
    algorithm: Algorithm, bridges: Bridges, learner: Learner, batch: Transition, key: Key
) -> tuple[Learner, Metrics]:
    """One step of the behaviour model and of the value function where there is one, then of the critic (and of its
    Lagrange multiplier), and of the critic's target unless that waits for the actor.
    """
    early_aux: Aux = {}
    if "behaviour" in learner.optimisers:
        given = learner.nets
        behaviour_key = random.named(key, "behaviour")
        learner, early_aux = descend(
            algorithm,
            learner,
            "behaviour",
            lambda behaviour: algorithm.behaviour_loss(behaviour, given, batch, behaviour_key),
        )
    if "value" in learner.optimisers:
        before = learner.nets
        value_key = random.named(key, "value")
        learner, aux_of_value = descend(
            algorithm, learner, "value", lambda value: algorithm.value_loss(value, before, batch, value_key)
        )
        early_aux |= aux_of_value
    nets = learner.nets
    value, seam_aux = bootstrapped(algorithm, bridges, learner, batch, random.named(key, "target"))
    target = jax.lax.stop_gradient(jnp.asarray(batch.reward) + batch.discount * value)
    penalty_key = random.named(key, "penalty")

    def loss(critic: Any) -> tuple[jax.Array, Aux]:
        q = critic(batch.observation, batch.action)
        penalty, aux = algorithm.critic_penalty(critic, nets, batch, q, penalty_key)
        bellman_error = algorithm.bellman_loss(q - target).mean(1).sum()
        return bellman_error + penalty, {"critic_loss": bellman_error + penalty, "q_data": q, **aux}

    learner, aux = descend(algorithm, learner, "critic", loss)
    if "multiplier" in learner.optimisers:
        learner, multiplier_aux = descend(
            algorithm,
            learner,
            "multiplier",
            lambda log_multiplier: (
                algorithm.multiplier_loss(log_multiplier, aux),
                {"multiplier": jnp.exp(log_multiplier)},
            ),
        )
        aux |= multiplier_aux
    if not algorithm.polyak_with_actor:
        learner = polyak(algorithm, learner, ("target_critic",))
    return learner, means({**early_aux, **seam_aux, **aux, "target_q": target})


def actor_update(
    algorithm: Algorithm, bridges: Bridges, learner: Learner, batch: Transition, key: Key, action_size: int
) -> tuple[Learner, Metrics]:
    """One step of the policy, then the temperature, the targets that follow it and the bridges' own states."""
    nets = learner.nets
    weight: jax.Array | None = None
    weight_aux: Aux = {}
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        factor, aux = bridge.actor_weight(state, nets, batch, random.named(key, "actor_weight", bridge.name))
        weight_aux |= aux
        if factor is not None:
            weight = factor if weight is None else weight * factor
    weight = jax.lax.stop_gradient(weight)

    def loss(actor: Any) -> tuple[jax.Array, Aux]:
        per_sample, aux = algorithm.actor_loss(actor, nets, batch, random.named(key, "actor_loss"))
        total = per_sample.mean() if weight is None else weighted_mean(per_sample, weight)
        size = jax.lax.stop_gradient(per_sample)
        for bridge, state in zip(bridges, learner.bridges, strict=True):
            bridge_key = random.named(key, "actor_penalty", bridge.name)
            penalty, penalty_aux = bridge.actor_penalty(state, actor, nets, batch, size, bridge_key)
            aux = {**aux, **penalty_aux}
            total = total if penalty is None else total + penalty
        return total, {"actor_loss": total, **aux}

    reported: Aux = {}
    if algorithm.policy is not None:
        learner, reported = descend(algorithm, learner, algorithm.policy, loss)
    aux = {**reported, **weight_aux}
    if "temperature" in learner.optimisers:
        learner, temperature_aux = descend(
            algorithm,
            learner,
            "temperature",
            lambda log_temperature: (
                algorithm.temperature_loss(log_temperature, aux, action_size),
                {"temperature": jnp.exp(log_temperature)},
            ),
        )
        aux |= temperature_aux
    learner = polyak(
        algorithm,
        learner,
        [t for t in TARGETS if algorithm.polyak_with_actor or t != "target_critic"],
    )
    states = []
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        bridge_key = random.named(key, "update", bridge.name)
        state, bridge_aux = bridge.update(state, algorithm, learner.nets, batch, aux, bridge_key)
        states.append(state)
        aux |= bridge_aux
    return replace(learner, bridges=tuple(states)), means(aux)


def descend(
    algorithm: Algorithm, learner: Learner, role: str, loss: Callable[[Any], tuple[jax.Array, Aux]]
) -> tuple[Learner, Aux]:
    """One optimiser step of one role; every other role is a constant of the loss."""
    parameters = getattr(learner.nets, role)
    gradient, aux = jax.grad(loss, has_aux=True)(parameters)
    step, state = algorithm.optimisers()[role].update(gradient, learner.optimisers[role], parameters)
    nets = learner.nets.replace(**{role: optax.apply_updates(parameters, step)})
    return replace(learner, nets=nets, optimisers={**learner.optimisers, role: state}), aux


def polyak(algorithm: Algorithm, learner: Learner, targets: Sequence[str]) -> Learner:
    """target ← τ·online + (1 − τ)·target, for those of these roles that are present."""
    roles = learner.nets.roles()
    moved = {
        target: optax.incremental_update(roles[target.removeprefix("target_")], roles[target], algorithm.polyak)  # type: ignore[attr-defined]
        for target in targets
        if target in roles
    }
    return replace(learner, nets=learner.nets.replace(**moved)) if moved else learner


def means(aux: Aux) -> Metrics:
    """One number per quantity."""
    return {name: jnp.mean(value) for name, value in aux.items()}


def replace(learner: Learner, **fields: Any) -> Learner:
    """A copy of the learner with these fields exchanged."""
    return Learner(**{name: fields.get(name, getattr(learner, name)) for name in Learner.__dataclass_fields__})


@partial(
    jax.jit,
    static_argnames=("algorithm", "bridges", "strategy", "spaces", "blocks", "train_actor", "mesh"),
    donate_argnames=("learner",),
)
def run_updates(
    learner: Learner,
    replay: Replay,
    key: Key,
    progress: Float[jax.Array, ""],
    *,
    algorithm: Algorithm,
    bridges: Bridges,
    strategy: ReplayStrategy | None,
    spaces: Spaces,
    blocks: int,
    train_actor: bool = True,
    mesh: Mesh | None = None,
) -> tuple[Learner, Metrics]:
    """`blocks` × (n critic updates, one actor update) in one dispatch; the given learner's buffers are reused.

    `progress` is the share of the phase that is over, for replay strategies and schedules. `key` is the phase's; each
    block folds in the learner's step, so results do not depend on how many blocks share a dispatch. `strategy` None
    samples the log uniformly. With a `mesh` each of its devices works on an equal part of every batch. Returns metrics
    averaged over the blocks.
    """

    def gather(rows: Int[jax.Array, " batch"]) -> Transition:
        batch = replay.gather(rows)
        # The partitioner does the rest: losses are means over the batch, so their gradients are summed over the mesh.
        return (
            batch if mesh is None else jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, P(*mesh.axis_names)))
        )

    def sample(carry: Learner, sample_key: Key) -> tuple[Learner, Transition]:
        rows_key = random.named(sample_key, "rows")
        if strategy is None:
            return carry, gather(jax.random.randint(rows_key, (algorithm.batch_size,), 0, replay.offline_size))
        rows = strategy.rows(carry.sampler, rows_key, algorithm.batch_size, replay, progress)
        batch = gather(rows)
        sampler = strategy.update(carry.sampler, rows, batch, replay, random.named(sample_key, "sampler"))
        return replace(carry, sampler=sampler), batch

    def critic_step(carry: Learner, step_key: Key) -> tuple[Learner, tuple[Transition, Metrics]]:
        carry, batch = sample(carry, random.named(step_key, "sample"))
        carry, metrics = critic_update(current, bridges, carry, batch, random.named(step_key, "critic"))
        return carry, (batch, metrics)

    current = algorithm.at(progress)
    for bridge, state in zip(bridges, learner.bridges, strict=True):
        current = bridge.adjust(state, current, progress)

    def block(carry: Learner, _: None) -> tuple[Learner, Metrics]:
        block_key = random.named(key, "step", carry.step)
        if algorithm.critic_updates:
            keys = jax.random.split(random.named(block_key, "critic"), algorithm.critic_updates)
            carry, (batches, metrics) = jax.lax.scan(critic_step, carry, keys)
            batch = jax.tree.map(lambda column: column[-1], batches)
            metrics = means(metrics)
        else:
            (carry, batch), metrics = sample(carry, random.named(block_key, "sample")), {}
        if train_actor:
            actor_key = random.named(block_key, "actor")
            carry, actor_metrics = actor_update(current, bridges, carry, batch, actor_key, spaces.action_size)
            metrics |= actor_metrics
        else:
            carry = polyak(algorithm, carry, ("target_critic",)) if algorithm.polyak_with_actor else carry
        return replace(carry, step=carry.step + max(algorithm.critic_updates, 1)), metrics

    learner, metrics = jax.lax.scan(block, learner, None, length=blocks)
    return learner, {**means(metrics), **norms(learner.nets)}


def norms(nets: Nets) -> Metrics:
    """The Euclidean norm of each role's parameters; one that is not finite shows what the losses may still hide."""
    return {f"{role}_norm": optax.tree.norm(net) for role, net in nets.roles().items() if role not in COPIES}
