"""The figures in docs/measures.md: `python -m studies.measures`, a minute or two.

First dips of simulated curves, then how often intervals cover the truth, then what random actions earn, which is the 0
of our reference returns.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from segue.report import statistics

STEPS, EPISODES, NOISE, RUNS = 20, 10, 2.0, 1000
AT = np.arange(STEPS)
CURVES = {
    "flat": np.zeros(STEPS),
    "one evaluation 3 lower": np.where(AT == 4, -3.0, 0.0),
    "3 lower for good": np.where(AT > 0, -3.0, 0.0),
    "falls by 3, then rises by 6": np.r_[0, -2.5, -3, -2, -1, 0, 1, 2, np.full(12, 3.0)],
    "one evaluation 1 lower": np.where(AT == 4, -1.0, 0.0),
    "rises by 0.5 an evaluation": AT * 0.5,
}
GRID = ((1, 3), (1, 5), (1, 10), (5, 3), (5, 5), (5, 10))
RANDOM = {
    "HalfCheetah-v5": 100,
    "Hopper-v5": 1000,
    "Ant-v5": 100,
    "Walker2d-v5": 1000,
    "InvertedPendulum-v5": 1000,
    "InvertedDoublePendulum-v5": 1000,
    "CartPole-v1": 1000,
}
"""Episodes by environment."""


def dips() -> None:
    source = np.random.default_rng(0)
    print("| true curve | true dip | minimum as it looks | corrected | its spread |\n| --- | --- | --- | --- | --- |")
    for name, curve in CURVES.items():
        raw, corrected = [], []
        for _ in range(RUNS):
            episodes = curve[:, None] + NOISE * source.normal(size=(STEPS, EPISODES))
            means = episodes.mean(1)
            raw.append(means[0] - means.min())
            corrected.append(statistics.fall(statistics.split_means(list(episodes))))
        true = curve[0] - curve.min()
        print(f"| {name} | {true:g} | {np.mean(raw):.2f} | {np.mean(corrected):.2f} | {np.std(corrected):.2f} |")


def coverage() -> None:
    source = np.random.default_rng(0)
    statistics.RESAMPLES = 1000  # enough to count how often an interval covers
    print("\n| tasks × seeds | IQM | probability of improvement |\n| --- | --- | --- |")
    for shape in GRID:
        means = [statistics.iqm(list(source.normal(size=shape))) for _ in range(2 * RUNS)]
        pairs = [statistics.improvement(*map(list, source.normal(size=(2, *shape)))) for _ in range(RUNS)]
        covered = np.mean([i.low <= 0 <= i.high for i in means]), np.mean([i.low <= 0.5 <= i.high for i in pairs])
        print(f"| {shape[0]} × {shape[1]} | {covered[0]:.0%} | {covered[1]:.0%} |")


def references() -> None:
    print("\n| environment | random actions | standard error | episodes | threshold |\n| --- | --- | --- | --- | --- |")
    for env_id, episodes in RANDOM.items():
        env = gym.make(env_id)
        env.action_space.seed(0)
        returns = np.zeros(episodes)
        for seed in range(episodes):
            env.reset(seed=seed)
            over = False
            while not over:
                _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                returns[seed] += float(reward)
                over = terminated or truncated
        env.close()
        error = returns.std(ddof=1) / np.sqrt(episodes)
        threshold = gym.spec(env_id).reward_threshold
        print(f"| {env_id} | {returns.mean():.1f} | {error:.1f} | {episodes:,} | {threshold or '–'} |")


if __name__ == "__main__":
    dips()
    coverage()
    references()
