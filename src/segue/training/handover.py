"""The handover: what the online learner takes from the offline one, by role, and a sentence on each role.

Roles of the same name and shape are carried over; an actor of another distribution keeps its mean and has its deviation
fitted; targets that the source lacks are copied from the role they follow; what is missing or shaped differently is
initialised fresh. Each is reported.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Real

from segue.algorithms.base import Algorithm, copy_arrays
from segue.core import TARGET, Array, Key, Learner, Spaces, origin, same_shape
from segue.data.mapped import Column
from segue.networks.recast import compatible, recast
from segue.training.update import init_learner, replace

#: States over which the deviation of an actor is fitted, where its distribution changes.
STATES = 1_000


@dataclasses.dataclass(frozen=True)
class HandedOver:
    """What happened to each role."""

    carried: tuple[str, ...]
    fresh: tuple[str, ...]
    lines: tuple[str, ...]
    """One sentence per role, for the log and the report."""


def hand_over(
    source: Learner,
    offline: Algorithm,
    online: Algorithm,
    spaces: Spaces,
    key: Key,
    observations: Real[np.ndarray, "rows observation"] | Column | None = None,
) -> tuple[Learner, HandedOver]:
    """A learner for `online` with everything of `source` that fits.

    The optimiser state of a carried role is carried too, so that an algorithm that goes on with itself goes on exactly.
    The step counter starts at 0; bridges attach afterwards. `observations` are raw ones of the dataset: an actor whose
    distribution differs keeps its deviation on them, as far as the other distribution can; without them it is fresh.
    """
    nets = online.init(key, spaces)
    given, wanted = source.nets.roles(), nets.roles()
    carried: dict[str, Any] = {}
    lines: list[str] = []
    for role, fresh in wanted.items():
        if origin(role) is not None:
            continue
        if role not in given:
            lines.append(f"{role}: fresh ({offline.name} has none)")
        elif same_shape(given[role], fresh):
            carried[role] = copy_arrays(given[role])
            lines.append(
                f"{role}: carried over from {offline.name}{_without_effect(role, given[role], offline, online)}"
            )
        elif role == "actor" and observations is not None and compatible(given[role], fresh):
            chosen = np.linspace(0, len(observations) - 1, min(STATES, len(observations))).astype(int)
            carried[role] = recast(given[role], fresh, np.asarray(source.normaliser(observations[chosen])))
            lines.append(
                f"{role}: carried over from {offline.name} with the same mean; its σ was converted to the form of "
                f"{online.name}'s actor on {len(chosen):,} states of the dataset"
                f"{_without_effect(role, given[role], offline, online)}"
            )
        else:
            lines.append(
                f"{role}: fresh ({offline.name}'s is built differently: {_shape(given[role])} against {_shape(fresh)})"
            )
    for target in wanted:
        followed = origin(target)
        if followed is None:
            continue
        if followed not in carried:
            lines.append(f"{target}: fresh, equal to the {followed}")
        elif target in given and target.startswith(TARGET) and same_shape(given[target], carried[followed]):
            carried[target] = copy_arrays(given[target])
            lines.append(f"{target}: carried over from {offline.name}")
        else:
            carried[target] = copy_arrays(carried[followed])
            why = f" ({offline.name} has none)" if target.startswith(TARGET) else ", and frozen"
            lines.append(f"{target}: copied from the {followed}{why}")
    lines += [f"{role}: not used by {online.name}" for role in given if role not in wanted]
    scales = ("discount", "reward_scale", "reward_shift")
    differ = [name for name in scales if getattr(offline, name) != getattr(online, name)]
    if differ and {"critic", "value"} & set(carried):
        words = ", ".join(f"{name} {getattr(offline, name):g} → {getattr(online, name):g}" for name in differ)
        lines.append(f"values: learnt for other returns ({words}), so they are off until they have adapted")
    learner = init_learner(online, nets.replace(**carried), copy_arrays(source.normaliser))
    kept = {
        role: copy_arrays(source.optimisers[role])
        for role, state in learner.optimisers.items()
        if role in carried and role in source.optimisers and same_shape(source.optimisers[role], state)
    }
    lines.append("optimisers: " + (f"carried over for {', '.join(kept)}" if kept else "fresh"))
    learner = replace(learner, optimisers={**learner.optimisers, **kept})
    fresh_roles = tuple(role for role in wanted if role not in carried)
    return learner, HandedOver(tuple(carried), fresh_roles, tuple(lines))


def _without_effect(role: str, given: Any, offline: Algorithm, online: Algorithm) -> str:
    """What a user set for the start of this role, which what is carried over replaces; nothing if all is as set.

    A scalar role (log α, log α′) has the hyper-parameter `initial_ROLE`; networks have `orthogonal_init`.
    """
    field = f"initial_{role}" if isinstance(given, Array) else "orthogonal_init"
    defaults = {of.name: of.default for of in dataclasses.fields(online)}
    if field not in defaults or getattr(online, field) == defaults[field]:
        return ""
    wanted = getattr(online, field)
    if wanted == getattr(offline, field, None):  # it had its effect when the pretraining began
        return ""
    if field == "orthogonal_init":
        return f"; {field} {wanted} has no effect"
    value = float(jnp.exp(given))
    return "" if math.isclose(value, wanted, rel_tol=1e-3) else f" ({value:.3g}); {field} {wanted:g} has no effect"


def _shape(tree: Any) -> str:
    return "×".join(str(jnp.shape(leaf)) for leaf in jax.tree.leaves(tree)[:3]) + "…"
