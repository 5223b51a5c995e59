import gymnasium as gym
from stable_baselines3 import DQN

from sb3_diayn import DIAYNCallback, DIAYNWrapper

env = DIAYNWrapper(gym.make("MountainCar-v0"), n_skills=5)
model = DQN("MlpPolicy", env, exploration_fraction=0.3)
model.learn(100_000, callback=DIAYNCallback(), progress_bar=True)
model.save("mountain_car_dqn")
