"""`python -m segue.conformance`: test parts; what it does not know goes to pytest."""

from __future__ import annotations

import argparse
import sys

from segue import conformance
from segue.errors import SegueError, unknown
from segue.plugins import import_module


def main() -> int:
    """Exit codes: pytest's; 2 for a part or a module that is not there."""
    parser = argparse.ArgumentParser(prog="python -m segue.conformance", description=__doc__, allow_abbrev=False)
    parser.add_argument("--part", action="append", default=[], metavar="NAME", help="only this part; may be repeated")
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], metavar="MODULE", help="what registers"
    )
    flags, rest = parser.parse_known_args()
    try:
        for module in flags.imports:
            import_module(module, "--import: ")
        names = [name for registry in conformance.known().values() for name in registry]
        for part in flags.part:
            if part not in names:
                raise SegueError(unknown("part", part, names))
        conformance.WANTED.extend(flags.part)
    except SegueError as error:
        print(f"segue: {error}", file=sys.stderr)
        return 2
    import pytest

    return int(pytest.main(["--pyargs", "segue.conformance", "-p", "no:cacheprovider", *rest]))


if __name__ == "__main__":
    sys.exit(main())
