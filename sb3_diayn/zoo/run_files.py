"""Files in the folder of a run: their names, and what a damaged one is refused with."""

import glob
import hashlib
import pickle
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.vec_env import VecNormalize

from sb3_diayn.files import reading

OF_SB3 = "the zip that model.save() writes"
OF_ZOO = "what the zoo wrote. Pass a zip, copied out of the folder, and --env"


def file_name(env_id: str) -> str:
    """
    :param env_id: id of an environment
    :return: the same in names of files and folders, as huggingface_sb3 writes it
    """
    return env_id.replace("/", "-")


def check_log_folder(folder: str | Path) -> str | Path:
    """
    :param folder: where the zoo shall save runs
    :return: the same
    :raises ValueError: if the zoo would not find the runs in it
    """
    if glob.has_magic(str(folder)):
        raise ValueError(
            f"log_folder={str(folder)!r} is a pattern to the RL Zoo, which finds no run in it; "
            'expected a folder without "[", "*" or "?" in its path. Choose another one.'
        )
    return folder


def load_yaml(file: Path) -> dict[str, Any]:
    """
    :param file: of the zoo, which writes Python objects into it: as trusted as code
    :return: its content
    """
    with reading(file, OF_ZOO):
        return dict(yaml.load(file.read_bytes(), Loader=yaml.UnsafeLoader))


def check_statistics(file: Path) -> None:
    """
    Refuse a damaged file by its name, which the zoo would not do.

    :param file: statistics of ``VecNormalize``, not necessarily there
    :raises OSError: if the file cannot be opened
    :raises ValueError: if it is damaged
    """
    if not file.exists():
        return
    with reading(file, "what VecNormalize.save() wrote"):
        found = pickle.loads(file.read_bytes())
        if not isinstance(found, VecNormalize):
            raise TypeError(f"it holds a {type(found).__name__}")


def sha256(file: Path) -> str:
    """
    :param file: any
    :return: the hash of its content
    """
    return hashlib.sha256(file.read_bytes()).hexdigest()
