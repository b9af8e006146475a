"""What every reader of datasets must keep to."""

from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from segue.conformance import KINDS, dataset
from segue.core import Spaces
from segue.data import FORMATS, load
from segue.data.convert import WRITERS, convert
from segue.errors import DataError


def test_what_is_not_there_is_an_error_that_names_it(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no traceback of the reader's own, also without a network."""

    def refuse(*_: object) -> None:
        raise OSError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between attempts
    assert (FORMATS[scheme].__doc__ or "").strip()
    with pytest.raises(DataError) as caught:
        load(f"{scheme}:no/such-place-v0")
    assert "such-place" in str(caught.value)


@pytest.mark.parametrize("spaces", KINDS.values(), ids=KINDS)
def test_what_is_written_is_read_back(
    scheme: str, spaces: Spaces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the formats that can be written."""
    if scheme not in WRITERS:
        pytest.skip("read only")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    before = dataset(spaces)
    # As a recording has it, the observation after a step is that of the next row.
    following = before.observations[before.next_rows()]
    inner = (before.next_rows() >= 0)[:, None]
    before = dataclasses.replace(before, next_observations=np.where(inner, following, before.next_observations))
    place = "made/log-v0" if scheme == "minari" else f"{tmp_path}/log.{scheme}"
    after = load(convert(before, f"{scheme}:{place}")[0])
    assert after.fingerprint() == before.fingerprint()
    assert after.spaces == before.spaces
