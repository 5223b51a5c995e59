"""One skill after the other, and a mixture of two, on film."""

import gymnasium as gym
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.downstream import ScheduledSkills

ENV = "sb3_diayn/PointBox-v0"
N_SKILLS = 8
SCHEDULE = [(0, 20), (1, 20), ({0: 1, 1: 1}, 20), (2, 20), (3, 20)]


def main() -> None:
    wrapper = {"wrapper_class": DIAYNWrapper, "wrapper_kwargs": {"n_skills": N_SKILLS}}
    env = make_vec_env(ENV, n_envs=8, seed=0, **wrapper)
    model = SAC(
        "MlpPolicy",
        env,
        ent_coef=0.1,
        gamma=0.95,
        learning_rate=1e-3,
        batch_size=128,
        gradient_steps=2,
        learning_starts=200,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
    )
    callback = DIAYNCallback(net_arch=[64, 64], learning_rate=1e-3)
    model.learn(20_000, callback=callback, progress_bar=True)
    model.save("skills")

    # Stock tools play the schedule: nothing here knows about skills but the environment.
    env = ScheduledSkills(gym.make(ENV, render_mode="rgb_array"), N_SKILLS, SCHEDULE)
    film = gym.wrappers.RecordVideo(env, "films", lambda episode: episode == 0)
    evaluate_policy(model, film, n_eval_episodes=1, warn=False)
    film.close()
    print("films/rl-video-episode-0.mp4")


if __name__ == "__main__":
    main()
