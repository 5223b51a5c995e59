import json
import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_diayn import Discriminator
from sb3_diayn.discriminator import DiscriminatorTrainer
from sb3_diayn.model_zip import pack_state, unpack_state
from tests.helpers.models import constant_discriminator

SPACE = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def make_trainer(seed: int = 0, **kwargs) -> DiscriminatorTrainer:
    th.manual_seed(seed)
    return DiscriminatorTrainer(Discriminator(SPACE, 3, net_arch=[16], **kwargs), 1e-2, seed)


def batch(trainer: DiscriminatorTrainer, n: int = 32) -> tuple[th.Tensor, th.Tensor]:
    """Skill z lives around (z, -z)."""
    skills = trainer.rng.integers(3, size=n)
    obs = np.stack([skills, -skills], axis=1) + trainer.rng.normal(0, 0.05, (n, 2))
    return th.as_tensor(obs, dtype=th.float32), th.as_tensor(skills)


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_it_learns_to_tell_skills_apart(normalize_obs):
    trainer = make_trainer(normalize_obs=normalize_obs)
    obs, skills = batch(trainer)
    before = trainer.discriminator.loss(obs, skills)[0].mean().item()
    assert before == pytest.approx(math.log(3), abs=0.5)
    for _ in range(200):
        trainer.update(*batch(trainer))
    losses, accuracy = trainer.discriminator.loss(obs, skills)
    assert losses.max().item() < 0.2 and accuracy.item() == 1
    assert trainer.n_updates == 200


def test_statistics_are_means_while_there_are_few():
    trainer = make_trainer()
    losses, accuracies = [], []
    for _ in range(5):
        obs, skills = batch(trainer)
        of_batch, accuracy = trainer.discriminator.loss(obs, skills)
        losses.append(of_batch.mean().item())
        accuracies.append(accuracy.item())
        trainer.update(obs, skills)
    metrics = trainer.metrics()
    assert metrics["discriminator_loss"] == pytest.approx(np.mean(losses), abs=1e-5)
    assert metrics["log_q_z"] == -metrics["discriminator_loss"]
    assert metrics["accuracy"] == pytest.approx(np.mean(accuracies), abs=1e-5)
    assert metrics["n_updates"] == 5


def test_no_loss_is_reported_before_the_first_update():
    assert make_trainer().metrics() == {"effective_skills": pytest.approx(3), "n_updates": 0}


def test_learned_p_z_is_the_softmax_of_the_mean_log_q():
    discriminator = constant_discriminator([0.7, 0.2, 0.1])
    trainer = DiscriminatorTrainer(discriminator, 1e-3, 0)
    trainer.update_p_z(th.zeros(6, 2), th.tensor([0, 1, 2, 0, 1, 2]))
    np.testing.assert_allclose(discriminator.log_p.exp(), [0.7, 0.2, 0.1], atol=1e-6)
    # exp(-(0.7 log 0.7 + 0.2 log 0.2 + 0.1 log 0.1)) = exp(0.8018)
    assert trainer.metrics()["effective_skills"] == pytest.approx(2.2296, abs=1e-3)


def test_a_skill_without_observations_keeps_its_log_p():
    discriminator = constant_discriminator([0.7, 0.2, 0.1])
    DiscriminatorTrainer(discriminator, 1e-3, 0).update_p_z(th.zeros(2, 2), th.tensor([0, 1]))
    expected = np.array([0.7, 0.2, 1 / 3])
    np.testing.assert_allclose(discriminator.log_p.exp(), expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_a_restored_trainer_goes_on_bit_for_bit(normalize_obs):
    trainer = make_trainer(normalize_obs=normalize_obs)
    for _ in range(10):
        trainer.update(*batch(trainer))
    other = make_trainer(seed=1, normalize_obs=normalize_obs)
    other.restore(unpack_state(json.loads(json.dumps(pack_state(trainer.state())))))
    for t in (trainer, other):
        for _ in range(10):
            t.update(*batch(t))  # the draws come from the restored generator
    assert other.metrics() == trainer.metrics()
    mine, theirs = trainer.discriminator.state_dict(), other.discriminator.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(th.equal(mine[name], theirs[name]) for name in mine)


def test_batches_of_several_updates_at_once_are_the_same_updates():
    """SBX draws them so; SB3 one after the other."""
    at_once, in_turn = make_trainer(), make_trainer()
    obs, skills = batch(at_once, 48)
    log_q = at_once.learn((16, 16), obs, skills)
    pieces = [in_turn.learn((16, 16), obs[rows], skills[rows]) for rows in th.arange(48).split(16)]
    th.testing.assert_close(log_q, th.cat(pieces), rtol=0, atol=0)
    for trainer in (at_once, in_turn):
        trainer.step()
        assert trainer.n_updates == 3
    for mine, other in zip(
        at_once.discriminator.parameters(), in_turn.discriminator.parameters(), strict=True
    ):
        th.testing.assert_close(mine, other, rtol=0, atol=0)


def test_a_smaller_batch_is_the_first_part_of_the_policys():
    """All of it is paid by the discriminator of before."""
    some, expected = make_trainer(), make_trainer()
    obs, skills = batch(some, 32)
    log_q = some.learn((16, 6), obs, skills)
    some.step()
    for rows, paid in zip(th.arange(32).split(16), log_q.split(16), strict=True):
        with th.no_grad():
            before = expected.discriminator.log_prob(obs[rows], skills[rows])
        th.testing.assert_close(paid, before, rtol=0, atol=1e-6)
        expected.update(obs[rows[:6]], skills[rows[:6]])
    assert some.n_updates == 2
    for mine, other in zip(
        some.discriminator.parameters(), expected.discriminator.parameters(), strict=True
    ):
        th.testing.assert_close(mine, other, rtol=0, atol=0)
