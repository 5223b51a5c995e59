"""Puts a discriminator where a stock model's rewards come from."""

import copy
import os
import pickle
from dataclasses import replace

import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, is_vecenv_wrapped
from torch import nn
from torch.nn.utils import parametrize

from sb3_diayn.buffers import SkillDictReplayBuffer, SkillReplayBuffer
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.gating import EpisodeGate
from sb3_diayn.observations import put_parts, take_parts
from sb3_diayn.rewards import SkillReward
from sb3_diayn.skills import SkillSpace
from sb3_diayn.vec_wrapper import VecDIAYNWrapper


def batch_device(model: BaseAlgorithm) -> th.device:
    """
    :param model: a model
    :return: where its batches are: SBX keeps its replay buffer on the CPU, whatever its device
    """
    if isinstance(model, OffPolicyAlgorithm):
        assert model.replay_buffer is not None
        return model.replay_buffer.device
    return model.device


def limit_threads(model: BaseAlgorithm) -> int:
    """
    Give PyTorch one thread beside SBX, unless ``OMP_NUM_THREADS`` says how many: threads of OpenMP
    spin while they wait for each other, on the cores that those of XLA need.

    :param model: about to learn
    :return: how many threads there were
    """
    n_threads = th.get_num_threads()
    is_sbx = any(base.__module__.startswith("sbx.") for base in type(model).__mro__)
    if is_sbx and "OMP_NUM_THREADS" not in os.environ:
        th.set_num_threads(1)
    return n_threads


def bind_buffer(
    model: OffPolicyAlgorithm,
    skill_space: SkillSpace,
    skill_reward: SkillReward,
    goes_on: bool = False,
) -> SkillReplayBuffer:
    """
    Put a ``SkillReplayBuffer`` in place of the model's stock one, empty or filled; keep one that
    is there already.

    :param model: an off-policy model
    :param skill_space: where the skill sits in an observation
    :param skill_reward: where the buffer's rewards come from
    :param goes_on: whether the environments go on within the episodes that the buffer knows
    :return: the model's replay buffer from now on
    """
    buffer = model.replay_buffer
    assert buffer is not None
    if not isinstance(buffer, SkillReplayBuffer):
        is_dict = isinstance(skill_space.env_space, spaces.Dict)
        buffer_class = SkillDictReplayBuffer if is_dict else SkillReplayBuffer
        stock, buffer = (
            buffer,
            buffer_class(
                buffer.buffer_size * buffer.n_envs,
                model.observation_space,
                model.action_space,
                buffer.device,
                model.n_envs,
                n_skills=skill_space.n_skills,
                n_stack=skill_space.n_stack,
                handle_timeout_termination=buffer.handle_timeout_termination,
            ),
        )
        _absorb(buffer, stock)
        model.replay_buffer = buffer
    buffer.skill_reward, buffer.learn = skill_reward, None
    if skill_reward.min_task_return is None:
        buffer.gate = None
    else:
        buffer.gate = buffer.gate or EpisodeGate(buffer.buffer_size, buffer.n_envs)
        if not goes_on:
            buffer.gate.restart()
    # Where SB3 itself says how many steps the buffer is to make.
    buffer.n_steps = model.replay_buffer_kwargs.get("n_steps", 1)
    buffer.gamma = model.replay_buffer_kwargs.get("gamma", model.gamma)
    return buffer


def _absorb(buffer: SkillReplayBuffer, stock: ReplayBuffer) -> None:
    """What was recorded before there was a discriminator, so with the environment's own rewards."""
    rows = slice(0, stock.size())
    obs, next_obs = (
        take_parts(array, rows) for array in (stock.observations, stock.next_observations)
    )
    env_obs, skills = buffer.skill_space.split(obs)
    put_parts(buffer.observations, rows, env_obs)
    put_parts(buffer.next_observations, rows, buffer.skill_space.split_newest(next_obs)[0])
    if buffer.skill_space.n_stack > 1:
        buffer.past_skills[rows], skills = skills[..., :-1], skills[..., -1]
    buffer.skills[rows] = skills
    for name in ("actions", "rewards", "dones", "timeouts"):
        getattr(buffer, name)[rows] = getattr(stock, name)[rows]
    buffer.pos, buffer.full = stock.pos, stock.full


def attach_wrappers(env: VecEnv, skill_reward: SkillReward) -> bool:
    """
    Share the discriminator with ``DIAYNWrapper`` of this process, send a copy to other processes.
    Of one on a GPU it is always a copy, on the CPU: each step would otherwise wait for the device.

    :param env: the training environment
    :param skill_reward: where the wrappers' rewards come from
    :return: whether the wrappers will see every change of the discriminator
    """
    discriminator = skill_reward.discriminator
    is_here = isinstance(env.unwrapped, DummyVecEnv) or is_vecenv_wrapped(env, VecDIAYNWrapper)
    shares = is_here and discriminator.log_p.device.type == "cpu"
    if not shares:
        skill_reward = replace(skill_reward, discriminator=_copy_to_send(discriminator))
    if is_here:
        env.env_method("set_skill_reward", skill_reward)
    else:
        env.env_method("load_skill_reward", pickle.dumps(skill_reward))
    return shares


def _copy_to_send(discriminator: Discriminator) -> Discriminator:
    """On the CPU, with spectral norms moved into the weights: torch pickles no parametrizations."""
    copied = copy.deepcopy(discriminator).cpu()
    for index, layer in enumerate(copied.net):
        # Not remove_parametrizations: the copy shares its class with the original.
        if isinstance(layer, nn.Linear) and parametrize.is_parametrized(layer):
            copied.net[index] = nn.Linear(layer.in_features, layer.out_features)
            copied.net[index].load_state_dict({"weight": layer.weight, "bias": layer.bias})
    return copied
