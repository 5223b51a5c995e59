"""
Saves what ``tests/test_backward_compatibility.py`` loads. To be run with version 0.1.0:

    git worktree add /tmp/old 72deafe && PYTHONPATH=/tmp/old python tests/data/0.1.0/make.py
"""

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_diayn import DIAYNCallback, DIAYNCheckpointCallback, DIAYNWrapper, Discriminator

FOLDER = Path(__file__).parent
N_SKILLS = 3
AT, STEPS = 60, 100  # of the checkpoint and of the whole training


def make_env(env_id: str) -> VecEnv:
    return make_vec_env(
        env_id,
        2,
        seed=1,
        wrapper_class=DIAYNWrapper,
        wrapper_kwargs={"n_skills": N_SKILLS},
        env_kwargs={"max_episode_steps": 10},
    )


def make_sac_env() -> VecNormalize:
    return VecNormalize(make_env("Pendulum-v1"), norm_reward=False)


def make_ppo_env() -> VecEnv:
    return make_env("CartPole-v1")


def shared() -> dict[str, Any]:
    return {"policy_kwargs": {"net_arch": [4]}, "device": "cpu", "seed": 4}


def learn_sac() -> tuple[SAC, DIAYNCallback]:
    """With the gate of SMERL, whose module has moved since; -70 is the median return."""
    model = SAC(
        "MlpPolicy", make_sac_env(), learning_starts=30, batch_size=16, buffer_size=200, **shared()
    )
    callback = DIAYNCallback(net_arch=[8], min_task_return=-70.0, task_reward_weight=1.0)
    saving = DIAYNCheckpointCallback(FOLDER / "checkpoints", save_freq=AT)
    model.learn(AT, callback=[callback, saving])
    model.learn(STEPS - AT, callback=callback, reset_num_timesteps=False)
    return model, callback


def learn_ppo() -> tuple[PPO, DIAYNCallback]:
    model = PPO("MlpPolicy", make_ppo_env(), n_steps=25, batch_size=25, n_epochs=2, **shared())
    callback = DIAYNCallback(net_arch=[8])
    model.learn(STEPS, callback=callback)
    return model, callback


def answers(model: BaseAlgorithm, discriminator: Discriminator) -> dict[str, list[Any]]:
    """Of policy and discriminator, to the first observations of the environment."""
    obs = model.env.reset()
    raw = model.env.get_original_obs() if isinstance(model.env, VecNormalize) else obs
    states = raw[:, :-N_SKILLS]
    rewards = discriminator.reward(th.as_tensor(states), th.arange(len(states)))
    return {
        "observations": obs.tolist(),
        "actions": model.predict(obs, deterministic=True)[0].tolist(),
        "states": states.tolist(),
        "rewards": rewards.tolist(),
    }


if __name__ == "__main__":
    th.set_num_threads(1)
    expected = {}
    for name, learn in (("sac", learn_sac), ("ppo", learn_ppo)):
        model, callback = learn()
        model.save(FOLDER / f"{name}.zip")
        expected[name] = answers(model, callback.discriminator)
    packages = ("gymnasium", "numpy", "stable_baselines3", "torch")
    expected["versions"] = {name: importlib.metadata.version(name) for name in packages}
    (FOLDER / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
