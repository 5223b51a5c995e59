"""
What the guards against numbers that are not finite cost per environment step.

    python -m tests.benchmarks.guards

Each guard is called with what it sees in a training of SAC on Hopper-v5 with K = 20; the best of
seven rounds of processor time counts. The last number is one step of that training, with one update
of 256x2 nets, to compare.
"""

import time
import timeit
from collections.abc import Callable

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import report

ROUNDS, CALLS, STEPS = 7, 5_000, 300


def microseconds(call: Callable[[], object]) -> float:
    return min(timeit.repeat(call, time.process_time, repeat=ROUNDS, number=CALLS)) / CALLS * 1e6


def measure() -> dict[str, float]:
    th.set_num_threads(1)
    env = DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20)
    model = SAC("MlpPolicy", env, learning_starts=100, seed=0, buffer_size=10_000, device="cpu")
    callback = DIAYNCallback(net_arch=[256, 256])
    model.learn(200, callback=callback)
    start = time.process_time()
    model.learn(STEPS, callback=callback, reset_num_timesteps=False)
    step = (time.process_time() - start) / STEPS * 1e6
    obs, action = np.zeros(31, np.float32), np.zeros(3, np.float32)
    rewards = {"task_reward": 1.0, "skill_reward": 0.5}
    losses = {"train/actor_loss": 1.0, "train/critic_loss": 1.0, "train/ent_coef_loss": 1.0}
    costs = {
        "action, us": microseconds(lambda: env._check_action(action)),
        "observation, us": microseconds(lambda: np.isfinite(obs).all()),
        "rewards, us": microseconds(lambda: callback._check_finite(rewards)),
        "losses, us": microseconds(lambda: callback._check_finite(losses)),
    }
    total = sum(costs.values())
    return costs | {"together, us": total, "a step, us": step, "share, %": 100 * total / step}


if __name__ == "__main__":
    report("guards", lambda: [measure()])
