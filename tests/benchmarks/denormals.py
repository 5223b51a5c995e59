"""
What denormal numbers cost: an update of SAC and the callback with and without them.

    python -m tests.benchmarks.denormals

Two equal trainings on Hopper-v5 take turns, cross-fitted, 20 environments, 20 updates after each
step of all. One computes with denormal numbers, as PyTorch does unless told otherwise. The other
takes them for 0 (``torch.set_flush_denormal``), as a command of ``sb3-diayn`` does. Times are
processor time of one thread.
"""

import time
from collections.abc import Iterator

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.benchmarks.timing import ratio, report

N_ENVS, WIDTHS = 20, (128, 256)
SLICE, SLICES, BEFORE = 200, 8, (1_000, 5_000)  # updates; BEFORE is how many before a measurement


class Arm:
    """
    A training.

    :param width: units of both layers of each net
    :param flushes: whether denormal numbers are taken for 0
    """

    def __init__(self, width: int, flushes: bool) -> None:
        make_env = lambda: DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20)  # noqa: E731
        nets = [width, width]
        self.flushes = flushes
        self.callback = DIAYNCallback(net_arch=nets, cross_fit=True)
        self.model = SAC(
            "MlpPolicy",
            make_vec_env(make_env, N_ENVS, seed=0),
            policy_kwargs={"net_arch": nets},
            ent_coef=0.1,
            gradient_steps=N_ENVS,
            learning_starts=N_ENVS,
            seed=0,
            buffer_size=100_000,
        )

    def train(self, n_updates: int) -> float:
        """:return: milliseconds of processor time per update"""
        th.set_flush_denormal(self.flushes)
        start = time.process_time()
        self.model.learn(n_updates, callback=self.callback, reset_num_timesteps=False)
        th.set_flush_denormal(False)
        return (time.process_time() - start) / n_updates * 1e3

    def share(self) -> float:
        """:return: of denormal numbers in the first moments of the policy's optimisers"""
        policy = self.model.policy
        moments = [
            state["exp_avg"].flatten()
            for optimizer in (policy.actor.optimizer, policy.critic.optimizer)
            for state in optimizer.state.values()
        ]
        every = th.cat(moments)
        is_denormal = (every != 0) & (every.abs() < th.finfo(th.float32).smallest_normal)
        return float(is_denormal.float().mean())


def measure(width: int) -> Iterator[dict[str, float]]:
    th.set_num_threads(1)
    denormal, flushed = (Arm(width, flushes) for flushes in (False, True))
    for n_before, n_more in zip(BEFORE, np.diff((0, *BEFORE)), strict=True):
        for arm in (denormal, flushed):
            arm.train(int(n_more) - (0 if n_before == BEFORE[0] else SLICE * SLICES))
        share = denormal.share()
        times = [(denormal.train(SLICE), flushed.train(SLICE)) for _ in range(SLICES)]
        with_them, without = zip(*times, strict=True)
        yield {
            "units of both layers": width,
            "updates before": n_before,
            "denormal share of first moments": share,
            "with denormals, ms": float(np.median(with_them)),
            "without, ms": float(np.median(without)),
            **ratio("without / with", without, with_them),
        }


if __name__ == "__main__":
    report("denormals", lambda: [row for width in WIDTHS for row in measure(width)])
