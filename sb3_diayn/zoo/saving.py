"""What is saved of a training, at its end and when it fails."""

import shlex
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import ProgressBarCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn.callback_list import callbacks_in
from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.checkpoints import BUFFER_FILE, STATISTICS, write_replay_buffer
from sb3_diayn.checks import find_bad_parameter
from sb3_diayn.evaluation.dashboard import SkillDashboardCallback
from sb3_diayn.files import replacing, write_through_memory
from sb3_diayn.zoo.failures import TrainingError, close_envs, failure_in_words, in_words

TRACEBACK_FILE = "traceback.txt"  # in the folder of a run that has failed


def save(manager: Any, model: BaseAlgorithm) -> None:
    """
    What the zoo's ``save_trained_model`` saves, the most precious first. Each file is whole or
    absent, and one that cannot be saved does not keep the next ones from it.

    :param manager: the zoo's
    :param model: what it trained
    :raises OSError: if some files could not be saved; older ones stay as they were
    """
    folder = Path(manager.save_path)
    writers: dict[Path, Callable[[Path], object]] = {
        folder / f"{manager.env_name}.zip": lambda file: write_through_memory(file, model.save)
    }
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        writers[Path(manager.params_path, STATISTICS)] = lambda file: normalizer.save(str(file))
    if manager.save_replay_buffer and isinstance(model, OffPolicyAlgorithm):
        writers[folder / BUFFER_FILE] = partial(write_replay_buffer, model)
    failed = []
    for file, write in writers.items():
        try:
            with replacing(file) as temporary:
                write(temporary)
        except Exception as error:  # a library may answer a full disk with nearly anything
            failed.append(f"{file.name} ({error})")
    if failed:
        names = [file.name for file in writers if file.is_file()]
        raise OSError(
            f"Could not be saved: {', '.join(failed)}. In {folder} there is now: "
            f"{', '.join(names) or 'none of the files'}."
        )


def save_and_raise(manager: Any, model: BaseAlgorithm, error: BaseException) -> NoReturn:
    """
    Save what was learned before a training failed, and say so.

    :param manager: the zoo's
    :param model: what it trained
    :param error: what ended the training
    :raises KeyboardInterrupt: the error itself, if it is one
    :raises TrainingError: with the reason, and where the run is saved
    """
    reason = _reason(manager, model, error)
    own = (DIAYNCallback, ProgressBarCallback, SkillDashboardCallback)
    for callback in manager.callbacks:
        if isinstance(callback, own):
            with suppress(Exception):
                callback.on_training_end()  # leaves the model's options as they were
    has_learned = model.num_timesteps > model._num_timesteps_at_start
    if not has_learned and reason is None:
        raise error
    outcome = "Nothing was learned yet."
    if has_learned:
        if find_bad_number(manager, model) is not None:
            raise error
        outcome = _save_unfinished(manager, model)
    if isinstance(error, KeyboardInterrupt):
        with suppress(OSError):  # the terminal may be gone
            print(outcome, flush=True)
        raise error
    with suppress(OSError):
        file = Path(manager.save_path, TRACEBACK_FILE)
        file.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        outcome += f"\nTraceback:    {file}"
    if reason is None:
        is_sentence = isinstance(error, (ValueError, OSError, ImportError))
        reason = f"The training has failed: {error if is_sentence else in_words(error)}"
    raise TrainingError(f"{reason}\n{outcome}") from error


def _reason(manager: Any, model: BaseAlgorithm, error: BaseException) -> str | None:
    """Which environment has failed, when and how, if one has."""
    if isinstance(error, KeyboardInterrupt):
        return None  # Ctrl-C ends the processes of the environments, too
    n_steps = model.num_timesteps - model._num_timesteps_at_start
    for env in _envs(manager, model):
        is_training = env is model.env
        moment = f" in step {n_steps // model.n_envs + 1}" if is_training else " in an evaluation"
        reason = failure_in_words(manager.env_name.gym_id, env, error, moment)
        if reason is not None:
            return f"{reason} The training was at step {model.num_timesteps}."
    return None


def _envs(manager: Any, model: BaseAlgorithm) -> list[VecEnv]:
    """Of the training, and of evaluations in its course."""
    callbacks = [each for outer in manager.callbacks for each in callbacks_in(outer)]
    names = ("eval_env", "own_env")  # of SB3's callback and of ours
    evaluating = [getattr(callback, name, None) for callback in callbacks for name in names]
    return [env for env in (model.env, *evaluating) if isinstance(env, VecEnv)]


def check_not_diverged(manager: Any, model: BaseAlgorithm) -> None:
    """
    :param manager: the zoo's
    :param model: what it has trained
    :raises ValueError: if it is not finite since its last updates: an older one is worth more
    """
    bad = find_bad_number(manager, model)
    if bad is not None:
        raise ValueError(
            f"{bad} at the end of the training: it has diverged, and the model is not saved; "
            "expected finite numbers. Lower the learning_rate of the model. Its checkpoints, if "
            f"there are any, are in {manager.save_path}."
        )


def find_bad_number(manager: Any, model: BaseAlgorithm) -> str | None:
    """
    :param manager: the zoo's
    :param model: what it trained
    :return: a parameter of policy or discriminator that is not finite, None if there is none
    """
    modules: list[tuple[str, Any]] = [("policy", model.policy)]
    for callback in manager.callbacks:
        if hasattr(callback, "discriminator"):
            modules.append(("discriminator", callback.discriminator))
    found = ((name, find_bad_parameter(module)) for name, module in modules)
    return next((f"{name}.{bad}" for name, bad in found if bad is not None), None)


def _save_unfinished(manager: Any, model: BaseAlgorithm) -> str:
    try:
        save(manager, model)
    except OSError as error:
        return str(error)
    folder = manager.save_path
    command = shlex.join(["sb3-diayn", "train", "--resume", str(folder)])
    resume = f"\nResume it:    {command}"
    if not learns_skills(manager):
        zip_file = Path(folder, f"{manager.env_name}.zip")
        name = type(model).__name__
        resume = (
            f"\nIt has no skills any more. Go on in a script: {name}.load({str(zip_file)!r}, env)"
        )
    return f"Run saved in {folder}, unfinished{resume}"


def close_all_envs(manager: Any, model: BaseAlgorithm, has_failed: bool) -> None:
    """
    :param manager: the zoo's
    :param model: what it trained
    :param has_failed: do not wait for processes that may hang
    """
    for env in _envs(manager, model):
        close_envs(env, has_failed=has_failed)


def learns_skills(manager: Any) -> bool:
    """
    :param manager: the zoo's
    :return: False for a training on the task, as of an exported skill
    """
    return any(isinstance(callback, DIAYNCallback) for callback in manager.callbacks)
