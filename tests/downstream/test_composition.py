"""Schedules and mixtures of skills."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_diayn import DIAYNWrapper
from sb3_diayn.downstream.composition import ScheduledSkills, mix_skills
from tests.helpers.envs import CountingEnv, EchoEnv, NoOptionsEnv, PointEnv, SameArrayEnv
from tests.helpers.models import make_sac
from tests.helpers.scripted import DIRECTIONS, K, scripted

NO_ACTION = np.zeros(2, np.float32)


def mixer():
    """A policy that is linear in the weights: it walks in the mean direction."""
    model = scripted(lambda obs, skills: DIRECTIONS[skills])
    model.predict = lambda obs, *args, **kwargs: (np.asarray(obs)[..., 2:] @ DIRECTIONS, None)
    return model


def play(schedule, steps, **kwargs):
    env = ScheduledSkills(PointEnv(), K, schedule, **kwargs)
    model = mixer()
    obs, _ = env.reset(seed=0)
    start = obs[:2].copy()
    path = []
    for _ in range(steps):
        obs, _, _, _, info = env.step(model.predict(obs)[0])
        path.append((obs[:2] - start, info["weights"]))
    return path


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("checker", [check_env, sb3_check_env])
def test_the_checkers_of_gymnasium_and_sb3_pass(checker):
    checker(ScheduledSkills(PointEnv(), K, [(0, 2), ({1: 1, 2: 3}, 1)]))


def test_skills_follow_each_other():
    path = play([(0, 3), (1, 2)], 8)
    np.testing.assert_allclose(path[2][0], [3, 0], atol=1e-6)
    np.testing.assert_allclose(path[4][0], [3, 2], atol=1e-6)
    np.testing.assert_allclose(path[7][0], [3, 5], atol=1e-6)  # the last one continues
    assert [weights for _, weights in path[1:5]] == [{0: 1}, {0: 1}, {1: 1}, {1: 1}]


def test_a_schedule_may_begin_again():
    path = play([(0, 1), (1, 2)], 6, repeat=True)
    assert [weights for _, weights in path] == [{0: 1}, {1: 1}, {1: 1}] * 2


def test_a_mixture_is_convex():
    np.testing.assert_allclose(mix_skills({0: 1, 2: 3}, 4), [0.25, 0, 0.75, 0])
    np.testing.assert_array_equal(mix_skills(2, 4), [0, 0, 1, 0])
    path = play([({0: 1, 1: 1}, 4)], 4)
    np.testing.assert_allclose(path[3][0], [2, 2], atol=1e-6)
    assert path[0][1] == {0: 0.5, 1: 0.5}


def test_a_pure_schedule_is_the_skill_itself():
    """The observations equal a DIAYNWrapper's with a fixed skill, to the bit."""
    ours = ScheduledSkills(CountingEnv(), 3, [(1, 1)])
    theirs = DIAYNWrapper(CountingEnv(), 3, skill=1)
    assert ours.observation_space == theirs.observation_space
    np.testing.assert_array_equal(ours.reset()[0], theirs.reset()[0])
    action = np.zeros(1, np.float32)
    np.testing.assert_array_equal(ours.step(action)[0], theirs.step(action)[0])


@pytest.mark.filterwarnings("ignore::UserWarning")  # SB3's of small images
@pytest.mark.parametrize("kind", ["dict", "discrete", "image"])
def test_a_schedule_of_other_observations_is_a_key_beside_them(kind):
    env = ScheduledSkills(EchoEnv(kind), K, [(1, 1), ({0: 1, 1: 1}, 1)])
    obs, _ = env.reset(seed=0)
    np.testing.assert_array_equal(obs["skill"], [0, 1, 0, 0])
    obs, *_ = env.step(env.action_space.sample())
    np.testing.assert_array_equal(obs["skill"], [0.5, 0.5, 0, 0])
    check_env(env)


def test_an_episode_begins_with_the_first_skill_again():
    env = ScheduledSkills(PointEnv(), K, [(0, 1), (1, 1)])
    env.reset()
    env.step(NO_ACTION), env.step(NO_ACTION)
    np.testing.assert_array_equal(env.reset()[0][2:], [1, 0, 0, 0])


def test_stock_tools_play_it():
    env = gym.wrappers.RecordEpisodeStatistics(ScheduledSkills(PointEnv(), K, [(0, 10), (2, 10)]))
    model = make_sac(DIAYNWrapper(PointEnv(), K))
    model.policy.predict = lambda obs, *args: (np.asarray(obs)[..., 2:] @ DIRECTIONS, None)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=1, warn=False)
    assert mean == pytest.approx(sum(range(1, 11)) + sum(range(10)), abs=1.5)


def test_an_environment_that_takes_no_options():
    obs, _ = ScheduledSkills(NoOptionsEnv(), K, [(1, 1)]).reset(seed=0)
    np.testing.assert_array_equal(obs[2:], [0, 1, 0, 0])


@pytest.mark.parametrize("kind", ["vector", "matrix", "dict"])
def test_an_environment_that_returns_the_same_array_each_time(kind):
    env = DummyVecEnv([lambda: ScheduledSkills(SameArrayEnv(kind), 2, [(1, 1)])])
    env.reset()
    actions = np.zeros((1, 1), np.float32)
    for episode in (1, 2):
        for _ in range(5):
            *_, infos = env.step(actions)
        last = infos[0]["terminal_observation"]
        for key in {"vector": (), "matrix": ("observation",), "dict": ("n",)}[kind]:
            last = last[key]
        assert last.ravel()[0] == infos[0]["x_position"] == 100 * episode + 5
    assert (actions == 0).all()  # the environment writes into what it gets


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_registered_environment_passes_the_checkers_and_is_made_again():
    schedule = [(0, 2), ({1: 1, 2: 3}, 1)]
    env = ScheduledSkills(gym.make("sb3_diayn/PointBox-v0"), K, schedule, repeat=True)
    check_env(env, skip_render_check=True)
    sb3_check_env(env)
    again = gym.make(env.spec)
    assert isinstance(again, ScheduledSkills) and again.n_skills == K and again._repeat
    np.testing.assert_array_equal(again._weights, env._weights)


@pytest.mark.parametrize(
    ("schedule", "match"),
    [
        ([], r"schedule=\[\] has no skill; expected at least one.*such as \[\(3, 100\)"),
        ([(0, 0)], r"steps=0 is not a positive integer; .*of a schedule"),
        ([(0, 1.5)], r"steps=1\.5 is not a positive integer"),
        ([(4, 1)], r"skill=4 is not one of the skills; expected an integer from 0 to 3"),
        ([({0: 1, 4: 1}, 1)], r"skill=4 is not one of the skills"),
        ([({}, 1)], r"mixture=\{\} has no valid shares; expected a positive number"),
        ([({0: 0.5, 1: -0.5}, 1)], r"mixture=\{0: 0\.5, 1: -0\.5\} has no valid shares"),
        ([({0: float("nan")}, 1)], r"mixture=\{0: nan\} has no valid shares"),
    ],
)
def test_refused(schedule, match):
    with pytest.raises(ValueError, match=match):
        ScheduledSkills(PointEnv(), K, schedule)
