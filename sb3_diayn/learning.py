"""A training through the zoo's ``ExperimentManager`` that can be interrupted and resumed."""

import argparse
from pathlib import Path
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import CheckpointCallback

from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.checkpoint import load_state
from sb3_diayn.checkpointing import DIAYNCheckpointCallback
from sb3_diayn.folders import AUTO_FOLDER, MODEL_FILE, STATE_FILE, STATISTICS, list_checkpoints
from sb3_diayn.resuming import attach_training_state, load_training_state
from sb3_diayn.saving import replacing, write_through_memory


def resume_point(model_path: Path, folder: Path) -> Path:
    """
    :param model_path: the zip of a run
    :param folder: the run's folder
    :return: the zip to go on with: that of the last checkpoint if it is of the same step, since
        the training goes on exactly from there, else ``model_path``
    """
    checkpoints = list_checkpoints(folder / AUTO_FOLDER)
    if not checkpoints or model_path.parent != folder:
        return model_path
    steps, newest = list(checkpoints.items())[-1]
    saved = load_state(model_path).get("progress", {}).get("total_timesteps")
    return newest / MODEL_FILE if saved == steps else model_path


def learn(manager: Any, model: BaseAlgorithm, args: argparse.Namespace) -> bool:
    """
    :param manager: the zoo's, after ``setup_experiment``
    :param model: what that returned
    :param args: the options of ``sb3-diayn train``
    :return: whether the training came to its end; False after Ctrl-C
    """
    resumes = manager.continue_training and _learns_skills(manager)
    n_timesteps = manager.n_timesteps
    if _learns_skills(manager):
        _replace_checkpoints(manager, args)
    if resumes:
        _attach_state(model, Path(manager.trained_agent).parent)
        n_timesteps = _remaining(model, args.total_timesteps, n_timesteps)
        last = model.num_timesteps + n_timesteps
        print(f"Going on at step {model.num_timesteps} until step {last}")
    options = {} if args.log_interval == -1 else {"log_interval": max(args.log_interval, 0) or None}
    try:
        model.learn(
            n_timesteps,
            callback=manager.callbacks,
            reset_num_timesteps=not resumes,
            **options,  # type: ignore[arg-type]
        )
    except KeyboardInterrupt:
        return False
    finally:
        _release(manager, model)
    return True


def save(manager: Any, model: BaseAlgorithm) -> None:
    """
    What the zoo's ``save_trained_model`` saves, each file whole or absent, and the model last.

    :param manager: the zoo's
    :param model: what it trained
    :raises OSError: if a file cannot be written; an older one stays as it was
    """
    folder = Path(manager.save_path)
    if manager.save_replay_buffer and hasattr(model, "save_replay_buffer"):
        with replacing(folder / "replay_buffer.pkl") as temporary:
            model.save_replay_buffer(temporary)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        with replacing(Path(manager.params_path, STATISTICS)) as temporary:
            normalizer.save(str(temporary))
    with replacing(folder / f"{manager.env_name}.zip") as temporary:
        write_through_memory(temporary, model.save)


def _learns_skills(manager: Any) -> bool:
    return any(isinstance(callback, DIAYNCallback) for callback in manager.callbacks)


def _replace_checkpoints(manager: Any, args: argparse.Namespace) -> None:
    """Checkpoints that are complete or absent, and enough to go on exactly, for the zoo's."""
    manager.callbacks = [c for c in manager.callbacks if type(c) is not CheckpointCallback]
    if args.save_freq > 0:
        manager.callbacks.append(
            DIAYNCheckpointCallback(
                Path(manager.save_path, AUTO_FOLDER),
                save_freq=args.save_freq,
                save_replay_buffer=args.save_replay_buffer,
                keep=args.keep_checkpoints,
            )
        )


def _attach_state(model: BaseAlgorithm, checkpoint: Path) -> None:
    if not (checkpoint / STATE_FILE).is_file():
        return
    try:
        attach_training_state(model, load_training_state(checkpoint, model.device))
    except ValueError as error:
        print(f"The training goes on, but not exactly: {error}")


def _remaining(model: BaseAlgorithm, wanted: int, configured: int) -> int:
    """So many more as were asked for, or what is missing, or of a complete run as many again."""
    if wanted > 0:
        return wanted
    missing = model._total_timesteps - model.num_timesteps
    return missing if missing > 0 else configured


def _release(manager: Any, model: BaseAlgorithm) -> None:
    if manager.callbacks:
        manager.callbacks[0].on_training_end()  # the progress bar's, after an exception too
    try:
        if model.env is not None:
            model.env.close()
    except (EOFError, OSError):
        pass  # Ctrl-C has ended the processes of the environments already
