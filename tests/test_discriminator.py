import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_diayn import Discriminator, SkillReward
from sb3_diayn.extractors import resolve_indices
from tests.helpers.models import constant_discriminator, log_q, split_nets

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
BOX_ACTION = spaces.Box(np.array([-2, 0], np.float32), np.array([2, 1], np.float32))


def perfect_discriminator(n_skills: int) -> Discriminator:
    """Reads the skill off an observation that is its one-hot."""
    discriminator = Discriminator(spaces.Box(0.0, 1.0, (n_skills,)), n_skills, net_arch=())
    with th.no_grad():
        discriminator.net[-1].weight.copy_(100 * th.eye(n_skills))
        discriminator.net[-1].bias.zero_()
    return discriminator


@pytest.mark.parametrize("n_skills", [2, 5, 20])
def test_a_uniform_discriminator_pays_nothing(n_skills):
    discriminator = Discriminator(SPACE, n_skills, net_arch=[16])
    for parameter in discriminator.parameters():
        parameter.data.zero_()
    obs, skills = th.randn(64, 3), th.arange(64) % n_skills
    assert discriminator.reward(obs, skills).abs().max() < 1e-6
    losses, _ = discriminator.loss(obs, skills)
    np.testing.assert_allclose(losses.detach(), math.log(n_skills), atol=1e-6)


@pytest.mark.parametrize("n_skills", [2, 5, 20])
def test_a_perfect_discriminator_pays_log_k(n_skills):
    discriminator = perfect_discriminator(n_skills)
    skills = th.arange(n_skills)
    rewards = discriminator.reward(th.eye(n_skills), skills)
    np.testing.assert_allclose(rewards, math.log(n_skills), atol=1e-6)
    losses, accuracy = discriminator.loss(th.eye(n_skills), skills)
    assert losses.max().item() == pytest.approx(0, abs=1e-6) and accuracy.item() == 1


def test_the_loss_starts_near_log_k():
    discriminator = Discriminator(SPACE, 20)
    losses, _ = discriminator.loss(th.randn(2000, 3), th.arange(2000) % 20)
    assert losses.mean().item() == pytest.approx(math.log(20), abs=0.1)  # 2.996


def test_reward_is_log_q_minus_log_p():
    discriminator = constant_discriminator([0.5, 0.25, 0.25])
    rewards = discriminator.reward(th.zeros(3, 2), th.arange(3))
    # log(0.5) + log(3), log(0.25) + log(3)
    np.testing.assert_allclose(rewards, [0.405465, -0.287682, -0.287682], atol=1e-5)
    discriminator.log_p.copy_(th.tensor([0.5, 0.25, 0.25]).log())
    np.testing.assert_allclose(discriminator.reward(th.zeros(3, 2), th.arange(3)), 0, atol=1e-6)


def test_reward_has_no_gradient_and_the_loss_has():
    discriminator = Discriminator(SPACE, 3, net_arch=[16])
    obs, skills = th.randn(4, 3), th.arange(4) % 3
    assert not discriminator.reward(obs, skills).requires_grad
    assert discriminator.loss(obs, skills)[0].requires_grad


def test_accuracy_counts_the_likeliest_skill():
    discriminator = constant_discriminator([0.2, 0.6, 0.2])
    _, accuracy = discriminator.loss(th.zeros(4, 2), th.tensor([1, 1, 1, 0]))
    assert accuracy.item() == 0.75


@pytest.mark.parametrize(
    ("obs_indices", "expected"),
    [
        (None, [0, 1, 2, 3]),
        ([0, 2], [0, 2]),
        ((3, 0), [3, 0]),
        ([-1], [3]),
        (range(2), [0, 1]),
        (slice(1, None), [1, 2, 3]),
        (slice(None, None, 2), [0, 2]),
        ("0:1", [0]),
        ("1:", [1, 2, 3]),
        ("-2:", [2, 3]),
        ("::2", [0, 2]),
        ("0:100", [0, 1, 2, 3]),
    ],
)
def test_resolve_indices(obs_indices, expected):
    assert resolve_indices(obs_indices, 4) == expected


def test_a_mask_is_not_a_list_of_indices():
    """It would be read as the indices 0 and 1."""
    with pytest.raises(ValueError, match=r"obs_indices=\[False, True\] does not choose"):
        resolve_indices([False, True], 2)


def test_a_number_is_no_list_and_may_have_been_a_slice():
    """YAML reads 2:4 without quotes as a number to base 60."""
    with pytest.raises(ValueError, match=r"Write \[124\] .* A slice needs quotes in YAML: '2:4'"):
        resolve_indices(124, 4)


@pytest.mark.parametrize("obs_indices", [[1], slice(1, 2), "1:2", [-2]])
def test_the_discriminator_ignores_the_other_coordinates(obs_indices):
    discriminator = Discriminator(SPACE, 4, net_arch=[16], obs_indices=obs_indices)
    obs = th.randn(10, 3)
    elsewhere, here = obs.clone(), obs.clone()
    elsewhere[:, [0, 2]] += 5
    here[:, 1] += 5
    th.testing.assert_close(discriminator(elsewhere), discriminator(obs), rtol=0, atol=0)
    assert not th.allclose(discriminator(here), discriminator(obs))


def test_indices_are_read_in_their_order():
    discriminator = Discriminator(SPACE, 2, net_arch=(), obs_indices=[2, 0])
    with th.no_grad():
        discriminator.net[-1].weight.copy_(th.eye(2))
        discriminator.net[-1].bias.zero_()
    assert discriminator(th.tensor([[1.0, 2.0, 3.0]])).tolist() == [[3.0, 1.0]]


def test_box_actions_are_scaled_as_in_a_replay_buffer():
    discriminator = Discriminator(SPACE, 3, net_arch=[16], action_space=BOX_ACTION)
    # three quarters of [-2, 2] and the middle of [0, 1]
    action = np.array([1.0, 0.5], np.float32)
    np.testing.assert_allclose(discriminator.scale_action(action), [0.5, 0])
    obs = np.array([0.1, 0.2, 0.3], np.float32)
    single = SkillReward(discriminator).single(obs, 2, action)
    batch = discriminator.reward(
        th.tensor(obs)[None], th.tensor([2]), th.tensor([[0.5, 0.0]])
    ).item()
    assert single == pytest.approx(batch, abs=1e-6)
    other = SkillReward(discriminator).single(obs, 2, np.array([2.0, 0.0], np.float32))
    assert other != pytest.approx(batch, abs=1e-6)


@pytest.mark.parametrize("action", [2, np.int64(2), np.array(2)])
def test_discrete_actions_are_one_hot(action):
    discriminator = Discriminator(SPACE, 3, net_arch=(), action_space=spaces.Discrete(4))
    with th.no_grad():
        discriminator.net[-1].weight.zero_()
        discriminator.net[-1].weight[1, 3 + 2] = 5.0  # action 2 speaks for skill 1
        discriminator.net[-1].bias.zero_()
    assert discriminator(th.zeros(2, 3), th.tensor([[2], [1]])).tolist() == [[0, 5, 0], [0, 0, 0]]
    single = SkillReward(discriminator).single(np.zeros(3, np.float32), 1, action)
    # 5 - log(e^5 + 2) + log 3
    assert single == pytest.approx(5 - math.log(math.exp(5) + 2) + math.log(3), abs=1e-5)


def test_unbounded_actions_stay_as_they_are():
    unbounded = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    discriminator = Discriminator(SPACE, 3, net_arch=[16], action_space=unbounded)
    np.testing.assert_array_equal(discriminator.scale_action(np.array([5.0, -7.0])), [5, -7])


def test_log_q_min_bounds_the_penalty():
    discriminator = perfect_discriminator(4)
    wrong = th.tensor([1])
    assert discriminator.reward(th.eye(4)[:1], wrong).item() == pytest.approx(math.log(4) - 100)
    discriminator.log_q_min = -3.0
    assert discriminator.reward(th.eye(4)[:1], wrong).item() == pytest.approx(math.log(4) - 3)
    assert discriminator.reward(th.eye(4)[:1], th.tensor([0])).item() == pytest.approx(math.log(4))


def test_the_bound_is_an_option():
    """With 4 skills and nothing known, log q is -log 4 = -1.39, so the bound of -1 counts."""
    discriminator = Discriminator(SPACE, 4, net_arch=(), log_q_min=-1.0)
    for parameter in discriminator.parameters():
        parameter.data.zero_()
    rewards = discriminator.reward(th.zeros(4, 3), th.arange(4))
    np.testing.assert_allclose(rewards, math.log(4) - 1, atol=1e-6)


def test_without_log_p_the_reward_is_log_q():
    discriminator = perfect_discriminator(4)
    discriminator.subtract_log_p = False
    assert discriminator.reward(th.eye(4), th.arange(4)).abs().max() < 1e-6
    obs, skills = th.randn(9, 4), th.arange(9) % 4
    expected = log_q(discriminator, obs, skills)
    np.testing.assert_allclose(discriminator.reward(obs, skills), expected, atol=1e-4)


def test_skill_reward_is_a_weighted_sum():
    reward = SkillReward(
        constant_discriminator([0.5, 0.25, 0.25]), scale=10.0, skill_weight=2.0, task_weight=0.5
    )
    paid = reward(th.zeros(2, 2), th.tensor([0, 1]), th.tensor([4.0, -4.0]))
    # 10 * (2 * log 1.5 + 0.5 * 4), 10 * (2 * log 0.75 - 0.5 * 4)
    expected = [20 * math.log(1.5) + 20, 20 * math.log(0.75) - 20]
    np.testing.assert_allclose(paid, expected, rtol=1e-5)
    assert reward.single(np.zeros(2, np.float32), 0, 0) == pytest.approx(math.log(1.5), abs=1e-6)
    assert SkillReward(reward.discriminator).mix(1.5, 100.0) == 1.5


def test_the_normaliser_is_the_mean_and_standard_deviation():
    discriminator = Discriminator(SPACE, 3, net_arch=(), normalize_obs=True, obs_indices=[0, 2])
    data = np.random.default_rng(0).normal([100, 0, -3], [5, 1, 0.1], (900, 3)).astype(np.float32)
    for batch in np.split(data, [100, 101, 400]):
        discriminator.update_normalizer(th.as_tensor(batch))
    np.testing.assert_allclose(discriminator.obs_mean, data[:, [0, 2]].mean(axis=0), rtol=1e-4)
    std = data[:, [0, 2]].std(axis=0)
    np.testing.assert_allclose(discriminator.obs_var.sqrt(), std, rtol=1e-3)
    with th.no_grad():
        discriminator.net[-1].weight.copy_(th.tensor([[1.0, 0], [0, 1], [0, 0]]))
        discriminator.net[-1].bias.zero_()
        scaled = discriminator(th.as_tensor(data)).numpy()
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-2)
    np.testing.assert_allclose(scaled[:, :2].std(axis=0), 1, rtol=1e-2)


def test_without_the_option_inputs_are_raw():
    discriminator = Discriminator(SPACE, 3, net_arch=[16])
    obs = th.randn(5, 3)
    before = discriminator(obs)
    discriminator.update_normalizer(th.randn(50, 3) * 9 + 4)
    th.testing.assert_close(discriminator(obs), before, rtol=0, atol=0)


@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}, {"normalize_obs": True}])
def test_a_cross_fitted_discriminator_is_the_normalised_average_in_log_space(options):
    th.manual_seed(0)
    discriminator = Discriminator(SPACE, 4, net_arch=[16, 8], cross_fit=True, **options)
    with th.no_grad():
        discriminator.net[-1].bias.copy_(th.tensor([[2.0, 0, 0, 0], [0, 3.0, 0, 0]]))
    obs = 3 * th.randn(20, 3)
    first, second = split_nets(discriminator, net_arch=[16, 8], **options)
    mean = (first(obs).log_softmax(dim=1) + second(obs).log_softmax(dim=1)) / 2
    assert mean.exp().sum(dim=1).max() < 0.99  # the mean alone is no distribution
    every = [discriminator.log_prob(obs, th.full((20,), skill)) for skill in range(4)]
    log_probs = th.stack(every, dim=1)
    th.testing.assert_close(log_probs, mean.log_softmax(dim=1))
    th.testing.assert_close(log_probs.exp().sum(dim=1), th.ones(20))


def test_both_nets_of_a_cross_fitted_discriminator_read_actions():
    discriminator = Discriminator(
        SPACE, 3, net_arch=(), action_space=spaces.Discrete(2), cross_fit=True
    )
    with th.no_grad():
        discriminator.net[-1].weight.zero_()
        discriminator.net[-1].bias.zero_()
        discriminator.net[-1].weight[0, 3 + 1, 0] = 2.0  # to net 0 action 1 speaks for skill 0
        discriminator.net[-1].weight[1, 3 + 1, 1] = 4.0  # to net 1 for skill 1
    logits = discriminator(th.zeros(2, 3), th.tensor([[1], [0]]))
    assert logits.tolist() == [[1, 2, 0], [0, 0, 0]]


def test_the_nets_of_both_folds_begin_differently():
    for options in ({}, {"spectral_norm": True}):
        discriminator = Discriminator(SPACE, 4, net_arch=[16], cross_fit=True, **options)
        for layer in discriminator.net[::2]:
            assert not th.allclose(layer.weight[0], layer.weight[1])
