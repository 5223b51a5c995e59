"""What the agent is paid, and the numpy twin of the skill reward of one transition."""

import copy
import math
import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from sb3_diayn import Discriminator, SkillReward
from sb3_diayn.discriminator import Batch
from sb3_diayn.rewards import _NumpyReward
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.helpers.models import constant_discriminator

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)
LOG_2 = math.log(2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1.5),
        ({"scale": 2.0}, 2 * 1.5),
        ({"skill_weight": 2.0}, 2 * 1.5),
        ({"task_weight": 1.0}, 1.5 + 100),
        ({"step_cost": 0.5}, 1.5 - 0.5),
        ({"scale": 2.0, "skill_weight": 3.0, "step_cost": 0.5}, 2 * (3 * 1.5 - 0.5)),
        ({"scale": 10.0, "skill_weight": 2.0, "task_weight": 0.5}, 10 * (2 * 1.5 + 0.5 * 100)),
    ],
)
def test_each_weight_counts(options, expected):
    assert SkillReward(constant_discriminator([0.5, 0.5]), **options).mix(1.5, 100.0) == expected


def test_a_closed_gate_pays_the_task_alone():
    """q = (1, 0) up to rounding: skill 0 is paid log 2 where the gate is open."""
    reward = SkillReward(constant_discriminator([1.0, 1e-30]), task_weight=1.0)
    task, gate = th.tensor([3.0, 3.0]), th.tensor([0.0, 1.0])
    paid = reward(th.zeros(2, 2), th.tensor([0, 0]), task, factors=gate)
    np.testing.assert_allclose(paid, [3, LOG_2 + 3], atol=1e-6)
    assert reward(th.zeros(2, 2), th.tensor([0, 0]), task).tolist() == [paid[1], paid[1]]


def test_the_action_is_an_input_where_it_should_be():
    """Only action 1 tells a skill, and that is skill 0: the others are paid 0."""
    discriminator = Discriminator(SPACE, 2, net_arch=(), action_space=spaces.Discrete(2))
    with th.no_grad():
        discriminator.net[-1].weight.zero_()
        discriminator.net[-1].bias.zero_()
        discriminator.net[-1].weight[0, 3 + 1] = 50.0
    reward = SkillReward(discriminator)
    obs, skills, actions = np.zeros((3, 3), np.float32), np.array([0, 0, 1]), np.array([1, 0, 0])
    expected = [LOG_2, 0, 0]
    as_stored = th.as_tensor(actions)[:, None]
    paid = reward(th.as_tensor(obs), th.as_tensor(skills), th.zeros(3), as_stored)
    np.testing.assert_allclose(paid, expected, atol=1e-6)
    np.testing.assert_allclose(reward.batch(obs, skills, actions), expected, atol=1e-6)
    singles = [reward.single(*row) for row in zip(obs, skills, actions, strict=True)]
    np.testing.assert_allclose(singles, expected, atol=1e-6)


def test_the_net_of_the_other_fold_pays():
    """Net 0 is sure of skill 0, net 1 of skill 1; a logit of 50 speaks for it."""
    discriminator = Discriminator(SPACE, 2, net_arch=(), cross_fit=True)
    discriminator.has_learned.fill_(True)
    with th.no_grad():
        discriminator.net[-1].weight.zero_()
        discriminator.net[-1].bias.copy_(th.tensor([[50.0, 0], [0, 50.0]]))
    reward, folds = SkillReward(discriminator), np.array([0, 1, 0, 1], np.uint8)
    paid = reward(th.zeros(4, 3), th.tensor([0, 0, 1, 1]), th.zeros(4), folds=folds)
    np.testing.assert_allclose(paid, [LOG_2 - 50, LOG_2, LOG_2, LOG_2 - 50], atol=1e-5)


def test_a_large_logit_does_not_overflow():
    """exp(100) is beyond float32; q is 1 and so the reward log 3."""
    discriminator = constant_discriminator([1 / 3] * 3)
    with th.no_grad():
        discriminator.net[-1].bias[1] = 100.0
    for one in (SkillReward(discriminator).of_one(), SkillReward(discriminator).single):
        assert one(np.zeros(2, np.float32), 1, 0) == pytest.approx(math.log(3), abs=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"net_arch": ()},
        {"obs_indices": [2, 0]},
        {"normalize_obs": True},
        {"log_q_min": -1.2},
        {"subtract_log_p": False},
        {"spectral_norm": True},
        {"cross_fit": True},
        {"cross_fit": True, "spectral_norm": True},
    ],
)
def test_numpy_and_torch_agree(options):
    th.manual_seed(0)
    rng = np.random.default_rng(0)
    discriminator = Discriminator(SPACE, 5, **({"net_arch": (32, 8)} | options))
    reward, trainer = SkillReward(discriminator), DiscriminatorTrainer(discriminator, 0.05, 0)
    of_one = reward.of_one()
    assert isinstance(of_one, _NumpyReward)
    for _ in range(3):
        folds = rng.integers(2, size=64).astype(np.uint8) if "cross_fit" in options else None
        trainer.update(Batch(4 * th.randn(64, 3), th.randint(5, (64,)), folds=folds))
        trainer.update_p_z(Batch(4 * th.randn(64, 3), th.randint(5, (64,))))
        obs = rng.normal(1, 4, 3)
        paid = [of_one(obs, skill, 0) for skill in range(5)]
        expected = [reward.single(obs.astype(np.float32), skill, 0) for skill in range(5)]
        np.testing.assert_allclose(paid, expected, rtol=1e-5, atol=1e-5)
        assert len(set(paid)) > 1


@pytest.mark.slow
@given(
    options=st.fixed_dictionaries(
        {
            "net_arch": st.sampled_from([(), (16,), (32, 8)]),
            "obs_indices": st.sampled_from([None, [2, 0], slice(1, 3)]),
            "normalize_obs": st.booleans(),
            "spectral_norm": st.booleans(),
            "log_q_min": st.sampled_from([None, -1.0]),
            "subtract_log_p": st.booleans(),
            "cross_fit": st.booleans(),
        }
    ),
    seed=st.integers(0, 1000),
)
def test_numpy_and_torch_agree_while_the_discriminator_learns(options, seed):
    th.manual_seed(seed)
    rng = np.random.default_rng(seed)
    discriminator = Discriminator(SPACE, 5, **options)
    reward = SkillReward(discriminator)
    of_one = reward.of_one()
    assert isinstance(of_one, _NumpyReward)
    trainer = DiscriminatorTrainer(discriminator, 0.05, seed)
    for _ in range(3):
        obs = rng.normal(1, 4, 3).astype(np.float32)
        for skill in range(5):
            assert of_one(obs, skill, 0) == pytest.approx(
                reward.single(obs, skill, 0), rel=1e-5, abs=1e-5
            )
        folds = rng.integers(2, size=64).astype(np.uint8) if options["cross_fit"] else None
        trainer.update(Batch(4 * th.randn(64, 3), th.randint(5, (64,)), folds=folds))
        trainer.update_p_z(Batch(4 * th.randn(64, 3), th.randint(5, (64,))))


@pytest.mark.parametrize(
    "options",
    [
        {"action_space": spaces.Discrete(2)},
        {"obs_function": lambda obs: obs[:, :2]},
    ],
)
def test_other_discriminators_are_left_to_torch(options):
    reward = SkillReward(Discriminator(SPACE, 4, net_arch=[8], **options))
    assert reward.of_one() == reward.single


def test_a_copy_has_a_reward_of_its_own():
    """What is sent to another process, or copied, must no longer share memory."""
    th.manual_seed(0)
    reward = SkillReward(Discriminator(SPACE, 4, net_arch=[8]))
    before = reward.of_one()(np.ones(3), 1, 0)
    copies = copy.deepcopy(reward), pickle.loads(pickle.dumps(reward))
    with th.no_grad():
        reward.discriminator.net[-1].bias[1] += 3
    assert reward.of_one()(np.ones(3), 1, 0) > before + 0.5
    for copied in copies:
        assert copied.of_one()(np.ones(3), 1, 0) == pytest.approx(before)
