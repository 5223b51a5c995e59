"""Puts a discriminator where a stock model's rewards come from."""

import copy
import pickle
from dataclasses import replace

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn.buffers import SkillReplayBuffer
from sb3_diayn.discriminator import SkillReward


def bind_buffer(
    model: OffPolicyAlgorithm, n_skills: int, skill_reward: SkillReward
) -> SkillReplayBuffer:
    """
    Put a ``SkillReplayBuffer`` in place of the model's stock one, empty or filled; keep one that
    is there already.

    :param model: an off-policy model
    :param n_skills: the number of skills, K
    :param skill_reward: where the buffer's rewards come from
    :return: the model's replay buffer from now on
    """
    buffer = model.replay_buffer
    assert buffer is not None
    if not isinstance(buffer, SkillReplayBuffer):
        stock, buffer = (
            buffer,
            SkillReplayBuffer(
                buffer.buffer_size * buffer.n_envs,
                model.observation_space,
                model.action_space,
                model.device,
                model.n_envs,
                n_skills=n_skills,
                handle_timeout_termination=buffer.handle_timeout_termination,
            ),
        )
        buffer.absorb(stock)
        model.replay_buffer = buffer
    buffer.skill_reward, buffer.learn = skill_reward, None
    return buffer


def attach_wrappers(env: VecEnv, skill_reward: SkillReward) -> bool:
    """
    Share the discriminator with ``DIAYNWrapper`` of this process, send a copy to other processes.

    :param env: the training environment
    :param skill_reward: where the wrappers' rewards come from
    :return: whether the wrappers will see every change of the discriminator
    """
    shares = isinstance(env.unwrapped, DummyVecEnv)
    if shares:
        env.env_method("set_skill_reward", skill_reward)
    else:
        on_cpu = copy.deepcopy(skill_reward.discriminator).cpu()
        copied = replace(skill_reward, discriminator=on_cpu)
        env.env_method("load_skill_reward", pickle.dumps(copied))
    return shares
