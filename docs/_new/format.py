"""NewPart: `new-part:FILE`, a line of numbers per step: observation, action, reward, terminal."""

from __future__ import annotations

import numpy as np

from segue.data.dataset import Columns
from segue.errors import DataError


def read(name: str) -> Columns:
    """Columns of one text file; the last three numbers of a line are action, reward and terminal.

    Raises:
        DataError: the file cannot be read, or its lines are not numbers of one length.
    """
    try:
        rows = np.loadtxt(name, dtype=np.float32, ndmin=2)
    except OSError as error:
        raise DataError(f"new-part:{name}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"new-part:{name}: {error}; expected numbers, as many in each line") from error
    return Columns(observations=rows[:, :-3], actions=rows[:, -3:-2], rewards=rows[:, -2], terminals=rows[:, -1] != 0)
