import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_diayn import DIAYNWrapper, VecDIAYNWrapper
from sb3_diayn.evaluation.trajectories import as_vec_env, play_skills, preserve_state
from tests.helpers.envs import CountingEnv, PointEnv
from tests.helpers.models import counting, counting_vec, make_dqn, make_ppo, make_sac
from tests.helpers.scripted import DIRECTIONS, point_env, point_vec, walker


def play(model, env, skills, **kwargs):
    return list(play_skills(model, env, skills, **kwargs))


def test_a_trajectory_holds_the_steps_of_one_episode():
    """CountingEnv: states 1..5 of its first column, task reward the step, the last one included."""
    env = counting_vec(n_envs=1)
    (trajectory,) = play(make_ppo(env), env, [2], seed=0)
    assert (trajectory.skill, len(trajectory)) == (2, 5)
    assert trajectory.states[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert trajectory.states.dtype == np.float32
    assert trajectory.task_rewards.tolist() == [1, 2, 3, 4, 5]
    assert trajectory.actions.shape == (5, 1)
    assert trajectory.positions == {}


@pytest.mark.parametrize("n_envs", [1, 2, 3, 7])
def test_every_entry_is_played_once(n_envs):
    env = point_vec(n_envs, length=4)
    skills = [3, 0, 0, 1, 2]
    trajectories = play(walker(), env, skills, seed=0)
    assert sorted(t.skill for t in trajectories) == sorted(skills)
    for t in trajectories:
        steps = np.diff(t.states, axis=0)
        assert steps == pytest.approx(np.tile(DIRECTIONS[t.skill], (3, 1)), abs=1e-5)
        assert t.positions["x_position"] == pytest.approx(t.states[:, 0], abs=1e-6)


def test_environments_without_an_episode_left_are_not_stepped():
    env = point_vec(3, length=20)
    env.envs[0].unwrapped.length = env.envs[1].unwrapped.length = 3
    play(walker(), env, [0, 1, 2], seed=0)
    assert [e.unwrapped.steps for e in env.envs] == [0, 0, 0]  # reset, never stepped again
    assert all(isinstance(e, DIAYNWrapper) for e in env.envs)


def test_actions_are_those_the_environment_took():
    env = counting_vec()
    for model in (make_sac(env), make_ppo(env)):
        actions = np.concatenate([t.actions for t in play(model, env, [0, 1], deterministic=False)])
        assert (np.abs(actions) <= 2).all()
    env = counting_vec(discrete=True)
    assert play(make_dqn(env), env, [1])[0].actions.shape == (5,)


def test_states_under_vec_normalize_are_raw():
    env = VecNormalize(counting_vec(n_envs=1), clip_obs=0.5)
    (trajectory,) = play(make_ppo(env), env, [1], seed=0)
    assert trajectory.states[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert trajectory.task_rewards.tolist() == [1, 2, 3, 4, 5]


def test_a_single_environment_is_played():
    model = walker()
    (alone,) = play_skills(model, point_env(), [1], seed=3)
    (vectorised,) = play_skills(model, point_vec(1), [1], seed=3)
    assert np.array_equal(alone.states, vectorised.states)
    with pytest.raises(
        ValueError, match=r"env='Pendulum-v1' is not an environment; expected DIAYN"
    ):
        list(play_skills(model, "Pendulum-v1", [1]))


@pytest.mark.slow
def test_other_processes_play_the_same():
    model = walker()
    env = SubprocVecEnv([point_env] * 2)
    try:
        there = play(model, env, [0, 1, 2], seed=3)
    finally:
        env.close()
    here = play(model, point_vec(2), [0, 1, 2], seed=3)
    for first, second in zip(there, here, strict=True):
        assert first.skill == second.skill
        assert np.array_equal(first.states, second.states)


def test_a_seed_repeats_sampled_actions():
    env = point_vec(2, length=4)
    model = make_ppo(env)
    first, second = (play(model, env, [0, 1], deterministic=False, seed=5) for _ in range(2))
    assert all(np.array_equal(a.actions, b.actions) for a, b in zip(first, second, strict=True))
    (third,) = play(model, env, [0], deterministic=False, seed=6)
    assert not np.array_equal(first[0].actions, third.actions)


def test_rules_and_random_states_are_as_found_even_if_it_is_abandoned():
    env = DummyVecEnv([lambda: counting("balanced"), lambda: counting(1)])
    model = make_ppo(env)
    model.policy.set_training_mode(True)
    np.random.seed(3), th.manual_seed(3)
    expected = np.random.rand(), th.rand(1)
    np.random.seed(3), th.manual_seed(3)
    episodes = play_skills(model, env, [0, 1, 2, 0], seed=0, deterministic=False)
    next(episodes)
    episodes.close()
    assert env.get_attr("skill_rule") == ["balanced", 1]
    assert model.policy.training
    assert (np.random.rand(), th.rand(1)) == expected


class StartEnv(PointEnv):
    """The first observation is drawn, as in most environments."""

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed, options=options)
        self.position = self.np_random.normal(size=2)
        return self.position.copy(), info


def skills_env():
    return DIAYNWrapper(StartEnv(length=4), 20)


PLAYED_IN = {
    "one process": lambda: DummyVecEnv([skills_env, skills_env]),
    "other processes": lambda: SubprocVecEnv([skills_env, skills_env]),
    "vectorised": lambda: VecDIAYNWrapper(DummyVecEnv([lambda: StartEnv(length=4)] * 2), 20),
}


@pytest.mark.slow
@pytest.mark.parametrize("make", PLAYED_IN.values(), ids=list(PLAYED_IN))
def test_episodes_in_between_do_not_repeat_the_skills_of_a_training(make):
    """An evaluation seeds the environments. The training goes on where it was."""
    env = make()
    env.seed(0)
    model = make_ppo(env)
    starts = []
    for _ in range(4):
        starts.append(env.reset())
        play(model, env, [0, 1], seed=7)
    env.close()
    assert len(np.unique(np.concatenate(starts)[:, :2], axis=0)) == 8
    assert len({tuple(obs[:, 2:].argmax(axis=1)) for obs in starts}) > 1


@pytest.mark.parametrize("seed", [-1, 1.5, "a", 2**32, True])
def test_a_seed_that_is_none_is_refused(seed):
    env = point_vec(1, length=3)
    with pytest.raises(ValueError, match=r"seed=.* is not a seed; expected an integer from 0"):
        play(walker(), env, [0], seed=seed)


def test_a_seed_may_be_a_number_of_numpy():
    env = DummyVecEnv([skills_env])
    model = make_ppo(env)
    first, second = (play(model, env, [0], deterministic=False, seed=s) for s in (3, np.int64(3)))
    assert first[0].actions.tolist() == second[0].actions.tolist()


def test_preserve_state_restores_vec_normalize():
    env = VecNormalize(counting_vec())
    with preserve_state(make_ppo(env), env):
        assert not env.training
    assert env.training


def test_an_environment_without_skills_is_refused():
    with pytest.raises(ValueError, match=r"has no DIAYNWrapper.*n_skills=K"):
        as_vec_env(PointEnv())


def test_a_model_of_another_space_is_refused():
    with pytest.raises(ValueError, match="the model was trained on"):
        play(walker(), DummyVecEnv([lambda: DIAYNWrapper(PointEnv(), 5)]), [0])
    with pytest.raises(ValueError, match="the model was trained on"):
        play(walker(), DummyVecEnv([lambda: DIAYNWrapper(CountingEnv(), 4)]), [0])


def test_a_skill_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"skill=4 .* from 0 to 3"):
        play(walker(), point_vec(), [0, 4])
