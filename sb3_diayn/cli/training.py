"""What train, tune and config do."""

import argparse
import shlex
import time
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_diayn.checkpoints import CHECKPOINTS_FOLDER
from sb3_diayn.cli.evaluation import (
    evaluate_run,
    films_of_report,
    make_report,
    print_table,
    print_verdicts,
    try_to_film,
)
from sb3_diayn.cli.options import N_EPISODES, N_FILMS
from sb3_diayn.downstream.export import foldable_space
from sb3_diayn.downstream.finetuning import rank_skills
from sb3_diayn.evaluation.media import has_tensorboard, log_report
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import require_extra
from sb3_diayn.zoo.console import flatten
from sb3_diayn.zoo.failures import RunError
from sb3_diayn.zoo.finding import find_run
from sb3_diayn.zoo.hyperparams import config_path, preset_path
from sb3_diayn.zoo.provenance import save_provenance, shown_path
from sb3_diayn.zoo.runs import Run
from sb3_diayn.zoo.settings import TrainingOptions
from sb3_diayn.zoo.tracking import tracking
from sb3_diayn.zoo.training import LIVE_FILE, train

FINETUNING_STEPS = 20_000  # that the command at the end of a training suggests
NO_FILMS = "Films were left out. Make them: sb3-diayn report {}"
# Options with a name of their own for a hyperparameter.
SHORTCUTS = {
    "n_envs": "n_envs",
    "buffer_size": "buffer_size",
    "ent_coef": "ent_coef",
    "reward_scale": "DIAYNCallback.reward_scale",
}


class _Keeper(BaseCallback):
    """Keeps of a training what is written after it: its logger, and how many threads it has."""

    kept_logger: Logger | None = None
    n_threads = 1

    def _on_training_start(self) -> None:
        self.kept_logger, self.n_threads = self.logger, th.get_num_threads()

    def _on_step(self) -> bool:
        return True


def train_command(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn train``."""
    if args.preset and args.resume:
        raise ValueError(
            f"preset={args.preset!r} cannot change a run that is resumed; expected --resume alone. "
            "Leave --preset out, or start a new run without --resume."
        )
    if args.preset and args.conf_file:
        raise ValueError(
            f"preset={args.preset!r} and conf_file={args.conf_file!r} are two configurations; "
            "expected one. Leave one of them out."
        )
    if not args.track:
        _train_and_report(args, settings_of(args))
        return
    about = {"project": args.wandb_project_name, "entity": args.wandb_entity}
    about["group"] = args.wandb_group
    with tracking(settings_of(args), resume=args.resume, tags=args.wandb_tags, **about) as settings:
        _train_and_report(args, settings)


def _train_and_report(args: argparse.Namespace, settings: dict[str, Any]) -> None:
    start, cpu_start = time.perf_counter(), time.process_time()
    keeper = _Keeper()
    folder = train(resume=args.resume, callbacks=[keeper], **settings)
    logger, n_threads = keeper.kept_logger, keeper.n_threads
    del keeper  # and with it the model and its replay buffer
    wall_time, cpu_time = time.perf_counter() - start, time.process_time() - cpu_start
    run = find_run(folder)
    n_episodes = args.episodes or (2 if args.no_report else N_EPISODES)
    seed = run.saved_options["seed"]  # a random one if none was given
    try:
        evaluation = evaluate_run(run, args, n_episodes=n_episodes, seed=seed)
    except (RunError, ValueError, OSError) as error:
        raise RunError(f"{error}\nThe run is trained and saved in {folder}") from error
    except KeyboardInterrupt:
        print(f"\nThe run is trained and saved in {folder}. What is missing is its evaluation:")
        print(f"  {shlex.join(['sb3-diayn', 'report', str(folder)])}")
        raise
    evaluation.save(folder / "evaluation.json")
    save_provenance(folder, args.command, wall_time, cpu_time, args.device, n_threads)
    if not args.no_report:
        _report(run, args, evaluation, seed)
    if logger is not None and has_tensorboard(logger):
        _log(run, evaluation, logger)
    print_table(evaluation)
    print_verdicts(evaluation)
    print_places(run)
    print_next(run, evaluation)


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of ``TrainingOptions``, with shortcuts such as ``--ent-coef`` resolved."""
    given = vars(args)
    names = {field.name for field in fields(TrainingOptions)}
    shortcuts = {key: given.get(name) for name, key in SHORTCUTS.items()}
    chosen = {key: value for key, value in shortcuts.items() if value is not None}
    return {
        **{name: value for name, value in given.items() if name in names},
        "hyperparams": chosen | (args.hyperparams or {}),
        "progress_bar": not given.get("no_progress", True),
    }


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of ``TrainingOptions``, in which the preset is a file of hyperparameters."""
    options = training_options(args)
    if args.preset:
        options["conf_file"] = preset_path(args.preset)
    return options


def _report(run: Run, args: argparse.Namespace, evaluation: SkillEvaluation, seed: int) -> None:
    """The training is done and saved, so a report that cannot be made is no error."""
    name = str(run.folder)
    options: dict[str, Any] = {"why_no_films": NO_FILMS.format(shown_path(run, name))}
    if args.films is not False:
        ranked = [skill for skill, _ in rank_skills(evaluation)]
        skills = sorted(ranked if args.films else ranked[:N_FILMS])
        options["films"] = partial(try_to_film, run, args, skills=skills, seed=seed)
    try:
        make_report(run, evaluation, run.folder / "report", name, **options)
    except (ImportError, OSError) as error:
        print(f"The report is left out: {error}")


def _log(run: Run, evaluation: SkillEvaluation, logger: Logger) -> None:
    """What TensorBoard and Weights & Biases show of a report."""
    films = films_of_report(run)
    hyperparams, step = flatten(run.hyperparams), evaluation.info["num_timesteps"]
    try:
        log_report(logger, evaluation, step=step, films=films, hyperparams=hyperparams)
    except (ImportError, OSError) as error:  # the training is done, as for the report
        print(f"The report is not logged: {error}")


def print_places(run: Run) -> None:
    """Print where a training has put everything."""
    places = {
        "Model": run.model_path,
        "Evaluation": run.folder / "evaluation.json",
        "Report": run.folder / "report" / "index.html",
        "Films": run.folder / "report" / "films",
        "Checkpoints": run.folder / CHECKPOINTS_FOLDER,
        "Live page": run.folder / LIVE_FILE,
    }
    print(f"\nRun saved in {run.folder}")
    for name, place in places.items():
        if place.exists():
            print(f"  {name + ':':12} {place}")


def print_next(run: Run, evaluation: SkillEvaluation) -> None:
    """Print commands that use a run, ready to paste."""
    best, _ = rank_skills(evaluation)[0]
    skill = [str(run.folder), "--skill", str(best)]
    commands = {"see the best skill, and switch to others": ["view", *skill]}
    with suppress(ValueError):  # images alone, for example, or stacked frames
        foldable_space(run.load_model(device="cpu"))
        steps = ["-n", str(FINETUNING_STEPS)]
        is_on_policy = issubclass(run.model_class, OnPolicyAlgorithm)
        critics = ["--reset-critics"] if is_on_policy else []
        commands["make a plain SB3 model of it"] = ["export", *skill]
        commands["learn the task from it"] = ["finetune", *skill, *steps, *critics]
    print("\nNext:")
    for purpose, words in commands.items():
        print(f"  {shlex.join(['sb3-diayn', *words])}  # {purpose}")


def tune_command(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn tune``."""
    with require_extra("zoo"):
        from sb3_diayn.zoo.tuning import tune
    names = "n_trials max_total_trials sampler pruner n_startup_trials n_evaluations".split()
    file = tune(
        space=dict(args.space),
        n_episodes=args.episodes,
        storage=args.storage,
        study_name=args.study_name,
        study={name: getattr(args, name) for name in names},
        **training_options(args),
    )
    packages = ["--gym-packages", *args.gym_packages] if args.gym_packages else []
    options = ["--algo", args.algo, "--env", args.env, *packages, "--conf-file", str(file)]
    print(file.read_text(encoding="utf-8"))
    command = shlex.join(["sb3-diayn", "train", *options])
    print(f"Best hyperparameters: {file}\nLearn with them:      {command}")


def config_command(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn config``."""
    print(config_path(args.algo))
