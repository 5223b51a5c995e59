"""
Figures of a training and of an evaluation. They need the extra ``report``.

Each function draws on the given axes, or on a new pyplot figure, and does not show it. A legend may
be right of the axes: create your own figures with ``layout="constrained"`` to make room for it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation.coordinates import coordinate_labels
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import POSITION_KEYS
from sb3_diayn.files import require_extra
from sb3_diayn.skills import check_n_skills

with require_extra("report"):
    import matplotlib.pyplot as plt
    import pandas as pd
    import seaborn as sns  # type: ignore[import-untyped]
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import LineCollection
    from matplotlib.colors import BoundaryNorm, ListedColormap, to_rgb
    from matplotlib.patches import Patch
    from matplotlib.ticker import EngFormatter

__all__ = [
    "plot_confusion",
    "plot_coverage",
    "plot_discriminator_regions",
    "plot_reliability",
    "plot_task_returns",
    "plot_training",
    "plot_trajectories",
    "select_skills",
    "selected_colors",
    "skill_colors",
]

Array = npt.NDArray[Any]
Progress = Mapping[str, Sequence[Any]] | pd.DataFrame

PROGRESS_COLUMNS = ("time/total_timesteps", "diayn/log_q_z", "diayn/accuracy")
MAX_PALETTE = 10  # skills with a colour of their own
MAX_LEGEND = 20  # skills in a legend; more get a colour bar
GREY = 7  # its place in the palette, which is left to the skills without a colour
REST = "#c3c8ce"
GRID_POINTS = 200


def skill_colors(n_skills: int) -> Array:
    """
    Up to ten skills get seaborn's "colorblind" palette. Not everybody can distinguish more than
    about ten colours, so more skills get colours from viridis. Its lightness rises evenly, which
    remains visible to colour-blind eyes and in black-and-white prints, and orders the skills.

    :param n_skills: the number of skills, K
    :return: red, green and blue from 0 to 1, shape ``(K, 3)``
    """
    if check_n_skills(n_skills) <= MAX_PALETTE:
        return np.array(sns.color_palette("colorblind", n_skills))
    # The last shades of viridis are a yellow that is too pale for lines on white.
    colors: Array = plt.get_cmap("viridis")(np.linspace(0, 0.95, n_skills))[:, :3]
    return colors


def select_skills(evaluation: SkillEvaluation) -> list[int]:
    """
    The skills that get a colour where there are more skills than colours: the one with the best
    task return, and then again and again the one whose states are farthest from all chosen ones.

    :param evaluation: what was measured
    :return: all skills if they are at most ten, else nine of them, in their order
    """
    n_skills = evaluation.n_skills
    if n_skills <= MAX_PALETTE:
        return list(range(n_skills))
    chosen = [int(evaluation.task_returns.mean(axis=1).argmax())]
    distances = np.nan_to_num(evaluation.mean_state_distances)
    while len(chosen) < MAX_PALETTE - 1:
        nearest = distances[chosen].min(axis=0)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)


def selected_colors(evaluation: SkillEvaluation) -> Array:
    """
    :param evaluation: what was measured
    :return: as :func:`skill_colors` for up to ten skills. Of more skills, the ones that
        :func:`select_skills` chooses get a colour that can be recognised, and the others are grey
    """
    n_skills, selected = evaluation.n_skills, select_skills(evaluation)
    if n_skills <= MAX_PALETTE:
        return skill_colors(n_skills)
    colors = np.tile(to_rgb(REST), (n_skills, 1))
    colors[selected] = np.delete(skill_colors(MAX_PALETTE), GREY, axis=0)
    return colors


def plot_training(progress: Progress, *, n_skills: int, ax: Axes | None = None) -> Axes:
    """
    Draw the running log q(z|s') between guessing, -log K, and its bound 0, with the accuracy on a
    second axis.

    :param progress: columns of SB3's CSV logger, as from ``pd.read_csv("progress.csv")``; rows
        with a missing entry are left out
    :param n_skills: the number of skills, K
    :param ax: where to draw; None for a new figure
    :return: the axes of log q
    :raises ValueError: if no row has all three of ``PROGRESS_COLUMNS``
    """
    frame = _read_progress(progress)
    steps, log_q, accuracy = (frame[name] for name in PROGRESS_COLUMNS)
    baseline = -np.log(check_n_skills(n_skills))
    ax = _axes_or_new(ax)
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
    ax.set(xlabel="time steps", ylim=(1.05 * min(baseline, log_q.min()), -0.05 * baseline))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_ylabel("log q(z|s') [nats]", color=blue)
    ax.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    ax.set_title("Training of the discriminator", pad=40)
    return ax


def _read_progress(progress: Progress) -> pd.DataFrame:
    known = [name for name in PROGRESS_COLUMNS if name in progress]
    frame: pd.DataFrame = pd.DataFrame({name: pd.to_numeric(progress[name]) for name in known})
    frame = frame.dropna()
    if len(known) < len(PROGRESS_COLUMNS) or frame.empty:
        raise ValueError(
            f"progress={list(progress)!r} has no row with all of {PROGRESS_COLUMNS}; expected the "
            "log of a training with DIAYNCallback beyond learning_starts. Read its progress.csv."
        )
    return frame


def plot_task_returns(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    Draw a box and the single episodes of each skill, sorted by mean task return.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    n_skills, n_episodes = evaluation.task_returns.shape
    ax = _axes_or_new(ax, n_skills)
    order = np.argsort(evaluation.task_returns.mean(axis=1), kind="stable")
    returns, colors = evaluation.task_returns[order], selected_colors(evaluation)[order]
    x = np.arange(n_skills)
    style: dict[str, Any] = {"patch_artist": True, "medianprops": {"color": "black"}}
    boxes = ax.boxplot(
        list(returns), positions=x, widths=0.7, showfliers=False, manage_ticks=False, **style
    )
    for box, color in zip(boxes["boxes"], colors, strict=True):
        box.set(facecolor=color, alpha=0.4)
    columns = x[:, None] + 0.4 * (np.arange(n_episodes) + 0.5) / n_episodes - 0.2
    style = {"edgecolors": "black", "linewidths": 0.5, "zorder": 3}
    ax.scatter(columns, returns, s=14, c=np.repeat(colors, n_episodes, axis=0), **style)
    ax.set_xticks(x, [str(skill) for skill in order])
    if n_skills > MAX_LEGEND:
        ax.tick_params(axis="x", rotation=90, labelsize=6)
    ax.set_xlim(-0.7, n_skills - 0.3)
    ax.set(xlabel="skill, sorted by mean task return", ylabel="task return (sum of rewards)")
    ax.set_title(f"Task return of {n_episodes} episodes per skill")
    return ax


def plot_trajectories(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    Draw the path of every episode, with a circle where it starts, in :func:`selected_colors`.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    ax = _axes_or_new(ax)
    colors, selected = selected_colors(evaluation), select_skills(evaluation)
    for skill, paths in enumerate(evaluation.paths):
        order = 2.0 if skill in selected else 1.5
        ax.add_collection(LineCollection(list(paths), colors=[colors[skill]], zorder=order))
    x, y = evaluation.paths[:, :, 0].reshape(-1, 2).T
    ax.scatter(x, y, s=18, facecolors="white", edgecolors="black", zorder=3)
    _label_coordinates(ax, evaluation.info)
    others = [Patch(color=REST, label="other skills")] * (len(selected) < len(colors))
    _add_legend(ax, np.array(selected), colors, others)
    ax.set_title(f"Paths of {evaluation.n_skills} skills (circles: starts)")
    return ax


def plot_confusion(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    Draw as which skill the discriminator, or METRA's phi, recognises the states of each skill, with
    numbers for up to ten skills.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    ax = _axes_or_new(ax)
    step = _tick_step(evaluation.n_skills)
    numbers = {"annot": evaluation.n_skills <= MAX_PALETTE, "fmt": ".2f"}
    ticks = {"xticklabels": step, "yticklabels": step}
    style = {"square": True, "cbar_kws": {"label": "share of the skill's states"}}
    sns.heatmap(
        evaluation.confusion, vmin=0, vmax=1, cmap="viridis", ax=ax, **numbers, **ticks, **style
    )
    ax.tick_params(rotation=0)
    ax.set(xlabel=f"skill {evaluation.recognizer} sees", ylabel="skill played")
    ax.set_title(f"Confusion of skills (mean accuracy {evaluation.accuracy.mean():.2f})")
    return ax


def plot_reliability(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    Draw how often the discriminator is right at each level of confidence, with the share of the
    states as bars. Below the diagonal it is overconfident.
    Paper: https://arxiv.org/abs/1706.04599

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    :raises ValueError: if the evaluation is of version 0.1.0, which did not measure it, or of
        METRA, which has no probabilities
    """
    share, confidence, accuracy = evaluation.reliability.T
    if np.isnan(share).any():
        raise ValueError(
            "evaluation.reliability is unknown; expected an evaluation of a version later than "
            "0.1.0, with the objective 'diayn'. Evaluate the model again."
        )
    ax = _axes_or_new(ax)
    blue, orange, *_ = skill_colors(2)
    edges, is_known = np.arange(len(share)) / len(share), share > 0
    ax.bar(
        edges,
        share,
        1 / len(share),
        align="edge",
        color=orange,
        alpha=0.4,
        label="states with this confidence",
    )
    ax.plot([0, 1], [0, 1], color="black", linestyle="--", label="as sure as right")
    ax.plot(confidence[is_known], accuracy[is_known], "o-", color=blue, label="discriminator")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence (probability of the likeliest skill)")
    ax.set_ylabel("accuracy, share of the states")
    ax.legend(loc="upper left", frameon=False)
    ax.set_title(f"Reliability (calibration error {evaluation.calibration_error:.2f})")
    return ax


def plot_coverage(evaluation: SkillEvaluation, *, ax: Axes | None = None) -> Axes:
    """
    Draw how many cells of the grid each skill visits, with the total of all skills in the title.

    :param evaluation: what to draw
    :param ax: where to draw; None for a new figure
    :return: the axes
    """
    n_skills = evaluation.n_skills
    ax = _axes_or_new(ax, n_skills)
    ax.bar(np.arange(n_skills), evaluation.coverage, color=selected_colors(evaluation))
    ax.set_xticks(range(0, n_skills, _tick_step(n_skills)))
    names, sizes = evaluation.info["coordinates"], evaluation.info["cell_size"]
    edges = [f"{size:.3g}{_unit(name)}" for name, size in zip(names, sizes, strict=True)]
    ax.set(xlabel="skill", ylabel=f"visited cells of {' x '.join(edges)}")
    ax.set_title(f"State coverage ({evaluation.info['total_coverage']} cells by all skills)")
    return ax


def plot_discriminator_regions(
    discriminator: Discriminator, evaluation: SkillEvaluation, *, ax: Axes | None = None
) -> Axes:
    """
    Draw the most likely skill of each observation in the range visited. The more certain the
    discriminator is, the stronger the colour, from a share of 1/K (pale) to 1 (full).

    .. warning::
        If ``info`` has x and y positions, the observation must be that position.

    :param discriminator: of a two-dimensional observation, without actions
    :param evaluation: of the same skills
    :param ax: where to draw; None for a new figure
    :return: the axes
    :raises ValueError: if the discriminator reads anything else, has another number of skills or is
        METRA's phi, which has no probabilities
    """
    _check_plane(discriminator, evaluation)
    x, y = (_grid_line(evaluation.paths[..., i]) for i in range(2))
    winners, confidence = _classify(discriminator, x, y)
    colors = skill_colors(discriminator.n_skills)
    # At least a fifth of the colour shows the most likely skill even where it is a mere guess.
    alpha = np.interp(confidence, [1 / len(colors), 1], [0.2, 1])[..., None]
    image = np.concatenate([colors[winners], alpha], axis=-1)
    ax = _axes_or_new(ax)
    ax.imshow(image, origin="lower", extent=(x[0], x[-1], y[0], y[-1]), aspect="auto")
    _label_coordinates(ax, evaluation.info)
    _add_skill_legend(ax, np.unique(winners), colors)
    if len(colors) > MAX_PALETTE:
        _number_regions(ax, winners, x, y)
    ax.set_title("Most likely skill (stronger: more certain)")
    return ax


def _check_plane(discriminator: Discriminator, evaluation: SkillEvaluation) -> None:
    if not discriminator.has_probabilities:
        raise ValueError(
            f"discriminator={type(discriminator).__name__} has no q(z|s') to draw; expected the "
            "objective 'diayn'. Use plot_trajectories or plot_confusion."
        )
    names = evaluation.info["coordinates"]
    shape, actions = discriminator.observation_space.shape, discriminator.action_space
    known = is_plane(names) or names == ["observation 0", "observation 1"]
    if shape != (2,) or actions is not None or not known:
        raise ValueError(
            f"discriminator of observations {shape} with action_space={actions} and coordinates "
            f"{names} has no regions in a plane; expected two observations, which may be x and y, "
            "and no actions. Use plot_trajectories or plot_confusion."
        )
    if discriminator.n_skills != evaluation.n_skills:
        raise ValueError(
            f"discriminator.n_skills={discriminator.n_skills!r} does not fit the evaluation; "
            f"expected {evaluation.n_skills}. Pass the discriminator of the same model."
        )


def _grid_line(values: Array) -> Array:
    # A coordinate that never changes still needs an extent.
    margin = 0.05 * np.ptp(values) or 0.5
    return np.linspace(values.min() - margin, values.max() + margin, GRID_POINTS)


def _classify(discriminator: Discriminator, x: Array, y: Array) -> tuple[Array, Array]:
    """The most likely skill and its probability on a grid, with a row for each y."""
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    obs = th.as_tensor(grid, dtype=th.float32, device=discriminator.log_p.device)
    with th.no_grad():
        confidence, winners = discriminator(obs).softmax(dim=1).cpu().max(dim=1)
    return winners.numpy().reshape(len(y), -1), confidence.numpy().reshape(len(y), -1)


def _number_regions(ax: Axes, winners: Array, x: Array, y: Array) -> None:
    """Write the number of each skill into its region, since its colour alone does not say it."""
    for skill in np.unique(winners):
        rows, columns = np.nonzero(winners == skill)
        middle = len(rows) // 2  # a point of the region itself, unlike its centre of mass
        place = x[columns[middle]], y[rows[middle]]
        ax.text(*place, str(skill), ha="center", va="center", size="x-small")


def _axes_or_new(ax: Axes | None, n_columns: int = 0) -> Axes:
    size = (max(6.4, 0.2 * n_columns), 4.8)
    return ax or plt.subplots(figsize=size, layout="constrained")[1]


def _unit(name: str) -> str:
    return " m" if name in POSITION_KEYS else ""


def is_plane(names: Sequence[str]) -> bool:
    """
    :param names: of two coordinates
    :return: whether their axes have equal scales. Not height over distance: with equal scales its
        path would be too thin to read
    """
    return all("position" in name for name in names)


def axis_labels(info: Mapping[str, Any]) -> list[str]:
    """
    :param info: of an evaluation
    :return: labels of the two axes of its paths, with their units
    """
    names = info["coordinates"]
    pairs = zip(coordinate_labels(info), names, strict=True)
    return [label + (" [m]" if _unit(name) else "") for label, name in pairs]


def _label_coordinates(ax: Axes, info: Mapping[str, Any]) -> None:
    x, y = axis_labels(info)
    ax.set(xlabel=x, ylabel=y)
    if is_plane(info["coordinates"]):
        ax.set_aspect("equal")


def _tick_step(n_skills: int) -> int:
    return -(-n_skills // 10)  # leaves at most ten labels


def _add_skill_legend(ax: Axes, skills: Array, colors: Array) -> None:
    n_skills = len(colors)
    if n_skills <= MAX_LEGEND:
        _add_legend(ax, skills, colors)
        return
    norm = BoundaryNorm(np.arange(n_skills + 1) - 0.5, n_skills)
    mappable = ScalarMappable(norm, ListedColormap(colors))
    ticks = range(0, n_skills, _tick_step(n_skills))
    ax.figure.colorbar(mappable, ax=ax, label="skill", ticks=ticks).minorticks_off()


def _add_legend(ax: Axes, skills: Array, colors: Array, others: Sequence[Patch] = ()) -> None:
    handles = [Patch(color=colors[skill], label=f"skill {skill}") for skill in skills]
    size = "small" if len(handles) > MAX_PALETTE else None
    handles += others
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1, 1), fontsize=size)
