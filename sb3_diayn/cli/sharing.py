"""The command that shares a run: ``push``."""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sb3_diayn.cli.evaluation import (
    cached_evaluation,
    evaluate_run,
    films_of_report,
    open_run,
    try_to_film,
    wanted,
)
from sb3_diayn.cli.options import (
    Commands,
    add_command,
    env_kwargs_options,
    film_options,
    measuring_options,
    output_options,
    run_options,
)
from sb3_diayn.cli.training import N_FILMS
from sb3_diayn.downstream.finetuning import rank_skills
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.zoo.runs import Run


def add_push(commands: Commands) -> None:
    """The options of ``sb3-diayn push``."""
    measuring = measuring_options(reuses_report=True)
    parents = (run_options(), measuring, env_kwargs_options(), film_options())
    output = output_options("DIR", "a temporary folder; with --dry-run RUN/hub/NAME")
    example = "logs/sac/Hopper-v5_1 --repo-id user/hopper-skills"
    parser = add_command(commands, "push", push, *parents, output, example=example)
    add = parser.add_argument_group("where to upload").add_argument
    add("--repo-id", required=True, metavar="USER/NAME", help="repository, created if need be")
    add("--private", action="store_true", help="create one that only its owner sees")
    add("--token", help="a token that may write; default: the one of hf auth login")
    text = "message of the commit"
    add("--commit-message", default="Upload skills with sb3-diayn", metavar="TEXT", help=text)
    add("--no-films", action="store_true", help="leave out the films")
    text = "only write the folder that would be uploaded, and list its files"
    add("--dry-run", action="store_true", help=text)


def push(args: argparse.Namespace) -> None:
    """Upload a run to the Hugging Face hub: model, files of the zoo, films and a model card."""
    with require_extra("report"):
        from sb3_diayn.zoo import sharing
    sharing.check_repo_id(args.repo_id)
    run = open_run(args)
    if not args.dry_run:
        sharing.check_access(args.repo_id, args.token)  # before the work
    with _folder(run, args) as folder:
        known = cached_evaluation(run, **wanted(args))
        evaluation = known or evaluate_run(run, args)
        films = (
            None if args.no_films else _films(run, args, evaluation, has_report=known is not None)
        )
        files = sharing.write_upload(run, folder, evaluation, repo_id=args.repo_id, films=films)
        for file in files:
            print(f"{file.stat().st_size / 1e6:8.2f} MB  {file.relative_to(folder)}")
        if args.dry_run:
            print(f"Would be uploaded to {args.repo_id}: {folder}")
            return
        url = sharing.upload(
            folder,
            args.repo_id,
            token=args.token,
            private=args.private,
            commit_message=args.commit_message,
        )
    print(f"Uploaded: {url}")


@contextmanager
def _folder(run: Run, args: argparse.Namespace) -> Iterator[Path]:
    """Where to write; a folder that nobody asked for is removed after the upload."""
    if args.output or args.dry_run:
        # Not directly in the run's folder, in which a folder with a config.yml is the zoo's.
        name = args.repo_id.rpartition("/")[2]
        yield check_writable(args.output or run.folder / "hub" / name)
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _films(
    run: Run, args: argparse.Namespace, evaluation: SkillEvaluation, *, has_report: bool
) -> Callable[[Path], Mapping[int, Path]]:
    """The films of the run's report if it has some, else new ones of the best skills."""
    made = films_of_report(run) if has_report else {}
    if made:
        return partial(_copy_films, made)
    skills = sorted(skill for skill, _ in rank_skills(evaluation)[:N_FILMS])
    return partial(try_to_film, run, args, skills=skills, seed=args.seed or 0)


def _copy_films(films: Mapping[int, Path], folder: Path) -> dict[int, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    return {skill: Path(shutil.copy(film, folder)) for skill, film in films.items()}
