"""Numbers that describe skills, as plain functions of arrays."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

N_BINS = 10  # of a reliability diagram
ROUNDING_ERROR = 1e-12  # of a sum of logarithms


def confusion_matrix(skills: npt.ArrayLike, guesses: npt.ArrayLike, n_skills: int) -> Array:
    """
    :param skills: the skill of each state, shape ``(n,)``
    :param guesses: the discriminator's most likely skill for each state, shape ``(n,)``
    :param n_skills: the number of skills, K
    :return: share of the states of each skill (row) recognised as each skill (column), shape
        ``(K, K)``; the row of a skill without states is zero
    """
    counts = np.zeros((n_skills, n_skills))
    np.add.at(counts, (np.asarray(skills), np.asarray(guesses)), 1)
    totals = counts.sum(axis=1, keepdims=True)
    shares: Array = counts / np.maximum(totals, 1)
    return shares


def mutual_information(log_q: Array, n_skills: int) -> float:
    """
    The lower bound on I(S; Z) that DIAYN maximises (section 2.2 of Eysenbach et al., 2019,
    https://arxiv.org/abs/1802.06070), for skills drawn uniformly: E[log q(z|s')] + log K. It holds
    for any classifier q (Barber and Agakov, 2003); a worse one gives a lower value.

    :param log_q: mean log q(z|s') of each skill in nats, shape ``(K,)``
    :param n_skills: the number of skills, K
    :return: nats, at most log K; its exponential is a number of skills
    """
    bound = float(np.mean(log_q) + np.log(n_skills))
    # A uniform guess is worth exactly 0, whatever the sum's last digit says.
    return 0.0 if abs(bound) < ROUNDING_ERROR else bound


def reliability(confidences: Array, hits: Array) -> Array:
    """
    The numbers of a reliability diagram (Guo et al., 2017, https://arxiv.org/abs/1706.04599).

    :param confidences: probability of the likeliest skill for each state, shape ``(n,)``
    :param hits: whether it is the right one, shape ``(n,)``
    :return: for each of ``N_BINS`` equal bins of the confidence the share of the states in it,
        their mean confidence and their accuracy, shape ``(N_BINS, 3)``; zeros for an empty bin
    """
    bins = np.minimum((np.asarray(confidences) * N_BINS).astype(int), N_BINS - 1)
    counts, sums, right = (
        np.bincount(bins, weights, minlength=N_BINS) for weights in (None, confidences, hits)
    )
    per_state = np.maximum(counts, 1)
    return np.stack([counts / len(bins), sums / per_state, right / per_state], axis=1)


def calibration_error(bins: Array) -> float:
    """
    :param bins: from :func:`reliability`
    :return: the expected calibration error: the mean distance between confidence and accuracy;
        0 is perfect
    """
    share, confidence, accuracy = bins.T
    return float((share * np.abs(confidence - accuracy)).sum())


def overconfidence(bins: Array) -> float:
    """
    :param bins: from :func:`reliability`
    :return: the mean confidence minus the accuracy
    """
    share, confidence, accuracy = bins.T
    return float((share * (confidence - accuracy)).sum())


def path_length(points: Array) -> float:
    """
    :param points: positions in order, shape ``(n, c)``
    :return: length of the path through them, in the unit of the points
    """
    return float(np.linalg.norm(np.diff(points, axis=0), axis=1).sum())


def displacement(points: Array) -> float:
    """
    :param points: positions in order, shape ``(n, c)``
    :return: distance between the first and the last, in the unit of the points
    """
    return float(np.linalg.norm(points[-1] - points[0]))


def coverage(points: Array, cell_size: npt.ArrayLike) -> int:
    """
    :param points: positions, shape ``(n, c)``
    :param cell_size: edge of a cell, one number or one per coordinate, in the unit of the points
    :return: number of different cells of the grid that hold a position
    """
    cells = np.floor(points / np.asarray(cell_size)).astype(np.int64)
    return len(np.unique(cells, axis=0))


def principal_components(states: Array) -> tuple[Array, Array]:
    """
    :param states: states, shape ``(n, d)`` with d of at least 2
    :return: the mean, shape ``(d,)``, and the first two principal axes of the states scaled to
        unit variance, shape ``(d, 2)``: ``(states - mean) @ axes`` are coordinates
    """
    mean, std = states.mean(axis=0), states.std(axis=0)
    scaled = (states - mean) / np.where(std > 0, std, 1)
    _, axes = np.linalg.eigh(np.cov(scaled, rowvar=False))
    leading = axes[:, ::-1][:, :2]
    return mean, leading / np.where(std > 0, std, 1)[:, None]


def movement(states: Array, scale: Array) -> float:
    """
    How much a skill moves once it has settled: the root mean square deviation of the second half
    of an episode from its mean, in standard deviations of all skills' states. A pose has 0, a
    gait or a fall about 1.

    :param states: states of one episode, shape ``(n, d)``
    :param scale: standard deviation of each coordinate over all skills, shape ``(d,)``; a
        coordinate that never changes has 0 and does not count
    :return: a number of at least 0
    """
    varies = scale > 0
    if not varies.any():
        return 0.0
    half = states[len(states) // 2 :, varies] / scale[varies]
    return float(np.sqrt(half.var(axis=0).mean()))


def uprightness(orientation: Array) -> Array:
    """
    :param orientation: of a body that starts upright: unit quaternions (w, x, y, z), shape
        ``(n, 4)``, or for a body that moves in a vertical plane its pitch in radians, ``(n, 1)``
    :return: how far its upward axis points up: 1 upright, 0 on its side, -1 upside down; ``(n,)``
    """
    if orientation.shape[1] == 1:
        pitch: Array = np.cos(orientation[:, 0])
        return pitch
    _, x, y, _ = orientation.T
    upward: Array = 1 - 2 * (x**2 + y**2)
    return upward


def resample(points: Array, n_points: int) -> Array:
    """
    :param points: positions in order, shape ``(n, c)``
    :param n_points: how many to keep
    :return: positions at equal steps from first to last, shape ``(n_points, c)``
    """
    kept: Array = points[np.linspace(0, len(points) - 1, n_points).round().astype(int)]
    return kept
