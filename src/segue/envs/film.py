"""Episodes of a policy as pictures, and as a film."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from jaxtyping import UInt8

from segue import rng
from segue.acting import ActingPolicy
from segue.envs.episodes import MAX_EPISODE_STEPS
from segue.envs.make import make_raw, shape
from segue.envs.spec import Environment
from segue.errors import RecipeError, SegueError

Frame = UInt8[np.ndarray, "height width 3"]
#: Pictures per second where the environment names no other number.
FRAMES_PER_SECOND = 30


def film(
    policy: ActingPolicy, environment: Environment, path: Path, *, episodes: int = 1, seed: int = 0
) -> list[float]:
    """Write whole episodes, without exploration noise, one after the other; return their returns.

    Args:
        policy: what acts.
        environment: where.
        path: the video; its ending says the format (.mp4, .gif).
        episodes: how many.
        seed: of the episodes.

    Raises:
        RecipeError: if the environment has no pictures.
        SegueError: if it cannot be drawn here, or the file cannot be written.
    """
    import imageio

    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise SegueError(
            f"{path}: .mp4 needs a package that is not installed: pip install 'segue[video]', or write a .gif"
        )
    raw = make_raw(environment)
    assert raw.spec is not None
    spec, speed = raw.spec, raw.metadata.get("render_fps", FRAMES_PER_SECOND)
    raw.close()
    if "rgb_array" not in raw.metadata.get("render_modes", ()):
        raise RecipeError(f"environment {str(environment)!r} draws no pictures: it has no render mode 'rgb_array'")
    env = shape(gym.make(spec, render_mode="rgb_array"), environment)
    partial, returns = path.with_name(f".{path.stem}.partial{path.suffix}"), []
    options: dict[str, Any] = {"duration": 1000 / speed, "loop": 0}
    if path.suffix == ".mp4":
        options = {"fps": speed, "macro_block_size": 1}  # any size of picture
    try:
        writer: Any = imageio.get_writer(partial, **options)
        with warnings.catch_warnings(), writer as video:
            warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # of JAX, for ffmpeg
            for episode in range(episodes):
                returns.append(0.0)
                for frame, reward in _episode(policy, env, environment, seed, episode):
                    video.append_data(frame)
                    returns[-1] += reward
        os.replace(partial, path)
    except (ValueError, OSError) as error:
        raise SegueError(f"{path}: cannot be written: {' '.join(str(error).split())}") from error
    finally:
        partial.unlink(missing_ok=True)
        with contextlib.suppress(Exception):  # a viewer that could not be opened cannot be closed
            env.close()
    return returns


def _episode(
    policy: ActingPolicy, env: gym.Env, environment: Environment, seed: int, number: int
) -> Iterator[tuple[Frame, float]]:
    """Every picture, and the reward of the step that led to it."""
    source = rng.generator(seed, "film", number)
    start = getattr(env.action_space, "start", 0)
    observation, _ = env.reset(seed=rng.environment_seed(seed, "film", 0, number))
    carry = policy.start(1)
    yield _picture(env, environment), 0.0
    for _ in range(MAX_EPISODE_STEPS):
        acted = policy.act(np.asarray(observation, np.float32)[None], carry, source, False)
        carry = acted.carry
        observation, reward, terminated, truncated, _ = env.step(np.asarray(acted.action)[0] + start)
        yield _picture(env, environment), float(reward)
        if terminated or truncated:
            return
    raise RecipeError(f"an episode had not ended after {MAX_EPISODE_STEPS:,} steps; give --max-episode-steps")


def _picture(env: gym.Env, environment: Environment) -> Frame:
    try:
        return np.asarray(env.render(), np.uint8)
    except Exception as error:  # drivers raise anything
        said = f"{type(error).__name__}: {_words(error)}{_driver(error)}"
        raise SegueError(f"environment {str(environment)!r} cannot be drawn: {said}") from error


def _driver(error: Exception) -> str:
    """What MuJoCo draws with, if the error is of it."""
    if not any("mujoco" in frame.filename for frame in traceback.extract_tb(error.__traceback__)):
        return ""
    used = os.environ.get("MUJOCO_GL", "not set")
    return f"; MUJOCO_GL is {used}: MuJoCo draws without a screen by egl (a GPU or Mesa) or osmesa, if it is installed"


def _words(error: Exception) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:  # PyOpenGL's errors may fail to describe themselves
        return "no description"
