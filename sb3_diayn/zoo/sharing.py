"""
Uploads of runs to the Hugging Face hub. They need the extra ``report``.

The folder that is uploaded is a run's folder and a report, and has what the zoo's ``load_from_hub``
reads.
"""

import shlex
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sb3_diayn.checkpoints import STATISTICS
from sb3_diayn.evaluation.report import Description, write_report
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import brief, require_extra
from sb3_diayn.zoo.provenance import describe, snippet
from sb3_diayn.zoo.run_files import file_name
from sb3_diayn.zoo.runs import Run

with require_extra("report"):
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        HFValidationError,
        validate_repo_id,
    )

__all__ = ["check_access", "check_repo_id", "upload", "write_upload"]

# What the zoo saves of a run and reads of the hub.
CONFIGURATION = ("config.yml", "args.yml")
HUB_STATISTICS = "vec_normalize.pkl"


def write_upload(
    run: Run, folder: str | Path, evaluation: SkillEvaluation, *, repo_id: str, **options: Any
) -> list[Path]:
    """
    Write what :func:`upload` uploads: the model, its files, and a report whose text is the model
    card with the evaluation as metrics.

    :param run: a run
    :param folder: where to, created if need be
    :param evaluation: of the run
    :param repo_id: name of the repository, which the card tells how to download
    :param options: for :func:`~sb3_diayn.evaluation.report.write_report`, for example ``films``
    :return: the files
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if the folder cannot be written
    """
    folder, about = Path(folder), describe_upload(run, repo_id)
    options = {"history": run.history, "discriminator": run.load_discriminator(), **options}
    write_report(folder, evaluation, description=about, card=about, **options)
    (folder / "report.md").unlink()  # the card has the same text
    shutil.copyfile(run.model_path, folder / hub_file(run))
    statistics = [folder / STATISTICS]
    if run.stats_path is not None:
        own = folder / run.stats_path.name
        own.mkdir(exist_ok=True)
        for name in CONFIGURATION:
            for place in (folder, own):
                shutil.copyfile(run.stats_path / name, place / name)
        _write_zoo_files(run, folder)
        statistics = [own / STATISTICS, folder / HUB_STATISTICS]
    if run.statistics_file is not None:
        for file in statistics:
            shutil.copyfile(run.statistics_file, file)
    return sorted(file for file in folder.rglob("*") if file.is_file())


def describe_upload(run: Run, repo_id: str) -> Description:
    """
    :param run: a run
    :param repo_id: where it will be
    :return: what to tell of it to people who download it
    """
    folder = repo_id.rpartition("/")[2]
    model = f"{folder}/{hub_file(run)}"
    name = model if run.stats_path is None else folder
    about = describe(run, name)
    return replace(
        about,
        facts={**about.facts, "Model": hub_file(run)},
        download=shlex.join(["hf", "download", repo_id, "--local-dir", folder]),
        enjoy=None,
        snippet=snippet(run, name, model),
    )


def _write_zoo_files(run: Run, folder: Path) -> None:
    """The files that only the zoo's ``load_from_hub`` reads."""
    (folder / "env_kwargs.yml").write_text(yaml.dump(run.env_kwargs), encoding="utf-8")
    with zipfile.ZipFile(folder / "train_eval_metrics.zip", "w") as archive:
        for file in [*run.folder.glob("evaluations.npz"), *sorted(run.folder.glob("*.csv"))]:
            archive.write(file, file.name)


# -- the hub -----------------------------------------------------------------------------------


def check_repo_id(repo_id: str) -> str:
    """
    :param repo_id: name of a repository
    :return: the same
    :raises ValueError: if it cannot be one
    """
    reason = "" if repo_id.count("/") == 1 else "it has no user"
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        reason = brief(str(error))
    if reason:
        raise ValueError(f"repo_id={repo_id!r} is no repository ({reason}); expected user/name.")
    return repo_id


def check_access(repo_id: str, token: str | None = None) -> None:
    """
    Find out before the work whether the hub knows the user.

    :param repo_id: for the message
    :param token: None for the one of ``hf auth login``
    :raises OSError: if the hub does not answer, or does not know the token
    :raises ValueError: if there is no token
    """
    if not (token or get_token()):
        raise ValueError(
            "token=None finds nobody logged in; expected a token that may write. Log in with "
            "hf auth login, or set HF_TOKEN."
        )
    with _asking_the_hub(repo_id, token):
        HfApi(token=token).whoami()


def upload(
    folder: str | Path,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool = False,
    commit_message: str = "Upload skills with sb3-diayn",
) -> str:
    """
    :param folder: from :func:`write_upload`
    :param repo_id: name of the repository, created if need be
    :param token: None for the one of ``hf auth login``
    :param private: create a repository that only its owner sees
    :param commit_message: of the upload
    :return: address of the repository
    :raises OSError: if the hub does not answer, or refuses
    :raises ValueError: if ``repo_id`` is not of the form ``user/name``
    """
    api = HfApi(token=token)
    with _asking_the_hub(check_repo_id(repo_id), token):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=str(folder), commit_message=commit_message)
    return str(url)


@contextmanager
def _asking_the_hub(repo_id: str, token: str | None) -> Iterator[None]:
    """One sentence for whatever goes wrong, without the token."""
    try:
        yield
    except Exception as error:  # of the hub, or of one of the libraries between it and here
        words = brief(error)
        for secret in filter(None, (token, get_token())):
            words = words.replace(secret, "***")
        raise OSError(
            f"repo_id={repo_id!r} cannot be uploaded ({words}); expected a connection to the hub "
            "and a token that may write. --dry-run writes the folder without both."
        ) from None


def hub_file(run: Run) -> str:
    """
    :param run: a run
    :return: name of its zip on the Hugging Face hub, where the zoo looks for it
    """
    return f"{run.zoo_algo}-{file_name(run.env_id)}.zip"
