"""Two versions compared: what cannot be compared is refused, or is a row that says why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import against
from benchmarks.turns import ROOT, Failed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{empty}"], "is no checkout of Segue: it has no folder benchmarks/contestants"),
        (["{root}", "udpates"], "unknown group udpates; expected start, updates, runs"),
        (["{root}", "--turns", "0"], "--turns is 0; expected at least 1"),
    ],
)
def test_what_is_no_comparison_is_refused(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["against", *(word.format(empty=tmp_path, root=ROOT) for word in arguments)])
    with pytest.raises(SystemExit):
        against.main()
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("error", [Failed("it ended"), subprocess.CalledProcessError(1, "python"), KeyError("cpu")])
def test_what_the_other_version_cannot_do_is_a_row(error: Exception) -> None:
    def fails() -> against.Row:
        raise error

    row = against.measured("sac", fails)
    assert (row.name, row.ratio) == ("sac", None)
    assert row.note


def test_the_package_of_the_other_checkout_is_imported_and_not_ours(tmp_path: Path) -> None:
    (tmp_path / "src" / "segue").mkdir(parents=True)
    (tmp_path / "src" / "segue" / "__init__.py").write_text("")
    code = f"import segue; assert segue.__file__.startswith({str(tmp_path)!r}), segue.__file__"
    assert against.spent(code, tmp_path, str(tmp_path / "compiled")) > 0
    assert not list((tmp_path / "src").rglob("*.pyc"))
