import math

import numpy as np
import pytest

from sb3_diayn.evaluation import metrics


def test_confusion_matrix_has_one_row_per_skill():
    matrix = metrics.confusion_matrix([0, 0, 0, 0, 2], [0, 0, 1, 2, 0], 3)
    assert matrix.tolist() == [[0.5, 0.25, 0.25], [0, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize(
    ("log_q", "expected"),
    [(np.zeros(4), math.log(4)), (np.full(4, -math.log(4)), 0.0), (np.array([0, -2]), -0.30685)],
)
def test_mutual_information(log_q, expected):
    assert metrics.mutual_information(log_q, len(log_q)) == pytest.approx(expected, abs=1e-5)


def test_a_uniform_guess_is_worth_exactly_nothing():
    """The number of skills is 1 then, not less than 1."""
    assert metrics.mutual_information(np.full(7, np.log(1 / 7)), 7) == 0
    assert metrics.mutual_information(np.full(7, np.log(1 / 7) - 1e-9), 7) < 0


def test_reliability_of_five_states():
    """Two of five states in the bin from 0.5, one of them right; three in the last, all right."""
    confidences, hits = np.array([0.5, 0.6 - 1e-9, 0.9, 1, 1]), np.array([1, 0, 1, 1, 1])
    bins = metrics.reliability(confidences, hits)
    assert bins[5] == pytest.approx([0.4, 0.55, 0.5])
    assert bins[9] == pytest.approx([0.6, 2.9 / 3, 1.0])
    assert bins[[0, 1, 2, 3, 4, 6, 7, 8]].max() == 0
    assert metrics.calibration_error(bins) == pytest.approx(0.04)
    assert metrics.overconfidence(bins) == pytest.approx(0, abs=1e-6)


def test_lengths_of_a_square_walk():
    square = np.array([[0, 0], [3, 0], [3, 3], [0, 3], [0, 0]])
    assert metrics.path_length(square) == 12
    assert metrics.displacement(square) == 0
    assert metrics.displacement(square[:3]) == pytest.approx(math.sqrt(18))
    assert metrics.path_length(square[:1]) == 0


def test_coverage_counts_cells_once():
    points = np.array([[0.1, 0.1], [0.2, 0.2], [0.3, 0.1], [-0.1, 0.1], [0.1, 0.1]])
    assert metrics.coverage(points, 0.25) == 3
    assert metrics.coverage(points, [0.25, 1.0]) == 3
    assert metrics.coverage(points, 10.0) == 2  # the grid has a border at 0


def test_principal_components_find_the_line():
    t = np.linspace(-1, 1, 101)
    states = np.stack([t * 100, -t, np.zeros(101)], axis=1)  # one line, one constant
    mean, axes = metrics.principal_components(states)
    assert mean == pytest.approx(np.zeros(3), abs=1e-12)
    points = (states - mean) @ axes
    assert np.abs(np.corrcoef(points[:, 0], t)[0, 1]) == pytest.approx(1)
    assert points[:, 1] == pytest.approx(np.zeros(101), abs=1e-9)


def test_movement_is_that_of_the_second_half():
    states = np.array([[0.0, 5], [9, 5], [1, 5], [3, 5]])  # second half 1, 3: deviation 1
    assert metrics.movement(states, np.array([2.0, 0.0])) == 0.5
    assert metrics.movement(states, np.array([2.0, 1.0])) == pytest.approx(0.5 / math.sqrt(2))
    assert metrics.movement(states, np.zeros(2)) == 0
    assert metrics.movement(states[:1], np.ones(2)) == 0


@pytest.mark.parametrize("n", [1, 3, 100, 250])
def test_resample_keeps_both_ends(n):
    points = np.stack([np.arange(n), -np.arange(n)], axis=1)
    kept = metrics.resample(points, 100)
    assert kept.shape == (100, 2)
    assert kept[0].tolist() == [0, 0] and kept[-1].tolist() == [n - 1, 1 - n]
    assert (np.diff(kept[:, 0]) >= 0).all()


def quaternion(axis, degrees):
    half = math.radians(degrees) / 2
    return [math.cos(half), *(math.sin(half) * np.asarray(axis, float))]


@pytest.mark.parametrize(
    "axis, degrees, expected",
    [
        ([0, 0, 1], 170, 1),  # turned around, upright
        ([1, 0, 0], 60, 0.5),
        ([1, 0, 0], 180, -1),
        ([0, 1, 0], -180, -1),
        ([0, 1, 0], 100, math.cos(math.radians(100))),
        ([0.6, 0.8, 0], 90, 0),
        ([0, 1, 0], 350, math.cos(math.radians(10))),
    ],
)
def test_uprightness_of_hand_made_orientations(axis, degrees, expected):
    states = np.array([quaternion(axis, degrees)])
    assert metrics.uprightness(states) == pytest.approx([expected], abs=1e-9)


def test_uprightness_of_a_pitch():
    pitch = np.radians([[0.0], [89.0], [91.0], [-180.0], [360.0]])
    assert (metrics.uprightness(pitch) < 0).tolist() == [False, False, True, True, False]
