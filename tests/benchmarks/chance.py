"""
How far chance leads in the point's sparse tasks, without any learning.

    python -m tests.benchmarks.chance
"""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

import sb3_diayn  # noqa: F401  (registers them)
from tests.benchmarks.timing import command_line

N_EPISODES = 500
TASKS = ("PointHallway", "PointUMaze")

Array = np.ndarray[Any, Any]
# Of an episode: the action from the step and the observation.
Behaviour = Callable[[int, Array], Array]


def direction(rng: np.random.Generator) -> Array:
    """Full speed in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)])


def noise(rng: np.random.Generator) -> Behaviour:
    return lambda step, obs: rng.normal(size=2)  # PPO's policy before it has learned


def constant(rng: np.random.Generator) -> Behaviour:
    action = direction(rng)
    return lambda step, obs: action


def linear(rng: np.random.Generator) -> Behaviour:
    weight, bias = rng.normal(size=(2, 2)), rng.normal(size=2)
    return lambda step, obs: weight @ obs[:2] + bias


def held(rng: np.random.Generator) -> Behaviour:
    actions = [direction(rng) for _ in range(20)]
    return lambda step, obs: actions[step // 10]


BEHAVIOURS: dict[str, Callable[[np.random.Generator], Behaviour]] = {
    "noise of deviation 1": noise,
    "one random direction": constant,
    "random linear in the position": linear,
    "a random direction every 10 steps": held,
}


def success_rate(task: str, behaviour: Callable[[np.random.Generator], Behaviour]) -> float:
    env, rng = gym.make(f"sb3_diayn/{task}-v0", disable_env_checker=True), np.random.default_rng(0)
    solved = 0.0
    for episode in range(N_EPISODES):
        obs, _ = env.reset(seed=episode)
        act, step, over = behaviour(rng), 0, False
        while not over:
            obs, reward, terminated, truncated, _ = env.step(act(step, obs))
            step, over, solved = step + 1, terminated or truncated, solved + float(reward)
    return solved / N_EPISODES


def main() -> None:
    command_line().parse_args()
    for task in TASKS:
        for name, behaviour in BEHAVIOURS.items():
            print(f"{task:13} {name:34} {success_rate(task, behaviour):7.1%}", flush=True)


if __name__ == "__main__":
    main()
