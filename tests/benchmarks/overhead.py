"""
Wall time per step of stock SAC on the augmented environment with and without ``DIAYNCallback``.

    python -m tests.benchmarks.overhead

All train the same policy with the same batches (256) on Hopper-v5, one update per step, in
interleaved slices of one process; the ratios are medians over slices. The callback has its
defaults unless its name says otherwise. Without the callback the model learns from the
environment's own reward and SB3's buffer. The floor is that stock model with nothing but bare torch
calls added: an update of a net of the discriminator's size, whose forward pass serves the rewards
too. With ``cross_fit`` it is an update of two nets, batched, and a second forward pass for the
rewards, since each net rewards what the other learns from.
"""

import time
import warnings
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn
from torch.nn import functional as F

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.discriminator import FoldLinear
from tests.benchmarks.timing import ratio, report


class BareCalls(BaseCallback):
    """What cannot be saved: an update of a net of that size, without data."""

    def __init__(self, net_arch: list[int], n_skills: int, n_updates: int) -> None:
        super().__init__()
        self.net = self.make_net(net_arch, n_skills)
        self.optimizer = th.optim.Adam(self.net.parameters(), fused=True)
        self.obs, self.skills = th.randn(256, 11), th.randint(0, n_skills, (256,))
        self.n_updates = n_updates

    def make_net(self, net_arch: list[int], n_skills: int) -> nn.Module:
        return nn.Sequential(*create_mlp(11, n_skills, net_arch))

    def backward(self) -> None:
        F.cross_entropy(self.net(self.obs), self.skills).backward()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        for _ in range(self.n_updates):
            self.optimizer.zero_grad()
            self.backward()
            self.optimizer.step()


class BareFoldCalls(BareCalls):
    """The same with two nets. Each learns from a quarter of the batch and rates another half."""

    def make_net(self, net_arch: list[int], n_skills: int) -> nn.Module:
        first, second = (create_mlp(11, n_skills, net_arch) for _ in range(2))
        net = nn.Sequential()
        for layer, other in zip(first, second, strict=True):
            if isinstance(layer, nn.Linear) and isinstance(other, nn.Linear):
                net.append(FoldLinear.stack([layer, other], spectral_norm=False))
            else:
                net.append(layer)
        return net

    def backward(self) -> None:
        learned = self.net(self.obs[:128].view(2, 64, 11)).flatten(0, 1)
        F.cross_entropy(learned, self.skills[:128]).backward()
        with th.no_grad():
            rated = self.net(self.obs.view(2, 128, 11)).flatten(0, 1)
            F.cross_entropy(rated, self.skills, reduction="none")


# Multiples of the numbers of environments. Both nets of ``cross_fit`` have met 20 skills by then.
LEARNING_STARTS, WARM_UP, STEPS, SLICES = 4000, 4160, 40, 40


@dataclass(frozen=True)
class Case:
    """What is compared: Hopper-v5, one update per step."""

    n_skills: int = 20
    width: int = 256
    n_envs: int = 1
    threads: int = 1
    learning_starts: int = LEARNING_STARTS

    def make_model(self) -> SAC:
        def make_env() -> gym.Env:
            return DIAYNWrapper(gym.make("Hopper-v5"), n_skills=self.n_skills)

        return SAC(
            "MlpPolicy",
            make_vec_env(make_env, self.n_envs),
            policy_kwargs={"net_arch": [self.width] * 2},
            ent_coef=0.1,
            gradient_steps=self.n_envs,
            learning_starts=self.learning_starts,
            seed=0,
            buffer_size=100_000,
        )

    def make_callbacks(self) -> dict[str, BaseCallback | None]:
        net_arch = DIAYNCallback().options["net_arch"]
        return {
            "stock": None,
            "floor": BareCalls(net_arch, self.n_skills, self.n_envs),
            "floor, cross-fitted": BareFoldCalls(net_arch, self.n_skills, self.n_envs),
            "with DIAYN": DIAYNCallback(),
            "with DIAYN, whole batch": DIAYNCallback(batch_size=256),
            "with DIAYN, cross-fitted": DIAYNCallback(cross_fit=True),
            "with DIAYN, as wide as SAC": DIAYNCallback(net_arch=[self.width] * 2),
        }


# One factor at a time.
CASES = [
    Case(),
    Case(threads=2),
    Case(width=300),
    Case(n_skills=200),
    Case(n_envs=8),
    Case(n_envs=8, threads=2),
]


def measure(case: Case) -> dict[str, float]:
    th.set_num_threads(case.threads)
    callbacks = case.make_callbacks()
    arms = {name: case.make_model() for name in callbacks}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # two of the models are meant to have none
        for name, model in arms.items():
            model.learn(WARM_UP, callback=callbacks[name])
    for _ in range(SLICES):
        for name, model in arms.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            model.learn(STEPS, callback=callbacks[name], reset_num_timesteps=False)
            seconds[name].append((time.perf_counter() - start) / STEPS)
            cpu[name].append((time.process_time() - cpu_start) / STEPS)
    return {
        "K": case.n_skills,
        "units of both layers of SAC": case.width,
        "environments": case.n_envs,
        "torch threads": case.threads,
        "stock SAC ms": float(np.median(seconds["stock"]) * 1e3),
        "with DIAYN ms": float(np.median(seconds["with DIAYN"]) * 1e3),
        **_ratios(seconds, ""),
        **_ratios(cpu, ", processor"),
    }


def _ratios(times: dict[str, list[float]], suffix: str) -> dict[str, float]:
    ratios = (
        ratio(f"{name} / stock{suffix}", times[name], times["stock"])
        for name in times
        if name != "stock"
    )
    return {name: value for each in ratios for name, value in each.items()}


if __name__ == "__main__":
    report("overhead", lambda: [measure(case) for case in CASES])
