"""What a model must be like to learn skills, said early and clearly."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecFrameStack,
    VecTransposeImage,
    is_vecenv_wrapped,
)
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_diayn.nesting import callbacks_in
from sb3_diayn.observations import map_spaces
from sb3_diayn.skills import SkillSpace
from sb3_diayn.wrappers import DIAYNWrapper


def check_model(model: BaseAlgorithm) -> int:
    """
    :param model: a model with its training environment
    :return: the number of skills of the environment
    :raises ValueError: if the model cannot learn skills right
    """
    if not isinstance(model, (OffPolicyAlgorithm, OnPolicyAlgorithm)):
        raise ValueError(
            f"model={type(model).__name__} collects no transitions that a discriminator could "
            "learn from; expected an off-policy or on-policy algorithm. Use SAC, TQC or PPO."
        )
    env = model.get_env()
    assert env is not None
    n_skills = check_env(env)
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is not None and vec_normalize.norm_reward:
        raise ValueError(
            "norm_reward=True scales rewards by the spread of other rewards; expected False. Use "
            "VecNormalize(env, norm_reward=False), or normalize: {norm_reward: false} in the zoo."
        )
    _check_observation(model, env, n_skills)
    if isinstance(model, OffPolicyAlgorithm):
        _check_off_policy(model)
    return n_skills


def check_gate(model: BaseAlgorithm, min_task_return: float | None) -> None:
    """
    :param model: a model
    :param min_task_return: the option of ``DIAYNCallback``
    :raises ValueError: if the model is rewarded before an episode's return is known
    """
    if min_task_return is not None and not isinstance(model, OffPolicyAlgorithm):
        raise ValueError(
            f"min_task_return={min_task_return} needs rewards that wait for the end of an "
            f"episode, and {type(model).__name__} is rewarded before; expected an off-policy "
            "algorithm. Use SAC, or leave min_task_return out."
        )


def _check_observation(model: BaseAlgorithm, env: VecEnv, n_skills: int) -> None:
    space = SkillSpace.from_vec_env(env, n_skills)
    if not _is_of(space.env_space, env.get_attr("skill_space")[0].env_space):
        raise ValueError(
            f"observation_space={model.observation_space} is not that of the DIAYNWrapper; "
            "expected it unchanged. Put DIAYNWrapper outside every wrapper that changes the "
            "observation, as the outermost of them, and leave images out of VecNormalize with "
            "norm_obs_keys."
        )
    _check_order(model, env)


def _is_of(space: spaces.Space[Any], own: spaces.Space[Any]) -> bool:
    """Whether it is the environment's own, but for where images have their channels."""
    parts, owns = map_spaces(lambda part: part, space), map_spaces(lambda part: part, own)
    if isinstance(parts, dict) and isinstance(owns, dict):
        return parts.keys() == owns.keys() and all(_is_of(parts[key], owns[key]) for key in parts)
    shape: Any = own.shape
    shapes = (shape, shape[-1:] + shape[:-1])
    return type(space) is type(own) and space.dtype == own.dtype and space.shape in shapes


def _check_order(model: BaseAlgorithm, env: VecEnv) -> None:
    """What ``VecNormalize`` remembers for a replay buffer has to be what the model sees."""
    normalizer = model.get_vec_normalize_env()
    for wrapper in (VecFrameStack, VecTransposeImage):
        outside = is_vecenv_wrapped(env, wrapper)
        if normalizer is not None and outside and not is_vecenv_wrapped(normalizer, wrapper):
            raise ValueError(
                f"VecNormalize is within {wrapper.__name__}; expected it outside, since what it "
                "read would be stored in another layout than the model's. Use "
                f"VecNormalize({wrapper.__name__}(env))."
            )


def check_env(env: VecEnv) -> int:
    """
    :param env: a vectorised environment to train in
    :return: its number of skills
    :raises ValueError: if it has no ``DIAYNWrapper`` or one that plays a fixed skill
    """
    if not all(env.env_is_wrapped(DIAYNWrapper)):
        raise ValueError(
            "env has no DIAYNWrapper; expected one around each environment. Build the model on "
            "DIAYNWrapper(env, n_skills=20), or name it as env_wrapper in a zoo configuration."
        )
    for rule in env.get_attr("skill_rule"):
        if isinstance(rule, int):
            raise ValueError(
                f"skill={rule} is fixed in a training environment; expected 'uniform', 'balanced' "
                "or 'cycle', since one skill alone cannot be told apart. Leave skill out, and "
                "unset the variable DIAYN_SKILL."
            )
    return int(env.get_attr("n_skills")[0])


def _check_off_policy(model: OffPolicyAlgorithm) -> None:
    if model.replay_buffer_class is not None and issubclass(
        model.replay_buffer_class, HerReplayBuffer
    ):
        raise ValueError(
            "replay_buffer_class=HerReplayBuffer relabels goals with task rewards; expected SB3's "
            "own buffer, which the callback replaces. Leave replay_buffer_class out."
        )
    if model.optimize_memory_usage:
        raise ValueError(
            "optimize_memory_usage=True takes next observations from rows of another skill; "
            "expected False. Leave it out: the buffer of this package is the smaller one."
        )
    buffer = model.replay_buffer
    if buffer is not None and buffer.observation_space != model.observation_space:
        raise ValueError(
            f"observation_space={model.observation_space} does not match the loaded replay buffer; "
            f"expected {buffer.observation_space}. Use the environment and the n_skills of then."
        )
    if buffer is not None and buffer.n_envs != model.n_envs:
        raise ValueError(
            f"n_envs={model.n_envs} does not match the loaded replay buffer; expected "
            f"{buffer.n_envs}. Use as many environments as when the buffer was saved."
        )


def quiet_evaluations(callback: Any) -> None:
    """
    Tell the environments of evaluation callbacks that they are meant to return the task reward,
    so that they do not warn of a missing discriminator.

    :param callback: the callback of a ``learn``, often a ``CallbackList``
    """
    for each in callbacks_in(callback):
        eval_env = getattr(each, "eval_env", None)
        if isinstance(eval_env, VecEnv) and all(eval_env.env_is_wrapped(DIAYNWrapper)):
            eval_env.env_method("set_skill_reward", None)
