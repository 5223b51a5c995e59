"""The held-out classifier on states whose information on the skill is known."""

import math

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sb3_diayn.evaluation import held_out, metrics
from sb3_diayn.evaluation.held_out import MAX_STATES, classify_held_out

K, T = 4, 30


def n_distinct(states, n_episodes=4, length=T, n_skills=K):
    """Of episodes whose states are ``states(skill, episode, rng)``, shape (length, d)."""
    rng = np.random.default_rng(0)
    episodes = [[states(z, e, rng) for e in range(n_episodes)] for z in range(n_skills)]
    return math.exp(metrics.mutual_information(classify_held_out(episodes).log_q, n_skills))


def directions(skill, episode, rng):
    angle = 2 * math.pi * skill / K
    walk = np.arange(1, T + 1)[:, None] * [math.cos(angle), math.sin(angle)]
    return walk + rng.normal(0, 0.1, (T, 2))


@pytest.mark.slow
@pytest.mark.parametrize("n_episodes", [2, 3, 6])
def test_as_many_as_directions(n_episodes):
    assert n_distinct(directions, n_episodes) == pytest.approx(K, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("n_episodes", [2, 3, 6])
def test_states_that_do_not_depend_on_the_skill_are_one_skill(n_episodes):
    assert n_distinct(lambda z, e, rng: np.ones((T, 2)), n_episodes) == pytest.approx(1, abs=1e-6)
    noise = n_distinct(lambda z, e, rng: rng.normal(size=(T, 2)), n_episodes)
    assert noise == pytest.approx(1, abs=0.05)


@pytest.mark.slow
def test_two_pairs_of_twins_are_two_skills():
    twins = n_distinct(lambda z, e, rng: directions(z // 2 * 2, e, rng))
    assert twins == pytest.approx(2, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("stray", range(3))
def test_one_stray_among_few_states_does_not_cost_everything(stray):
    """Ten places on a circle, five episodes of one state each. One is at another skill's place."""

    def place(z, e, rng):
        angle = 2 * math.pi * (z + 2 * (z == 3 and e == stray)) / 10
        return 10 * np.array([[math.cos(angle), math.sin(angle)]]) + rng.normal(0, 0.5, (1, 2))

    assert 7 < n_distinct(place, n_episodes=5, n_skills=10) < 10


@pytest.mark.slow
def test_a_coin_that_tells_the_skill_in_half_of_the_states():
    """By hand: I = log 2 / 2 for two skills, of which one bit is shown half of the time."""

    def states(z, e, rng):
        return np.where(rng.random((1000, 1)) < 0.5, 0.0, 1.0 + z)

    two = n_distinct(states, length=1000, n_skills=2)
    assert two == pytest.approx(math.sqrt(2), abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("n_twins", "truth"), [(1, K), (2, 2), (4, 1)])
def test_ten_thousand_coordinates_of_noise_add_nothing(n_twins, truth):
    """120 states of each skill: any classifier can learn them by heart."""

    def states(z, e, rng):
        useful = directions(z // n_twins * n_twins, e, rng)
        return np.concatenate([useful, rng.normal(size=(T, 10_000))], axis=1)

    assert n_distinct(states) <= truth + 0.05


@pytest.mark.slow
@pytest.mark.parametrize("n_episodes", [2, 3, 6])
def test_knowing_the_episode_is_not_knowing_the_skill(n_episodes):
    """Each episode stays at a place of its own, which says nothing of the skill of another one."""
    values = [
        n_distinct(lambda z, e, rng: np.tile(rng.normal(size=8), (T, 1)), n_episodes, n_skills=k)
        for k in (4, 10)
    ]
    assert max(values) < 1.3
    assert min(values) > 0.8  # and it does not ruin the bound


@pytest.mark.slow
def test_skills_count_the_same_whatever_their_length():
    """One of two skills falls at once: the classifier must not bet on the longer one."""
    rng = np.random.default_rng(0)
    episodes = [[rng.normal(size=(n, 2)) for _ in range(4)] for n in (5, 500)]
    result = classify_held_out(episodes)
    assert math.exp(metrics.mutual_information(result.log_q, 2)) == pytest.approx(1, abs=0.1)


def test_long_and_infinite_episodes():
    """Only so many states of each skill are used, from all of its episodes."""
    seen = []

    def states(z, e, rng):
        return np.stack([np.full(MAX_STATES, float(z)), np.full(MAX_STATES, np.inf)], axis=1)

    original = held_out._log_votes

    def log_votes(states, skills, folds, n_skills):
        seen.append((np.bincount(skills).tolist(), np.bincount(folds).tolist()))
        return original(states, skills, folds, n_skills)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(held_out, "_log_votes", log_votes)
        assert n_distinct(states, n_episodes=2) == pytest.approx(K, abs=0.01)
    assert seen == [([MAX_STATES] * K, [MAX_STATES * K // 2] * 2)]


def test_many_skills_have_fewer_states_each(monkeypatch):
    """Otherwise time and memory grow with the square of K."""
    monkeypatch.setattr(held_out, "MAX_ALL_STATES", 60)
    for n_skills, n_states in [(2, 20), (3, 20), (10, 6), (30, 2)]:
        episodes = [[np.zeros((10, 1))] * 2] * n_skills
        _, skills, folds = held_out._draw_states(episodes, n_folds=2)
        assert np.bincount(skills).tolist() == [n_states] * n_skills
        assert np.bincount(folds).tolist() == [n_states * n_skills // 2] * 2


@pytest.mark.slow
@pytest.mark.parametrize("max_at_once", [0, 180])
def test_one_tree_at_a_time_is_the_same_forest(max_at_once, monkeypatch):
    monkeypatch.setattr(held_out, "MAX_AT_ONCE", max_at_once)
    from sklearn.ensemble import ExtraTreesClassifier

    rng = np.random.default_rng(0)
    states, skills, tested = rng.normal(size=(60, 2)), np.arange(60) % K, rng.normal(size=(9, 2))
    forest = ExtraTreesClassifier(held_out.N_TREES, class_weight="balanced", random_state=0)
    expected = forest.fit(states, skills).predict_proba(tested)
    assert np.array_equal(held_out._vote_of_trees(states, skills, tested), expected)


@pytest.mark.slow
@pytest.mark.parametrize("n_skills", [2, 3])
def test_episodes_too_short_to_be_drawn_from(n_skills, monkeypatch):
    """At equal steps all states of skill 0 would be in fold 0, which no classifier could learn."""
    monkeypatch.setattr(held_out, "MAX_STATES", 20)
    lengths = [(200, 1, 1, 200), (100, 100, 100, 100), (100, 100, 100, 100)][:n_skills]
    episodes = [[np.full((n, 1), float(z)) for n in each] for z, each in enumerate(lengths)]
    assert min(classify_held_out(episodes).log_q) > math.log(0.8)


@pytest.mark.slow
def test_it_is_reproducible_and_leaves_the_random_state_alone():
    np.random.seed(0)
    first, second = n_distinct(directions), n_distinct(directions)
    draw = np.random.rand()
    np.random.seed(0)
    assert first == second and draw == np.random.rand()


def test_one_episode_is_refused():
    with pytest.raises(ValueError, match=r"n_episodes=1 .*expected at least 2"):
        classify_held_out([[np.zeros((3, 2))]] * 2)
