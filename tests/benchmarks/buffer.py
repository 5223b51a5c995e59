"""
Bytes per transition, ``add`` and ``sample`` of ``SkillReplayBuffer`` and of SB3's own buffer.

    python -m tests.benchmarks.buffer

Both hold the same augmented space, Hopper-v5's with K skills, and are full: 10,000 to 1,000,000
transitions (the largest of SB3's takes 1.7 GB). The times are processor time of interleaved rounds
on one thread; the table shows medians and the ratio of the two. ``sample`` of the skill buffer
includes the fresh rewards, that is a forward pass of the discriminator; the fair comparison is with
SB3's ``sample`` followed by such a pass. While the model trains, that pass serves the
discriminator's own update too: what the rewards then cost is the difference to SB3's ``sample``
followed by an update.
"""

import time
from functools import partial

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_diayn import Discriminator, SkillReplayBuffer, SkillReward
from sb3_diayn.discriminator import Batch
from sb3_diayn.skills import SkillSpace
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.benchmarks.timing import interleave, report

SIZES, BATCH, ADDS, SAMPLES, ROUNDS = (10_000, 100_000, 1_000_000), 256, 500, 60, 9


def fill(stock: ReplayBuffer, lean: SkillReplayBuffer, space: SkillSpace) -> None:
    """All rows, so that they are in memory, with the same transitions in both."""
    rng, n = np.random.default_rng(0), SIZES[0]
    env_obs = rng.normal(size=(n, *space.env_space.shape)).astype(np.float32)
    skills = rng.integers(space.n_skills, size=n)
    actions = rng.uniform(-1, 1, (n, 1, stock.action_dim))
    obs = {stock: space.append(env_obs, skills), lean: env_obs}
    for start in range(0, stock.buffer_size, n):
        rows = slice(start, start + n)
        for buffer in (stock, lean):
            buffer.observations[rows] = buffer.next_observations[rows] = obs[buffer][:, None]
            buffer.actions[rows], buffer.rewards[rows] = actions, 1
            buffer.dones[rows] = buffer.timeouts[rows] = 0
        lean.skills[rows] = skills[:, None]
    stock.full = lean.full = True


def measure(n_skills: int, size: int) -> dict[str, float]:
    env = gym.make("Hopper-v5")
    space = SkillSpace(env.observation_space, n_skills)
    arguments = (size, space.observation_space, env.action_space, "cpu")
    stock = ReplayBuffer(*arguments)
    lean = SkillReplayBuffer(*arguments, n_skills=n_skills)
    discriminator = Discriminator(space.env_space, n_skills, net_arch=[256, 256])
    lean.skill_reward = SkillReward(discriminator)
    fill(stock, lean, space)
    obs, skill = th.randn(BATCH, 11), th.zeros(BATCH, dtype=th.int64)

    def repeat(function, n):
        def run() -> None:  # keeps no batch, as a training does not
            for _ in range(n):
                function()

        return run

    def stock_and_forward() -> None:
        stock.sample(BATCH)
        discriminator.reward(obs, skill)

    trainer = DiscriminatorTrainer(discriminator, 3e-4, 0)

    def stock_and_update() -> None:
        stock.sample(BATCH)
        trainer.update(Batch(obs, skill))

    def learning_sample() -> None:
        lean.learn = partial(trainer.learn, (BATCH, BATCH))
        lean.sample(BATCH)
        lean.learn = None

    info = [{"skill": 1, "task_reward": 1.0}]
    row = (space.append(np.zeros((1, 11)), [1]),) * 2 + (np.zeros((1, 3)), np.ones(1), np.zeros(1))
    seconds = interleave(
        {
            "stock add": repeat(lambda: stock.add(*row, info), ADDS),
            "lean add": repeat(lambda: lean.add(*row, info), ADDS),
            "stock sample": repeat(lambda: stock.sample(BATCH), SAMPLES),
            "lean sample": repeat(lambda: lean.sample(BATCH), SAMPLES),
            "stock sample, forward of D": repeat(stock_and_forward, SAMPLES),
            "lean sample, D learns": repeat(learning_sample, SAMPLES),
            "stock sample, update of D": repeat(stock_and_update, SAMPLES),
        },
        ROUNDS,
        time.process_time,
    )
    us = {k: v / (ADDS if "add" in k else SAMPLES) * 1e6 for k, v in seconds.items()}
    arrays = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")
    stock_bytes = sum(getattr(stock, name).nbytes for name in arrays) / size
    lean_bytes = sum(getattr(lean, name).nbytes for name in (*arrays, "skills")) / size
    return {
        "transitions": size,
        "K": n_skills,
        "stock bytes": stock_bytes,
        "lean bytes": lean_bytes,
        "bytes ratio": lean_bytes / stock_bytes,
        **{f"{name} us": value for name, value in us.items()},
        "add ratio": us["lean add"] / us["stock add"],
        "sample ratio": us["lean sample"] / us["stock sample"],
        "sample / (stock + forward)": us["lean sample"] / us["stock sample, forward of D"],
        "rewards in training us": us["lean sample, D learns"] - us["stock sample, update of D"],
    }


if __name__ == "__main__":
    th.set_num_threads(1)
    report("buffer", lambda: [measure(k, size) for k in (20, 50, 200) for size in SIZES])
