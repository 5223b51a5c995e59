"""Skills in a simulator that steps 64 environments at once: gymnasium's CartPole in numpy."""

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO

from sb3_diayn import DIAYNCallback, GymVecEnv, VecDIAYNWrapper, evaluate_skills


class SameStepCartPole(CartPoleVectorEnv):
    """gymnasium's own begins an episode one step late, see the page on vectorised simulators."""

    metadata = CartPoleVectorEnv.metadata | {"autoreset_mode": AutoresetMode.SAME_STEP}
    spec = gym.spec("CartPole-v1")

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        ended = self.prev_done
        if ended.any():
            info = {"final_obs": obs.copy(), "_final_obs": ended}
            start = self.np_random.uniform(self.low, self.high, (4, ended.sum()))
            self.state[:, ended] = start
            self.steps[ended] = 0
            obs[ended] = start.T
            self.prev_done = np.zeros_like(ended)
        return obs, reward, terminated, truncated, info


if __name__ == "__main__":
    env = VecDIAYNWrapper(GymVecEnv(SameStepCartPole(num_envs=64)), n_skills=8, skill="balanced")
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=512, seed=0, device="cpu")
    model.learn(300_000, callback=DIAYNCallback())
    model.save("cartpole_skills")
    test_env = VecDIAYNWrapper(GymVecEnv(SameStepCartPole(num_envs=8)), n_skills=8)
    evaluation = evaluate_skills(model, test_env, n_episodes=2)
    print(f"{evaluation.distinct_skills:.1f} of 8 skills distinct")
    print("steps of each:", evaluation.lengths.mean(axis=1))
