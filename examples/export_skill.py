"""Every skill as a plain SB3 model, which plays and keeps learning without this package."""

import gymnasium as gym
from stable_baselines3 import SAC
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_diayn import DIAYNCallback, DIAYNWrapper, export_skill

N_SKILLS = 5


def main() -> None:
    env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=N_SKILLS)
    policy_kwargs = {"net_arch": [64, 64]}
    options = {"ent_coef": 0.1, "train_freq": 8, "policy_kwargs": policy_kwargs, "seed": 0}
    model = SAC("MlpPolicy", env, **options)
    model.learn(20_000, callback=DIAYNCallback(net_arch=[64, 64]))
    for skill in range(N_SKILLS):
        export_skill(model, skill).save(f"skill_{skill}")

    # From here on, nothing of this package is needed.
    task = gym.make("Pendulum-v1")
    for skill in range(N_SKILLS):
        plain = SAC.load(f"skill_{skill}", env=task)
        mean, std = evaluate_policy(plain, plain.get_env(), n_eval_episodes=2)
        print(f"skill {skill}: task return {mean:.0f} +- {std:.0f}")
    plain.learn(1_000)
    print("The last one has learned on, on the task.")


if __name__ == "__main__":
    main()
