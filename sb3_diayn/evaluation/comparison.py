"""Comparison of runs: seeds of one setting, or settings. It needs the extra ``report``."""

import shutil
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.evaluation.pages import render
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.svg import PathPlot, draw_paths, path_limits
from sb3_diayn.files import replacing, require_extra, write_bytes

with require_extra("report"):
    import matplotlib.pyplot as plt
    import pandas as pd
    from scipy.stats import bootstrap  # type: ignore[import-untyped]

__all__ = [
    "METRICS",
    "compare",
    "interval",
    "plot_comparison",
    "summarize_groups",
    "write_comparison",
]

METRICS = {
    "distinct_skills": "distinct skills",
    "recognized_skills": "skills known to D (discriminator)",
    "accuracy": "accuracy (share of states)",
    "calibration_error": "calibration error",
    "best_task_return": "best task return of a skill",
    "median_task_return": "median task return of skills",
    "coverage": "cells visited by all skills",
    "movement": "mean movement of skills (std)",
}
# Headings of the same, and of what else is known of a run.
SHORT = {
    "n_skills": "K",
    "steps": "steps",
    "distinct_skills": "distinct",
    "recognized_skills": "known to D",
    "accuracy": "accuracy",
    "calibration_error": "calibration",
    "best_task_return": "best",
    "median_task_return": "median",
    "coverage": "cells",
    "movement": "movement",
}
CONFIDENCE = 0.95
MAX_FILMS = 3  # of a run, next to each other


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


def write_comparison(
    folder: str | Path,
    evaluations: Mapping[str, SkillEvaluation],
    *,
    groups: Mapping[str, str] | None = None,
    films: Mapping[str, Mapping[int, Path]] | None = None,
) -> Path:
    """
    Write ``index.html``, ``comparison.csv``, ``comparison.png`` and copies of films, the page last.
    Nothing in the folder refers to the network or to other folders.

    :param folder: where to, created if need be
    :param evaluations: the evaluation of each run, by the run's name
    :param groups: see :func:`compare`
    :param films: of each run, films by skill. The three with the best task returns are shown, with
        their posters, see :func:`~sb3_diayn.evaluation.video.save_poster`
    :return: the page
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if the folder cannot be written
    :raises ValueError: if there is nothing to compare or a run has no group
    """
    folder = Path(folder)
    frame = compare(evaluations, groups=groups)
    write_bytes(folder / "comparison.csv", frame.to_csv().encode())
    figure = plot_comparison(frame).flat[0].figure
    with replacing(folder / "comparison.png") as temporary:
        figure.savefig(temporary, dpi=120)
    plt.close(figure)
    found = films or {}
    context = {
        "columns": SHORT,
        "meanings": {"n_skills": "number of skills", "steps": "of the training"} | METRICS,
        "rows": frame.reset_index().to_dict("records"),
        "groups": _summaries(frame),
        "films": {
            run: _copy_films(folder, index, evaluation, found.get(run, {}))
            for index, (run, evaluation) in enumerate(evaluations.items())
        },
        "paths": _plots(evaluations),
    }
    write_bytes(folder / "index.html", render("comparison.html", context).encode())
    return folder / "index.html"


def _summaries(frame: pd.DataFrame) -> dict[str, list[dict[Hashable, Any]]]:
    """Metrics of each group of several runs: of a single one they are in the table of runs."""
    summaries = {}
    for group, summary in summarize_groups(frame).groupby(level="group", sort=False):
        metrics = summary.droplevel("group").rename(index=METRICS)
        if (metrics["runs"] > 1).all():
            summaries[str(group)] = metrics.rename_axis("label").reset_index().to_dict("records")
    return summaries


def _copy_films(
    folder: Path, index: int, evaluation: SkillEvaluation, films: Mapping[int, Path]
) -> list[dict[str, Any]]:
    """Copy the best films of a run, so that the folder can be moved; return what they show."""
    means = evaluation.task_returns.mean(axis=1)
    shown = []
    for skill in sorted(films, key=lambda skill: -means[skill])[:MAX_FILMS]:
        entry = {"skill": skill, "task_return": means[skill], "poster": ""}
        poster = films[skill].with_suffix(".jpg")
        for key, file in {"file": films[skill], "poster": poster}.items():
            if file.is_file():
                entry[key] = f"films/run_{index}_{file.name}"
                with replacing(folder / entry[key]) as temporary:
                    shutil.copyfile(file, temporary)
        shown.append(entry)
    return shown


def _plots(evaluations: Mapping[str, SkillEvaluation]) -> dict[str, PathPlot]:
    """The paths of each run, with common limits where environment and coordinates are the same."""
    alike: dict[str, list[SkillEvaluation]] = {}
    kinds = {}
    for run, evaluation in evaluations.items():
        info = evaluation.info
        coordinates = info["coordinates"]
        # Each run has principal components of its own.
        own = run if any("component" in name for name in coordinates) else ""
        kinds[run] = f"{info.get('env_id')} {coordinates} {own}"
        alike.setdefault(kinds[run], []).append(evaluation)
    return {
        run: draw_paths(evaluation, limits=path_limits(alike[kinds[run]]))
        for run, evaluation in evaluations.items()
    }


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
