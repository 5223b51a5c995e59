"""DIAYNCallback among the other callbacks of a project, with TQC and several environments."""

from typing import Any

from sb3_contrib import TQC
from stable_baselines3.common.callbacks import CallbackList, CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper, load_discriminator

TOTAL_TIMESTEPS = 8_000
N_SKILLS = 10


def main() -> None:
    wrapper: dict[str, Any] = {
        "wrapper_class": DIAYNWrapper,
        "wrapper_kwargs": {"n_skills": N_SKILLS},
    }
    env = make_vec_env("InvertedPendulum-v5", n_envs=4, seed=0, **wrapper)
    eval_env = make_vec_env("InvertedPendulum-v5", seed=1, **wrapper)
    callback = CallbackList(
        [
            DIAYNCallback(net_arch=[128, 128]),
            CheckpointCallback(1_000, "skills", name_prefix="tqc"),  # steps of each environment
            EvalCallback(eval_env, eval_freq=1_000, best_model_save_path="skills", verbose=0),
        ]
    )
    policy_kwargs = {"net_arch": [128, 128]}
    model = TQC("MlpPolicy", env, ent_coef=0.1, policy_kwargs=policy_kwargs)
    model.learn(TOTAL_TIMESTEPS, callback=callback, progress_bar=True)
    model.save("skills/final")

    # Every one of these zips carries the discriminator of its moment.
    discriminator = load_discriminator("skills/final")
    print(f"A discriminator of {discriminator.n_skills} skills, saved in skills/final.zip")


if __name__ == "__main__":
    main()
