"""
Wall time per step of stock SAC on the augmented environment with and without ``DIAYNCallback``.

    python -m tests.benchmarks.overhead

Both train the same nets (256x2) with the same batches (256) on Hopper-v5 with K = 20, one update
per step, in interleaved slices of one process; the ratio is of the slices' medians. Without the
callback the model learns from the environment's own reward and SB3's buffer.
"""

import time
import warnings

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import report

STEPS, SLICES, WARM_UP = 150, 24, 300


def make_model(n_skills: int) -> SAC:
    env = DIAYNWrapper(gym.make("Hopper-v5"), n_skills=n_skills)
    return SAC("MlpPolicy", env, ent_coef=0.1, learning_starts=100, seed=0, buffer_size=100_000)


def measure(n_skills: int, threads: int) -> dict[str, float]:
    th.set_num_threads(threads)
    stock, skilled = make_model(n_skills), make_model(n_skills)
    callback = DIAYNCallback()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the stock model is meant to have none
        stock.learn(WARM_UP)
    skilled.learn(WARM_UP, callback=callback)
    ratios, seconds = [], {"stock": [], "skilled": []}
    for _ in range(SLICES):
        for name, model, used in (("stock", stock, None), ("skilled", skilled, callback)):
            start = time.perf_counter()
            model.learn(STEPS, callback=used, reset_num_timesteps=False)
            seconds[name].append((time.perf_counter() - start) / STEPS)
        ratios.append(seconds["skilled"][-1] / seconds["stock"][-1])
    return {
        "K": n_skills,
        "torch threads": threads,
        "stock SAC ms": float(np.median(seconds["stock"]) * 1e3),
        "with DIAYN ms": float(np.median(seconds["skilled"]) * 1e3),
        "ratio, median": float(np.median(ratios)),
        "ratio, 10 %": float(np.quantile(ratios, 0.1)),
        "ratio, 90 %": float(np.quantile(ratios, 0.9)),
    }


if __name__ == "__main__":
    report("overhead", [measure(20, threads) for threads in (1, 2)])
