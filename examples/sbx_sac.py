import gymnasium as gym
from sbx import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills

env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
model = SAC("MlpPolicy", env, ent_coef=0.1, train_freq=8)  # SBX wants a float, not 1
model.learn(10_000, callback=DIAYNCallback(), progress_bar=True)
model.save("pendulum_skills_sbx")
accuracy = evaluate_skills(model, env).accuracy
print(f"The skill is recognised in {accuracy.mean():.0%} of fresh states; guessing: 25%")
