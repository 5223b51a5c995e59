"""
A long training that saves all the time: memory, processes and files.

    python -m tests.benchmarks.soak [STEPS]

PPO with tiny nets learns 4 skills of Pendulum-v1 in 4 environments of their own processes for
200,000 steps, with a checkpoint every 10,000. Every 2,000 steps the memory of this process and of
its children is read (Linux: from /proc). The slope of a straight line through the second half is
printed, and what is left when all is over: child processes, open files, files on the disk.
"""

import json
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_diayn import DIAYNCallback, DIAYNCheckpointCallback, DIAYNWrapper
from tests.benchmarks.timing import command_line

STEPS, SAVE_FREQ, EVERY, KEEP = 200_000, 10_000, 2_000, 2
PROCESSES = Path("/proc")


def resident(pid: int) -> float:
    """Memory of a process in MB."""
    pages = int((PROCESSES / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def children() -> list[int]:
    return [child.pid for child in multiprocessing.active_children() if child.pid is not None]


def open_files() -> int:
    return len(list((PROCESSES / "self" / "fd").iterdir()))


class Memory(BaseCallback):
    """Writes down steps, memory of this process and of all children (MB), and open files."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps % EVERY == 0:
            others = sum(resident(pid) for pid in children())
            self.rows.append([self.num_timesteps, resident(os.getpid()), others, open_files()])
        return True


def slope(steps: np.ndarray, megabytes: np.ndarray) -> float:
    """MB per 100,000 steps, over the second half."""
    half = len(steps) // 2
    return float(np.polyfit(steps[half:], megabytes[half:], 1)[0] * 1e5)


def main() -> None:
    parser = command_line()
    parser.add_argument("steps", nargs="?", type=int, default=STEPS)
    n_steps = parser.parse_args().steps
    th.set_num_threads(1)
    start = time.perf_counter()
    wrapper = {"wrapper_class": DIAYNWrapper, "wrapper_kwargs": {"n_skills": 4}}
    env = make_vec_env("Pendulum-v1", 4, seed=0, vec_env_cls=SubprocVecEnv, **wrapper)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=250,
        batch_size=250,
        n_epochs=2,
        seed=0,
        device="cpu",
        policy_kwargs={"net_arch": [16]},
    )
    memory = Memory()
    with tempfile.TemporaryDirectory() as folder:
        saving = DIAYNCheckpointCallback(folder, save_freq=SAVE_FREQ, keep=KEEP)
        model.learn(n_steps, callback=[DIAYNCallback(net_arch=[16]), memory, saving])
        env.close()
        names = sorted(path.name for path in Path(folder).iterdir())
    rows = np.array(memory.rows)
    result = {
        "steps": n_steps,
        "seconds": round(time.perf_counter() - start),
        "MB at 10 % and at the end": [
            [round(x, 1) for x in rows[i, 1:3]] for i in (len(rows) // 10, -1)
        ],
        "MB per 100,000 steps, this process": round(slope(rows[:, 0], rows[:, 1]), 3),
        "MB per 100,000 steps, children": round(slope(rows[:, 0], rows[:, 2]), 3),
        "child processes left": len(children()),
        "open files, first and last": [int(rows[i, 3]) for i in (0, -1)],
        "left in the folder": names,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
