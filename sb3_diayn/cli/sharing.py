"""What push does: it shares a run."""

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
from sb3_diayn.cli.options import N_FILMS
from sb3_diayn.downstream.finetuning import rank_skills
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.zoo.runs import Run


def push(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn push``."""
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
