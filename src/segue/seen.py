"""What a policy has learnt from, as fingerprints of episodes (`segue.data.Dataset.episode_fingerprints`)."""

from __future__ import annotations

import numpy as np

#: Of a policy that has learnt from no dataset.
NOTHING_SEEN = np.zeros(0, np.uint64)
