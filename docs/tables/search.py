"""
The search for hyperparameters: every trial, and what its winners are worth on fresh seeds, from the
files in ``zoo_configs/results/search``.

    python -m docs.tables.search collect sqlite:///search.db logs again  # take over what was run
    python -m docs.tables.search  # write the tables and the picture

Of an environment there are ``<environment>.csv`` with all trials of its study,
``<environment>_best.yml`` with its winner, and ``<environment>_again.csv`` with one row per run of
the sweeps ``again/<environment>/<arm>``.
"""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import optuna
import pandas as pd
from scipy.stats import ttest_ind

from docs.tables import tables
from docs.tables.tables import interval_text, table
from sb3_diayn.evaluation.comparison import CONFIDENCE, interval

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "zoo_configs" / "results" / "search"
PAGE = ROOT / "docs" / "pages" / "search.md"
PICTURE = ROOT / "docs" / "pages" / "images" / "results" / "search.png"
BEGIN = "<!-- table: python -m docs.tables.search -->"
ENVS = ("Pendulum-v1", "MountainCarContinuous-v0", "Hopper-v5")
ENTRY, WINNER = "entry", "winner"
CSV_FOLDER = PAGE.parent / "tables"  # every trial; a page shows at most eight columns
N_BEST = 5
SEARCHED = (  # of a page
    "batch_size_pow",
    "discriminator_learning_rate",
    "discriminator_normalize_obs",
    "ent_coef",
    "learning_rate",
    "tau",
)
SIGNIFICANT_DIGITS = 5


# -- files --------------------------------------------------------------------------------------


def collect(storage: str, logs: Path, sweeps: Path) -> None:
    """
    :param storage: URL of a database of studies, each named like its environment
    :param logs: the log folder of ``sb3-diayn tune``
    :param sweeps: with a folder ``<environment>/<arm>`` for each ``sb3-diayn sweep``
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    for env_id in optuna.get_all_study_names(storage):
        study = optuna.load_study(study_name=env_id, storage=storage)
        trials = study.trials_dataframe(("number", "value", "state", "duration", "params"))
        trials["seconds"] = trials.pop("duration").dt.total_seconds()
        trials.columns = [name.removeprefix("params_") for name in trials.columns]
        _write(trials, FOLDER / f"{env_id}.csv")
        shutil.copy(logs / "sac" / f"{env_id}_best.yml", FOLDER)
        arms = {file.parent.name: file for file in sweeps.glob(f"{env_id}/*/comparison.csv")}
        if arms:
            again = pd.concat({arm: pd.read_csv(file) for arm, file in sorted(arms.items())})
            again = again.rename_axis(["arm", None]).reset_index("arm").drop(columns="group")
            again["run"] = again["run"].str.extract(r"seed (\d+)$")
            _write(again.rename(columns={"run": "seed"}), FOLDER / f"{env_id}_again.csv")


def _write(frame: pd.DataFrame, file: Path) -> None:
    frame.to_csv(file, index=False, lineterminator="\n", float_format=f"%.{SIGNIFICANT_DIGITS}g")


def trials(env_id: str) -> pd.DataFrame:
    """
    :param env_id: id of the environment
    :return: one row per trial, none left out
    """
    return pd.read_csv(FOLDER / f"{env_id}.csv")


def again(env_id: str) -> pd.DataFrame:
    """
    :param env_id: id of the environment
    :return: one row per run on a fresh seed, with ``mutual_information`` in nats, the
        discriminator's own bound
    """
    frame = pd.read_csv(FOLDER / f"{env_id}_again.csv")
    # Its exponential was called ``distinct_skills`` when the runs that ship were made.
    known = frame.get("recognized_skills", frame["distinct_skills"])
    return frame.assign(mutual_information=np.log(known))


# -- tables -------------------------------------------------------------------------------------


def best_trials(env_id: str) -> str:
    """
    :param env_id: id of the environment
    :return: its best complete trials in Markdown, with what was searched
    """
    frame = trials(env_id)
    best = frame[frame["state"] == "COMPLETE"].nlargest(N_BEST, "value")
    head = ["trial", "nats", *(name.replace("_", " ") for name in SEARCHED)]
    rows = [[row["number"], row["value"], *row[list(SEARCHED)]] for _, row in best.iterrows()]
    link = f"[All trials and columns]({CSV_FOLDER.name}/{_csv_file(env_id).name}) are in a file."
    return f"{table(head, rows)}\n\n{link}"


def csv_files() -> dict[Path, str]:
    """:return: the content of each file that the page links, with every trial"""
    files = {_csv_file(env_id): FOLDER / f"{env_id}.csv" for env_id in ENVS}
    return {file: source.read_text(encoding="utf-8") for file, source in files.items()}


def _csv_file(env_id: str) -> Path:
    return CSV_FOLDER / f"search_{env_id}.csv"


COLUMNS = {
    "mutual_information": "nats",
    "accuracy": "fresh accuracy",
    "best_task_return": "best return",
    "median_task_return": "median return",
    "coverage": "cells",
    "movement": "movement",
}


def arms(env_id: str) -> str:
    """
    :param env_id: id of the environment
    :return: one row per arm in Markdown: means over seeds and their 95 % bootstrap intervals
    """
    frame = again(env_id)
    rows = [
        [arm, len(part), *(interval_text(interval(part[name])) for name in COLUMNS)]
        for arm, part in frame.groupby("arm", sort=False)
    ]
    return table(["", "seeds", *COLUMNS.values()], rows)


def gain(env_id: str) -> dict[str, float]:
    """
    :param env_id: id of the environment
    :return: by how many nats the winner is ahead of the entry on fresh seeds: ``mean``, and ``low``
        and ``high``, Welch's 95 % interval (the bootstrap's is too narrow for a few seeds)
    """
    nats = again(env_id).groupby("arm")["mutual_information"]
    winner, entry = nats.get_group(WINNER), nats.get_group(ENTRY)
    ends = ttest_ind(winner, entry, equal_var=False).confidence_interval(CONFIDENCE)
    return {"mean": winner.mean() - entry.mean(), "low": ends.low, "high": ends.high}


def gains() -> str:
    """:return: one row per environment in Markdown: the study, and its winner on fresh seeds"""
    rows = []
    for env_id in ENVS:
        frame, nats = trials(env_id), again(env_id).groupby("arm")["mutual_information"].mean()
        counts = frame["state"].value_counts()
        best = frame.loc[frame["state"] == "COMPLETE", "value"].max()
        row = [env_id, len(frame), counts.get("PRUNED", 0), frame["seconds"].sum() / 60, best]
        rows.append([*row, nats[WINNER], nats[ENTRY], interval_text(gain(env_id))])
    head = [
        "environment",
        "trials",
        "of them pruned",
        "minutes",
        "best trial",
        "the same, fresh seeds",
    ]
    return table([*head, "entry, fresh seeds", "gain (95 %)"], rows)


def with_tables() -> str:
    """:return: the page as it has to be: the gains, then of each environment trials and arms"""
    return tables.with_tables(PAGE, BEGIN, _tables())


def _tables() -> Iterator[str]:
    yield gains()
    for env_id in ENVS:
        yield best_trials(env_id)
        yield arms(env_id)


# -- picture ------------------------------------------------------------------------------------


def draw() -> None:
    """Every trial, the best so far, and what entry and winner reach on fresh seeds."""
    figure, axes = plt.subplots(1, len(ENVS), figsize=(13, 3.8), layout="constrained")
    for ax, env_id in zip(axes, ENVS, strict=True):
        frame = trials(env_id)
        complete = frame["state"] == "COMPLETE"
        ax.scatter(*frame.loc[complete, ["number", "value"]].T.to_numpy(), s=18, label="trial")
        ax.scatter(
            *frame.loc[~complete, ["number", "value"]].T.to_numpy(),
            s=18,
            c="lightgray",
            label="pruned",
        )
        ax.step(
            frame["number"],
            frame["value"].where(complete).cummax().ffill(),
            where="post",
            label="best so far",
        )
        for arm, color in ((WINNER, "tab:green"), (ENTRY, "tab:red")):
            nats = again(env_id).query("arm == @arm")["mutual_information"]
            x = np.full(len(nats), len(frame) + 2)
            ax.scatter(x, nats, s=40, c=color, marker="x", label=f"{arm}, fresh seeds")
        ax.set(title=env_id, xlabel="trial", ylabel="nats")
    axes[0].legend(fontsize=8)
    figure.savefig(PICTURE, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        PAGE.write_text(with_tables(), encoding="utf-8")
        for file, content in csv_files().items():
            file.write_text(content, encoding="utf-8")
        draw()
