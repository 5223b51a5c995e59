import math

import numpy as np
import pytest
import torch as th
from sb3_contrib.common.recurrent.type_aliases import RNNStates
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_diayn.trainer import DiscriminatorTrainer
from tests.helpers.models import (
    K,
    Recorder,
    counting,
    counting_vec,
    log_q,
    make_callback,
    make_ppo,
    recurrent,
)


class RolloutCheck(Recorder):
    """
    Before the DIAYNCallback in a list: at the end of a rollout, it looks at what PPO collected
    while the discriminator is still the one of that rollout.
    """

    def __init__(self, callback, check):
        super().__init__()
        self.callback, self.check, self.n_rollouts = callback, check, 0

    def _on_rollout_start(self) -> None:
        self.steps.clear()
        self.before = [p.clone() for p in self.callback.discriminator.parameters()]

    def _on_rollout_end(self) -> None:
        after = self.callback.discriminator.parameters()
        assert all(th.equal(a, b) for a, b in zip(self.before, after, strict=True))
        self.n_rollouts += 1
        self.check(self)

    def column(self, name: str) -> np.ndarray:
        return np.array([[info[name] for info in step["infos"]] for step in self.steps])

    def next_env_obs(self) -> np.ndarray:
        """Raw next observations; where VecNormalize hides them, count on the environment."""
        return np.array(
            [
                [info.get("terminal_env_obs", obs[:2]) for info, obs in zip(i, o, strict=True)]
                for i, o in ((step["infos"], step["new_obs"]) for step in self.steps)
            ]
        )

    def expected_rewards(self) -> np.ndarray:
        """By the present discriminator, shape (steps, envs)."""
        obs, skills = self.next_env_obs(), self.column("skill")
        values = log_q(self.callback.discriminator, obs.reshape(-1, 2), skills.flatten())
        return values.reshape(skills.shape) + math.log(K)


def learn(env, check, n_rollouts=3, **options):
    callback = make_callback(**options)
    checker = RolloutCheck(callback, check)
    model = make_ppo(env)
    model.learn(24 * n_rollouts * model.n_envs, callback=[checker, callback])
    assert checker.n_rollouts == n_rollouts
    return model, callback


@pytest.mark.slow
@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_rollout_holds_the_rewards_of_its_discriminator(n_envs):
    seen = []

    def check(recorder):
        stored = recorder.model.rollout_buffer.rewards
        np.testing.assert_allclose(stored, recorder.expected_rewards(), atol=1e-5)
        np.testing.assert_array_equal(stored, [step["rewards"] for step in recorder.steps])
        np.testing.assert_allclose(stored, recorder.column("skill_reward"), atol=1e-6)
        seen.append(recorder.callback.trainer.n_updates)

    learn(counting_vec(n_envs), check)
    n_batches = 2 * 3 * n_envs  # 2 epochs of 24 steps in batches of 8
    assert seen == [0, n_batches, 2 * n_batches]


def test_time_limits_are_bootstrapped_for_the_old_skill():
    def check(recorder):
        model, buffer = recorder.model, recorder.model.rollout_buffer
        ends = np.array([step["dones"][0] for step in recorder.steps])
        assert ends.sum() == 24 * recorder.n_rollouts // 5 - 24 * (recorder.n_rollouts - 1) // 5
        expected = recorder.expected_rewards()[:, 0]
        np.testing.assert_allclose(buffer.rewards[~ends, 0], expected[~ends], atol=1e-5)
        obs, skills = recorder.next_env_obs()[ends, 0], recorder.column("skill")[ends, 0]
        assert (obs[:, 0] == 5).all()
        np.testing.assert_array_equal(skills, obs[:, 1] % K)
        augmented = recorder.callback.skill_space.append(obs, skills)
        with th.no_grad():
            values = model.policy.predict_values(th.as_tensor(augmented)).numpy()[:, 0]
        bootstrapped = expected[ends] + model.gamma * values
        np.testing.assert_allclose(buffer.rewards[ends, 0], bootstrapped, atol=1e-5)

    learn(counting(truncate=True), check)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_the_discriminator_learns_from_terminal_observations(monkeypatch, n_envs, normalize):
    batches = []
    update = DiscriminatorTrainer.update

    def record(self, batch):
        batches.append((batch.next_obs.numpy(), batch.skills.numpy()))
        update(self, batch)

    monkeypatch.setattr(DiscriminatorTrainer, "update", record)
    env = counting_vec(n_envs)
    if normalize:
        env = VecNormalize(env, norm_reward=False, clip_obs=0.5)
    make_ppo(env, n_epochs=1, n_steps=40).learn(40 * n_envs, callback=make_callback())
    obs, skills = (np.concatenate(column) for column in zip(*batches, strict=True))
    # 8 whole episodes in each environment: steps 1 to 5 of each, and never a step 0.
    rows = sorted((*map(int, row), int(z)) for row, z in zip(obs, skills, strict=True))
    episodes = [e for index in range(n_envs) for e in range(index, index + 8)]
    expected = [(step, e, e % K) for step in range(1, 6) for e in episodes]
    assert rows == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_advantages_do_not_run_across_a_change_of_skill(normalize):
    """Skills change every 2 steps, episodes end after 6."""

    def check(recorder):
        model, buffer = recorder.model, recorder.model.rollout_buffer
        np.testing.assert_array_equal(buffer.episode_starts[:, 0], np.arange(24) % 6 == 0)
        ends = np.arange(24) % 2 == 1
        terminal = np.arange(24) % 6 == 5
        skills = recorder.column("skill")[:, 0]
        np.testing.assert_array_equal(skills, np.arange(24) // 2 % K)
        # GAE at the last step of a skill is r - V(s, z), the bootstrapped value being in r.
        advantages = buffer.rewards[:, 0] - buffer.values[:, 0]
        np.testing.assert_allclose(buffer.advantages[ends, 0], advantages[ends], atol=1e-5)
        assert not np.allclose(buffer.advantages[~ends, 0], advantages[~ends])
        paid = np.array([step["rewards"][0] for step in recorder.steps])
        plain = ~ends | terminal
        np.testing.assert_allclose(buffer.rewards[plain, 0], paid[plain], atol=1e-6)
        # ... where the skill changed: gamma * V(s', old z)
        changed = ends & ~terminal
        steps = np.arange(24)[changed]
        obs = np.stack([steps % 6 + 1, steps // 6 + 4 * (recorder.n_rollouts - 1)], axis=1)
        augmented = recorder.callback.skill_space.append(obs, skills[changed])
        with th.no_grad():
            if normalize:
                return  # the statistics have changed since, so the old values are lost
            values = model.policy.predict_values(th.as_tensor(augmented)).numpy()[:, 0]
        expected = paid[changed] + model.gamma * values
        np.testing.assert_allclose(buffer.rewards[changed, 0], expected, atol=1e-5)

    env = counting_vec(1, skill_duration=2, length=6)
    if normalize:
        env = VecNormalize(env, norm_reward=False)
    learn(env, check)


@pytest.mark.slow
def test_the_value_at_the_end_of_a_skill_with_stacked_frames():
    """The newest of two frames has the old skill; the frame before keeps its own."""

    def check(recorder):
        buffer, row = recorder.model.rollout_buffer, np.arange(23)
        ends = np.flatnonzero((row % 2 == 1) & (row % 6 != 5))  # of skills, not of episodes
        before, after = (np.split(buffer.observations[at, 0], 2, axis=1) for at in (ends, ends + 1))
        np.testing.assert_array_equal(after[0], before[1])
        last = np.hstack([before[1], after[1][:, :2], before[1][:, 2:]])
        with th.no_grad():
            values = recorder.model.policy.predict_values(th.as_tensor(last)).numpy()[:, 0]
        paid = np.array([step["rewards"][0] for step in recorder.steps])[ends]
        np.testing.assert_allclose(buffer.rewards[ends, 0], paid + 0.99 * values, atol=1e-5)

    learn(VecFrameStack(counting_vec(1, skill_duration=2, length=6), 2), check)


class MemoryCheck(Recorder):
    """
    Keeps the rollouts of a recurrent model that never changes, one environment after the other,
    and how far the batches of its updates are from what it has recorded.
    """

    NAMES = ("observations", "actions", "values", "log_probs", "rewards", "advantages")

    def __init__(self):
        super().__init__()
        self.rollouts, self.errors = [], []

    def _on_rollout_end(self) -> None:
        buffer = self.model.rollout_buffer
        self.rollouts.append({name: getattr(buffer, name).copy() for name in self.NAMES})
        for batch in buffer.get(5):
            states = batch.lstm_states
            values, log_prob = evaluate(
                self.model, batch.observations, batch.actions, batch.episode_starts, states
            )
            real = batch.mask > 0
            self.errors += (values - batch.old_values)[real].abs().tolist()
            self.errors += (log_prob - batch.old_log_prob)[real].abs().tolist()

    def rows(self, name: str, env: int) -> th.Tensor:
        return th.as_tensor(np.concatenate([rollout[name][:, env] for rollout in self.rollouts]))


def evaluate(model, obs, actions, starts, states=None):
    """Values and log-probabilities of one sequence, from an empty memory unless told otherwise."""
    empty = (th.zeros(1, 1, 8), th.zeros(1, 1, 8))
    states = RNNStates(empty, empty) if states is None else states
    with th.no_grad():
        values, log_prob, _ = model.policy.evaluate_actions(obs, actions, states, starts)
    return values.flatten(), log_prob


@pytest.mark.slow
@pytest.mark.parametrize(
    "lstm", [{}, {"enable_critic_lstm": False, "shared_lstm": True}], ids=["two LSTMs", "shared"]
)
def test_a_recurrent_policy_begins_each_skill_with_an_empty_memory(lstm):
    """
    Skills change every 2 steps, episodes end after 6, rollouts after 7: a rollout begins within a
    skill, with a skill or with an episode.
    """
    check = MemoryCheck()
    options = {"n_steps": 7, "batch_size": 5, "n_epochs": 1, "learning_rate": 0.0}
    model = recurrent(counting_vec(2, skill_duration=2, length=6), lstm, **options)
    callback = make_callback()
    model.learn(2 * 7 * 6, callback=[callback, check])
    row = th.arange(42)
    ends = np.flatnonzero((row % 2 == 1) & (row % 6 != 5))  # of skills, not of episodes
    for env in (0, 1):
        obs, actions, recorded, log_probs, rewards, advantages = (
            check.rows(name, env) for name in check.NAMES
        )
        values, log_prob = evaluate(model, obs, actions, (row % 2 == 0).float())
        th.testing.assert_close(values, recorded, rtol=0, atol=1e-4)
        th.testing.assert_close(log_prob, log_probs, rtol=0, atol=1e-4)
        kept, _ = evaluate(model, obs, actions, (row % 6 == 0).float())
        assert (kept - recorded).abs().max() > 0.1  # with the memory of the skill before
        # Where a skill ends: gamma * V(s', old z), with the memory of its two steps.
        paid = np.array([step["rewards"][env] for step in check.steps])
        for end in ends:
            last = th.cat([obs[end + 1, :2], obs[end, 2:]])
            skill = th.stack([obs[end - 1], obs[end], last])
            bootstrap = 0.99 * evaluate(model, skill, actions[:3], th.zeros(3))[0][2]
            np.testing.assert_allclose(rewards[end], paid[end] + bootstrap, atol=1e-4)
        np.testing.assert_allclose(advantages[ends], (rewards - recorded)[ends], atol=1e-4)
    assert len(check.errors) == 2 * 2 * 42 and max(check.errors) < 1e-4


@pytest.mark.slow
def test_rewards_under_vec_normalize_are_of_raw_observations():
    """Episode e, step s, whatever VecNormalize makes of them."""

    def check(recorder):
        steps = np.arange(24) + 24 * (recorder.n_rollouts - 1)
        obs = np.stack([steps % 5 + 1, steps // 5], axis=1).astype(np.float32)
        expected = log_q(recorder.callback.discriminator, obs, steps // 5 % K) + math.log(K)
        np.testing.assert_allclose(recorder.model.rollout_buffer.rewards[:, 0], expected, atol=1e-5)
        assert not np.allclose(recorder.next_env_obs()[:, 0], obs)

    env = VecNormalize(counting_vec(1), norm_reward=False, clip_obs=0.5)
    learn(env, check)


@pytest.mark.slow
@pytest.mark.parametrize("discrete", [False, True])
def test_actions_are_scaled_as_in_the_wrapper(monkeypatch, discrete):
    """The rewards that were paid come out again from what the discriminator is trained on."""
    found = []

    def record(self, batch):
        rewards = self.discriminator.reward(batch.next_obs, batch.skills, batch.actions)
        found.extend(zip(map(tuple, batch.next_obs.tolist()), rewards.tolist(), strict=True))

    monkeypatch.setattr(DiscriminatorTrainer, "update", record)  # it stands still
    recorder = Recorder()
    model = make_ppo(counting(discrete=discrete), n_epochs=1, n_steps=40)
    model.learn(40, callback=[recorder, make_callback(use_actions=True)])
    infos = [step["infos"][0] for step in recorder.steps]
    paid = [info["skill_reward"] for info in infos]
    again = [reward for _, reward in sorted(found, key=lambda pair: pair[0][::-1])]
    np.testing.assert_allclose(again, paid, atol=1e-5)  # in the order of time
    assert len(set(paid)) == 40


@pytest.mark.slow
def test_more_updates_per_pass():
    model, callback = make_ppo(counting()), make_callback(n_updates=3, batch_size=4)
    model.learn(48, callback=callback)
    # 2 rollouts, 2 epochs, 24 steps in batches of 4, 3 times as often
    assert callback.trainer.n_updates == 2 * 2 * 6 * 3


def test_a_learn_that_stops_within_a_rollout_leaves_nothing_behind():
    class Stop(BaseCallback):
        def _on_step(self) -> bool:
            return self.n_calls < 30

    model, callback = make_ppo(counting()), make_callback()
    model.learn(100, callback=[callback, Stop()])
    n_updates = callback.trainer.n_updates
    model.learn(24, callback=callback)
    assert callback.trainer.n_updates == n_updates + 6  # 24 steps, not 29
