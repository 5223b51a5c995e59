"""
Wall time of an evaluation: environments side by side in one process against one in a loop.

    python -m tests.benchmarks.evaluation

20 skills, 5 episodes each, of Hopper-v5 by a stock SAC (300x2, the paper's nets) that has learned
nothing. Its hopper would fall within some ten steps, so a fall does not end an episode here. A time
limit gives skill k a length from 50 to 1,000 steps instead, as different as with trained skills.
All play the same steps in interleaved rounds; the ratio is of medians.
"""

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn import DIAYNWrapper
from sb3_diayn.evaluation.trajectories import play_skills
from tests.benchmarks.timing import interleave, report

N_SKILLS, N_EPISODES, ROUNDS = 20, 5, 2


class SkillLength(gym.Wrapper):
    """Ends an episode of skill k after 50 (k + 1) steps."""

    def reset(self, **kwargs: Any) -> Any:
        self.steps = 0
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = self.env.step(action)
        self.steps += 1
        return obs, reward, terminated, self.steps >= 50 * (info["skill"] + 1), info


def make_env() -> gym.Env:
    env = gym.make("Hopper-v5", terminate_when_unhealthy=False)
    return SkillLength(DIAYNWrapper(env, n_skills=N_SKILLS))


def play(model: SAC, env: VecEnv) -> int:
    skills = np.repeat(np.arange(N_SKILLS), N_EPISODES).tolist()
    return sum(len(trajectory) for trajectory in play_skills(model, env, skills, seed=0))


def make_model() -> SAC:
    return SAC(
        "MlpPolicy",
        DummyVecEnv([make_env]),
        policy_kwargs={"net_arch": [300, 300]},
        buffer_size=1,
        device="cpu",
        seed=0,
    )


def measure(sizes: list[int]) -> list[dict[str, Any]]:
    th.set_num_threads(1)
    model = make_model()
    envs = {n_envs: DummyVecEnv([make_env] * n_envs) for n_envs in (1, *sizes)}
    steps = play(model, envs[1])
    functions = {str(n): (lambda env=env: play(model, env)) for n, env in envs.items()}
    seconds = interleave(functions, ROUNDS)
    return [
        {
            "environments": n_envs,
            "steps": steps,
            "seconds": seconds[str(n_envs)],
            "us per step": seconds[str(n_envs)] / steps * 1e6,
            "one in a loop / this": seconds["1"] / seconds[str(n_envs)],
        }
        for n_envs in envs
    ]


if __name__ == "__main__":
    report("evaluation", lambda: measure([10, 20, 50]))
