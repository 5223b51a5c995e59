"""
The effective number of skills, with p(z) fixed and learned: figure 4 of the paper on a point in the
plane, where any number of skills can be distinguished.

    python -m tests.benchmarks.learned_p_z docs/pages/images/learned_p_z.png
"""

import time
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import command_line
from tests.helpers.envs import PointEnv

K, STEPS, SEEDS = 20, 100_000, (0, 1, 2)


class Recorder(BaseCallback):
    """What the discriminator's statistics are after each rollout."""

    def __init__(self, callback: DIAYNCallback) -> None:
        super().__init__()
        self.callback = callback
        self.steps: list[int] = []
        self.metrics: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        self.steps.append(self.num_timesteps)
        self.metrics.append(self.callback.trainer.metrics())


def learn(learn_p_z: bool, seed: int) -> Recorder:
    """:return: the record of a training"""
    env = DummyVecEnv([lambda: DIAYNWrapper(PointEnv(length=10), K)] * 8)
    net = {"net_arch": [32]}
    model = PPO(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        n_steps=128,
        batch_size=256,
        n_epochs=4,
        ent_coef=0.01,
        policy_kwargs=net,
        seed=seed,
        device="cpu",
    )
    callback = DIAYNCallback(learning_rate=1e-3, learn_p_z=learn_p_z, **net)
    recorder = Recorder(callback)
    model.learn(STEPS, callback=[callback, recorder])
    return recorder


def main() -> None:
    """Six trainings of half a minute each."""
    parser = command_line()
    parser.add_argument("picture", type=Path)
    picture: Path = parser.parse_args().picture
    th.set_num_threads(1)
    figure, axes = plt.subplots(figsize=(5, 3))
    for learn_p_z, color in ((False, "tab:blue"), (True, "tab:orange")):
        for seed in SEEDS:
            start = time.process_time()
            record = learn(learn_p_z, seed)
            effective = [metrics["effective_skills"] for metrics in record.metrics]
            label = None if seed else f"{'learned' if learn_p_z else 'fixed'} p(z)"
            axes.plot(record.steps, effective, color=color, label=label)
            print(
                f"learn_p_z={learn_p_z} seed={seed}: {effective[-1]:.1f} effective skills, "
                f"accuracy {record.metrics[-1]['accuracy']:.2f}, "
                f"{time.process_time() - start:.0f} s"
            )
    axes.set(xlabel="steps", ylabel="effective skills, exp(H[p(z)])", ylim=(0, K + 1))
    axes.legend()
    figure.tight_layout()
    figure.savefig(picture, dpi=90)


if __name__ == "__main__":
    main()
