"""Record the benchmark datasets that are not there yet: `python -m studies.data` (`make data`); minutes, not hours.

They go to the local Minari root (MINARI_DATASETS_PATH, or ~/.minari/datasets) and load as minari:segue/…. A dataset is
there whole or not at all, so the command goes on where it was interrupted; `--only` names some of them. The table goes
to table.json and README.md. `--door FILE.hdf5` adds the row of the Adroit demonstrations, which stay where they are.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import segue
from segue.data import minari
from segue.envs.record import record
from segue.errors import DataError
from segue.files import write_atomically
from studies.data.recipes import Recipe, recipes
from studies.page import put

HERE = Path(__file__).parent
SEED = 0
DOOR = "d4rl:adroit-door-human.hdf5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="ID", help="this dataset (may be given again)")
    parser.add_argument("--door", type=Path, help="the Adroit door demonstrations, in D4RL's layout")
    options = parser.parse_args()
    for name in options.only or ():
        if name not in recipes():
            parser.error(f"--only {name}: there is {', '.join(recipes())}")
    file = HERE / "table.json"
    table: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for name, recipe in recipes().items():
        if name not in (options.only or recipes()):
            continue
        there = _exists(name)
        folder = _folder(name) if there else make(name, recipe)
        table[name] = {"made of": str(recipe), **describe(f"minari:{name}", folder)}
        print(f"minari:{name}: {'there already' if there else 'recorded'}: {line(table[name])}", flush=True)
    if options.door:
        about = describe(f"d4rl:{options.door}", options.door)
        table[DOOR] = {"made of": "AdroitHandDoor-v1: 25 human demonstrations", **about}
    table = {name: table[name] for name in [*recipes(), DOOR] if name in table}
    write_atomically(file, json.dumps(table, indent=1) + "\n")
    write_readme(table)


def make(name: str, recipe: Recipe) -> Path:
    """Record all parts, and write them as one dataset."""
    episodes = []
    for number, part in enumerate(recipe.parts):
        acting = part.acting(recipe.env_id)
        episodes += record(acting, recipe.env_id, part.steps, explore=True, seed=SEED, part=number)
    return minari.write(name, episodes, env_id=recipe.env_id, description=str(recipe), algorithm="studies.data")


def describe(uri: str, place: Path) -> dict[str, Any]:
    """What the table says of a dataset."""
    log = segue.load(uri, clip_actions=True)
    returns = log.episode_returns
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {
        "episodes": len(returns),
        "steps": len(log),
        "mean": round(float(np.mean(returns)), 1),
        "lowest": round(float(np.min(returns)), 1),
        "highest": round(float(np.max(returns)), 1),
        "bytes": sum(path.stat().st_size for path in files),
    }


def line(row: dict[str, Any]) -> str:
    return (
        f"{row['episodes']:,} episodes, {row['steps']:,} steps, mean return {row['mean']:,.0f} "
        f"({round(row['lowest']):,} to {round(row['highest']):,})"
    )


def write_readme(table: dict[str, Any]) -> None:
    head = ("dataset", "made of", "episodes", "steps", "mean return", "lowest", "highest", "MB")
    rows = ["| " + " | ".join(head) + " |", "| :-- | :-- |" + " --: |" * 6]
    for name, row in table.items():
        returns = (f"{round(row[which]):,}".replace("-", "−") for which in ("mean", "lowest", "highest"))
        cells = (f"`{name}`", row["made of"], f"{row['episodes']:,}", f"{row['steps']:,}", *returns)
        rows.append("| " + " | ".join((*cells, f"{row['bytes'] / 1e6:.1f}")) + " |")
    put(HERE / "README.md", "table", "\n".join(rows))


def _exists(name: str) -> bool:
    try:
        minari.require_free(name)
    except DataError:
        return True
    return False


def _folder(name: str) -> Path:
    from minari.storage import get_dataset_path

    return Path(get_dataset_path(name))


if __name__ == "__main__":
    main()
