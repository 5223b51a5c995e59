"""
How well skills can be distinguished by a held-out classifier: one that learns from some of the
fresh episodes and is tested on the others. It needs scikit-learn, which the extras ``report`` and
``zoo`` bring.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.files import require_extra

Array = npt.NDArray[Any]

# Each fold costs a training. On Hopper-v5 (K = 20, six episodes of each skill, trees alone) two,
# three and six folds find about 17.5, 17.3 and 17.9 skills.
MAX_FOLDS = 3
# Of each skill, at equal steps through its episodes: with five episodes, 200 of each. Consecutive
# states are nearly equal: on Hopper-v5 (trees alone, two folds), 250, 500 and 1,000 of them give
# 15.8, 16.7 and 17.2 skills, and all 3,200 give 17.4 in three times the time.
MAX_STATES = 1000
# Of all skills together: 1,000 of each up to K = 50. Time and memory of a classifier grow with
# states times skills, so with the square of K if nothing bounds the states.
MAX_ALL_STATES = 50_000
# 100 trees find the same on Hopper-v5 in twice the time.
N_TREES = 50
# A forest of few states takes longer to set up than to learn, and of many it takes much memory: up
# to this many states times skills (50 MB) the trees are one forest.
MAX_AT_ONCE = 60_000
# The linear classifier is stopped early: 100 iterations find the same on Hopper-v5.
MAX_ITERATIONS = 20
# A classifier that is sure and wrong would cost log 0. With this share of a uniform guess, a
# mistake costs at most log(K / share), times a weight of at most MAX_WEIGHT.
UNIFORM_SHARE, MAX_WEIGHT = 0.1, 20.0
# Where every one of a few states is recognised, the best weight is the largest, and the first
# mistake spoils the bound. So a unit of weight costs as much as this many nats of one state: next
# to nothing with thousands of states.
WEIGHT_COST = 1.0
# Observations without a bound, infinite ones too, are cut here.
MAX_COORDINATE = 1e9


@dataclass(frozen=True)
class HeldOut:
    """
    What a held-out classifier c(z|s') makes of the states.

    :param log_q: mean log c(z|s') of each skill in nats, shape ``(K,)``
    :param confusion: mean probability that it gives to each skill (column) in the states of each
        skill (row), shape ``(K, K)``
    """

    log_q: Array
    confusion: Array


def classify_held_out(episodes: Sequence[Sequence[Array]]) -> HeldOut:
    """
    Cross-validation over whole episodes, because states of one episode resemble each other: a
    classifier that knows the episode would know the skill.

    The classifier weighs two: extremely randomised trees (Geurts et al., 2006), which are best
    where there is much to learn, and a linear one, which is not misled where skills overlap. Their
    log probabilities are added with weights that are fitted on the folds other than the one that
    is tested. With one classifier this is temperature scaling (Guo et al., 2017, arXiv
    1706.04599). Without it the bound would measure how sure the classifiers are: where they know
    nothing, both weights are 0, which is a uniform guess and a bound of 0.

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
    n_skills, n_folds = len(episodes), min(n_episodes, MAX_FOLDS)
    states, skills, folds = _draw_states(episodes, n_folds)
    votes = _log_votes(states, skills, folds, n_skills)
    log_probs = np.empty((len(states), n_skills))
    for fold in range(n_folds):
        tested = folds == fold
        weights = _fit_weights(votes[:, ~tested], skills[~tested])
        log_probs[tested] = _weigh(votes[:, tested], weights)
    per_skill = [log_probs[skills == skill] for skill in range(n_skills)]
    return HeldOut(
        np.array([part[:, skill].mean() for skill, part in enumerate(per_skill)]),
        np.stack([np.exp(part).mean(axis=0) for part in per_skill]),
    )


def _draw_states(episodes: Sequence[Sequence[Array]], n_folds: int) -> tuple[Array, Array, Array]:
    """
    States of each skill, at equal steps through its episodes, with their skills and folds. Of an
    episode that is too short for that the first state, so that every skill is in all folds.
    """
    max_states = min(MAX_STATES, MAX_ALL_STATES // len(episodes))
    states, skills, folds = [], [], []
    for skill, each in enumerate(episodes):
        everything = np.concatenate(each)
        numbers = np.repeat(np.arange(len(each)), [len(episode) for episode in each])
        n_states = min(len(everything), max_states)
        rows = np.linspace(0, len(everything) - 1, n_states).round().astype(int)
        known, first_rows = np.unique(numbers, return_index=True)
        rows = np.append(rows, first_rows[~np.isin(known, numbers[rows])])
        states.append(everything[rows])
        skills.append(np.full(len(rows), skill))
        folds.append(numbers[rows] % n_folds)
    finite = np.nan_to_num(np.concatenate(states).astype(np.float64))
    bounded = np.clip(finite, -MAX_COORDINATE, MAX_COORDINATE)
    return bounded, np.concatenate(skills), np.concatenate(folds)


def _log_votes(states: Array, skills: Array, folds: Array, n_skills: int) -> Array:
    """
    The log probabilities of classifiers that have not seen the fold of a state, mixed with a
    uniform guess, shape ``(2, n, K)``.
    """
    votes = np.zeros((2, len(states), n_skills))
    for fold in np.unique(folds):
        tested = folds == fold
        data = states[~tested], skills[~tested], states[tested]
        votes[0, tested], votes[1, tested] = _vote_of_trees(*data), _linear_vote(*data)
    logs: Array = np.log((1 - UNIFORM_SHARE) * votes + UNIFORM_SHARE / n_skills)
    return logs


# Both weigh states so that skills count the same, however long their episodes are.


def _vote_of_trees(states: Array, skills: Array, tested: Array) -> Array:
    """What ``N_TREES`` trees give; of many states one at a time, as a tree holds nodes times K."""
    with require_extra("report"):
        from sklearn.ensemble import ExtraTreesClassifier  # type: ignore[import-untyped]
    at_once = N_TREES if len(states) * len(np.unique(skills)) <= MAX_AT_ONCE else 1
    total, seeds = np.zeros(1), np.random.RandomState(0)  # a forest takes a seed for each tree
    for _ in range(N_TREES // at_once):
        forest = ExtraTreesClassifier(at_once, class_weight="balanced", random_state=seeds)
        total = total + forest.fit(states, skills).predict_proba(tested)
    votes: Array = total / (N_TREES // at_once)
    return votes


def _linear_vote(states: Array, skills: Array, tested: Array) -> Array:
    with require_extra("report"):
        from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
        from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]
        from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]
    linear = LogisticRegression(max_iter=MAX_ITERATIONS, class_weight="balanced")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it was stopped early
        fitted = make_pipeline(StandardScaler(), linear).fit(states, skills)
    votes: Array = fitted.predict_proba(tested)
    return votes


def _fit_weights(votes: Array, skills: Array) -> Array:
    """
    The weights of the classifiers with the largest mean log probability of the right skill, less
    their cost.
    """
    with require_extra("report"):
        from scipy.optimize import minimize  # type: ignore[import-untyped]
    right = votes[:, np.arange(len(skills)), skills]
    share = 1 / (np.bincount(skills)[skills] * votes.shape[2])  # of each state: skills count alike
    cost = WEIGHT_COST / len(skills)

    def loss(weights: Array) -> tuple[float, Array]:
        log_probs = _weigh(votes, weights)
        expected = np.einsum("mnk,nk->mn", votes, np.exp(log_probs))
        value = log_probs[np.arange(len(skills)), skills] @ share - cost * weights.sum()
        return -float(value), (expected - right) @ share + cost

    n_classifiers = len(votes)
    bounds = [(0.0, MAX_WEIGHT)] * n_classifiers
    fitted = minimize(loss, np.full(n_classifiers, 0.1), jac=True, bounds=bounds, method="L-BFGS-B")
    weights: Array = fitted.x
    return weights


def _weigh(votes: Array, weights: Array) -> Array:
    """The log probabilities of the weighted classifiers, shape ``(n, K)``."""
    logits = np.tensordot(weights, votes, axes=1)
    logits -= logits.max(axis=1, keepdims=True)
    log_probs: Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs
