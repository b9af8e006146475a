"""Logged data: one file per format, every one read into the same validated `Dataset`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from numpy.typing import ArrayLike

from segue.data import arrays, bundle, d4rl, minari, npz
from segue.data.bundle import bundled
from segue.data.dataset import Columns, Dataset, OutOfRange
from segue.errors import DataError, unknown
from segue.plugins import Registry

__all__ = ["FORMATS", "Columns", "Dataset", "bundled", "load"]

#: Reader by the scheme of its URIs. A reader gets what follows the colon and returns the columns.
FORMATS: Registry[Callable[[str], Columns]] = Registry(
    "dataset", {"segue": bundle.read, "minari": minari.read, "d4rl": d4rl.read, "npz": npz.read}
)


def load(uri: str | Mapping[str, ArrayLike], *, clip_actions: bool = False) -> Dataset:
    """Read and validate a dataset.

    Args:
        uri: `segue:NAME` (bundled), `minari:ID`, `d4rl:FILE.hdf5`, `npz:FILE`, or a dict of arrays with one
            row per step: `observations, actions, rewards, terminals`, optional `timeouts, next_observations,
            behaviour_log_prob`, and optional metadata `env_id, action_low, action_high, discrete_actions`.
        clip_actions: clip actions outside their bounds, and note it, instead of refusing the dataset.

    Raises:
        DataError: naming the source, the column and the row, what was expected, and what to do.
    """
    out_of_range: OutOfRange = "clip" if clip_actions else "error"
    if isinstance(uri, Mapping):
        return _validated(lambda: arrays.read(uri, "dict of arrays"), "dict of arrays", out_of_range)
    scheme, colon, name = str(uri).partition(":")
    if not colon:
        raise DataError(_without_scheme(scheme))
    if scheme not in FORMATS:
        raise DataError(f"{uri}: {unknown('dataset scheme', scheme, FORMATS)}")
    if not name:
        raise DataError(f"{uri}: nothing follows the colon; expected {uri}NAME")
    return _validated(lambda: FORMATS[scheme](name), str(uri), out_of_range)


def _validated(read: Callable[[], Columns], source: str, out_of_range: OutOfRange) -> Dataset:
    try:
        return Dataset.from_columns(read(), source, out_of_range)
    except MemoryError as error:
        raise DataError(
            f"{source}: does not fit into memory ({error}); use a machine with more, or fewer rows"
        ) from None


_LIKELY_SCHEMES = {r"\.(hdf5|h5)$": "d4rl", r"\.npz$": "npz", r"-v\d+$": "minari"}


def _without_scheme(name: str) -> str:
    """Words for a URI that is a bare name: the scheme it probably needs."""
    likely = [scheme for pattern, scheme in _LIKELY_SCHEMES.items() if re.search(pattern, name)]
    if name in bundled():
        likely = ["segue"]
    if likely:
        return f"{name}: a dataset needs its scheme; did you mean {likely[0]}:{name}?"
    datasets = ", ".join(f"segue:{dataset}" for dataset in bundled())
    return f"{name!r}: a dataset needs its scheme, one of {', '.join(FORMATS)}; bundled: {datasets or 'none'}"
