import gymnasium as gym
from stable_baselines3 import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper

env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=5)
model = SAC("MlpPolicy", env, ent_coef=0.1)
model.learn(20_000, callback=DIAYNCallback(), progress_bar=True)
model.save("pendulum_skills")  # a stock SB3 zip; the discriminator travels inside it
