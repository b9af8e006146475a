"""One learner and batch, what segue's own update makes of them, and how a peer is given the same numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from helpers import (
    SPACES,
    actor_update,
    bellman_target,
    critic_update,
    policy_role,
    small,
    transitions,
)
from segue.algorithms import TD3, Algorithm
from segue.core import Nets, Normaliser, Spaces, Transition
from segue.rng import named
from segue.training.update import init_learner

torch = pytest.importorskip("torch", reason="the peers are not installed (make peers)")

DISCRETE = Spaces(observation_size=3, action_size=4, discrete=True)
GAMMA = 0.99
HIDDEN = [8, 8]
MEMBERS = 3


@dataclasses.dataclass(frozen=True)
class Side:
    """Segue's side: every loss and gradient at the same weights, whichever order the shared update steps roles in."""

    algorithm: Algorithm
    nets: Nets
    batch: Transition
    next_key: jax.Array
    penalty_key: jax.Array
    behaviour_key: jax.Array
    actor_key: jax.Array
    target: jax.Array
    metrics: dict[str, jax.Array]
    gradients: dict[str, Any]
    moved: Nets
    """The nets after the update: only the Polyak targets differ."""


def measure(name: str, spaces: Spaces = SPACES, **options: Any) -> Side:
    """Segue's side for a small algorithm with random weights, on the keys that the shared update hands out."""
    algorithm, key = frozen(small(name, **options)), jax.random.key(7)
    rng = np.random.default_rng(3)
    nets = jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(leaf, np.float64) + 0.3 * rng.normal(size=leaf.shape)),
        algorithm.init(jax.random.key(3), spaces),
    )
    learner = init_learner(algorithm, nets, Normaliser.identity(spaces.observation_size))
    batch = jax.tree.map(lambda column: jnp.asarray(column, jnp.float64), transitions(seed=5))
    known = jnp.nan_to_num(batch.next_action, nan=0.3)  # d3rlpy does not mark an unknown next action
    batch = batch._replace(discount=GAMMA * (batch.discount > 0), next_action=known)
    if spaces.discrete:
        batch = batch._replace(action=jnp.asarray(rng.integers(spaces.action_size, size=len(batch.reward))))
    target_key, penalty_key = named(key, "critic", "target"), named(key, "critic", "loss")
    after_actor, metrics = actor_update(algorithm, (), learner, batch, key)
    after_critic, critic_metrics = critic_update(algorithm, (), learner, batch, key)
    return Side(
        algorithm,
        nets,
        batch,
        named(target_key, "next_value"),
        penalty_key,
        named(key, "behaviour", "loss"),
        named(key, policy_role(algorithm) or "none", "loss"),
        bellman_target(algorithm, (), learner, batch, target_key),
        {**critic_metrics, **metrics},
        jax.tree.map(jnp.add, after_critic.optimisers, after_actor.optimisers),
        (after_actor if isinstance(algorithm, TD3) else after_critic).nets,
    )


def frozen(algorithm: Algorithm) -> Algorithm:
    """The same algorithm, whose optimisers move nothing and keep the gradient as their state."""
    still = optax.GradientTransformation(
        lambda weights: jax.tree.map(jnp.zeros_like, weights),
        lambda gradient, _, weights: (jax.tree.map(jnp.zeros_like, weights), gradient),
    )
    cls = type(algorithm)
    optimisers = {"optimisers": lambda self: dict.fromkeys(cls.optimisers(self), still)}
    fields = {field.name: getattr(algorithm, field.name) for field in dataclasses.fields(algorithm)}
    return type(f"Frozen{cls.__name__}", (cls,), optimisers)(**fields)


def layers(mlp: Any) -> list[np.ndarray]:
    """Weight and bias of every layer as PyTorch lays them out; of the gradient likewise."""
    return [x for layer in mlp.layers for x in (np.asarray(layer.weight).T, np.asarray(layer.bias).reshape(-1))]


def members(critic: Any) -> list[np.ndarray]:
    """The layers of every member, one member after the other."""
    size = len(critic.members.layers[0].weight)
    return [x for i in range(size) for x in layers(jax.tree.map(lambda leaf, i=i: leaf[i], critic.members))]


def gaussian(mlp: Any) -> list[np.ndarray]:
    """The layers of a network whose head is parted in mean and log σ."""
    *hidden, weight, bias = layers(mlp)
    half = len(bias) // 2
    return [*hidden, weight[:half], bias[:half], weight[half:], bias[half:]]


def deterministic(mlp: Any) -> list[np.ndarray]:
    """The layers of a policy of which only the mean is used."""
    return gaussian(mlp)[:-2]


def give(module: torch.nn.Module, arrays: list[np.ndarray]) -> None:
    """Overwrite every parameter of the peer's network, in double precision."""
    for parameter, array in zip(module.double().parameters(), arrays, strict=True):
        assert parameter.shape == array.shape
        parameter.data = torch.tensor(array)


def gradients(module: torch.nn.Module) -> list[torch.Tensor]:
    """What the peer's last backward pass left on its network."""
    return [parameter.grad for parameter in module.parameters()]


def tensor(array: Any) -> torch.Tensor:
    """A column of the batch as peers have it: two axes."""
    array = np.array(array)
    return torch.tensor(array if array.ndim == 2 else array[:, None])


class SquashedLinear(torch.nn.Linear):
    """Segue's log σ, smooth in [−5, 2], for peers that clamp a linear head to [−20, 2]: their clamp is then idle."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -5 + 3.5 * (torch.tanh(super().forward(x)) + 1)


def feed(monkeypatch: pytest.MonkeyPatch, *draws: Any) -> list[torch.Tensor]:
    """Give the peer these numbers, in this order, wherever it would draw its own; returns those not yet used."""
    queue = [torch.tensor(np.array(draw)) for draw in draws]

    def draw(shape: Any) -> torch.Tensor:
        assert queue[0].shape == tuple(shape)
        return queue.pop(0)

    monkeypatch.setattr(torch.distributions.normal, "_standard_normal", lambda shape, **_: draw(shape))
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: draw(shape[0] if len(shape) == 1 else shape))
    monkeypatch.setattr(torch.Tensor, "normal_", lambda x, mean, std: mean + std * draw(x.shape))
    monkeypatch.setattr(torch.Tensor, "uniform_", lambda x, low, high: draw(x.shape))
    return queue


def rows_first(draws: Any) -> np.ndarray:
    """Segue's draws [draws, batch, …] as one column of rows, all of a state's draws together."""
    return np.moveaxis(np.asarray(draws), 0, 1).reshape(-1, draws.shape[-1])
