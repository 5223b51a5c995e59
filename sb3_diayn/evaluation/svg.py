"""
Paths of skills as SVG, whose elements a page can highlight. It needs the extra ``report``.

A path is defined once and shown several times: in the plot of all skills and in one of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.evaluation.plotting import axis_labels, is_plane, select_skills, selected_colors
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import require_extra

with require_extra("report"):
    from matplotlib.colors import to_hex
    from matplotlib.ticker import MaxNLocator

__all__ = ["PathPlot", "draw_paths", "path_limits"]

Array = npt.NDArray[Any]
Tick = tuple[float, str]

WIDTH, HEIGHT = 640, 400  # of what is inside of the axes, in units of the picture
MARGIN = 0.04  # of the range, around the paths
CONTEXT_POINTS = 25  # of a path that is drawn in grey behind another one


@dataclass(frozen=True)
class PathPlot:
    """
    What a template needs to draw the paths of an evaluation.

    :param width: of the axes
    :param height: of the axes
    :param data: of each skill the data of an SVG path, with all of its episodes
    :param context: the data of one path of all skills, one episode of each, in few points
    :param starts: where episodes start, each place once
    :param colors: of each skill
    :param selected: the skills with a colour of their own, which are drawn last
    :param x_ticks: places and labels on the lower axis
    :param y_ticks: places and labels on the left axis
    :param labels: of the two axes
    """

    width: int
    height: int
    data: list[str]
    context: str
    starts: list[tuple[float, float]]
    colors: list[str]
    selected: list[int]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    labels: list[str]

    @property
    def order(self) -> list[int]:
        """:return: the skills in the order in which they are drawn"""
        return sorted(range(len(self.data)), key=lambda skill: skill in self.selected)


def draw_paths(evaluation: SkillEvaluation, *, limits: npt.ArrayLike | None = None) -> PathPlot:
    """
    :param evaluation: whose paths to draw
    :param limits: smallest and largest coordinates in the picture, shape ``(2, 2)``; None for the
        paths' own
    :return: the paths in the coordinates of a picture
    """
    low, high = path_limits([evaluation]) if limits is None else np.asarray(limits, float)
    span = np.where(high > low, high - low, 1.0) * (1 + 2 * MARGIN)
    size = np.array([WIDTH, HEIGHT])
    scale = size / span
    if is_plane(evaluation.info["coordinates"]):
        scale = np.full(2, scale.min())
    middle = (low + high) / 2

    def to_picture(points: Array) -> Array:
        """Coordinates of the picture, in which y grows downwards."""
        places = size / 2 + (points - middle) * scale * [1, -1]
        return np.asarray(places.round(1))

    paths = to_picture(evaluation.paths)
    step = -(-paths.shape[2] // CONTEXT_POINTS)
    starts = np.unique(paths[:, :, 0].reshape(-1, 2), axis=0)
    (left, top), (right, bottom) = middle - size / 2 / scale, middle + size / 2 / scale
    return PathPlot(
        width=WIDTH,
        height=HEIGHT,
        data=["".join(map(_path_data, episodes)) for episodes in paths],
        context="".join(_path_data(episodes[0][::step]) for episodes in paths),
        starts=[(float(x), float(y)) for x, y in starts if np.isfinite([x, y]).all()],
        colors=[to_hex(color) for color in selected_colors(evaluation)],
        selected=select_skills(evaluation),
        x_ticks=[(float(to_picture(np.array([t, 0]))[0]), f"{t:.6g}") for t in _ticks(left, right)],
        y_ticks=[(float(to_picture(np.array([0, t]))[1]), f"{t:.6g}") for t in _ticks(top, bottom)],
        labels=axis_labels(evaluation.info),
    )


def path_limits(evaluations: Sequence[SkillEvaluation]) -> Array:
    """
    :param evaluations: with paths in the same coordinates
    :return: the smallest and the largest finite coordinates, shape ``(2, 2)``
    """
    points = np.concatenate([evaluation.paths.reshape(-1, 2) for evaluation in evaluations])
    finite = points[np.isfinite(points).all(axis=1)]
    if len(finite) == 0:
        finite = np.zeros((1, 2))
    limits: Array = np.stack([finite.min(axis=0), finite.max(axis=0)])
    return limits


def _path_data(points: Array) -> str:
    """The data of an SVG path through the points, without those that nobody can distinguish."""
    points = points[np.isfinite(points).all(axis=1)]
    is_new = np.append(True, np.any(np.diff(points, axis=0) != 0, axis=1))
    places = [f"{x:g} {y:g}" for x, y in points[is_new[: len(points)]]]
    if len(places) == 1:  # a skill that stands still is a dot, with a round end
        places *= 2
    return f"M{'L'.join(places)}" if places else ""


def _ticks(low: float, high: float) -> list[float]:
    values = MaxNLocator(nbins=6, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]
