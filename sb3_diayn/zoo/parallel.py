"""How many environments a training has, and in which processes they run."""

import multiprocessing
import os
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import gymnasium as gym

from sb3_diayn.zoo.environments import why_not_made
from sb3_diayn.zoo.hyperparams import (
    get_arguments,
    is_on_policy,
    n_skills_of,
    scale_updates,
    wrapper_of_skills,
)

AUTO = "auto"
# Milliseconds of processor time for each step of an environment: tests/benchmarks/vec_envs.py. What
# DIAYNWrapper takes; and with processes, what their messages take in the main one and in each.
WRAPPER, MESSAGE_MAIN, MESSAGE_WORKER = 0.15, 0.17, 0.4
MIN_GAIN = 1.5  # processes take memory, and seconds to start
WARM_UP, SLICES, SLICE = 10, 5, 20  # steps
# What the process of an environment imports, whatever the environment is.
SHARED_IMPORTS = ("__main__", "rl_zoo3", "sb3_diayn.wrappers")


def choose_envs(
    algo: str,
    hyperparams: Mapping[str, Any],
    env_id: str,
    env_kwargs: Mapping[str, Any] | None = None,
    vec_env: str | None = None,
) -> tuple[dict[str, Any], str]:
    """
    As many environments as skills, in one process. Where a step costs so much that processes of
    their own pay off, see :func:`pays_off`, one for each core, unless skills are ``"stratified"``:
    these need an environment each.

    :param algo: name of the algorithm as the zoo spells it
    :param hyperparams: in the zoo's format
    :param env_id: id of the environment, registered
    :param env_kwargs: its arguments
    :param vec_env: what was asked for; None leaves the choice
    :return: hyperparameters to change: the number, and what keeps as many updates per transition;
        and ``"dummy"``, ``"subproc"`` or what was asked for
    :raises ValueError: if the environment cannot be made
    """
    n_skills, n_cores = n_skills_of(hyperparams), available_cores()
    n_envs, reason = n_skills, "one for each skill"
    if vec_env is None:
        milliseconds = time_step(env_id, env_kwargs)
        vec_env = "subproc" if pays_off(milliseconds, min(n_cores, n_skills)) else "dummy"
        reason += f"; a step takes {milliseconds:.2g} ms"
    skill = get_arguments(hyperparams, wrapper_of_skills(hyperparams)).get("skill")
    if vec_env == "subproc" and n_cores < n_skills and skill != "stratified":
        n_envs, reason = n_cores, reason.replace("skill", "core")
    print(f"n_envs={AUTO}: {n_envs} environments, --vec-env {vec_env} ({reason})")
    return _changes(algo, hyperparams, n_envs), vec_env


def _changes(algo: str, hyperparams: Mapping[str, Any], n_envs: int) -> dict[str, Any]:
    """For as many updates per transition as before, and on-policy for rollouts as large."""
    changes = {"n_envs": n_envs}
    if not is_on_policy(algo):
        changes |= scale_updates(hyperparams, n_envs)
    elif "n_steps" in hyperparams:
        factor = n_envs / hyperparams.get("n_envs", 1)
        changes["n_steps"] = max(1, round(hyperparams["n_steps"] / factor))
    return changes


def pays_off(milliseconds: float, n_cores: int) -> bool:
    """
    :param milliseconds: of a step of one environment
    :param n_cores: number of cores
    :return: whether processes of their own make a step of all environments so much faster that
        they are worth their memory and the time of their start
    """
    in_one = milliseconds + WRAPPER
    in_many = MESSAGE_MAIN + (in_one + MESSAGE_WORKER) / n_cores
    return in_one > MIN_GAIN * in_many


def available_cores() -> int:
    """:return: the number of cores that this process may use"""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def share_imports() -> None:
    """
    Import once what each process of ``SubprocVecEnv`` needs: a server imports it, and the processes
    are forks of the server. It has to be called before the first of them starts. On Linux only: a
    fork after imports is not safe on macOS, and Windows has none.
    """
    if sys.platform == "linux":
        multiprocessing.set_forkserver_preload(list(SHARED_IMPORTS))


def time_step(env_id: str, env_kwargs: Mapping[str, Any] | None = None) -> float:
    """
    :param env_id: id of an environment, registered
    :param env_kwargs: its arguments
    :return: milliseconds of one step with random actions: the shortest mean of several short runs,
        which other programs disturb least
    :raises ValueError: if it cannot be made or stepped
    """
    try:
        with closing(gym.make(env_id, **(env_kwargs or {}))) as env:
            env.reset(seed=0)
            env.action_space.seed(0)
            _play(env, WARM_UP)
            seconds = min(_play(env, SLICE) for _ in range(SLICES))
    except Exception as error:  # an environment may do anything
        raise why_not_made(env_id, env_kwargs, error) from error
    return 1000 * seconds / SLICE


def _play(env: gym.Env[Any, Any], n_steps: int) -> float:
    """Seconds of some steps, without the resets between them."""
    seconds = 0.0
    for _ in range(n_steps):
        action = env.action_space.sample()
        start = time.perf_counter()
        _, _, terminated, truncated, _ = env.step(action)
        seconds += time.perf_counter() - start
        if terminated or truncated:
            env.reset()
    return seconds
