"""
The paper's downstream tasks, from the files that ``tests/benchmarks/locomotion.py`` writes into
``zoo_configs/results/downstream``.

    python -m docs.tables.downstream  # write the tables and the pictures
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from docs.tables import tables
from docs.tables.sweeps import ROOT
from docs.tables.tables import interval_text, table, text
from sb3_diayn.evaluation.comparison import interval

FOLDER = ROOT / "zoo_configs" / "results" / "downstream"
PAGES = ROOT / "docs" / "pages"
PICTURES = PAGES / "images" / "results"
BEGIN = "<!-- table: python -m docs.tables.downstream -->"
# Running, standing, walking (standing returns 1,000).
THRESHOLDS = {"HalfCheetah-v5": 2000, "Hopper-v5": 1000, "Ant-v5": 1500}
EPISODES = ["return", "episodes"]  # their mean, and how many
BIN = 50_000  # steps: longer than an episode of all 20 environments


def returns_of(experiment: str) -> pd.DataFrame:
    """
    :param experiment: "finetuning" or "hierarchy"
    :return: one row per measurement: ``env``, ``method``, ``seed``, ``steps``, ``return``; of
        "hierarchy" also ``episodes``, of which that is the mean, and ``best``
    """
    return pd.read_csv(FOLDER / f"{experiment}.csv")


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """
    :param frame: the rows of one environment and method
    :return: returns, one row for each number of steps, one column for each seed
    """
    return frame.pivot_table(index="steps", columns="seed", values="return")


def binned(frame: pd.DataFrame) -> pd.DataFrame:
    """
    :param frame: rows of ``hierarchy``
    :return: the mean of the episodes that end within each ``BIN`` steps
    """
    steps = np.ceil(frame["steps"] / BIN).astype(int) * BIN
    rows = frame.assign(steps=steps).groupby(["env", "method", "seed", "steps"], sort=False)
    return rows[EPISODES].apply(mean_return).rename("return").reset_index()


def mean_return(part: pd.DataFrame) -> float:
    """
    :param part: means and numbers of episodes
    :return: the mean of all of them
    """
    return float(np.average(part["return"], weights=part["episodes"]))


def finetuning_table() -> str:
    """:return: one row per environment and start in Markdown"""
    rows = []
    for (env, method), part in returns_of("finetuning").groupby(["env", "method"], sort=False):
        returns, threshold = curves(part), THRESHOLDS[env]
        is_over = returns >= threshold
        first = is_over.idxmax().where(is_over.any())
        by_seed = ", ".join("never" if s != s else f"{s:,.0f}" for s in first)
        ends = [text(float(value)) for value in returns.iloc[-1]]
        means = interval_text(interval(returns.mean()))
        before = text(float(returns.iloc[0].mean()))
        rows.append([env, method, before, f"{threshold:,}: {by_seed}", ", ".join(ends), means])
    head = ["environment", "start", "return before", "steps to a return of, by seed"]
    return table([*head, "return at the end, by seed", "mean return of the whole training"], rows)


def hierarchy_table() -> str:
    """:return: one row per task and method in Markdown, the best method first"""
    rows = []
    for (env, method), part in returns_of("hierarchy").groupby(["env", "method"], sort=False):
        late = part[part["steps"] > part["steps"].max() - 2 * BIN]
        by_seed = late.groupby("seed")[EPISODES].apply(mean_return)
        best = part.groupby("seed")["best"].max()
        numbers = [", ".join(f"{v:.2g}" for v in each) for each in (by_seed, best)]
        row = [env.removeprefix("sb3_diayn/"), method, *numbers, interval_text(interval(by_seed))]
        rows.append((env, -by_seed.mean(), row))
    head = ["task", "method", "return at the end, by seed", "best episode, by seed", "mean"]
    return table(head, [row for *_, row in sorted(rows, key=lambda each: each[:2])])


def imitation_table() -> str:
    """:return: one row per environment in Markdown"""
    frame = pd.read_csv(FOLDER / "imitation.csv")
    rows = []
    for env, part in frame.groupby("env", sort=False):
        closer = part["retrieved"] < part["mean"]
        by_seed = closer.groupby(part["seed"]).sum()
        distances = " / ".join(
            text(float(part[k].median())) for k in ("retrieved", "mean", "nearest")
        )
        share = f"{closer.sum()} of {len(part)}"
        nearest = f"{(part['rank'] == 1).sum()} of {len(part)}"
        rows.append([env, share, ", ".join(map(str, by_seed)), nearest, distances])
    head = ["environment", "closer than the mean skill", "by expert", "the nearest skill"]
    return table([*head, "median distance: retrieved / mean skill / nearest skill"], rows)


def draw(experiment: str) -> None:
    """
    Mean returns with their 95 % bootstrap band, one panel for each environment.

    :param experiment: see :func:`returns_of`
    """
    frame = returns_of(experiment)
    if experiment == "hierarchy":
        frame = binned(frame)
    envs = list(dict.fromkeys(frame["env"]))
    figure, axes = plt.subplots(
        1, len(envs), figsize=(4 * len(envs) + 2, 3.4), layout="constrained", squeeze=False
    )
    colors = {method: f"C{i}" for i, method in enumerate(dict.fromkeys(frame["method"]))}
    lines: dict[str, Line2D] = {}
    for ax, env in zip(axes[0], envs, strict=True):
        for method, part in frame[frame["env"] == env].groupby("method", sort=False):
            lines[str(method)] = _band(ax, curves(part), colors[method])
        ax.set(title=env, xlabel="steps of the environment, thousands", ylabel="task return")
    figure.legend(lines.values(), lines.keys(), loc="outside right", frameon=False)
    figure.savefig(PICTURES / f"{experiment}.png", dpi=80)
    plt.close(figure)


def _band(ax: Axes, returns: pd.DataFrame, color: str) -> Line2D:
    ends = pd.DataFrame([interval(row.dropna()) for _, row in returns.iterrows()], returns.index)
    if len(ends) == 1:  # of a method that learns nothing
        return ax.axhline(ends["mean"].iloc[0], color="gray", linestyle="--")
    thousands = ends.index / 1000
    (line,) = ax.plot(thousands, ends["mean"], color=color)
    ax.fill_between(thousands, ends["low"], ends["high"], color=color, alpha=0.2)
    return line


PAGE_TABLES = {
    "finetune.md": finetuning_table,
    "hierarchy.md": hierarchy_table,
    "imitation.md": imitation_table,
}


def with_tables(page: str) -> str:
    """
    :param page: one of ``PAGE_TABLES``
    :return: the page as it has to be
    """
    return tables.with_tables(PAGES / page, BEGIN, [PAGE_TABLES[page]()])


if __name__ == "__main__":
    for name in PAGE_TABLES:
        (PAGES / name).write_text(with_tables(name), encoding="utf-8")
    for name in ("finetuning", "hierarchy"):
        draw(name)
