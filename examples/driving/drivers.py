"""The drivers whose journeys are logged: IDM and MOBIL by highway-env, in three styles, through meta-actions."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from examples.driving.roads import SPEEDS
from highway_env.vehicle.behavior import IDMVehicle

LEFT, IDLE, RIGHT, FASTER, SLOWER = range(5)


class Style(NamedTuple):
    """How a driver drives."""

    time_gap: float
    """To the vehicle ahead, in s."""
    speed: float
    """Wanted, in m/s."""
    gain: float
    """Acceleration that a change of lane has to bring, in m/s²."""
    imposed: float
    """Braking that it may impose on others, in m/s²."""
    noise: float
    """Share of actions that are drawn uniformly: slips, and what the log explores."""


STYLES = {
    "timid": Style(2.5, 22.0, 1.0, 1.0, 0.03),
    "normal": Style(1.5, 26.0, 0.3, 2.0, 0.05),
    "aggressive": Style(0.6, 33.0, 0.1, 6.0, 0.08),
}


def decide(env: Any, style: Style, source: np.random.Generator) -> int:
    """The meta-action of a driver of this style in a highway-env."""
    if source.random() < style.noise:
        return int(source.integers(5))
    ego, road = env.vehicle, env.road
    twin = IDMVehicle.create_from(ego)
    twin.TIME_WANTED, twin.target_speed = style.time_gap, style.speed
    twin.LANE_CHANGE_MIN_ACC_GAIN, twin.LANE_CHANGE_MAX_BRAKING_IMPOSED = style.gain, style.imposed
    vehicles, road.vehicles = road.vehicles, [twin if vehicle is ego else vehicle for vehicle in road.vehicles]
    try:
        steady = ego.lane_index == ego.target_lane_index
        for lane in road.network.side_lanes(ego.lane_index) if steady else ():
            if road.network.get_lane(lane).is_reachable_from(ego.position) and twin.mobil(lane):
                return LEFT if lane[2] < ego.lane_index[2] else RIGHT
        wanted = ego.speed + twin.acceleration(twin, *road.neighbour_vehicles(twin))
    finally:
        road.vehicles = vehicles
    now = ego.speed_to_index(ego.speed)
    reached = {IDLE: ego.target_speed, FASTER: SPEEDS[min(now + 1, 7)], SLOWER: SPEEDS[max(now - 1, 0)]}
    return min(reached, key=lambda action: abs(reached[action] - wanted))


def log_of(name: str, road: type, episodes: int, seed: int) -> dict[str, np.ndarray]:
    """The journeys of drivers of this style on this road, as columns."""
    env, rows = road(), []
    for episode in range(episodes):
        source = np.random.default_rng((seed, episode))
        seen, over = env.reset(seed=int(source.integers(2**31)))[0], False
        while not over:
            action = decide(env, STYLES[name], source)
            following, reward, terminated, truncated, info = env.step(action)
            rows.append((seen, action, reward, following, terminated, truncated and not terminated, info["crashed"]))
            seen, over = following, terminated or truncated
    names = ("observations", "actions", "rewards", "next_observations", "terminals", "timeouts", "cost")
    return {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
