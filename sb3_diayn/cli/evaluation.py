"""The commands that look at a run: play, report, evaluate, plot, record and compare."""

import argparse
import re
import sys
from collections.abc import Mapping
from math import isnan
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sb3_diayn.cli.options import (
    N_EPISODES,
    Commands,
    add_command,
    baseline_options,
    env_kwargs_options,
    film_options,
    measuring_options,
    output_options,
    playing_options,
    positive,
    run_options,
)
from sb3_diayn.evaluation.diagnosis import diagnose
from sb3_diayn.evaluation.report import headlines, number, save_figures, write_report
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.skills import check_skill
from sb3_diayn.zoo.provenance import describe, describe_zip
from sb3_diayn.zoo.runs import Run, find_run

# -- the commands ------------------------------------------------------------------------------


def add_play(commands: Commands) -> None:
    """The options of ``sb3-diayn play``."""
    parents = (run_options(), playing_options(), env_kwargs_options(), film_options(1000))
    add = add_command(commands, "play", play, *parents).add_argument
    add("--skill", default="all", help="index of a skill, several as 0,3,7-9, or all")
    add("--episodes", type=positive, default=1, help="episodes of each skill")
    text = "human shows a window, rgb_array writes a film of one episode to RUN/videos"
    add("--render", choices=["human", "rgb_array"], help=text)
    add("--stochastic", action="store_true", help="sample actions instead of taking the mode")


def play(args: argparse.Namespace) -> None:
    """Play skills and print the task return of each episode."""
    run = open_run(args)
    skills = parse_skills(args.skill, run.n_skills)
    deterministic = not args.stochastic
    if args.render == "rgb_array":
        folder = check_writable(run.folder / "videos")
        films = film_run(run, args, folder, skills=skills, deterministic=deterministic)
        print(*films.values(), sep="\n")
        return
    order = [skill for skill in skills for _ in range(args.episodes)]
    with run.open(seed=args.seed, device=args.device, render_mode=args.render) as (model, env):
        for each in play_skills(model, env, order, deterministic=deterministic, seed=args.seed):
            task_return = each.task_rewards.sum()
            print(f"skill {each.skill:3d}   task return {task_return:9.2f}   {len(each)} steps")


def add_report(commands: Commands) -> None:
    """The options of ``sb3-diayn report``."""
    measuring = (measuring_options(), baseline_options())
    parents = (run_options(), *measuring, env_kwargs_options(), film_options())
    output = output_options("DIR", "RUN/report")
    add = add_command(commands, "report", report, *parents, output).add_argument
    add("--no-films", action="store_true", help="leave out the films, which take minutes")
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    text = "also write README.md, the model card for an upload to the Hugging Face hub"
    add("--model-card", action="store_true", help=text)


def report(args: argparse.Namespace) -> None:
    """Measure and film skills; write a page."""
    run = open_run(args)
    folder = check_writable(args.output or run.folder / "report")
    skills = parse_skills(args.skills, run.n_skills)
    evaluation = evaluate_run(run, args)
    page = make_report(
        run,
        evaluation,
        folder,
        args.run,
        films=None if args.no_films else lambda to: film_run(run, args, to, skills=skills),
        card=describe_zip(run) if args.model_card else None,
    )
    print_verdicts(evaluation)
    print(f"Report: {page}")
    if args.model_card:
        print(f"Model card: {folder / 'README.md'}, to upload with the folder and the zip")


def add_evaluate(commands: Commands) -> None:
    """The options of ``sb3-diayn evaluate``."""
    output = output_options("FILE", "RUN/evaluation.json; may end in .npz")
    measuring = (measuring_options(), baseline_options())
    parents = (run_options(), *measuring, env_kwargs_options(), output)
    add_command(commands, "evaluate", evaluate, *parents)


def evaluate(args: argparse.Namespace) -> None:
    """Measure skills; write the numbers."""
    run = open_run(args)
    file = Path(args.output or run.folder / "evaluation.json")
    check_writable(file.parent)
    if file.suffix not in (".json", ".npz"):
        raise ValueError(f"output={args.output!r} has no known ending; expected .json or .npz.")
    evaluation = evaluate_run(run, args)
    evaluation.save(file)
    print_table(evaluation)
    print_verdicts(evaluation)
    print(f"Evaluation: {file}")


def add_plot(commands: Commands) -> None:
    """The options of ``sb3-diayn plot``."""
    text = "a run's folder, a model's zip, or an evaluation.json or .npz"
    run = run_options(metavar="RUN|FILE", help=text)
    output = output_options("DIR", "RUN/figures")
    add_command(commands, "plot", plot, run, measuring_options(), env_kwargs_options(), output)


def plot(args: argparse.Namespace) -> None:
    """Draw the figures of a run or of an evaluation."""
    options: dict[str, Any] = {}
    with require_extra("report"):
        if Path(args.run).suffix in (".json", ".npz"):
            evaluation = SkillEvaluation.load(args.run)
            folder = check_writable(args.output or Path(args.run).parent / "figures")
        else:
            run = open_run(args)
            folder = check_writable(args.output or run.folder / "figures")
            evaluation = evaluate_run(run, args)
            options = {"history": run.history, "discriminator": run.load_discriminator()}
        for file in save_figures(folder, evaluation, **options):
            print(folder / file)


def add_record(commands: Commands) -> None:
    """The options of ``sb3-diayn record``."""
    parents = (run_options(), playing_options(), env_kwargs_options(), film_options(1000))
    output = output_options("DIR", "RUN/videos")
    add = add_command(commands, "record", record, *parents, output).add_argument
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    add("--grid", action="store_true", help="also film them side by side")
    add("--format", choices=["mp4", "gif"], default="mp4", help="format of the films")


def record(args: argparse.Namespace) -> None:
    """Film skills, one episode of each."""
    run = open_run(args)
    folder = check_writable(args.output or run.folder / "videos")
    skills = parse_skills(args.skills, run.n_skills)
    films = film_run(run, args, folder, skills=skills, format=args.format)
    print(*films.values(), sep="\n")
    if args.grid:
        from sb3_diayn.evaluation.video import record_grid

        print(record_grid(films, folder / f"all_skills.{args.format}"))


def add_compare(commands: Commands) -> None:
    """The options of ``sb3-diayn compare``."""
    runs = run_options(nargs="+", help="runs; those whose report fits are not played again")
    output = output_options("DIR", "nothing is written")
    measuring = measuring_options(reuses_report=True)
    add_command(commands, "compare", compare, runs, measuring, output)


def compare(args: argparse.Namespace) -> None:
    """Put runs in one table, and one figure."""
    with require_extra("report"):  # before anything is played
        import sb3_diayn.evaluation.comparison  # noqa: F401
    runs = {
        str(path): find_run(path, args.env, gym_packages=args.gym_packages) for path in args.run
    }
    folder = check_writable(args.output) if args.output else None
    show_comparison(
        {
            name: cached_evaluation(run, args) or evaluate_run(run, args)
            for name, run in runs.items()
        },
        folder,
    )


# -- what several commands do ------------------------------------------------------------------


def open_run(args: argparse.Namespace) -> Run:
    """Find the run that the options of a command name."""
    env_kwargs = getattr(args, "env_kwargs", None)
    return find_run(args.run, args.env, env_kwargs, args.gym_packages)


def evaluate_run(run: Run, args: argparse.Namespace, **options: Any) -> SkillEvaluation:
    """Evaluate as the options of a command say, or as ``options`` of ``Run.evaluate`` do."""
    known: dict[str, Any] = {"n_episodes": args.episodes or N_EPISODES, "seed": args.seed or 0}
    known["device"] = args.device
    names = ("deterministic", "baseline")
    known |= {name: getattr(args, name) for name in names if hasattr(args, name)}
    progress_bar = not args.no_progress and sys.stderr.isatty()
    return run.evaluate(progress_bar=progress_bar, **(known | options))


def film_run(
    run: Run, args: argparse.Namespace, folder: Path, **options: Any
) -> Mapping[int, Path]:
    """Film as the options of a command say, or as ``options`` of ``Run.film`` do."""
    known = {"seed": args.seed, "device": args.device, "max_steps": args.film_steps}
    options = {"skills": range(run.n_skills), **known, **options}
    plural = "s" if len(options["skills"]) > 1 else ""
    print(
        f"Filming {len(options['skills'])} skill{plural}, at most {args.film_steps} steps each ..."
    )
    return run.film(folder, **options)


def cached_evaluation(run: Run, args: argparse.Namespace) -> SkillEvaluation | None:
    """Load the evaluation of the run's report, if it is what the options of a command ask for."""
    file = run.folder / "report" / "evaluation.json"
    if not file.is_file():
        return None
    try:
        evaluation = SkillEvaluation.load(file)
        is_wanted = run.has_evaluation(
            evaluation,
            n_episodes=args.episodes,
            deterministic=getattr(args, "deterministic", False),
            seed=args.seed,
        )
    except ValueError as error:
        raise ValueError(f"{file}: {error} The command report writes it again.") from error
    return evaluation if is_wanted else None


def make_report(
    run: Run, evaluation: SkillEvaluation, folder: Path, name: str, **options: Any
) -> Path:
    """Write the report of a run, which the commands on its page call ``name``."""
    with require_extra("report"):
        return write_report(
            folder,
            evaluation,
            description=describe(run, name),
            history=run.history,
            discriminator=run.load_discriminator(),
            **options,
        )


def parse_skills(text: str | None, n_skills: int) -> list[int]:
    """Read indices and ranges such as ``0,3,7-9``; None or ``all`` for all. Each comes once."""
    if text in (None, "all"):
        return list(range(n_skills))
    skills: list[int] = []
    for part in str(text).split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise ValueError(
                f"skills={text!r} is not a list of skills; expected indices from 0 to "
                f"{n_skills - 1} and ranges, or all. For example 0,3,7-9."
            )
        first, last = int(found[1]), int(found[2] or found[1])
        skills += range(check_skill(first, n_skills), check_skill(last, n_skills) + 1)
    return list(dict.fromkeys(skills))


def print_table(evaluation: SkillEvaluation) -> None:
    """Print the skills, the best task return first."""
    table = Table(title=", ".join(filter(None, ["Skills", evaluation.how_played])))
    columns = {
        "skill": "skill",
        "task_return": "task return",
        "length": "steps",
        "accuracy": "recognised",
        "log_q": "log q(z|s')",
        "held_out_log_q": "held-out log c(z|s')",
    }
    for heading in columns.values():
        table.add_column(heading, justify="right")
    values = evaluation.table()
    for row in (-values["task_return"]).argsort(kind="stable"):
        cells = [values[name][row] for name in columns]
        table.add_row(
            f"{cells[0]}",
            f"{cells[1]:.1f}",
            f"{cells[2]:.0f}",
            f"{cells[3]:.0%}",
            f"{cells[4]:.2f}",
            "n/a" if isnan(cells[5]) else f"{cells[5]:.2f}",
        )
    Console().print(table)
    for name, (value, remark) in headlines(evaluation).items():
        print(f"{name}: {value} ({remark})")


def print_verdicts(evaluation: SkillEvaluation) -> None:
    """Print what an evaluation says about the training."""
    for diagnosis in diagnose(evaluation):
        print(f"{diagnosis.severity}: {diagnosis.message} {diagnosis.advice}")


def show_comparison(
    evaluations: Mapping[str, SkillEvaluation],
    folder: Path | None,
    groups: Mapping[str, str] | None = None,
) -> None:
    """Print runs as tables; write ``comparison.csv`` and ``.png``, unless the folder is None."""
    with require_extra("report"):
        from sb3_diayn.evaluation import comparison
    frame = comparison.compare(evaluations, groups=groups)
    short = {"n_skills": "K", "distinct_skills": "distinct", "coverage": "cells"}
    short |= {"recognized_skills": "known to D", "calibration_error": "calibration"}
    short |= {"best_task_return": "best", "median_task_return": "median"}
    tables = {"Runs": frame.drop(columns="group").rename(columns=short)}
    for group, summary in comparison.summarize_groups(frame).groupby(level="group", sort=False):
        title = f"{group}: mean over runs, with its 95 % bootstrap interval"
        tables[title] = summary.droplevel("group").rename(index=comparison.METRICS)
    for title, table in tables.items():
        table = table.rename_axis(None)  # a name of the index would take a line
        print(f"{title}\n{table.to_string(float_format=number, na_rep='n/a')}\n")
    if folder is not None:
        frame.to_csv(folder / "comparison.csv")
        figure = comparison.plot_comparison(frame).flat[0].figure
        figure.savefig(folder / "comparison.png", dpi=120)
        print(f"{folder / 'comparison.csv'}\n{folder / 'comparison.png'}")
