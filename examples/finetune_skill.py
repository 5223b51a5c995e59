"""Learn skills without a reward, choose the best for a task, and learn the task from there."""

import gymnasium as gym
import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_diayn import DIAYNCallback, DIAYNWrapper, WarmUp, best_skill, evaluate_skills, export_skill
from sb3_diayn.evaluation.trajectories import Trajectory, play_skills

ENV = "MountainCarContinuous-v0"
N_SKILLS = 10


def height(trajectory: Trajectory) -> np.ndarray:
    """Your own reward, shape (T,): how far up the car is after each step."""
    return np.sin(3 * trajectory.states[:, 0])


def main() -> None:
    wrapper = {"wrapper_class": DIAYNWrapper, "wrapper_kwargs": {"n_skills": N_SKILLS}}
    env = make_vec_env(ENV, n_envs=16, seed=1, **wrapper)
    policy_kwargs = {"net_arch": [64, 64]}
    options = {"learning_rate": 1e-3, "ent_coef": 0.1, "policy_kwargs": policy_kwargs, "seed": 1}
    model = SAC("MlpPolicy", env, learning_starts=4_000, **options)
    discriminator = {"net_arch": [64, 64], "learning_rate": 1e-3, "normalize_obs": True}
    model.learn(100_000, callback=DIAYNCallback(**discriminator), progress_bar=True)

    fresh = make_vec_env(ENV, n_envs=N_SKILLS, seed=2, **wrapper)
    best = best_skill(evaluate_skills(model, fresh, n_episodes=1))
    print(f"best skill by the task's reward: {best}")
    print(f"by height: {best_skill(play_skills(model, fresh, range(N_SKILLS)), height)}")

    task = gym.make(ENV)
    tuned = export_skill(model, best, env=task)  # reset_critics=True starts these afresh
    tuned.learning_starts = 1_000
    print("before: {:.1f} +- {:.1f}".format(*evaluate_policy(tuned, tuned.get_env(), 2)))
    tuned.learn(2_000, callback=WarmUp())  # 1,000 steps of the skill before it changes
    print("after:  {:.1f} +- {:.1f}".format(*evaluate_policy(tuned, tuned.get_env(), 2)))
    tuned.save("tuned")


if __name__ == "__main__":
    main()
