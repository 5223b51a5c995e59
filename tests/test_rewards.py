"""The numpy twin of the skill reward of one transition, against torch."""

import copy
import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from sb3_diayn import Discriminator, SkillReward
from sb3_diayn.rewards import _NumpyReward
from sb3_diayn.trainer import DiscriminatorTrainer

SPACE = spaces.Box(-np.inf, np.inf, (3,), np.float32)


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
        trainer.update(4 * th.randn(64, 3), th.randint(5, (64,)), folds=folds)
        trainer.update_p_z(4 * th.randn(64, 3), th.randint(5, (64,)))


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
