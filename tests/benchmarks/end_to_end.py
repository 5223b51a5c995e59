"""
Time to learn skills that can be distinguished: Hopper-v5, K = 20, until the running log q(z|s') of
replayed states reaches -0.6 and -0.45 nats.

    python -m tests.benchmarks.end_to_end [FILE.json [SEED [SETTING ...]]]

The plain setting is SB3's SAC with 300x2 nets, one environment, one update per step and the whole
replay. The others have the 20 environments and the replay buffer of 30,000 of version 0.1.0, a
fused Adam, and one update per step, half or a quarter of one. Those of SBX, where it is installed,
have no fused Adam. One thread each, one after the other; processor time does not count what else
runs on the machine. A setting that has not arrived after 100,000 steps is given up (nan).
"""

import copy
import importlib
import importlib.util
import math
import sys
import time
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import report

LEVELS, MAX_STEPS, NETS = (-0.6, -0.45), 100_000, [300, 300]


class Watch(BaseCallback):
    """Notes when each level is reached, and stops at the last."""

    def __init__(self, diayn: DIAYNCallback) -> None:
        super().__init__()
        self.diayn = diayn
        self.reached: dict[float, tuple[int, float, float]] = {}

    def _on_training_start(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def _on_step(self) -> bool:
        if self.num_timesteps % 100 == 0 and self.diayn.trainer.n_updates > 1000:
            log_q = self.diayn.trainer.metrics()["log_q_z"]
            now = time.perf_counter() - self.start[0], time.process_time() - self.start[1]
            for level in LEVELS:
                if log_q >= level:
                    self.reached.setdefault(level, (self.num_timesteps, *now))
        return len(self.reached) < len(LEVELS)


def measure(name: str, cls: type[BaseAlgorithm], seed: int, **options: Any) -> dict[str, Any]:
    n_envs = options.pop("n_envs")
    env = make_vec_env(
        lambda: DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20, skill="balanced"), n_envs, seed
    )
    # SB3 writes its defaults into the options that it is given.
    model = cls("MlpPolicy", env, seed=seed, device="cpu", **copy.deepcopy(options))
    callback = DIAYNCallback(net_arch=NETS, batch_size=256)
    watch = Watch(callback)
    model.learn(MAX_STEPS, callback=CallbackList([callback, watch]))
    row = {"setting": name, "envs": n_envs, "updates a round": options["gradient_steps"]}
    for level in LEVELS:
        steps, wall, cpu = watch.reached.get(level, (math.nan,) * 3)
        row |= {f"steps to {level}": steps, f"wall s to {level}": wall, f"cpu s to {level}": cpu}
    return row


def settings() -> dict[str, dict[str, Any]]:
    """:return: arguments of the model by the name of the setting"""
    common = {"ent_coef": 0.1, "learning_starts": 1000}
    plain = {**common, "n_envs": 1, "gradient_steps": 1, "policy_kwargs": {"net_arch": NETS}}
    fused = {"policy_kwargs": {"net_arch": NETS, "optimizer_kwargs": {"fused": True}}}
    many = plain | {"n_envs": 20, "buffer_size": 30_000}
    return {
        "plain": plain,
        "one per step": many | fused | {"gradient_steps": 20},
        "half": many | fused | {"gradient_steps": 10},
        "quarter": many | fused | {"gradient_steps": 5},
        "SBX plain": plain,
        "SBX one per step": many | {"gradient_steps": 20},
        "SBX half": many | {"gradient_steps": 10},
    }


def measure_all() -> list[dict[str, Any]]:
    th.set_num_threads(1)
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    rows = []
    for name, options in settings().items():
        if name not in (sys.argv[3:] or settings()):
            continue
        is_sbx = name.startswith("SBX")
        if is_sbx and not importlib.util.find_spec("sbx"):
            continue
        cls = importlib.import_module("sbx").SAC if is_sbx else SAC
        rows.append(measure(name, cls, seed, **options))
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    report("end_to_end", measure_all)
