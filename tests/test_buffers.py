import math
import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_diayn import SkillReplayBuffer, SkillReward
from sb3_diayn.skills import SkillSpace
from tests.helpers.models import (
    K,
    Recorder,
    constant_discriminator,
    counting,
    counting_vec,
    log_q,
    make_callback,
    make_dqn,
    make_sac,
)

HOPPER = SkillSpace(spaces.Box(-np.inf, np.inf, (11,)), 50).observation_space


def recorded(env, n_steps: int = 60, **options):
    """A model and its callback after some steps of which none trained anything."""
    callback = make_callback(**options)
    model = make_sac(env, learning_starts=10_000)
    model.learn(n_steps, callback=callback)
    return model, callback


def seeded_sample(model, n: int = 200, env=None) -> ReplayBufferSamples:
    np.random.seed(0)
    return model.replay_buffer.sample(n, env=env)


def columns(obs: th.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps, episodes and skills of a batch of a ``CountingEnv``."""
    array = obs.numpy()
    assert array.shape[1] == 2 + K and (array[:, 2:].sum(axis=1) == 1).all()
    return array[:, 0], array[:, 1], array[:, 2:].argmax(axis=1)


def check_counting(samples: ReplayBufferSamples, truncate: bool = False, length: int = 5) -> None:
    """Every transition of a ``CountingEnv`` with the rule ``cycle`` tells what it has to be."""
    steps, episodes, skills = columns(samples.observations)
    next_steps, next_episodes, next_skills = columns(samples.next_observations)
    np.testing.assert_array_equal(next_steps, steps + 1)
    np.testing.assert_array_equal(next_episodes, episodes)
    np.testing.assert_array_equal(skills, episodes % K)
    np.testing.assert_array_equal(next_skills, skills)
    done = (next_steps == length) & (not truncate)
    np.testing.assert_array_equal(samples.dones.numpy().flatten(), done)
    assert (next_steps == length).any()


def check_rewards(samples: ReplayBufferSamples, discriminator, actions=None) -> None:
    _, _, skills = columns(samples.observations)
    expected = log_q(discriminator, samples.next_observations[:, :2], skills, actions)
    rewards = samples.rewards.numpy()
    assert rewards.shape == (len(skills), 1)
    np.testing.assert_allclose(rewards[:, 0], expected + math.log(K), atol=1e-6)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("truncate", [False, True])
def test_the_last_transition_has_the_terminal_observation_and_the_old_skill(n_envs, truncate):
    model, _ = recorded(counting_vec(n_envs, truncate=truncate))
    assert model.replay_buffer.size() == 60 // n_envs
    check_counting(seeded_sample(model), truncate)


def test_when_a_skill_is_redrawn_the_next_observation_keeps_the_old_one():
    model, _ = recorded(counting(skill_duration=2))
    samples = seeded_sample(model)
    steps, _, skills = columns(samples.observations)
    # Steps 0 and 1 are skill 0, steps 2 and 3 skill 1, step 4 skill 2.
    np.testing.assert_array_equal(skills, steps // 2)
    np.testing.assert_array_equal(columns(samples.next_observations)[2], skills)
    np.testing.assert_array_equal(columns(samples.next_observations)[0], steps + 1)


@pytest.mark.parametrize("n_envs", [1, 3])
def test_rewards_are_those_of_the_present_discriminator(n_envs):
    model, callback = recorded(counting_vec(n_envs))
    before = seeded_sample(model)
    check_rewards(before, callback.discriminator)
    for parameter in callback.discriminator.parameters():
        parameter.data.add_(0.1 * th.randn_like(parameter))
    after = seeded_sample(model)
    th.testing.assert_close(after.observations, before.observations)
    assert not th.allclose(after.rewards, before.rewards)
    check_rewards(after, callback.discriminator)


@pytest.mark.slow
def test_rewards_are_fresh_after_training():
    callback = make_callback()
    model = make_sac(counting(), learning_starts=10)
    model.learn(40, callback=callback)
    assert callback.trainer.n_updates == 30
    check_rewards(seeded_sample(model), callback.discriminator)
    check_counting(seeded_sample(model))


@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_discriminator_reads_raw_observations_under_vec_normalize(n_envs):
    # Clipping at 0.5 would spoil an observation that passed through the normaliser.
    env = VecNormalize(counting_vec(n_envs), norm_reward=False, clip_obs=0.5)
    model, callback = recorded(env)
    raw, normalized = seeded_sample(model), seeded_sample(model, env=env)
    check_counting(raw)
    check_rewards(raw, callback.discriminator)
    th.testing.assert_close(normalized.rewards, raw.rewards, rtol=0, atol=0)
    for name in ("observations", "next_observations"):
        expected = env.normalize_obs(getattr(raw, name).numpy())
        np.testing.assert_allclose(getattr(normalized, name), expected, atol=1e-6)
        assert np.abs(expected).max() <= 0.5


@pytest.mark.parametrize("discrete", [False, True])
def test_wrapper_and_buffer_agree_on_actions(discrete):
    """The action space is [-2, 2]; a buffer holds actions scaled to [-1, 1]."""
    callback, recorder = make_callback(use_actions=True), Recorder()
    make = make_dqn if discrete else make_sac
    model = make(counting(discrete=discrete), learning_starts=10_000)
    model.learn(60, callback=[callback, recorder])
    buffer = model.replay_buffer
    obs, actions = buffer.next_observations[:60, 0], th.as_tensor(buffer.actions[:60, 0])
    paid = log_q(callback.discriminator, obs, buffer.skills[:60, 0], actions) + math.log(K)
    infos = [step["infos"][0] for step in recorder.steps]
    np.testing.assert_allclose([info["skill_reward"] for info in infos], paid, atol=1e-6)
    check_rewards(samples := seeded_sample(model), callback.discriminator, samples.actions)
    assert len(np.unique(samples.actions)) > 2


def test_weights_and_scale_are_in_the_sampled_rewards():
    options = {"reward_scale": 10.0, "skill_reward_weight": 2.0, "task_reward_weight": 0.5}
    model, callback = recorded(counting(), **options)
    samples = seeded_sample(model)
    steps, _, skills = columns(samples.next_observations)
    skill_reward = log_q(callback.discriminator, samples.next_observations[:, :2], skills)
    # The task reward of a CountingEnv is the step.
    expected = 10 * (2 * (skill_reward + math.log(K)) + 0.5 * steps)
    np.testing.assert_allclose(samples.rewards[:, 0], expected, rtol=1e-5)


def test_bytes_per_transition():
    arguments = (100, HOPPER, spaces.Box(-1.0, 1.0, (3,)), "cpu")

    def n_bytes(buffer):
        return sum(a.nbytes for a in vars(buffer).values() if isinstance(a, np.ndarray)) / 100

    # 2 * 61 numbers of observation, 3 of action, reward, done, timeout: 128 of 4 bytes
    assert n_bytes(ReplayBuffer(*arguments)) == 512
    # 2 * 11 numbers of observation, and the skill next to the other six: 29 of 4 bytes
    assert n_bytes(SkillReplayBuffer(*arguments, n_skills=50)) == 116


def test_pickling_drops_the_discriminator():
    model, callback = recorded(counting())
    copy = pickle.loads(pickle.dumps(model.replay_buffer))
    assert copy.skill_reward is None
    assert model.replay_buffer.skill_reward is callback.skill_reward
    with pytest.raises(RuntimeError, match=r"no discriminator.*callback=DIAYNCallback\(\)"):
        copy.sample(4)
    for name in ("observations", "next_observations", "skills", "actions", "rewards", "dones"):
        np.testing.assert_array_equal(getattr(copy, name), getattr(model.replay_buffer, name))


def test_a_saved_buffer_is_bound_again(tmp_path):
    model, _ = recorded(counting())
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = make_sac(counting(), learning_starts=10_000)
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    callback = make_callback()
    other.learn(15, callback=callback)
    assert other.replay_buffer.size() == 75
    check_counting(seeded_sample(other))
    check_rewards(seeded_sample(other), callback.discriminator)


@pytest.mark.parametrize("buffer_size", [1000, 40])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_what_a_stock_buffer_recorded_is_kept(n_envs, buffer_size):
    model = make_sac(counting_vec(n_envs), learning_starts=10_000, buffer_size=buffer_size)
    with pytest.warns(UserWarning, match="no discriminator is attached"):
        model.learn(60)
    stock = model.replay_buffer
    assert type(stock) is ReplayBuffer
    callback = make_callback()
    model.learn(20, callback=callback, reset_num_timesteps=False)
    assert model.replay_buffer.size() == min(80, buffer_size) // n_envs
    samples = seeded_sample(model, 500)
    check_counting(samples)
    check_rewards(samples, callback.discriminator)
    n_kept = len({tuple(obs) for obs in samples.next_observations[:, :2].tolist()})
    assert n_kept == min(80, buffer_size) // n_envs + 5 * (n_envs - 1)  # one more episode each


@pytest.mark.parametrize("loaded_size", [30, 100])
def test_a_loaded_stock_buffer_may_have_another_size(tmp_path, loaded_size):
    """Full at 30 of 30, it must not pass for full at 50 of 50."""
    model = make_sac(counting(), learning_starts=10_000, buffer_size=loaded_size)
    with pytest.warns(UserWarning, match="no discriminator is attached"):
        model.learn(60)
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = make_sac(counting(), learning_starts=10_000, buffer_size=50)
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    other.learn(5, callback=make_callback())
    check_counting(seeded_sample(other))


def test_task_rewards_are_stored():
    model, _ = recorded(counting())
    # 1, 2, 3, 4, 5, 1, 2, ... whatever the discriminator says
    stored = model.replay_buffer.rewards[:60, 0]
    np.testing.assert_array_equal(stored, np.tile([1, 2, 3, 4, 5], 12))


def test_transitions_for_the_discriminator():
    model, _ = recorded(counting_vec(2))
    transitions = model.replay_buffer.sample_transitions(300, np.random.default_rng(0))
    obs, skills, actions, folds, before = transitions
    assert folds is None and before is None
    assert obs.shape == (300, 2) and skills.shape == (300,) and actions.shape == (300, 1)
    np.testing.assert_array_equal(skills, obs[:, 1].long() % K)
    assert set(obs[:, 0].tolist()) == {1, 2, 3, 4, 5}


def test_a_buffer_without_discriminator_says_so():
    space = SkillSpace(spaces.Box(-1.0, 1.0, (2,)), 3)
    buffer = SkillReplayBuffer(10, space.observation_space, spaces.Discrete(2), "cpu", n_skills=3)
    obs = space.append(np.zeros((1, 2)), [1])
    infos = [{"skill": 1, "task_reward": 7.0}]
    buffer.add(obs, obs, np.array([[1]]), np.array([99.0]), np.array([False]), infos)
    with pytest.raises(RuntimeError, match=r"no discriminator.*Pass callback=DIAYNCallback\(\)"):
        buffer.sample(1)
    buffer.skill_reward = SkillReward(constant_discriminator([0.5, 0.25, 0.25]))
    assert buffer.sample(1).rewards.item() == pytest.approx(math.log(0.75), abs=1e-6)


def test_what_a_diverged_discriminator_says_counts_as_nothing():
    model, _ = recorded(counting(), 4)
    log_q = th.tensor([math.nan, math.inf, -math.inf, math.log(0.5)])
    model.replay_buffer.learn = lambda batch: log_q
    rewards = model.replay_buffer._get_samples(np.arange(4)).rewards
    np.testing.assert_allclose(rewards[:, 0], [0, 0, 0, math.log(0.5 * K)], atol=1e-6)


def test_a_closed_gate_counts_while_the_discriminator_learns():
    """The first of two episodes has ended, with a task return of 15."""
    model, _ = recorded(counting(), 8, task_reward_weight=1.0, min_task_return=15.0)
    model.replay_buffer.learn = lambda batch: th.zeros(8)  # log q, so that log K is paid
    rewards = model.replay_buffer._get_samples(np.arange(8)).rewards
    expected = np.array([1, 2, 3, 4, 5, 1, 2, 3]) + math.log(K) * np.array([1] * 5 + [0] * 3)
    np.testing.assert_allclose(rewards[:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("handled", [False, True])
def test_time_limits_are_handled_as_the_model_was_told(handled):
    callback = make_callback()
    options = {"handle_timeout_termination": handled}
    model = make_sac(counting(truncate=True), replay_buffer_kwargs=options, learning_starts=10_000)
    model.learn(5, callback=callback)
    dones = model.replay_buffer._get_samples(np.arange(5)).dones
    assert dones[:, 0].tolist() == [0, 0, 0, 0, 0 if handled else 1]
