"""What the numbers of observations and actions mean: the names and categories of the columns that they come from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from segue.errors import DataError


@dataclasses.dataclass(frozen=True)
class Encoding:
    """Names of a policy's inputs and outputs, where the dataset was a table."""

    observations: tuple[str, ...]
    """Of each number of an observation: a column (`speed`), an entry of a list (`state[3]`), or a category
    (`city=Berlin`: 1 where the column holds that text, otherwise 0)."""
    actions: tuple[str, ...]
    """Of each action dimension; of discrete actions what each number stands for."""
    categories: Mapping[str, tuple[str, ...]]
    """By column of text: its values, in the order in which they are numbered."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Encoding:
        """The encoding of `to_dict`, also after JSON.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: if the data is not of that form.
        """
        categories = {str(column): tuple(map(str, values)) for column, values in plain["categories"].items()}
        return cls(tuple(map(str, plain["observations"])), tuple(map(str, plain["actions"])), categories)

    @classmethod
    def from_json(cls, source: str, text: str) -> Encoding:
        """The encoding of `to_json`.

        Raises:
            DataError: naming the source, if the text is not of that form.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{source}: 'encoding' is not what Segue writes ({error}); leave it out") from error

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict())
