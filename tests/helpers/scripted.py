"""Models whose policy is written by hand, and discriminators that know it."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn import DIAYNWrapper, Discriminator
from tests.helpers.envs import PointEnv
from tests.helpers.models import small_net

K = 4
DIRECTIONS = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], np.float32)

Script = Callable[[np.ndarray, np.ndarray], np.ndarray]


def point_env(**kwargs: Any) -> gym.Env:
    return DIAYNWrapper(PointEnv(**kwargs), K)


def point_vec(n_envs: int = 1, **kwargs: Any) -> VecEnv:
    return DummyVecEnv([lambda: point_env(**kwargs)] * n_envs)


def scripted(script: Script, env: Any = None) -> BaseAlgorithm:
    """A PPO model that acts ``script(observations of PointEnv, skills)`` instead."""
    model = PPO("MlpPolicy", env or point_vec(), policy_kwargs=small_net(), device="cpu", seed=0)

    def predict(obs, state=None, episode_start=None, deterministic=False):
        model.policy.set_training_mode(False)  # as the real one does
        return script(obs[:, :2], obs[:, 2:].argmax(axis=1)), state

    model.predict = predict
    model.num_timesteps = 50_000
    return model


def walker() -> BaseAlgorithm:
    """Skill k walks in direction k."""
    return scripted(lambda obs, skills: DIRECTIONS[skills])


def frozen() -> BaseAlgorithm:
    return scripted(lambda obs, skills: np.zeros((len(obs), 2), np.float32))


def ignorant() -> BaseAlgorithm:
    """All skills walk to the right."""
    return scripted(lambda obs, skills: DIRECTIONS[skills * 0])


def compass(sharpness: float = 50.0) -> Discriminator:
    """A discriminator that reads the direction: perfect from the first step of a walker on."""
    discriminator = Discriminator(PointEnv().observation_space, K, net_arch=())
    with th.no_grad():
        discriminator.net[-1].weight.copy_(sharpness * th.as_tensor(DIRECTIONS))
        discriminator.net[-1].bias.zero_()
    return discriminator
