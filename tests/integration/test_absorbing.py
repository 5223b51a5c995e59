"""
Terminal states that are absorbing: an episode of n steps is worth as much as one that stays in its
last state for ever.
"""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_diayn import DIAYNWrapper, VecDIAYNWrapper
from tests.helpers.envs import CountingEnv
from tests.helpers.models import (
    K,
    Recorder,
    counting,
    counting_vec,
    make_callback,
    make_dqn,
    make_ppo,
    make_sac,
)

GAMMA = 0.9
FACTOR = 10.0  # 1 / (1 - 0.9)


def sampled(env, make_model=make_sac, n_steps=40, **options):
    """All transitions of a replay buffer: their rewards, skill rewards and whether they ended."""
    callback = make_callback(absorbing=True, **options)
    model = make_model(env, learning_starts=10_000, gamma=GAMMA)
    model.learn(n_steps, callback=callback)
    buffer = model.replay_buffer
    rows = np.arange(buffer.size())
    np.random.seed(0)
    envs = np.random.randint(0, high=buffer.n_envs, size=len(rows))
    np.random.seed(0)
    samples = buffer._get_samples(rows)
    skills = th.as_tensor(buffer.skills[rows, envs], dtype=th.long)
    next_obs = th.as_tensor(buffer.next_observations[rows, envs])
    skill_rewards = callback.discriminator.reward(next_obs, skills).numpy()
    task_rewards = buffer.rewards[rows, envs]
    return samples, skill_rewards, task_rewards


@pytest.mark.parametrize("discrete", [False, True])
def test_a_terminal_state_pays_its_skill_reward_again_in_each_later_step(discrete):
    make_model = make_dqn if discrete else make_sac
    samples, rewards, _ = sampled(counting_vec(2, discrete=discrete), make_model)
    ends = samples.dones.numpy().flatten() == 1
    assert 0 < ends.sum() < len(ends)
    expected = np.where(ends, FACTOR * rewards, rewards)
    np.testing.assert_allclose(samples.rewards.numpy().flatten(), expected, atol=1e-5)


def test_a_time_limit_is_no_terminal_state():
    samples, rewards, _ = sampled(counting_vec(2, truncate=True))
    np.testing.assert_allclose(samples.rewards.numpy().flatten(), rewards, atol=1e-5)


def test_the_reward_of_the_task_is_not_repeated():
    options = {"task_reward_weight": 2.0, "skill_reward_weight": 0.5, "reward_scale": 0.1}
    samples, rewards, task_rewards = sampled(counting_vec(2), **options)
    ends = samples.dones.numpy().flatten() == 1
    expected = 0.1 * (0.5 * np.where(ends, FACTOR, 1.0) * rewards + 2.0 * task_rewards)
    np.testing.assert_allclose(samples.rewards.numpy().flatten(), expected, atol=1e-5)


def test_only_a_step_that_is_played_costs():
    options = {"step_cost": 0.3, "reward_scale": 0.1}
    samples, rewards, _ = sampled(counting_vec(2), **options)
    ends = samples.dones.numpy().flatten() == 1
    expected = 0.1 * (np.where(ends, FACTOR, 1.0) * rewards - 0.3)
    np.testing.assert_allclose(samples.rewards.numpy().flatten(), expected, atol=1e-5)


def test_a_closed_gate_pays_no_absorbing_state():
    """Task returns are 15; a gate of 16 stays closed."""
    options = {"task_reward_weight": 1.0, "min_task_return": 16.0}
    samples, _, task_rewards = sampled(counting_vec(1), **options)
    np.testing.assert_allclose(samples.rewards.numpy().flatten(), task_rewards, atol=1e-5)


def test_each_fold_pays_with_the_factor():
    """Cross-fitted, the same parameters pay ten times as much at the ends."""
    rewards = {}
    for absorbing in (False, True):
        callback = make_callback(absorbing=absorbing, cross_fit=True)
        model = make_sac(counting(), learning_starts=10_000, gamma=GAMMA)
        model.learn(40, callback=callback)
        samples = model.replay_buffer._get_samples(np.arange(40))
        rewards[absorbing] = samples.rewards.numpy().flatten()
    ends = samples.dones.numpy().flatten() == 1
    expected = np.where(ends, FACTOR * rewards[False], rewards[False])
    np.testing.assert_allclose(rewards[True], expected, atol=1e-5)


class StayEnv(CountingEnv):
    """The chain without an end: it stays in its last state, until a time limit far away."""

    def step(self, action):
        obs, _, _, _, info = super().step(action)
        return np.minimum(obs, [self.length, np.inf]), 0.0, False, self.steps == 600, info


def with_vec_wrapper(env: gym.Env) -> VecDIAYNWrapper:
    return VecDIAYNWrapper(DummyVecEnv([lambda: env]), K, skill="cycle")


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap",
    [
        lambda env: DIAYNWrapper(env, K, skill="cycle"),
        with_vec_wrapper,
    ],
    ids=["DIAYNWrapper", "VecDIAYNWrapper"],
)
def test_on_policy_an_end_is_worth_as_much_as_staying(wrap):
    """The return of the first step of a chain of five, against the chain that does not end."""
    returns = {}
    for name, env in (("ends", CountingEnv()), ("stays", StayEnv())):
        callback = make_callback(absorbing=True)
        n_steps = 300
        model = make_ppo(
            wrap(env), n_steps=n_steps, batch_size=n_steps, gamma=GAMMA, gae_lambda=1.0
        )
        model.learn(n_steps, callback=callback)
        returns[name] = model.rollout_buffer.returns[0, 0]
    assert returns["ends"] == pytest.approx(returns["stays"], abs=1e-4)


class Paid(Recorder):
    """The rewards of the rollout buffer, as the advantages read them."""

    def _on_rollout_end(self) -> None:
        self.paid = self.model.rollout_buffer.rewards.copy()


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("truncate", [False, True])
def test_on_policy_only_terminal_states_are_absorbing(truncate, normalize):
    paid, options = {}, {"task_reward_weight": 1.0, "reward_scale": 0.5, "step_cost": 0.3}
    for absorbing in (False, True):
        env = counting_vec(2, truncate=truncate)
        if normalize:
            env = VecNormalize(env, norm_reward=False)
        recorder, callback = Paid(), make_callback(absorbing=absorbing, **options)
        model = make_ppo(env, gamma=GAMMA)
        model.learn(48, callback=[recorder, callback])
        paid[absorbing] = recorder.paid
        skill_rewards = np.array(
            [[info["skill_reward"] for info in step["infos"]] for step in recorder.steps]
        )
        ends = np.array([step["dones"] for step in recorder.steps])
    assert ends.sum() == 8
    extra = paid[True] - paid[False]
    expected = np.where(ends & (not truncate), 0.5 * (FACTOR - 1) * skill_rewards, 0.0)
    np.testing.assert_allclose(extra, expected, atol=1e-4)


def test_it_is_saved_with_the_model(tmp_path):
    model = make_sac(counting())
    model.learn(5, callback=make_callback(absorbing=True))
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", env=counting())
    callback = make_callback()
    loaded.learn(5, callback=callback)
    assert callback.options["absorbing"] and callback.skill_reward.absorbing


def test_a_discount_of_1_is_refused_where_the_zip_brings_the_option(tmp_path):
    model = make_ppo(counting(), gamma=GAMMA)
    model.learn(24, callback=make_callback(absorbing=True))
    model.save(tmp_path / "model")
    model = PPO.load(tmp_path / "model", counting(), custom_objects={"gamma": 1.0})
    with pytest.raises(ValueError, match=r"absorbing=True .*gamma=1; expected gamma below 1"):
        model.learn(24, callback=make_callback())
