"""
What denormal numbers cost: an update of SAC and the callback with and without them.

    python -m tests.benchmarks.denormals

Three equal trainings on Hopper-v5 take turns, cross-fitted, 20 environments, 20 updates after each
step of all. ``plain`` computes with denormal numbers, as PyTorch does. ``tidied``, as the callback
does, drops negligible moments of the discriminator's Adam before they are denormal. ``flushed``, as
the commands of ``sb3-diayn`` do, also takes every denormal number for 0
(``torch.set_flush_denormal``). Times are processor time of one thread.
"""

import time

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper, trainer
from tests.benchmarks.timing import ratio, report

N_ENVS, WIDTHS = 20, (128, 256)
SLICE, SLICES, BEFORE = 100, 16, 3_000  # updates; BEFORE is how many before the measurement
TIDY_FREQ, NEVER = trainer.TIDY_FREQ, 10**9
ARMS = {"plain": (NEVER, False), "tidied": (TIDY_FREQ, False), "flushed": (TIDY_FREQ, True)}


class Arm:
    """
    A training.

    :param width: units of both layers of each net
    :param tidy_freq: updates between two searches for negligible moments
    :param flushes: whether denormal numbers are taken for 0
    """

    def __init__(self, width: int, tidy_freq: int, flushes: bool) -> None:
        make_env = lambda: DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20)  # noqa: E731
        nets = [width, width]
        self.tidy_freq, self.flushes = tidy_freq, flushes
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
        trainer.TIDY_FREQ = self.tidy_freq
        th.set_flush_denormal(self.flushes)
        start = time.process_time()
        self.model.learn(n_updates, callback=self.callback, reset_num_timesteps=False)
        th.set_flush_denormal(False)
        return (time.process_time() - start) / n_updates * 1e3

    def shares(self) -> list[float]:
        """:return: of denormal numbers in the first moments of discriminator, actor and critics"""
        policy = self.model.policy
        optimizers = (self.callback.trainer.optimizer, policy.actor.optimizer)
        return [_share(optimizer) for optimizer in (*optimizers, policy.critic.optimizer)]


def _share(optimizer: th.optim.Optimizer) -> float:
    moments = th.cat([state["exp_avg"].flatten() for state in optimizer.state.values()])
    is_denormal = (moments != 0) & (moments.abs() < th.finfo(th.float32).smallest_normal)
    return float(is_denormal.float().mean())


def measure(width: int) -> dict[str, float]:
    th.set_num_threads(1)
    arms = {name: Arm(width, *options) for name, options in ARMS.items()}
    for arm in arms.values():
        arm.train(BEFORE)
    shares = arms["plain"].shares()
    times: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(SLICES):
        for name, arm in arms.items():
            times[name].append(arm.train(SLICE))
    names = [f"denormal share, {name}" for name in ("discriminator", "actor", "critics")]
    return {
        "units of both layers": width,
        **dict(zip(names, shares, strict=True)),
        **{f"{name}, ms": float(np.median(each)) for name, each in times.items()},
        **ratio("tidied / plain", times["tidied"], times["plain"]),
        **ratio("flushed / plain", times["flushed"], times["plain"]),
    }


if __name__ == "__main__":
    report("denormals", lambda: [measure(width) for width in WIDTHS])
