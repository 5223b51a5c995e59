"""Environments by their id: the packages that register them, and why one cannot be made."""

import importlib
import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import gymnasium as gym
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecMonitor

from sb3_diayn.arguments import did_you_mean
from sb3_diayn.files import require_extra
from sb3_diayn.gym_vec_env import GymVecEnv
from sb3_diayn.observations import as_float32
from sb3_diayn.zoo.hyperparams import import_zoo

# Where MuJoCo looks for a way to render, which it does as it is imported.
RENDERING = re.compile(r"mujoco[\\/](.*[\\/])?(gl_context|egl|glfw|osmesa)\b")


def split_id(env_id: str, gym_packages: Sequence[str] = ()) -> tuple[str, list[str]]:
    """
    :param env_id: id of an environment, or ``package:id`` as gymnasium takes it
    :param gym_packages: packages that register environments when they are imported
    :return: the id alone, and all packages
    :raises ValueError: if it is neither
    """
    package, separator, name = env_id.rpartition(":")
    if separator and (not package or not name or ":" in package):
        raise ValueError(f"env={env_id!r} is not an id; expected ID, or PACKAGE:ID.")
    return name, list(dict.fromkeys([*gym_packages, *([package] if package else [])]))


def find_environment(env_id: str, gym_packages: Sequence[str] = ()) -> tuple[str, list[str]]:
    """
    Import what registers an environment.

    :param env_id: see :func:`split_id`
    :param gym_packages: see :func:`split_id`
    :return: see :func:`split_id`
    :raises ImportError: if a package cannot be imported
    :raises ValueError: if the environment is not registered then
    """
    name, packages = split_id(env_id, gym_packages)
    import_zoo()  # which registers environments, too
    import_packages(packages)
    if name not in gym.registry:
        raise ValueError(
            f"env={env_id!r} is not registered; expected a gymnasium id."
            f"{did_you_mean(name, gym.registry, 3)} If a package registers it, name that: "
            "--gym-packages PACKAGE, or --env PACKAGE:ID."
        )
    return name, packages


def import_packages(packages: Sequence[str]) -> None:
    """
    :param packages: packages that register environments when they are imported
    :raises ImportError: if one cannot be imported
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except Exception as error:  # a package may do anything
            raise ImportError(
                f"gym_packages={package!r} cannot be imported ({type(error).__name__}: {error}); "
                "expected a package that registers environments. Install it, go to its folder, or "
                "add that to PYTHONPATH."
            ) from error


def importing(vec_env_class: Callable[..., VecEnv], packages: Sequence[str]) -> Any:
    """
    An environment may make another one by its id, also in a process of its own.

    :param vec_env_class: class of vectorised environments
    :param packages: packages that register environments when they are imported
    :return: the same class, whose environments import these packages first, wherever they are made
    """

    def make(env_fns: list[Callable[[], Any]], **kwargs: Any) -> VecEnv:
        return vec_env_class([partial(_import_and_make, packages, fn) for fn in env_fns], **kwargs)

    return make if packages else vec_env_class


def _import_and_make(packages: Sequence[str], make: Callable[[], Any]) -> Any:
    import_packages(packages)
    return make()


def of_envpool(
    env_id: str, env_kwargs: Mapping[str, Any] | None, seed: int | None
) -> Callable[..., VecEnv]:
    """
    :param env_id: id of an environment, the same in gymnasium and in EnvPool
    :param env_kwargs: its arguments
    :param seed: of the first environment, counted up from there
    :return: makes EnvPool's environments where a class of vectorised environments is expected
    :raises ImportError: if EnvPool is not installed
    :raises ValueError: if EnvPool does not have the environment
    """
    with require_extra("envpool"):
        import envpool
    known = envpool.list_all_envs()
    if env_id not in known:
        raise ValueError(
            f"env={env_id!r} is not in EnvPool; expected one of its environments."
            f"{did_you_mean(env_id, known, 3)} Or use --vec-env dummy."
        )

    def make(env_fns: Sequence[Any], **kwargs: Any) -> VecEnv:
        options = {} if seed is None else {"seed": seed}
        try:
            pool: Any = envpool.make_gymnasium(
                env_id, num_envs=len(env_fns), **options, **(env_kwargs or {})
            )
        except Exception as error:  # an environment may do anything
            raise why_not_made(env_id, env_kwargs, error) from error
        return VecMonitor(_as_in_gymnasium(pool, env_id, env_kwargs))

    return make


def _as_in_gymnasium(pool: Any, env_id: str, env_kwargs: Mapping[str, Any] | None) -> GymVecEnv:
    """With what an evaluation in gymnasium needs: the spec, and bounds that are right there."""
    try:
        same = gym.make(env_id, disable_env_checker=True, **(env_kwargs or {}))
    except Exception:  # not in gymnasium, or with other arguments: then it is EnvPool's alone
        return GymVecEnv(pool)
    same.close()
    env = GymVecEnv(pool, same.spec)
    if env.observation_space.shape == same.observation_space.shape:
        env.observation_space = as_float32(same.observation_space)  # BipedalWalker's are wrong
    return env


def why_not_made(env_id: str, env_kwargs: Mapping[str, Any] | None, error: Exception) -> ValueError:
    """
    :param env_id: id of an environment
    :param env_kwargs: its arguments
    :param error: what was raised when it was made
    :return: the same in a sentence
    """
    if is_of_rendering(error):
        return ValueError(
            f"MUJOCO_GL={os.environ.get('MUJOCO_GL')!r} does not work here ({error}); expected egl "
            "where there is no display, glfw where there is one, or osmesa, with its library. Set "
            "another one, or unset it."
        )
    if env_kwargs and isinstance(error, TypeError):
        return ValueError(
            f"env_kwargs={dict(env_kwargs)} do not fit {env_id} ({error}); expected "
            "arguments that it takes. Look them up in its documentation."
        )
    if isinstance(error, (EOFError, ConnectionError)):
        return ValueError(
            f"env={env_id!r} cannot be made in a process of its own, which ended; expected an "
            "environment. Its error is printed above, or use --vec-env dummy to see it."
        )
    return ValueError(f"env={env_id!r} cannot be made: {type(error).__name__}: {error}")


def check_observations(
    algo: str, hyperparams: Mapping[str, Any], env_id: str, env_kwargs: Mapping[str, Any] | None
) -> None:
    """
    Refuse what SB3 and sb3-contrib cannot read before a training begins, in a sentence.

    :param algo: name of the algorithm as the zoo spells it
    :param hyperparams: in the zoo's format
    :param env_id: id of the environment, registered
    :param env_kwargs: its arguments
    :raises ValueError: if the algorithm cannot read observations of the environment
    """
    policy = str(hyperparams.get("policy"))
    if not policy.startswith("MultiInput"):
        return
    is_off_policy = issubclass(import_zoo().ALGOS[algo], OffPolicyAlgorithm)
    reason = ""
    if is_off_policy and hyperparams.get("n_steps", 1) > 1:
        reason = f"SB3 has n-step returns for vectors only (n_steps={hyperparams['n_steps']})"
    if algo == "crossq":
        reason = "sb3-contrib's CrossQ has no MultiInputPolicy, only MlpPolicy for vectors"
    elif algo == "ppo_lstm" and _has_multi_discrete(env_id, env_kwargs):
        reason = "sb3-contrib's RecurrentPPO cannot read a MultiDiscrete"
    if reason:
        raise ValueError(
            f"policy={policy!r} cannot learn on {env_id}: {reason}; expected observations that it "
            "can read. Put gymnasium.wrappers.FlattenObservation before the wrapper of the skills "
            "in env_wrapper, with MlpPolicy or MlpLstmPolicy, or choose other hyperparameters."
        )


def _has_multi_discrete(env_id: str, env_kwargs: Mapping[str, Any] | None) -> bool:
    try:
        env = gym.make(env_id, **(env_kwargs or {}))
    except Exception as error:  # an environment may do anything
        raise why_not_made(env_id, env_kwargs, error) from error
    env.close()
    space: Any = env.observation_space
    parts = space.spaces.values() if isinstance(space, gym.spaces.Dict) else [space]
    return any(isinstance(part, gym.spaces.MultiDiscrete) for part in parts)


def is_of_rendering(error: Exception) -> bool:
    """
    :param error: what was raised when an environment was made
    :return: whether MuJoCo has found no way to render
    """
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any(map(RENDERING.search, files))
