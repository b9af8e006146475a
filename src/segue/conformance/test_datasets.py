"""What every reader of datasets must keep to."""

from __future__ import annotations

import socket

import pytest

from segue.data import FORMATS, load
from segue.errors import DataError


def test_what_is_not_there_is_an_error_that_names_it(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no traceback of the reader's own, also without a network."""

    def refuse(*_: object) -> None:
        raise OSError("there is no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert (FORMATS[scheme].__doc__ or "").strip()
    with pytest.raises(DataError) as caught:
        load(f"{scheme}:no/such-place-v0")
    assert "such-place" in str(caught.value)
