"""
Wall time per step of stock SAC on the augmented environment with and without ``DIAYNCallback``.

    python -m tests.benchmarks.overhead

All train the same nets (256x2) with the same batches (256) on Hopper-v5 with K = 20, one update per
step, in interleaved slices of one process; the ratios are medians over slices. Without the callback
the model learns from the environment's own reward and SB3's buffer. The floor is that stock model
with nothing but bare torch calls added: a forward pass and an update of a net of the
discriminator's size.
"""

import time
import warnings

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn
from torch.nn import functional as F

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import report


class BareCalls(BaseCallback):
    """What cannot be saved: a forward pass and an update of a 256x2 net, without any data."""

    def _init_callback(self) -> None:
        self.net = nn.Sequential(*create_mlp(11, 20, [256, 256]))
        self.optimizer = th.optim.Adam(self.net.parameters(), fused=True)
        self.obs, self.skills = th.randn(256, 11), th.randint(0, 20, (256,))

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        with th.no_grad():
            F.cross_entropy(self.net(self.obs), self.skills, reduction="none")
        self.optimizer.zero_grad()
        F.cross_entropy(self.net(self.obs), self.skills).backward()
        self.optimizer.step()


STEPS, SLICES, WARM_UP = 150, 12, 300


def make_model(n_skills: int) -> SAC:
    env = DIAYNWrapper(gym.make("Hopper-v5"), n_skills=n_skills)
    return SAC("MlpPolicy", env, ent_coef=0.1, learning_starts=100, seed=0, buffer_size=100_000)


def measure(n_skills: int, threads: int) -> dict[str, float]:
    th.set_num_threads(threads)
    arms = {name: make_model(n_skills) for name in ("stock", "floor", "skilled")}
    callbacks = {"stock": None, "floor": BareCalls(), "skilled": DIAYNCallback()}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two of the models are meant to have none
        for name, model in arms.items():
            model.learn(WARM_UP, callback=callbacks[name])
    for _ in range(SLICES):
        for name, model in arms.items():
            start = time.perf_counter()
            model.learn(STEPS, callback=callbacks[name], reset_num_timesteps=False)
            seconds[name].append((time.perf_counter() - start) / STEPS)
    ratios = np.array(seconds["skilled"]) / np.array(seconds["stock"])
    floors = np.array(seconds["floor"]) / np.array(seconds["stock"])
    return {
        "K": n_skills,
        "torch threads": threads,
        "stock SAC ms": float(np.median(seconds["stock"]) * 1e3),
        "with DIAYN ms": float(np.median(seconds["skilled"]) * 1e3),
        "ratio of the floor": float(np.median(floors)),
        "ratio with DIAYN": float(np.median(ratios)),
        "ratio, 10 %": float(np.quantile(ratios, 0.1)),
        "ratio, 90 %": float(np.quantile(ratios, 0.9)),
    }


if __name__ == "__main__":
    report("overhead", [measure(20, threads) for threads in (1, 2)])
