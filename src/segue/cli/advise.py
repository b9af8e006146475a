"""`segue advise`: what to do with a dataset."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import tyro

from segue.cli.dataset_flags import ColumnFlags, given, named
from segue.cli.env_flags import json_flag
from segue.cli.parse import parse
from segue.console import PlainConsole


@dataclasses.dataclass(frozen=True)
class Flags:
    """Which dataset, and where its policy is to live."""

    uri: tyro.conf.Positional[str]
    """segue:NAME, minari:ID, lerobot:FOLDER, mapped:FOLDER, live:LOG, or d4rl:, npz:, csv:, parquet: or ndjson:
    and a file."""
    columns: ColumnFlags
    env: str | None = None
    """The live environment, if it is not the dataset's; `none` if there is none."""
    env_kwargs: Annotated[str, tyro.conf.arg(metavar="JSON")] = "{}"
    """Arguments of the environment."""
    max_episode_steps: int | None = None
    """Steps after which the live environment ends an episode, if not those of its registration."""
    online_steps: int | None = None
    """Live steps that there are to be, if not 50,000; with few of them another recipe is better."""
    clip_actions: bool = False
    """Clip actions outside their bounds instead of refusing the dataset."""
    no_trial: Annotated[bool, tyro.conf.arg(name="no-trial"), tyro.conf.FlagCreatePairsOff] = False
    """Do not time a short trial on this machine."""
    json: bool = False
    """Print JSON."""


def main(arguments: list[str]) -> int:
    """Print what is in it, what is likely to happen at the handover, the recipe and its cost."""
    flags = parse(
        Flags, arguments, "advise", "What to do with a dataset: what to expect at the handover, a recipe, and its cost."
    )
    from segue.advice import advise

    task: dict[str, Any] = {"clip_actions": flags.clip_actions}
    if flags.env is not None:
        task["env"] = flags.env
    kwargs = json_flag("--env-kwargs", flags.env_kwargs, dict)
    if kwargs:
        task["env_kwargs"] = kwargs
    for field in ("max_episode_steps", "online_steps"):
        if (steps := getattr(flags, field)) is not None:
            task[field] = steps
    advice = advise(named(flags.uri, given(flags.columns)), not flags.no_trial, **task)
    if flags.json:
        print(json.dumps(advice.to_dict(), indent=1))
    else:
        PlainConsole().print(advice, crop=False)  # soft_wrap would cut what stands indented
    return 0
