"""What every algorithm must compute, in float64 NumPy, written from the papers and from nothing in segue's code.

A reference module is named like its algorithm (`td3-bc` → `td3_bc.py`) and holds

    VARIANTS        name → hyper-parameters to check; the first is the default
    CONSERVATIVE    whether its policy stays inside the support of a dataset
    PROBE           hyper-parameters for the probe logs, besides those shared by all
    REACH           optional: how far towards the bounds its actions come on a dataset that has them all; 0.7 if not
    given

and a function for each quantity that the algorithm's roles call for: target and critic_loss (critic), actor_loss
(the policy), value_loss, behaviour_loss, temperature_loss, multiplier_loss. `h` is the algorithm (hyper-parameters
only), `nets` raw weights, `key` the one the shared update passes on; random numbers are drawn from it as the algorithm
documents. Actions are vectors or, for an algorithm that has discrete ones, integers.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import pytest


def reference(name: str) -> ModuleType:
    """The reference of this algorithm; without one the test fails."""
    module = name.replace("-", "_")
    try:
        return importlib.import_module(f"references.{module}")
    except ModuleNotFoundError as error:
        if error.name != f"references.{module}":
            raise
        pytest.fail(f"{name} has no NumPy reference: write tests/algorithms/references/{module}.py")


def variants(name: str) -> dict[str, dict[str, object]]:
    """The variants to check; one by the name `default` while there is no reference to list them."""
    try:
        return importlib.import_module(f"references.{name.replace('-', '_')}").VARIANTS
    except ModuleNotFoundError:
        return {"default": {}}
