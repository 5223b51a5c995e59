"""
Figures of a training and of an evaluation. They need the extra ``report``.

Each function draws on the axes it is given, or on a new pyplot figure, and shows nothing. A legend
may stand right of the axes: give figures of your own ``layout="constrained"`` to make room for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pandas as pd
import seaborn as sns  # type: ignore[import-untyped]
import torch as th
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.results import SkillEvaluation
from sb3_diayn.skills import check_n_skills
from sb3_diayn.trajectories import POSITION_KEYS

__all__ = [
    "plot_confusion",
    "plot_coverage",
    "plot_discriminator_regions",
    "plot_task_returns",
    "plot_training",
    "plot_trajectories",
    "skill_colors",
]

PROGRESS_COLUMNS = ("time/total_timesteps", "diayn/log_q_z", "diayn/accuracy")
MAX_PALETTE = 10
MAX_LEGEND = 20
MAX_TICK_LABELS = 50
GRID_POINTS = 200

Array = npt.NDArray[Any]


def skill_colors(n_skills: int) -> Array:
    """
    Up to ten skills have the colours of seaborn's "colorblind" palette. There are no more than
    about ten colours that everybody tells apart, so more skills are sampled from viridis: its
    lightness rises evenly, so that neighbours differ by equal steps, also for colour-blind eyes
    and in print, and a colour can be found on a colour bar.

    :param n_skills: the number of skills, K
    :return: red, green and blue from 0 to 1, shape ``(K, 3)``
    """
    if check_n_skills(n_skills) <= MAX_PALETTE:
        return np.array(sns.color_palette("colorblind", n_skills))
    # The last shades of viridis are a yellow too pale for lines on white.
    colors: Array = mpl.colormaps["viridis"](np.linspace(0, 0.95, n_skills))[:, :3]
    return colors


def plot_training(
    progress: Mapping[str, Sequence[Any]] | pd.DataFrame,
    *,
    n_skills: int,
    ax: Axes | None = None,
) -> Axes:
    """
    The running log q(z|s') between that of guessing, -log K, and its bound 0, with the accuracy
    on a second axis.

    :param progress: columns of SB3's CSV logger, as ``pd.read_csv("progress.csv")`` has them;
        rows without an entry are left out
    :param n_skills: the number of skills, K
    :param ax: where to draw; None for a new figure
    :return: the axes of log q
    :raises ValueError: if a column is missing or empty
    """
    frame = _read_progress(progress)
    steps, log_q, accuracy = (frame[name] for name in PROGRESS_COLUMNS)
    baseline = -np.log(check_n_skills(n_skills))
    ax = _axes(ax)
    blue, orange, *_ = skill_colors(2)
    twin = ax.twinx()
    lines = [
        *ax.plot(steps, log_q, color=blue, label="log q(z|s')"),
        ax.axhline(0, color="black", linestyle=":", label="upper bound 0"),
        *twin.plot(steps, accuracy, color=orange, linestyle="-.", label="accuracy"),
        ax.axhline(baseline, color="black", linestyle="--", label=f"guessing, -log {n_skills}"),
    ]
    twin.set_ylim(0, 1.05)
    twin.set_ylabel("accuracy (share of states)", color=orange)
    ax.set_xlabel("time steps")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_ylabel("log q(z|s') [nats]", color=blue)
    ax.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    return ax


def _read_progress(progress: Mapping[str, Sequence[Any]] | pd.DataFrame) -> pd.DataFrame:
    missing = [name for name in PROGRESS_COLUMNS if name not in progress]
    if missing:
        raise ValueError(
            f"progress={list(progress)!r} lacks the columns {missing}; expected those of a "
            "training with DIAYNCallback. Add 'csv' to the logger's formats and read progress.csv."
        )
    frame = pd.DataFrame({name: pd.to_numeric(progress[name]) for name in PROGRESS_COLUMNS})
    frame = frame.dropna()
    if frame.empty:
        raise ValueError(
            f"progress={list(progress)!r} has no row with all of {list(PROGRESS_COLUMNS)}; "
            "expected at least one. Train beyond learning_starts."
        )
    return frame


def plot_task_returns(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    A box and the single episodes of each skill, sorted by mean: the spread of task returns that
    figure 3 of Eysenbach et al. (2019) shows.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    n_skills = evaluation.n_skills
    ax = _axes(ax, n_skills)
    order = np.argsort(evaluation.task_returns.mean(axis=1), kind="stable")
    returns, colors = evaluation.task_returns[order], skill_colors(n_skills)[order]
    boxes = ax.boxplot(
        list(returns),
        positions=np.arange(n_skills),
        widths=0.7,
        patch_artist=True,
        showfliers=False,
        manage_ticks=False,
        medianprops={"color": "black"},
    )
    for box, color in zip(boxes["boxes"], colors, strict=True):
        box.set(facecolor=color, alpha=0.6)
    n_episodes = returns.shape[1]
    offsets = np.linspace(-0.2, 0.2, n_episodes) if n_episodes > 1 else np.zeros(1)
    x = np.arange(n_skills)[:, None] + offsets
    ax.scatter(x, returns, s=6, color="black", alpha=0.6, zorder=3)
    _label_skills(ax, order)
    ax.set_xlabel("skill, sorted by mean task return")
    ax.set_ylabel("task return (sum of rewards)")
    ax.set_title(f"Task return of {n_episodes} episodes per skill")
    return ax


def plot_trajectories(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    The path of every episode, with a circle where it starts.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    ax = _axes(ax)
    colors = skill_colors(evaluation.n_skills)
    for skill, (paths, color) in enumerate(zip(evaluation.paths, colors, strict=True)):
        lines = LineCollection(list(paths), colors=[color], linewidths=1.2, label=f"skill {skill}")
        ax.add_collection(lines)
    starts = evaluation.paths[:, :, 0].reshape(-1, 2)
    ax.scatter(*starts.T, s=18, facecolors="white", edgecolors="black", zorder=3, label="start")
    ax.autoscale_view()
    names = evaluation.info["coordinates"]
    _label_coordinates(ax, names)
    _add_key(ax, np.arange(evaluation.n_skills), colors)
    ax.set_title(f"Paths of {evaluation.n_skills} skills (circles: starts)")
    return ax


def plot_confusion(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    The share of each skill's states that the discriminator takes for each skill, with numbers
    for up to ten skills.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    ax = _axes(ax)
    n_skills = evaluation.n_skills
    sns.heatmap(
        evaluation.confusion,
        vmin=0,
        vmax=1,
        cmap="viridis",
        annot=n_skills <= MAX_PALETTE,
        fmt=".2f",
        square=True,
        xticklabels=_tick_step(n_skills),
        yticklabels=_tick_step(n_skills),
        cbar_kws={"label": "share of the skill's states"},
        ax=ax,
    )
    ax.tick_params(rotation=0)
    ax.set_xlabel("skill the discriminator sees")
    ax.set_ylabel("skill played")
    ax.set_title(f"Confusion of skills (mean accuracy {evaluation.accuracy.mean():.2f})")
    return ax


def plot_coverage(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    How many cells of the grid each skill visits, with the total of all skills in the title.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    n_skills = evaluation.n_skills
    ax = _axes(ax, n_skills)
    ax.bar(np.arange(n_skills), evaluation.coverage, color=skill_colors(n_skills))
    _label_skills(ax, np.arange(n_skills))
    width, height = (
        f"{size:.3g}{' m' if name in POSITION_KEYS else ''}"
        for name, size in zip(
            evaluation.info["coordinates"], evaluation.info["cell_size"], strict=True
        )
    )
    ax.set_xlabel("skill")
    ax.set_ylabel(f"visited cells of {width} x {height}")
    ax.set_title(f"State coverage ({evaluation.info['total_coverage']} cells by all skills)")
    return ax


def plot_discriminator_regions(
    discriminator: Discriminator, evaluation: SkillEvaluation, *, ax: Axes | None = None
) -> Axes:
    """
    Which skill the discriminator takes each observation for, over the range visited: the surer
    it is, the stronger the colour, which is white where the likeliest skill has the 1/K of a guess.

    .. warning::
        Where ``info`` tells an x and a y position, the range is that of the positions, so the
        observation has to be that position.

    :param discriminator: one of a two-dimensional observation, without actions
    :param evaluation: of the same skills
    :param ax: where to draw; None for a new figure
    :return: the axes
    :raises ValueError: if the observation is not two-dimensional, the discriminator reads actions
        or the two do not belong together
    """
    _check_plane(discriminator, evaluation)
    low, high = evaluation.paths.min(axis=(0, 1, 2)), evaluation.paths.max(axis=(0, 1, 2))
    # A coordinate that never changes still needs an extent.
    margin = np.where(high > low, 0.05 * (high - low), 0.5)
    low, high = low - margin, high + margin
    winners, confidence = _classify(discriminator, low, high)
    n_skills = discriminator.n_skills
    colors = skill_colors(n_skills)
    alpha = np.clip((n_skills * confidence - 1) / (n_skills - 1), 0, 1)[..., None]
    ax = _axes(ax)
    ax.imshow(
        np.concatenate([colors[winners], alpha], axis=-1),
        origin="lower",
        extent=(low[0], high[0], low[1], high[1]),
        aspect="auto",
    )
    _label_coordinates(ax, evaluation.info["coordinates"])
    _add_key(ax, np.unique(winners), colors)
    ax.set_title("Likeliest skill (the surer, the stronger)")
    return ax


def _check_plane(discriminator: Discriminator, evaluation: SkillEvaluation) -> None:
    names = evaluation.info["coordinates"]
    shape = discriminator.observation_space.shape
    if shape != (2,) or not (_is_plane(names) or names == ["observation 0", "observation 1"]):
        raise ValueError(
            f"discriminator of observations of shape {shape} with the coordinates {names} has no "
            "regions in a plane; expected an observation of two numbers. Look at "
            "plot_trajectories or plot_confusion instead."
        )
    if discriminator.action_space is not None:
        raise ValueError(
            f"discriminator.action_space={discriminator.action_space!r} is a further input; "
            "expected a discriminator of observations alone. Look at plot_confusion instead."
        )
    if discriminator.n_skills != evaluation.n_skills:
        raise ValueError(
            f"discriminator.n_skills={discriminator.n_skills!r} differs from the "
            f"{evaluation.n_skills} skills of the evaluation; expected the same. Pass the "
            "discriminator that the evaluation was made with."
        )


def _classify(discriminator: Discriminator, low: Array, high: Array) -> tuple[Array, Array]:
    """Likeliest skill and its probability on a grid, rows along the second coordinate."""
    x, y = (np.linspace(low[i], high[i], GRID_POINTS) for i in range(2))
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    with th.no_grad():
        obs = th.as_tensor(grid, dtype=th.float32, device=discriminator.log_p.device)
        confidence, winners = discriminator(obs).softmax(dim=1).max(dim=1)
    shape = (GRID_POINTS, GRID_POINTS)
    return winners.cpu().numpy().reshape(shape), confidence.cpu().numpy().reshape(shape)


def _axes(ax: Axes | None, n_columns: int = 0) -> Axes:
    if ax is None:
        size = (max(6.4, 0.2 * n_columns), 4.8)
        _, ax = plt.subplots(figsize=size, layout="constrained")
    return ax


def _is_plane(names: Sequence[str]) -> bool:
    """Height against way is left out: its path would be a strip too thin to read."""
    return all("position" in name for name in names)


def _label_coordinates(ax: Axes, names: Sequence[str]) -> None:
    x, y = (f"{n.replace('_', ' ')} [m]" if n in POSITION_KEYS else n for n in names)
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    if _is_plane(names):
        ax.set_aspect("equal")


def _tick_step(n_skills: int) -> int:
    return 1 if n_skills <= MAX_LEGEND else 5


def _label_skills(ax: Axes, order: Array) -> None:
    """Name the skill of each column; many of them upright and small."""
    step = -(-len(order) // MAX_TICK_LABELS)
    many = len(order) > MAX_LEGEND
    ticks = np.arange(0, len(order), step)
    ax.set_xticks(ticks, [str(skill) for skill in order[::step]])
    ax.tick_params(axis="x", rotation=90 if many else 0, labelsize=7 if many else None)
    ax.set_xlim(-0.7, len(order) - 0.3)


def _add_key(ax: Axes, skills: Array, colors: Array) -> None:
    if len(colors) <= MAX_LEGEND:
        handles = [Patch(color=colors[skill], label=f"skill {skill}") for skill in skills]
        ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        return
    norm = BoundaryNorm(np.arange(len(colors) + 1) - 0.5, len(colors))
    mappable = ScalarMappable(norm, ListedColormap(colors))
    ticks = range(0, len(colors), _tick_step(len(colors)))
    ax.figure.colorbar(mappable, ax=ax, label="skill", ticks=ticks)
