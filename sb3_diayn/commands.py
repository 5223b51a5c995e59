"""What the commands that look at a run do."""

import argparse
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sb3_diayn.console import print_frame, print_table, print_verdicts
from sb3_diayn.description import describe, describe_zip, read_history
from sb3_diayn.playing import film, measure, report_extra
from sb3_diayn.report import MakeFilms, save_figures, write_report
from sb3_diayn.results import SkillEvaluation
from sb3_diayn.runs import Run, find_run
from sb3_diayn.saving import check_writable
from sb3_diayn.skills import check_skill


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
    with report_extra():
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
        from sb3_diayn.video import record_grid

        print(record_grid(films, folder / f"all_skills.{args.format}"))


def compare(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn compare``

    :param args: its options
    """
    with report_extra():  # before anything is played
        import sb3_diayn.comparison  # noqa: F401
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
        :func:`sb3_diayn.comparison.compare`
    """
    with report_extra():
        from sb3_diayn import comparison
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


# -- steps that several commands share -------------------------------------------------------


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
    :param options: for :func:`sb3_diayn.report.write_report`
    :return: the page
    """
    with report_extra():
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
