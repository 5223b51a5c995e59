"""The commands that look at a run."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sb3_diayn.cli.options import (
    Add,
    _env_kwargs,
    _film_steps,
    _measuring,
    _output,
    _positive,
    _run,
)
from sb3_diayn.evaluation.diagnosis import diagnose
from sb3_diayn.evaluation.report import MakeFilms, number, save_figures, write_report
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.skills import check_skill
from sb3_diayn.zoo.provenance import describe, describe_zip, read_history
from sb3_diayn.zoo.runs import Run, film, find_run, measure, open_run

if TYPE_CHECKING:
    import pandas as pd


def report(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn report``

    :param args: its options
    """
    run = find_run(args.run, args.env, args.env_kwargs)
    folder = check_writable(args.output or run.folder / "report")
    skills = parse_skills(args.skills, run.n_skills)
    evaluation = measure(run, args)
    films = None if args.no_films else _filming(run, args, skills)
    card = describe_zip(run) if args.model_card else None
    page = make_report(run, evaluation, folder, args.run, films=films, card=card)
    print_verdicts(evaluation)
    print(f"Report: {page}")
    if args.model_card:
        print(f"Model card: {folder / 'README.md'}, to upload with the folder and the zip")


def evaluate(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn evaluate``

    :param args: its options
    """
    run = find_run(args.run, args.env, args.env_kwargs)
    file = Path(args.output or run.folder / "evaluation.json")
    check_writable(file.parent)
    if file.suffix not in (".json", ".npz"):
        raise ValueError(f"output={args.output!r} has no known ending; expected .json or .npz.")
    evaluation = measure(run, args)
    evaluation.save(file)
    print_table(evaluation)
    print_verdicts(evaluation)
    print(f"Evaluation: {file}")


def plot(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn plot``

    :param args: its options
    """
    with require_extra("report"):
        if Path(args.run).suffix in (".json", ".npz"):
            evaluation = SkillEvaluation.load(args.run)
            folder = check_writable(args.output or Path(args.run).parent / "figures")
            figures = save_figures(folder, evaluation)
        else:
            run = find_run(args.run, args.env, args.env_kwargs)
            folder = check_writable(args.output or run.folder / "figures")
            figures = save_figures(
                folder,
                measure(run, args),
                history=read_history(run),
                discriminator=run.load_discriminator(),
            )
    for file in figures:
        print(folder / file)


def record(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn record``

    :param args: its options
    """
    run = find_run(args.run, args.env, args.env_kwargs)
    folder = check_writable(args.output or run.folder / "videos")
    skills = parse_skills(args.skills, run.n_skills)
    films = film(run, args, skills, folder, format=args.format)
    for file in films.values():
        print(file)
    if args.grid:
        from sb3_diayn.evaluation.video import record_grid

        print(record_grid(films, folder / f"all_skills.{args.format}"))


def compare(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn compare``

    :param args: its options
    """
    with require_extra("report"):  # before anything is played
        import sb3_diayn.evaluation.comparison  # noqa: F401
    runs = {str(path): find_run(path, args.env) for path in args.run}
    folder = check_writable(args.output) if args.output else None
    evaluations = {name: known_evaluation(run) or measure(run, args) for name, run in runs.items()}
    show_comparison(evaluations, folder)


def show_comparison(
    evaluations: Mapping[str, SkillEvaluation],
    folder: Path | None,
    groups: Mapping[str, str] | None = None,
) -> None:
    """
    Print runs as tables and write ``comparison.csv`` and ``comparison.png``.

    :param evaluations: of each run, by its name
    :param folder: where to, None to print only
    :param groups: name of the group of each run; None for those of
        :func:`sb3_diayn.evaluation.comparison.compare`
    """
    with require_extra("report"):
        from sb3_diayn.evaluation import comparison
    frame = comparison.compare(evaluations, groups=groups)
    short = {"n_skills": "K", "distinct_skills": "distinct", "coverage": "cells"}
    short |= {"best_task_return": "best", "median_task_return": "median"}
    print_frame(frame.drop(columns="group").rename(columns=short).reset_index(), "Runs")
    for group, summary in comparison.summarize_groups(frame).groupby(level="group", sort=False):
        title = f"{group}: mean over runs, with its 95 % bootstrap interval"
        print_frame(summary.rename(index=comparison.METRICS).droplevel(0).reset_index(), title)
    if folder is not None:
        frame.to_csv(folder / "comparison.csv")
        figure = comparison.plot_comparison(frame).flat[0].figure
        figure.savefig(folder / "comparison.png", dpi=120)
        print(f"{folder / 'comparison.csv'}\n{folder / 'comparison.png'}")


def known_evaluation(run: Run) -> SkillEvaluation | None:
    """
    :param run: a run
    :return: the evaluation of its report, None if there is none or the model is younger
    """
    file = run.folder / "report" / "evaluation.json"
    if not file.is_file() or file.stat().st_mtime < run.model_path.stat().st_mtime:
        return None
    return SkillEvaluation.load(file)


def _filming(run: Run, args: argparse.Namespace, skills: Sequence[int]) -> MakeFilms:
    return lambda folder: film(run, args, skills, folder)


def make_report(
    run: Run, evaluation: SkillEvaluation, folder: Path, name: str, **options: Any
) -> Path:
    """
    :param run: a run
    :param evaluation: of its skills
    :param folder: where to
    :param name: the run, as the commands on the page shall name it
    :param options: for :func:`sb3_diayn.evaluation.report.write_report`
    :return: the page
    """
    with require_extra("report"):
        return write_report(
            folder,
            evaluation,
            description=describe(run, name),
            history=read_history(run),
            discriminator=run.load_discriminator(),
            **options,
        )


def parse_skills(text: str | None, n_skills: int) -> list[int]:
    """
    :param text: indices and ranges, for example ``0,3,7-9``; None or ``all`` for all
    :param n_skills: the number of skills, K
    :return: the indices, each once
    :raises ValueError: if it is anything else, or a skill does not exist
    """
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
    """:param evaluation: whose skills to print, best task return first"""
    table = Table(title="Skills, played deterministically")
    columns = {
        "skill": "skill",
        "task_return": "task return",
        "length": "steps",
        "accuracy": "recognised",
        "log_q": "log q(z|s')",
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
        )
    Console().print(table)


def print_verdicts(evaluation: SkillEvaluation) -> None:
    """:param evaluation: to judge"""
    for diagnosis in diagnose(evaluation):
        print(f"{diagnosis.severity}: {diagnosis.message} {diagnosis.advice}")


def print_frame(frame: "pd.DataFrame", title: str) -> None:
    """
    :param frame: to print, without its index
    :param title: above it
    """
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in frame.columns:
        is_text = frame[column].dtype == object
        justify: Any = "left" if is_text else "right"
        heading = str(column).replace("_", " ")
        width = 12 if is_text else len(heading)
        table.add_column(heading, justify=justify, overflow="fold", min_width=width)
    for row in frame.itertuples(index=False):
        table.add_row(*(number(cell) if isinstance(cell, float) else str(cell) for cell in row))
    Console().print(table)


def add_play_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn play``"""
    _run(add)
    _env_kwargs(add)
    add("--skill", default="all", help="index of a skill, several as 0,3,7-9, or all")
    add("--episodes", type=_positive, default=1, help="episodes of each skill")
    text = "human shows a window, rgb_array writes a film of one episode to RUN/videos"
    add("--render", choices=["human", "rgb_array"], help=text)
    _film_steps(add, 1000)
    add("--stochastic", action="store_true", help="sample actions instead of taking the mode")


def add_report_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn report``"""
    _measuring(add)
    _env_kwargs(add)
    _output(add, "DIR", "RUN/report")
    add("--no-films", action="store_true", help="leave out the films, which take minutes")
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    _film_steps(add)
    text = "also write README.md, the model card for an upload to the Hugging Face hub"
    add("--model-card", action="store_true", help=text)


def add_evaluate_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn evaluate``"""
    _measuring(add)
    _env_kwargs(add)
    _output(add, "FILE", "RUN/evaluation.json; may end in .npz")


def add_plot_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn plot``"""
    text = "a run's folder, a model's zip, or an evaluation.json or .npz"
    _measuring(add, metavar="RUN|FILE", help=text)
    _env_kwargs(add)
    _output(add, "DIR", "RUN/figures")


def add_record_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn record``"""
    _run(add)
    _env_kwargs(add)
    _output(add, "DIR", "RUN/videos")
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    add("--grid", action="store_true", help="also film them side by side")
    add("--format", choices=["mp4", "gif"], default="mp4", help="format of the films")
    _film_steps(add, 1000)


def add_compare_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn compare``"""
    _measuring(add, nargs="+", help="runs; those with a report are not played again")
    _output(add, "DIR", "nothing is written")


def play(args: argparse.Namespace) -> None:
    """``sb3-diayn play``"""
    run = find_run(args.run, args.env, args.env_kwargs)
    skills = parse_skills(args.skill, run.n_skills)
    if args.render == "rgb_array":
        folder = check_writable(run.folder / "videos")
        films = film(run, args, skills, folder, deterministic=not args.stochastic)
        print(*films.values(), sep="\n")
        return
    model, env = open_run(run, args, 1, args.render)
    episodes = play_skills(
        model,
        env,
        [skill for skill in skills for _ in range(args.episodes)],
        deterministic=not args.stochastic,
        seed=args.seed,
    )
    for episode in episodes:
        task_return = episode.task_rewards.sum()
        print(f"skill {episode.skill:3d}   task return {task_return:9.2f}   {len(episode)} steps")
    env.close()
