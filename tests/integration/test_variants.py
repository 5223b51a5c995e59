"""The published variants, each with the effect that it is known for."""

import copy
import pickle

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_diayn import DIAYNWrapper, Discriminator, SkillReward, load_discriminator
from sb3_diayn.buffers import EpisodeGate
from sb3_diayn.discriminator import Batch
from sb3_diayn.reward_sync import attach_wrappers
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.helpers.envs import StepEnv
from tests.helpers.models import K, counting, counting_vec, make_callback, make_sac

SPACE = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def separable_batch(n: int = 64) -> tuple[th.Tensor, th.Tensor]:
    """Two skills, at +1 and -1 of both coordinates."""
    skills = th.arange(n) % 2
    return (1 - 2 * skills.float()).unsqueeze(1).repeat(1, 2), skills


def train(discriminator: Discriminator, n_updates: int = 300, **kwargs) -> Discriminator:
    trainer = DiscriminatorTrainer(discriminator, 1e-2, 0, **kwargs)
    for _ in range(n_updates):
        trainer.update(Batch(*separable_batch()))
    return discriminator


# -- spectral norm ---------------------------------------------------------------------------


def slopes(discriminator: Discriminator) -> th.Tensor:
    """How fast log q changes between 2,000 random pairs of states."""
    generator = th.Generator().manual_seed(0)
    a, b = th.randn(2, 2000, 2, generator=generator) * 2
    with th.no_grad():
        change = (discriminator(a).log_softmax(1) - discriminator(b).log_softmax(1)).abs()
    return change.max(dim=1).values / (a - b).norm(dim=1)


@pytest.mark.slow
def test_spectral_norm_bounds_how_fast_the_answer_changes():
    th.manual_seed(0)
    free = train(Discriminator(SPACE, 2, net_arch=[32, 32]))
    bounded = train(Discriminator(SPACE, 2, net_arch=[32, 32], spectral_norm=True))
    # Each layer stretches by at most 1, and log q by at most sqrt(2) times the logits.
    assert slopes(bounded).max() <= 2**0.5 + 1e-3
    assert slopes(free).max() > 5
    # (1, 1) and (-1, -1) are sqrt(8) apart: logits +-sqrt(2) at best, so log q is
    # -log(1 + exp(-2 sqrt(2))) = -0.0574 at best; without the bound it goes to 0.
    obs, skills = separable_batch()
    assert bounded.log_prob(obs, skills).max() <= -0.0574 + 1e-3
    assert bounded.log_prob(obs, skills).min() > -0.2
    assert free.log_prob(obs, skills).min() > -0.01


def test_a_reward_leaves_the_estimates_of_singular_values_alone():
    discriminator = Discriminator(SPACE, 2, net_arch=[8], spectral_norm=True)
    before = copy.deepcopy(discriminator.state_dict())
    obs, skills = separable_batch()
    first, second = (discriminator.reward(obs, skills) for _ in range(2))
    assert th.equal(first, second)
    assert all(th.equal(before[name], value) for name, value in discriminator.state_dict().items())
    assert "net.0.parametrizations.weight.0._u" in before


@pytest.mark.slow
def test_spectral_norm_survives_the_zip_bit_for_bit(tmp_path):
    model, callback = make_sac(counting()), make_callback(spectral_norm=True)
    model.learn(40, callback=callback)
    model.save(tmp_path / "model")
    obs, skills = th.randn(20, 2), th.arange(20) % K
    expected = callback.discriminator.reward(obs, skills)
    assert th.equal(load_discriminator(tmp_path / "model").reward(obs, skills), expected)


@pytest.fixture(scope="module", params=[DummyVecEnv, SubprocVecEnv])
def vec_env(request):
    env = request.param([counting])
    env.seed(0)
    yield env
    env.close()


@pytest.mark.slow
@pytest.mark.parametrize("cross_fit", [False, True])
@pytest.mark.parametrize("spectral_norm", [False, True])
def test_the_discriminator_travels_to_other_processes(vec_env, spectral_norm, cross_fit):
    discriminator = Discriminator(
        SPACE, K, net_arch=[8], spectral_norm=spectral_norm, cross_fit=cross_fit
    )
    attach_wrappers(vec_env, SkillReward(discriminator))
    vec_env.reset()
    obs, rewards, _, _ = vec_env.step(np.zeros((1, 1), np.float32))
    expected = discriminator.reward(th.as_tensor(obs[:, :2]), th.as_tensor(obs[:, 2:].argmax(1)))
    assert rewards == pytest.approx(expected.numpy(), abs=1e-6)


# -- weight decay and the gradient's bound ---------------------------------------------------


def weights(discriminator: Discriminator) -> float:
    return sum(float(p.detach().square().sum()) for p in discriminator.net.parameters()) ** 0.5


@pytest.mark.slow
def test_weight_decay_keeps_weights_small():
    norms = []
    for weight_decay in (0.0, 1.0):
        th.manual_seed(0)
        discriminator = Discriminator(SPACE, 2, net_arch=[16])
        norms.append(weights(train(discriminator, weight_decay=weight_decay)))
    assert norms[1] < 0.7 * norms[0]


@pytest.mark.parametrize(("bound", "expected"), [(0.01, 0.01), (1e6, None), (None, None)])
def test_the_bound_of_the_gradient(monkeypatch, bound, expected):
    th.manual_seed(0)
    trainer = DiscriminatorTrainer(
        Discriminator(SPACE, 2, net_arch=[16]), 1e-2, 0, max_grad_norm=bound
    )
    trainer.backward(Batch(*separable_batch()), 64)
    gradients = [p.grad for p in trainer.discriminator.net.parameters()]
    free = th.cat([g.flatten() for g in gradients]).norm().item()
    assert free > 0.1
    norms = []
    monkeypatch.setattr(
        trainer.optimizer,
        "step",
        lambda: norms.append(th.cat([g.flatten() for g in gradients]).norm().item()),
    )
    trainer.step()
    assert norms == [pytest.approx(expected or free, rel=1e-4)]


def test_options_reach_the_trainer():
    callback = make_callback(weight_decay=0.125, max_grad_norm=0.5, spectral_norm=True)
    make_sac(counting()).learn(5, callback=callback)
    assert callback.trainer.optimizer.param_groups[0]["weight_decay"] == 0.125
    assert callback.trainer.max_grad_norm == 0.5
    assert callback.discriminator.spectral_norm


# -- the gate of SMERL -----------------------------------------------------------------------


def is_open(gate, min_task_return):
    """Per environment, row after row."""
    where = np.arange(gate.returns.size)
    return gate.is_open(where, min_task_return).reshape(gate.returns.shape).T


def test_the_gate_opens_when_a_good_episode_has_ended():
    """Episodes of two environments in five rows; a return of 3 is enough."""
    gate = EpisodeGate(5, 2)
    rewards = np.array([[1, 0], [2, 1], [1, 1], [1, 0], [1, 5], [0, 0], [9, 0]])
    dones = np.array([[0, 0], [1, 0], [0, 1], [1, 0], [0, 0], [0, 1], [0, 0]])
    for step in range(5):
        gate.add(step, rewards[step], dones[step])
    # env 0: 1 + 2 = 3 is good, 1 + 1 = 2 is not; env 1: 0 + 1 + 1 = 2 is not
    np.testing.assert_array_equal(is_open(gate, 3), [[1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])
    for step in range(5, 7):  # the buffer starts again at row 0
        gate.add(step - 5, rewards[step], dones[step])
    # env 1: 0 + 5 + 0 = 5 is good, steps 3 to 5 are rows 3, 4 and 0; env 0 has overwritten 0 and 1
    np.testing.assert_array_equal(is_open(gate, 3), [[0, 0, 0, 0, 0], [1, 0, 0, 1, 1]])


def test_an_episode_longer_than_the_buffer():
    gate = EpisodeGate(3, 1)
    for step in range(5):
        gate.add(step % 3, np.ones(1), np.array([step == 4]))
    assert is_open(gate, 5).all()


def test_other_environments_begin_new_episodes():
    gate = EpisodeGate(4, 1)
    gate.add(0, np.array([10.0]), np.array([False]))
    gate.restart()
    gate.add(1, np.array([1.0]), np.array([True]))
    assert not is_open(gate, 5).any()


class HalfGoodEnv(gym.Env):
    """Three steps; the task reward of a step is 1 in every second episode, else 0."""

    observation_space = SPACE
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    episode = -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.steps = self.episode + 1, 0
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        obs = np.array([self.steps, self.episode], np.float32)
        return obs, float(self.episode % 2), self.steps == 3, False, {}


@pytest.mark.parametrize("n_updates", [1, 2])
def test_only_good_episodes_are_paid_for_diversity(n_updates):
    """A return of 3 is enough; the last episode, of 2 steps, has not ended."""
    callback = make_callback(
        task_reward_weight=2.0, min_task_return=3.0, skill_reward_weight=0.5, n_updates=n_updates
    )
    model = make_sac(DIAYNWrapper(HalfGoodEnv(), K), learning_starts=14)
    model.learn(14, callback=callback)
    samples = model.replay_buffer._get_samples(np.arange(14))
    step, episode = samples.next_observations[:, 0], samples.next_observations[:, 1]
    skills = samples.observations[:, 2:].argmax(dim=1)
    skill_rewards = callback.discriminator.reward(samples.next_observations[:, :2], skills)
    good = (episode % 2 == 1) & (episode < 4)
    expected = 2.0 * (episode % 2) + 0.5 * skill_rewards * good
    assert good.sum() == 6 and step.max() == 3
    np.testing.assert_allclose(samples.rewards.flatten(), expected, atol=1e-6)


def test_the_gate_is_saved_with_the_buffer(tmp_path):
    options = {"task_reward_weight": 1.0, "min_task_return": 3.0}
    model = make_sac(DIAYNWrapper(HalfGoodEnv(), K))
    model.learn(14, callback=make_callback(**options))
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = make_sac(DIAYNWrapper(HalfGoodEnv(), K))
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    other.learn(3, callback=make_callback(**options))
    expected = model.replay_buffer.gate.returns[:14]
    assert np.count_nonzero(expected >= 3) == 6
    np.testing.assert_array_equal(other.replay_buffer.gate.returns[:14], expected)


def test_without_the_option_there_is_no_gate():
    model = make_sac(counting())
    model.learn(5, callback=make_callback())
    assert model.replay_buffer.gate is None


# -- actions ---------------------------------------------------------------------------------


class BlindEnv(StepEnv):
    """The state never changes; only the action can tell a skill."""

    def step(self, action):
        obs, *rest = super().step(action)
        return 0 * obs, *rest


@pytest.mark.slow
def test_only_with_actions_a_blind_discriminator_tells_skills_apart():
    """Two skills learn to act differently; without actions the discriminator can but guess."""
    accuracy = {}
    for use_actions in (False, True):
        env = DIAYNWrapper(BlindEnv(length=5), 2, skill="balanced")
        model = make_sac(env, learning_starts=50, ent_coef=0.01, learning_rate=1e-2, train_freq=2)
        callback = make_callback(use_actions=use_actions, learning_rate=1e-2)
        model.learn(600, callback=callback)
        accuracy[use_actions] = callback.trainer.metrics()["accuracy"]
    assert accuracy[False] < 0.6
    assert accuracy[True] > 0.7


def test_pickling_a_discriminator_with_spectral_norm_is_refused_by_torch():
    """Why a copy without parametrizations travels."""
    with pytest.raises(RuntimeError, match="only supported through state_dict"):
        pickle.dumps(Discriminator(SPACE, 2, net_arch=[4], spectral_norm=True))


def test_several_environments_share_a_gate():
    model = make_sac(counting_vec(2))
    # CountingEnv pays 1 + 2 + 3 + 4 + 5 = 15 in each episode of 5 steps.
    model.learn(24, callback=make_callback(task_reward_weight=1.0, min_task_return=15.0))
    is_good = model.replay_buffer.gate.returns[:12] == 15.0
    np.testing.assert_array_equal(is_good.sum(axis=0), [10, 10])


# -- p(z) ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("learn_p_z", "low", "high"), [(False, 8, 8), (True, 1, 3)])
def test_a_learned_p_z_collapses(learn_p_z, low, high):
    """
    Eight skills at 0, 1, ..., 7, each with a deviation of 3, so that only the outermost ones can
    be distinguished. A skill that is drawn more often is recognised more often, and so is drawn
    even more often.
    """
    th.manual_seed(0)
    space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    trainer = DiscriminatorTrainer(Discriminator(space, 8, net_arch=[16]), 2e-2, 0)
    rng = np.random.default_rng(0)
    for _ in range(150):
        p = trainer.discriminator.log_p.exp().double().numpy()
        skills = rng.choice(8, 200, p=p / p.sum())
        obs = th.as_tensor(rng.normal(skills, 3.0), dtype=th.float32).unsqueeze(1)
        for rows in th.randperm(200).split(50):
            trainer.update(Batch(obs[rows], th.as_tensor(skills)[rows]))
        if learn_p_z:
            trainer.update_p_z(Batch(obs, th.as_tensor(skills)))
    assert low - 1e-4 <= trainer.metrics()["effective_skills"] <= high + 1e-4


def open_episodes(model, callback):
    """Which of the recorded transitions have a skill reward."""
    buffer = model.replay_buffer
    return buffer.gate.is_open(np.arange(buffer.size()), callback.options["min_task_return"])


@pytest.mark.parametrize("before", [None, 100.0, -1.0])
def test_another_return_opens_and_shuts_old_episodes(before):
    """Two episodes of three steps and one of two, which the next ``learn`` cuts off."""
    model = make_sac(DIAYNWrapper(HalfGoodEnv(), K), learning_starts=100)
    gated = {} if before is None else {"task_reward_weight": 1.0, "min_task_return": before}
    model.learn(8, callback=make_callback(**gated))
    callback = make_callback(task_reward_weight=1.0, min_task_return=3.0)
    model.learn(3, callback=callback)  # a new episode
    good = [False] * 3 + [True] * 3 + [False] * 2 + [True] * 3
    np.testing.assert_array_equal(open_episodes(model, callback), good)


def test_a_gate_of_an_older_version():
    gate = EpisodeGate(2, 1)
    state = {**gate.__dict__, "is_open": np.array([[1.0], [0.0]], np.float32)}
    del state["returns"]
    gate.__setstate__(state)
    np.testing.assert_array_equal(is_open(gate, 1e6), [[True, False]])
