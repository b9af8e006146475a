"""A system that you do not control: tell the learner what happened, ask it for an action. See docs/ask-and-tell.md."""

from __future__ import annotations

import jax
import numpy as np

from segue import SAC, OnlineOnly
from segue.core import Normaliser, Spaces
from segue.replay import Replay
from segue.training.agent import Agent, AgentSettings
from segue.training.recorder import Silent
from segue.training.update import init_learner

spaces = Spaces(observation_size=3, action_size=1)
algorithm = SAC(hidden_sizes=(32, 32))
learner = init_learner(algorithm, algorithm.init(jax.random.key(0), spaces), Normaliser.identity(3))
settings = AgentSettings(steps=1_000, warmup_steps=50, updates_per_step=1.0, seed=0, slots=1, dispatch=10)
agent = Agent(algorithm, (), OnlineOnly(), learner, Replay.create(None, 1_000, spaces), Silent(), settings)

source, waiting = np.random.default_rng(0), []
for step in range(120):
    observation = source.normal(size=3).astype(np.float32)
    action = agent.policy(observation, source, explore=True)
    waiting.append((agent.begin(0, observation, action), float(-abs(action[0] - observation[0]))))
    if len(waiting) > 10:  # the reward of a step comes ten steps later
        number, reward = waiting.pop(0)
        agent.complete(number, reward=reward, next_observation=observation, terminated=True)
    if step % 10 == 9:
        agent.take_in()
        agent.learn()
agent.finish()
print("action:", agent.policy(np.zeros(3, np.float32), source, explore=False))
