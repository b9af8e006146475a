"""The recipe: a whole experiment as one value. It can be written to JSON and repeated exactly."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import equinox as eqx
import gymnasium as gym
import jax
from gymnasium.envs.registration import EnvSpec

from segue.algorithms import ALGORITHMS, PPO, Algorithm
from segue.bridges import BRIDGES, Bridge
from segue.core import Nets, Spaces, same_shape
from segue.data import FORMATS, Mixture, Source, uri_of
from segue.data.dataset import Dataset
from segue.data.mixture import has_weights
from segue.envs.spec import NO_ENVIRONMENT, Environment, json_values
from segue.errors import Checked, RecipeError, unknown
from segue.networks.recast import compatible
from segue.plugins import import_module, module_of
from segue.replay import REPLAYS, Mixed, OnlineOnly, ReplayStrategy
from segue.training.online import least_lag

Part = TypeVar("Part")
#: The fields of a recipe that hold parts: what they are called, and those that have a name.
PARTS: Mapping[str, tuple[str, Mapping[str, type]]] = {
    "offline": ("algorithm", ALGORITHMS),
    "online": ("algorithm", ALGORITHMS),
    "replay": ("replay", REPLAYS),
    "bridges": ("bridge", BRIDGES),
}
#: Under which a file names the module of a part that is not Segue's own.
MODULE = "module"
#: Seconds between saves of a running recipe: what a crash costs at most. Results do not depend on it.
CHECKPOINT_EVERY = 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(Checked):
    """What is pretrained on which log, how it is handed over, and how it goes on live.

    Without an offline algorithm the online one starts from scratch; without an online one the run ends at the handover.
    Algorithms, bridges and the replay strategy may be given by name, with their default hyper-parameters.
    """

    dataset: Source | None = None
    """The dataset: segue:NAME, minari:ID, lerobot:FOLDER, mapped:FOLDER, live:LOG, or d4rl:, npz:, csv:, parquet: or
    ndjson: and a file. Several are a mixture. In Python also a Table, a DataFrame, a dict of arrays, a Dataset, a
    Mixture or a list of them."""
    clip_actions: bool = False
    """Clip logged actions that lie outside the action bounds, instead of refusing the dataset."""
    held_out: float = 0.1
    """Share of the dataset's episodes that nothing in the run learns from, so that they can judge its policies."""
    held_out_seed: int = 0
    """Seed of the choice of these episodes: every seed and arm of a run holds out the same ones."""
    env: str | EnvSpec | Callable[..., gym.Env] | None = None
    """The live environment: a Gymnasium id, module:Id, module:Class or module:function (in Python also an EnvSpec, a
    class, or a function that makes one); by default the one that the dataset names; none: only pretrain."""
    env_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of the environment's constructor, as JSON."""
    env_wrappers: tuple[Mapping[str, Any], ...] = ()
    """Wrappers around the environment, as in a Gymnasium EnvSpec (name, entry_point, kwargs), as JSON; by default the
    ones that the dataset names."""
    max_episode_steps: int | None = None
    """Time limit of an episode in steps; by default the environment's own."""
    offline: Algorithm | None = None
    """What learns from the dataset."""
    offline_steps: int = 0
    """Critic updates on the dataset (policy updates for an algorithm without a critic); with patience the most."""
    patience: int = 0
    """Evaluations without improvement on the episodes held out after which pretraining ends; 0: it makes all updates.
    An improvement is a higher rank correlation of Q with returns-to-go, or without a critic a lower loss of the policy,
    by more than its noise."""
    online: Algorithm | None = None
    """What learns from live interaction."""
    online_steps: int = 0
    """Environment steps of the online phase."""
    bridges: tuple[Bridge, ...] = ()
    """What acts at the handover and after it."""
    replay: ReplayStrategy | None = None
    """What the online phase samples; by default half dataset, half live with a dataset, live only without."""
    hindsight: int = 0
    """Goal-conditioned environments: copies of each live transition whose goal is one that its episode reached later
    (HER, `future`); the paper has 4; 0: none."""
    dataset_hindsight: int = 0
    """The same for the dataset's transitions, whose goals are ones that their logged episode reached later; 0: none."""
    normalise_observations: bool = True
    """Normalise observations by the dataset's mean and standard deviation, also online and in the saved policy."""
    distil_steps: int = 5000
    """Updates that teach a fresh actor what the pretrained policy does, where that has no actor to carry over."""
    warmup_steps: int = 1000
    """Environment steps before online updates start: with the pretrained policy, or at random from scratch."""
    updates_per_step: float | None = None
    """Critic updates per environment step (UTD ratio); by default what the online algorithm is published with: 20 for
    REDQ and RLPD, 1 for the others."""
    environments: int = 1
    """Environments stepped together."""
    environment_processes: Literal["auto", "yes", "no", "ray"] = "auto"
    """Whether they step in processes of their own; auto: if a step takes a millisecond or more; ray: on the nodes of
    a Ray cluster. Results are the same."""
    max_lag: int = 0
    """Environments do not wait for each other, and learning does not wait for the slowest. A step may arrive at most so
    many live steps after the data that the learner had learnt from; a run does not repeat to the bit, nor resume so.
    0: all wait for all."""
    eval_every: int | None = None
    """Environment steps (offline: updates) between evaluations; by default a twentieth of the online phase
    (offline: a fifth, with patience a twentieth)."""
    handover_eval_every: int | None = None
    """Environment steps between evaluations in the first 10,000 online steps, to see the dip; by default as later."""
    eval_episodes: int = 10
    """Episodes per evaluation, without exploration noise."""
    step_timeout: float = 60.0
    """Seconds after which a step of the environment counts as hanging: its episode is quarantined."""
    bad_steps: float = 0.01
    """Share of steps in which the environment may misbehave (raise, hang, give NaN…) before the run stops."""
    reference: tuple[float, ...] | None = None
    """Returns that count as 0 and as 100 in normalised scores; by default the published ones of the environment."""
    cost: str | None = None
    """Key of the environment's `info` that holds the cost of a step, such as cost or crashed: evaluations record its
    sum per episode beside the return, the guard watches it, and sac-lagrangian and cql-lagrangian learn from it."""
    cost_limit: float | None = None
    """Largest mean cost of an episode: reports compare with it, and it is the limit of sac-lagrangian, cql-lagrangian
    and the bridge promotion, unless those have one of their own."""
    seed: int = 0
    """The first seed."""
    seeds: int = 1
    """How many seeds to run: seed, seed + 1, …"""
    keep_policies: bool = False
    """Keep a checkpoint of the policy at every online evaluation."""

    @classmethod
    def named(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values, with parts in place of their names, and the name of an environment in place of what makes it.

        Raises:
            RecipeError: for an unknown name.
        """

        def part(field: str, value: Any) -> Any:
            if isinstance(value, list | tuple):
                return [part(field, one) for one in value]
            kind, known = PARTS[field]
            return decode(kind, value, known) if isinstance(value, str) else value

        found = {field: part(field, value) if field in PARTS else value for field, value in values.items()}
        if isinstance(found.get("bridges"), Bridge):
            found["bridges"] = [found["bridges"]]
        if isinstance(found.get("dataset"), os.PathLike):
            found["dataset"] = os.fspath(found["dataset"])
        env = found.get("env")
        if env is not None and not isinstance(env, str):
            given = Environment.of(env)
            found["env"] = given.name
            found["env_kwargs"] = {**given.kwargs, **found.get("env_kwargs", {})}
            found["env_wrappers"] = (*given.wrappers, *found.get("env_wrappers", ()))
            found["max_episode_steps"] = found.get("max_episode_steps") or given.max_episode_steps
        if isinstance(found.get("env_kwargs"), Mapping):
            found["env_kwargs"] = json_values(found["env_kwargs"], "env_kwargs")
        return found

    def __post_init__(self) -> None:
        def expect(field: str, holds: bool, expected: str) -> None:
            if not holds:
                raise RecipeError(f"{field} is {getattr(self, field)!r}; expected {expected}")

        for field in (
            "offline_steps",
            "patience",
            "online_steps",
            "distil_steps",
            "warmup_steps",
            "max_lag",
            "hindsight",
            "dataset_hindsight",
            "seed",
            "held_out_seed",
        ):
            expect(field, getattr(self, field) >= 0, "at least 0")
        for field in ("environments", "eval_episodes", "seeds"):
            expect(field, getattr(self, field) >= 1, "at least 1")
        expect("max_episode_steps", self.max_episode_steps is None or self.max_episode_steps >= 1, "at least 1")
        expect("env", self.env != "", f"an environment, or {NO_ENVIRONMENT}")
        low_high = self.reference
        expect(
            "reference",
            low_high is None or (len(low_high) == 2 and low_high[0] < low_high[1]),
            "two returns, the lower one first",
        )
        expect("held_out", 0 <= self.held_out < 1, "at least 0 and below 1")
        expect("step_timeout", self.step_timeout > 0, "above 0")
        expect("bad_steps", 0 <= self.bad_steps <= 1, "between 0 and 1")
        expect("updates_per_step", self.updates_per_step is None or self.updates_per_step > 0, "above 0")
        expect("eval_every", self.eval_every is None or self.eval_every >= 1, "at least 1")
        expect("handover_eval_every", self.handover_eval_every is None or self.handover_eval_every >= 1, "at least 1")
        if self.offline is None and self.online is None:
            raise RecipeError(
                "nothing to do: the recipe names no algorithm; expected an offline one (--offline), an online one "
                "(--online) or both. With --dataset and neither, `segue run` chooses them"
            )
        for phase in ("offline", "online"):
            algorithm, steps = getattr(self, phase), getattr(self, f"{phase}_steps")
            if algorithm is None and steps:
                raise RecipeError(f"{phase}_steps is {steps} but no {phase} algorithm is named")
            if algorithm is not None and not steps:
                raise RecipeError(
                    f"the {phase} algorithm is {algorithm.name} but {phase}_steps is 0; say how many: --{phase}-steps N"
                )
            if algorithm is not None and phase not in algorithm.phases:
                able = [name for name, cls in ALGORITHMS.items() if phase in cls.phases]
                raise RecipeError(f"{algorithm.name} does not learn {phase}; there is {', '.join(able)}")
        if self.offline is not None and self.dataset is None:
            raise RecipeError(f"the offline algorithm {self.offline.name} needs a dataset")
        if self.dataset_hindsight and self.dataset is None:
            raise RecipeError("dataset_hindsight relabels a dataset, and the recipe names none; leave it out")
        if self.patience:
            self._check_patience()
        self._check_chunks()
        if self.online is not None:
            self._check_online(self.online)
            if self.max_lag:
                self._check_lag(self.online)
        elif self.max_lag:
            raise RecipeError("max_lag is about live environments and needs an online phase; leave it out")
        elif self.hindsight:
            raise RecipeError("hindsight relabels live transitions and needs an online phase; leave it out")
        elif self.bridges:
            raise RecipeError(f"bridges ({', '.join(b.name for b in self.bridges)}) need an online phase to act in")

    def _check_online(self, online: Algorithm) -> None:
        if self.env == NO_ENVIRONMENT:
            raise RecipeError(f"{online.name} learns online, but env is {NO_ENVIRONMENT}; expected an environment")
        if self.replay is not None and self.replay.needs_dataset and self.dataset is None:
            raise RecipeError(f"replay {self.replay.name} samples a dataset, but the recipe names no dataset")
        replay = self.replay
        if replay is not None and replay.needs_dataset and not replay.mixtures and has_weights(self.dataset):
            able = [name for name, cls in REPLAYS.items() if cls.mixtures]
            raise RecipeError(
                f"replay {replay.name} decides itself which rows of the dataset it draws, so the weights of a mixture "
                f"would not hold; there is {', '.join(able)}, or leave the weights out"
            )
        if self.warmup_steps >= self.online_steps:
            raise RecipeError(
                f"warmup_steps is {self.warmup_steps}, the online phase {self.online_steps}: nothing would be learnt; "
                f"expected warmup_steps below online_steps, such as {self.online_steps // 5}"
            )
        if online.on_policy:
            self._check_on_policy(online)
        if self.offline is not None and not set(self.offline.actions) & set(online.actions):
            raise RecipeError(
                f"{self.offline.name} has {' and '.join(self.offline.actions)} actions, {online.name} "
                f"{' and '.join(online.actions)} ones: no environment fits both"
            )
        if self.offline is not None and online.chunk_length > 1:
            given, wanted = (
                _structure(a, b).roles()["actor"] if "actor" in _structure(a, b) else None
                for a, b in ((self.offline, online), (online, self.offline))
            )
            if given is None or not same_shape(given, wanted):
                raise RecipeError(
                    f"{online.name} decides on {online.chunk_length} actions at once and can take over no policy of "
                    f"{self.offline.name}; pretrain with {online.name} of the same build, or set chunk to 1"
                )
        names = [bridge.name for bridge in self.bridges]
        if len(set(names)) < len(names):
            raise RecipeError(f"a bridge is named twice: {', '.join(names)}")
        roles = set(_structure(online, online).roles())
        for bridge in self.bridges:
            missing = [role for role in bridge.needs if role not in roles]
            if missing:
                raise RecipeError(f"bridge {bridge.name} needs the role {missing[0]}, which {online.name} lacks")
            if bridge.wants_dataset() and self.dataset is None:
                raise RecipeError(f"bridge {bridge.name} needs a dataset, but the recipe names no dataset")
            if bridge.wants_cost() and self.cost is None:
                raise RecipeError(
                    f"bridge {bridge.name} limits the cost of episodes, but the recipe records none; expected the key "
                    "of the environment's info that holds it: --cost KEY (in Python: cost)"
                )
            if bridge.needs_pretrained and self.offline is None:
                raise RecipeError(f"bridge {bridge.name} needs a pretrained policy, but there is no offline phase")
            if bridge.single_actions and online.chunk_length > 1:
                raise RecipeError(
                    f"bridge {bridge.name} needs values of single actions, and {online.name} rates chunks of "
                    f"{online.chunk_length}; leave one of them out, or set chunk to 1"
                )
            if online.on_policy and not bridge.on_policy:
                raise RecipeError(
                    f"bridge {bridge.name} cannot act on {online.name}, which learns on-policy: only from what its own "
                    "policy does"
                )
            others = tuple(other for other in self.bridges if other is not bridge)
            self._check_inherited(bridge, online, roles)
            reason = bridge.refusal(online, self.effective_replay, others)
            if reason is not None:
                raise RecipeError(f"bridge {bridge.name}: {reason}")
        for field, steps in (
            ("online_steps", self.online_steps),
            ("eval_every", self.online_eval_every),
            ("handover_eval_every", self.handover_eval_every or 0),
        ):
            if steps % self.environments:
                raise RecipeError(f"{field} is {steps}; expected a multiple of the {self.environments} environments")

    def _check_lag(self, online: Algorithm) -> None:
        given = f"max_lag is {self.max_lag}"
        if online.on_policy:
            raise RecipeError(
                f"{given}, and {online.name} learns on-policy: only from what its latest policy did; leave max_lag out"
            )
        if self.environments == 1:
            raise RecipeError(f"{given}, and one environment has no other to wait for; expected environments above 1")
        if self.environment_processes == "no":
            raise RecipeError(
                f"{given}, and environment_processes is no: environments of one process step one after the other; "
                "expected yes, ray or auto"
            )
        least = least_lag(self.handover_eval_every or self.online_eval_every, self.environments)
        if self.max_lag < least:
            raise RecipeError(
                f"{given}; expected at least {least}. Updates are dispatched every {(least + 1) // 2} steps while the "
                "environments go on, so that the policy is up to twice as old"
            )

    def _check_patience(self) -> None:
        if self.offline is None:
            raise RecipeError(f"patience is {self.patience}, and there is no offline phase for it to end; leave it out")
        if not self.held_out:
            raise RecipeError(
                f"patience is {self.patience}, and held_out is 0: it needs held-out episodes that judge pretraining; "
                f"give a share, such as --held-out {Recipe.held_out:g}, or leave patience out"
            )
        if self.offline.chunk_length > 1:
            raise RecipeError(
                f"patience compares Q of single actions with returns-to-go, and {self.offline.name} rates chunks of "
                f"{self.offline.chunk_length}; set chunk to 1, or leave patience out"
            )

    def _check_chunks(self) -> None:
        for field, learners in (("hindsight", (self.online,)), ("dataset_hindsight", (self.offline, self.online))):
            for algorithm in learners:
                if getattr(self, field) and algorithm is not None and algorithm.sequence_length > 1:
                    length = "n_step" if algorithm.chunk_length == 1 else "chunk"
                    raise RecipeError(
                        f"{field} gives each step a goal of its own, and {algorithm.name} learns from "
                        f"{algorithm.sequence_length} steps at once; set {length} to 1, or leave {field} out"
                    )

    def _check_inherited(self, bridge: Bridge, online: Algorithm, roles: set[str]) -> None:
        """A bridge that rests on what was learnt offline finds it there, or made by a bridge that attaches before."""
        if self.offline is None:
            return
        given, wanted = _structure(self.offline, online).roles(), _structure(online, self.offline).roles()
        there = {role for role, net in wanted.items() if role in given and same_shape(given[role], net)}
        if self.distil_steps or compatible(given.get("actor"), wanted.get("actor")):
            there.add("actor")
        for other in self.bridges:
            if other.attach_order < bridge.attach_order:
                there |= set(other.provides)
        for role in bridge.inherits(online):
            if role in roles and role not in there:
                built = f"one built differently from {online.name}'s" if role in given else "none"
                fit = "; bridge critic-refit fits one first" if role in ("critic", "value") else ""
                raise RecipeError(
                    f"bridge {bridge.name} rests on the {role} that was learnt offline, and {self.offline.name} has "
                    f"{built}{fit}"
                )

    def _check_on_policy(self, online: Algorithm) -> None:
        if not isinstance(online, PPO):
            raise RecipeError(f"{online.name}: on_policy is for PPO and its subclasses; the loop of rollouts is theirs")
        learns = f"{online.name} learns from its own rollouts"
        if self.replay is not None:
            raise RecipeError(f"replay {self.replay.name} has no use: {learns}; leave replay out")
        if self.hindsight:
            raise RecipeError(f"hindsight has no use: {learns}, whose goals are those that it acted for; leave it out")
        if self.updates_per_step is not None:
            raise RecipeError(f"updates_per_step has no use: {learns}; its own fields are epochs and rollout_steps")
        if getattr(online, "kl_weight", 0) and self.offline is None:
            raise RecipeError(f"{online.name}: kl_weight pulls towards a pretrained policy, and there is none")

    @property
    def online_eval_every(self) -> int:
        """Environment steps between evaluations."""
        if self.eval_every is not None:
            return self.eval_every
        step = 50 * self.environments  # keeps the chunks of the online loop long
        return max(self.online_steps // 20 // step, 1) * step

    @property
    def offline_eval_every(self) -> int:
        """Updates between evaluations in the offline phase; by default a fifth of it, with patience a twentieth."""
        return self.eval_every or max(self.offline_steps // (20 if self.patience else 5), 1)

    @property
    def effective_updates_per_step(self) -> float:
        """The UTD ratio, the default one resolved."""
        default = 1.0 if self.online is None else self.online.updates_per_step
        return self.updates_per_step or default

    @property
    def effective_replay(self) -> ReplayStrategy:
        """The replay strategy, the default one resolved."""
        return self.replay or (OnlineOnly() if self.dataset is None else Mixed())

    @property
    def environment(self) -> Environment | None:
        """The live environment that the recipe names itself."""
        if self.env is None or self.env == NO_ENVIRONMENT:
            return None
        return Environment(str(self.env), self.env_kwargs, self.max_episode_steps, self.env_wrappers)

    def environment_with(self, dataset: Dataset | None) -> Environment | None:
        """The live environment: the recipe's, or the dataset's with what the recipe gives beside a name."""
        if self.env is not None or dataset is None or dataset.environment is None:
            return self.environment
        given = Environment("", self.env_kwargs, self.max_episode_steps, self.env_wrappers)
        return dataset.environment.changed(given)

    def check_fit(self, dataset: Dataset | None, environment: Spaces | None) -> None:
        """Refuse a dataset, an environment and algorithms that do not fit together.

        Raises:
            RecipeError: with both sides' sizes.
        """
        if dataset is not None and environment is not None and dataset.spaces != environment:
            raise RecipeError(
                f"the dataset {dataset.source} has {dataset.spaces.describe()}, the environment "
                f"{self.env or dataset.env_id} has {environment.describe()}; expected the same"
            )
        if dataset is not None and not dataset.rewards_known:
            self._check_imitation(dataset)
        spaces = environment or (dataset.spaces if dataset else None)
        for algorithm in (self.offline, self.online):
            if algorithm is not None and spaces is not None:
                kind = "discrete" if spaces.discrete else "continuous"
                if kind not in algorithm.actions:
                    able = [name for name, cls in ALGORITHMS.items() if kind in cls.actions]
                    raise RecipeError(
                        f"{algorithm.name} has no {kind}-action form; there is {', '.join(able) or 'none yet'}"
                    )
            if algorithm is not None and algorithm.needs_costs and dataset is not None:
                dataset.require_cost(algorithm.name)
        if self.cost_limit is not None and self.cost is None and self.online is not None:
            raise RecipeError(
                f"cost_limit is {self.cost_limit:g}, and the recipe does not say where the environment reports the "
                "cost: give --cost KEY, the key of its info"
            )
        if self.online is not None and self.online.needs_costs and self.cost is None:
            raise RecipeError(
                f"{self.online.name} learns from the cost of each step, and the recipe does not say where the "
                "environment reports it: give --cost KEY, the key of its info"
            )
        for bridge in self.bridges:
            if spaces is not None and spaces.image is not None and not bridge.images:
                raise RecipeError(f"{bridge.name} models observations and cannot do so with images; leave it out")

    def _check_imitation(self, dataset: Dataset) -> None:
        """Without rewards, imitation alone learns from a dataset."""
        users = [algorithm.name for algorithm in (self.offline,) if algorithm is not None and algorithm.uses_rewards]
        if self.online is not None:
            replay = self.effective_replay
            users += [f"replay {replay.name}"] if replay.needs_dataset and not self.online.on_policy else []
            users += [f"bridge {bridge.name}" for bridge in self.bridges if bridge.wants_dataset()]
        if users:
            raise RecipeError(
                f"the dataset {dataset.source} has no rewards, and {users[0]} learns from them; add 'rewards' to "
                "it, or use bc with top_fraction 1 offline and replay online-only or PPO online, as preset auto does"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; a dataset held in memory cannot be written.

        Raises:
            RecipeError: if the dataset is not a URI.
        """
        uri = None if self.dataset is None else uri_of(self.dataset)
        if uri is None and self.dataset is not None:
            raise RecipeError(
                "a recipe with a dataset in memory cannot be written to JSON; save the dataset to a file first"
            )
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain["dataset"] = uri
        for name in ("offline", "online", "replay"):
            plain[name] = None if plain[name] is None else encode(plain[name])
        plain["bridges"] = [encode(bridge) for bridge in self.bridges]
        module = self._dataset_module(uri or "")
        return plain if module is None else {**plain, f"dataset_{MODULE}": module}

    def _dataset_module(self, uri: str) -> str | None:
        """The module of the dataset's reader, if that is not Segue's; of a mixture the first such one."""
        schemes = [part.partition(":")[0] for part in Mixture.parse(uri).parts]
        modules = (module_of(FORMATS[scheme]) for scheme in schemes if scheme in FORMATS)
        return next(filter(None, modules), None)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Recipe:
        """The recipe of `to_dict`.

        Raises:
            RecipeError: for unknown names, fields and values that do not fit.
        """
        values = dict(plain)
        module, dataset = values.pop(f"dataset_{MODULE}", None), values.get("dataset")
        schemes = [part.partition(":")[0] for part in Mixture.parse(str(dataset)).parts]
        if module is not None and not all(scheme in FORMATS for scheme in schemes):
            import_module(str(module), f"dataset {dataset!r}: ")
        for name, (kind, known) in PARTS.items():
            if name == "bridges":
                values[name] = [decode(kind, part, known) for part in values.get(name, ())]
            elif values.get(name) is not None:
                values[name] = decode(kind, values[name], known)
        return cls(**values)


@functools.lru_cache(maxsize=256)
def _structure(algorithm: Algorithm, other: Algorithm) -> Nets:
    """The shapes of an algorithm's networks for some environment that fits both; no array is allocated."""
    spaces = Spaces(17, 5, discrete="continuous" not in {*algorithm.actions} & {*other.actions})
    return eqx.filter_eval_shape(lambda: algorithm.init(jax.random.key(0), spaces))


def encode(part: Any) -> dict[str, Any]:
    """{"name": …, hyper-parameters…} of an algorithm, a bridge or a replay strategy, with its module if not Segue's."""
    module = module_of(type(part))
    return {
        "name": part.name,
        **({} if module is None else {MODULE: module}),
        **{field.name: getattr(part, field.name) for field in dataclasses.fields(part)},
    }


def decode(kind: str, plain: Any, known: Mapping[str, type[Part]]) -> Part:
    """The part that `encode` wrote; a bare name means its defaults.

    Raises:
        RecipeError: for an unknown name or field.
    """
    values = {"name": plain} if isinstance(plain, str) else dict(plain)
    name, module = values.pop("name", None), values.pop(MODULE, None)
    alike = str(name).replace("_", "-").lower()
    name = alike if name not in known and alike in known else name
    if module is not None and name not in known:
        import_module(str(module), f"{kind} {name!r}: ")
    if name not in known:
        raise RecipeError(unknown(kind, str(name), known))
    there = module_of(known[name])
    if module is not None and there != module:
        raise RecipeError(
            f"the {kind} {name!r} of the file is from {module}, the one known here from {there or 'segue'}"
        )
    return known[name](**values)


def read_recipes(path: str | Path) -> dict[str, Recipe]:
    """The arms in a `recipe.json` (or in the one of a run directory): {"run": recipe} for a single run.

    Raises:
        RecipeError: if the file cannot be read or does not hold a recipe.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "recipe.json"
    try:
        content = path.read_bytes()
        if not content.strip():
            raise RecipeError(f"{path}: the file is empty; expected a recipe.json written by a run")
        plain = json.loads(content)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such file; expected a recipe.json written by a run") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise RecipeError(f"{path}: not JSON ({error}); expected a recipe.json written by a run") from error
    if not isinstance(plain, dict):
        raise RecipeError(f"{path}: holds a {type(plain).__name__}; expected a recipe")
    arms = plain["arms"] if set(plain) == {"arms"} else {"run": plain}
    try:
        found = {name: Recipe.from_dict(arm) for name, arm in arms.items()}
        home = path.parent
        return {name: dataclasses.replace(arm, dataset=located(arm.dataset, home)) for name, arm in found.items()}
    except (AttributeError, TypeError, ValueError, ArithmeticError) as error:
        raise RecipeError(f"{path}: not a recipe ({error})") from error
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error


#: How a run's files name a dataset that the run directory itself holds: it may be moved, with its dataset in it.
HELD = "npz:{run}/"


def located(uri: Any, home: Path) -> Any:
    """The dataset that the files of the run in `home` name so."""
    return uri.replace(HELD, f"npz:{home.resolve()}/") if isinstance(uri, str) else uri


def portable(uri: Any, home: Path) -> Any:
    """How the files of the run in `home` name this dataset."""
    return uri.replace(f"npz:{home.resolve()}/", HELD) if isinstance(uri, str) else uri
