"""Roads of highway-env with its own vehicles and dynamics, observed and searched without pandas, and what is measured.

Highway and merge, driven by meta-actions once a second (left, idle, right, faster, slower) and simulated at 5 Hz.
`Track` is the test track: denser and more aggressive traffic, a highway or a merge as the seed decides.
"""

from __future__ import annotations

import functools
from typing import Any

import gymnasium as gym
import numpy as np
from highway_env.envs.common.abstract import AbstractEnv
from highway_env.envs.common.action import DiscreteMetaAction
from highway_env.envs.common.observation import KinematicObservation
from highway_env.envs.highway_env import HighwayEnvFast
from highway_env.envs.merge_env import MergeEnv
from highway_env.road.road import Road, RoadNetwork
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.controller import MDPVehicle

#: Speeds that the cruise control can be set to, in m/s.
SPEEDS = np.linspace(0, 35, 8)
#: Vehicles observed, the driven one among them, and how many numbers each.
SEEN, FEATURES = 7, 5
#: Farther ahead than this, in m, nobody is followed.
FOLLOWING = 100.0
HERTZ = 5
#: In m/s; a second at it earns a reward of 1, a slower one its share.
SPEED_LIMIT = 30.0
#: What a crash costs: half a minute at the limit that ends in one earns 10, less than a slow and careful driver.
CRASH_COST = 20.0
#: Cost per mean squared jerk, in m²/s⁶: a tenth of the limit's reward for 10 m/s³.
JERK_WEIGHT = 0.001


class Pushy(IDMVehicle):
    """Traffic of the test track: closes up, and cuts in where others have to brake hard."""

    TIME_WANTED = 0.8
    DISTANCE_WANTED = 2.0 + IDMVehicle.LENGTH
    LANE_CHANGE_MIN_ACC_GAIN = 0.1
    LANE_CHANGE_MAX_BRAKING_IMPOSED = 5.0


class Traffic(Road):
    """A road whose lanes are all straight, along x: neighbours by comparing numbers, which finds the same ones."""

    def neighbour_vehicles(self, vehicle: Any, lane_index: Any = None) -> tuple[Any, Any]:
        """The vehicles ahead and behind on this lane."""
        lane = self.network.get_lane(lane_index or vehicle.lane_index)
        (x0, y0), reach, end = lane.start.tolist(), lane.width / 2 + 1, lane.length + lane.VEHICLE_LENGTH
        here = vehicle.position[0] - x0
        front: tuple[float, Any] = (np.inf, None)
        rear: tuple[float, Any] = (-np.inf, None)
        for other in self.vehicles:
            x, y = other.position.tolist()
            x -= x0
            if other is vehicle or abs(y - y0) > reach or not -lane.VEHICLE_LENGTH <= x < end:
                continue
            if here <= x <= front[0]:
                front = x, other
            elif rear[0] < x < here:
                rear = x, other
        return front[1], rear[1]


class Ego(MDPVehicle):
    """The driven vehicle, which remembers its accelerations at the simulation's rate."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.accelerations: list[float] = []

    def step(self, dt: float) -> None:
        """One frame of the simulation."""
        super().step(dt)
        self.accelerations.append(float(self.action["acceleration"]))


class MetaAction(DiscreteMetaAction):
    """highway-env's, for this vehicle."""

    @property
    def vehicle_class(self) -> Any:
        """With the speeds that it may be set to."""
        return functools.partial(Ego, target_speeds=SPEEDS)


class Kinematics(KinematicObservation):
    """highway-env's observation, without pandas."""

    def observe(self) -> np.ndarray:
        """Presence, x, y, vx, vy: of the driven vehicle, and of the nearest relative to it."""
        ego, road = self.observer_vehicle, self.env.road
        near = road.close_objects_to(ego, self.env.PERCEPTION_DISTANCE, count=SEEN - 1, see_behind=True, sort=True)
        rows = np.array([[1, *vehicle.position, *vehicle.velocity] for vehicle in (ego, *near)])
        rows[1:, 1:] -= rows[0, 1:]
        wide = 4.0 * len(road.network.all_side_lanes(ego.lane_index))
        rows[:, 1:] = np.clip(rows[:, 1:] / (200.0, wide, 80.0, 80.0), -1, 1)
        return np.pad(rows, ((0, SEEN - len(rows)), (0, 0))).astype(np.float32).reshape(-1)


class _Measured(AbstractEnv):
    """What both roads share: how they are observed and driven, what is rewarded, and what is measured."""

    def define_spaces(self) -> None:
        """Observation and action."""
        self.observation_type, self.action_type = Kinematics(self), MetaAction(self)
        self.observation_space = gym.spaces.Box(-1, 1, (SEEN * FEATURES,), np.float32)
        self.action_space = self.action_type.space()

    def _jerk(self) -> np.ndarray:
        # Of the last second, in m/s³.
        return np.diff(self.vehicle.accelerations[-HERTZ - 1 :]) * HERTZ

    def _reward(self, action: Any) -> float:
        # highway-env's own pays standing still in the right lane, and no progress below 20 m/s.
        ego, jerk = self.vehicle, self._jerk()
        progress = np.clip(ego.speed * np.cos(ego.heading) / SPEED_LIMIT, 0, 1)
        discomfort = JERK_WEIGHT * np.mean(jerk**2) if len(jerk) else 0.0
        return float(progress - discomfort - CRASH_COST * ego.crashed)

    def _info(self, observation: Any, action: Any = None) -> dict[str, Any]:
        # Of the last second; where nobody is followed the gap is NaN.
        ego = self.vehicle
        front, _ = self.road.neighbour_vehicles(ego)
        gap = np.inf if front is None else ego.lane_distance_to(front) - (ego.LENGTH + front.LENGTH) / 2
        gap = max(gap, 0) / max(ego.speed, 1) if gap < FOLLOWING else np.nan
        return {"crashed": ego.crashed, "x": float(ego.position[0]), "time_gap": gap, "jerk": self._jerk()}


class Highway(_Measured, HighwayEnvFast):
    """Three lanes, 15 other vehicles, half a minute."""

    @classmethod
    def default_config(cls) -> dict:
        """Lanes and traffic."""
        return super().default_config() | {"vehicles_count": 15, "duration": 30, "simulation_frequency": HERTZ}

    def _create_road(self) -> None:
        network = RoadNetwork.straight_road_network(self.config["lanes_count"], speed_limit=SPEED_LIMIT)
        self.road = Traffic(network, np_random=self.np_random)


class Merge(_Measured, MergeEnv):
    """Two lanes that a third one joins, with four other vehicles."""

    @classmethod
    def default_config(cls) -> dict:
        """The rate of the simulation, and a limit for those who stop."""
        return super().default_config() | {"simulation_frequency": HERTZ, "duration": 40}

    def _is_terminated(self) -> bool:
        return self.vehicle.crashed

    def _is_truncated(self) -> bool:
        # The end of the road is no end of driving: terminal, it would pay to reach it late.
        return super()._is_terminated() or self.time >= self.config["duration"]


class Track(gym.Env):
    """The test track: a highway (two episodes of three) or a merge, with pushy traffic."""

    def __init__(self) -> None:
        pushy = f"{__name__}.{Pushy.__name__}"
        self.roads = [
            Highway({"other_vehicles_type": pushy, "vehicles_density": 1.5, "vehicles_count": 20}),
            Merge({"other_vehicles_type": pushy}),
        ]
        self.driven = self.roads[0]
        self.observation_space, self.action_space = self.driven.observation_space, self.driven.action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        """Which road it is follows from the seed, as all traffic does."""
        super().reset(seed=seed)
        self.driven = self.roads[int(self.np_random.random() < 1 / 3)]
        return self.driven.reset(seed=int(self.np_random.integers(2**31)))

    def step(self, action: Any) -> Any:
        """A second."""
        return self.driven.step(action)

    def close(self) -> None:
        """Of both."""
        for road in self.roads:
            road.close()
