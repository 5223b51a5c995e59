"""A controller that picks a skill every 10 steps solves a sparse task that stock PPO does not."""

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.downstream import SkillActionVecEnv, WaitAtEnd

OPEN_ROOM = "sb3_diayn/PointBox-v0"
TASK = "sb3_diayn/PointUMaze-v0"  # a corridor with two bends, a reward at its end
STEPS_PER_SKILL = 10
GAMMA = 0.99


def learn_skills() -> SAC:
    wrapper = {
        "wrapper_class": DIAYNWrapper,
        "wrapper_kwargs": {"n_skills": 20, "skill_duration": STEPS_PER_SKILL},
    }
    env = make_vec_env(OPEN_ROOM, n_envs=16, seed=0, env_kwargs={"velocity": True}, **wrapper)
    model = SAC(
        "MlpPolicy",
        env,
        ent_coef=0.1,
        gamma=0.9,
        learning_rate=1e-3,
        batch_size=128,
        gradient_steps=4,
        learning_starts=200,
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
    )
    # Skills shall differ by velocity, the last two of (x, y, v_x, v_y).
    callback = DIAYNCallback(obs_indices="2:4", net_arch=[64, 64], learning_rate=1e-3)
    model.learn(15_000, callback=callback, progress_bar=True)
    model.save("skills")
    return model


def main() -> None:
    skills = learn_skills()
    venv = make_vec_env(TASK, n_envs=16, seed=0, wrapper_class=WaitAtEnd)
    env = SkillActionVecEnv(venv, skills, steps_per_skill=STEPS_PER_SKILL, gamma=GAMMA)
    controller = PPO(
        "MlpPolicy",
        env,
        n_steps=8,
        learning_rate=1e-3,
        ent_coef=0.01,
        gamma=GAMMA**STEPS_PER_SKILL,  # the same discount per step of the environment
        policy_kwargs={"net_arch": [64, 64]},
        seed=0,
    )
    controller.learn(3_000, progress_bar=True)  # decisions: ten times as many steps
    controller.save("controller")
    reached, _ = evaluate_policy(controller, env, n_eval_episodes=20)
    # make_vec_env's Monitor, innermost, counts the task's own reward: 1 for the goal.
    print(f"The goal is reached in {reached:.0%} of 20 episodes")


if __name__ == "__main__":
    main()
