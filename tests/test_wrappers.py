import copy
import math
import pickle
import warnings
from collections import Counter
from itertools import pairwise

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.monitor import Monitor

from sb3_diayn import DIAYNWrapper, SkillReward
from sb3_diayn.wrappers import first_bad_row
from tests.helpers.envs import CountingEnv, PointEnv, TwoStateEnv
from tests.helpers.models import constant_discriminator, counting

NO_ACTION = np.zeros(1, np.float32)


def quiet(env: DIAYNWrapper) -> DIAYNWrapper:
    env.set_skill_reward(None)
    return env


def skills_of(env: gym.Env, n_episodes: int) -> list[int]:
    return [env.reset()[1]["skill"] for _ in range(n_episodes)]


@pytest.mark.filterwarnings("ignore::UserWarning")  # of an infinite box, and of being wrapped
@pytest.mark.parametrize("checker", [check_env, sb3_check_env])
@pytest.mark.parametrize("env", [PointEnv, TwoStateEnv])
def test_the_checkers_of_gymnasium_and_sb3_pass(checker, env):
    checker(quiet(DIAYNWrapper(env(), 4)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_checker_passes_with_a_discriminator_and_short_skills():
    env = DIAYNWrapper(PointEnv(), 3, skill_duration=2)
    env.set_skill_reward(SkillReward(constant_discriminator([0.5, 0.25, 0.25])))
    check_env(env)


def test_the_observation_ends_with_the_skill():
    env = quiet(counting(skill=1))
    obs, info = env.reset()
    np.testing.assert_array_equal(obs, [0, 0, 0, 1, 0])
    assert obs.dtype == np.float32 and info["skill"] == 1
    obs, reward, terminated, truncated, info = env.step(NO_ACTION)
    np.testing.assert_array_equal(obs, [1, 0, 0, 1, 0])
    assert (reward, terminated, truncated) == (1.0, False, False)
    assert info == {"skill": 1, "task_reward": 1.0}


def test_the_inner_environment_stays_as_it_is():
    inner = CountingEnv()
    space, copy = inner.observation_space, spaces.Box(-1e6, 1e6, (2,), np.float64)
    env = quiet(DIAYNWrapper(inner, 3))
    env.reset(seed=0)
    env.step(NO_ACTION)
    assert inner.observation_space is space and space == copy
    assert env.action_space is inner.action_space
    assert env.observation_space.shape == (5,)


def test_options_choose_the_skill_of_one_episode():
    env = counting(skill=0)
    assert env.reset(options={"skill": 2})[1]["skill"] == 2
    assert env.reset()[1]["skill"] == 0


@pytest.mark.parametrize(
    ("given", "inner"),
    [
        (None, None),
        ({"skill": 2}, None),
        ({"skill": 2, "height": 1.5}, {"height": 1.5}),
        ({"height": 1.5}, {"height": 1.5}),
    ],
)
def test_other_options_go_on_to_the_environment(given, inner):
    copy = None if given is None else dict(given)
    assert counting().reset(options=given)[1]["options"] == inner
    assert given == copy


def test_a_fixed_skill():
    assert skills_of(counting(skill=2), 5) == [2] * 5
    assert skills_of(counting(skill="2"), 5) == [2] * 5


def test_cycle_counts():
    assert skills_of(counting(skill="cycle"), 7) == [0, 1, 2, 0, 1, 2, 0]


def test_balanced_plays_every_skill_once_per_round():
    env = DIAYNWrapper(CountingEnv(), 5, skill="balanced")
    rounds = [[env.reset(seed=0)[1]["skill"], *skills_of(env, 4)]]
    rounds += [skills_of(env, 5) for _ in range(20)]
    assert all(sorted(r) == [0, 1, 2, 3, 4] for r in rounds)
    assert len(set(map(tuple, rounds))) > 10  # in changing order


def test_a_seed_starts_a_new_round():
    env = DIAYNWrapper(CountingEnv(), 5, skill="balanced")
    env.reset(seed=0)
    assert sorted([env.reset(seed=1)[1]["skill"], *skills_of(env, 4)]) == [0, 1, 2, 3, 4]


def test_uniform_draws_every_skill_as_often():
    env = DIAYNWrapper(CountingEnv(), 4)
    env.reset(seed=0)
    counts = Counter(skills_of(env, 2000))
    # a binomial of 2000 and 1/4: 500 with a standard deviation of 19
    assert sorted(counts) == [0, 1, 2, 3] and all(abs(n - 500) < 100 for n in counts.values())
    env.reset(seed=0)
    draws = skills_of(env, 200)
    assert any(a == b for a, b in pairwise(draws))  # independent


def test_uniform_follows_a_learned_p_z():
    env = DIAYNWrapper(CountingEnv(), 3)
    discriminator = constant_discriminator([0.5, 0.25, 0.25])
    discriminator.log_p[:] = discriminator.log_p.new_tensor([1e-8, 1 - 2e-8, 1e-8]).log()
    env.set_skill_reward(SkillReward(discriminator))
    env.reset(seed=0)
    assert skills_of(env, 50) == [1] * 50


@pytest.mark.parametrize("rule", ["uniform", "balanced"])
def test_the_seed_decides_the_skills(rule):
    def draw(env, seed):
        return [env.reset(seed=seed)[1]["skill"], *skills_of(env, 20)]

    env = DIAYNWrapper(CountingEnv(), 5, skill=rule)
    first = draw(env, 7)
    assert draw(env, 7) == first
    assert draw(DIAYNWrapper(CountingEnv(), 5, skill=rule), 7) == first
    assert draw(env, 8) != first


def test_set_skill_changes_the_rule():
    env = counting(skill="uniform")
    env.set_skill(2)
    assert skills_of(env, 4) == [2] * 4


def test_skill_duration():
    env = quiet(counting(skill="cycle", skill_duration=2))
    env.reset()
    seen = []
    for _ in range(5):
        obs, _, _, _, info = env.step(NO_ACTION)
        seen.append((info["skill"], int(obs[2:].argmax())))
    # info: the skill that acted; obs: the one that acts next. The episode ends with its own.
    assert seen == [(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]


def test_a_skill_that_ends_with_the_episode_is_not_redrawn_before_the_reset():
    env = quiet(counting(skill="cycle", skill_duration=2, length=4))
    env.reset()
    observations = [env.step(NO_ACTION)[0] for _ in range(4)]
    np.testing.assert_array_equal(observations[-1], [4, 0, 0, 1, 0])
    assert env.reset()[1]["skill"] == 2


def test_the_environment_variable_overrides_the_rule(monkeypatch):
    monkeypatch.setenv("DIAYN_SKILL", "2")
    assert skills_of(DIAYNWrapper(CountingEnv(), 3), 3) == [2, 2, 2]
    env = DIAYNWrapper(CountingEnv(), 3, skill=1)
    assert skills_of(env, 2) == [2, 2]
    assert env.reset(options={"skill": 0})[1]["skill"] == 0
    monkeypatch.setenv("DIAYN_SKILL", "cycle")
    assert skills_of(DIAYNWrapper(CountingEnv(), 3, skill=1), 3) == [0, 1, 2]
    monkeypatch.setenv("DIAYN_SKILL", "")
    assert skills_of(DIAYNWrapper(CountingEnv(), 3, skill=1), 3) == [1, 1, 1]


@pytest.mark.parametrize("value", ["3", "-1", "nonsense"])
def test_a_wrong_environment_variable_is_refused(monkeypatch, value):
    monkeypatch.setenv("DIAYN_SKILL", value)
    with pytest.raises(ValueError, match=f"skill='?{value}'? is not"):
        DIAYNWrapper(CountingEnv(), 3)


def test_it_warns_once_without_a_discriminator():
    env = counting(skill="uniform")
    env.reset()
    with pytest.warns(UserWarning, match=r"pass callback=DIAYNCallback\(\) to learn"):
        env.step(NO_ACTION)
    env.step(NO_ACTION)  # warnings are errors here
    env.reset()
    env.step(NO_ACTION)


def test_no_warning_for_a_fixed_skill_or_an_evaluation():
    for env in (counting(skill=1), quiet(counting())):
        env.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            env.step(NO_ACTION)


def test_the_reward_with_a_discriminator():
    env = counting(skill=0)
    reward = SkillReward(constant_discriminator([0.5, 0.25, 0.25]), 10.0, 1.0, 0.5)
    env.set_skill_reward(reward)
    env.reset()
    env.step(NO_ACTION)
    _, paid, _, _, info = env.step(NO_ACTION)
    assert info == {
        "skill": 0,
        "task_reward": 2.0,
        "skill_reward": pytest.approx(math.log(1.5), abs=1e-6),
    }
    assert type(paid) is float and paid == pytest.approx(10 * math.log(1.5) + 10, abs=1e-4)
    env.set_skill_reward(None)
    assert env.step(NO_ACTION)[1] == 3.0


def test_the_reward_belongs_to_the_skill_that_acted():
    env = counting(skill="cycle", skill_duration=1)
    env.set_skill_reward(SkillReward(constant_discriminator([0.5, 0.25, 0.25])))
    env.reset()
    rewards = [env.step(NO_ACTION)[1] for _ in range(3)]
    np.testing.assert_allclose(rewards, np.log([1.5, 0.75, 0.75]), atol=1e-6)


@pytest.mark.parametrize("truncate", [False, True])
def test_the_raw_terminal_observation_is_in_info(truncate):
    env = quiet(counting(length=2, truncate=truncate))
    env.reset()
    assert "terminal_env_obs" not in env.step(NO_ACTION)[4]
    np.testing.assert_array_equal(env.step(NO_ACTION)[4]["terminal_env_obs"], [2, 0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_observation_that_is_not_finite_is_refused(value):
    class Unstable(CountingEnv):
        def step(self, action):
            obs, *rest = super().step(action)
            return (np.array([obs[0], value]) if self.steps == 3 else obs), *rest

    env = quiet(DIAYNWrapper(Unstable(), 3, skill=2))
    env.reset()
    env.step(NO_ACTION)
    env.step(NO_ACTION)
    message = rf"observation\[1\]=.*{value}.* is not finite at step 3 .*skill 2.*Look at the env"
    with pytest.raises(ValueError, match=message):
        env.step(NO_ACTION)


@pytest.mark.parametrize("between", [lambda env: env, Monitor, lambda env: TimeLimit(env, 5)])
def test_wrapping_twice_is_refused(between):
    with pytest.raises(ValueError, match=r"already has a DIAYNWrapper.*Wrap it once"):
        DIAYNWrapper(between(DIAYNWrapper(CountingEnv(), 3)), 3)


def test_a_deep_copy_of_info_shares_nothing_that_can_change():
    env = quiet(DIAYNWrapper(CountingEnv(), n_skills=3))
    env.reset(seed=0)
    *_, info = env.step(NO_ACTION)
    info |= {"list": [1, [2]], "array": np.zeros(2), "number": np.float64(3), "none": None}
    info["same"] = info["list"]
    copied = copy.deepcopy(info)
    assert repr(copied) == repr(info) and copied["same"] is copied["list"]
    copied["list"][1].append(3)
    copied["array"][0] = 1
    assert info["list"] == [1, [2]] and not info["array"].any()


def test_defaults_and_what_is_known_of_the_environment():
    env = DIAYNWrapper(CountingEnv())
    assert env.n_skills == 20 and env.env_id is None and env.total_steps == 0
    assert DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0")).env_id == "sb3_diayn/PointBox-v0"


def test_an_environment_that_has_joined_others_begins_at_its_own_place():
    env = quiet(counting(skill="cycle"))
    env.join(1, 0)
    assert skills_of(env, 4) == [1, 2, 0, 1]


def test_a_reward_that_comes_from_another_process():
    env = counting(skill=0)
    env.load_skill_reward(pickle.dumps(SkillReward(constant_discriminator([0.5, 0.25, 0.25]))))
    env.reset()
    assert env.step(NO_ACTION)[1] == pytest.approx(math.log(1.5), abs=1e-6)


def test_the_first_row_that_is_not_finite():
    assert first_bad_row(np.zeros((3, 2))) is None
    assert first_bad_row(np.array([[0, 0], [0, np.nan], [np.inf, 0]])) == 1


# -- an episode that is played again -----------------------------------------------------------


@pytest.mark.parametrize("seed", [5, None])
def test_an_episode_is_played_again_from_its_seed_and_its_actions(seed):
    env, other = (quiet(DIAYNWrapper(PointEnv(), 3, skill_duration=2)) for _ in range(2))
    assert env.episode_state() is None
    env.reset(seed=1)
    obs, _ = env.reset(seed=seed)
    for action in ([1.0, 0.0], [0.0, 0.5], [-0.25, 0.0]):
        obs, *_ = env.step(np.array(action, np.float32))
    assert other.restore_episode(env.episode_state())
    np.testing.assert_array_equal(other.last_obs, obs)
    assert other.unwrapped.steps == 3
    for _ in range(4):
        theirs, ours = other.step(np.ones(2, np.float32)), env.step(np.ones(2, np.float32))
        np.testing.assert_array_equal(theirs[0], ours[0])
    np.testing.assert_array_equal(other.reset()[0], env.reset()[0])


def test_an_episode_that_does_not_come_back_is_refused():
    env = quiet(DIAYNWrapper(PointEnv(), 3))
    env.reset(seed=5)
    env.step(np.ones(2, np.float32))
    state = env.episode_state()
    assert not quiet(DIAYNWrapper(PointEnv(speed=2.0), 3)).restore_episode(state)
    elsewhere = {**state, "now": {**state["now"], "generator": {"state": 0}}}
    assert not quiet(DIAYNWrapper(PointEnv(), 3)).restore_episode(elsewhere)
