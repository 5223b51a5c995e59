"""
Wall time per update of stock SAC on a GPU with and without ``DIAYNCallback``.

    python -m tests.benchmarks.gpu

All train on Hopper-v5, in interleaved slices of one process; each slice ends when the device is
idle. The ratios are medians over slices. ``--device cpu`` measures the same on the processor.
"""

import itertools
import time
import warnings
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import command_line, ratio, report

ROUNDS, WARM_UP, SLICES = 32, 32, 6  # rounds: steps of all environments, each with one update


@dataclass(frozen=True)
class Case:
    """What is compared: one update of the policy in each step of the environments."""

    width: int
    batch_size: int
    n_envs: int
    device: str

    def make_model(self) -> SAC:
        def make_env() -> gym.Env:
            return DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20)

        return SAC(
            "MlpPolicy",
            make_vec_env(make_env, self.n_envs),
            policy_kwargs={"net_arch": [self.width] * 2, "optimizer_kwargs": {"fused": True}},
            batch_size=self.batch_size,
            ent_coef=0.1,
            gradient_steps=1,
            learning_starts=10 * self.n_envs,
            buffer_size=100_000,
            seed=0,
            device=self.device,
        )

    def make_callbacks(self) -> dict[str, BaseCallback | None]:
        net_arch = [self.width] * 2
        return {
            "stock": None,
            "with DIAYN": DIAYNCallback(net_arch=net_arch),
            "with DIAYN, cross-fitted": DIAYNCallback(net_arch=net_arch, cross_fit=True),
        }


def measure(case: Case) -> dict[str, Any]:
    """:return: milliseconds of a round of stock SAC and of DIAYN, and their ratios"""
    callbacks = case.make_callbacks()
    arms = {name: case.make_model() for name in callbacks}
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # stock SAC is meant to have no callback
        for name, model in arms.items():
            model.learn(WARM_UP * case.n_envs, callback=callbacks[name])
        for _, (name, model) in itertools.product(range(SLICES), arms.items()):
            start = time.perf_counter()
            model.learn(ROUNDS * case.n_envs, callback=callbacks[name], reset_num_timesteps=False)
            if case.device == "cuda":
                th.cuda.synchronize()
            seconds[name].append((time.perf_counter() - start) / ROUNDS)
    ratios = [ratio(f"{name} / stock", seconds[name], seconds["stock"]) for name in arms]
    return {
        "units of both layers": case.width,
        "batch size": case.batch_size,
        "environments": case.n_envs,
        "device": case.device,
        "stock SAC ms": float(np.median(seconds["stock"]) * 1e3),
        "with DIAYN ms": float(np.median(seconds["with DIAYN"]) * 1e3),
        **{name: value for each in ratios[1:] for name, value in each.items()},
    }


def main() -> None:
    """Measure every combination of sizes, and some numbers of environments."""
    parser = command_line()
    parser.add_argument("output", nargs="?")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args().device
    if device == "cuda" and not th.cuda.is_available():
        parser.error("torch sees no GPU; --device cpu measures on the processor")
    th.set_num_threads(1)
    sizes = [(width, batch, 1) for width in (256, 1024) for batch in (256, 4096)]
    cases = [Case(*size, device) for size in [*sizes, (256, 256, 16), (256, 256, 64)]]
    report("gpu", lambda: [measure(case) for case in cases])


if __name__ == "__main__":
    main()
