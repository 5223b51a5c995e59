"""How far an agent has come lately, as a part of its observation."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import FlattenObservation, TransformObservation
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_diayn import (
    DIAYNWrapper,
    DisplacementObservation,
    GymVecEnv,
    SkillEvaluationCallback,
    evaluate_skills,
)
from sb3_diayn.envs.point_navigation import PointNavigationEnv
from sb3_diayn.evaluation.coordinates import find_obs_names, orientation_indices
from tests.helpers.envs import EchoEnv
from tests.helpers.models import make_callback, make_ppo

ANT = {
    "exclude_current_positions_from_observation": False,
    "include_cfrc_ext_in_observation": False,
}


def point(**kwargs):
    return gym.make("sb3_diayn/PointUMaze-v0", **kwargs)  # x, y and their velocities


@pytest.mark.parametrize("n_steps", [1, 4, 1000])
def test_the_displacement_is_the_difference_of_recorded_coordinates(n_steps):
    env = DisplacementObservation(point(), [1, -4], n_steps=n_steps)  # y and x
    rng = np.random.default_rng(0)
    for seed in (0, 1):  # the second episode knows nothing of the first one
        obs, _ = env.reset(seed=seed)
        places = [obs[[1, 0]]]
        assert obs[-2:].tolist() == [0, 0]
        for t in range(1, 12):
            obs, *_ = env.step(rng.uniform(-1, 1, 2).astype(np.float32))
            places.append(obs[[1, 0]])
            expected = places[t] - places[max(t - n_steps, 0)]
            np.testing.assert_array_equal(obs[-2:], expected)
    assert np.abs(obs[-2:]).min() > 0


def test_the_coordinates_can_be_left_out():
    obs, _ = DisplacementObservation(point(), [0], keep=False).reset(seed=0)
    whole, _ = point().reset(seed=0)
    np.testing.assert_array_equal(obs, [*whole[1:], 0])


def test_the_scale_is_of_displacements_and_of_their_space():
    plain = DisplacementObservation(point(), [0, 1], n_steps=4)
    scaled = DisplacementObservation(point(), [0, 1], n_steps=4, scale=2.5)
    pairs = [(env.observation_space.low, env.observation_space.high) for env in (plain, scaled)]
    plain.reset(seed=0), scaled.reset(seed=0)
    for action in np.random.default_rng(0).uniform(-1, 1, (6, 2)):
        pairs.append((plain.step(action)[0], scaled.step(action)[0]))
    bounds, seen = np.array(pairs[:2]), pairs[2:]
    np.testing.assert_allclose(bounds[1, :, :4], bounds[0, :, :4])
    np.testing.assert_allclose(bounds[1, :, 4:], 2.5 * bounds[0, :, 4:])
    for one, other in seen:
        np.testing.assert_allclose(other, one * [1, 1, 1, 1, 2.5, 2.5], rtol=1e-6)
        assert other.dtype == one.dtype


def test_an_observation_that_the_environment_changes_later_is_recorded_as_it_was():
    class OneArray(PointNavigationEnv):
        """Writes each observation into the same array."""

        place = np.zeros(2, np.float32)

        def _obs(self):
            self.place[:] = super()._obs()
            return self.place

    env = DisplacementObservation(OneArray("box"), [0], n_steps=3)
    start = env.reset(seed=0)[0][0]
    for _ in range(3):
        obs, *_ = env.step(np.array([1, 0], np.float32))
    assert obs[-1] == pytest.approx(obs[0] - start) and obs[-1] == pytest.approx(0.3)


def test_the_space_holds_what_can_be_seen():
    inner = point()
    space = DisplacementObservation(inner, [0]).observation_space
    size = inner.observation_space.high[0] - inner.observation_space.low[0]
    assert (space.low[-1], space.high[-1]) == (-size, size)
    assert space.dtype == inner.observation_space.dtype
    unbounded = DisplacementObservation(gym.make("Ant-v5", **ANT), [0, 1]).observation_space
    assert unbounded.high[-1] == np.inf and unbounded.dtype == np.float64


@pytest.mark.filterwarnings(
    "ignore:.*(different from the unwrapped|alternative render modes):UserWarning"
)
@pytest.mark.parametrize("checker", [check_env, sb3_check_env])
def test_the_checkers_of_gymnasium_and_sb3_pass(checker):
    checker(DisplacementObservation(PointNavigationEnv("box"), [0, 1]))


BAD = {
    "no index": ({"indices": []}, r"indices=\[\] .*expected different indices from -4 to 3"),
    "too large": ({"indices": [4]}, r"indices=\[4\] .*observation of length 4; expected"),
    "too small": ({"indices": [-5]}, r"indices=\[-5\] .*expected"),
    "twice": ({"indices": [0, -4]}, r"indices=\[0, -4\] .*expected different"),
    "no number": ({"indices": ["x"]}, r"indices=\['x'\] .*expected"),
    "no step": ({"indices": [0], "n_steps": 0}, r"n_steps=0 .*expected a positive integer"),
    "no scale": ({"indices": [0], "scale": 0}, r"scale=0 .*expected a positive number"),
    "a text": ({"indices": [0], "scale": "2"}, r"scale='2' .*expected a positive number"),
    "half a step": ({"indices": [0], "n_steps": 0.5}, r"n_steps=0.5 .*expected a positive integer"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused(name):
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        DisplacementObservation(point(), **options)


@pytest.mark.parametrize("indices", [np.array([0, 1]), slice(2), "0:2"])
def test_indices_are_what_obs_indices_takes(indices):
    env = DisplacementObservation(point(), indices, n_steps=np.int64(5), scale=np.float32(2))
    expected = DisplacementObservation(point(), [0, 1], n_steps=5, scale=2)
    assert env.indices == [0, 1] and env._saved_kwargs == expected._saved_kwargs
    np.testing.assert_array_equal(env.reset(seed=0)[0], expected.reset(seed=0)[0])


@pytest.mark.parametrize("kind", ["dict", "matrix", "discrete"])
def test_other_observations_than_vectors_are_refused(kind):
    with pytest.raises(ValueError, match=r"env has observations of .*expected a vector.*Flatten"):
        DisplacementObservation(EchoEnv(kind), [0])
    if kind == "matrix":
        assert DisplacementObservation(FlattenObservation(EchoEnv(kind)), [0]).n_steps == 20


def test_whole_numbers_are_refused():
    class Counter(gym.Env):
        observation_space = spaces.Box(0, 9, (2,), np.uint8)
        action_space = spaces.Discrete(2)

    with pytest.raises(ValueError, match=r"uint8.*expected a vector of real numbers"):
        DisplacementObservation(Counter(), [0])


def test_the_orientation_of_an_ant_is_still_found():
    env = DIAYNWrapper(DisplacementObservation(gym.make("Ant-v5", **ANT), [0, 1], keep=False), 2)
    names = find_obs_names(DummyVecEnv([lambda: env]), env.env.observation_space)
    assert names[0] == "root z" and orientation_indices(names) == [1, 2, 3, 4]
    assert names[-2:] == ["displacement of root x", "displacement of root y"]


def test_names_that_do_not_fit_are_not_used():
    """Ant's names are of the whole observation, of which a wrapper inside leaves out the half."""
    ant = gym.make("Ant-v5", **ANT)
    space = spaces.Box(-np.inf, np.inf, (50,))
    cut = TransformObservation(ant, lambda obs: obs[-50:].astype(np.float32), space)
    env = DisplacementObservation(cut, [0, 1])
    assert find_obs_names(DummyVecEnv([lambda: env]), env.observation_space) is None


def test_names_in_a_vector_env_of_gymnasium():
    def make():
        return DisplacementObservation(gym.make("MountainCarContinuous-v0"), [0])

    env = GymVecEnv(SyncVectorEnv([make] * 2))
    assert find_obs_names(env, env.observation_space)[-1] == "displacement of position"


@pytest.mark.slow
def test_skills_learn_from_the_displacement_alone():
    """D's normaliser has seen what the environment appended, also in copies for an evaluation."""

    def make():
        inner = DisplacementObservation(point(max_episode_steps=12), [0, 1], n_steps=5)
        return DIAYNWrapper(inner, 3)

    callback = make_callback(obs_indices="-2:", normalize_obs=True)
    evaluating = SkillEvaluationCallback(eval_freq=48, n_episodes=2)
    model = make_ppo(DummyVecEnv([make] * 2))
    model.learn(96, callback=[callback, evaluating])
    assert isinstance(model, PPO)
    assert callback.discriminator.obs_mean.shape == (2,)
    evaluation = evaluate_skills(model, make(), n_episodes=2)
    assert evaluation.info["obs_indices"] == [4, 5]
    assert len(evaluating.history) == 2
