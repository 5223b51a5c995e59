"""METRA's objective: the formula, the constraint, and which two observations make a step."""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize

from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillReward, VecDIAYNWrapper, evaluate_skills
from sb3_diayn.discriminator import Batch
from sb3_diayn.downstream import export_skill, infer_skill
from sb3_diayn.model_zip import load_discriminator
from sb3_diayn.representation import Representation
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.helpers.envs import CountingEnv, EchoEnv
from tests.helpers.models import K, counting_vec, make_callback, make_ppo, make_sac, small_net


def linear(weight, **options):
    """Phi is a linear function of the observation."""
    n_skills, n_features = np.shape(weight)
    space = spaces.Box(-100.0, 100.0, (n_features,))
    representation = Representation(space, n_skills, net_arch=(), **options)
    with th.no_grad():
        representation.net[-1].weight.copy_(th.tensor(weight))
    return representation


def rewards(representation, obs, next_obs, skills):
    """(phi(s') - phi(s)) z, in float64 from the values of phi."""
    with th.no_grad():
        before, after = (representation.phi(th.as_tensor(o)).double() for o in (obs, next_obs))
    k = representation.n_skills
    z = np.where(np.asarray(skills)[:, None] == np.arange(k), 1.0, -1 / (k - 1))
    return ((after - before).numpy() * z).sum(axis=1)


def test_loss_and_reward_by_hand():
    representation = linear([[2.0], [0.0], [-1.0]], dual_slack=0.1)
    with th.no_grad():
        representation.log_lambda.fill_(math.log(3.0))
    obs, next_obs = th.tensor([[0.0], [0.0]]), th.tensor([[1.0], [0.1]])
    batch = Batch(next_obs, th.tensor([0, 2]), obs=obs)
    # steps of phi (2, 0, -1) and (0.2, 0, -0.1); z is (1, -1/2, -1/2) and (-1/2, -1/2, 1)
    loss, score, (accuracy, squared) = representation.objective(batch)
    assert score.tolist() == pytest.approx([2.5, -0.2])
    assert accuracy == 0.5  # both steps go farthest along skill 0
    assert squared == pytest.approx((5 + 0.05) / 2)
    rooms = [1 - 5, 0.1]  # the second is cut off at the slack
    of_phi = -np.mean([2.5 + 3 * rooms[0], -0.2 + 3 * rooms[1]])
    assert loss.item() == pytest.approx(of_phi + math.log(3.0) * np.mean(rooms))
    loss.backward()
    assert representation.log_lambda.grad == pytest.approx(np.mean(rooms))
    # d/dW of -(2.5 - 12) / 2: -z / 2 + lambda W of the first; of the second -z / 2 * 0.1
    gradient = -np.array([1, -0.5, -0.5]) / 2 + 3 * np.array([2.0, 0, -1])
    gradient -= 0.1 * np.array([-0.5, -0.5, 1]) / 2
    np.testing.assert_allclose(representation.net[-1].weight.grad[:, 0], gradient, rtol=1e-5)
    np.testing.assert_allclose(representation.score(batch).detach(), [2.5, -0.2], rtol=1e-6)


def test_the_progress_of_an_episode_is_the_sum_of_its_rewards():
    rng = np.random.default_rng(0)
    phi = Representation(spaces.Box(-9.0, 9.0, (4,)), 3)
    obs = rng.normal(size=(7, 4)).astype(np.float32)
    with th.no_grad():
        progress = phi.progress(th.as_tensor(obs))
        for skill in range(3):
            paid = rewards(phi, obs[:-1], obs[1:], np.full(6, skill))
            np.testing.assert_allclose(progress[1:, skill], paid.cumsum(), atol=1e-5)
        phi.net[-1].bias += th.tensor([5.0, 0.0, -5.0])  # phi is known up to a constant
        np.testing.assert_allclose(phi.progress(th.as_tensor(obs)), progress, atol=1e-5)


def test_phi_has_no_probabilities():
    phi = Representation(spaces.Box(-1.0, 1.0, (2,)), 3)
    with pytest.raises(ValueError, match=r"objective='metra' has no log q.*expected 'diayn'"):
        phi.log_prob(th.zeros(1, 2), th.zeros(1, dtype=th.long))
    trainer = DiscriminatorTrainer(phi, 1e-3, seed=0)
    batch = Batch(th.ones(4, 2), th.tensor([0, 1, 2, 0]), obs=th.zeros(4, 2))
    trainer.backward(batch, 4)
    trainer.step()
    assert trainer.metrics().keys() == {
        *("discriminator_loss", "accuracy", "squared_step", "n_updates"),
        *("dual_lambda", "effective_skills"),
    }


def test_the_directions_of_the_skills_add_up_to_nothing():
    vectors = Representation(spaces.Box(-1.0, 1.0, (2,)), 5).skill_vectors
    assert vectors.diagonal().tolist() == pytest.approx([1.0] * 5)
    np.testing.assert_allclose(vectors.sum(dim=0), 0, atol=1e-6)
    np.testing.assert_allclose(vectors.square().sum(dim=0), 5 / 4, rtol=1e-6)


@pytest.mark.slow
def test_on_a_chain_phi_counts_steps():
    """
    Six states in a row, shown as one-hots, so phi is a table. Skill 0 goes right and skill 1 left
    from everywhere. Then phi moves by 1 in each step, in the direction of z, and lambda
    is at least |z| / 2.
    """
    n_states, n_skills = 6, 2
    representation = linear(np.zeros((n_skills, n_states), np.float32))
    trainer = DiscriminatorTrainer(representation, 3e-3, seed=0)
    states = th.eye(n_states)
    batch = Batch(
        th.cat([states[1:], states[:-1]]),
        th.tensor([0] * 5 + [1] * 5),
        obs=th.cat([states[:-1], states[1:]]),
    )
    for _ in range(1500):
        trainer.backward(batch, 10)
        trainer.step()
    phi = representation.phi(states).detach()
    steps = phi.diff(dim=0)
    np.testing.assert_allclose(steps.square().sum(dim=1), 1, atol=0.02)
    np.testing.assert_allclose(th.cdist(phi, phi)[0], np.arange(6), rtol=0.02)
    direction = representation.skill_vectors[0] / math.sqrt(2)
    np.testing.assert_allclose(steps, direction.expand(5, 2), atol=0.02)
    assert representation.log_lambda.exp() > 0.98 * math.sqrt(2) / 2
    assert trainer.metrics()["squared_step"] == pytest.approx(1, abs=0.02)


METRA = {"objective": "metra"}


@pytest.mark.parametrize(
    "make_env",
    [
        lambda: counting_vec(2),
        pytest.param(lambda: counting_vec(2, truncate=True), marks=pytest.mark.slow),
        pytest.param(lambda: counting_vec(2, skill_duration=2), marks=pytest.mark.slow),
        pytest.param(
            lambda: VecNormalize(counting_vec(2), norm_reward=False), marks=pytest.mark.slow
        ),
    ],
)
def test_off_policy_rewards_are_those_of_the_present_phi(make_env):
    callback = make_callback(**METRA, reward_scale=2.0)
    model = make_sac(make_env())
    model.learn(80, callback=callback)
    buffer, phi = model.replay_buffer, callback.discriminator
    rows = np.arange(buffer.size())
    samples = buffer._get_samples(np.repeat(rows, 8), env=None)
    obs, next_obs = samples.observations[:, :2], samples.next_observations[:, :2]
    skills = samples.observations[:, 2:].argmax(dim=1)
    assert (next_obs[:, 0] == obs[:, 0] + 1).all()  # also at the end of an episode
    expected = 2 * rewards(phi, obs, next_obs, skills)
    np.testing.assert_allclose(samples.rewards[:, 0], expected, atol=1e-6)
    assert callback.trainer.n_updates > 0


@pytest.mark.slow
def test_rewards_of_stacked_frames_take_the_newest_one():
    model = make_sac(VecFrameStack(counting_vec(2), 3))
    callback = make_callback(**METRA)
    model.learn(60, callback=callback)
    batch = model.replay_buffer.sample_transitions(200, np.random.default_rng(0))
    np.testing.assert_array_equal(batch.obs[:, 0] + 1, batch.next_obs[:, 0])
    np.testing.assert_array_equal(batch.obs[:, 1], batch.next_obs[:, 1])


@pytest.mark.slow
def test_n_step_returns_add_up_the_rewards_of_each_step():
    model = make_sac(counting_vec(1), n_steps=3, gamma=0.5)
    callback = make_callback(**METRA)
    model.learn(60, callback=callback)
    buffer, phi = model.replay_buffer, callback.discriminator
    steps = np.arange(40)  # episodes of five steps, so each begins at a multiple of five
    samples = buffer._get_samples(steps, env=None)
    for row, total in zip(steps, samples.rewards[:, 0], strict=True):
        left = min(3, 5 - row % 5)
        part = slice(row, row + left)
        one = rewards(
            phi, buffer.observations[part, 0], buffer.next_observations[part, 0],
            buffer.skills[part, 0],
        )  # fmt: skip
        assert total == pytest.approx((one * 0.5 ** np.arange(left)).sum(), abs=1e-5)


def vec_diayn():
    inner = DummyVecEnv([lambda i=i: CountingEnv(first_episode=i) for i in range(2)])
    return VecDIAYNWrapper(inner, K)


def rollouts(make_env, monkeypatch):
    """Of two trainings with the same model: what phi learns from, and what PPO was paid for it."""
    found = []
    update_epochs = DiscriminatorTrainer.update_epochs

    def spy(trainer, batch, *args):
        expected = rewards(trainer.discriminator, batch.obs, batch.next_obs, batch.skills)
        found.append((batch, model.rollout_buffer.rewards.flatten(), expected))
        return update_epochs(trainer, batch, *args)

    monkeypatch.setattr(DiscriminatorTrainer, "update_epochs", spy)
    callback, model = make_callback(**METRA), make_ppo(make_env())
    model.learn(96, callback=callback)
    model.learn(48, callback=callback)  # the environments begin new episodes
    assert len(found) == 3
    return found


ON_POLICY = {
    "episodes": lambda: counting_vec(2),
    "VecDIAYNWrapper": vec_diayn,
    "VecNormalize": lambda: VecNormalize(counting_vec(2), norm_reward=False),
    "skills that end": lambda: counting_vec(2, skill_duration=2),
    "stacked frames": lambda: VecFrameStack(counting_vec(2), 2),
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "episodes")) for n in ON_POLICY]
)
def test_on_policy_phi_learns_from_both_sides_of_each_step(name, monkeypatch):
    for batch, paid, expected in rollouts(ON_POLICY[name], monkeypatch):
        np.testing.assert_array_equal(batch.obs[:, 0] + 1, batch.next_obs[:, 0])
        np.testing.assert_array_equal(batch.obs[:, 1], batch.next_obs[:, 1])
        if name != "skills that end":  # PPO's rewards then have the value of the last state
            np.testing.assert_allclose(paid, expected, atol=1e-6)


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_the_reward_of_one_transition_is_the_formula(normalize_obs):
    rng = np.random.default_rng(0)
    phi = Representation(spaces.Box(-9.0, 9.0, (4,)), 3, normalize_obs=normalize_obs)
    phi.update_normalizer(th.as_tensor(rng.normal(1, 3, (50, 4)).astype(np.float32)))
    obs, next_obs = rng.normal(size=(2, 20, 4)).astype(np.float32)
    skills = rng.integers(3, size=20)
    reward, actions = SkillReward(phi), np.zeros((20, 1), np.float32)
    expected = rewards(phi, obs, next_obs, skills)
    np.testing.assert_allclose(reward.batch(next_obs, skills, actions, obs), expected, atol=1e-6)
    of_one = reward.of_one()
    assert of_one != reward.single
    for row in range(20):
        for one in (of_one, reward.single):
            paid = one(next_obs[row], int(skills[row]), actions[row], obs[row])
            assert paid == pytest.approx(expected[row], abs=1e-5)
    with pytest.raises(ValueError, match=r"obs=None.*expected"):
        reward.batch(next_obs, skills, actions)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dict", "image", "discrete"])
@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_any_space(kind, algorithm):
    env = DummyVecEnv([lambda: DIAYNWrapper(EchoEnv(kind, box=True), K)] * 2)
    options = {"n_steps": 24, "batch_size": 8} if algorithm is PPO else {"learning_starts": 20}
    model = algorithm("MultiInputPolicy", env, policy_kwargs=small_net(), device="cpu", **options)
    callback = make_callback(**METRA)
    model.learn(60, callback=callback)
    assert callback.trainer.n_updates > 0
    assert np.isfinite(callback.metrics()["discriminator_loss"])


@pytest.mark.slow
def test_a_model_with_skills_of_metra_can_be_used_like_any_other(tmp_path):
    callback = make_callback(**METRA, dual_slack=0.01, dual_learning_rate=1e-2)
    env = counting_vec(2)
    model = make_ppo(env).learn(96, callback=callback)
    model.save(tmp_path / "model")
    loaded = load_discriminator(tmp_path / "model.zip")
    assert isinstance(loaded, Representation) and loaded.dual_slack == 0.01
    assert loaded.log_lambda.item() == callback.discriminator.log_lambda.item() != 0
    obs = th.randn(10, 2)
    assert th.equal(loaded.phi(obs), callback.discriminator.phi(obs))
    assert {"dual_lambda", "squared_step", "accuracy"} <= callback.metrics().keys()
    skill = infer_skill(loaded, np.linspace([0, 0], [4, 1], 5)).skill
    alone = export_skill(model, skill)
    assert alone.predict(np.zeros(2), deterministic=True)[0].shape == (1,)
    other = PPO.load(tmp_path / "model", env=env)
    with pytest.raises(ValueError, match=r"log_q_min=-1.0 .*'metra'.*expected None"):
        other.learn(48, callback=make_callback(log_q_min=-1.0))  # the zip has METRA's objective
    with pytest.raises(ValueError, match=r"objective='metra'.*expected 'diayn'"):
        other = PPO.load(tmp_path / "model", env=env)
        other.diayn_state["options"]["objective"] = "diayn"
        other.learn(48, callback=make_callback(**METRA))


REFUSED = {
    "use_actions": True,
    "spectral_norm": True,
    "cross_fit": True,
    "log_q_min": -1.0,
    "absorbing": True,
    "subtract_log_p": False,
    "learn_p_z": True,
}


@pytest.mark.parametrize("name", REFUSED)
def test_options_without_a_meaning_are_refused(name):
    value = REFUSED[name]
    with pytest.raises(ValueError, match=f"{name}={value!r} .*'metra'.*expected.*Leave it out"):
        DIAYNCallback(objective="metra", **{name: value})


def test_options_of_metra_are_refused_without_it():
    with pytest.raises(ValueError, match=r"dual_slack=0.1 .*'diayn'.*expected 0.001"):
        DIAYNCallback(dual_slack=0.1)
    with pytest.raises(ValueError, match=r"objective='lsd'.*expected 'diayn' or 'metra'"):
        DIAYNCallback(objective="lsd")


@pytest.mark.expensive
def test_four_skills_go_to_four_corners():
    """A room of 20 steps by 20, from its centre: the corners are as far apart as can be."""
    env = DummyVecEnv([point] * 16)
    model = PPO(
        "MlpPolicy", env, n_steps=60, batch_size=240, learning_rate=1e-3, seed=0, device="cpu"
    )
    callback = DIAYNCallback(objective="metra", net_arch=[64, 64], learning_rate=1e-3)
    model.learn(40_000, callback=callback)
    ends = evaluate_skills(model, env, n_episodes=1, deterministic=True).paths[:, 0, -1]
    corners = {tuple(corner) for corner in np.sign(ends).tolist()}
    assert len(corners) == 4 and (np.abs(ends).max(axis=1) > 0.9).all()
    # One step of phi along the way, at most.
    grid = th.cartesian_prod(th.linspace(-1, 1, 9), th.linspace(-1, 1, 9))
    phi = callback.discriminator.phi(grid).detach()
    n_steps = (grid[:, None] - grid[None]).abs().amax(dim=-1) / 0.1
    ratio = (th.cdist(phi, phi) / n_steps)[n_steps > 0]
    assert 0.6 < ratio.median() < 1.05


def point():
    return DIAYNWrapper(
        gym.make("sb3_diayn/PointBox-v0", max_episode_steps=20), n_skills=4, skill="balanced"
    )


@pytest.mark.parametrize(
    "option",
    [
        {"cross_fit": True},
        {"spectral_norm": True},
        {"log_q_min": -1.0},
        {"subtract_log_p": False},
        {"action_space": spaces.Box(-1.0, 1.0, (1,))},
    ],
    ids=lambda option: next(iter(option)),
)
def test_what_is_about_probabilities_is_refused(option):
    with pytest.raises(ValueError, match=r"has no meaning for METRA's phi; expected .*Leave it"):
        Representation(spaces.Box(-1.0, 1.0, (2,)), 3, **option)
