"""A whole run of Segue, cut into turns: `runs LAP RECIPE-JSON`, recorded, evaluated and reported as any run is."""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

from benchmarks.gate import Gate, Laps


def settle() -> None:
    """Wait for the updates that the online loop leaves running."""
    import jax

    for array in jax.live_arrays():
        if not array.is_deleted():
            array.block_until_ready()


def main() -> None:
    gate = Gate()
    gate.ready()
    import segue

    laps = Laps(gate, int(sys.argv[1]), settle)
    recipe = segue.Recipe.from_dict(json.loads(sys.argv[2]))

    def on_event(job: Any, event: dict[str, Any]) -> None:
        if event["event"] == "progress" and event["phase"] in ("offline", "online"):
            laps(event["phase"], event["step"])

    with tempfile.TemporaryDirectory() as out:
        result = segue.run(recipe, out, workers=1, on_event=on_event)
        assert result.status == "complete", result.summary
        gate.done()


if __name__ == "__main__":
    main()
