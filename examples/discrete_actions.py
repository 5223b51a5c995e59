"""Skills of an agent with discrete actions: DQN drives the mountain car."""

from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills
from sb3_diayn.evaluation import play_skills

ENV = "MountainCar-v0"
N_SKILLS = 5


def main() -> None:
    wrapper = {"wrapper_class": DIAYNWrapper, "wrapper_kwargs": {"n_skills": N_SKILLS}}
    env = make_vec_env(ENV, n_envs=N_SKILLS, seed=0, **wrapper)
    model = DQN(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        learning_starts=1_000,
        target_update_interval=500,
        gradient_steps=3,
        exploration_fraction=0.3,
        seed=0,
    )
    callback = DIAYNCallback(net_arch=[64, 64], learning_rate=1e-3, normalize_obs=True)
    model.learn(30_000, callback=callback, progress_bar=True)
    model.save("mountain_car_dqn")

    fresh = make_vec_env(ENV, n_envs=N_SKILLS, seed=1, **wrapper)
    accuracy = evaluate_skills(model, fresh, n_episodes=2).accuracy
    print("Where the car is in an episode of each skill; the flag is at 0.5, the valley at -0.5:")
    for episode in play_skills(model, fresh, range(N_SKILLS), seed=1):
        low, high = episode.states[:, 0].min(), episode.states[:, 0].max()
        share = accuracy[episode.skill]
        print(f"skill {episode.skill}: {low:.2f} to {high:.2f}, {share:.0%} of states recognised")


if __name__ == "__main__":
    main()
