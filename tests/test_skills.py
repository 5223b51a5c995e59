import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sb3_diayn.skills import SkillSpace, check_n_skills, check_skill

SPACE = spaces.Box(np.array([-1.0, -np.inf]), np.array([2.0, np.inf]), dtype=np.float64)
FINITE = st.floats(-1e6, 1e6, width=32)


def test_append_and_split_of_one_observation():
    skill_space = SkillSpace(SPACE, 3)
    augmented = skill_space.append(np.array([0.5, -1.0]), 1)
    np.testing.assert_array_equal(augmented, [0.5, -1, 0, 1, 0])
    env_obs, skill = skill_space.split(augmented)
    np.testing.assert_array_equal(env_obs, [0.5, -1])
    assert skill == 1 and skill.shape == ()


def test_append_and_split_of_a_batch():
    skill_space = SkillSpace(SPACE, 2)
    augmented = skill_space.append(np.array([[1.0, 2.0], [3.0, 4.0]]), [1, 0])
    np.testing.assert_array_equal(augmented, [[1, 2, 0, 1], [3, 4, 1, 0]])
    env_obs, skills = skill_space.split(augmented)
    np.testing.assert_array_equal(env_obs, [[1, 2], [3, 4]])
    np.testing.assert_array_equal(skills, [1, 0])


@pytest.mark.slow
@given(st.data())
def test_split_undoes_append(data):
    n_skills = data.draw(st.integers(2, 7))
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=2, max_side=5))
    obs = data.draw(hnp.arrays(np.float32, shape, elements=FINITE))
    skills = data.draw(hnp.arrays(np.int64, shape[:-1], elements=st.integers(0, n_skills - 1)))
    skill_space = SkillSpace(spaces.Box(-np.inf, np.inf, shape[-1:]), n_skills)
    augmented = skill_space.append(obs, skills)
    assert augmented.shape == (*shape[:-1], shape[-1] + n_skills)
    assert (augmented[..., shape[-1] :].sum(axis=-1) == 1).all()
    env_obs, back = skill_space.split(augmented)
    np.testing.assert_array_equal(env_obs, obs)
    np.testing.assert_array_equal(back, skills)


def test_the_augmented_space():
    space = SkillSpace(SPACE, 3).observation_space
    np.testing.assert_array_equal(space.low, [-1, -np.inf, 0, 0, 0])
    np.testing.assert_array_equal(space.high, [2, np.inf, 1, 1, 1])
    assert space.dtype == np.float32


def test_everything_is_float32():
    skill_space = SkillSpace(SPACE, 3)
    augmented = skill_space.append(np.array([0.5, -1.0], np.float64), 1)
    assert augmented.dtype == np.float32
    assert skill_space.split(augmented.astype(np.float64))[0].dtype == np.float32
    assert skill_space.env_space.dtype == np.float32


def test_the_inner_space_and_observation_stay_as_they_are():
    space = spaces.Box(-1.0, 1.0, (2,), np.float64)
    obs = np.array([0.5, -1.0])
    SkillSpace(space, 3).append(obs, 2)
    assert space == spaces.Box(-1.0, 1.0, (2,), np.float64)
    np.testing.assert_array_equal(obs, [0.5, -1.0])


def test_append_returns_a_copy():
    obs = np.array([0.5, -1.0], np.float32)
    SkillSpace(SPACE, 3).append(obs, 2)[:] = 7
    np.testing.assert_array_equal(obs, [0.5, -1.0])


def test_from_augmented_gives_the_same_object_back():
    skill_space = SkillSpace(SPACE, 3)
    again = SkillSpace.from_augmented(skill_space.observation_space, 3)
    assert again.env_space == skill_space.env_space
    assert again.observation_space == skill_space.observation_space
    assert again.n_skills == 3


@pytest.mark.parametrize(
    "space",
    [
        SPACE,
        spaces.Box(0.0, 1.0, (3,)),  # nothing is left for the environment
        spaces.Box(0.0, 2.0, (5,)),
        spaces.Box(0.0, 1.0, (2, 5)),
        spaces.Discrete(5),
    ],
)
def test_from_augmented_refuses_what_has_no_one_hot(space):
    with pytest.raises(ValueError, match=r"does not end with the one-hot of n_skills=3 .*Wrap the"):
        SkillSpace.from_augmented(space, 3)


@pytest.mark.parametrize("n_skills", [1, 0, -2, 2.5, 3.0, "3", None, True])
def test_check_n_skills_refuses(n_skills):
    with pytest.raises(ValueError, match=r"n_skills=.*expected an integer of at least 2.*pass n_s"):
        check_n_skills(n_skills)


@pytest.mark.parametrize("skill", [-1, 4, 1.0, "1", None, True])
def test_check_skill_refuses(skill):
    with pytest.raises(ValueError, match=r"skill=.*expected an integer from 0 to 3\. .*choose one"):
        check_skill(skill, 4)


def test_checks_return_plain_integers():
    assert type(check_n_skills(np.int64(5))) is int and check_n_skills(np.int64(5)) == 5
    assert [check_skill(np.int32(i), 3) for i in range(3)] == [0, 1, 2]
    assert type(check_skill(np.int32(2), 3)) is int
