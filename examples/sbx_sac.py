import gymnasium as gym
from sbx import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper

env = DIAYNWrapper(gym.make("Hopper-v5"), n_skills=20)
model = SAC("MlpPolicy", env, ent_coef=0.1)  # SBX wants a float, not 1
model.learn(300_000, callback=DIAYNCallback(), progress_bar=True)
model.save("hopper_skills_sbx")
