"""Training through the RL Zoo: its runs can be interrupted and resumed."""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback, CheckpointCallback
from stable_baselines3.common.utils import set_random_seed

from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.checkpoints import (
    CHECKPOINTS_FOLDER,
    MODEL_FILE,
    STATE_FILE,
    STATISTICS,
    DIAYNCheckpointCallback,
    attach_training_state,
    list_checkpoints,
    load_training_state,
)
from sb3_diayn.files import replacing, write_through_memory
from sb3_diayn.model_zip import load_state
from sb3_diayn.zoo.hyperparams import read_config
from sb3_diayn.zoo.presets import describe_preset
from sb3_diayn.zoo.runs import Run, check_env_id, find_run, import_zoo


def train(args: argparse.Namespace) -> Path:
    """
    Train through the zoo's ``ExperimentManager``, so that the run's folder is a zoo folder.

    :param args: the options of ``sb3-diayn train``
    :return: the run's folder
    """
    resumed = find_run(args.resume) if args.resume else None
    with prepared_config(args, resumed) as config:
        agent = None if resumed is None else resume_point(resumed.model_path, resumed.folder)
        return learn_and_save(args, config, agent)


@contextmanager
def prepared_config(args: argparse.Namespace, resumed: Run | None = None) -> Iterator[Path]:
    """
    Check the options, seed everything and limit the threads.

    :param args: options of ``sb3-diayn train``
    :param resumed: the run to go on with
    :return: a file for the zoo with the hyperparameters, for as long as the block lasts
    """
    _complete(args, resumed)
    check_env_id(args.env)
    hyperparams = read_config(args, resumed)
    set_random_seed(args.seed)
    if args.num_threads > 0:
        th.set_num_threads(args.num_threads)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, f"{args.algo}.yml")
        config.write_text(yaml.safe_dump({args.env: hyperparams}), encoding="utf-8")
        yield config


def learn_and_save(
    args: argparse.Namespace,
    config: Path,
    trained_agent: Path | None,
    callbacks: Sequence[BaseCallback] = (),
) -> Path:
    """
    :param args: options as those of ``sb3-diayn train``
    :param config: file of hyperparameters, as the zoo reads them
    :param trained_agent: a model's zip to go on with, in its run's folder
    :param callbacks: beside those of ``config``
    :return: the run's folder
    :raises KeyboardInterrupt: after Ctrl-C, once the model is saved
    :raises ValueError: if the algorithm does not fit the environment
    """
    manager = _make_manager(args, config, trained_agent)
    try:
        model, _ = manager.setup_experiment()
    except (ValueError, OSError, ImportError, gym.error.Error):
        raise
    except Exception as error:  # SB3 asserts, and the zoo evaluates strings: nearly anything
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        raise ValueError(f"{args.algo} cannot train on {args.env}: {kind}{error}") from error
    manager.callbacks.extend(callbacks)
    complete = learn(manager, model, args)
    save(manager, model)
    if not complete:
        print(f"Run saved in {manager.save_path}, unfinished")
        if hasattr(args, "resume"):  # of ``train``, not of ``finetune``
            print(f"Go on:        sb3-diayn train --resume {manager.save_path}")
        raise KeyboardInterrupt
    return Path(manager.save_path)


def _complete(args: argparse.Namespace, resumed: Run | None) -> None:
    """Fill in what the options leave to the resumed run or to chance."""
    if args.seed is None:
        args.seed = int(np.random.default_rng().integers(2**31))
    if resumed is not None:
        names = {cls.__name__: name for name, cls in import_zoo().ALGOS.items()}
        args.algo = names[resumed.algo]
        args.env = args.env or resumed.env_id
        args.env_kwargs = args.env_kwargs or resumed.env_kwargs or None
        if args.n_skills not in (None, resumed.n_skills):
            raise ValueError(
                f"n_skills={args.n_skills} does not match the run; expected {resumed.n_skills}. "
                "Leave --n-skills out to resume, or start a new run without --resume."
            )
    elif args.algo is None:
        args.algo = describe_preset(args.preset)["algo"] if args.preset else "sac"
    if resumed is not None and args.preset:  # train alone knows both
        raise ValueError(
            f"preset={args.preset!r} cannot change a run that goes on; expected --resume alone. "
            "Leave --preset out, or start a new run without --resume."
        )
    if args.env is None:
        raise ValueError(
            "env=None names no environment; expected a gymnasium id. Add --env, or --resume RUN."
        )


def _make_manager(args: argparse.Namespace, config: Path, trained_agent: Path | None) -> Any:
    import_zoo()
    from rl_zoo3.exp_manager import ExperimentManager

    return ExperimentManager(
        args,
        args.algo,
        args.env,
        args.log_folder,
        tensorboard_log=args.tensorboard_log,
        n_timesteps=args.total_timesteps,
        eval_freq=args.eval_freq,
        save_freq=args.save_freq,
        env_kwargs=args.env_kwargs,
        trained_agent="" if trained_agent is None else str(trained_agent),
        seed=args.seed,
        log_interval=args.log_interval,
        save_replay_buffer=args.save_replay_buffer,
        verbose=args.verbose,
        vec_env_type=args.vec_env,
        device=args.device,
        config=str(config),
        show_progress=not args.no_progress,
    )


def resume_point(model_path: Path, folder: Path) -> Path:
    """
    :param model_path: the zip of a run
    :param folder: the run's folder
    :return: the zip to go on with: that of the last checkpoint if it is of the same step, since
        the training goes on exactly from there, else ``model_path``
    """
    checkpoints = list_checkpoints(folder / CHECKPOINTS_FOLDER)
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
                Path(manager.save_path, CHECKPOINTS_FOLDER),
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
