"""
Steps per second of 1 to 64 environments with skills: a wrapper around each of them in one process
(Dummy) or in processes of their own (Subproc), and one around a simulator that steps them all.

    python -m tests.benchmarks.envs

All are CartPole-v1 with K = 20, random actions and rewards from a discriminator of 256x2 on one
thread; the simulator is gymnasium's own CartPole in numpy, as in ``examples/vectorized.py``. The
arms take turns within one process; the table shows medians over slices, and of the ratios of the
same slice also the tenth and ninetieth percentile.
"""

import multiprocessing
import time
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from examples.vectorized import SameStepCartPole
from sb3_diayn import DIAYNWrapper, Discriminator, GymVecEnv, SkillReward, VecDIAYNWrapper
from sb3_diayn.reward_sync import attach_wrappers
from tests.benchmarks.timing import ratio, report

K, SIZES, SLICE, SLICES = 20, (1, 4, 16, 64), 2048, 10
# 64 processes that each import torch would take minutes to start.
START = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def make_single() -> gym.Env[Any, Any]:
    return DIAYNWrapper(gym.make("CartPole-v1"), K)


def make_arms(n_envs: int) -> dict[str, VecEnv]:
    def simulator() -> VecEnv:
        return GymVecEnv(SameStepCartPole(num_envs=n_envs))

    arms: dict[str, VecEnv] = {
        "Dummy": DummyVecEnv([make_single] * n_envs),
        "Subproc": SubprocVecEnv([make_single] * n_envs, start_method=START),
        "vector": VecDIAYNWrapper(simulator(), K),
    }
    space = arms["vector"].get_attr("skill_space")[0].env_space
    for env in arms.values():
        attach_wrappers(env, SkillReward(Discriminator(space, K, net_arch=[256, 256])))
    return arms | {"vector without skills": simulator()}


def measure(n_envs: int) -> dict[str, float]:
    arms, rng = make_arms(n_envs), np.random.default_rng(0)
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for env in arms.values():
        env.seed(0)
        env.reset()
    for _ in range(SLICES + 1):
        for name, env in arms.items():
            actions = rng.integers(2, size=(SLICE // n_envs, n_envs))
            start = time.perf_counter()
            for action in actions:
                env.step(action)
            rates[name].append(SLICE / (time.perf_counter() - start))
    for env in arms.values():
        env.close()
    warm = {name: np.array(each[1:]) for name, each in rates.items()}
    row: dict[str, float] = {"environments": n_envs}
    row |= {f"{name}, steps/s": float(np.median(each)) for name, each in warm.items()}
    for other in ("Dummy", "Subproc"):
        row |= ratio(f"vector / {other}", warm["vector"], warm[other])
    return row


if __name__ == "__main__":
    th.set_num_threads(1)
    report("envs", lambda: [measure(n_envs) for n_envs in SIZES])
