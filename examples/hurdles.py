"""A trained controller sends a cheetah over hurdles: it chooses one of five skills for 2.5 s."""

import gymnasium as gym
from gymnasium.wrappers import RecordVideo
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize, unwrap_vec_normalize

from sb3_diayn import DisplacementObservation
from sb3_diayn.downstream import SkillActionEnv
from sb3_diayn.zoo import find_run

SKILLS = "zoo_configs/results/displacement/ppo/HalfCheetah-v5_1"
CONTROLLER = "zoo_configs/results/downstream/controllers/HalfCheetahHurdle-v0_50_steps_0"


def make_env() -> gym.Env:
    env = gym.make(
        "sb3_diayn/HalfCheetahHurdle-v0",
        max_episode_steps=1_000,
        exclude_current_positions_from_observation=False,
        render_mode="rgb_array",
    )
    env = RecordVideo(Monitor(env), "film", episode_trigger=lambda episode: episode == 0)
    # What the skills were trained on: how far the cheetah has come in 2.5 s, and not where it is.
    env = DisplacementObservation(env, [0], n_steps=50, keep=False)
    run = find_run(SKILLS)
    return SkillActionEnv(
        env,
        run.load_model(),
        steps_per_skill=50,
        deterministic=False,  # as they were trained
        vec_normalize=unwrap_vec_normalize(run.make_env()),
    )


def main() -> None:
    env = VecNormalize.load(f"{CONTROLLER}.pkl", DummyVecEnv([make_env]))
    env.training = False
    controller = PPO.load(CONTROLLER)
    controller.set_random_seed(0)  # the skills sample their actions
    env.seed(0)
    passed, _ = evaluate_policy(controller, env, n_eval_episodes=1)
    env.close()
    print(f"The cheetah passed {passed:.0f} hurdles. Its film is in the folder film.")


if __name__ == "__main__":
    main()
