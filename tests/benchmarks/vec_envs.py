"""
What a step of environments with skills costs in one process, in processes of their own and in
EnvPool, and what follows for machines with more cores.

    python -m tests.benchmarks.vec_envs

20 environments, K = 20, random actions, and rewards of a discriminator of 256x2 on one thread. The
arms take turns; the numbers are medians of processor time per step of one environment: of the main
thread, which works alone, and of the workers (processes, or EnvPool's threads), which share the
cores. The model for ``c`` cores is main + workers / min(c, 20).
"""

import multiprocessing
import time
from typing import Any

import envpool
import gymnasium as gym
import numpy as np
import psutil
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_diayn import DIAYNWrapper, Discriminator, GymVecEnv, SkillReward, VecDIAYNWrapper
from sb3_diayn.reward_sync import attach_wrappers
from tests.benchmarks.timing import report

K, N_ENVS, ROUNDS, SLICES, CORES = 20, 20, 25, 6, (2, 8, 64)
ENVS = ("CartPole-v1", "MountainCarContinuous-v0", "Hopper-v5", "Ant-v5")
# 20 processes that each import torch would take minutes to start.
START = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"


def make_arms(env_id: str) -> dict[str, VecEnv]:
    def make() -> gym.Env[Any, Any]:
        return DIAYNWrapper(gym.make(env_id), K)

    pool = envpool.make_gymnasium(env_id, num_envs=N_ENVS, seed=0)
    return {
        "Dummy": DummyVecEnv([make] * N_ENVS),
        "Subproc": SubprocVecEnv([make] * N_ENVS, start_method=START),
        "EnvPool": VecDIAYNWrapper(GymVecEnv(pool), K),
    }


def processor_times(env: VecEnv) -> tuple[float, float]:
    """Of the main thread, and of what works for it."""
    main = time.thread_time()
    workers = time.process_time() - main
    for process in getattr(env, "processes", []):
        spent = psutil.Process(process.pid).cpu_times()
        workers += spent.user + spent.system
    return main, workers


def measure(env_id: str) -> list[dict[str, Any]]:
    arms, rng = make_arms(env_id), np.random.default_rng(0)
    space = arms["EnvPool"].get_attr("skill_space")[0].env_space
    found: dict[str, list[Any]] = {name: [] for name in arms}
    for env in arms.values():
        attach_wrappers(env, SkillReward(Discriminator(space, K, net_arch=[256, 256])))
        env.seed(0)
        env.reset()
    for _ in range(SLICES + 1):
        for name, env in arms.items():
            env.action_space.seed(int(rng.integers(2**31)))
            actions = [[env.action_space.sample() for _ in range(N_ENVS)] for _ in range(ROUNDS)]
            before = processor_times(env)
            for action in actions:
                env.step(np.array(action))
            spent = np.subtract(processor_times(env), before)
            found[name].append(1e6 * spent / (ROUNDS * N_ENVS))
    for env in arms.values():
        env.close()
    rows = []
    for name, each in found.items():
        main, workers = (float(value) for value in np.median(each[1:], axis=0))
        row = {"environment": env_id.split("-")[0][:11], "arm": name}
        row |= {"main, us": main, "workers, us": workers}
        row |= {f"steps/s, {c} cores": 1e6 / (main + workers / min(c, N_ENVS)) for c in CORES}
        rows.append(row)
        print(row, flush=True)
    return rows


if __name__ == "__main__":
    th.set_num_threads(1)
    report("vec_envs", lambda: [row for env_id in ENVS for row in measure(env_id)])
