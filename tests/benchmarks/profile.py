"""
Where the time of a step goes, for stock SAC and for SAC with ``DIAYNCallback``.

    python -m tests.benchmarks.profile

Hopper-v5, K = 20, SAC's nets 256x2, the callback's defaults, batch 256, one update per step, one
thread. Both models take turns in one process; each part is timed in place, without the parts that
it calls. Processor time in microseconds per step, medians over slices; "added" is the difference
within a slice.
"""

import time
from collections import defaultdict
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback

from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillReplayBuffer, SkillReward
from sb3_diayn.rewards import _NumpyReward
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.benchmarks.overhead import WARM_UP, Case
from tests.benchmarks.timing import report

STEPS, SLICES = 100, 12
PARTS: list[tuple[str, type, str]] = [
    ("SAC's update", SAC, "train"),
    ("SAC's action", SAC, "_sample_action"),
    ("environment", DIAYNWrapper, "step"),
    ("discriminator: forward, backward", DiscriminatorTrainer, "learn"),
    ("discriminator: forward, backward", DiscriminatorTrainer, "backward"),
    ("discriminator: Adam", DiscriminatorTrainer, "step"),
    ("reward of the batch", SkillReplayBuffer, "_fresh_rewards"),
    ("reward of the batch", SkillReward, "from_log_q"),
    ("reward in the wrapper", _NumpyReward, "__call__"),
    ("draw and assemble the batch", ReplayBuffer, "_get_samples"),
    ("draw and assemble the batch", SkillReplayBuffer, "_get_samples"),
    ("store a transition", ReplayBuffer, "add"),
    ("store a transition", SkillReplayBuffer, "add"),
    ("callback", DIAYNCallback, "_on_step"),
    ("callback", DIAYNCallback, "_on_rollout_start"),
    ("callback", DIAYNCallback, "_on_rollout_end"),
]
REST = "rest"


class Clock:
    """Times methods in place, each without those that it calls."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.inner = [0.0]  # of the calls that are under way: what their own calls have spent

    def watch(self, part: str, cls: type, method: str) -> None:
        function = getattr(cls, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            self.inner.append(0.0)
            result = function(*args, **kwargs)
            total = time.process_time() - start
            self.spent[part] += total - self.inner.pop()
            self.inner[-1] += total
            return result

        setattr(cls, method, timed)

    def measure(self, model: SAC, callback: BaseCallback | None) -> dict[str, float]:
        """:return: microseconds per step of each part, and of the rest"""
        self.spent.clear()
        start = time.process_time()
        model.learn(STEPS, callback=callback, reset_num_timesteps=False)
        self.spent[REST] = time.process_time() - start - sum(self.spent.values())
        return {part: seconds / STEPS * 1e6 for part, seconds in self.spent.items()}


def measure_all() -> list[dict[str, Any]]:
    th.set_num_threads(1)
    clock = Clock()
    for part in PARTS:
        clock.watch(*part)
    callbacks = {"stock": None, "with DIAYN": DIAYNCallback()}
    models = {name: Case().make_model() for name in callbacks}
    models["stock"].env.env_method("set_skill_reward", None)  # on purpose, so no warning
    for name, model in models.items():
        model.learn(WARM_UP, callback=callbacks[name])
    slices = [
        {name: clock.measure(model, callbacks[name]) for name, model in models.items()}
        for _ in range(SLICES)
    ]
    rows: dict[str, dict[str, Any]] = {name: {"us a step": name} for name in (*models, "added")}
    for part in (*dict.fromkeys(part for part, *_ in PARTS), REST):
        spent = np.array([[each[name].get(part, 0.0) for name in models] for each in slices])
        for name, us in zip(rows, [*spent.T, spent[:, 1] - spent[:, 0]], strict=True):
            rows[name][part] = float(np.median(us))
    for row in rows.values():
        row["together"] = sum(us for us in row.values() if isinstance(us, float))
    return list(rows.values())


if __name__ == "__main__":
    report("profile", measure_all)
