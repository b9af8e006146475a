"""Where episodes end, by the flags of a dataset and by its observations, and what contradicts them."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

Rows = Float[np.ndarray, "N observation"]
Flags = Bool[np.ndarray, " N"]

#: From this share of distinct rows on, an observation that occurs twice is the same moment.
DISTINCT = 0.9
NO_TIMEOUTS = "no 'timeouts': episodes end at terminals only, so one that a time limit cut runs on into the next"
SHIFT = "with starts, timeouts = append(starts[1:], 1)"
#: A change of the observation this many times the usual one is a jump from one episode into another.
JUMP = 3.0


class Contradiction(Exception):
    """The columns contradict each other; the message says where, and what to do."""


@dataclasses.dataclass(frozen=True)
class Boundaries:
    """What follows for the N rows of a dataset."""

    ends: Flags
    """Last rows of episodes."""
    reset: Flags
    """Ends of cut episodes whose next observation is the first of the next episode, and not what followed."""
    notes: tuple[str, ...]


def boundaries(observations: Rows, following: Rows | None, terminals: Flags, timeouts: Flags | None) -> Boundaries:
    """Episode ends by terminals, time-outs and, where next observations are given, by those too.

    Args:
        observations: at each step, 32-bit.
        following: `next_observations`; None if the dataset has none.
        terminals: as the dataset has them.
        timeouts: None if the dataset does not say.

    Raises:
        Contradiction: if rows are not in order of time, or a column is not what its name says.
    """
    flagged = terminals if timeouts is None else terminals | timeouts
    moves = _moves(observations[:-1], observations[1:], observations)
    apart = moves > JUMP * np.median(moves) if len(moves) else moves > 0
    if following is None:
        _require_last_rows(flagged, apart, ~apart)
        _require_upright(terminals, flagged, apart, ~apart)
        notes = [] if timeouts is not None else [NO_TIMEOUTS]
        return Boundaries(flagged, np.zeros(len(flagged), bool), (*notes, *_suspicions(terminals, flagged)))
    _require_next(observations, following, flagged)
    joined, rounding = _joined(observations, following, flagged)
    # Where even ends are joined to the next row, only the observations tell.
    told = (apart, ~apart) if joined.all() else (~joined, joined)
    _require_last_rows(flagged, *told)
    _require_upright(terminals, flagged, *told)
    notes = [] if rounding is None else [rounding]
    found = np.append(~joined, False) & ~flagged
    distinct, place = _places(observations, following)
    if found.any():
        _require_order(found, place, distinct)
    if timeouts is None:
        notes.append(
            f"no 'timeouts': episodes end at terminals and where 'next_observations' is not the next row "
            f"({_count(found)} such ends found)"
        )
    elif found.any():
        notes.append(
            f"{_count(found)} forgotten time-outs: 'next_observations' is not the observation of the next row (first: "
            f"row {int(np.argmax(found))}), so an episode ends there too"
        )
    if found.sum() > max(0.5 * (~flagged).sum(), 10):
        notes.append(
            f"most rows do not go on in the next one ({found.sum() / len(found):.0%}), so most episodes have one step: "
            "if these are episodes, sort the rows by episode and step"
        )
    ends = flagged | found
    reset = np.append(joined, False) & ends
    if not (distinct and _restarts(observations, reset, ends, moves)):
        reset = np.zeros_like(reset)
    if reset.any():
        cut = reset & ~terminals
        notes.append(
            f"'next_observations' is the first observation of the next episode at {_count(reset)} of {_count(ends)} "
            f"episode ends (first: row {int(np.argmax(reset))}): the last step of {_count(cut)} cut episodes was left "
            "out; after a terminal it has no effect. Record the observation before the reset"
        )
    return Boundaries(ends, reset & ~terminals, (*notes, *_suspicions(terminals, flagged)))


def _count(flags: np.ndarray) -> str:
    return f"{int(flags.sum()):,}"


def _moves(before: Rows, after: Rows, every: Rows) -> Float[np.ndarray, " M"]:
    """How far apart two rows are, on average over the dimensions, in standard deviations."""
    return (np.abs(after - before) / (every.std(0, dtype=np.float64) + 1e-6)).mean(1)


def _require_next(observations: Rows, following: Rows, flagged: Flags) -> None:
    """Next observations that stay behind while the observations move on are a copy."""
    moved = (observations[1:] != observations[:-1]).any(1) & ~flagged[:-1]
    copied = moved & (following[:-1] == observations[:-1]).all(1)
    if copied.sum() > 0.9 * moved.sum():
        row = int(np.argmax(copied))
        raise Contradiction(
            f"'next_observations' is equal to 'observations' (first: row {row}, while row {row + 1} is another; "
            f"{_count(copied)} such rows); expected the observation after the step: leave the column out if every "
            "observation is in the next row"
        )


def _joined(observations: Rows, following: Rows, flagged: Flags) -> tuple[Bool[np.ndarray, " N-1"], str | None]:
    """Whether the next observation of each row is that of the row below it; and a note, if only almost."""
    exact = (following[:-1] == observations[1:]).all(1)
    inner = ~flagged[:-1]
    if exact[inner].mean() < 0.5 if inner.any() else False:
        slack = 1e-3 * observations.std(0, dtype=np.float64) + 1e-5 * np.abs(observations.mean(0, dtype=np.float64))
        close = (np.abs(following[:-1] - observations[1:]) <= slack).all(1)
        if close[inner].mean() > 0.5:
            row = int(np.argmax(inner & close & ~exact))
            return close, (
                f"'next_observations' differs from the next row by rounding ({_count(inner & close & ~exact)} rows, "
                f"first: row {row}): such rows count as one episode"
            )
    return exact, None


def _require_last_rows(flagged: Flags, apart: np.ndarray, joined: np.ndarray) -> None:
    """`apart` and `joined` [N - 1] say whether an episode seems to end at a row, or to go on."""
    marks = np.flatnonzero(flagged[:-1])
    if not flagged[0] or flagged[-1] or len(marks) < 2:
        return
    later = marks[marks > 0]
    if apart[later - 1].mean() > 0.8 and joined[marks].mean() > 0.8:
        raise Contradiction(
            f"'terminals' or 'timeouts' mark the first rows of episodes and not the last ones (row 0 is marked, row "
            f"{len(flagged) - 1} is not; {len(marks):,} marks, and the observations are apart before "
            f"{int(apart[later - 1].sum()):,} of them): expected last rows: {SHIFT}"
        )


def _require_upright(terminals: Flags, flagged: Flags, apart: np.ndarray, joined: np.ndarray) -> None:
    """`apart` and `joined` [N - 1] as above. `others` are what ends are if terminals are inverted."""
    timed_out = flagged & ~terminals
    others = (~terminals | timed_out)[:-1]
    marked = ~others
    if not terminals.mean() > 0.5 or not others.any() or not marked.any():
        return
    if joined[marked].mean() > 0.8 and apart[others].mean() > 0.8:
        row = int(np.argmax(terminals))
        raise Contradiction(
            f"'terminals' is inverted: it is set in {terminals.mean():.1%} of the rows (first: row {row}), and the "
            "episode goes on after them; expected 1 where an episode ends in a terminal state: use 1 - terminals"
        )


def _suspicions(terminals: Flags, flagged: Flags) -> tuple[str, ...]:
    """What only the places of the flags tell: likely, not certain."""
    if flagged[-1]:
        return ()
    lengths, others = np.diff(np.flatnonzero(flagged)), np.flatnonzero(~terminals)
    if flagged[0] and len(lengths) >= 2 and lengths.min() > 1:
        return (
            f"'terminals' or 'timeouts' may mark the first rows of episodes: row 0 is marked and row "
            f"{len(flagged) - 1} is not ({_count(flagged)} marks). Expected last rows: {SHIFT}",
        )
    if terminals.mean() > 0.5 and len(others) >= 2 and np.diff(others).min() > 1:
        return (
            f"'terminals' may be inverted: it is set in {terminals.mean():.1%} of the rows and not in the last one. "
            "Expected 1 where an episode ends in a terminal state: if so, use 1 - terminals",
        )
    return ()


def _require_order(found: Flags, place: np.ndarray, distinct: bool) -> None:
    """Refuse rows whose next observation is in another row than the next; `place` is where, or −1.

    `found` marks the rows, not flagged as ends, whose next observation is not in the next row. Where observations
    repeat, another row may hold the same one by chance.
    """
    elsewhere = found & (place >= 0)
    if distinct and elsewhere.sum() >= max(3, 0.1 * found.sum()):
        row = int(np.argmax(elsewhere))
        raise Contradiction(
            f"the rows are not in order of time: 'next_observations' of row {row} is the observation of row "
            f"{place[row]} ({_count(elsewhere)} such rows); expected it in row {row + 1}: sort the rows by episode "
            "and step"
        )


def _places(observations: Rows, following: Rows) -> tuple[bool, np.ndarray]:
    """Whether hardly any observation occurs twice; and the first row that holds each next observation, or −1."""
    both = np.concatenate([observations, following]) + np.float32(0)  # −0.0 equals 0.0
    hashes = np.zeros(len(both), np.uint64)
    for column in both.view(np.uint32).T:
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    _, number = np.unique(hashes, return_inverse=True)
    rows, wanted = np.split(number, 2)
    place = np.full(int(number.max()) + 1, -1)
    place[rows[::-1]] = np.arange(len(rows))[::-1]
    return len(np.unique(rows)) >= DISTINCT * len(rows), place[wanted]


def _restarts(observations: Rows, joined: Flags, ends: Flags, moves: np.ndarray) -> bool:
    """Whether ends that are joined to the next row are restarts, and not the seams of one long run cut into parts."""
    inner, at = ~ends[:-1], ends[:-1]
    if not inner.any() or not joined.any() or joined.sum() < 0.5 * at.sum():
        return False
    half = len(observations) // 2
    random = _moves(observations[:half], observations[half : 2 * half], observations)
    usual = np.median(moves[inner])
    return not (usual < 0.5 * np.median(random) and np.median(moves[at]) <= JUMP * usual)
