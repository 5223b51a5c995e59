import gymnasium as gym
from stable_baselines3 import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills

env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
model = SAC("MlpPolicy", env, ent_coef=0.1, train_freq=8)
model.learn(10_000, callback=DIAYNCallback(), progress_bar=True)
model.save("pendulum_skills")  # a stock SB3 zip; the discriminator travels inside it
accuracy = evaluate_skills(model, env).accuracy
print(f"The skill is recognised in {accuracy.mean():.0%} of fresh states; guessing: 25%")
