"""Checkpoints on disk: folders that are complete or absent."""

import functools
import os
import re
import shutil
from pathlib import Path

import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_diayn.nesting import callbacks_in
from sb3_diayn.saving import replacing, write_through_memory
from sb3_diayn.training_state import training_state

MODEL_FILE, BUFFER_FILE, STATE_FILE = "model.zip", "replay_buffer.pkl", "training_state.pt"
STATISTICS = "vecnormalize.pkl"
AUTO_FOLDER = "checkpoints"
NAME = re.compile(r"checkpoint_(\d+)_steps")


def save_checkpoint(
    model: BaseAlgorithm, folder: str | os.PathLike[str], *, save_replay_buffer: bool = True
) -> Path:
    """
    Save all that is needed to go on, between two rollouts. One of the same step is kept.

    :param model: in training with ``DIAYNCallback``
    :param folder: of the checkpoints of this training
    :param save_replay_buffer: also save the replay buffer, if the algorithm has one
    :return: the checkpoint's folder
    :raises OSError: if it cannot be written; nothing is left behind then
    """
    path = Path(folder) / f"checkpoint_{model.num_timesteps}_steps"
    if path.is_dir():
        return path
    with replacing(path) as temporary:
        temporary.mkdir()
        write_through_memory(temporary / MODEL_FILE, model.save)
        if save_replay_buffer and isinstance(model, OffPolicyAlgorithm):
            model.save_replay_buffer(temporary / BUFFER_FILE)
        normalizer = model.get_vec_normalize_env()
        if normalizer is not None:
            # Where the zoo looks for it, seen from the model.
            statistics = temporary / str(normalizer.get_attr("env_id")[0]).replace("/", "-")
            statistics.mkdir()
            normalizer.save(str(statistics / STATISTICS))
        write_state = functools.partial(th.save, training_state(model))
        write_through_memory(temporary / STATE_FILE, write_state)
    return path


def list_checkpoints(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """
    :param folder: where checkpoints are saved, not necessarily there
    :return: the complete ones by their number of steps, the newest last
    """
    found = {NAME.fullmatch(path.name): path for path in Path(folder).glob("checkpoint_*_steps")}
    return dict(sorted((int(match[1]), path) for match, path in found.items() if match))


def drop_old_checkpoints(folder: str | os.PathLike[str], keep: int) -> None:
    """
    :param folder: of the checkpoints of a training
    :param keep: how many of the newest to leave
    """
    for path in list(list_checkpoints(folder).values())[:-keep]:
        # A folder that is being deleted must not look like a checkpoint.
        doomed = path.with_name(f".{path.name}.part")
        os.replace(path, doomed)
        shutil.rmtree(doomed)


def newest_checkpoint(path: str | os.PathLike[str]) -> Path:
    """
    :param path: a folder with checkpoints, a run's folder with a folder ``checkpoints``, or one
        checkpoint itself
    :return: the newest complete checkpoint
    :raises FileNotFoundError: if there is none
    """
    path = Path(path)
    if (path / STATE_FILE).is_file():
        return path
    found = list_checkpoints(path) or list_checkpoints(path / AUTO_FOLDER)
    if not found:
        raise FileNotFoundError(
            f"path={str(path)!r} holds no complete checkpoint; expected a folder in which "
            "DIAYNCheckpointCallback saves. The training may have ended before the first one."
        )
    return list(found.values())[-1]


def run_folder(callback: BaseCallback) -> Path:
    """
    :param callback: of a ``learn``, with all within it
    :return: where an ``EvalCallback`` or ``CheckpointCallback`` saves, which in the zoo is the
        run's folder
    :raises ValueError: if there is none
    """
    for child in callbacks_in(callback):
        path = getattr(child, "best_model_save_path", None)
        if isinstance(child, CheckpointCallback):
            path = child.save_path
        if path is not None:
            return Path(path)
    raise ValueError(
        "save_path='auto' finds no folder; expected an EvalCallback or a CheckpointCallback that "
        "saves in the same training, as the zoo's do (unless --eval-freq and --save-freq are -1). "
        "Pass a path."
    )
