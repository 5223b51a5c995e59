"""Training through the RL Zoo: its runs can be interrupted and resumed."""

import argparse
import math
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    ProgressBarCallback,
)
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_diayn.callback_list import callbacks_in
from sb3_diayn.checkpoints import (
    BUFFER_FILE,
    CHECKPOINTS_FOLDER,
    MODEL_FILE,
    OF_BUFFER,
    STATE_FILE,
    STATISTICS,
    DIAYNCheckpointCallback,
    attach_training_state,
    list_checkpoints,
    load_training_state,
)
from sb3_diayn.checks import losses_of
from sb3_diayn.evaluation.callback import SkillEvaluationCallback
from sb3_diayn.evaluation.dashboard import SkillDashboardCallback
from sb3_diayn.evaluation.monitoring import SkillProgressBarCallback
from sb3_diayn.files import check_writable, reading
from sb3_diayn.processor import efficient_torch
from sb3_diayn.wrappers import first_bad_row
from sb3_diayn.zoo.console import print_hyperparams, quiet_zoo
from sb3_diayn.zoo.environments import importing, is_of_rendering, of_envpool, why_not_made
from sb3_diayn.zoo.failures import TerminationHandler, closing_if_failed
from sb3_diayn.zoo.finding import find_run
from sb3_diayn.zoo.hyperparams import import_zoo
from sb3_diayn.zoo.parallel import share_imports
from sb3_diayn.zoo.run_files import OF_SB3, check_log_folder, check_statistics, file_name
from sb3_diayn.zoo.runs import Run
from sb3_diayn.zoo.saving import (
    check_not_diverged,
    close_all_envs,
    learns_skills,
    save,
    save_and_raise,
)
from sb3_diayn.zoo.settings import TrainingOptions, complete, seeded

# By default. A checkpoint in the very beginning is worth little.
N_CHECKPOINTS, MIN_SAVE_FREQ = 10, 10_000
LIVE_FILE = "live.html"  # in a run's folder
LIVE_FILMS = 3  # of skills, on that page


def train(
    env: str | None = None,
    *,
    resume: str | Path | None = None,
    callbacks: Sequence[BaseCallback] = (),
    **options: Any,
) -> Path:
    """
    Train with the zoo's ``ExperimentManager``, so that the run's folder is a folder of the zoo.

    Example::

        folder = train("Pendulum-v1", n_skills=5, n_timesteps=10_000, seed=0)
        evaluation = find_run(folder).evaluate()

    :param env: id of the environment; None for the environment of the run that is resumed
    :param resume: a run or a checkpoint to continue, in a new folder
    :param callbacks: in addition to the hyperparameters' own
    :param options: see :class:`~sb3_diayn.zoo.settings.TrainingOptions`
    :return: the run's folder
    :raises KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGHUP, once the model is saved
    :raises TrainingError: if an environment or anything else has failed, once the model is saved
    :raises ValueError: if an option or a hyperparameter is wrong, or learning has diverged
    """
    resumed = None if resume is None else find_run(resume)
    settings, hyperparams = complete(TrainingOptions(env=env, **options), resumed)
    agent = None if resumed is None else resume_point(resumed)
    if resumed is not None and agent is not None:
        assert settings.env is not None
        _check_normalization(resumed, agent, settings.env)
    return learn_and_save(
        seeded(settings),
        hyperparams,
        agent,
        callbacks,
        resume=None if resume is None else str(resume),
    )


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
    :param callbacks: in addition to the callbacks of ``hyperparams``
    :param remembered: what else the run's ``args.yml`` shall tell
    :return: the run's folder
    :raises KeyboardInterrupt: after Ctrl-C, SIGTERM or SIGHUP, once the model is saved
    :raises TrainingError: if an environment or anything else has failed, once the model is saved
    :raises ValueError: if the algorithm does not fit the environment, or learning has diverged
    """
    import_zoo()
    from rl_zoo3.exp_manager import ExperimentManager

    agent = "" if trained_agent is None else str(trained_agent)
    with make_manager(
        ExperimentManager, options, hyperparams, trained_agent=agent, remembered=remembered
    ) as manager:
        displays = _displays(manager, options)
        try:
            with nullcontext() if options.verbose else quiet_zoo():
                model, _ = manager.setup_experiment()
        except Exception as error:  # SB3 asserts, and the zoo evaluates strings: nearly anything
            shutil.rmtree(manager.save_path, ignore_errors=True)  # it has no run in it
            if trained_agent is not None:
                _check_files(options, trained_agent)
            raise _why_not_set_up(options, agent, error) from error
    print_hyperparams(_title(manager, options), hyperparams)
    print(f"Saving to {manager.save_path}")
    manager.callbacks.extend(callbacks)
    _name_folders(manager)
    if learns_skills(manager):
        manager.callbacks.extend(displays)
    else:
        manager.callbacks.append(FiniteNumbersCallback())
        if options.progress_bar:
            manager.callbacks.append(ProgressBarCallback())
    has_failed = True
    with TerminationHandler() as handler:
        try:
            threads = efficient_torch(model.observation_space, options.num_threads)
            with handler.interrupting(), threads:
                learn(manager, model, options)
            has_failed = False
            check_not_diverged(manager, model)
            save(manager, model)
            handler.announce(f"The run is saved in {manager.save_path}")
        except BaseException as error:
            if not has_failed:
                raise
            save_and_raise(manager, model, error)
        finally:
            close_all_envs(manager, model, has_failed)
    return Path(manager.save_path)


class FiniteNumbersCallback(BaseCallback):
    """
    Stops a training of the task at the first number that is not finite, as wrapper and callback of
    the skills stop theirs.
    """

    def _on_rollout_start(self) -> None:
        for name, value in losses_of(self.logger).items():
            if not math.isfinite(value):
                raise ValueError(
                    f"{name}={value} after {self.num_timesteps} steps; expected a finite number. "
                    "Lower the learning_rate of the model, or start again from a checkpoint."
                )

    def _on_step(self) -> bool:
        obs = self.locals["new_obs"]
        parts = obs if isinstance(obs, dict) else {"observation": obs}
        for name, batch in {**parts, "reward": self.locals["rewards"]}.items():
            row = first_bad_row(batch)
            if row is not None:
                raise ValueError(
                    f"{name}={batch[row]} of environment {row} after {self.num_timesteps} steps; "
                    "expected finite numbers. Correct the environment."
                )
        return True


def _title(manager: Any, options: TrainingOptions) -> str:
    assert options.algo is not None
    what = f"{options.algo.upper()} on {options.env}"
    return f"{what}, {manager.n_timesteps:,.0f} steps, seed {options.seed}"


def _displays(manager: Any, options: TrainingOptions) -> list[BaseCallback]:
    """What shows a training of skills while it runs."""
    displays: list[BaseCallback] = []
    if options.progress_bar:
        displays.append(SkillProgressBarCallback())
    if options.live:
        page, title = Path(manager.save_path, LIVE_FILE), Path(manager.save_path).name
        displays.append(SkillDashboardCallback(page, title=title, n_films=LIVE_FILMS, verbose=1))
    return displays


def _check_files(options: TrainingOptions, agent: Path) -> None:
    """Refuse a damaged file by its name: the zoo has failed to load one of them, or else."""
    assert options.env is not None
    check_statistics(agent.parent / file_name(options.env) / STATISTICS)
    with reading(agent, OF_SB3):
        model = import_zoo().ALGOS[options.algo].load(agent, device="cpu")
    buffer_file = agent.parent / BUFFER_FILE
    if isinstance(model, OffPolicyAlgorithm) and buffer_file.exists():
        with reading(buffer_file, OF_BUFFER):
            model.load_replay_buffer(buffer_file)


def _why_not_set_up(options: TrainingOptions, agent: str, error: Exception) -> Exception:
    assert options.env is not None
    if isinstance(error, (EOFError, ConnectionError)) or is_of_rendering(error):
        return why_not_made(options.env, options.env_kwargs, error)
    if agent and "spaces do not match" in str(error):  # SB3 does not say which is which
        return ValueError(
            f"env={options.env!r} does not fit the run that is resumed: {error}; expected the "
            "environment of the run, or one with the same spaces. Leave --env out, or start a new "
            "run without --resume."
        )
    if "VecNormalize only supports" in str(error):
        return ValueError(
            f"normalize of the configuration cannot scale observations of {options.env} ({error}); "
            "expected False for numbers that count or choose. Use --hyperparams normalize:False, "
            "and policy:MultiInputPolicy where the observation is no vector."
        )
    if isinstance(error, (ValueError, OSError, ImportError, gym.error.Error)):
        return error
    name = type(error).__name__
    kind = "" if isinstance(error, AssertionError) and str(error) else f"{name}: "
    start = f", starting from {agent}" if agent else ""
    refused = re.search(r"as action spaces but (.*) was provided", str(error))
    if isinstance(error, AssertionError) and refused:
        space = refused[1]
        return ValueError(
            f"algo={options.algo!r} cannot choose actions of {options.env}, {space}; expected one "
            "that can. Choose another algorithm: "
            f"--algo {'sac' if space.startswith('Box(') else 'ppo'}."
        )
    return ValueError(f"{options.algo} cannot train on {options.env}{start}: {kind}{error}")


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
    :raises OSError: if nothing can be written in a folder of the options
    """
    check_log_folder(options.log_folder)
    for written in (options.log_folder, options.tensorboard_log):
        if written:
            check_writable(written)
    saved = {**asdict(options), **(remembered or {})}
    saved |= {name: str(value) for name, value in saved.items() if isinstance(value, Path)}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, f"{options.algo}.yml")
        config.write_text(yaml.safe_dump({options.env: dict(hyperparams)}), encoding="utf-8")
        manager = manager_class(
            argparse.Namespace(**saved),
            options.algo,
            options.env,
            str(options.log_folder),
            tensorboard_log=options.tensorboard_log,
            n_timesteps=options.n_timesteps,
            eval_freq=options.eval_freq,
            save_freq=-1 if options.save_freq is None else options.save_freq,
            env_kwargs=options.env_kwargs,
            seed=options.seed,
            log_interval=options.log_interval,
            save_replay_buffer=options.save_replay_buffer,
            verbose=options.verbose,
            vec_env_type="subproc" if options.vec_env == "subproc" else "dummy",
            device=options.device,
            config=str(config),
            **kwargs,
        )
        if options.vec_env == "envpool":
            assert options.env is not None
            make_envs = of_envpool(options.env, options.env_kwargs, options.seed)
        else:
            if options.vec_env == "subproc":
                share_imports()
            make_envs = importing(manager.vec_env_class, options.gym_packages)
        with closing_if_failed(make_envs) as manager.vec_env_class:
            yield manager


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


def _check_normalization(run: Run, agent: Path, env_id: str) -> None:
    """The zoo looks for statistics in one place only, and begins with new ones if it finds none."""
    expected = agent.parent / file_name(env_id) / STATISTICS
    if run.state.get("vec_normalize") and not expected.is_file():
        remedy = f"Copy {run.statistics_file or STATISTICS} to that place, or resume"
        if env_id != run.env_id:  # nobody knows whether its observations mean the same
            remedy = "Start a new run without --resume, or resume"
        raise ValueError(
            f"RUN={str(agent)!r} has no statistics of VecNormalize where a training in {env_id} "
            f"looks for them; expected {expected}. {remedy} the run's folder without --env."
        )


def learn(manager: Any, model: BaseAlgorithm, options: TrainingOptions) -> None:
    """
    :param manager: the zoo's, after ``setup_experiment``
    :param model: what that returned
    :param options: complete ones
    """
    resumes = manager.continue_training and learns_skills(manager)
    n_timesteps = manager.n_timesteps
    missing = model._total_timesteps - model.num_timesteps
    again = (
        model._total_timesteps - model._num_timesteps_at_start
    )  # as many as the run had asked for
    model._num_timesteps_at_start = model.num_timesteps  # until learn() says so, too
    if resumes:
        _attach_state(model, Path(manager.trained_agent).parent)
        if options.n_timesteps == -1:
            n_timesteps = missing if missing > 0 else again
        last = model.num_timesteps + n_timesteps
        print(f"Resuming at step {model.num_timesteps}, until step {last}")
    if learns_skills(manager):
        _replace_checkpoints(manager, options, n_timesteps)
    first_step = model.num_timesteps if resumes else 0
    _say_if_nothing_is_learned(model, first_step + n_timesteps)
    interval: dict[str, Any] = {}
    if options.log_interval != -1:
        interval["log_interval"] = options.log_interval
        model.verbose = max(model.verbose, 1)  # or SB3 has the table, and nowhere to print it
    model.learn(
        n_timesteps, callback=manager.callbacks, reset_num_timesteps=not resumes, **interval
    )


def _say_if_nothing_is_learned(model: BaseAlgorithm, last_step: int) -> None:
    """Before the training starts, not after it."""
    if isinstance(model, OffPolicyAlgorithm) and last_step <= model.learning_starts:
        print(
            f"Nothing will be learned: the training ends at step {last_step:,}, and updates begin "
            f"after learning_starts={model.learning_starts:,} steps. Train longer with -n, or "
            "lower it: --hyperparams learning_starts:100"
        )


def _replace_checkpoints(manager: Any, options: TrainingOptions, n_timesteps: int) -> None:
    """In place of the zoo's checkpoints, ours, which are whole or absent and resume exactly."""
    manager.callbacks = [c for c in manager.callbacks if type(c) is not CheckpointCallback]
    save_freq = options.save_freq
    if save_freq is None:
        save_freq = max(MIN_SAVE_FREQ, n_timesteps // N_CHECKPOINTS)
    if save_freq > 0:
        manager.callbacks.append(
            DIAYNCheckpointCallback(
                Path(manager.save_path, CHECKPOINTS_FOLDER),
                save_freq=save_freq,
                save_replay_buffer=options.save_replay_buffer,
                keep=options.keep_checkpoints,
            )
        )


def _name_folders(manager: Any) -> None:
    """Of what saves in the run's folder: the zoo's callbacks, which tell it, may be absent."""
    for callback in callbacks_in(CallbackList(manager.callbacks)):
        if isinstance(callback, DIAYNCheckpointCallback | SkillEvaluationCallback) and (
            str(callback.save_path) == "auto"
        ):
            callback.save_path = Path(manager.save_path, callback.subfolder)


def _attach_state(model: BaseAlgorithm, folder: Path) -> None:
    """Take up the exact state next to the zip, or say what is missing of it."""
    reason = f"there is no {STATE_FILE} next to the zip, as in a checkpoint"
    if (folder / STATE_FILE).is_file():
        try:
            attach_training_state(model, load_training_state(folder, model.device))
            reason = ""
        except ValueError as error:
            reason = str(error)
    if isinstance(model, OffPolicyAlgorithm) and not (folder / BUFFER_FILE).is_file():
        reason += f"{' and ' if reason else ''}there is no {BUFFER_FILE}"
    if reason:
        print(f"The training resumes, but not exactly: {reason}")
