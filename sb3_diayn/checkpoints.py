"""Checkpoints in the course of a training, and resuming from one."""

import functools
import os
import re
import secrets
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch as th
from filelock import FileLock, Timeout
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback, EvalCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import get_device
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn.arguments import Count, check_options
from sb3_diayn.callback_list import callbacks_in, check_not_nested
from sb3_diayn.checks import check_env
from sb3_diayn.files import (
    check_writable,
    reading,
    remove_leftovers,
    replacing,
    write_through_memory,
)
from sb3_diayn.model_zip import (
    STATE_ATTRIBUTE,
    TRAINING,
    load_discriminator,
    load_state,
    skill_state,
)
from sb3_diayn.trainer import State
from sb3_diayn.training_state import READABLE_FORMATS, layers_of, training_state
from sb3_diayn.user_code import NO_CODE, UserCode

OF_BUFFER = "what save_replay_buffer() wrote. Use an older one, or resume without it"
MODEL_FILE, BUFFER_FILE, STATE_FILE = "model.zip", "replay_buffer.pkl", "training_state.pt"
STATISTICS = "vecnormalize.pkl"
CHECKPOINTS_FOLDER = "checkpoints"
LOCK_FILE = ".lock"
NAME = re.compile(r"checkpoint_(\d+)_steps")


def save_checkpoint(
    model: BaseAlgorithm, folder: str | os.PathLike[str], *, save_replay_buffer: bool = True
) -> Path:
    """
    Save all that is needed to continue, between two rollouts. One of the same step is kept.

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
            write_replay_buffer(model, temporary / BUFFER_FILE)
        normalizer = model.get_vec_normalize_env()
        if normalizer is not None:
            # Where the zoo looks for it, seen from the model.
            statistics = temporary / str(normalizer.get_attr("env_id")[0]).replace("/", "-")
            statistics.mkdir()
            normalizer.save(str(statistics / STATISTICS))
        write_state = functools.partial(th.save, training_state(model))
        write_through_memory(temporary / STATE_FILE, write_state)
    return path


def write_replay_buffer(model: OffPolicyAlgorithm, file: Path) -> None:
    """
    :param model: whose replay buffer to write
    :param file: where to; it is closed also if the disk is full, which SB3 leaves to chance
    :raises OSError: if it cannot be written
    """
    with file.open("wb") as stream:
        model.save_replay_buffer(stream)


def list_checkpoints(folder: str | os.PathLike[str]) -> dict[int, Path]:
    """
    :param folder: where checkpoints are saved, not necessarily there
    :return: those that have a model, by their number of steps, the newest last
    """
    found = {NAME.fullmatch(path.name): path for path in Path(folder).glob("checkpoint_*_steps")}
    return dict(
        sorted(
            (int(match[1]), path)
            for match, path in found.items()
            if match and (path / MODEL_FILE).is_file()
        )
    )


def lock_folder(folder: Path) -> FileLock | None:
    """
    Two trainings that save in one folder would delete each other's checkpoints.

    :param folder: of the checkpoints of a training
    :return: a lock, which this thread has until it releases it or the process ends, however that
        happens; None where the file system has no locks
    :raises ValueError: if another training has it
    """
    # One lock for each thread of a process: a learn() that has failed has not released it.
    lock = FileLock(folder.resolve() / LOCK_FILE, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"save_path={str(folder)!r} is in use by another training; expected a folder of its "
            "own. Choose another one, or wait until that training ends."
        ) from None
    except NotImplementedError:  # a file system without locks
        return None
    return lock


def drop_old_checkpoints(folder: str | os.PathLike[str], keep: int) -> None:
    """
    :param folder: of the checkpoints of a training
    :param keep: how many of the newest to leave
    """
    for path in list(list_checkpoints(folder).values())[:-keep]:
        # A folder that is being deleted must not look like a checkpoint.
        doomed = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
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
    listed = list_checkpoints(path) or list_checkpoints(path / CHECKPOINTS_FOLDER)
    whole = [checkpoint for checkpoint in listed.values() if (checkpoint / STATE_FILE).is_file()]
    if not whole:
        raise FileNotFoundError(
            f"path={str(path)!r} holds no complete checkpoint; expected a folder in which "
            "DIAYNCheckpointCallback saves. The training may have ended before the first one."
        )
    return whole[-1]


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


class DIAYNCheckpointCallback(BaseCallback):
    """
    Saves, each ``save_freq`` environment steps and at the end, all that a training needs to
    continue as if it had never stopped: see :func:`sb3_diayn.resume`. Pass it next to
    ``DIAYNCallback``. It does not disturb the training: with the same seed the parameters are
    bit-equal with and without it.

    A checkpoint is a folder that appears when it is complete. A process that is killed while
    saving leaves the older ones as they are; if the disk is full, the training continues with a
    warning, and the next checkpoint tries again.
    Paper: https://arxiv.org/abs/1802.06070

    .. warning::
        Unlike SB3's ``CheckpointCallback``, which counts calls, this one counts environment steps:
        do not divide ``save_freq`` by the number of environments.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNCheckpointCallback, DIAYNWrapper, resume
        >>> env = DIAYNWrapper(gym.make("CartPole-v1"), n_skills=4)
        >>> model = PPO("MlpPolicy", env, n_steps=64)
        >>> saving = DIAYNCheckpointCallback("checkpoints", save_freq=64)
        >>> model = model.learn(64, callback=[DIAYNCallback(), saving])
        >>> model = resume("checkpoints", env)  # in another process, say
        >>> model = model.learn(64, callback=DIAYNCallback(), reset_num_timesteps=False)
        >>> model.num_timesteps
        128

    :param save_path: folder of the checkpoints of this training, and of no other; ``"auto"`` for
        the folder ``checkpoints`` within the run's, which ``sb3-diayn train`` knows; elsewhere it
        is where an ``EvalCallback`` or ``CheckpointCallback`` of the same training saves
    :param save_freq: environment steps between two checkpoints, and before the first one; each is
        made between two rollouts
    :param save_replay_buffer: save the replay buffer too. Without it, a resumed training begins
        with an empty one
    :param keep: how many of the newest checkpoints to keep; None for all
    :param verbose: 1 to print each checkpoint's folder, 0 for silence
    :raises ValueError: if a number is not positive; in ``learn`` if there is no discriminator to
        save, ``"auto"`` finds no folder, or another training saves in the folder or has left later
        checkpoints there
    :raises OSError: in ``learn``, before it begins, if the folder cannot be written
    """

    subfolder = CHECKPOINTS_FOLDER  # of the run's folder, for "auto"

    def __init__(
        self,
        save_path: str | Path,
        *,
        save_freq: Count = 10_000,
        save_replay_buffer: bool = True,
        keep: Count | None = 2,
        verbose: int = 0,
    ) -> None:
        check_options(DIAYNCheckpointCallback, locals())
        super().__init__(verbose)
        self.save_path = Path(save_path)
        self.save_freq, self.keep, self.save_replay_buffer = save_freq, keep, save_replay_buffer
        self._lock: FileLock | None = None

    def _init_callback(self) -> None:
        check_not_nested(self)

    def _on_training_start(self) -> None:
        check_not_nested(self)  # within a list, SB3 says so only now
        skill_state(self.model)  # refuses a model without a discriminator
        if str(self.save_path) == "auto":
            self.save_path = run_folder(self.locals["callback"]) / self.subfolder
        check_writable(self.save_path)
        self._lock = lock_folder(self.save_path)
        remove_leftovers(self.save_path)
        later = [steps for steps in list_checkpoints(self.save_path) if steps > self.num_timesteps]
        if later:
            self._release()
            raise ValueError(
                f"save_path={str(self.save_path)!r} holds a checkpoint of {later[-1]} steps, and "
                f"this training is at {self.num_timesteps}; expected a folder of its own. Continue "
                "from that checkpoint with resume(), or choose another folder."
            )
        self._periods = self.num_timesteps // self.save_freq

    def _on_rollout_start(self) -> None:
        periods = self.num_timesteps // self.save_freq
        if periods > self._periods:
            self._periods = periods
            self._save()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._save()
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release(force=True)

    def _save(self) -> None:
        try:
            path = save_checkpoint(
                self.model, self.save_path, save_replay_buffer=self.save_replay_buffer
            )
            if self.keep is not None:
                drop_old_checkpoints(self.save_path, self.keep)
        except OSError as error:
            # The model is still in the memory, and worth more than this checkpoint.
            warnings.warn(
                f"The checkpoint at {self.num_timesteps} steps could not be written ({error}). "
                "Older checkpoints are whole. Make room: the next one tries again.",
                stacklevel=2,
            )
            return
        if self.verbose:
            print(f"Checkpoint saved in {path}")


def resume(
    path: str | os.PathLike[str],
    env: Any,
    *,
    device: th.device | str = "auto",
    **kwargs: Any,
) -> Any:
    """
    Load the newest checkpoint, to continue the training::

        model = resume("checkpoints", env)
        callback = [DIAYNCallback(), DIAYNCheckpointCallback("checkpoints")]
        model.learn(300_000 - model.num_timesteps, callback=callback, reset_num_timesteps=False)

    With the replay buffer in the checkpoint (always for on-policy algorithms), the result is that
    of the uninterrupted training, bit for bit on the CPU. Without it the model gathers new
    experience first, see ``hold`` of ``DIAYNCallback``.

    .. warning::
        A checkpoint contains pickles, which can execute code: open only those you trust.

    :param path: see :func:`sb3_diayn.checkpoints.newest_checkpoint`
    :param env: built as for the training, as many as then, with ``VecNormalize`` if it was there
    :param device: where to train
    :param kwargs: for SB3's ``load``, other values than in the training
    :return: the model, of the algorithm's class
    :raises FileNotFoundError: if there is no complete checkpoint
    :raises ValueError: if it is damaged or ``env`` does not fit
    """
    checkpoint = newest_checkpoint(path)
    state = load_training_state(checkpoint, device)
    _check_n_skills(checkpoint / MODEL_FILE, env)
    with reading(checkpoint / MODEL_FILE, "what model.save() wrote. Use an older checkpoint"):
        model: BaseAlgorithm = state["algorithm"].load(
            checkpoint / MODEL_FILE, env=env, device=device, **kwargs
        )
    buffer_file = checkpoint / BUFFER_FILE
    if isinstance(model, OffPolicyAlgorithm) and buffer_file.is_file():
        with reading(buffer_file, OF_BUFFER):
            model.load_replay_buffer(buffer_file)
    attach_training_state(model, state)
    return model


def _check_n_skills(file: Path, env: Any) -> None:
    """SB3 would speak of observation spaces."""
    expected = load_state(file)["n_skills"]
    n_skills = check_env(env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env]))
    if n_skills != expected:
        raise ValueError(
            f"env has n_skills={n_skills}, and the checkpoint {expected}; expected the same. Pass "
            f"environments as in the training: DIAYNWrapper(env, n_skills={expected})."
        )


def load_training_state(checkpoint: Path, device: th.device | str = "auto") -> State:
    """
    :param checkpoint: a checkpoint's folder
    :param device: where its tensors are wanted
    :return: from :func:`sb3_diayn.training_state.training_state`
    :raises ValueError: if it cannot be read or another version wrote it
    """
    file = checkpoint / STATE_FILE
    expected = "what DIAYNCheckpointCallback wrote. Use an older checkpoint, by its own folder"
    with reading(file, expected):
        state: State = th.load(file, map_location=get_device(device), weights_only=False)
        version = state["format_version"]
    if version not in READABLE_FORMATS:
        raise ValueError(
            f"format_version={version!r} in {file} is unknown to this version; expected one of "
            f"{READABLE_FORMATS}. Install the version of sb3-diayn that wrote it."
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
            "environments in the same way, with new statistics: the saved ones are put back."
        )


def last_good_checkpoint(callback: Any, code: UserCode = NO_CODE) -> Path | None:
    """
    :param callback: the callback of ``learn``, often a ``CallbackList``
    :param code: what the discriminator reads through
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
    return next((file for file in newest_first if _is_good(file, code)), None)


def _is_good(file: Path, code: UserCode) -> bool:
    try:
        load_discriminator(file, **code._asdict())  # refuses what is not finite
        with zipfile.ZipFile(file) as archive, archive.open("policy.pth") as parameters:
            tensors = th.load(parameters, map_location="cpu", weights_only=True)
    except Exception:  # a checkpoint that cannot be read is not good, for whatever reason
        return False
    return all(bool(th.isfinite(tensor).all()) for tensor in tensors.values())
