"""
How many skills to ask for: K from 5 to 100 on two environments, from the file in
``zoo_configs/results/n_skills``.

    python -m docs.tables.n_skills collect logs/n_skills  # take over the runs of the sweeps
    python -m docs.tables.n_skills  # write the tables and the picture
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from docs.tables import tables
from docs.tables.sweeps import ROOT, arguments_of, numbers_of, run_folders, seeds_table, write
from sb3_diayn.evaluation.results import SkillEvaluation

FILE = ROOT / "zoo_configs" / "results" / "n_skills" / "runs.csv"
PAGE = ROOT / "docs" / "pages" / "choosing_k.md"
PICTURE = PAGE.parent / "images" / "results" / "n_skills.png"
BEGIN = "<!-- table: python -m docs.tables.n_skills -->"
ENVS = ("HalfCheetah-v5", "Hopper-v5")
GOOD_RETURN = 1000
INTERVAL = 0.25  # metres along x, a place
HEAD = {
    "distinct_skills": "distinct skills",
    "fresh": "accuracy",
    "best_return": "best return",
    "places": "places",
    "length": "steps of an episode",
}


def collect(logs: Path) -> None:
    """
    :param logs: with the folders of the sweeps
    """
    rows = []
    for folder in run_folders(logs):
        evaluation = SkillEvaluation.load(folder / "evaluation.json")
        x = evaluation.paths[..., 0]
        more = {
            "best_return": float(evaluation.task_returns.mean(axis=1).max()),
            "places": len(np.unique(np.floor(x[np.isfinite(x)] / INTERVAL))),
        }
        _, args = arguments_of(folder)
        key = {"env": args["env"], "n_skills": evaluation.n_skills, "seed": args["seed"]}
        rows.append(key | more | numbers_of(folder, GOOD_RETURN))
    write(pd.DataFrame(rows).sort_values(["env", "n_skills", "seed"]), FILE)


def runs() -> pd.DataFrame:
    """:return: one row per run"""
    return pd.read_csv(FILE)


def with_tables() -> str:
    """:return: the page as it has to be, one table for each environment"""
    frame = runs()
    found = []
    for env in ENVS:
        arms = [(f"K = {k}", part) for k, part in frame[frame["env"] == env].groupby("n_skills")]
        found.append(seeds_table(env, arms, HEAD))
    return tables.with_tables(PAGE, BEGIN, found)


def draw() -> None:
    """Distinct skills, and what the best one returns; each point is a run."""
    frame = runs()
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    distinct, best = axes
    for env, marker in zip(ENVS, "os", strict=True):
        part = frame[frame["env"] == env]
        _points(distinct, part, "distinct_skills", env, marker)
        _points(best, part, "best_return", env, marker)
    ks = sorted(frame["n_skills"].unique())
    distinct.plot(ks, ks, color="gray", linestyle=":", label="all of them")
    distinct.set(ylabel="distinct skills, held-out", yscale="log")
    best.set(ylabel="task return of the best skill")
    for ax in axes:
        ax.set(xlabel="K", xscale="log")
        ax.set_xticks(ks, ks)
        ax.minorticks_off()
    distinct.set_yticks(ks, ks)
    distinct.legend(frameon=False)
    figure.savefig(PICTURE, dpi=80)
    plt.close(figure)


def _points(ax: Axes, part: pd.DataFrame, column: str, label: str, marker: str) -> None:
    mean = part.groupby("n_skills")[column].mean()
    (line,) = ax.plot(mean.index, mean, label=label)
    ax.plot(part["n_skills"], part[column], marker, color=line.get_color(), alpha=0.5, ms=4)


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(Path(sys.argv[2]))
    else:
        PAGE.write_text(with_tables(), encoding="utf-8")
        draw()
