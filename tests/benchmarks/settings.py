"""
Settings of stock SB3 that change what an update costs and not what it is: a fused Adam, matrix
products at lower precision, smaller nets and batches.

    python -m tests.benchmarks.settings

One update of SAC with our buffer and a discriminator of the same size that learns from the same
batch, Hopper-v5's space, K = 20. The settings take turns; the table shows medians over slices, of
processor time and of wall time, and the ratio to the plain setting in the same slice.
"""

import time
from functools import partial

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillReplayBuffer
from tests.benchmarks.timing import ratio, report

WIDTHS, BATCHES, THREADS = (128, 256, 300), (256, 128), (1, 2)
# By name: fused Adam, precision of float32 matrix products
SETTINGS = {
    "plain": (False, "highest"),
    "fused": (True, "highest"),
    "medium": (False, "medium"),
    "fused, medium": (True, "medium"),
}
UPDATES, SLICES, WARM_UP = 10, 7, 300


class Updates:
    """Updates of a SAC and its discriminator, from a replay that they have filled themselves."""

    def __init__(self, width: int, fused: bool) -> None:
        policy_kwargs = {"net_arch": [width] * 2, "optimizer_kwargs": {"fused": fused}}
        self.model = SAC(
            "MlpPolicy",
            DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20),
            policy_kwargs=policy_kwargs,
            ent_coef=0.1,
            learning_starts=WARM_UP - 20,
            buffer_size=10_000,
            seed=0,
            device="cpu",
        )
        callback = DIAYNCallback(net_arch=[width] * 2)
        self.model.learn(WARM_UP, callback=callback)
        self.learn = callback.trainer.learn

    def spend(self, batch_size: int) -> tuple[float, float]:
        """:return: processor and wall time of an update, in milliseconds"""
        buffer = self.model.replay_buffer
        assert isinstance(buffer, SkillReplayBuffer)
        buffer.learn = partial(self.learn, (batch_size, batch_size))
        cpu, wall = time.process_time(), time.perf_counter()
        self.model.train(UPDATES, batch_size)
        spent = time.process_time() - cpu, time.perf_counter() - wall
        return spent[0] / UPDATES * 1e3, spent[1] / UPDATES * 1e3


def measure(arms: dict[bool, Updates], width: int, batch_size: int, threads: int) -> dict:
    th.set_num_threads(threads)
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
    for _ in range(SLICES + 1):
        for name, (fused, precision) in SETTINGS.items():
            th.set_float32_matmul_precision(precision)
            spent[name].append(arms[fused].spend(batch_size))
    times = {name: np.array(each[1:]) for name, each in spent.items()}
    row = {"units of both layers": width, "batch": batch_size, "torch threads": threads}
    for column, clock in enumerate(("processor", "wall")):
        for name, each in times.items():
            row[f"{name}, {clock} ms"] = float(np.median(each[:, column]))
    for name in list(SETTINGS)[1:]:
        row |= ratio(f"{name} / plain", times[name][:, 0], times["plain"][:, 0])
    return row


def measure_all() -> list[dict]:
    rows = []
    for width in WIDTHS:
        th.set_num_threads(1)
        th.set_float32_matmul_precision("highest")
        arms = {fused: Updates(width, fused) for fused in (False, True)}
        rows += [measure(arms, width, batch, n) for batch in BATCHES for n in THREADS]
    return rows


if __name__ == "__main__":
    report("settings", measure_all)
