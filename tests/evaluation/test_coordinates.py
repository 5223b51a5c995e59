"""Names of coordinates: known ones are those of the observation, and others can be given."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_diayn import DIAYNWrapper
from sb3_diayn.evaluation import evaluate_skills, metrics
from sb3_diayn.evaluation.coordinates import (
    KNOWN,
    check_obs_names,
    coordinate_labels,
    find_obs_names,
    orientation_indices,
)
from tests.helpers.models import constant_discriminator
from tests.helpers.scripted import K, point_vec, walker


def names_of(env_id, **kwargs):
    env = gym.make(env_id, **kwargs)
    return find_obs_names(DummyVecEnv([lambda: DIAYNWrapper(env, 2)]), env.observation_space), env


@pytest.mark.parametrize("name", KNOWN)
def test_known_environments_have_a_name_for_each_coordinate(name):
    """In the newest version of each, so that a change of gymnasium is noticed."""
    specs = [spec for spec in gym.registry.values() if spec.name == name and not spec.namespace]
    newest = max(specs, key=lambda spec: spec.version)
    names, env = names_of(newest.id)
    assert names == list(KNOWN[name])
    assert len(names) == len(env.observation_space.low)


def test_names_of_classic_control_are_what_they_say():
    names, env = names_of("Pendulum-v1")
    obs, _ = env.reset(seed=0)
    theta, velocity = env.unwrapped.state
    expected = {"cos(angle)": np.cos(theta), "sin(angle)": np.sin(theta)}
    expected["angular velocity"] = velocity
    np.testing.assert_allclose(obs, [expected[name] for name in names], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("env_id", ["HalfCheetah-v5", "Ant-v5", "Swimmer-v5"])
def test_names_of_mujoco_are_those_of_its_joints(env_id, exclude):
    names, env = names_of(env_id, exclude_current_positions_from_observation=exclude)
    obs, _ = env.reset(seed=0)
    assert len(names) == len(obs)
    joint, kind = {
        "HalfCheetah-v5": ("bthigh", "bthigh"),
        "Ant-v5": ("hip 1", "hip_1"),
        "Swimmer-v5": ("motor1 rot", "motor1_rot"),
    }[env_id]
    data = env.unwrapped.data.joint(kind)
    assert obs[names.index(f"{joint} angle")] == data.qpos[0]
    assert obs[names.index(f"{joint} angular velocity")] == data.qvel[0]


def test_a_free_joint_has_three_positions_and_a_quaternion():
    names, _ = names_of("Ant-v5")
    assert names[:5] == ["root z", *(f"root quaternion {axis}" for axis in "wxyz")]
    assert names[13:19] == [
        *(f"root {axis} velocity" for axis in "xyz"),
        *(f"root angular velocity {axis}" for axis in "xyz"),
    ]
    assert names[-1] == "cfrc_ext 77"


class Named(gym.Wrapper):
    obs_names = ("height", "speed", "fuel")


@pytest.mark.parametrize(("names", "expected"), [(("a", "b", "c"), ["a", "b", "c"]), ((), None)])
def test_an_environment_names_its_own_coordinates(names, expected):
    env = Named(gym.make("Pendulum-v1"))
    env.obs_names = names
    found = find_obs_names(DummyVecEnv([lambda: DIAYNWrapper(env, 2)]), env.observation_space)
    assert found == (expected or list(KNOWN["Pendulum"]))


def test_names_that_do_not_fit_are_left_out():
    """For example where a wrapper has changed the observation."""
    env = gym.wrappers.TimeAwareObservation(gym.make("Pendulum-v1"))
    found = find_obs_names(DummyVecEnv([lambda: DIAYNWrapper(env, 2)]), env.observation_space)
    assert found is None


@pytest.mark.parametrize("space", [spaces.Box(-1, 1, (3,)), spaces.Discrete(2)])
def test_names_that_are_given_have_to_fit(space):
    with pytest.raises(ValueError, match=r"obs_names=\['a', 'b'\] does not fit .*; expected"):
        check_obs_names(["a", "b"], space)


@pytest.mark.parametrize(
    ("coordinates", "labels"),
    [
        (["x_position", "observation 1"], ["x position", "speed"]),
        (["observation 0", "observation 7"], ["height", "observation 7"]),
        (["principal component 1", "principal component 2"],) * 2,
    ],
)
def test_labels(coordinates, labels):
    info = {"coordinates": coordinates, "obs_names": ["height", "speed"]}
    assert coordinate_labels(info) == labels


@pytest.mark.slow
def test_an_evaluation_remembers_the_names():
    evaluation = evaluate_skills(
        walker(),
        point_vec(),
        n_episodes=1,
        discriminator=constant_discriminator([1 / K] * K),
        obs_names=["east", "north"],
    )
    assert evaluation.info["obs_names"] == ["east", "north"]
    with pytest.raises(ValueError, match=r"obs_names=\['east'\]"):
        evaluate_skills(
            walker(),
            point_vec(),
            n_episodes=1,
            discriminator=constant_discriminator([1 / K] * K),
            obs_names=["east"],
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "env_id, expected",
    [
        ("Ant-v5", [1, 2, 3, 4]),
        ("Humanoid-v5", [1, 2, 3, 4]),
        ("HalfCheetah-v5", [1]),
        ("Swimmer-v5", []),
        ("Pendulum-v1", []),
    ],
)
def test_where_the_torso_stands_upright(env_id, expected):
    env = DummyVecEnv([lambda: DIAYNWrapper(gym.make(env_id), K)])
    names = find_obs_names(env, env.envs[0].skill_space.env_space)
    indices = orientation_indices(names)
    assert indices == expected
    if indices:
        env.seed(0)
        obs = env.reset()[:, indices]
        assert metrics.uprightness(obs) > 0.9


def test_unknown_names_have_no_orientation():
    assert orientation_indices(None) == orientation_indices(["x", "y"]) == []
