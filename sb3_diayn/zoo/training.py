"""Training through the RL Zoo: its runs can be interrupted and resumed."""

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
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
from sb3_diayn.zoo.hyperparams import default_algo, import_zoo, read_config
from sb3_diayn.zoo.runs import Run, check_env_id, find_run


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """
    What to train and how. The zoo saves all of them in the run's ``args.yml``.

    :param env: id of the environment
    :param algo: name of the algorithm as the zoo spells it; None for the one that ``conf_file``
        names, or ``sac``
    :param conf_file: file of hyperparameters in the zoo's format, or the name of a provided one;
        None for the provided one of the algorithm
    :param n_skills: number of skills; None for the file's
    :param hyperparams: what shall differ from the file, for example ``{"batch_size": 64}`` or
        ``{"DIAYNCallback.learning_rate": 1e-3}``
    :param env_kwargs: arguments of the environment
    :param n_timesteps: environment steps; -1 for the file's
    :param seed: seed of everything; None for a random one
    :param log_folder: where runs are saved
    :param device: PyTorch device
    :param num_threads: PyTorch threads; -1 for its own choice
    :param vec_env: ``"dummy"`` or ``"subproc"``
    :param save_freq: environment steps between checkpoints; -1 for none
    :param keep_checkpoints: how many checkpoints to keep, the newest
    :param save_replay_buffer: save it at the end and in checkpoints
    :param log_interval: episodes between two log lines; -1 for SB3's choice
    :param eval_freq: steps between two evaluations of the zoo; -1 for none
    :param tensorboard_log: folder for TensorBoard; empty for none
    :param progress_bar: show one
    :param verbose: 1 for messages of the zoo and of SB3
    """

    env: str | None = None
    algo: str | None = None
    conf_file: str | Path | None = None
    n_skills: int | None = None
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    env_kwargs: Mapping[str, Any] | None = None
    n_timesteps: int = -1
    seed: int | None = None
    log_folder: str | Path = "logs"
    device: str = "auto"
    num_threads: int = -1
    vec_env: str = "dummy"
    save_freq: int = -1
    keep_checkpoints: int = 2
    save_replay_buffer: bool = False
    log_interval: int = -1
    eval_freq: int = -1
    tensorboard_log: str = ""
    progress_bar: bool = False
    verbose: int = 0


def train(env: str | None = None, *, resume: str | Path | None = None, **options: Any) -> Path:
    """
    Train with the zoo's ``ExperimentManager``, so that the run's folder is a folder of the zoo.

    Example::

        folder = train("Pendulum-v1", n_skills=5, n_timesteps=10_000, seed=0)
        evaluation = find_run(folder).evaluate()

    :param env: id of the environment; None for the environment of the run that is resumed
    :param resume: a run or a checkpoint to continue, in a new folder
    :param options: see :class:`TrainingOptions`
    :return: the run's folder
    :raises KeyboardInterrupt: after Ctrl-C, once the model is saved
    :raises ValueError: if an option or a hyperparameter is wrong
    """
    resumed = None if resume is None else find_run(resume)
    settings, hyperparams = complete(TrainingOptions(env=env, **options), resumed)
    return learn_and_save(
        seeded(settings),
        hyperparams,
        None if resumed is None else resume_point(resumed),
        resume=None if resume is None else str(resume),
    )


def complete(
    options: TrainingOptions, resumed: Run | None = None
) -> tuple[TrainingOptions, dict[str, Any]]:
    """
    :param options: what to train
    :param resumed: the run to continue, whose hyperparameters then count
    :return: the options with what they leave to the resumed run or to the file; and the
        hyperparameters
    :raises ValueError: if one of them is wrong
    """
    if resumed is not None:
        if options.n_skills not in (None, resumed.n_skills):
            raise ValueError(
                f"n_skills={options.n_skills} does not match the run; expected {resumed.n_skills}. "
                "Leave --n-skills out to resume, or start a new run without --resume."
            )
        options = replace(
            options,
            algo=resumed.zoo_algo,
            env=options.env or resumed.env_id,
            env_kwargs=options.env_kwargs or resumed.env_kwargs or None,
        )
    if options.env is None:
        raise ValueError(
            "env=None names no environment; expected a gymnasium id. Add --env, or --resume RUN."
        )
    algo = options.algo or default_algo(options.conf_file)
    check_env_id(options.env)
    hyperparams = read_config(
        algo,
        options.env,
        conf_file=options.conf_file,
        n_skills=options.n_skills,
        hyperparams=options.hyperparams,
        resumed=None if resumed is None else resumed.hyperparams,
    )
    return replace(options, algo=algo), hyperparams


def seeded(options: TrainingOptions) -> TrainingOptions:
    """
    Seed everything, and limit the number of threads.

    :param options: what to train
    :return: the same with a seed, a random one where there was none
    """
    if options.seed is None:
        options = replace(options, seed=int(np.random.default_rng().integers(2**31)))
    assert options.seed is not None
    set_random_seed(options.seed)
    if options.num_threads > 0:
        th.set_num_threads(options.num_threads)
    return options


def learn_and_save(
    options: TrainingOptions,
    hyperparams: Mapping[str, Any],
    trained_agent: Path | None,
    callbacks: Sequence[BaseCallback] = (),
    **remembered: Any,
) -> Path:
    """
    :param options: complete ones
    :param hyperparams: in the zoo's format
    :param trained_agent: a model's zip to continue, in its run's folder
    :param callbacks: in addition to those of ``hyperparams``
    :param remembered: what else the run's ``args.yml`` shall tell
    :return: the run's folder
    :raises KeyboardInterrupt: after Ctrl-C, once the model is saved
    :raises ValueError: if the algorithm does not fit the environment
    """
    import_zoo()
    from rl_zoo3.exp_manager import ExperimentManager

    agent = "" if trained_agent is None else str(trained_agent)
    with make_manager(
        ExperimentManager, options, hyperparams, trained_agent=agent, remembered=remembered
    ) as manager:
        try:
            model, _ = manager.setup_experiment()
        except (ValueError, OSError, ImportError, gym.error.Error):
            raise
        except Exception as error:  # SB3 asserts, and the zoo evaluates strings: nearly anything
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise ValueError(
                f"{options.algo} cannot train on {options.env}: {kind}{error}"
            ) from error
    manager.callbacks.extend(callbacks)
    try:
        learn(manager, model, options)
    except KeyboardInterrupt:
        save(manager, model)
        print(f"Run saved in {manager.save_path}, unfinished")
        if _learns_skills(manager):
            print(f"Resume it:    sb3-diayn train --resume {manager.save_path}")
        raise
    save(manager, model)
    return Path(manager.save_path)


@contextmanager
def make_manager(
    manager_class: Any,
    options: TrainingOptions,
    hyperparams: Mapping[str, Any],
    *,
    remembered: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Iterator[Any]:
    """
    :param manager_class: the zoo's ``ExperimentManager`` or a subclass
    :param options: complete ones
    :param hyperparams: in the zoo's format, which the manager reads from a file that lives as long
        as the block
    :param remembered: what else the run's ``args.yml`` shall tell
    :param kwargs: further arguments of ``manager_class``
    :return: the manager
    """
    saved = {**asdict(options), **(remembered or {})}
    saved |= {name: str(value) for name, value in saved.items() if isinstance(value, Path)}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, f"{options.algo}.yml")
        config.write_text(yaml.safe_dump({options.env: dict(hyperparams)}), encoding="utf-8")
        yield manager_class(
            argparse.Namespace(**saved),
            options.algo,
            options.env,
            str(options.log_folder),
            tensorboard_log=options.tensorboard_log,
            n_timesteps=options.n_timesteps,
            eval_freq=options.eval_freq,
            save_freq=options.save_freq,
            env_kwargs=options.env_kwargs,
            seed=options.seed,
            log_interval=options.log_interval,
            save_replay_buffer=options.save_replay_buffer,
            verbose=options.verbose,
            vec_env_type=options.vec_env,
            device=options.device,
            config=str(config),
            show_progress=options.progress_bar,
            **kwargs,
        )


def resume_point(run: Run) -> Path:
    """
    :param run: the run to continue
    :return: the zip to start from: the last checkpoint's if it is of the same step, since the
        training continues exactly from there, else the run's own
    """
    checkpoints = list_checkpoints(run.folder / CHECKPOINTS_FOLDER)
    if not checkpoints or run.model_path.parent != run.folder:
        return run.model_path
    steps, newest = list(checkpoints.items())[-1]
    saved = run.state.get("progress", {}).get("total_timesteps")
    return newest / MODEL_FILE if saved == steps else run.model_path


def learn(manager: Any, model: BaseAlgorithm, options: TrainingOptions) -> None:
    """
    :param manager: the zoo's, after ``setup_experiment``
    :param model: what that returned
    :param options: complete ones
    """
    resumes = manager.continue_training and _learns_skills(manager)
    n_timesteps = manager.n_timesteps
    if _learns_skills(manager):
        _replace_checkpoints(manager, options)
    if resumes:
        _attach_state(model, Path(manager.trained_agent).parent)
        n_timesteps = _remaining(model, options.n_timesteps, n_timesteps)
        last = model.num_timesteps + n_timesteps
        print(f"Going on at step {model.num_timesteps} until step {last}")
    interval: dict[str, Any] = {}
    if options.log_interval != -1:
        interval["log_interval"] = max(options.log_interval, 0) or None
    try:
        model.learn(
            n_timesteps,
            callback=manager.callbacks,
            reset_num_timesteps=not resumes,
            **interval,
        )
    finally:
        _release(manager, model)


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


def _replace_checkpoints(manager: Any, options: TrainingOptions) -> None:
    """In place of the zoo's checkpoints, ours, which are whole or absent and resume exactly."""
    manager.callbacks = [c for c in manager.callbacks if type(c) is not CheckpointCallback]
    if options.save_freq > 0:
        manager.callbacks.append(
            DIAYNCheckpointCallback(
                Path(manager.save_path, CHECKPOINTS_FOLDER),
                save_freq=options.save_freq,
                save_replay_buffer=options.save_replay_buffer,
                keep=options.keep_checkpoints,
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
    """As many as asked for; else what is missing; of a complete run, as many again."""
    if wanted > 0:
        return wanted
    missing = model._total_timesteps - model.num_timesteps
    return missing if missing > 0 else configured


def _release(manager: Any, model: BaseAlgorithm) -> None:
    if manager.callbacks:
        manager.callbacks[0].on_training_end()  # closes the progress bar, after an exception too
    try:
        if model.env is not None:
            model.env.close()
    except (EOFError, OSError):
        pass  # Ctrl-C has ended the processes of the environments already
