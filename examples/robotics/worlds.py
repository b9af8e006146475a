"""Fetch's table with another block: what a robot finds when it leaves the simulator that it was trained in.

segue run --env examples.robotics.worlds:push --env-kwargs '{"friction": 0.1, "mass": 3.0}' …
"""

from __future__ import annotations

import gymnasium as gym
import gymnasium_robotics
import mujoco

gym.register_envs(gymnasium_robotics)

#: Where the parts of an observation lie once it is flat: achieved goal, desired goal, then Fetch's own 25 numbers.
ACHIEVED, DESIRED, GRIPPER, OBJECT = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 12)


def push(friction: float = 1.0, mass: float = 1.0) -> gym.Env:
    """FetchPush-v4 whose block has so many times the sliding friction (1.0) and the mass (2 kg) of the original.

    The reward is −1 for each of 50 steps in which the block is more than 5 cm from its goal.
    """
    env = gym.make("FetchPush-v4")
    model = env.get_wrapper_attr("model")
    geom = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_GEOM, "object0")
    body = model.geom_bodyid[geom]
    model.geom_friction[geom, 0] *= friction
    # The friction of a contact is that of the geometry with the higher priority, among equals the larger one.
    model.geom_priority[geom] = 1
    model.body_mass[body] *= mass
    model.body_inertia[body] *= mass
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return env
