"""What the tables of sweeps share: from the folders of runs to rows, from rows to a table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from docs.tables.tables import table
from sb3_diayn.evaluation.results import SkillEvaluation

ROOT = Path(__file__).parents[2]
SIGNIFICANT_DIGITS = 5


def run_folders(logs: Path) -> list[Path]:
    """
    :param logs: with the folders of sweeps
    :return: the folders of their runs
    """
    return sorted(file.parent for file in logs.glob("**/run.json"))


def arguments_of(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """
    :param folder: of a run
    :return: the hyperparameters, and the arguments of the command
    """
    (args_file,) = folder.glob("*/args.yml")
    files = (args_file.with_name("config.yml"), args_file)
    config, args = (
        dict(yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.UnsafeLoader))
        for file in files
    )
    return config, args


def numbers_of(folder: Path, good_return: float) -> dict[str, float]:
    """
    :param folder: of an evaluated run
    :param good_return: the task return that makes a skill a good one
    :return: columns of a row
    """
    evaluation = SkillEvaluation.load(folder / "evaluation.json")
    returns = evaluation.task_returns.mean(axis=1)
    cpu_time = json.loads((folder / "run.json").read_text(encoding="utf-8"))["cpu_time"]
    return {
        "cpu_minutes": cpu_time / 60,
        "distinct_skills": evaluation.distinct_skills,
        "recognized_skills": evaluation.recognized_skills,
        "fresh": float(evaluation.accuracy.mean()),
        "good_skills": int((returns >= good_return).sum()),
        "median_return": float(np.median(returns)),
        "length": float(evaluation.lengths.mean()),
    }


def write(frame: pd.DataFrame, file: Path) -> None:
    """
    :param frame: rows
    :param file: where to write them
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(file, index=False, lineterminator="\n", float_format=f"%.{SIGNIFICANT_DIGITS}g")


def seeds_table(first: str, arms: list[tuple[str, pd.DataFrame]], columns: dict[str, str]) -> str:
    """
    :param first: head of the first column
    :param arms: name of each setting, and its runs
    :param columns: of the runs, with their heads
    :return: one row per setting in Markdown, with the numbers of every seed and the mean minutes
    """
    rows = [[name, *_cells(part, columns), part["cpu_minutes"].mean()] for name, part in arms]
    return table([first, *columns.values(), "minutes"], rows)


def _cells(part: pd.DataFrame, columns: dict[str, str]) -> list[str]:
    part = part.sort_values("seed")
    return [", ".join(map(_short, part[name])) for name in columns]


def _short(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
