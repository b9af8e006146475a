"""The entry point: judge a policy from a dataset, by several estimators, against the behaviour policy."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table

from segue import rng
from segue.data import load
from segue.data.dataset import Dataset
from segue.deployment.policy import ExportedPolicy
from segue.errors import RecipeError, SegueError, unknown
from segue.ope import bootstrap, fqe
from segue.ope.behaviour import BehaviourModel, Propensities, propensities
from segue.ope.doubly_robust import DoublyRobust
from segue.ope.episodes import Episodes, Support
from segue.ope.estimator import Bounds, Estimator
from segue.ope.fqe import FQE, Fitted
from segue.ope.importance_sampling import ImportanceSampling
from segue.ope.limits import Limits
from segue.ope.per_decision import PerDecision
from segue.ope.policy import ContinuousPolicy, DiscretePolicy, Judged, NoDensity, judged
from segue.ope.unseen import Unseen, unseen
from segue.ope.verdict import Verdict, decide, keeps
from segue.ope.weighted import Weighted
from segue.ope.weighted_doubly_robust import WeightedDoublyRobust
from segue.ope.weighted_per_decision import WeightedPerDecision
from segue.policy import Policy
from segue.seen import NOTHING_SEEN

#: By name, those whose bounds can decide first.
ESTIMATORS: dict[str, Estimator] = {
    estimator.name: estimator
    for estimator in (
        PerDecision(),
        ImportanceSampling(),
        WeightedDoublyRobust(),
        DoublyRobust(),
        WeightedPerDecision(),
        Weighted(),
    )
}
METHODS = (*ESTIMATORS, "fqe")
#: Where there is no value.
NO_BOUNDS = Bounds(-math.inf, -math.inf, math.inf)
#: Logged propensities have 32 bits: a bound is beyond a value if it is so by more than this share of it.
ROUNDING = 1e-5
ESTIMATED_VALIDITY = (
    "betting, with estimated propensities: approximate, decides nothing; a verdict needs the column behaviour_log_prob"
)
FQE_VALIDITY = "bootstrap of whole fits: approximate, and only as far as the critic is right; decides nothing"


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one method says."""

    method: str
    value: float
    """Estimate of J(π), the discounted return from the start of an episode; NaN, with infinite bounds, where the
    dataset gives none: the verdict says why."""
    bounds: Bounds
    """One-sided bounds of J(π) and of J(π) − J(b)."""
    validity: str
    """What the bounds promise."""
    support: Support | None
    """How much of the dataset counts; None for a method without importance weights."""
    verdict: Verdict


@dataclasses.dataclass(frozen=True)
class CostEstimate:
    """What the dataset says of the summed cost of an episode, which is not discounted."""

    limit: float
    """What the mean cost of an episode must not exceed."""
    method: str
    """How it was estimated."""
    value: float
    """Estimate of the policy's mean cost; NaN where no importance weight exists."""
    lower: float
    upper: float
    """One-sided bounds of it."""
    behaviour_value: float
    """Mean cost of the dataset's episodes."""
    verdict: Verdict
    """Is the policy's mean cost at most the limit?"""


@dataclasses.dataclass(frozen=True)
class OfflineEvaluation:
    """A policy judged from a dataset."""

    estimates: tuple[Estimate, ...]
    """By method; the first one's verdict is that of the whole."""
    behaviour_value: float
    """J(b): the mean discounted return of the dataset's episodes."""
    behaviour_bounds: tuple[float, float]
    """Its one-sided lower and upper bound, by the bootstrap over episodes."""
    episodes: int
    """How many episodes judged the policy: those that it has not learnt from, if there are any."""
    dataset_episodes: int
    """How many the dataset has."""
    seen_episodes: int
    """How many of these are equal to ones that the policy has learnt from."""
    basis: str
    """The same in words."""
    discount: float
    confidence: float
    """1 − δ of every bound."""
    notes: tuple[str, ...]
    """What a reader should know of the dataset, the propensities and the methods left out."""
    cost: CostEstimate | None = None
    """Its cost against the limit; None if none was given."""

    @property
    def verdict(self) -> Verdict:
        """Better than the behaviour policy? By the first method; the others are there to be compared, not to be
        picked."""
        return self.estimates[0].verdict

    def __getitem__(self, method: str) -> Estimate:
        """What this method says."""
        return {estimate.method: estimate for estimate in self.estimates}[method]

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and texts; what is not finite is None."""
        fields = dataclasses.asdict(self)
        for plain, estimate in zip(fields["estimates"], self.estimates, strict=True):
            plain["bounds"] = estimate.bounds._asdict()
        return _plain({"verdict": dataclasses.asdict(self.verdict), **fields})

    def __rich__(self) -> Group:
        """A table, a line for each verdict, what the bounds promise, and the notes."""
        level = f"{self.confidence:.0%}"
        table = Table(box=None, pad_edge=False)
        table.add_column("method")
        headings = ("value", f"at least ({level})", "better by", "effective episodes", "largest weight", "count")
        for heading in headings:
            table.add_column(heading, justify="right")
        table.add_column("better than the behaviour policy?")
        for estimate in self.estimates:
            bounds, support = estimate.bounds, estimate.support
            table.add_row(
                estimate.method,
                _shown("{:.4g}", estimate.value),
                _shown("{:.4g}", bounds.value_lower),
                _shown("{:+.4g} … {:+.4g}", bounds.difference_lower, bounds.difference_upper),
                "–" if support is None else f"{support.effective_episodes:,.1f} of {self.episodes:,}",
                "–" if support is None else f"{support.max_weight:.3g}",
                "–" if support is None else f"{support.share:.0%}",
                estimate.verdict.answer,
            )
        low, high = self.behaviour_bounds
        lines: list[RenderableType] = [
            f"log: {self.behaviour_value:.4g} ({low:.4g} … {high:.4g}, each side at {level}), discounted with "
            f"{self.discount:g}; judged on {self.basis}",
            table,
            f"better than the behaviour policy at {level}: {self.verdict.answer} "
            f"(by {self.estimates[0].method}: {self.verdict.reason})",
        ]
        if self.cost is not None:
            cost = self.cost
            lines.append(
                f"cost at most {cost.limit:g} an episode at {level}: {cost.verdict.answer} (by {cost.method}: "
                f"{cost.verdict.reason}; the dataset's episodes cost {cost.behaviour_value:.4g})"
            )
        others = [f"{e.method}: {e.verdict.answer}: {e.verdict.reason}" for e in self.estimates[1:]]
        promises = [
            f"bounds of {', '.join(e.method for e in self.estimates if e.validity == promise)}: {promise}"
            for promise in dict.fromkeys(e.validity for e in self.estimates)
        ]
        return Group(*lines, *others, *promises, *(f"note: {note}" for note in self.notes))


def evaluate_offline(
    policy: Policy | ExportedPolicy | Judged,
    dataset: Dataset | str | Mapping[str, Any],
    *,
    methods: Sequence[str] | None = None,
    confidence: float = 0.95,
    discount: float | None = None,
    explore: bool = False,
    fqe: FQE | None = None,
    behaviour: BehaviourModel | Callable[[], Propensities] | None = None,
    seed: int = 0,
    fresh: bool = False,
    cost_limit: float | None = None,
) -> OfflineEvaluation:
    """Judge a policy from a dataset of another, before it goes live.

    The policy is judged on the episodes that it has not learnt from. Where the dataset has none of these, the verdict
    is never "yes" and says why.

    Args:
        policy: a Segue policy, exported or not, or any other as `segue.ope.DiscretePolicy` or
            `segue.ope.ContinuousPolicy`.
        dataset: its episodes judge the policy.
        methods: some of pdis, is, wdr, dr, wpdis, wis, fqe; the first gives the verdict of the whole. By default all
            that apply, in this order.
        confidence: 1 − δ of each one-sided bound.
        discount: γ; by default the algorithm's, or 1 where every episode has one step.
        explore: judge a Segue policy as it explores, instead of as it is evaluated.
        fqe: hyper-parameters of fitted Q evaluation, which dr and wdr need too.
        behaviour: how the behaviour policy is estimated where it has no propensities; or what gives them, called only
        if
            a method needs them, so that several policies can be judged by one estimate.
        seed: of fits and resamples.
        fresh: the dataset was recorded independently of training, although some of its episodes are equal to ones that
            the policy has learnt from, as happens in discrete problems. All of its episodes then judge the policy.
        cost_limit: also say whether the policy's mean cost of an episode, not discounted, is at most this. The dataset
            needs costs.

    Raises:
        SegueError: a method or a number that makes no sense, a policy that does not fit the dataset, or a method that
        was
            asked for by name and needs a density that the policy does not have.
    """
    dataset = (dataset if isinstance(dataset, Dataset) else load(dataset)).in_memory()
    if cost_limit is not None:
        dataset.require_cost("a limit on cost")
    if not dataset.rewards_known:
        raise SegueError(f"{dataset.source}: no 'rewards', so no policy has a value on it; add the column")
    chosen = METHODS if methods is None else tuple(methods)
    for method in chosen:
        if method not in METHODS:
            raise SegueError(unknown("method", method, METHODS))
    if not chosen or len(set(chosen)) < len(chosen):
        raise SegueError(f"methods are {', '.join(chosen) or 'none'}; expected some of {', '.join(METHODS)}, each once")
    if not 0.5 <= confidence < 1:
        raise SegueError(f"confidence is {confidence}; expected at least 0.5 and below 1")
    if discount is None and isinstance(policy, Policy):
        discount = policy.algorithm.discount
    if discount is None and isinstance(policy, ExportedPolicy):
        discount = policy.about["algorithm"]["discount"]
    if discount is None and dataset.episode_lengths.max() == 1:
        discount = 1.0  # nothing comes later, as in a bandit's log
    if discount is None:
        raise SegueError("this policy has no discount of its own; give one, between 0 and 1 (--discount)")
    if not 0 <= discount <= 1:
        raise SegueError(f"discount is {discount}; expected between 0 and 1")
    if len(dataset.episode_starts) < 2:
        raise SegueError(f"{dataset.source}: one episode; expected at least 2, or nothing is known of how they vary")
    target = judged(policy, explore) if isinstance(policy, Policy | ExportedPolicy) else policy
    if isinstance(target, DiscretePolicy) != dataset.spaces.discrete:
        raise RecipeError(
            f"the policy and the dataset have different kinds of actions; the dataset has {dataset.spaces.describe()}"
        )
    if isinstance(target, DiscretePolicy):
        target = target.checked(dataset.spaces.action_size)
    known = behaviour if callable(behaviour) else partial(propensities, dataset, behaviour or BehaviourModel(), seed)
    seen = NOTHING_SEEN if target.seen is None else target.seen
    basis = unseen(dataset.episode_fingerprints(), seen, fresh)
    evaluation = _Evaluation(target, dataset, basis, chosen, methods is None, confidence, discount, seed)
    evaluation.cost_limit = cost_limit
    if basis.refusal is not None:
        evaluation.notes.append(basis.refusal)
    if fresh and basis.seen:
        evaluation.notes.append(
            f"{basis.seen:,} episodes equal ones that the policy has learnt from; all count as new (fresh)"
        )
    if target.seen is None and not fresh:
        evaluation.notes.append(
            "the policy does not say which episodes it has learnt from (seen): a yes holds only if these are not among "
            "them"
        )
    return evaluation.run(fqe or FQE(), known)


class _Evaluation:
    """The steps of one evaluation, in order."""

    def __init__(
        self,
        policy: Judged,
        dataset: Dataset,
        basis: Unseen,
        methods: tuple[str, ...],
        skip: bool,
        confidence: float,
        discount: float,
        seed: int,
    ) -> None:
        self.policy, self.basis, self.methods, self.skip = policy, basis, methods, skip
        self.rows = np.repeat(basis.kept, dataset.episode_lengths)
        self.dataset = dataset if basis.kept.all() else dataset.episodes(np.flatnonzero(basis.kept))
        # The episodes that the policy has learnt from do not judge it, but they show what rewards are possible.
        self.whole = dataset
        self.limits = Limits.of_episodes(dataset, discount)
        self.confidence, self.discount, self.seed = confidence, discount, seed
        self.estimated = False
        """Whether the propensities are; weights then do not have mean 1, which exact bounds rest on."""
        self.cost_limit: float | None = None
        self.notes: list[str] = []
        self.clipped: list[str] = []

    def run(self, fqe: FQE, known: Callable[[], Propensities]) -> OfflineEvaluation:
        log_ratio = self.log_ratio(known)
        uses_model = {name for name, estimator in ESTIMATORS.items() if estimator.uses_model}
        fitted = self.fit(fqe) if {*uses_model, "fqe"} & set(self.methods) else None
        episodes = Episodes.of(
            self.dataset,
            self.discount,
            np.zeros(len(self.dataset)) if log_ratio is None else log_ratio,
            None if fitted is None else fitted.q,
            None if fitted is None else fitted.v,
        )
        whole = Episodes.of(self.whole, self.discount, np.zeros(len(self.whole)))
        episodes = dataclasses.replace(episodes, dataset=whole)
        self.note_cuts()
        estimates = [
            self.by_fqe(fitted) if method == "fqe" else self.by_weights(ESTIMATORS[method], episodes)
            for method in self.methods
        ]
        self.note_unfollowed(estimates, episodes)
        if self.clipped:
            self.notes.append(
                f"{', '.join(self.clipped)}: the value lay outside {self.limits}, the range that the rewards allow, "
                "and was moved into it"
            )
        means = bootstrap.resample(
            lambda counts: (counts @ episodes.returns / len(episodes))[:, None],
            len(episodes),
            rng.generator(self.seed, "bootstrap"),
        )[:, 0]
        low, high = (sign * bootstrap.lower_quantile(sign * means, self.confidence) for sign in (1, -1))
        return OfflineEvaluation(
            estimates=tuple(estimates),
            behaviour_value=float(episodes.returns.mean()),
            behaviour_bounds=(low, high),
            episodes=len(episodes),
            dataset_episodes=len(self.basis.kept),
            seen_episodes=self.basis.seen,
            basis=self.basis.headline,
            discount=self.discount,
            confidence=self.confidence,
            notes=tuple(self.notes),
            cost=None if self.cost_limit is None else self.judge_cost(self.cost_limit, log_ratio),
        )

    def judge_cost(self, limit: float, log_ratio: np.ndarray | None) -> CostEstimate:
        """The mean cost of an episode by per-decision importance sampling, whose bounds hold for every number."""
        method = PerDecision()

        def of(sign: float, ratio: np.ndarray) -> tuple[float, float, Support, float]:
            """Estimate and lower bound of the mean of sign · cost, the support, and the dataset's mean cost."""
            paid, whole = (
                dataclasses.replace(part, rewards=(sign * part.require_cost("a limit on cost")).astype(np.float32))
                for part in (self.dataset, self.whole)
            )
            episodes = Episodes.of(paid, 1.0, ratio)
            episodes = dataclasses.replace(episodes, dataset=Episodes.of(whole, 1.0, np.zeros(len(whole))))
            found = method.bounds(episodes, self.confidence, rng.generator(self.seed, "bootstrap"))
            value = float(method.estimate(episodes, np.ones((1, len(episodes))))[0])
            return value, found.value_lower, method.support(episodes), float(episodes.returns.mean())

        if log_ratio is None:
            behaviour = of(1.0, np.zeros(len(self.dataset)))[3]
            why = "no importance weights: logged actions have no probability, or no method by weights was asked for"
            verdict = Verdict("not enough evidence", why)
            return CostEstimate(limit, method.name, math.nan, -math.inf, math.inf, behaviour, verdict)
        value, lower, support, behaviour = of(1.0, log_ratio)
        upper = -of(-1.0, log_ratio)[1]
        exact = not self.estimated
        verdict = keeps(limit, lower, upper, self.confidence, self.basis.episodes, support, exact, self.basis.refusal)
        return CostEstimate(limit, method.name, value, lower, upper, behaviour, verdict)

    def log_ratio(self, known: Callable[[], Propensities]) -> np.ndarray | None:
        """log π(a|s) − log b(a|s) of every row; None if no method needs it or those that do are skipped."""
        weighted = [method for method in self.methods if method in ESTIMATORS]
        if not weighted:
            return None
        try:
            log_prob = self.policy.log_prob(
                self.dataset.observations, self.dataset.actions, self.dataset.allowed_actions
            )
        except NoDensity as error:
            if not self.skip:
                raise
            self.methods = tuple(method for method in self.methods if method not in ESTIMATORS)
            self.notes.append(f"left out: {', '.join(weighted)}: {error}")
            return None
        logged = known()
        self.notes.extend(logged.notes)
        self.estimated = logged.estimated
        return log_prob - logged.log_prob[self.rows]

    def fit(self, hyper_parameters: FQE) -> Fitted:
        fitted = fqe.fit(hyper_parameters, self.policy, self.dataset, self.discount, self.seed)
        if fitted.drift > fitted.standard_error:
            self.notes.append(
                f"fqe still moved by {fitted.drift:.3g} in the last quarter of its updates, more than its standard "
                f"error of {fitted.standard_error:.3g}: it has not converged; give it more steps"
            )
        if fitted.outside > 0:
            self.notes.append(
                f"fqe: {fitted.outside:.1%} of its values lay outside the range that the rewards allow "
                f"({fitted.limits} from the start of an episode) and were moved into it: its critic extrapolates"
            )
        if isinstance(self.policy, ContinuousPolicy):
            rows = np.linspace(0, len(self.dataset) - 1, min(1000, len(self.dataset))).astype(int)
            action = self.policy.draw(self.dataset.observations[rows], rng.generator(self.seed, "distance"))
            distance = float(np.sqrt(np.mean((action - self.dataset.actions[rows]) ** 2)))
            spread = float(np.sqrt(np.mean(self.dataset.actions.var(0, dtype=np.float64))))
            self.notes.append(
                f"the policy's actions differ from the dataset's by {distance:.2g} (root mean square; the dataset's "
                f"own spread is {spread:.2g}): the critic extrapolates where that is more than the spread"
            )
        return fitted

    def note_cuts(self) -> None:
        cut = ~self.dataset.episode_terminals
        if cut.any():
            left = float((self.discount ** self.dataset.episode_lengths[cut]).mean())
            self.notes.append(
                f"{cut.sum():,} of {len(cut):,} episodes were cut: estimates by weights, and the dataset's value, "
                f"count to the cut; fqe goes on beyond it (a reward there still counts {left:.2g} of one at the "
                "start), and is compared with the behaviour policy to the cut and the judged one after it"
            )

    def note_unfollowed(self, estimates: list[Estimate], episodes: Episodes) -> None:
        steps = episodes.rewards.shape[1]
        how = {"pdis": "pdis counts what it earns there as 0", "dr": "dr leaves that to its critic"}
        met = [how[e.method] for e in estimates if e.method in how and math.isfinite(e.value)]
        if episodes.followed < steps and met:
            self.notes.append(
                f"after step {episodes.followed:,} of {steps:,} no episode of the dataset does what the policy would "
                f"do: {', '.join(met)}"
            )

    def by_weights(self, estimator: Estimator, episodes: Episodes) -> Estimate:
        support = estimator.support(episodes)
        exact = estimator.exact_bounds and not self.estimated
        validity = ESTIMATED_VALIDITY if estimator.exact_bounds and self.estimated else estimator.validity
        value = float(estimator.estimate(episodes, np.ones((1, len(episodes))))[0])
        if math.isnan(value) or support.effective_episodes == 0:
            steps = episodes.rewards.shape[1]
            after = f"after step {episodes.followed:,} of {steps:,} " if episodes.followed else ""
            verdict = Verdict(
                "not enough evidence",
                f"it has no value: {after}no episode of the dataset does what the policy would do",
            )
            return Estimate(estimator.name, math.nan, NO_BOUNDS, validity, support, verdict)
        found = estimator.bounds(episodes, self.confidence, rng.generator(self.seed, "bootstrap"))
        bounds = self.limits.clip_bounds(found)
        better = value - float(episodes.returns.mean())
        if estimator.exact_bounds and (
            bounds.value_lower > value + ROUNDING * abs(value)
            or bounds.difference_lower > 0 > better
            or bounds.difference_upper < 0 < better
        ):
            self.notes.append(
                f"{estimator.name}: its bounds contradict its value, which takes the weights as they are: those of "
                "this dataset do not average 1, and the bounds use that over endless datasets they do. The bounds are "
                "valid only if the behaviour policy gives every action of the evaluated policy a non-zero probability"
            )
        if self.limits.beyond(np.array([value])).any():
            self.clipped.append(estimator.name)
        return Estimate(
            method=estimator.name,
            value=float(self.limits.clip(np.array([value]))[0]),
            bounds=bounds,
            validity=validity,
            support=support,
            verdict=self.decide(bounds, support, exact),
        )

    def by_fqe(self, fitted: Fitted | None) -> Estimate:
        assert fitted is not None
        bounds = fitted.bounds(self.confidence)
        verdict = self.decide(bounds, None, exact=False)
        return Estimate("fqe", fitted.estimate, bounds, FQE_VALIDITY, None, verdict)

    def decide(self, bounds: Bounds, support: Support | None, exact: bool) -> Verdict:
        return decide(bounds, self.confidence, self.basis.episodes, support, exact, self.basis.refusal)


def _shown(form: str, *numbers: float) -> str:
    return form.format(*numbers) if all(map(math.isfinite, numbers)) else "–"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
