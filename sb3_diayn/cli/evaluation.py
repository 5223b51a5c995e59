"""What play, view, report, evaluate, plot, record and compare do: they look at a run."""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
from rich.console import Console
from rich.table import Table

from sb3_diayn.cli.options import FILM_STEPS, N_EPISODES
from sb3_diayn.downstream.finetuning import rank_skills
from sb3_diayn.evaluation.callback import BEST_MODEL, SKILLS_FOLDER
from sb3_diayn.evaluation.diagnosis import diagnose
from sb3_diayn.evaluation.pages import number
from sb3_diayn.evaluation.report import headlines, save_figures, write_report
from sb3_diayn.evaluation.results import COLUMNS, SkillEvaluation
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.skills import check_skill
from sb3_diayn.zoo.finding import find_checkpoints, find_run, numbered_run
from sb3_diayn.zoo.hyperparams import default_algo
from sb3_diayn.zoo.provenance import describe, describe_zip
from sb3_diayn.zoo.runs import Run, check_device

# What measures a run, and its films by skill.
Comparable: TypeAlias = tuple[Callable[[], SkillEvaluation], Mapping[int, Path]]

# Of a run, with the command that writes it: the report's first, since films belong to it.
EVALUATIONS = {"report/evaluation.json": "report", "evaluation.json": "evaluate"}
# Of the zoo's evaluations, and of SkillEvaluationCallback's.
BEST_MODELS = ("best_model.zip", f"{SKILLS_FOLDER}/{BEST_MODEL}")
# Of the columns of the table of skills.
FORMATS = {
    "skill": "d",
    "task_return": ".1f",
    "length": ".0f",
    "accuracy": ".0%",
    "log_q": ".2f",
    "held_out_log_q": ".2f",
}

# -- the commands ------------------------------------------------------------------------------


def play(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn play``."""
    args.run = chosen_model(args)
    run = open_run(args)
    skills = chosen_skills(run, args.skill, partial(saved_or_new_evaluation, run, args.device))
    deterministic = not args.stochastic
    if args.render == "rgb_array":
        folder = check_writable(run.folder / "videos")
        films = film_run(run, args, folder, skills=skills, deterministic=deterministic)
        print(*films.values(), sep="\n")
        return
    if args.render == "human":
        with suppress(ImportError):  # which the extra report brings; MuJoCo does not need it
            from sb3_diayn.evaluation.viewer import require_display

            require_display()
    order = [skill for skill in skills for _ in range(args.episodes)]
    with run.open(seed=args.seed, device=args.device, render_mode=args.render) as (model, env):
        for each in play_skills(model, env, order, deterministic=deterministic, seed=args.seed):
            task_return = each.task_rewards.sum()
            print(f"skill {each.skill:3d}   task return {task_return:9.2f}   {len(each)} steps")


def view(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn view``."""
    with require_extra("report"):
        from sb3_diayn.evaluation.viewer import require_display
    require_display()
    args.run = chosen_model(args)
    run = open_run(args)
    evaluation = partial(saved_or_new_evaluation, run, args.device)
    skill, *others = chosen_skills(run, args.skill, evaluation)
    run.view(
        skill=skill,
        second=others[0] if others else None,
        deterministic=not args.stochastic,
        seed=args.seed,
        device=args.device,
    )


def report(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn report``."""
    run = open_run(args)
    folder = check_writable(args.output or run.folder / "report")
    if args.skill != "best":
        parse_skills(args.skill, run.n_skills)  # before the work
    evaluation = evaluate_run(run, args)
    skills = chosen_skills(run, args.skill, lambda: evaluation)
    page = make_report(
        run,
        evaluation,
        folder,
        args.run,
        films=None if args.no_films else partial(try_to_film, run, args, skills=skills),
        card=describe_zip(run) if args.model_card else None,
    )
    print_verdicts(evaluation)
    print(f"Report: {page}")
    if args.model_card:
        print(f"Model card: {folder / 'README.md'}, to upload with the folder and the zip")


def evaluate(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn evaluate``."""
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


def plot(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn plot``."""
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


def record(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn record``."""
    run = open_run(args)
    folder = check_writable(args.output or run.folder / "videos")
    skills = chosen_skills(run, args.skill, partial(saved_or_new_evaluation, run, args.device))
    films = film_run(run, args, folder, skills=skills, format=args.format)
    print(*films.values(), sep="\n")
    if args.grid:
        from sb3_diayn.evaluation.video import record_grid

        print(record_grid(films, folder / f"all_skills.{args.format}"))


def compare(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn compare``."""
    with require_extra("report"):  # before anything is played
        import sb3_diayn.evaluation.comparison  # noqa: F401
    names = short_names(list({Path(path).resolve(): path for path in args.run}.values()))
    found = {name: _comparable(Path(path), args) for name, path in names.items()}
    folder = check_writable(args.output) if args.output else None
    evaluations = {name: evaluate() for name, (evaluate, _) in found.items()}
    films = {name: films for name, (_, films) in found.items()}
    show_comparison(evaluations, folder, films=films)


# -- what several commands do ------------------------------------------------------------------


def open_run(args: argparse.Namespace) -> Run:
    """Find the run that the options of a command name."""
    check_device(getattr(args, "device", "auto"))
    env_kwargs = getattr(args, "env_kwargs", None)
    return find_run(args.run, args.env, env_kwargs, args.gym_packages)


def evaluate_run(run: Run, args: argparse.Namespace, **options: Any) -> SkillEvaluation:
    """Evaluate as the options of a command say, or as ``options`` of ``Run.evaluate`` do."""
    known: dict[str, Any] = {"n_episodes": args.episodes or N_EPISODES, "seed": args.seed or 0}
    known["device"] = args.device
    names = ("deterministic", "baseline", "obs_names")
    known |= {name: getattr(args, name) for name in names if hasattr(args, name)}
    progress_bar = not args.no_progress and sys.stderr.isatty()
    return run.evaluate(progress_bar=progress_bar, **(known | options))


def film_run(
    run: Run, args: argparse.Namespace, folder: Path, **options: Any
) -> Mapping[int, Path]:
    """Film as the options of a command say, or as ``options`` of ``Run.film`` do."""
    known: dict[str, Any] = {"seed": args.seed, "device": args.device}
    known["max_steps"] = args.film_steps or FILM_STEPS
    known["max_seconds"] = None if args.film_steps else args.film_seconds
    known["progress_bar"] = sys.stderr.isatty() and not getattr(args, "no_progress", False)
    return run.film(folder, **(known | options))


def try_to_film(run: Run, args: argparse.Namespace, folder: Path, **options: Any) -> Any:
    """Film for a report, which says why if that fails; so does this, in one line."""
    try:
        return film_run(run, args, folder, **options)
    except (RuntimeError, ImportError, OSError, gym.error.Error) as error:
        print(f"Films are left out: {' '.join(str(error).split())}")
        raise


def cached_evaluation(run: Run, **wanted: Any) -> SkillEvaluation | None:
    """Load an evaluation of the run that is as wanted: see ``Run.has_evaluation``."""
    found = find_evaluation(run.folder, partial(run.has_evaluation, **wanted))
    return None if found is None else found[0]


def find_evaluation(
    folder: Path, fits: Callable[[SkillEvaluation], bool]
) -> tuple[SkillEvaluation, Path] | None:
    """The first evaluation in a run's folder that fits, of its report or of the run; its file."""
    for name, command in EVALUATIONS.items():
        file = folder / name
        if not file.is_file():
            continue
        try:
            evaluation = SkillEvaluation.load(file)
            if fits(evaluation):
                return evaluation, file
        except ValueError as error:
            message = f"{file}: {error} The command {command} writes it again."
            raise ValueError(message) from error
    return None


def find_films(folder: Path, n_skills: int) -> dict[int, Path]:
    """The films of a report, by skill. Next to an evaluation of another folder there are none."""
    films = {
        int(file.stem.removeprefix("skill_")): file
        for file in folder.glob("films/skill_[0-9]*.mp4")
        if file.stem.removeprefix("skill_").isdigit()
    }
    return {skill: film for skill, film in sorted(films.items()) if skill < n_skills}


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """The paths by a name without the folders that all of them begin with."""
    parts = {path: Path(path).parts for path in paths}
    shortest = min(map(len, parts.values()))
    levels = list(zip(*parts.values(), strict=False))[: max(shortest - 1, 0)]
    n_common = next((i for i, names in enumerate(levels) if len(set(names)) > 1), len(levels))
    return {str(Path(*parts[path][n_common:])): path for path in paths}


def _comparable(path: Path, args: argparse.Namespace) -> Comparable:
    """What measures a run, or loads the evaluation that is there; and the films of its report."""
    if path.suffix in (".json", ".npz"):
        evaluation = SkillEvaluation.load(path)
        return _as_it_is(path, (evaluation, path) if has_settings(evaluation, args) else None)
    try:
        run = find_run(path, args.env, gym_packages=args.gym_packages)
    except FileNotFoundError:
        if not any((path / name).is_file() for name in EVALUATIONS):
            raise
        print(f"{path} has no model: its evaluation is taken as it is.")
        return _as_it_is(path, find_evaluation(path, partial(has_settings, args=args)))
    found = find_evaluation(run.folder, partial(run.has_evaluation, **wanted(args)))
    return _as_it_is(path, found) if found else (partial(evaluate_run, run, args), {})


def _as_it_is(path: Path, found: tuple[SkillEvaluation, Path] | None) -> Comparable:
    if found is None:
        raise ValueError(
            f"RUN={str(path)!r} has no model, and its evaluation has other settings than the "
            "options; expected the same. Leave out --episodes and --seed, and give "
            "--deterministic as it was."
        )
    evaluation, file = found
    return lambda: evaluation, find_films(file.parent, evaluation.n_skills)


def has_settings(evaluation: SkillEvaluation, args: argparse.Namespace) -> bool:
    """Whether an evaluation was made as the options want it. What it does not say may fit."""
    known = ((evaluation.info.get(name, value), value) for name, value in wanted(args).items())
    return all(value is None or found == value for found, value in known)


def wanted(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of a command want of an evaluation that there is already."""
    deterministic = getattr(args, "deterministic", False)
    return {"n_episodes": args.episodes, "deterministic": deterministic, "seed": args.seed}


def saved_or_new_evaluation(run: Run, device: str) -> SkillEvaluation:
    """The evaluation of the run's report, or a new one."""
    return cached_evaluation(run) or run.evaluate(device=device)


def chosen_skills(run: Run, text: str | None, evaluate: Callable[[], SkillEvaluation]) -> list[int]:
    """The skills that the option ``--skill`` names; ``evaluate`` finds the best one."""
    if text != "best":
        return parse_skills(text, run.n_skills)
    evaluation = evaluate()
    how = "deterministic" if evaluation.info.get("deterministic") else "sampled"
    best, task_return = rank_skills(evaluation)[0]
    print(f"Skill {best} has the best task return: {task_return:.1f}, with {how} actions")
    return [best]


def chosen_model(args: argparse.Namespace) -> Path:
    """The run or the zip that the options of ``play`` name, as ``enjoy`` of the zoo has them."""
    if args.run is None:
        if args.env is None:
            raise ValueError("run=None names no run; expected RUN, or --env and --exp-id.")
        algo = args.algo or default_algo(None, args.env)
        args.run = numbered_run(args.log_folder, algo, args.env, args.exp_id)
    elif args.exp_id:
        raise ValueError(
            f"exp_id={args.exp_id} and run={args.run!r} name two runs; expected one. Leave one out."
        )
    folder = Path(args.run)
    if args.load_best:
        found = [folder / name for name in BEST_MODELS if (folder / name).is_file()]
        if not found:
            raise FileNotFoundError(
                f"load_best=True finds no model in {folder}; expected {BEST_MODELS[0]}. Train with "
                "--eval-freq, or leave it out."
            )
        return found[0]
    if args.load_checkpoint is None and not args.load_last_checkpoint:
        return folder
    checkpoints = find_checkpoints(folder)
    if not checkpoints:
        raise FileNotFoundError(
            f"{folder} has no checkpoint; expected one. Train with --save-freq."
        )
    steps = args.load_checkpoint or max(checkpoints)
    if steps not in checkpoints:
        raise FileNotFoundError(
            f"load_checkpoint={steps} is not in {folder}; expected one of {sorted(checkpoints)}."
        )
    return checkpoints[steps]


def make_report(
    run: Run, evaluation: SkillEvaluation, folder: Path, name: str, **options: Any
) -> Path:
    """Write the report of a run, which the commands on its page call ``name``."""
    with require_extra("report"):
        import jinja2  # noqa: F401  # before films are made for it

        return write_report(
            folder,
            evaluation,
            description=describe(run, name),
            history=run.history,
            discriminator=run.load_discriminator(),
            **options,
        )


def films_of_report(run: Run) -> dict[int, Path]:
    """The films of the run's report, by skill; none if it has none."""
    return find_films(run.folder / "report", run.n_skills)


def parse_skills(text: str | None, n_skills: int) -> list[int]:
    """Read indices and ranges such as ``0,3,7-9``; None or ``all`` for all. Each comes once."""
    if text in (None, "all"):
        return list(range(n_skills))
    skills: list[int] = []
    for part in str(text).split(","):
        found = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if found is None:
            raise ValueError(
                f"skill={text!r} is not a list of skills; expected indices from 0 to "
                f"{n_skills - 1} and ranges, or all. For example 0,3,7-9."
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if first > last:
            raise ValueError(
                f"skill={text!r} has the range {part.strip()}, which holds no skill; expected the "
                f"lower index first. Write {last}-{first}."
            )
        skills += range(check_skill(first, n_skills), check_skill(last, n_skills) + 1)
    return list(dict.fromkeys(skills))


def print_table(evaluation: SkillEvaluation) -> None:
    """Print the skills, the best task return first."""
    table = Table(title=", ".join(filter(None, ["Skills", evaluation.how_played])))
    values = evaluation.table()
    columns = [name for name in COLUMNS if name in values]
    for name in columns:
        table.add_column(COLUMNS[name], justify="right")
    for row in (-values["task_return"]).argsort(kind="stable"):
        cells = {name: values[name][row] for name in columns}
        table.add_row(
            *("n/a" if isnan(cell) else format(cell, FORMATS[name]) for name, cell in cells.items())
        )
    Console().print(table)
    for name, (value, remark) in headlines(evaluation).items():
        print(f"{name}: {value} ({remark})".replace("\N{MINUS SIGN}", "-"))


def print_verdicts(evaluation: SkillEvaluation) -> None:
    """Print what an evaluation says about the training."""
    for diagnosis in diagnose(evaluation):
        print(f"{diagnosis.severity}: {diagnosis.message} {diagnosis.advice}")


def show_comparison(
    evaluations: Mapping[str, SkillEvaluation],
    folder: Path | None,
    groups: Mapping[str, str] | None = None,
    films: Mapping[str, Mapping[int, Path]] | None = None,
) -> None:
    """Print runs as tables; write ``comparison.csv``, a figure and a page, if there is a folder."""
    with require_extra("report"):
        from sb3_diayn.evaluation import comparison
    frame = comparison.compare(evaluations, groups=groups)
    tables = {"Runs": frame.drop(columns="group").rename(columns=comparison.SHORT)}
    for group, summary in comparison.summarize_groups(frame).groupby(level="group", sort=False):
        title = f"{group}: mean over runs, with its 95 % bootstrap interval"
        tables[title] = summary.droplevel("group").rename(index=comparison.METRICS)
    for title, table in tables.items():
        table = table.rename_axis(None)  # a name of the index would take a line
        print(f"{title}\n{table.to_string(float_format=number, na_rep='n/a')}\n")
    if folder is not None:
        page = comparison.write_comparison(folder, evaluations, groups=groups, films=films)
        print(f"{folder / 'comparison.csv'}\n{folder / 'comparison.png'}\n{page}")
