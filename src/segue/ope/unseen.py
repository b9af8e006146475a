"""Which episodes of a dataset can judge a policy: those that it has not learnt from.

A policy that chose its actions by the rewards of some episodes looks better on these episodes than it is, even where
rewards are noise. Episodes are recognised by their fingerprints, as multisets: D of the dataset, S of the policy.

- Nothing of D is in S: all episodes judge.
- D contains S, as the dataset of the policy's own run does: D − S judges. This is also right where episodes repeat each
  other exactly, since equal episodes are interchangeable.
- Each episode that is in both is there only once: D − S judges.
- Otherwise D may be new data of a discrete problem, in which equal episodes occur by chance. Leaving them out would
  distort the dataset, and keeping them would judge the policy by what it may have learnt from. All episodes are used,
  and the answer is never "yes".
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, UInt64

#: Fewer episodes than this say nothing of how they vary.
FEWEST = 2


@dataclasses.dataclass(frozen=True)
class Unseen:
    """The episodes that judge a policy."""

    kept: Bool[np.ndarray, " episodes"]
    """Which of the dataset's episodes these are."""
    seen: int = 0
    """How many of the dataset's episodes are equal to ones that the policy has learnt from."""
    refusal: str | None = None
    """Why these episodes cannot show that the policy is better; None if they can."""

    @property
    def episodes(self) -> str:
        """Their number, and what they are if some were left out."""
        count = f"{self.kept.sum():,}"
        return f"{count} episodes" if self.kept.all() else f"{count} episodes that the policy has not learnt from"

    @property
    def headline(self) -> str:
        """Their number beside that of the dataset."""
        count, whole = f"{self.kept.sum():,}", f"{len(self.kept):,}"
        if not self.kept.all():
            return f"{count} of {whole} episodes: those that the policy has not learnt from"
        return f"{whole} episodes" + (
            f", {self.seen:,} of which equal ones that the policy has learnt from" if self.seen else ""
        )


def unseen(dataset: UInt64[np.ndarray, " episodes"], seen: UInt64[np.ndarray, " seen"], fresh: bool = False) -> Unseen:
    """The episodes of a dataset that can judge a policy.

    Args:
        dataset: fingerprints of the dataset's episodes.
        seen: fingerprints of the episodes that the policy has learnt from.
        fresh: the dataset was recorded independently of training, so all episodes can.
    """
    every = np.ones(len(dataset), bool)
    values, which, count = np.unique(dataset, return_inverse=True, return_counts=True)
    known, times = np.unique(seen, return_counts=True)
    shared, here, there = np.intersect1d(values, known, assume_unique=True, return_indices=True)
    matched = np.zeros(len(values), int)
    matched[here] = np.minimum(count[here], times[there])
    total = int(matched.sum())
    if fresh or not total:
        return Unseen(every, total)
    # The first of equal episodes are left out; they are interchangeable.
    order = np.argsort(which, kind="stable")
    rank = np.empty(len(dataset), int)
    rank[order] = np.arange(len(dataset)) - np.repeat(np.cumsum(count) - count, count)
    kept = rank >= matched[which]
    contained = len(shared) == len(known) and (count[here] >= times[there]).all()
    single = (count[here] == 1).all() and (times[there] == 1).all()
    if (contained or single) and kept.sum() >= FEWEST:
        return Unseen(kept, total)
    if contained or single:
        which_ones = "all" if total == len(dataset) else f"{total:,} of the"
        return Unseen(
            every,
            total,
            f"the policy has learnt from {which_ones} {len(dataset):,} episodes, and it looks better on these than it "
            "is; hold some out when you train (held_out, --held-out), or judge it on another dataset",
        )
    return Unseen(
        every,
        total,
        f"{total:,} of the {len(dataset):,} episodes equal ones that the policy has learnt from, and these may be the "
        "same ones; if the dataset was recorded independently of training, say so (fresh=True, --fresh)",
    )
