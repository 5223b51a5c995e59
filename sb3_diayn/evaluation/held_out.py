"""
How well skills can be distinguished by a held-out classifier: one that learns from some of the
fresh episodes and is tested on the others. It needs scikit-learn, which the extras ``report`` and
``zoo`` bring.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.evaluation import metrics
from sb3_diayn.files import require_extra

Array = npt.NDArray[Any]

# Each fold costs a training. On Hopper-v5 (K = 20, six episodes of each skill) two, three and six
# folds find 17.5, 17.3 and 17.9 skills.
MAX_FOLDS = 3
# Of each skill, at equal steps through its episodes. Consecutive states are nearly equal: on
# Hopper-v5, 250, 500 and 1,000 of them give 15.8, 16.7 and 17.2 skills (two folds), and all 3,200
# give 17.4 in three times the time. 20 skills take two seconds, their episodes half a minute.
MAX_STATES = 1000
# More trees cost more and find the same: 17.5 skills with 50 and with 100.
N_TREES = 50
# A tree that is sure and wrong would cost log 0. With this share of a uniform guess a mistake costs
# at most log(K / share), to the power of the temperature below.
UNIFORM_SHARE = 0.1
# From exp(-6), a uniform guess, to exp(3), the likeliest skill with certainty.
LOG_SHARPNESS = (-6.0, 3.0)


@dataclass(frozen=True)
class HeldOut:
    """
    What a held-out classifier c(z|s') makes of the states.

    :param log_q: mean log c(z|s') of each skill in nats, shape ``(K,)``
    :param confusion: share of the states of each skill (row) that it recognises as each skill
        (column), shape ``(K, K)``
    """

    log_q: Array
    confusion: Array


def classify_held_out(episodes: Sequence[Sequence[Array]]) -> HeldOut:
    """
    Cross-validation over whole episodes, because states of one episode resemble each other: a
    classifier that knows the episode would know the skill. The classifier is an ensemble of
    extremely randomised trees (Geurts et al., 2006), which needs no scaling and no early stopping.

    The shares of the trees are sharpened or flattened by one number, which is fitted on the folds
    other than the one that is tested (temperature scaling, Guo et al., 2017, arXiv 1706.04599).
    Without it the bound would measure how sure trees are.

    :param episodes: of each skill its episodes, each with states of shape ``(T, d)``; K of at
        least 2 skills
    :return: the mean over states of each skill, so that all skills count the same
    :raises ValueError: if a skill has fewer than two episodes
    :raises ImportError: if scikit-learn is missing
    """
    n_episodes = min(map(len, episodes))
    if n_episodes < 2:
        raise ValueError(
            f"n_episodes={n_episodes} leaves no episode to test a held-out classifier on; expected "
            "at least 2 of each skill."
        )
    n_folds = min(n_episodes, MAX_FOLDS)
    states, skills, folds = _draw_states(episodes, n_folds)
    votes = _vote(states, skills, folds, n_folds, len(episodes))
    log_probs = np.empty_like(votes)
    for fold in range(n_folds):
        tested = folds == fold
        sharpness = _fit_sharpness(votes[~tested], skills[~tested])
        log_probs[tested] = _log_probs(votes[tested], sharpness)
    log_q = _mean_log_q(log_probs, skills)
    return HeldOut(log_q, metrics.confusion_matrix(skills, log_probs.argmax(axis=1), len(episodes)))


def _draw_states(episodes: Sequence[Sequence[Array]], n_folds: int) -> tuple[Array, Array, Array]:
    """At most ``MAX_STATES`` states of each skill, with their skills and folds."""
    states, skills, folds = [], [], []
    for skill, each in enumerate(episodes):
        everything = np.concatenate(each)
        n_states = min(len(everything), MAX_STATES)
        rows = np.linspace(0, len(everything) - 1, n_states).round().astype(int)
        states.append(everything[rows])
        skills.append(np.full(n_states, skill))
        numbers = np.repeat(np.arange(len(each)), [len(states) for states in each])
        folds.append(numbers[rows] % n_folds)
    finite = np.nan_to_num(np.concatenate(states).astype(np.float32))
    return finite, np.concatenate(skills), np.concatenate(folds)


def _vote(states: Array, skills: Array, folds: Array, n_folds: int, n_skills: int) -> Array:
    """Share of the trees for each skill, from a classifier that has not seen the fold."""
    with require_extra("report"):
        from sklearn.ensemble import ExtraTreesClassifier  # type: ignore[import-untyped]
    votes = np.empty((len(states), n_skills))
    for fold in range(n_folds):
        tested = folds == fold
        # Skills are drawn uniformly, however long their episodes are.
        classifier = ExtraTreesClassifier(N_TREES, class_weight="balanced", random_state=0)
        classifier.fit(states[~tested], skills[~tested])
        votes[tested] = classifier.predict_proba(states[tested])
    return votes


def _fit_sharpness(votes: Array, skills: Array) -> float:
    with require_extra("report"):
        from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

    def loss(log_sharpness: float) -> float:
        log_probs = _log_probs(votes, np.exp(log_sharpness))
        return -float(_mean_log_q(log_probs, skills).mean())

    return float(np.exp(minimize_scalar(loss, bounds=LOG_SHARPNESS, method="bounded").x))


def _log_probs(votes: Array, sharpness: float) -> Array:
    mixed = (1 - UNIFORM_SHARE) * votes + UNIFORM_SHARE / votes.shape[1]
    logits = sharpness * np.log(mixed)
    logits -= logits.max(axis=1, keepdims=True)
    log_probs: Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs


def _mean_log_q(log_probs: Array, skills: Array) -> Array:
    """The mean log probability of the right skill over the states of each skill, ``(K,)``."""
    right = log_probs[np.arange(len(skills)), skills]
    means: Array = np.bincount(skills, right) / np.bincount(skills)
    return means
