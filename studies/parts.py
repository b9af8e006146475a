"""A study of several parts: all of them, or those that are named, each stored as it ends."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from segue.files import write_atomically


def run(description: str | None, file: Path, parts: Mapping[str, Callable[[], Any]]) -> dict[str, Any]:
    """What the file holds once the parts that the command line names have run."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="*", help=f"of {', '.join(parts)}; by default all")
    names = parser.parse_args().part
    for name in names:
        if name not in parts:
            parser.error(f"no part is called {name!r}; expected one of {', '.join(parts)}")
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    started = time.monotonic()
    for name in names or parts:
        results[name] = parts[name]()
        print(f"{name}: {time.monotonic() - started:.0f} s since the start", flush=True)
        write_atomically(file, json.dumps(results, indent=1) + "\n")
    return results
