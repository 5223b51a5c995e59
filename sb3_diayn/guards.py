"""What to say when numbers stop being finite: where it began, and what is still good."""

import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from torch import nn

from sb3_diayn.checkpoint import load_discriminator
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.extraction import ObsFunction
from sb3_diayn.folders import MODEL_FILE, list_checkpoints
from sb3_diayn.nesting import callbacks_in

ADVICE = {
    "env": "Look at the environment: an unstable simulation or a division by zero is the usual "
    "cause.",
    "discriminator": "Give DIAYNCallback a lower learning_rate, or a max_grad_norm such as 1.",
    "policy": "Give the model a lower learning_rate, or DIAYNCallback a lower bound log_q_min.",
}
OWNERS = {
    "task_reward": "env",
    "skill_reward": "discriminator",
    "discriminator_loss": "discriminator",
}


def check_finite(
    values: Mapping[str, float], model: BaseAlgorithm, discriminator: Discriminator, callback: Any
) -> None:
    """
    Stop a training whose numbers are not finite any more. The values are those that are on the CPU
    anyway; only when one of them is bad, tensors are searched for the cause.

    :param values: losses and rewards by name
    :param model: the model that is trained
    :param discriminator: its discriminator
    :param callback: the callback of ``learn``, to find checkpoints
    :raises ValueError: if one is NaN or infinite
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    owner = OWNERS.get(bad[0], "policy")
    place = f"{bad[0]}={values[bad[0]]}"
    if owner != "env":  # a discriminator spoils the rewards, and so the policy: in this order
        for module_name, module in (("discriminator", discriminator), ("policy", model.policy)):
            found = _find_parameter(module)
            if found is not None:
                place, owner = f"{module_name}.{found}", module_name
                break
    good = last_good_checkpoint(callback, getattr(discriminator.extractor, "function", None))
    rest = "No good checkpoint is known" if good is None else f"The last good checkpoint is {good}"
    raise ValueError(
        f"{place} is not finite at step {model.num_timesteps} (noticed in {', '.join(bad)}); "
        f"expected finite numbers. {ADVICE[owner]} {rest}."
    )


def _find_parameter(module: nn.Module) -> str | None:
    """The first number that is not finite, as ``net.0.weight[3, 1]=nan``."""
    for name, tensor in module.state_dict().items():
        bad = (~th.isfinite(tensor)).nonzero().tolist()
        if bad:
            return f"{name}{bad[0] or ''}={tensor[tuple(bad[0])].item()}"
    return None


def check_buffer(buffer: ReplayBuffer) -> None:
    """
    ``DIAYNWrapper`` lets no bad number into a replay buffer, but one that was filled before or
    loaded has not been seen by it.

    :param buffer: a replay buffer
    :raises ValueError: if a stored number is NaN or infinite
    """
    for name in ("observations", "next_observations", "actions", "rewards"):
        stored: Any = getattr(buffer, name)
        for key, array in stored.items() if isinstance(stored, dict) else [(None, stored)]:
            if not np.issubdtype(array.dtype, np.floating):
                continue  # images: many bytes, and finite by their nature
            bad = np.argwhere(~np.isfinite(array[: buffer.size()]))
            if len(bad):
                row, env, *column = bad[0].tolist()
                part = name if key is None else f"{name}[{key!r}]"
                raise ValueError(
                    f"replay_buffer.{part}[{row}, {env}]{column or ''}={array[tuple(bad[0])]} is "
                    f"not finite; expected finite numbers. {ADVICE['env']} Begin with an empty "
                    "replay buffer."
                )


def last_good_checkpoint(callback: Any, obs_function: ObsFunction | None = None) -> Path | None:
    """
    :param callback: the callback of ``learn``, often a ``CallbackList``
    :param obs_function: what the discriminator reads through, if it does
    :return: the newest zip of its checkpoint and evaluation callbacks in which all parameters are
        finite; None if there is none
    """
    files: list[Path] = []
    for each in callbacks_in(callback):
        if isinstance(each, CheckpointCallback):
            files += Path(each.save_path).glob(f"{each.name_prefix}_*_steps.zip")
        elif isinstance(each, EvalCallback) and each.best_model_save_path is not None:
            files += Path(each.best_model_save_path).glob("best_model.zip")
        elif folder := getattr(each, "save_path", None):  # DIAYNCheckpointCallback
            files += [path / MODEL_FILE for path in list_checkpoints(folder).values()]
    newest_first = sorted(files, key=lambda file: file.stat().st_mtime_ns, reverse=True)
    return next((file for file in newest_first if _is_good(file, obs_function)), None)


def _is_good(file: Path, obs_function: ObsFunction | None) -> bool:
    try:
        load_discriminator(file, obs_function=obs_function)  # refuses what is not finite
        with zipfile.ZipFile(file) as archive, archive.open("policy.pth") as parameters:
            tensors = th.load(parameters, map_location="cpu", weights_only=True)
    except Exception:  # a checkpoint that cannot be read is not good, for whatever reason
        return False
    return all(bool(th.isfinite(tensor).all()) for tensor in tensors.values())
