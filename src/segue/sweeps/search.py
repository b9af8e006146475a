"""Which values are tried next: every combination, or what Optuna's samplers suggest."""

from __future__ import annotations

import importlib.util
import itertools
import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args

from segue.errors import RecipeError, SegueError
from segue.sweeps.space import Range, Values

Kind = Literal["grid", "random", "tpe", "cma"]


class Search(Protocol):
    """Gives values to try in batches, and is told what each came to. The same answers give the same questions."""

    def ask(self) -> list[dict[str, Any]]:
        """Values of the next trials by field; none when it is done."""

    def tell(self, scores: list[float]) -> None:
        """What the trials of the last batch came to, higher is better; NaN for one that failed."""


def searcher(
    kind: str, space: Mapping[str, Values], whole: Mapping[str, bool], trials: int | None, batch: int, seed: int
) -> Search:
    """The search of this kind.

    Raises:
        RecipeError: if it does not go with the space, or the number of trials is missing or of no use.
        SegueError: if Optuna is not installed.
    """
    if kind not in get_args(Kind):
        raise RecipeError(f"search is {kind!r}; expected {', '.join(get_args(Kind))}")
    ranges = [path for path, values in space.items() if isinstance(values, Range)]
    if kind == "grid":
        if ranges:
            raise RecipeError(f"vary {ranges[0]}: a grid needs values, and this is a range; give --search tpe")
        if trials is not None:
            raise RecipeError("trials has no use: a grid tries every combination once; or give --search tpe")
        return Grid(space)
    if trials is None or trials < 1:
        raise RecipeError(f"trials is {trials}; expected how many combinations --search {kind} tries, at least 1")
    if kind == "cma" and len(ranges) < len(space):
        other = next(path for path in space if path not in ranges)
        raise RecipeError(f"vary {other}: cma needs ranges, and these are values; give --search tpe")
    if importlib.util.find_spec("optuna") is None:
        raise SegueError(f"--search {kind} needs a package that is not installed: pip install 'segue[sweep]'")
    return Sampled(kind, space, whole, trials, batch, seed)


class Grid:
    """Every combination once, in one batch."""

    def __init__(self, space: Mapping[str, Values]) -> None:
        self.left = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]  # type: ignore[arg-type]

    def ask(self) -> list[dict[str, Any]]:
        """All of them, the first time."""
        batch, self.left = self.left, []
        return batch

    def tell(self, scores: list[float]) -> None:
        """Changes nothing."""


class Sampled:
    """An Optuna sampler with a seed. Trials of a batch are asked for together, before any of them is known."""

    def __init__(
        self,
        kind: str,
        space: Mapping[str, Values],
        whole: Mapping[str, bool],
        trials: int,
        batch: int,
        seed: int,
    ) -> None:
        import optuna

        samplers: dict[str, Any] = {
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, constant_liar=True, multivariate=True),
            "cma": lambda: optuna.samplers.CmaEsSampler(seed=seed),
        }
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study = optuna.create_study(sampler=samplers[kind](), direction="maximize")
        # What is not known before it ends is no reason to wait: random trials are one batch.
        self.space, self.whole, self.left = space, whole, trials
        self.batch = trials if kind == "random" else batch
        self.asked: list[Any] = []
        self.failed = optuna.trial.TrialState.FAIL

    def ask(self) -> list[dict[str, Any]]:
        """The next batch."""
        self.asked = [self.study.ask() for _ in range(min(self.batch, self.left))]
        self.left -= len(self.asked)
        return [{path: self._suggest(trial, path) for path in self.space} for trial in self.asked]

    def _suggest(self, trial: Any, path: str) -> Any:
        values = self.space[path]
        if not isinstance(values, Range):
            return values[trial.suggest_categorical(path, range(len(values)))]
        if self.whole[path]:
            return trial.suggest_int(path, math.ceil(values.low), math.floor(values.high), log=values.log)
        return trial.suggest_float(path, values.low, values.high, log=values.log)

    def tell(self, scores: list[float]) -> None:
        """Passes them on."""
        for trial, score in zip(self.asked, scores, strict=True):
            self.study.tell(trial, score) if math.isfinite(score) else self.study.tell(trial, state=self.failed)
