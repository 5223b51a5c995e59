"""An expert walks; the discriminator names the skill that looks like it."""

import gymnasium as gym
import numpy as np
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper, load_discriminator
from sb3_diayn.downstream import infer_skill, load_demonstration
from sb3_diayn.evaluation.trajectories import play_skills

ENV = "sb3_diayn/PointBox-v0"
SEED = 7


def save_expert(file: str) -> None:
    """Walks into the upper right corner, by hand."""
    env = gym.make(ENV)
    obs, _ = env.reset(seed=SEED)
    observations, actions = [obs], []
    for _ in range(100):
        action = np.clip((np.array([0.8, 0.8]) - obs) / 0.1, -1, 1).astype(np.float32)
        obs, *_ = env.step(action)
        observations.append(obs)
        actions.append(action)
    np.savez(file, observations=observations, actions=actions, seed=SEED)


def main() -> None:
    wrapper = {"wrapper_class": DIAYNWrapper, "wrapper_kwargs": {"n_skills": 8}}
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

    save_expert("expert.npz")
    expert = load_demonstration("expert.npz")
    found = infer_skill(load_discriminator("skills"), expert)
    print(f"Skill {found.skill}, posterior {found.posterior.round(3)}")
    print(f"Decided at step {found.decided_at + 1} of {len(expert.observations)}")
    for episode in play_skills(model, make_vec_env(ENV, n_envs=8, **wrapper), range(8), seed=SEED):
        distance = np.linalg.norm(episode.states - expert.observations, axis=1).mean()
        print(f"skill {episode.skill}: mean distance {distance:.2f} m")
    # Filmed side by side: sb3-diayn imitate skills.zip --trajectory expert.npz


if __name__ == "__main__":
    main()
