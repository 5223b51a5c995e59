"""Three environments per skill: the discriminator sees all skills all the time."""

from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills

wrapper_kwargs = {"n_skills": 20, "skill": "stratified"}
env = make_vec_env(
    "Hopper-v5", n_envs=60, wrapper_class=DIAYNWrapper, wrapper_kwargs=wrapper_kwargs
)
model = SAC(
    "MlpPolicy",
    env,
    learning_rate=lambda remaining: 1e-3 * remaining,
    ent_coef=0.02,
    buffer_size=100_000,  # the newest quarter
    gradient_steps=2,  # for each step of 60 environments
    policy_kwargs={"net_arch": [128, 128]},
)
callback = DIAYNCallback(
    learning_rate=1e-3,
    normalize_obs=True,
    cross_fit=True,  # no reward for an episode that was learned by heart
    frozen_fraction=0.25,  # in the end it learns what the skills do now
    log_q_min=-3.0,  # -log 20: no reward for falling
)
model.learn(400_000, callback=callback, progress_bar=True)
model.save("hopper_skills")
accuracy = evaluate_skills(model, env).accuracy
print(f"The skill is recognised in {accuracy.mean():.0%} of fresh states; guessing: 5%")
