"""
What the discriminator knows: the provided configuration of Hopper-v5 and changes of it, from the
files in ``zoo_configs/results/ablation``.

    python -m docs.tables.ablation collect logs/ablation  # take over the runs of the sweeps
    python -m docs.tables.ablation  # write the table and the picture

``runs.csv`` has one row per run, ``curves.csv`` one per evaluation during a run. The configurations
of the sweeps lie next to them.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from docs.tables import tables
from docs.tables.sweeps import ROOT, arguments_of, numbers_of, run_folders, seeds_table, write
from sb3_diayn.evaluation.callback import HISTORY_FILE, SKILLS_FOLDER
from sb3_diayn.model_zip import load_state, training_history
from sb3_diayn.zoo.hyperparams import get_arguments

FOLDER = ROOT / "zoo_configs" / "results" / "ablation"
PAGE = ROOT / "docs" / "pages" / "discriminator.md"
PICTURE = PAGE.parent / "images" / "results" / "ablation.png"
BEGIN = "<!-- table: python -m docs.tables.ablation -->"
# Trained for 3,000 updates.
BASE = {
    "steps_per_update": 30,
    "cross_fit": True,
    "log_q_min": -3.0,
    "skill": "stratified",
    "learning_rate": "lin_0.001",
    "buffer_size": 30_000,
    "ent_coef": 0.02,
    "discriminator_batch_size": 256,
    "normalize_obs": False,
    "frozen_fraction": 0.0,
}
GOOD_RETURN = 1000
LEARNING_STARTS = 2000


# -- files --------------------------------------------------------------------------------------


def collect(logs: Path) -> None:
    """
    Add runs. A run with the same settings and seed is replaced.

    :param logs: with the folders of the sweeps
    """
    found, their_curves = [], []
    for folder in run_folders(logs):
        arm = _arm(folder)
        history = training_history(load_state(next(folder.glob("*.zip"))))
        curve = _curve(folder, history, arm["steps_per_update"])
        last = {"updates": int(curve["updates"].iloc[-1])}
        replayed = {"replayed": history["diayn/accuracy"][-1]}
        found.append(arm | last | replayed | numbers_of(folder, GOOD_RETURN))
        their_curves.append(curve.assign(**arm)[[*arm, *curve.columns]])
    by = [*BASE, "seed"]
    of_runs = pd.concat([runs(), pd.DataFrame(found)]).drop_duplicates(by, keep="last")
    of_curves = pd.concat([curves(), *their_curves])
    of_curves = of_curves.drop_duplicates([*by, "updates"], keep="last")
    write(of_runs.sort_values(by), FOLDER / "runs.csv")
    write(of_curves.sort_values([*by, "updates"]), FOLDER / "curves.csv")


def _arm(folder: Path) -> dict[str, Any]:
    """What makes a run different from the others."""
    config, args = arguments_of(folder)
    options = get_arguments(config, "DIAYNCallback")
    return {
        "steps_per_update": config["n_envs"] // config["gradient_steps"],
        "cross_fit": options["cross_fit"],
        "log_q_min": math.nan if options["log_q_min"] is None else options["log_q_min"],
        "skill": get_arguments(config, "VecDIAYNWrapper")["skill"],
        **{name: config[name] for name in ("learning_rate", "buffer_size", "ent_coef")},
        "discriminator_batch_size": options["batch_size"],
        "normalize_obs": options.get("normalize_obs", False),
        "frozen_fraction": options.get("frozen_fraction", 0.0),
        "seed": args["seed"],
    }


def _curve(folder: Path, history: dict[str, Any], steps_per_update: int) -> pd.DataFrame:
    """Each evaluation of a training, and the logged accuracy at the same step."""
    file = folder / SKILLS_FOLDER / HISTORY_FILE
    rows = pd.DataFrame(json.loads(file.read_text(encoding="utf-8")))
    steps = rows["num_timesteps"]
    replayed = np.interp(steps, history["time/total_timesteps"], history["diayn/accuracy"])
    return pd.DataFrame(
        {
            "updates": (steps - LEARNING_STARTS) // steps_per_update,
            "replayed": replayed,
            "fresh": rows["accuracy"],
            "distinct_skills": rows["distinct_skills"],
            "recognized_skills": np.exp(rows["discriminator_bound"]),
        }
    )


def runs() -> pd.DataFrame:
    """:return: one row per run"""
    return pd.read_csv(FOLDER / "runs.csv", dtype={"learning_rate": str})


def curves() -> pd.DataFrame:
    """:return: one row per evaluation during a run"""
    return pd.read_csv(FOLDER / "curves.csv", dtype={"learning_rate": str})


# -- tables -------------------------------------------------------------------------------------

HEAD = {
    "distinct_skills": "distinct skills",
    "recognized_skills": "known to D",
    "replayed": "accuracy, replayed",
    "fresh": "accuracy, fresh",
    "good_skills": "skills of 1,000",
    "length": "steps of an episode",
}


def arms(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """
    :param frame: :func:`runs` or :func:`curves`
    :return: what differs from ``BASE`` in words, the fewest changes first, and the rows
    """
    found = [(_changes(values), part) for values, part in frame.groupby([*BASE], dropna=False)]
    found.sort(key=lambda arm: len(arm[0]))
    return [(", ".join(changes) or "the base", part) for changes, part in found]


def _changes(values: tuple[Any, ...]) -> list[str]:
    return [
        f"`{name}: {'none' if value != value else value}`"
        for (name, base), value in zip(BASE.items(), values, strict=True)
        if value != base
    ]


def arms_table() -> str:
    """:return: one row per arm in Markdown, with the numbers of every seed"""
    return seeds_table("", arms(runs()), HEAD)


def with_tables() -> str:
    """:return: the page as it has to be"""
    return tables.with_tables(PAGE, BEGIN, [arms_table()])


# -- picture ------------------------------------------------------------------------------------


def draw() -> None:
    """The accuracy on replayed and on fresh states in each arm; thin lines are the seeds."""
    found = arms(curves())
    n_columns = 4
    n_rows = math.ceil(len(found) / n_columns)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(11, 2.8 * n_rows),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    for ax in axes.flat[len(found) :]:
        ax.remove()
    for ax, (title, part) in zip(axes.flat, found, strict=False):
        for name, color in (("replayed", "tab:red"), ("fresh", "tab:blue")):
            for _, run in part.groupby("seed"):
                ax.plot(run["updates"], run[name], color=color, alpha=0.3, linewidth=1)
            mean = part.groupby("updates")[name].mean()
            ax.plot(mean.index, mean, color=color, linewidth=2, label=name)
        ax.set_title(title.replace("`", "").replace(", ", "\n"), fontsize=9)
        ax.set(ylim=(0, 1), xlim=(0, None), xlabel="updates")
    axes.flat[0].set_ylabel("accuracy")
    axes.flat[0].legend()
    figure.savefig(PICTURE, dpi=70)
    plt.close(figure)


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(Path(sys.argv[2]))
    else:
        PAGE.write_text(with_tables(), encoding="utf-8")
        draw()
