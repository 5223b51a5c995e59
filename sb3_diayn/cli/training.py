"""The commands that train."""

import argparse
import time
from typing import Any

from sb3_diayn.cli.evaluation import make_report, print_table, print_verdicts
from sb3_diayn.cli.options import Add, _film_steps, _learning, _logging, _positive, _range, _skills
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.zoo.hyperparams import config_path
from sb3_diayn.zoo.provenance import save_provenance
from sb3_diayn.zoo.runs import Run, film, find_run, import_zoo, measure
from sb3_diayn.zoo.training import train


def add_train_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn train``"""
    _skills(add, algo=None)
    text = "values of a published code: paper, original-code, seed or urlb"
    add("--preset", metavar="NAME", help=text)
    _learning(add)
    _logging(add)
    add("-i", "--resume", metavar="RUN", help="go on with this run or checkpoint, in a new folder")
    add("--no-report", action="store_true", help="write no report at the end")
    text = "episodes of each skill for the evaluation; default: 5, with --no-report 1"
    add("--episodes", type=_positive, help=text)
    _film_steps(add)
    add("--films", action="store_true", help="film each skill for the report: takes minutes")


def add_config_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn config``"""
    add("algo", nargs="?", default="sac", help="algorithm")


def add_tune_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn tune``"""
    _skills(add)
    _learning(add)
    add("--n-trials", type=_positive, default=30, help="trials of this process")
    add("--max-total-trials", type=_positive, help="trials of all processes together")
    text = "database of the study, sqlite:///study.db or study.log; default: one in the log folder"
    add("--storage", metavar="URL", help=text)
    add("--study-name", help="study to start or to join; default: algorithm and environment")
    add("--sampler", choices=["tpe", "random"], default="tpe", help="Optuna's sampler")
    add("--pruner", choices=["median", "halving", "none"], default="median", help="its pruner")
    add("--n-startup-trials", type=int, default=10, help="random trials before the sampler")
    add("--n-evaluations", type=_positive, default=4, help="evaluations of each trial")
    add("--episodes", type=_positive, default=1, help="episodes of each skill in an evaluation")
    text = "what to search in place of all: one value, choices, or the two ends of a number"
    add("--space", type=_range, nargs="+", default=[], metavar="NAME=V,V", help=text)


NO_FILMS_YET = "Films take their time. Make them: sb3-diayn report {}"


def train_command(args: argparse.Namespace) -> None:
    """``sb3-diayn train``"""
    if args.episodes is None:
        args.episodes = 1 if args.no_report else 5
    start, cpu_start = time.perf_counter(), time.process_time()
    folder = train(args)
    wall_time, cpu_time = time.perf_counter() - start, time.process_time() - cpu_start
    run = find_run(folder)
    evaluation = measure(run, args)
    evaluation.save(folder / "evaluation.json")
    if not args.no_report:
        _report(run, args, evaluation)
    save_provenance(folder, args.command, wall_time, cpu_time, args.device)
    print_table(evaluation)
    print(f"Run saved in {folder}\nPlay it:      sb3-diayn play {folder}")


def _report(run: Run, args: argparse.Namespace, evaluation: SkillEvaluation) -> None:
    """The training is done and saved, so a report that cannot be made is no error."""
    name = str(run.folder)
    skills = range(run.n_skills)
    options: dict[str, Any] = {"why_no_films": NO_FILMS_YET.format(name)}
    if args.films:
        options["films"] = lambda folder: film(run, args, skills, folder)
    try:
        page = make_report(run, evaluation, run.folder / "report", name, **options)
    except (ImportError, OSError) as error:
        print(f"The report is left out: {error}")
    else:
        print_verdicts(evaluation)
        print(f"Report:       {page}")


def tune_command(args: argparse.Namespace) -> None:
    """``sb3-diayn tune``"""
    import_zoo()
    from sb3_diayn.zoo.tuning import tune

    tune(args)


def config(args: argparse.Namespace) -> None:
    """``sb3-diayn config``"""
    print(config_path(args.algo))
