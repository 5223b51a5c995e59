"""Comparison of runs: seeds of one setting, or settings. It needs the extra ``report``."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import require_extra

with require_extra("report"):
    import matplotlib.pyplot as plt
    import pandas as pd
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

__all__ = ["METRICS", "compare", "interval", "plot_comparison", "summarize_groups"]

METRICS = {
    "distinct_skills": "distinct skills",
    "recognized_skills": "skills that the discriminator knows",
    "accuracy": "accuracy (share of states)",
    "calibration_error": "calibration error",
    "best_task_return": "best task return of a skill",
    "median_task_return": "median task return of skills",
    "coverage": "cells visited by all skills",
    "movement": "mean movement of skills (std)",
}
CONFIDENCE = 0.95


def compare(
    evaluations: Mapping[str, SkillEvaluation], *, groups: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """
    :param evaluations: the evaluation of each run, by the run's name
    :param groups: the name of each run's group; None to put runs of the same environment,
        algorithm and number of skills together
    :return: one row per run: ``group``, ``n_skills``, ``steps`` of training, and the columns of
        ``METRICS``; task returns are means over episodes, best and median are over skills
    :raises ValueError: if there is nothing to compare or a run has no group
    """
    if not evaluations:
        raise ValueError("evaluations={} is empty; expected at least one run.")
    missing = [run for run in evaluations if groups is not None and run not in groups]
    if missing:
        raise ValueError(
            f"groups={groups!r} does not name {missing}; expected a group for each run."
        )
    rows = {
        run: {
            "group": groups[run] if groups else _default_group(evaluation),
            **_measurements(evaluation),
        }
        for run, evaluation in evaluations.items()
    }
    frame: pd.DataFrame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("run")
    return frame


def summarize_groups(frame: pd.DataFrame, *, seed: int | None = 0) -> pd.DataFrame:
    """
    :param frame: from :func:`compare`
    :param seed: of the resampling; None for no fixed seed
    :return: one row per group and metric: number of ``runs``, ``mean``, and ``low`` and ``high``,
        the ends of the 95 % percentile bootstrap interval of the mean over runs; NaN for a single
        run
    """
    rows = [
        {"group": group, "metric": metric, "runs": len(part), **interval(part[metric], seed)}
        for group, part in frame.groupby("group", sort=False)
        for metric in METRICS
    ]
    summary: pd.DataFrame = pd.DataFrame(rows).set_index(["group", "metric"])
    return summary


def interval(values: npt.ArrayLike, seed: int | None = 0) -> dict[str, float]:
    """
    :param values: one per run
    :param seed: of the resampling; None for no fixed seed
    :return: ``mean``, and ``low`` and ``high``, the ends of its 95 % percentile bootstrap
        interval, NaN for a single run. All are NaN if one of the values is unknown
    """
    data = np.asarray(values, dtype=float)
    low = high = float("nan")
    if len(data) > 1 and not np.isnan(data).any():
        # The default method, BCa, is undefined if all runs agree, and no better with few runs.
        result = bootstrap(
            (data,),
            np.mean,
            confidence_level=CONFIDENCE,
            method="percentile",
            random_state=np.random.default_rng(seed),
        )
        low, high = result.confidence_interval
    return {"mean": float(data.mean()), "low": float(low), "high": float(high)}


def plot_comparison(frame: pd.DataFrame, *, axes: npt.NDArray[Any] | None = None) -> Any:
    """
    Draw a panel for each metric: the runs as dots, the mean of each group with its 95 % interval.

    :param frame: from :func:`compare`
    :param axes: one for each entry of ``METRICS``; None for a new figure
    :return: the axes
    """
    groups = list(dict.fromkeys(frame["group"]))
    if axes is None:
        size = (13, 2 * (1.2 + 0.35 * len(groups)) + 1)
        axes = plt.subplots(2, 4, figsize=size, sharey=True, layout="constrained")[1]
    summary = summarize_groups(frame)
    position = {group: index for index, group in enumerate(groups)}
    for ax, (metric, label) in zip(np.ravel(axes), METRICS.items(), strict=True):
        ax.scatter(
            frame[metric], frame["group"].map(position), s=24, color="tab:blue", alpha=0.5, zorder=3
        )
        for group, index in position.items():
            row = summary.loc[(group, metric)]
            ax.plot([row["low"], row["high"]], [index, index], color="black", linewidth=1.5)
            ax.plot(row["mean"], index, marker="|", color="black", markersize=14)
        ax.set(xlabel=label, yticks=range(len(groups)), ylim=(len(groups) - 0.5, -0.5))
        ax.set_yticklabels(groups)
        ax.locator_params(axis="x", nbins=4)
    return axes


def _default_group(evaluation: SkillEvaluation) -> str:
    info = evaluation.info
    words = [info.get("env_id"), info.get("algo"), f"K={evaluation.n_skills}"]
    return " ".join(word for word in words if word)


def _measurements(evaluation: SkillEvaluation) -> dict[str, Any]:
    means = evaluation.task_returns.mean(axis=1)
    return {
        "n_skills": evaluation.n_skills,
        "steps": evaluation.info.get("num_timesteps"),
        "distinct_skills": evaluation.distinct_skills,
        "recognized_skills": evaluation.recognized_skills,
        "accuracy": float(evaluation.accuracy.mean()),
        "calibration_error": evaluation.calibration_error,
        "best_task_return": float(means.max()),
        "median_task_return": float(np.median(means)),
        "coverage": evaluation.info["total_coverage"],
        "movement": float(evaluation.movement.mean()),
    }
