"""
Steps a second of a training by the number of PyTorch's threads, alone and next to a busy program.

    python -m tests.benchmarks.threads

SAC and the callback on MountainCarContinuous-v0, K = 20, 16 environments, batch 256, and four
updates after each step of all environments. Each measurement is a process of its own, and all take
turns. ``passive`` means ``OMP_WAIT_POLICY=PASSIVE``: threads that do not spin while they wait.
"""

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import ratio, report

ROUNDS, SECONDS, WARM_UP = 3, 8.0, 320  # WARM_UP in steps
N_BUSY, WIDTHS = (0, 1), (128, 256)
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE"}
ARMS: dict[str, tuple[int, dict[str, str]]] = {
    "1 thread": (1, {}),
    "2 threads": (2, {}),
    "passive": (2, PASSIVE),
}


class Watch(BaseCallback):
    """Counts steps and processor time, and ends the training after some seconds."""

    start = (0, 0.0, 0.0)

    def now(self) -> tuple[int, float, float]:
        return self.num_timesteps, time.perf_counter(), time.process_time()

    def _on_step(self) -> bool:
        if self.num_timesteps == WARM_UP:
            self.start = self.now()
        return self.num_timesteps <= WARM_UP or self.now()[1] - self.start[1] < SECONDS


def train(width: int, n_threads: int) -> None:
    """Print steps a second, and milliseconds of processor time a step."""
    th.set_num_threads(n_threads)
    make_env = lambda: DIAYNWrapper(gym.make("MountainCarContinuous-v0"), n_skills=20)  # noqa: E731
    nets = [width, width]
    model = SAC(
        "MlpPolicy",
        make_vec_env(make_env, 16, seed=0),
        learning_starts=100,
        gradient_steps=4,
        policy_kwargs={"net_arch": nets},
        seed=0,
        device="cpu",
    )
    watch = Watch()
    model.learn(10**9, callback=[DIAYNCallback(net_arch=nets, batch_size=256), watch])
    steps, wall, cpu = (b - a for a, b in zip(watch.start, watch.now(), strict=True))
    print(steps / wall, 1000 * cpu / steps)


def measure_in_process(width: int, arm: str) -> list[float]:
    n_threads, env = ARMS[arm]
    script = f"from tests.benchmarks.threads import train; train({width}, {n_threads})"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(word) for word in done.stdout.split()[-2:]]


def measure(n_busy: int, width: int) -> list[dict[str, Any]]:
    found: dict[str, list[list[float]]] = {name: [] for name in ARMS}
    with ExitStack() as stack:
        for _ in range(n_busy):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(busy.kill)
        for _ in range(ROUNDS):
            for name in ARMS:
                found[name].append(measure_in_process(width, name))
    speeds = {name: [speed for speed, _ in each] for name, each in found.items()}
    return [
        {
            "arm": name,
            "nets": f"{width}x2",
            "busy programs": n_busy,
            "steps a second": statistics.median(speeds[name]),
            "ms of processor time a step": statistics.median(cpu for _, cpu in each),
            **ratio("ratio to 1 thread", speeds[name], speeds["1 thread"]),
        }
        for name, each in found.items()
    ]


if __name__ == "__main__":
    settings = [(n_busy, width) for n_busy in N_BUSY for width in WIDTHS]
    report("threads", lambda: [row for each in settings for row in measure(*each)])
