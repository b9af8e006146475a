"""A Ray cluster in processes of this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read at the import: nothing listens to the network
ray = pytest.importorskip("ray", reason="needs Ray: pip install 'segue[ray]'")


@contextlib.contextmanager
def cluster_of_two_nodes(cores: int) -> Iterator[Any]:
    """A head that does nothing, and `nodes`, two with so many cores."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=cores) for _ in range(2)]
    try:
        yield made
    finally:
        if ray.is_initialized():
            ray.shutdown()
        made.shutdown()
