"""The kinds of policies there are, by what acts, in NumPy: each has a greedy action and one with exploration noise.

They compute what `act` of the algorithms computes (src/segue/algorithms), where neither JAX nor Equinox is installed. A
policy is a dataclass of networks, arrays and numbers; `take_apart` and `put_together` turn any of them into named
tensors and plain data and back. Actions are in [-1, 1], or counted from 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from segue.errors import SegueError
from segue.forward import ACTIVATIONS, layer_norm, log_softmax, squashed_log_std

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Network:
    """A multi-layer perceptron (segue.networks.MLP), or an ensemble with a leading member axis on every array."""

    weights: tuple[Float[np.ndarray, "*members inputs outputs"], ...]
    biases: tuple[Float[np.ndarray, "*members outputs"], ...]
    norms: tuple[tuple[np.ndarray, np.ndarray], ...]
    """Scale and shift of the LayerNorm of each hidden layer; empty without."""
    activation: str
    norm_after: bool = False
    """Whether the norms follow the activation instead of preceding it."""

    def __call__(self, x: Float[np.ndarray, "*batch inputs"]) -> Float[np.ndarray, "*batch outputs"]:
        """Apply to any leading axes."""
        activation, last = ACTIVATIONS[self.activation], len(self.weights) - 1
        out: Any = x
        for i in range(last):
            out = out @ self.weights[i] + self.biases[i]
            if self.norms and not self.norm_after:
                out = layer_norm(out, *self.norms[i])
            out = activation(out)
            if self.norms and self.norm_after:
                out = layer_norm(out, *self.norms[i])
        return out @ self.weights[last] + self.biases[last]

    def member(self, index: int) -> Network:
        """One network of an ensemble."""
        return Network(
            tuple(weight[index] for weight in self.weights),
            tuple(bias[index, 0] for bias in self.biases),
            tuple((scale[index, 0], shift[index, 0]) for scale, shift in self.norms),
            self.activation,
            self.norm_after,
        )

    def members(self, x: Float[np.ndarray, "*batch inputs"]) -> Float[np.ndarray, "members *batch outputs"]:
        """What every member of an ensemble makes of the same input."""
        out = self(x.reshape(-1, x.shape[-1]))
        return out.reshape(len(out), *x.shape[:-1], out.shape[-1])


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """tanh of a Gaussian; what most algorithms with a continuous actor act by."""

    actor: Network
    noise: float | None
    """Standard deviation of the noise on actions while exploring; if None, the policy's own Gaussian is drawn from."""

    def greedy(self, x: Float[np.ndarray, "*batch observation"]) -> Float[np.ndarray, "*batch action"]:
        """tanh of the mean."""
        out = finite(self.actor(x))
        return np.tanh(out[..., : out.shape[-1] // 2])

    def explore(
        self, x: Float[np.ndarray, "*batch observation"], source: np.random.Generator
    ) -> Float[np.ndarray, "*batch action"]:
        """A draw of the policy, or its action with noise."""
        out = finite(self.actor(x))
        size = out.shape[-1] // 2
        mean = out[..., :size]
        normal = source.standard_normal(mean.shape, np.float32)
        if self.noise is None:
            return np.tanh(mean + np.exp(squashed_log_std(out[..., size:])) * normal)
        return (np.tanh(mean) + np.float32(self.noise) * normal).clip(-1, 1)


@dataclasses.dataclass(frozen=True)
class ClippedGaussian:
    """A Gaussian around tanh of the network's output, one σ per dimension, clipped: IQL, AWAC, BC by likelihood."""

    actor: Network
    std: Float[np.ndarray, " action"]

    def greedy(self, x: Float[np.ndarray, "*batch observation"]) -> Float[np.ndarray, "*batch action"]:
        """The mean."""
        return np.tanh(finite(self.actor(x)))

    def explore(
        self, x: Float[np.ndarray, "*batch observation"], source: np.random.Generator
    ) -> Float[np.ndarray, "*batch action"]:
        """A draw of the policy."""
        mean = self.greedy(x)
        return (mean + self.std * source.standard_normal(mean.shape, np.float32)).clip(-1, 1)


@dataclasses.dataclass(frozen=True)
class Categorical:
    """Logits of discrete actions; what every algorithm with a discrete actor acts by."""

    actor: Network

    def greedy(self, x: Float[np.ndarray, "*batch observation"]) -> Int[np.ndarray, "*batch"]:
        """The likeliest action."""
        return best(self.actor(x))

    def explore(
        self, x: Float[np.ndarray, "*batch observation"], source: np.random.Generator
    ) -> Int[np.ndarray, "*batch"]:
        """A draw of the policy, by the Gumbel-max trick."""
        logits = self.actor(x)
        return best(logits + source.gumbel(size=logits.shape).astype(np.float32))


Actor = Gaussian | ClippedGaussian | Categorical


@dataclasses.dataclass(frozen=True)
class Values:
    """The action of the highest value, by the minimum over an ensemble; DQN and discrete CQL."""

    critic: Network
    epsilon: float
    """Share of random actions while exploring."""

    def greedy(self, x: Float[np.ndarray, "*batch observation"]) -> Int[np.ndarray, "*batch"]:
        """argmax_a min_i Q_i(s, a)."""
        return best(self.critic.members(x).min(0))

    def explore(
        self, x: Float[np.ndarray, "*batch observation"], source: np.random.Generator
    ) -> Int[np.ndarray, "*batch"]:
        """Greedy; a uniform action with probability ε."""
        action, count = self.greedy(x), self.critic.weights[-1].shape[-1]
        chance = (1 - self.epsilon) * (action[..., None] == np.arange(count)) + self.epsilon / count
        with np.errstate(divide="ignore"):  # ε = 0
            log_probs = np.log(chance.astype(np.float32))
        return (log_probs + source.gumbel(size=log_probs.shape).astype(np.float32)).argmax(-1)


@dataclasses.dataclass(frozen=True)
class FilteredValues(Values):
    """The highest value among the actions that an imitation of the log finds likely enough; discrete BCQ."""

    behaviour: Network
    """Logits of the imitation."""
    threshold: float
    """Actions less likely than this share of the likeliest one are never chosen."""

    def greedy(self, x: Float[np.ndarray, "*batch observation"]) -> Int[np.ndarray, "*batch"]:
        """argmax of min_i Q_i over the actions with G(a|s) / max_a G(a|s) > τ."""
        log_prob = log_softmax(finite(self.behaviour(x)))
        allowed = log_prob - log_prob.max(-1, keepdims=True) > self.log_threshold
        return np.where(allowed, finite(self.critic.members(x).min(0)), -np.inf).argmax(-1)

    @property
    def log_threshold(self) -> float:
        """log τ."""
        return float(np.log(max(self.threshold, 1e-30)))


@dataclasses.dataclass(frozen=True)
class Proposals:
    """The best by Q among actions that a generative model proposes, each moved a little; continuous BCQ.

    The algorithm draws new latent codes at every step; greedily, this policy decodes the same ones every time.
    """

    decoder: Network
    perturbation: Network
    critic: Network
    """The first member of the ensemble."""
    codes: Float[np.ndarray, "codes latent"]
    """Latent codes of the greedy action."""
    code_clip: float
    """Latent codes are clipped to ± this."""
    perturbation_size: float
    """How far an action may be moved."""

    def greedy(self, x: Float[np.ndarray, "*batch observation"]) -> Float[np.ndarray, "*batch action"]:
        """The best of the actions that the fixed codes stand for."""
        return self._choose(x, self.codes)

    def explore(
        self, x: Float[np.ndarray, "*batch observation"], source: np.random.Generator
    ) -> Float[np.ndarray, "*batch action"]:
        """The best of the actions of new codes, as the algorithm acts; every state of the batch gets the same ones."""
        codes = source.standard_normal((len(self.codes), 1, self.codes.shape[-1]), np.float32)
        return self._choose(x, codes[:, 0].clip(-self.code_clip, self.code_clip))

    def candidates(
        self, x: Float[np.ndarray, "batch observation"], codes: Float[np.ndarray, "codes latent"]
    ) -> tuple[Float[np.ndarray, "codes batch action"], Float[np.ndarray, "codes batch"]]:
        """The action that each code stands for in each state, and its value."""
        states = np.broadcast_to(x, (len(codes), *x.shape))
        latent = np.broadcast_to(codes[:, None], (*states.shape[:-1], codes.shape[-1]))
        action = np.tanh(self.decoder(np.concatenate([states, latent], axis=-1)))
        shift = np.tanh(self.perturbation(np.concatenate([states, action], axis=-1)))
        action = (action + np.float32(self.perturbation_size) * shift).clip(-1, 1)
        pairs = np.concatenate([states, action], axis=-1)
        return action, finite(self.critic(pairs.reshape(-1, pairs.shape[-1]))).reshape(pairs.shape[:-1])

    def _choose(
        self, x: Float[np.ndarray, "*batch observation"], codes: Float[np.ndarray, "codes latent"]
    ) -> Float[np.ndarray, "*batch action"]:
        action, values = self.candidates(x.reshape(-1, x.shape[-1]), codes)
        chosen = np.take_along_axis(action, values.argmax(0)[None, :, None], axis=0)[0]
        return chosen.reshape(*x.shape[:-1], action.shape[-1])


@dataclasses.dataclass(frozen=True)
class Expansion:
    """The online policy's action or the frozen offline one's, whichever is better by Q; the bridge policy-expansion.

    While exploring, and now and then when not, the bridge draws from a softmax over the two; greedily, this policy
    takes the better.
    """

    online: Actor
    offline: Actor
    critic: Network
    inverse_temperature: float
    """β of softmax(β · Q)."""

    def greedy(self, x: Float[np.ndarray, "*batch observation"]) -> np.ndarray:
        """The better of the two."""
        online, offline = self.online.greedy(x), self.offline.greedy(x)
        return _where(self._advantage(x, online, offline) >= 0, online, offline)

    def explore(self, x: Float[np.ndarray, "*batch observation"], source: np.random.Generator) -> np.ndarray:
        """The online policy's action with its noise, or the offline policy's, by softmax(β · Q)."""
        online, offline = self.online.explore(x, source), self.offline.greedy(x)
        advantage = self._advantage(x, online, offline)
        probability = 1 / (1 + np.exp(-np.clip(self.inverse_temperature * advantage, -50, 50)))
        return _where(source.random(advantage.shape, np.float32) < probability, online, offline)

    def _advantage(self, x: np.ndarray, online: np.ndarray, offline: np.ndarray) -> Float[np.ndarray, "*batch"]:
        if not isinstance(self.online, Categorical):
            both = [self.critic.members(np.concatenate([x, action], axis=-1))[..., 0] for action in (online, offline)]
        else:
            every = self.critic.members(x)
            both = [
                np.take_along_axis(every, np.broadcast_to(action, every.shape[:-1])[..., None], axis=-1)[..., 0]
                for action in (online, offline)
            ]
        return finite(both[0].min(0) - both[1].min(0))


Kind = Actor | Values | FilteredValues | Proposals | Expansion
#: What policy.json calls them.
KINDS: dict[str, type[Kind]] = {
    "gaussian": Gaussian,
    "clipped-gaussian": ClippedGaussian,
    "categorical": Categorical,
    "values": Values,
    "filtered-values": FilteredValues,
    "proposals": Proposals,
    "expansion": Expansion,
}
_NAMES = {cls: name for name, cls in KINDS.items()}


def best(values: Float[np.ndarray, "*batch actions"]) -> Int[np.ndarray, "*batch"]:
    """The action of the largest number."""
    return finite(values).argmax(-1)


def finite(values: np.ndarray) -> np.ndarray:
    """These numbers, if a policy can act by them; the argmax of NaN would be an action like any other.

    Raises:
        SegueError: for NaN and infinity.
    """
    if not np.isfinite(values).all():
        raise SegueError(
            "the observation takes the policy's networks out of the range of float32 (they give NaN or infinity), so "
            "there is no action; look at the sensor or the units: nothing like it was in training"
        )
    return values


def _where(first: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where(first if a.ndim == first.ndim else first[..., None], a, b)


def take_apart(policy: Kind, prefix: str = "") -> tuple[dict[str, Any], Tensors]:
    """The policy as plain data for JSON, and its arrays by name."""
    plain: dict[str, Any] = {"kind": _NAMES[type(policy)]}
    tensors: Tensors = {}
    for field in dataclasses.fields(policy):
        value, name = getattr(policy, field.name), prefix + field.name
        if isinstance(value, Network):
            plain[field.name] = {
                "hidden_sizes": [weight.shape[-1] for weight in value.weights[:-1]],
                "activation": value.activation,
                "layer_norm": ("after" if value.norm_after else "before") if value.norms else "none",
                "ensemble": value.weights[0].ndim == 3,
            }
            for layer, (weight, bias) in enumerate(zip(value.weights, value.biases, strict=True)):
                tensors |= {f"{name}.{layer}.weight": weight, f"{name}.{layer}.bias": bias}
            for layer, (scale, shift) in enumerate(value.norms):
                tensors |= {f"{name}.{layer}.scale": scale, f"{name}.{layer}.shift": shift}
        elif isinstance(value, np.ndarray):
            tensors[name] = value
        elif isinstance(value, Actor):
            plain[field.name], inner = take_apart(value, f"{name}.")
            tensors |= inner
        else:
            plain[field.name] = value
    return plain, tensors


def put_together(plain: Mapping[str, Any], tensors: Tensors, prefix: str = "") -> Kind:
    """The policy that `take_apart` gave; what it uses is taken out of `tensors`.

    Raises:
        KeyError, TypeError, ValueError: if something is missing, or not what it should be.
    """
    cls = KINDS[plain["kind"]]
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        name = prefix + field.name
        match field.type:
            case "Network":
                values[field.name] = _network(plain[field.name], tensors, name)
            case "Actor":
                values[field.name] = put_together(plain[field.name], tensors, f"{name}.")
            case "float" | "float | None":
                values[field.name] = _number(plain[field.name], name, optional=field.type != "float")
            case _:
                values[field.name] = tensors.pop(name)
    return cls(**values)


def _network(plain: Mapping[str, Any], tensors: Tensors, name: str) -> Network:
    hidden, activation = plain["hidden_sizes"], plain["activation"]
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name} has the activation {activation!r}; expected one of {', '.join(ACTIVATIONS)}")

    place = plain["layer_norm"]
    if place not in ("none", "before", "after"):
        raise ValueError(f"{name} has LayerNorm at {place!r}; expected none, before or after")

    def take(key: str, layer: int) -> np.ndarray:
        return tensors.pop(f"{name}.{layer}.{key}")

    network = Network(
        weights=tuple(take("weight", layer) for layer in range(len(hidden) + 1)),
        biases=tuple(take("bias", layer) for layer in range(len(hidden) + 1)),
        norms=tuple(
            (take("scale", layer), take("shift", layer)) for layer in range(len(hidden) if place != "none" else 0)
        ),
        activation=activation,
        norm_after=place == "after",
    )
    axes = 3 if plain["ensemble"] else 2
    if [weight.shape[-1] for weight in network.weights[:-1]] != hidden or {w.ndim for w in network.weights} != {axes}:
        raise ValueError(f"{name} has weights of shapes {[w.shape for w in network.weights]}; expected widths {hidden}")
    return network


def _number(value: Any, name: str, optional: bool) -> float | None:
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise TypeError(f"{name} is {value!r}; expected a finite number")
    return float(value)
