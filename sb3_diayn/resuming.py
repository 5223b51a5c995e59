"""Going on with a training from a checkpoint."""

import os
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn.checkpoint import STATE_ATTRIBUTE, TRAINING, State
from sb3_diayn.folders import BUFFER_FILE, MODEL_FILE, STATE_FILE, newest_checkpoint
from sb3_diayn.training_state import FORMAT_VERSION, layers_of


def resume(
    path: str | os.PathLike[str],
    env: Any,
    *,
    device: th.device | str = "auto",
    **kwargs: Any,
) -> Any:
    """
    Load the newest checkpoint, to go on with the training::

        model = resume("checkpoints", env)
        callback = [DIAYNCallback(), DIAYNCheckpointCallback("checkpoints")]
        model.learn(300_000 - model.num_timesteps, callback=callback, reset_num_timesteps=False)

    With the replay buffer in the checkpoint (always for on-policy algorithms), the result is that
    of the uninterrupted training, bit for bit on the CPU. Without it the model gathers new
    experience first, see ``hold`` of ``DIAYNCallback``.

    .. warning::
        A checkpoint contains pickles, which can execute code: open only those you trust.

    :param path: see :func:`sb3_diayn.folders.newest_checkpoint`
    :param env: built as for the training, as many as then, with ``VecNormalize`` if it was there
    :param device: where to train
    :param kwargs: for SB3's ``load``, other values than those of the training
    :return: the model, of the algorithm's class
    :raises FileNotFoundError: if there is no complete checkpoint
    :raises ValueError: if it is damaged or ``env`` does not fit
    """
    checkpoint = newest_checkpoint(path)
    state = load_training_state(checkpoint, device)
    model: BaseAlgorithm = state["algorithm"].load(
        checkpoint / MODEL_FILE, env=env, device=device, **kwargs
    )
    if isinstance(model, OffPolicyAlgorithm) and (checkpoint / BUFFER_FILE).is_file():
        model.load_replay_buffer(checkpoint / BUFFER_FILE)
    attach_training_state(model, state)
    return model


def load_training_state(checkpoint: Path, device: th.device | str = "auto") -> State:
    """
    :param checkpoint: a checkpoint's folder
    :param device: where its tensors are wanted
    :return: from :func:`sb3_diayn.training_state.training_state`
    :raises ValueError: if it cannot be read or another version wrote it
    """
    file = checkpoint / STATE_FILE
    try:
        state: State = th.load(file, map_location=get_device(device), weights_only=False)
        version = state["format_version"]
    except Exception as e:  # a damaged pickle can raise nearly anything
        raise ValueError(
            f"path={str(file)!r} is damaged ({type(e).__name__}: {e}); expected what "
            "DIAYNCheckpointCallback wrote. Use an older checkpoint, by its own folder."
        ) from e
    if version != FORMAT_VERSION:
        raise ValueError(
            f"format_version={version!r} in {file} is unknown to this version; expected "
            f"{FORMAT_VERSION}. Install the version of sb3-diayn that wrote it."
        )
    return state


def attach_training_state(model: BaseAlgorithm, state: State) -> None:
    """
    Hand the state to the ``DIAYNCallback`` of the next ``learn``, which puts it back.

    :param model: loaded from the same checkpoint, with its environment
    :param state: from :func:`load_training_state`
    :raises ValueError: if the environments are others in number or layers
    """
    env = model.get_env()
    if env is None:
        raise ValueError("env=None cannot be trained in; expected an environment as before.")
    _check_env(env, state)
    getattr(model, STATE_ATTRIBUTE)[TRAINING] = state


def _check_env(env: VecEnv, state: State) -> None:
    n_envs = len(state["episodes"])
    if env.num_envs != n_envs:
        raise ValueError(
            f"n_envs={env.num_envs} does not match the checkpoint; expected {n_envs}. Build as "
            "many environments as in the training."
        )
    layers = [type(layer).__name__ for layer in layers_of(env)]
    expected = [name for name, _ in state["layers"]]
    if layers != expected:
        raise ValueError(
            f"env has the layers {layers}; expected {expected} as in the training. Wrap the "
            "environments in the same way, with new statistics: those of then are put back."
        )
