"""What an environment is called, and what that name stands for: an id, a class or function of a module, a dataset's."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import difflib
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec, WrapperSpec

from segue.errors import RecipeError, unknown
from segue.plugins import PluginError, import_module

#: How a recipe says that there is no live environment, even if the dataset names one.
NO_ENVIRONMENT = "none"
#: Packages that register environments when imported: how their ids look, the module, how to install it.
PACKAGES = (
    (
        r"(Fetch|Hand(Reach|Manipulate)|AdroitHand|FrankaKitchen|(Ant|Point)Maze_).*",
        "gymnasium_robotics",
        "segue[robotics]",
    ),
    (r"ALE/.*", "ale_py", "gymnasium[atari]"),
    (r"dm_control/.*", "shimmy", "shimmy[dm-control]"),
)

#: What `Recipe.env` may be in Python.
Named = str | EnvSpec | Callable[..., gym.Env]


@dataclasses.dataclass(frozen=True)
class Environment:
    """A live environment as plain data, so that worker processes and later commands can make the same one."""

    name: str
    """A Gymnasium id, `module:Id`, `module:Class` or `module:function`."""
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Keyword arguments of its constructor, as JSON has them."""
    max_episode_steps: int | None = None
    """Time limit in steps; None means the registered one."""
    wrappers: tuple[Mapping[str, Any], ...] = ()
    """Wrappers around it: name, entry_point and kwargs of each, as in a Gymnasium EnvSpec."""

    @classmethod
    def of(cls, value: Named | Environment) -> Environment:
        """What names an environment, as plain data.

        Raises:
            RecipeError: for an instance, a lambda, or anything else that no other process can find by name.
        """
        if isinstance(value, Environment):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, EnvSpec):
            return _of_spec(value)
        return cls(place_of(value))

    @classmethod
    def read(cls, plain: Any) -> Environment:
        """The environment of `plain()`.

        Raises:
            RecipeError: if it is something else.
        """
        if isinstance(plain, str):
            return cls(plain)
        try:
            return cls(**{**plain, "wrappers": tuple(plain.get("wrappers", ()))})
        except (AttributeError, TypeError) as error:
            raise RecipeError(f"{plain!r} describes no environment; expected a name, or name and kwargs") from error

    def plain(self) -> str | dict[str, Any]:
        """For JSON: the name alone if nothing else is given."""
        given = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if getattr(self, field.name)
        }
        return self.name if len(given) == 1 else json.loads(json.dumps(given))

    def options(self) -> str | None:
        """What is given beside the name, as JSON; None if nothing is."""
        plain = self.plain()
        return None if isinstance(plain, str) else json.dumps(plain)

    def __str__(self) -> str:
        given = [f"{name}={value!r}" for name, value in self.kwargs.items()]
        given += [] if self.max_episode_steps is None else [f"max_episode_steps={self.max_episode_steps}"]
        given += [str(wrapper.get("name")) for wrapper in self.wrappers]
        return f"{self.name} ({', '.join(given)})" if given else self.name

    def spec(self) -> EnvSpec:
        """Gymnasium's specification of it.

        Raises:
            RecipeError: for an unknown id (nearest match first), a module or package that cannot be imported, or
                wrappers that are not described as in an EnvSpec.
        """
        spec = copy.deepcopy(_from_module(self.name) if ":" in self.name else _registered(self.name))
        spec.kwargs |= self.kwargs
        spec.max_episode_steps = self.max_episode_steps or spec.max_episode_steps
        try:
            spec.additional_wrappers += tuple(WrapperSpec(**wrapper) for wrapper in self.wrappers)
        except TypeError as error:
            raise RecipeError(
                f"environment {self.name!r}: env_wrappers: {error}; expected name, entry_point and kwargs of each"
            ) from error
        return spec

    def portable(self) -> Environment:
        """The same environment by a name that means the same in other processes and later commands.

        Raises:
            RecipeError: if it is defined where no other process can import it; the message says the way out.
        """
        if ":" in self.name:
            if self.name.startswith("__main__:"):
                raise RecipeError(_stuck(self.name))
            return self
        spec = _registered(self.name)
        if _known_everywhere(spec):
            return self
        place = spec.entry_point if isinstance(spec.entry_point, str) else place_of(spec.entry_point)
        if place.startswith("__main__:"):
            raise RecipeError(_stuck(self.name))
        return _written_out(spec, place).changed(self)

    def changed(self, other: Environment) -> Environment:
        """This environment, with what another one adds to its name."""
        return Environment(
            self.name,
            {**self.kwargs, **other.kwargs},
            other.max_episode_steps or self.max_episode_steps,
            self.wrappers + other.wrappers,
        )


def _wrappers(spec: EnvSpec) -> tuple[Mapping[str, Any], ...]:
    return tuple(dataclasses.asdict(wrapper) for wrapper in spec.additional_wrappers)


def _of_spec(spec: EnvSpec) -> Environment:
    """A specification by its id if the registry has that environment, and otherwise by its entry point."""
    try:
        registered = _registered(spec.id)
    except RecipeError:
        registered = None
    if registered is None or registered.entry_point != spec.entry_point:
        if spec.entry_point is None:
            raise RecipeError(f"environment {spec.id!r}: its EnvSpec has no entry_point; expected module:Class")
        place = spec.entry_point if isinstance(spec.entry_point, str) else place_of(spec.entry_point)
        return _written_out(spec, place)
    whole, usual = _written_out(spec, spec.id), _written_out(registered, spec.id)
    return Environment(
        spec.id,
        {name: value for name, value in whole.kwargs.items() if usual.kwargs.get(name, ...) != value},
        None if whole.max_episode_steps == usual.max_episode_steps else whole.max_episode_steps,
        whole.wrappers[len(usual.wrappers) :],
    )


def _written_out(spec: EnvSpec, name: str) -> Environment:
    # How pictures are drawn is no part of the task.
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    return Environment(name, json_values(kwargs, "env_kwargs"), spec.max_episode_steps, _wrappers(spec))


def json_values(values: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The values as JSON has them: tuples and arrays as lists, NumPy's numbers as numbers.

    Raises:
        RecipeError: naming the value that JSON lacks.
    """
    plain = {}
    for name, value in values.items():
        try:
            plain[str(name)] = json.loads(json.dumps(value, default=lambda array: array.tolist()))
        except (AttributeError, TypeError, ValueError) as error:
            raise RecipeError(
                f"{field}: {name} is {value!r}, which JSON cannot hold, so that no worker or later command could make "
                "the same environment; expected numbers, texts, lists or null: build the value in a function "
                "of a module and name that: module:function"
            ) from error
    return plain


def place_of(made_by: Any) -> str:
    """`module:qualname` of a class or function."""
    if isinstance(made_by, gym.Env):
        kind = f"{type(made_by).__module__}:{type(made_by).__qualname__}"
        raise RecipeError(
            f"env is an instance of {kind}; expected what makes one, since Segue makes several (training, evaluation, "
            "workers): give the class, a function or an id, and its arguments as env_kwargs"
        )
    module, name = getattr(made_by, "__module__", None), getattr(made_by, "__qualname__", None)
    if not callable(made_by) or module is None or name is None:
        raise RecipeError(
            f"env is {made_by!r}; expected a Gymnasium id, module:Id, an EnvSpec, or a class or function that makes "
            "an environment (its arguments go into env_kwargs)"
        )
    if "<" in name:
        raise RecipeError(
            f"env is {name} of {module}, which has no name that others can import: define it at the top level of a "
            "module, with its arguments in env_kwargs"
        )
    return f"{module}:{name}"


def _stuck(name: str) -> str:
    return (
        f"environment {name!r} is defined in the script or notebook itself, so neither worker processes nor later "
        "commands can import it: move it into a module and name it module:ID, or use workers=1"
    )


def _from_module(name: str) -> EnvSpec:
    """The specification that `module:Id` or `module:qualname` means, once the module is imported."""
    module, _, rest = name.partition(":")
    try:
        import_module(module, f"environment {name!r}: ")
    except PluginError as error:
        hint = f"; name the module, not the file: {module[:-3]}:{rest}" if module.endswith(".py") else ""
        raise RecipeError(
            f"{error}{hint or '; modules are looked for in the current folder and on PYTHONPATH'}"
        ) from error
    if rest in gym.registry:
        return gym.registry[rest]
    made_by: Any = importlib.import_module(module)
    try:
        made_by = functools.reduce(getattr, rest.split("."), made_by)
    except AttributeError:
        offered = [
            key
            for key, value in vars(made_by).items()
            if isinstance(value, type) and issubclass(value, gym.Env) and value.__module__ == made_by.__name__
        ]
        ids = [key for key, spec in gym.registry.items() if str(_entry_module(spec)) == made_by.__name__]
        raise RecipeError(unknown(f"environment of module {module!r}:", rest, {*offered, *ids})) from None
    if not callable(made_by) or not rest:
        raise RecipeError(f"environment {name!r}: {rest or 'nothing'} is no class or function that makes one")
    # Gymnasium finds it by this name again, where the name has no more parts than it expects.
    entry = name if "." not in rest else made_by
    return EnvSpec(name, entry_point=entry, order_enforce=False, disable_env_checker=True)


def _registered(env_id: str) -> EnvSpec:
    """The specification of an id, once Gymnasium knows it."""
    likely = [package for package in PACKAGES if re.fullmatch(package[0], env_id)]
    for _, module, _ in likely or PACKAGES:
        if env_id not in gym.registry and importlib.util.find_spec(module):
            # They greet with remarks on environments that nobody asked for.
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                gym.register_envs(importlib.import_module(module))
    if env_id in gym.registry:
        return gym.registry[env_id]
    for _, module, requirement in likely:
        if not importlib.util.find_spec(module):
            raise RecipeError(
                f"environment {env_id!r} is in {module.replace('_', '-')}, which is not installed: pip install "
                f"'{requirement}'"
            )
    # Hundreds of ids are registered; only the nearest help.
    near = difflib.get_close_matches(env_id, gym.registry, n=5, cutoff=0.5)
    what = unknown("environment", env_id, near) if near else f"unknown environment {env_id!r}"
    end = "" if what.endswith("?") else "."
    raise RecipeError(f"{what}{end} One of your own is named MODULE:ID, with the module that registers or defines it")


def _entry_module(spec: EnvSpec) -> str | None:
    if isinstance(spec.entry_point, str):
        return spec.entry_point.partition(":")[0]
    return getattr(spec.entry_point, "__module__", None)


def _known_everywhere(spec: EnvSpec) -> bool:
    """Whether the id is one of Gymnasium's own or of a package that registers itself, in any process."""
    if not isinstance(spec.entry_point, str):
        return False
    package = str(_entry_module(spec)).partition(".")[0]
    if package == "gymnasium":
        return f'"{spec.id}"' in inspect.getsource(gym.envs)
    plugins = {point.module.partition(".")[0] for point in importlib.metadata.entry_points(group="gymnasium.envs")}
    return package in plugins.union(module for _, module, _ in PACKAGES)
