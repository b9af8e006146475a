"""What every algorithm is: hyper-parameters, networks by role, the steps of an update, and a way of acting.

An update is data: an ordered tuple of steps, which `segue.training.update` executes. A step descends the loss of one
role, or lets a target network follow its role:

    BellmanStep   a critic, towards reward + discount · V(s′), where bridges may change V(s′)
    PolicyStep    a policy, down a loss per sample, which bridges may weigh and add penalties to
    Step          any other role, down a loss
    Follow        a target network: target ← τ·role + (1 − τ)·target

All but the last are an optimiser's. `every` says after how many updates a step is due.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Bool, Float, Int

from segue import chunks, rng
from segue.acting import Acted, Carry
from segue.core import TARGET, Array, Key, Nets, Normaliser, Spaces, Transition
from segue.data.dataset import Dataset
from segue.describe import Panel
from segue.errors import RecipeError, unknown
from segue.hyper import HyperParameters
from segue.networks import MLP, Actor, CategoricalActor, Critic, DiscreteCritic, GaussianActor, NormPlace, distributions

Aux = dict[str, jax.Array]
Activation = Literal["relu", "tanh", "elu", "gelu"]
Schedule = Literal["constant", "linear", "cosine"]
Distribution = Literal["gaussian", "squashed"]
#: The share of a phase that is over, in [0, 1].
Progress = Float[Array, ""]
#: (parameters of the role, all networks, batch, key, what earlier steps reported) → loss, and what is reported.
Loss = Callable[[Any, Nets, Transition, Key, Aux], tuple[Float[jax.Array, ""], Aux]]
#: The same without the reports, per sample: unreduced, so that bridges can weigh it.
PolicyLoss = Callable[[Any, Nets, Transition, Key], tuple[Float[jax.Array, " batch"], Aux]]
#: (critic, all networks, batch, Bellman target, key) → loss, and what is reported.
BellmanLoss = Callable[[Any, Nets, Transition, jax.Array, Key], tuple[Float[jax.Array, ""], Aux]]
#: (all networks, batch, key) → V(s′).
NextValue = Callable[[Nets, Transition, Key], Float[jax.Array, " batch"]]


@dataclasses.dataclass(frozen=True)
class Step:
    """One optimiser step of a role; the other roles are constants of its loss."""

    role: str
    loss: Loss
    optimiser: optax.GradientTransformation
    every: int = 1
    """In updates; 1, or what the algorithm's rarest steps have."""


@dataclasses.dataclass(frozen=True)
class BellmanStep:
    """One optimiser step of a critic."""

    role: str
    next_value: NextValue
    """V(s′) of the target reward + discount · V(s′)."""
    loss: BellmanLoss
    optimiser: optax.GradientTransformation
    every: int = 1
    """In updates."""


@dataclasses.dataclass(frozen=True)
class PolicyStep:
    """One optimiser step of the policy."""

    role: str
    loss: PolicyLoss
    optimiser: optax.GradientTransformation
    every: int = 1
    """In updates (TD3's policy delay)."""


@dataclasses.dataclass(frozen=True)
class Follow:
    """One step of a target network towards the role that it is named after."""

    target: str
    rate: float | jax.Array
    """τ."""
    every: int = 1
    """In updates."""

    @property
    def role(self) -> str:
        """What it follows."""
        return self.target.removeprefix(TARGET)


AnyStep = Step | BellmanStep | PolicyStep | Follow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm(HyperParameters):
    """Hyper-parameters that every algorithm has, and what it does at each point where it is asked."""

    phases: ClassVar[tuple[str, ...]] = ("offline", "online")
    """The phases it makes sense in."""
    actions: ClassVar[tuple[str, ...]] = ("continuous",)
    """The action types it supports."""
    columns: ClassVar[tuple[str, ...]] = ()
    """Optional columns of a transition that it uses; the online loop fills them in when they become known."""
    on_policy: ClassVar[bool] = False
    """Whether it learns from its own fresh rollouts only (segue.training.on_policy), not from a replay."""
    has_density: ClassVar[bool] = True
    """Whether its policy learns a density; False for one that adds fixed noise to an action, or draws without one."""
    needs_costs: ClassVar[bool] = False
    """Whether it learns from the cost of each step: of the dataset, and online of the environment's `info`."""
    updates_per_step: ClassVar[float] = 1.0
    """Critic updates per environment step (UTD ratio) that it is published with."""
    dataset_numbers: ClassVar[tuple[str, ...]] = ("discount", "reward_scale", "reward_shift")
    """The numbers that its dataset is made with: trials that differ in another one can share a program."""
    conservatism: ClassVar[tuple[str, ...]] = ()
    """The weights that hold it near the dataset, which `let-go` makes smaller online."""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Published hyper-parameters by domain or task, where they differ from the defaults."""

    discount: float = 0.99
    """γ, the discount of future rewards."""
    reward_scale: float = 1.0
    """Rewards are learnt as scale · r + shift; evaluations show them as they are."""
    reward_shift: float = 0.0
    """What is added to every reward after scaling (−1 makes a 0/1 success a cost per step)."""
    batch_size: int = 256
    """Transitions per update."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Widths of the hidden layers of every network."""
    activation: Activation = "relu"
    """Non-linearity of the hidden layers."""
    orthogonal_init: bool = False
    """Orthogonal instead of uniform initial weights."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("discount", 0 <= self.discount <= 1, "between 0 and 1")
        self.require("reward_scale", self.reward_scale > 0, "above 0")
        self.require("batch_size", self.batch_size >= 1, "at least 1")
        widths = self.hidden_sizes or (0,)
        self.require("hidden_sizes", min(widths) >= 1 and max(widths) <= 100_000, "positive widths up to 100,000")

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The algorithm with the published hyper-parameters of a domain or task, and with these changes.

        Raises:
            RecipeError: if there is no such preset.
        """
        if name not in cls.presets:
            raise RecipeError(unknown(f"preset of {cls.name}", name, cls.presets))
        return cls(**{**cls.presets[name], **changes})

    @property
    def chunk_length(self) -> int:
        """Actions that it decides on at once: its networks' actions are so many side by side (segue.chunks)."""
        return 1

    @property
    def sequence_length(self) -> int:
        """Steps that a transition it learns from is made of (segue.chunks)."""
        return self.chunk_length

    def steps(self) -> tuple[AnyStep, ...]:
        """The steps of an update, in their order; every role has one at most."""
        raise NotImplementedError

    @property
    def updates_per_block(self) -> int:
        """How many updates there are between two of the rarest steps."""
        return max(step.every for step in self.steps())

    @property
    def policy_step(self) -> PolicyStep | None:
        """The step of the policy; None for an algorithm that acts by its critic alone."""
        return next((step for step in self.steps() if isinstance(step, PolicyStep)), None)

    @property
    def policy_role(self) -> str:
        """The role that the policy's step moves; the critic for an algorithm that acts by it alone."""
        return "critic" if self.policy_step is None else self.policy_step.role

    @property
    def bellman_step(self) -> BellmanStep | None:
        """The step of the critic; None for an algorithm without one."""
        return next((step for step in self.steps() if isinstance(step, BellmanStep)), None)

    def optimisers(self) -> dict[str, optax.GradientTransformation]:
        """The optimiser of each trained role."""
        return {step.role: step.optimiser for step in self.steps() if not isinstance(step, Follow)}

    def panels(self) -> tuple[Panel, ...]:
        """The metrics of the online phase that it wants shown in the report, besides those of every algorithm."""
        return ()

    def caveats(self) -> tuple[str, ...]:
        """Why its critic's estimate and the discounted return are not quite comparable, each a clause."""
        return ()

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase: what follows a schedule has its value of now."""
        return self

    def scheduled(self, role: str, progress: Progress) -> Self:
        """A copy whose step size of this role is decayed; itself if that is constant."""
        schedule, name = getattr(self, f"{role}_schedule"), f"{role}_learning_rate"
        if schedule == "constant":
            return self
        rate = getattr(self, name)
        decay = optax.linear_schedule(rate, 0.0, 1) if schedule == "linear" else optax.cosine_decay_schedule(rate, 1)
        return self.adjusted(**{name: decay(progress)})

    def for_episodes(self, steps: int | None, cost_limit: float | None) -> Self:
        """The algorithm for episodes of so many steps, of which each may cost so much, where it asks for that.

        Each is None where the run does not say.
        """
        return self

    def learning_rewards(self, reward: Float[np.ndarray, "*batch"]) -> Float[np.ndarray, "*batch"]:
        """scale · r + shift."""
        return np.float32(self.reward_scale) * reward + np.float32(self.reward_shift)

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """Fresh networks for these spaces."""
        raise NotImplementedError

    @property
    def uses_rewards(self) -> bool:
        """Whether it learns from the rewards of a dataset; imitation does not."""
        return True

    def select(self, dataset: Dataset) -> Dataset:
        """The part of the dataset that it learns from."""
        return dataset

    def transitions(self, dataset: Dataset, normaliser: Normaliser) -> Transition:
        """The whole dataset as this algorithm learns from it: its discount, its rewards, normalised observations.

        Raises:
            DataError: if it learns from costs, and the dataset has none.
        """
        rewards = self.learning_rewards(dataset.rewards)
        scaled = dataclasses.replace(dataset, rewards=rewards)
        rows = scaled.transitions(self.discount, normaliser, self.sparse_failure_reward)
        if self.needs_costs:
            rows = rows._replace(cost=dataset.require_cost(self.name))
        if dataset.allowed_actions is not None:
            rows = rows._replace(allowed=dataset.allowed_actions, next_allowed=dataset.next_allowed_actions())
        return rows if self.sequence_length == 1 else rows._replace(following=dataset.next_rows())

    @property
    def sparse_failure_reward(self) -> float | None:
        """The reward of every step of a failed episode, where an algorithm treats sparse rewards by themselves."""
        return None

    def action_distribution(
        self, nets: Nets, observation: Float[Array, "*batch observation"], explore: bool
    ) -> distributions.Distribution:
        """What a decision is drawn from for normalised observations, on the host or on the device.

        An algorithm that remembers something within an episode overrides `start` and `act` too.
        """
        raise NotImplementedError

    def start(self, nets: Nets, batch: int) -> Carry:
        """What is carried into the first step of so many episodes (segue.acting): what is left of a chunk, if any."""
        if self.chunk_length == 1:
            return ()
        return chunks.start(batch, self.chunk_length, nets.actor.action_size // self.chunk_length)

    def act(
        self,
        nets: Nets,
        observation: Float[Array, "batch observation"],
        carry: Carry,
        source: rng.Source,
        explore: bool,
    ) -> Acted:
        """One step for normalised observations, on the host or on the device."""
        chosen = self.action_distribution(nets, observation, explore)
        if self.chunk_length > 1:
            return chunks.play(lambda: chosen.sample(source), carry)
        action = chosen.sample(source)
        return Acted(action, lambda: chosen.log_prob(action), carry)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorBased(Algorithm):
    """An algorithm with a policy network."""

    actor_layer_norm: NormPlace = "none"
    """LayerNorm in the actor's hidden layers, before or after the activation."""
    actor_learning_rate: float = 3e-4
    """Adam step size of the actor."""
    actor_schedule: Schedule = "constant"
    """How the actor's step size falls to 0 over the phase."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("actor_learning_rate", self.actor_learning_rate > 0, "above 0")

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase."""
        return super().at(progress).scheduled("actor", progress)

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """A fresh actor."""
        return Nets(actor=self.init_actor(rng.named(key, "actor"), spaces))

    def actor_loss(self, actor: Any, nets: Nets, batch: Transition, key: Key) -> tuple[Float[jax.Array, " batch"], Aux]:
        """Loss of the policy per sample, and what later losses and the metrics need of it."""
        raise NotImplementedError

    def continuous_actor(self) -> Callable[..., Actor | GaussianActor]:
        """What makes a fresh actor of continuous actions."""
        return Actor.init

    def init_actor(self, key: Key, spaces: Spaces) -> Actor | GaussianActor | CategoricalActor:
        """A fresh actor."""
        make: Any = CategoricalActor.init if spaces.discrete else self.continuous_actor()
        return make(
            key,
            spaces.observation_size,
            spaces.action_size,
            self.hidden_sizes,
            activation=self.activation,
            layer_norm=self.actor_layer_norm,
            orthogonal=self.orthogonal_init,
            image=spaces.image,
        )

    def action_distribution(
        self, nets: Nets, observation: Float[Array, "*batch observation"], explore: bool
    ) -> distributions.Distribution:
        """The policy's when exploring; its mode otherwise."""
        if explore:
            return nets.actor.distribution(observation)
        if isinstance(nets.actor, CategoricalActor):
            return distributions.Greedy(nets.actor.mlp(observation))
        return distributions.Deterministic(nets.actor.mode(observation))


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticBased(Algorithm):
    """An algorithm with an ensemble of Q functions and its Polyak target."""

    critic_learning_rate: float = 3e-4
    """Adam step size of the critic."""
    critic_schedule: Schedule = "constant"
    """How the critic's step size falls to 0 over the phase."""
    critic_hidden_sizes: tuple[int, ...] | None = None
    """Widths of the critic's (and V's) hidden layers, if not `hidden_sizes`."""
    ensemble_size: int = 2
    """Number of Q functions."""
    critic_layer_norm: NormPlace = "none"
    """LayerNorm in the critic's hidden layers, before the activation (RLPD, WSRL) or after it (ReBRAC)."""
    polyak: float = 0.005
    """τ of the target networks: target ← τ·online + (1 − τ)·target."""
    n_step: int = 1
    """n of the n-step target: so many rewards before a value is bootstrapped; not corrected for being off-policy."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_learning_rate", self.critic_learning_rate > 0, "above 0")
        self.require(
            "critic_hidden_sizes",
            min(self.critic_hidden_sizes or (0,)) >= 1 or self.critic_hidden_sizes is None,
            "positive widths",
        )
        self.require("ensemble_size", 1 <= self.ensemble_size <= 1000, "between 1 and 1,000")
        self.require("polyak", 0 < self.polyak <= 1, "above 0 and at most 1")
        self.require("n_step", 1 <= self.n_step <= 100, "between 1 and 100")

    @property
    def sequence_length(self) -> int:
        """A chunk is a target of its own length."""
        return max(self.chunk_length, self.n_step)

    def at(self, progress: Progress) -> Self:
        """The algorithm at this point of its phase."""
        return super().at(progress).scheduled("critic", progress)

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """A fresh critic, and its target equal to it."""
        critic = self.init_critic(rng.named(key, "critic"), spaces)
        return Nets(critic=critic, target_critic=copy_arrays(critic))

    def init_critic(self, key: Key, spaces: Spaces) -> Critic | DiscreteCritic:
        """A fresh ensemble."""
        kind: Any = DiscreteCritic if spaces.discrete else Critic
        return kind.init(
            key,
            self.ensemble_size,
            spaces.observation_size,
            spaces.action_size,
            self.hidden_sizes if self.critic_hidden_sizes is None else self.critic_hidden_sizes,
            activation=self.activation,
            layer_norm=self.critic_layer_norm,
            orthogonal=self.orthogonal_init,
            image=spaces.image,
        )

    def init_value(self, key: Key, spaces: Spaces) -> MLP:
        """A fresh state value, built like the critic."""
        return MLP.init(
            key,
            spaces.observation_size,
            self.hidden_sizes if self.critic_hidden_sizes is None else self.critic_hidden_sizes,
            1,
            activation=self.activation,
            layer_norm=self.critic_layer_norm,
            orthogonal=self.orthogonal_init,
            image=spaces.image,
        )

    def bellman_loss(self, error: Float[jax.Array, "members batch"]) -> Float[jax.Array, "members batch"]:
        """What Q minus its target costs: its square."""
        return error**2

    def critic_penalty(
        self, critic: Any, nets: Nets, batch: Transition, q: Float[jax.Array, "members batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """What is added to the squared Bellman errors; `q` is the critic at the batch's own actions."""
        return jnp.zeros(()), {}

    def critic_loss(
        self, critic: Any, nets: Nets, batch: Transition, target: Float[jax.Array, " batch"], key: Key
    ) -> tuple[Float[jax.Array, ""], Aux]:
        """Σ_members mean (Q(s, a) − target)² + penalty."""
        q = critic(batch.observation, batch.action)
        penalty, aux = self.critic_penalty(critic, nets, batch, q, key)
        loss = self.bellman_loss(q - target).mean(1).sum() + penalty
        return loss, {"critic_loss": loss, "q_data": q, **aux}

    def next_value(self, nets: Nets, batch: Transition, key: Key) -> Float[jax.Array, " batch"]:
        """The bootstrap V(s′) of the Bellman target r + discount · V(s′)."""
        raise NotImplementedError

    def critic_step(self) -> BellmanStep:
        """The step of the critic."""
        return BellmanStep("critic", self.next_value, self.critic_loss, optax.adam(self.critic_learning_rate))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ActorCritic(CriticBased, ActorBased):
    """An algorithm with both: each update steps the critic and its target, and every so often the policy."""

    critic_updates_per_actor_update: int = 1
    """Critic updates between two actor updates (TD3's policy delay; RLPD's and REDQ's UTD)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("critic_updates_per_actor_update", self.critic_updates_per_actor_update >= 1, "at least 1")

    def steps(self) -> tuple[AnyStep, ...]:
        """Critic, its target, policy."""
        return self.critic_step(), Follow("target_critic", self.polyak), self.actor_step()

    def actor_step(self) -> PolicyStep:
        """The step of the policy."""
        return PolicyStep(
            "actor", self.actor_loss, optax.adam(self.actor_learning_rate), self.critic_updates_per_actor_update
        )

    def init(self, key: Key, spaces: Spaces) -> Nets:
        """A fresh actor, and a critic with its target equal to it."""
        nets = CriticBased.init(self, key, spaces)
        return nets.replace(actor=ActorBased.init(self, key, spaces).actor)


def copy_arrays(tree: Any) -> Any:
    """The same values in buffers of their own, so that both can be donated."""
    return jax.tree.map(jnp.copy, tree)


def log_prob_of(
    actor: Any, batch: Transition, action: Float[Array, "batch action"] | Int[Array, " batch"]
) -> Float[jax.Array, " batch"]:
    """log π(a|s) at the batch's observations, of discrete actions among the allowed ones."""
    if isinstance(actor, CategoricalActor):
        return jnp.asarray(actor.log_prob(batch.observation, action, batch.allowed))
    return actor.log_prob(batch.observation, action)


def expected_q(
    critic: Any,
    actor: Any,
    observation: Float[Array, "batch observation"],
    key: Key,
    allowed: Bool[Array, "batch actions"] | None = None,
) -> Float[jax.Array, " batch"]:
    """E_{a~π(s)} min_i Q_i(s, a): exact over discrete actions that are allowed, by one draw over continuous ones."""
    if isinstance(actor, CategoricalActor):
        return (actor.probabilities(observation, allowed) * critic.all(observation).min(0)).sum(-1)
    return critic(observation, actor.draw(observation, key)).min(0)
