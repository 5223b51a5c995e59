"""The commands that train: ``train``, ``tune`` and ``config``."""

import argparse
import shlex
import time
from functools import partial
from typing import Any

from stable_baselines3.common.logger import Logger

from sb3_diayn.checkpoints import CHECKPOINTS_FOLDER
from sb3_diayn.cli.evaluation import (
    evaluate_run,
    films_of_report,
    make_report,
    print_table,
    print_verdicts,
    try_to_film,
)
from sb3_diayn.cli.options import (
    N_EPISODES,
    Commands,
    Parser,
    add_command,
    config_options,
    film_options,
    key_and_values,
    learning_options,
    logging_options,
    positive,
    training_options,
)
from sb3_diayn.downstream.finetuning import rank_skills
from sb3_diayn.evaluation.media import has_tensorboard, log_report
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import require_extra
from sb3_diayn.zoo.console import flatten
from sb3_diayn.zoo.failures import RunError
from sb3_diayn.zoo.hyperparams import config_path, preset_path
from sb3_diayn.zoo.provenance import save_provenance, shown_path
from sb3_diayn.zoo.runs import Run, find_run
from sb3_diayn.zoo.tracking import LoggerKeeper, tracking
from sb3_diayn.zoo.training import LIVE_FILE, train

FINETUNING_STEPS = 20_000  # that the command at the end of a training suggests
N_FILMS = 6  # of the best skills, at the end of a training
NO_FILMS = "Films were left out. Make them: sb3-diayn report {}"


def train_options() -> Parser:
    """All options of ``train``, which a sweep reads, too."""
    parser = Parser(
        "sb3-diayn train",
        add_help=False,
        parents=[config_options(None), learning_options(), logging_options(), film_options()],
    )
    add = parser.add_argument_group("where to start, and what to do at the end").add_argument
    text = "values of a published code: paper, original-code, seed or urlb"
    add("--preset", metavar="NAME", help=text)
    add("-i", "--resume", metavar="RUN", help="resume this run or checkpoint, in a new folder")
    add("--no-report", action="store_true", help="write no report at the end")
    text = "episodes of each skill for the evaluation; default: 5, with --no-report 2"
    add("--episodes", type=positive, help=text)
    text = f"film all skills for the report, or none; default: the best {N_FILMS}"
    add("--films", action=argparse.BooleanOptionalAction, help=text)
    return parser


def add_train(commands: Commands) -> None:
    """The options of ``sb3-diayn train``."""
    example = "--env Hopper-v5 --n-skills 20 --seed 1 --live"
    add_command(commands, "train", train_command, train_options(), example=example)


def train_command(args: argparse.Namespace) -> None:
    """Learn skills and save them as a run of the RL Zoo."""
    if args.preset and args.resume:
        raise ValueError(
            f"preset={args.preset!r} cannot change a run that is resumed; expected --resume alone. "
            "Leave --preset out, or start a new run without --resume."
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
    keeper = LoggerKeeper()
    folder = train(resume=args.resume, callbacks=[keeper], **settings)
    logger = keeper.kept
    del keeper  # and with it the model and its replay buffer
    wall_time, cpu_time = time.perf_counter() - start, time.process_time() - cpu_start
    run = find_run(folder)
    n_episodes = args.episodes or (2 if args.no_report else N_EPISODES)
    seed = run.saved_options["seed"]  # a random one if none was given
    try:
        evaluation = evaluate_run(run, args, n_episodes=n_episodes, seed=seed)
    except RunError as error:
        raise RunError(f"{error}\nThe run is trained and saved in {folder}") from error
    evaluation.save(folder / "evaluation.json")
    save_provenance(folder, args.command, wall_time, cpu_time, args.device)
    if not args.no_report:
        _report(run, args, evaluation, seed)
    if logger is not None and has_tensorboard(logger):
        _log(run, evaluation, logger)
    print_table(evaluation)
    print_verdicts(evaluation)
    print_places(run)
    print_next(run, evaluation)


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
    commands = {
        "see the best skill, and switch to others": ["view", *skill],
        "make a plain SB3 model of it": ["export", *skill],
        "learn the task from it": ["finetune", *skill, "-n", str(FINETUNING_STEPS)],
    }
    print("\nNext:")
    for purpose, words in commands.items():
        print(f"  {shlex.join(['sb3-diayn', *words])}  # {purpose}")


def add_tune(commands: Commands) -> None:
    """The options of ``sb3-diayn tune``."""
    parents = (config_options("sac"), learning_options())
    example = "--env Hopper-v5 --n-trials 30 --storage sqlite:///hopper.db"
    parser = add_command(commands, "tune", tune_command, *parents, example=example)
    add = parser.add_argument_group("how to search").add_argument
    add("--n-trials", type=positive, default=30, help="trials of this process")
    add("--max-total-trials", type=positive, help="trials of all processes together")
    text = "database of the study, sqlite:///study.db or study.log; default: one in the log folder"
    add("--storage", metavar="URL", help=text)
    add("--study-name", help="study to start or to join; default: algorithm and environment")
    add("--sampler", choices=["tpe", "random"], default="tpe", help="Optuna's sampler")
    add("--pruner", choices=["median", "halving", "none"], default="median", help="its pruner")
    add("--n-startup-trials", type=int, default=10, help="random trials before the sampler")
    add("--n-evaluations", type=positive, default=4, help="evaluations of each trial")
    add("--episodes", type=positive, default=2, help="episodes of each skill in an evaluation")
    text = "what to search in place of all: one value, choices, or the two ends of a number"
    add("--space", type=key_and_values, nargs="+", default=[], metavar="NAME=V,V", help=text)


def tune_command(args: argparse.Namespace) -> None:
    """Search for hyperparameters, judged by the skills."""
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


def add_config(commands: Commands) -> None:
    """The options of ``sb3-diayn config``."""
    parser = add_command(commands, "config", config_command, example="ppo")
    parser.add_argument("algo", nargs="?", default="sac", help="algorithm")


def config_command(args: argparse.Namespace) -> None:
    """Print where the provided hyperparameters are."""
    print(config_path(args.algo))
