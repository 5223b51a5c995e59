"""
What a user writes, as ``mypy --strict`` sees it; ``mypy`` checks this file with the package, and
``test_examples.py`` runs it.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback, CallbackList
from stable_baselines3.common.env_util import make_vec_env
from typing_extensions import assert_type

from sb3_diayn import (
    DIAYNCallback,
    DIAYNWrapper,
    Discriminator,
    SkillEvaluation,
    evaluate_skills,
    load_discriminator,
)
from sb3_diayn.zoo import preset


def learn(folder: Path, steps: int) -> SAC:
    """A model of two skills, in a zip."""
    env: gym.Env[Any, Any] = gym.make("Pendulum-v1")
    wrapped = DIAYNWrapper(env, n_skills=2, skill="balanced", skill_duration=None)
    obs, info = wrapped.reset(seed=0, options={"skill": 1})
    first: npt.NDArray[np.float32] = obs
    assert first.dtype == np.float32
    assert_type(info["skill"], Any)
    callback = DIAYNCallback(
        net_arch=[16], obs_indices="0:2", log_q_min=-10, max_grad_norm=None, learn_p_z=False
    )
    others: list[BaseCallback] = [callback]
    values = preset("paper")
    assert_type(values["callback"], dict[str, Any])
    model = SAC("MlpPolicy", wrapped, learning_starts=steps // 2, policy_kwargs={"net_arch": [16]})
    model.learn(steps, callback=CallbackList(others))
    assert_type(callback.discriminator, Discriminator)
    model.save(folder / "model")
    return model


def look(folder: Path, model: SAC) -> float:
    """The best task return of its skills."""
    discriminator = load_discriminator(folder / "model")
    reward = discriminator.reward(th.zeros(1, 3), th.tensor([0]))
    assert_type(reward, th.Tensor)
    env = make_vec_env("Pendulum-v1", wrapper_class=DIAYNWrapper, wrapper_kwargs={"n_skills": 2})
    evaluation = evaluate_skills(model, env, n_episodes=1)
    assert_type(evaluation, SkillEvaluation)
    return float(evaluation.table()["task_return"].max())
