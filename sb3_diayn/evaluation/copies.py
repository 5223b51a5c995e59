"""Copies of the environments of a training, to evaluate or to film in while it runs."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecTransposeImage,
    VecVideoRecorder,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_diayn.training_state import layers_of
from sb3_diayn.vec_env import VecDIAYNWrapper
from sb3_diayn.wrappers import DIAYNWrapper

# DIAYNWrapper is put around again; the others only record.
DROPPED_WRAPPERS = ("DIAYNWrapper", "Monitor", "RecordEpisodeStatistics", "RecordVideo")


def copy_envs(
    training_env: VecEnv,
    n_envs: int = 1,
    *,
    render_mode: str | None = None,
    argument: str,
    remedy: str,
) -> VecEnv:
    """
    :param training_env: the environments of the training
    :param n_envs: number of copies, in this process
    :param render_mode: of the copies
    :param argument: what asks for copies, for the error
    :param remedy: what to do without copies, a sentence for the error
    :return: copies of the first environment, made from its ``spec``, without recorders, within the
        same vectorised wrappers
    :raises ValueError: if the environment cannot be made again
    """
    n_skills = int(training_env.get_attr("n_skills")[0])
    spec = _spec_without_skills(training_env.get_attr("spec")[0], argument, remedy)
    options = {} if render_mode is None else {"render_mode": render_mode}
    around = list(layers_of(training_env))[::-1]
    is_vectorized = any(isinstance(wrapper, VecDIAYNWrapper) for wrapper in around)

    def make() -> gym.Env[Any, Any]:
        env = spec.make(disable_env_checker=True, **options)
        return env if is_vectorized else DIAYNWrapper(env, n_skills)

    env: VecEnv = DummyVecEnv([make] * n_envs)
    has_skills = not is_vectorized
    for wrapper in around:
        has_skills = has_skills or isinstance(wrapper, VecDIAYNWrapper)
        wrap = COPIED_WRAPPERS.get(type(wrapper))
        if wrap is not None:
            env = wrap(env, wrapper)
        elif not has_skills:
            raise ValueError(
                f"{argument} cannot be built: the training has {type(wrapper).__name__} within "
                f"VecDIAYNWrapper, which may do anything; expected wrappers of SB3. {remedy}"
            )
        elif _may_change_actions(wrapper):  # the callback checks observations and rewards
            raise ValueError(
                f"{argument} cannot be built: the training has {type(wrapper).__name__} outside "
                "the skills, which may change the actions; expected wrappers of SB3, or a wrapper "
                f"without a step_async of its own. {remedy}"
            )
    return env


def _may_change_actions(wrapper: VecEnvWrapper) -> bool:
    cls = type(wrapper)
    return cls.step_async is not VecEnvWrapper.step_async or cls.step is not VecEnv.step


def _stack(env: VecEnv, old: VecFrameStack) -> VecEnv:
    return VecFrameStack(env, old.stacked_obs.n_stack, _channels_order(old.stacked_obs))


def _channels_order(stacked: StackedObservations[Any]) -> Any:
    if isinstance(stacked.observation_space, spaces.Dict):
        parts = stacked.sub_stacked_observations.items()
        return {key: _channels_order(part) for key, part in parts}
    return "first" if stacked.channels_first else "last"


def normalize_like(env: VecEnv, training_env: VecEnv) -> VecEnv:
    """
    :param env: copies of environments
    :param training_env: the environments of the training
    :return: the copies, with ``VecNormalize`` if the training has it and they have not
    """
    trained = unwrap_vec_normalize(training_env)
    if trained is None or unwrap_vec_normalize(env) is not None:
        return env
    return VecNormalize(
        env,
        training=False,
        norm_obs=trained.norm_obs,
        norm_reward=False,
        clip_obs=trained.clip_obs,
        epsilon=trained.epsilon,
        norm_obs_keys=trained.norm_obs_keys,
    )


def copy_statistics(env: VecEnv, training_env: VecEnv) -> None:
    """
    :param env: what :func:`normalize_like` returned, which gets the statistics of this moment
    :param training_env: the environments of the training
    """
    trained, normalizer = map(unwrap_vec_normalize, (training_env, env))
    if trained is not None and normalizer is not None and trained.norm_obs:
        normalizer.obs_rms = copy.deepcopy(trained.obs_rms)


def _spec_without_skills(spec: Any, argument: str, remedy: str) -> EnvSpec:
    """The spec of the same environment, without skills, recorders and rendering."""
    if not isinstance(spec, EnvSpec):  # a simulator may have one of its own kind
        raise ValueError(
            f"{argument} cannot be built: the training environment has no spec of gymnasium; "
            f"expected one that gymnasium.make returned. {remedy}"
        )
    wrappers = [w for w in spec.additional_wrappers if w.name not in DROPPED_WRAPPERS]
    for wrapper in wrappers:
        if wrapper.kwargs is None:
            raise ValueError(
                f"{argument} cannot be built: the wrapper {wrapper.name} does not record its "
                f"arguments; expected a subclass of gymnasium.utils.RecordConstructorArgs. {remedy}"
            )
    kwargs = {key: value for key, value in spec.kwargs.items() if key != "render_mode"}
    return replace(spec, kwargs=kwargs, additional_wrappers=tuple(wrappers))


def _leave_out(env: VecEnv, _: Any) -> VecEnv:
    return env


# How to put a vectorised wrapper of the training around copies. Some only record or check.
COPIED_WRAPPERS: dict[type, Callable[[VecEnv, Any], VecEnv]] = {
    VecDIAYNWrapper: lambda env, old: VecDIAYNWrapper(env, old.n_skills),
    VecExtractDictObs: lambda env, old: VecExtractDictObs(env, old.key),
    VecFrameStack: _stack,
    VecNormalize: normalize_like,
    VecTransposeImage: lambda env, old: VecTransposeImage(env, old.skip),
    **dict.fromkeys((VecCheckNan, VecMonitor, VecVideoRecorder), _leave_out),
}
