"""As many environments as skills: the discriminator sees all of them all the time."""

from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills

wrapper_kwargs = {"n_skills": 20, "skill": "balanced"}
env = make_vec_env(
    "Hopper-v5", n_envs=20, wrapper_class=DIAYNWrapper, wrapper_kwargs=wrapper_kwargs
)
model = SAC("MlpPolicy", env, ent_coef=0.1, buffer_size=30_000, gradient_steps=10)
model.learn(60_000, callback=DIAYNCallback(), progress_bar=True)
model.save("hopper_skills")
accuracy = evaluate_skills(model, env).accuracy
print(f"The skill is recognised in {accuracy.mean():.0%} of fresh states; guessing: 5%")
