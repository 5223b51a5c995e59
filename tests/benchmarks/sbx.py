"""
What DIAYN adds to a step of SBX's SAC, whose networks are JAX's, and to a step of SB3's.

    python -m tests.benchmarks.sbx [FILE.json [THREADS]]

Hopper-v5, K = 20, nets of 256x2, batch 256, one environment, one update per step, on the CPU. The
arms take turns within one process; the table shows medians over slices, of wall time and of
processor time. In "frozen" the discriminator pays and does not learn. PyTorch has THREADS threads
(1, as the callback sets them with SBX; 2 and more show what that avoids).
"""

import os
import sys
import time
import warnings

import gymnasium as gym
import numpy as np
import torch as th
from sbx import SAC as SBXSAC
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import report

STEPS, SLICES, WARM_UP = 50, 10, 200


class Frozen(DIAYNCallback):
    def _on_rollout_end(self) -> None:
        pass


ARMS: dict[str, tuple[type[BaseAlgorithm], type[DIAYNCallback] | None]] = {
    "SB3": (SAC, None),
    "SB3 with DIAYN": (SAC, DIAYNCallback),
    "SBX": (SBXSAC, None),
    "SBX, frozen": (SBXSAC, Frozen),
    "SBX with DIAYN": (SBXSAC, DIAYNCallback),
}


def make_model(cls: type[BaseAlgorithm]) -> BaseAlgorithm:
    return cls(
        "MlpPolicy",
        DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20),
        policy_kwargs={"net_arch": [256, 256]},
        ent_coef=0.1,
        learning_starts=100,
        buffer_size=100_000,
        seed=0,
        device="cpu",
    )


def measure() -> list[dict[str, object]]:
    arms = {
        name: (make_model(cls), make and make(net_arch=[256, 256]))
        for name, (cls, make) in ARMS.items()
    }
    for model, callback in arms.values():
        model.learn(WARM_UP, callback=callback)
    milliseconds: dict[str, list[tuple[float, float]]] = {name: [] for name in arms}
    for _ in range(SLICES):
        for name, (model, callback) in arms.items():
            wall, cpu = time.perf_counter(), time.process_time()
            model.learn(STEPS, callback=callback, reset_num_timesteps=False)
            spent = time.perf_counter() - wall, time.process_time() - cpu
            milliseconds[name].append((spent[0] / STEPS * 1e3, spent[1] / STEPS * 1e3))
    times = {name: np.array(each) for name, each in milliseconds.items()}
    rows = []
    for name, each in times.items():
        added = np.median(each - times[name[:3]], axis=0)  # of the same slices
        wall_ms, cpu_ms = (float(x) for x in np.median(each, axis=0))
        rows.append(
            {
                "what": name.replace(" with DIAYN", " + D"),
                "torch threads": th.get_num_threads(),
                "wall ms a step": wall_ms,
                "steps/s": 1e3 / wall_ms,
                "processor ms a step": cpu_ms,
                "added wall ms": float(added[0]),
                "added processor ms": float(added[1]),
            }
        )
    return rows


if __name__ == "__main__":
    n_threads = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    os.environ["OMP_NUM_THREADS"] = str(n_threads)  # so that the callback leaves them
    th.set_num_threads(n_threads)
    warnings.simplefilter("ignore", UserWarning)  # two of the models are meant to have no callback
    report("sbx", measure)
