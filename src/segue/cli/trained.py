"""Where policies lie, and how they act: a run directory's final ones, a checkpoint, an exported policy, a function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segue.acting import ActingPolicy
from segue.deployment.policy import MANIFEST, ExportedPolicy, load_policy
from segue.deployment.spaces import DiscreteActions, flat_size
from segue.envs.spec import Environment
from segue.errors import SegueError, unknown

if TYPE_CHECKING:
    from segue.core import Spaces
    from segue.ope import DiscretePolicy
    from segue.policy import Policy


def find(place: Path) -> dict[str, Path]:
    """Policies by name: the final ones of a run directory, or the place itself.

    Raises:
        SegueError: if there is none.
    """
    if (place / "manifest.json").exists() or is_exported(place) or is_function(place):
        return {str(place): place}
    root = place / "checkpoints"
    found = {str(final.parent.relative_to(root)): final for final in sorted(root.glob("*/seed-*/final"))}
    if not found:
        raise SegueError(
            f"{place}: no finished policy here; expected a run directory with checkpoints/…/final, or one checkpoint"
        )
    return found


def of_offline_phase(name: str) -> bool:
    """Whether this policy of a run directory is one that an offline phase ended with, by its name."""
    return name.startswith("offline")


def choose(place: Path, arm: str | None, seed: int | None) -> Path:
    """The one checkpoint of a run that is meant; a run's arms go before its offline phases.

    Raises:
        SegueError: if none is meant, or several.
    """
    found = find(place)
    if (place / "manifest.json").exists():
        if arm is not None or seed is not None:
            raise SegueError(f"{place} is one checkpoint: --arm and --seed choose among those of a run directory")
        return place
    arms = {Path(name).parts[0] for name in found}
    if arm is None:
        arms = {name for name in arms if not of_offline_phase(name)} or arms
    elif arm in arms:
        arms = {arm}
    else:
        raise SegueError(unknown("arm", arm, arms))
    meant = {name: at for name, at in found.items() if Path(name).parts[0] in arms}
    if seed is not None:
        meant = {name: at for name, at in meant.items() if Path(name).name == f"seed-{seed}"}
    if len(meant) != 1:
        choices = ", ".join(meant or found)
        raise SegueError(f"{place}: {len(meant) or 'none'} of its policies fit: {choices}; choose by --arm and --seed")
    return next(iter(meant.values()))


def is_function(place: Path) -> bool:
    """Whether this is no place but a `module:function`, which gives the probabilities of discrete actions."""
    from segue.ope.policy import FUNCTION

    return FUNCTION.fullmatch(str(place)) is not None and not place.exists()


def is_exported(place: Path) -> bool:
    """Whether a policy was exported here, without what it learnt from."""
    return (place / MANIFEST).exists()


def acting(place: Path, given: Environment | None) -> tuple[ActingPolicy, Environment]:
    """A policy that acts on flattened observations as evaluation and recording want it, and its environment.

    Args:
        place: a checkpoint or an exported policy.
        given: another environment than the policy's, or, without a name, changes of that.

    Raises:
        SegueError: if it cannot be read, or does not fit the environment.
    """
    if is_function(place):
        raise SegueError(f"{place}: a function of probabilities is judged from a dataset; add --offline --dataset")
    if is_exported(place):
        from segue.deployment.export import require_fit

        exported = load_policy(place)
        about = exported.about["env"]
        environment = _named(place, given, None if about is None else Environment.read(about))
        require_fit(exported, environment)
        return exported, environment
    from segue.runner.checkpoint import load

    saved = load(place)
    environment = _named(place, given, saved.environment)
    return saved.require_fit(environment).policy(), environment


def logged(
    place: Path,
) -> tuple[Policy | ExportedPolicy | DiscretePolicy, Spaces | None, Environment | None]:
    """A policy that is judged from a dataset, its spaces, and the environment that it is for, if it names them.

    Args:
        place: a checkpoint; an exported policy, which does not know whether its observations are images; or a function,
            which names neither.

    Raises:
        SegueError: if it cannot be read.
    """
    from segue.core import Spaces

    if is_function(place):
        from segue.ope.policy import from_function

        return from_function(str(place)), None, None

    if is_exported(place):
        exported = load_policy(place)
        about, actions = exported.about["env"], exported.actions
        spaces = Spaces(flat_size(exported.space), actions.size, isinstance(actions, DiscreteActions))
        return exported, spaces, None if about is None else Environment.read(about)
    from segue.runner.checkpoint import load

    saved = load(place)
    return saved.policy(), saved.spaces, saved.environment


def _named(place: Path, given: Environment | None, own: Environment | None) -> Environment:
    if given is not None and given.name:
        return given
    if own is None:
        raise SegueError(f"{place}: the policy names no environment; give --env")
    return own if given is None else own.changed(given)
