"""n-step returns of present rewards, against a slow reference and against SB3's own buffer."""

import warnings

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import NStepReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from sb3_diayn import DIAYNWrapper, SkillReplayBuffer, SkillReward
from sb3_diayn.skills import SkillSpace
from tests.helpers.envs import StepEnv
from tests.helpers.models import (
    K,
    constant_discriminator,
    counting,
    counting_vec,
    log_q,
    make_callback,
    make_dqn,
    make_sac,
)

N, GAMMA = 3, 0.9


def recorded(env, n_steps=60, learns=1, callback=None, **kwargs):
    """A model whose buffer has been filled and whose discriminator has not learned."""
    callback = make_callback(**(callback or {}))
    model = make_sac(env, learning_starts=10_000, n_steps=N, gamma=GAMMA, **kwargs)
    for _ in range(learns):
        model.learn(n_steps, callback=callback)
    assert isinstance(model.replay_buffer_kwargs, dict)
    return model, callback


def every_row(model, env=None):
    """All transitions of a random environment each, and the environments."""
    buffer = model.replay_buffer
    rows = np.arange(buffer.size())
    np.random.seed(0)
    envs = np.random.randint(0, high=buffer.n_envs, size=len(rows))
    np.random.seed(0)
    return rows, envs, buffer._get_samples(rows, env)


def reference(model, callback, row, env):
    """Step by step: the return, the last row, its end, the discount."""
    buffer, total = model.replay_buffer, 0.0
    for k in range(N):
        obs, skill = buffer.next_observations[row, env], buffer.skills[row, env]
        action = th.as_tensor(buffer.actions[row, env][None])
        reward = log_q(callback.discriminator, obs[None], [skill], action)[0] + np.log(K)
        weight = callback.options["task_reward_weight"]
        is_terminal = buffer.dones[row, env] and not buffer.timeouts[row, env]
        if callback.options["absorbing"] and is_terminal:
            reward /= 1 - GAMMA
        total += GAMMA**k * (reward + weight * buffer.rewards[row, env])
        following = (row + 1) % buffer.buffer_size
        same_skill = buffer.skills[following, env] == skill
        same_episode = buffer.observations[following, env][1] == obs[1]
        next_step = buffer.observations[following, env][0] == obs[0]
        is_written = buffer.full or following < buffer.pos
        is_last = following == buffer.pos or not is_written
        ends = buffer.dones[row, env] or is_last
        if k == N - 1 or ends or not (same_skill and same_episode and next_step):
            break
        row = following
    done = buffer.dones[row, env] and not buffer.timeouts[row, env]
    return total, row, done, GAMMA ** (k + 1)


CASES = {
    "one env": (lambda: counting_vec(1), {}),
    "several envs": (lambda: counting_vec(3), {}),
    "time limits": (lambda: counting_vec(2, truncate=True), {}),
    "redrawn skills": (lambda: counting_vec(2, skill_duration=2), {}),
    "redrawn skills, some the same": (
        lambda: counting_vec(2, skill="uniform", skill_duration=1),
        {},
    ),
    "a full buffer": (lambda: counting_vec(2), {"buffer_size": 34}),
    "interrupted episodes": (lambda: counting_vec(1, skill="uniform"), {"learns": 4, "n_steps": 8}),
    "actions": (lambda: counting_vec(2), {"callback": {"use_actions": True}}),
    "absorbing": (
        lambda: counting_vec(2),
        {"callback": {"absorbing": True, "task_reward_weight": 0.5}},
    ),
    "task rewards": (lambda: counting_vec(2), {"callback": {"task_reward_weight": 0.5}}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_returns_are_those_of_a_slow_reference(case):
    make_env, options = CASES[case]
    model, callback = recorded(make_env(), **options)
    rows, envs, samples = every_row(model)
    expected = [reference(model, callback, *where) for where in zip(rows, envs, strict=True)]
    returns, last, dones, discounts = (np.array(column) for column in zip(*expected, strict=True))
    buffer = model.replay_buffer
    np.testing.assert_allclose(samples.rewards[:, 0], returns, atol=1e-5)
    np.testing.assert_array_equal(samples.dones[:, 0], dones)
    np.testing.assert_allclose(samples.discounts[:, 0], discounts, rtol=1e-6)
    np.testing.assert_array_equal(
        samples.next_observations[:, :2], buffer.next_observations[last, envs]
    )
    for obs in (samples.observations, samples.next_observations):
        np.testing.assert_array_equal(obs[:, 2:].argmax(dim=1), buffer.skills[rows, envs])
    assert set(np.round(discounts, 6)) <= {0.9, 0.81, 0.729} and len(set(discounts)) > 1


def test_the_newest_transition_is_not_followed_by_the_oldest():
    """Nothing but the place in the buffer distinguishes steps whose observations repeat."""
    space = SkillSpace(spaces.Box(-1.0, 1.0, (2,)), K)
    buffer = SkillReplayBuffer(
        4, space.observation_space, spaces.Discrete(2), "cpu", n_skills=space.n_skills
    )
    buffer.n_steps, buffer.gamma = 3, 0.5
    discriminator = constant_discriminator([1 / K] * K)
    buffer.skill_reward = SkillReward(discriminator, skill_weight=0.0, task_weight=1.0)
    obs, not_done = space.append(np.zeros((1, 2)), [1]), np.array([False])
    for reward in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0):  # 5 and 6 take the places of 1 and 2
        infos = [{"skill": 1, "task_reward": reward}]
        buffer.add(obs, obs, np.array([[0]]), np.array([reward]), not_done, infos)
    samples = buffer._get_samples(np.array([2, 3, 0, 1]))
    returns = [3 + 4 / 2 + 5 / 4, 4 + 5 / 2 + 6 / 4, 5 + 6 / 2, 6]
    np.testing.assert_allclose(samples.rewards[:, 0], returns)
    np.testing.assert_allclose(samples.discounts[:, 0], [1 / 8, 1 / 8, 1 / 4, 1 / 2])


@pytest.mark.parametrize("buffer_size", [200, 34])
@pytest.mark.parametrize("normalize", [False, True])
def test_task_rewards_alone_give_what_sb3_gives(normalize, buffer_size):
    """Without a skill reward and without redraws, nothing but SB3's own n-step returns is left."""
    env = counting_vec(2)
    if normalize:
        env = VecNormalize(env, norm_reward=False)
    only_task = {"skill_reward_weight": 0.0, "task_reward_weight": 1.0}
    model, _ = recorded(env, callback=only_task, buffer_size=buffer_size)
    ours = model.replay_buffer
    theirs = NStepReplayBuffer(
        buffer_size, ours.observation_space, ours.action_space, "cpu", 2, n_steps=N, gamma=GAMMA
    )
    theirs.observations[:] = ours.skill_space.append(ours.observations, ours.skills)
    theirs.next_observations[:] = ours.skill_space.append(ours.next_observations, ours.skills)
    for name in ("actions", "rewards", "dones", "timeouts", "pos", "full"):
        setattr(theirs, name, getattr(ours, name))
    normalizer = env if normalize else None
    rows, _, samples = every_row(model, normalizer)
    np.random.seed(0)
    for mine, other in zip(samples, theirs._get_samples(rows, normalizer), strict=True):
        th.testing.assert_close(mine, other)


def test_the_discriminator_learns_from_the_first_transitions():
    seen = []
    model, _ = recorded(counting())
    buffer = model.replay_buffer

    def learn(batch):
        seen.append([part.numpy() for part in (batch.next_obs, batch.skills, batch.actions)])
        return th.zeros(len(batch.skills))

    buffer.learn = learn
    rows, envs, _ = every_row(model)
    assert len(seen) == 1
    for mine, stored in zip(
        seen[0], (buffer.next_observations, buffer.skills, buffer.actions), strict=True
    ):
        np.testing.assert_array_equal(mine, stored[rows, envs])


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_sac, make_dqn])
def test_a_loaded_model_goes_on_with_its_n_steps(make, tmp_path):
    env = counting(discrete=make is make_dqn)
    model = make(env, n_steps=N, gamma=GAMMA)
    model.learn(60, callback=make_callback())
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SB3: n_steps is ignored. It is not.
        loaded = type(model).load(tmp_path / "model", env=env, device="cpu")
    loaded.load_replay_buffer(tmp_path / "buffer")
    loaded.learn(30, callback=make_callback())
    assert loaded.replay_buffer.n_steps == N and loaded.replay_buffer.gamma == GAMMA
    discounts = loaded.replay_buffer.sample(200).discounts.unique()
    th.testing.assert_close(discounts, th.tensor([GAMMA**3, GAMMA**2, GAMMA]))


def test_one_step_gives_no_discounts():
    model = make_sac(counting(), learning_starts=10_000)
    model.learn(20, callback=make_callback())
    assert model.replay_buffer.sample(5).discounts is None


def test_a_batch_of_which_nothing_goes_on():
    """Episodes of one step: no transition has a second one."""
    env = DIAYNWrapper(StepEnv(length=1), n_skills=K)
    model = make_sac(env, n_steps=3, learning_starts=0)
    model.learn(10, callback=make_callback())
    assert model.num_timesteps == 10
