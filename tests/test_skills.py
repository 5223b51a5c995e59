import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sb3_diayn.skills import SKILL_RULES, SkillSampler, SkillSpace, check_n_skills, check_skill

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


def assert_obs_equal(obs, expected):
    assert obs.keys() == expected.keys()
    for key, part in expected.items():
        np.testing.assert_array_equal(obs[key], part)


def test_append_and_split_of_a_dict():
    skill_space = SkillSpace(spaces.Dict(a=SPACE, b=spaces.Discrete(5)), 2)
    obs = {"a": np.array([[0.5, -1.0]]), "b": np.array([3])}
    augmented = skill_space.append(obs, [1])
    assert_obs_equal(augmented, {**obs, "skill": [[0, 1]]})
    env_obs, skills = skill_space.split(augmented)
    assert_obs_equal(env_obs, obs)
    assert_obs_equal(skill_space.env_obs(augmented), obs)
    np.testing.assert_array_equal(skills, [1])
    again = SkillSpace.from_augmented(skill_space.observation_space, 2)
    assert again.env_space == skill_space.env_space
    with pytest.raises(ValueError, match="does not end with the one-hot of n_skills=3"):
        SkillSpace.from_augmented(skill_space.observation_space, 3)


def test_append_and_split_of_another_space():
    skill_space = SkillSpace(spaces.Discrete(5), 2)
    augmented = skill_space.append(np.array([3]), [1])
    assert_obs_equal(augmented, {"observation": [3], "skill": [[0, 1]]})
    env_obs, skills = skill_space.split(augmented)
    np.testing.assert_array_equal(env_obs, [3])
    np.testing.assert_array_equal(skills, [1])


@pytest.mark.parametrize("n_skills", [3, 2])
@pytest.mark.parametrize("space", [SPACE, spaces.Box(-5.0, 5.0, (4,))])
def test_from_augmented_gives_the_same_object_back(space, n_skills):
    skill_space = SkillSpace(space, n_skills)
    again = SkillSpace.from_augmented(skill_space.observation_space, n_skills)
    assert again.env_space == skill_space.env_space
    assert again.observation_space == skill_space.observation_space
    assert again.n_skills == n_skills


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


# -- two frames, as VecFrameStack puts them ----------------------------------------------------


def test_two_frames_of_a_vector():
    skill_space = SkillSpace(SPACE, 2, n_stack=2)
    assert skill_space.stack_space.shape == (4,) and skill_space.observation_space.shape == (8,)
    seen = skill_space.append(np.array([[1.0, 2.0, 3.0, 4.0]]), [[0, 1]])
    np.testing.assert_array_equal(seen, [[1, 2, 1, 0, 3, 4, 0, 1]])
    assert seen.dtype == np.float32
    for parts, frames, skills in (
        (skill_space.split(seen), [[1, 2, 3, 4]], [[0, 1]]),
        (skill_space.split_newest(seen), [[3, 4]], [1]),
    ):
        np.testing.assert_array_equal(parts[0], frames)
        np.testing.assert_array_equal(parts[1], skills)
    np.testing.assert_array_equal(
        skill_space.push(np.array([[1.0, 2.0, 3.0, 4.0]]), np.array([[5.0, 6.0]])), [[3, 4, 5, 6]]
    )


def test_the_first_of_two_frames_is_blank():
    first = SkillSpace(SPACE, 2, n_stack=2).append_first(np.array([[1.0, 2.0], [3.0, 4.0]]), [1, 0])
    np.testing.assert_array_equal(first, [[0, 0, 0, 0, 1, 2, 0, 1], [0, 0, 0, 0, 3, 4, 1, 0]])
    _, skills = SkillSpace(SPACE, 2, n_stack=2).split(first)
    np.testing.assert_array_equal(skills, [[-1, 1], [-1, 0]])
    alone = SkillSpace(SPACE, 2).append_first(np.array([[1.0, 2.0]]), [1])
    np.testing.assert_array_equal(alone, [[1, 2, 0, 1]])


def test_two_frames_of_a_dict():
    skill_space = SkillSpace(spaces.Dict(a=SPACE), 2, n_stack=2)
    obs = {"a": np.array([[1.0, 2.0, 3.0, 4.0]])}
    seen = skill_space.append(obs, [[-1, 1]])
    assert_obs_equal(seen, {**obs, "skill": [[0, 0, 0, 1]]})
    env_obs, skills = skill_space.split(seen)
    assert_obs_equal(env_obs, obs)
    np.testing.assert_array_equal(skills, [[-1, 1]])
    newest, skill = skill_space.split_newest(seen)
    assert_obs_equal(newest, {"a": [[3, 4]]})
    np.testing.assert_array_equal(skill, [1])


# -- the last observation of an episode --------------------------------------------------------


def test_the_terminal_observation():
    """That of the wrapper if there is one; else SB3's, without the skill."""
    skill_space = SkillSpace(SPACE, 2)
    sb3 = {"terminal_observation": np.array([1.0, 2.0, 0.0, 1.0])}
    ours = {"terminal_env_obs": np.array([3.0, 4.0])}
    np.testing.assert_array_equal(skill_space.terminal_env_obs(sb3, None), [1, 2])
    np.testing.assert_array_equal(skill_space.terminal_env_obs({**sb3, **ours}, None), [3, 4])
    with pytest.raises(ValueError, match=r"no 'terminal_observation'.*expected the last obs"):
        skill_space.terminal_env_obs({}, None)


# -- draws -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", SKILL_RULES)
def test_a_restored_sampler_draws_the_same(rule):
    sampler, other = SkillSampler(5, rule, index=3), SkillSampler(5, rule)
    sampler.seed(7)
    sampler.p = np.array([0.6, 0.1, 0.1, 0.1, 0.1])
    drawn = [sampler.draw() for _ in range(7)]
    other.restore(sampler.state())
    assert [other.draw() for _ in range(20)] == [sampler.draw() for _ in range(20)]
    assert other.is_seeded and other.index == 3
    if rule == "cycle":
        assert drawn == [3, 4, 0, 1, 2, 3, 4]


@pytest.mark.parametrize("first_seed", [0, 7, 123])
def test_stratified_environments_keep_their_skill(first_seed):
    samplers = [SkillSampler(5, "stratified") for _ in range(10)]
    for index, sampler in enumerate(samplers):
        sampler.seed(first_seed + index)
    draws = np.array([[sampler.draw() for sampler in samplers] for _ in range(4)])
    assert (draws == draws[0]).all()
    assert np.bincount(draws[0]).tolist() == [2] * 5
