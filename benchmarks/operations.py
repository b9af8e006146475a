"""The floating-point operations that an update cannot do without, counted from its layers' shapes.

Only matrix products are counted, a multiplication and an addition each: activations, Adam and Polyak averages come on
top, and no share of the matmul rate can be 100 %. A gradient by a network's inputs is counted for the action columns
only, and none where nothing needs it.
"""

from __future__ import annotations

from benchmarks.shapes import ACTION, BATCH, HIDDEN, OBSERVATION

ACTOR, CRITIC, VALUE = (OBSERVATION, 2 * ACTION), (OBSERVATION + ACTION, 1), (OBSERVATION, 1)


def forward(net: tuple[int, int]) -> int:
    """One pass of a batch through a network with two hidden layers."""
    inputs, outputs = net
    return 2 * BATCH * (inputs * HIDDEN + HIDDEN * HIDDEN + HIDDEN * outputs)


def by_parameters(net: tuple[int, int]) -> int:
    """Backward by the parameters: those of every layer, and through every layer but the first."""
    _, outputs = net
    return forward(net) + 2 * BATCH * (HIDDEN * HIDDEN + HIDDEN * outputs)


def by_action(net: tuple[int, int]) -> int:
    """Backward by the action columns of the input alone."""
    _, outputs = net
    return 2 * BATCH * (ACTION * HIDDEN + HIDDEN * HIDDEN + HIDDEN * outputs)


def critic_step(members: int = 2) -> int:
    """Squared Bellman error: forward and backward by the parameters."""
    return members * (forward(CRITIC) + by_parameters(CRITIC))


def sac(members: int = 2) -> int:
    """A draw at s′ and its target values; the critics; a draw at s, its values, and back to the actor."""
    target = forward(ACTOR) + members * forward(CRITIC)
    actor = forward(ACTOR) + members * (forward(CRITIC) + by_action(CRITIC)) + by_parameters(ACTOR)
    return target + critic_step(members) + actor


def td3_bc() -> int:
    """TD3's target and critics; every second time the actor, through the first critic."""
    target = forward(ACTOR) + 2 * forward(CRITIC)
    actor = forward(ACTOR) + forward(CRITIC) + by_action(CRITIC) + by_parameters(ACTOR)
    return target + critic_step() + actor // 2


def iql() -> int:
    """V against the target critics; Q against V(s′); the actor by the new target critics and V."""
    value = forward(VALUE) + by_parameters(VALUE) + 2 * forward(CRITIC)
    actor = 2 * forward(CRITIC) + forward(VALUE) + forward(ACTOR) + by_parameters(ACTOR)
    return value + forward(VALUE) + critic_step() + actor


PER_UPDATE = {"sac": sac(), "td3-bc": td3_bc(), "iql": iql()}
