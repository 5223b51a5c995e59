"""Paths as SVG: each skill once, in the picture's coordinates, and never out of them."""

import re

import numpy as np
import pytest

pytest.importorskip("seaborn")

from sb3_diayn.evaluation.svg import HEIGHT, WIDTH, draw_paths, path_limits
from tests.evaluation.evaluations import straight_walks

OBSERVATIONS = {"coordinates": ["observation 0", "observation 1"]}


def points_of(data):
    return np.array(re.findall(r"[ML](\S+?) ([^ML]+)", data), float)


def test_each_skill_is_a_path_with_all_of_its_episodes():
    plot = draw_paths(straight_walks(3, n_episodes=2, info=OBSERVATIONS))
    assert len(plot.data) == len(plot.colors) == 3
    for skill, data in enumerate(plot.data):
        points = points_of(data)
        assert data.count("M") == 2 and len(points) == 200
        # From (0, 0) to (1, skill) in a range of 1 and 2, with a margin of 4 % on each side.
        x, y = points[99] - points[0]
        assert x == pytest.approx(WIDTH / 1.08, abs=0.2)
        assert y == pytest.approx(-skill / 2 * HEIGHT / 1.08, abs=0.2)  # upwards


def test_positions_have_equal_scales():
    plot = draw_paths(straight_walks(3))
    x, y = points_of(plot.data[2])[99] - points_of(plot.data[2])[0]
    assert y == pytest.approx(-2 * x, abs=0.2)


def test_everything_is_inside_of_the_axes():
    plot = draw_paths(straight_walks(12))
    points = np.concatenate([points_of(data) for data in [*plot.data, plot.context]])
    assert (points >= 0).all() and (points <= [WIDTH, HEIGHT]).all()
    assert all(0 <= place <= WIDTH for place, _ in plot.x_ticks) and len(plot.x_ticks) > 1
    assert all(0 <= place <= HEIGHT for place, _ in plot.y_ticks) and len(plot.y_ticks) > 1


def test_ticks_stand_at_their_values():
    plot = draw_paths(straight_walks(2, info=OBSERVATIONS))
    start, end = points_of(plot.data[1])[[0, -1]]
    assert (start[0], "0") in plot.x_ticks and (end[0], "1") in plot.x_ticks
    assert (start[1], "0") in plot.y_ticks and (end[1], "1") in plot.y_ticks


def test_selected_skills_are_drawn_last():
    plot = draw_paths(straight_walks(15))
    assert len(plot.selected) == 9
    assert sorted(plot.order) == list(range(15)) and plot.order[-9:] == plot.selected


def test_a_skill_that_stands_still_is_a_dot_and_numbers_that_are_none_are_left_out():
    evaluation = straight_walks(3, n_episodes=1, info=OBSERVATIONS)
    evaluation.paths[0] = 0.5
    evaluation.paths[1, 0, :50] = np.nan
    evaluation.paths[2] = np.inf
    plot = draw_paths(evaluation)
    dot, half, nothing = (points_of(data) for data in plot.data)
    assert len(dot) == 2 and (dot[0] == dot[1]).all()
    assert len(half) == 50
    assert len(nothing) == 0 and "nan" not in "".join(plot.data) + plot.context
    evaluation.paths[:] = np.nan
    assert draw_paths(evaluation).data == ["", "", ""]


def test_common_limits():
    small, large = straight_walks(2), straight_walks(5)
    np.testing.assert_array_equal(path_limits([small, large]), [[0, 0], [1, 4]])
    limits = path_limits([small, large])
    assert draw_paths(small, limits=limits).data[1] == draw_paths(large, limits=limits).data[1]
