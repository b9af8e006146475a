"""Errors meant for people: what was wrong, where, what was expected, what to do."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import math
import numbers
import os
import types
import typing
from collections.abc import Iterable
from typing import Any


class SegueError(Exception):
    """Something the user can fix. The command line prints it as one line and exits with code 2."""


class DataError(SegueError):
    """A dataset that cannot be used as it is: names the source, the column and, where there is one, the row."""


class RecipeError(SegueError):
    """A recipe whose parts do not fit together, found before anything trains."""


class Diverged(SegueError):
    """Training produced NaN or Inf: names the phase, the step and the quantity."""


#: What other libraries call a field, or a word of its name → a part of the name that it has here.
SYNONYMS = {
    "algo": "online",
    "algorithm": "online",
    "agent": "online",
    "beta": "inverse_temperature",
    "buffer": "replay",
    "replay_buffer": "replay",
    "clip_range": "clip",
    "cql_alpha": "conservative_weight",
    "min_q_weight": "conservative_weight",
    "data": "dataset",
    "ent_coef": "temperature",
    "entropy_coef": "temperature",
    "eval_freq": "eval_every",
    "eval_frequency": "eval_every",
    "eval_interval": "eval_every",
    "eval_period": "eval_every",
    "gamma": "discount",
    "discount_factor": "discount",
    "her": "hindsight",
    "n_sampled_goal": "hindsight",
    "gradient_steps": "updates_per_step",
    "replay_ratio": "updates_per_step",
    "utd": "updates_per_step",
    "utd_ratio": "updates_per_step",
    "hidden_dim": "hidden_sizes",
    "hidden_dims": "hidden_sizes",
    "hidden_layers": "hidden_sizes",
    "hidden_size": "hidden_sizes",
    "hidden_units": "hidden_sizes",
    "layers": "hidden_sizes",
    "net_arch": "hidden_sizes",
    "width": "hidden_sizes",
    "learning_starts": "warmup_steps",
    "random_steps": "warmup_steps",
    "start_steps": "warmup_steps",
    "lr": "learning_rate",
    "step_size": "learning_rate",
    "minibatch_size": "batch_size",
    "batch": "batch_size",
    "bs": "batch_size",
    "n_critics": "ensemble_size",
    "num_critics": "ensemble_size",
    "num_qs": "ensemble_size",
    "n_episodes": "eval_episodes",
    "n_eval_episodes": "eval_episodes",
    "num_eval_episodes": "eval_episodes",
    "n_epochs": "epochs",
    "n_steps": "steps",
    "num_steps": "steps",
    "nenvs": "environments",
    "n_envs": "environments",
    "num_envs": "environments",
    "n_seeds": "seeds",
    "num_seeds": "seeds",
    "random_seed": "seed",
    "env_id": "env",
    "env_name": "env",
    "environment": "env",
    "offline_iterations": "offline_steps",
    "pretrain_steps": "offline_steps",
    "pretraining_steps": "offline_steps",
    "finetune_steps": "online_steps",
    "total_steps": "online_steps",
    "total_timesteps": "online_steps",
    "timesteps": "online_steps",
    "polyak_tau": "polyak",
    "soft_target_update_rate": "polyak",
    "target_update_rate": "polyak",
    "tau": "polyak",
}


#: A spelling this similar to a name that exists is taken for it.
SURE = 0.75


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


class _Checked(type):
    def __call__(cls, *positional: Any, **values: Any) -> Any:
        what = getattr(cls, "name", cls.__name__.lower())
        declared = dataclasses.fields(cls)  # type: ignore[arg-type]
        fields = [field.name for field in declared]
        unnamed = [field.name for field in declared if not field.kw_only]
        if len(positional) > len(unnamed):
            one = positional[len(unnamed)]
            raise RecipeError(f"{what}: {one!r:.200} has no name; expected FIELD=VALUE, of {', '.join(fields)}")
        twice = [name for name, _ in zip(unnamed, positional, strict=False) if name in values]
        if twice:
            raise RecipeError(f"{what}: {twice[0]} is given twice")
        for name in values:
            if name not in fields:
                raise RecipeError(unknown(f"field of {what}", name, fields))
        values |= dict(zip(unnamed, positional, strict=False))
        for field in declared:
            if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
                raise RecipeError(f"{what}: {field.name} is missing; expected it")
        hints = _hints(cls)
        named = cls.named(values)  # type: ignore[attr-defined]
        return super().__call__(**{name: _typed(what, name, value, hints[name]) for name, value in named.items()})


class Checked(metaclass=_Checked):
    """Base of dataclasses that people fill in: refuses fields that do not exist, and values of other types.

    First, lists and arrays become tuples, scalars of NumPy and JAX Python's, whole floats (1e5)
    whole numbers, paths text. Errors are RecipeErrors that name the field, its value and what was expected.
    """

    @classmethod
    def named(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values, with what a name stands for in place of the name."""
        return values


def _typed(what: str, name: str, value: Any, hint: Any) -> Any:
    try:
        return _fitting(value, hint)
    except ValueError:
        call = f"; an instance: {value.__name__}()" if isinstance(value, type) else ""
        raise RecipeError(f"{what}: {name} is {value!r}; expected {_words(hint)}{call}") from None


def _fitting(value: Any, hint: Any) -> Any:
    """The value in the declared type.

    Raises:
        ValueError: if it has none.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for argument in arguments:
            with contextlib.suppress(ValueError):
                return _fitting(value, argument)
        raise ValueError
    if getattr(value, "shape", None) is not None and hasattr(value, "tolist"):  # NumPy's and JAX's
        value = value.tolist()
    if origin is typing.Literal:
        found = [argument for argument in arguments if type(argument) is type(value) and argument == value]
    elif origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError
        return tuple(_fitting(item, arguments[0]) for item in value)
    elif hint in (int, float):
        if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
            raise ValueError
        plain = value if type(value) is hint else float(value) if hint is float else math.trunc(value)
        found = [plain] if hint is float or plain == value else []
    elif hint is str and isinstance(value, os.PathLike):
        found = [os.fspath(value)]
    else:
        found = [value] if isinstance(value, origin or hint) else []
    if not found:
        raise ValueError
    return found[0]


def _words(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(argument) for argument in arguments)
    if origin is tuple:
        return f"a list or tuple, each {_words(arguments[0])}"
    plain = {int: "a whole number", float: "a finite number", bool: "true or false", str: "a text", type(None): "null"}
    return plain.get(hint, getattr(hint, "__name__", str(hint)))


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> list[str]:
    """What may be meant by a name that does not exist: other libraries' name for it, else the nearest spelling.

    Names may be flags with an owner (`--online.lr`). The `cutoff` is the least similarity of a spelling, up to 1.
    """
    plain = {choice: choice.rpartition(".")[2].lstrip("-").replace("-", "_") for choice in known}
    owner, _, word = name.rpartition(".")
    word = word.lstrip("-").replace("-", "_").lower()
    meant = SYNONYMS.get(word) or "_".join(SYNONYMS.get(w, w) for w in word.split("_"))
    there = [choice for choice in plain if choice.startswith(owner)]
    found = [c for c in there if plain[c] == meant] or [c for c in there if plain[c].endswith(f"_{meant}")]
    # An algorithm may have five learning rates.
    found = [c for c in found if plain[c].startswith(("actor_", "critic_"))] or found
    spelt = {choice.lower().lstrip("-"): choice for choice in plain}
    similar = name.lower().replace("_", "-").lstrip("-") if name.startswith("-") else name.lower()
    return found[:4] or [spelt[s] for s in difflib.get_close_matches(similar, spelt, n=1, cutoff=cutoff)]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One line for a name that does not exist: what is meant, or, where that is a guess, also everything there is."""
    choices = sorted(known)
    meant = nearest(name, choices, SURE)
    near = " or ".join(map(repr, meant or nearest(name, choices)))
    hint = f"did you mean {near}?" if near else ""
    if meant:
        return f"unknown {kind} {name!r}: {hint}"
    return " ".join(filter(None, [f"unknown {kind} {name!r}:", hint, f"there is {', '.join(choices) or 'none'}"]))
