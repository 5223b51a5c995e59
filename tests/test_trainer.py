import json
import math

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.nn import functional as F

from sb3_diayn import Discriminator
from sb3_diayn.discriminator import Batch, FoldRows
from sb3_diayn.model_zip import pack_state, unpack_state
from sb3_diayn.trainer import HISTORY, MAX_HISTORY, DiscriminatorTrainer, default_batch_size
from tests.helpers.models import constant_discriminator, held_out_log_q, split_nets

SPACE = spaces.Box(-np.inf, np.inf, (2,), np.float32)


def make_trainer(seed: int = 0, **kwargs) -> DiscriminatorTrainer:
    th.manual_seed(seed)
    return DiscriminatorTrainer(Discriminator(SPACE, 3, net_arch=[16], **kwargs), 1e-2, seed)


def batch(trainer: DiscriminatorTrainer, n: int = 32) -> tuple[th.Tensor, th.Tensor]:
    """Skill z lives around (z, -z)."""
    skills = trainer.rng.integers(3, size=n)
    obs = np.stack([skills, -skills], axis=1) + trainer.rng.normal(0, 0.05, (n, 2))
    return th.as_tensor(obs, dtype=th.float32), th.as_tensor(skills)


@pytest.mark.slow
@pytest.mark.parametrize("normalize_obs", [False, True])
def test_it_learns_to_tell_skills_apart(normalize_obs):
    trainer = make_trainer(normalize_obs=normalize_obs)
    obs, skills = batch(trainer)
    before = trainer.discriminator.loss(obs, skills)[0].mean().item()
    assert before == pytest.approx(math.log(3), abs=0.5)
    for _ in range(200):
        trainer.update(Batch(*batch(trainer)))
    losses, accuracy = trainer.discriminator.loss(obs, skills)
    assert losses.max().item() < 0.2 and accuracy.item() == 1
    assert trainer.n_updates == 200


def test_the_normaliser_knows_what_was_learned_from():
    """Two of four transitions: the means are 1 and 2, the deviations 1 and 2."""
    trainer = make_trainer(normalize_obs=True)
    obs = th.tensor([[0.0, 0.0], [2.0, 4.0], [50.0, 50.0], [50.0, 50.0]])
    trainer.learn((4, 2), Batch(obs, th.tensor([0, 1, 2, 0])))
    np.testing.assert_allclose(trainer.discriminator.obs_mean, [1, 2], atol=1e-3)
    np.testing.assert_allclose(trainer.discriminator.obs_var, [1, 4], atol=1e-3)


def test_statistics_are_means_while_there_are_few():
    trainer = make_trainer()
    losses, accuracies = [], []
    for _ in range(5):
        obs, skills = batch(trainer)
        of_batch, accuracy = trainer.discriminator.loss(obs, skills)
        losses.append(of_batch.mean().item())
        accuracies.append(accuracy.item())
        trainer.update(Batch(obs, skills))
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
    trainer.update_p_z(Batch(th.zeros(6, 2), th.tensor([0, 1, 2, 0, 1, 2])))
    np.testing.assert_allclose(discriminator.log_p.exp(), [0.7, 0.2, 0.1], atol=1e-6)
    # exp(-(0.7 log 0.7 + 0.2 log 0.2 + 0.1 log 0.1)) = exp(0.8018)
    assert trainer.metrics()["effective_skills"] == pytest.approx(2.2296, abs=1e-3)


def test_a_skill_without_observations_keeps_its_log_p():
    discriminator = constant_discriminator([0.7, 0.2, 0.1])
    DiscriminatorTrainer(discriminator, 1e-3, 0).update_p_z(
        Batch(th.zeros(2, 2), th.tensor([0, 1]))
    )
    expected = np.array([0.7, 0.2, 1 / 3])
    np.testing.assert_allclose(discriminator.log_p.exp(), expected / expected.sum(), atol=1e-6)


@pytest.mark.parametrize(("of_policy", "expected"), [(1, 1), (100, 100), (256, 128), (1000, 500)])
def test_half_of_a_batch_is_learned_from_but_128_at_least(of_policy, expected):
    assert default_batch_size(of_policy) == expected


# -- history ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cross_fit", [False, True])
def test_moments_of_dead_units_do_not_become_denormal(cross_fit):
    """A CPU computes with denormal numbers many times slower."""
    trainer = make_trainer(cross_fit=cross_fit)
    obs, skills = batch(trainer)
    folds = np.arange(len(skills)) % 2 if cross_fit else None
    for n_updates in range(1, 1501):
        if n_updates == 400:  # the first layer's units die, with moments behind them
            with th.no_grad():
                trainer.discriminator.net[0].bias.fill_(-1e3)
        trainer.update(Batch(obs, skills, None, folds))
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    assert any((moment == 0).any() for moment in moments)
    smallest = th.finfo(th.float32).smallest_normal
    assert not any(((moment != 0) & (moment.abs() < smallest)).any() for moment in moments)


def history_of(steps) -> list[list[float]]:
    trainer = make_trainer()
    for step in steps:
        trainer.remember({"time/total_timesteps": step, "diayn/accuracy": step / 1e6})
    return trainer.history


def test_a_row_of_the_history_has_all_columns():
    (row,) = history_of([20])
    # total_timesteps, log_q_z, accuracy, skill_reward, skill_return, task_return
    np.testing.assert_array_equal(row, [20, np.nan, 2e-5, np.nan, np.nan, np.nan])


def test_a_full_history_drops_every_second_row_and_then_keeps_that_distance():
    """500 rows at 0, 10, ..., 4990 become 250 at 0, 20, ..., 4980."""
    assert MAX_HISTORY == 500
    assert [row[0] for row in history_of(range(0, 4990, 10))] == list(range(0, 4990, 10))
    kept = list(range(0, 5000, 20))
    assert [row[0] for row in history_of(range(0, 5000, 10))] == kept
    # The 251st row needs no distance; then the mean one, 4985 / 250 = 19.94, is needed.
    further = [row[0] for row in history_of([*range(0, 5000, 10), 4985, 5000, 5005, 5010, 5025])]
    assert further == [*kept, 4985, 5005, 5025]


def test_a_counter_that_begins_again_is_remembered():
    steps = [*range(0, 5000, 10), 4990, 0, 5]
    assert [row[0] for row in history_of(steps)][250:] == [4990, 0, 5]


@pytest.mark.parametrize("n_rows", [0, 3])
def test_the_history_is_restored(n_rows):
    trainer, other = make_trainer(), make_trainer()
    for step in range(n_rows):
        trainer.remember(dict.fromkeys(HISTORY, float(step)))
    other.restore(trainer.state())
    assert other.history == [[float(step)] * len(HISTORY) for step in range(n_rows)]


@pytest.mark.parametrize("normalize_obs", [False, True])
def test_a_restored_trainer_goes_on_bit_for_bit(normalize_obs):
    trainer = make_trainer(normalize_obs=normalize_obs)
    for _ in range(10):
        trainer.update(Batch(*batch(trainer)))
    other = make_trainer(seed=1, normalize_obs=normalize_obs)
    other.restore(unpack_state(json.loads(json.dumps(pack_state(trainer.state())))))
    for t in (trainer, other):
        for _ in range(10):
            t.update(Batch(*batch(t)))  # the draws come from the restored generator
    assert other.metrics() == trainer.metrics()
    mine, theirs = trainer.discriminator.state_dict(), other.discriminator.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(th.equal(mine[name], theirs[name]) for name in mine)


def test_batches_of_several_updates_at_once_are_the_same_updates():
    """SBX draws them so; SB3 one after the other."""
    at_once, in_turn = make_trainer(), make_trainer()
    obs, skills = batch(at_once, 48)
    log_q = at_once.learn((16, 16), Batch(obs, skills))
    pieces = [
        in_turn.learn((16, 16), Batch(obs[rows], skills[rows])) for rows in th.arange(48).split(16)
    ]
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
    log_q = some.learn((16, 6), Batch(obs, skills))
    some.step()
    for rows, paid in zip(th.arange(32).split(16), log_q.split(16), strict=True):
        with th.no_grad():
            before = expected.discriminator.log_prob(obs[rows], skills[rows])
        th.testing.assert_close(paid, before, rtol=0, atol=1e-6)
        expected.update(Batch(obs[rows[:6]], skills[rows[:6]]))
    assert some.n_updates == 2
    for mine, other in zip(
        some.discriminator.parameters(), expected.discriminator.parameters(), strict=True
    ):
        th.testing.assert_close(mine, other, rtol=0, atol=0)


# -- cross-fitting ---------------------------------------------------------------------------


def folded(trainer: DiscriminatorTrainer, n: int = 32, with_actions: bool = False) -> Batch:
    actions = th.rand(n, 1) if with_actions else None
    return Batch(*batch(trainer, n), actions, trainer.rng.integers(2, size=n).astype(np.uint8))


def test_rows_of_folds():
    """The worked example of the docstring."""
    fold_rows = FoldRows.of(np.array([0, 1, 0, 0], np.uint8))
    assert fold_rows.rows().tolist() == [[0, 2, 3], [1, 0, 0]]
    np.testing.assert_allclose(fold_rows.weights(), [[1 / 3] * 3, [1, 0, 0]])
    assert fold_rows.places().tolist() == [0, 3, 1, 2]
    some = fold_rows.first(3)  # half of each fold's rows, rounded up
    assert some.rows().tolist() == [[0, 2], [1, 0]]
    np.testing.assert_allclose(some.weights(), [[0.5, 0.5], [1, 0]])
    assert fold_rows.first(4) is fold_rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "of_trainer"),
    [
        ({}, {}),
        ({"normalize_obs": True}, {}),
        ({"spectral_norm": True}, {}),
        ({}, {"max_grad_norm": 0.05, "weight_decay": 0.1}),
        ({"action_space": spaces.Box(-1.0, 1.0, (1,))}, {}),
    ],
)
@pytest.mark.parametrize("n_learned", [32, 12])
def test_cross_fitting_is_a_loop_of_two_plain_nets(options, of_trainer, n_learned, monkeypatch):
    """Each learns from its own half; the other one answers."""
    trainer = make_trainer(cross_fit=True, **options)
    trainer.optimizer = th.optim.AdamW(
        trainer.discriminator.parameters(), 1e-2, weight_decay=of_trainer.get("weight_decay", 0.0)
    )
    trainer.max_grad_norm = of_trainer.get("max_grad_norm")
    trainer.discriminator.has_learned.fill_(True)
    nets = split_nets(trainer.discriminator, net_arch=[16], **options)
    hand = [DiscriminatorTrainer(net, 1e-2, 0, **of_trainer) for net in nets]
    for net in nets:
        monkeypatch.setattr(net, "update_normalizer", lambda obs: None)
    for _ in range(20):
        given = folded(trainer, 64, "action_space" in options)
        log_q = trainer.learn((32, n_learned), given)
        for part in (slice(0, 32), slice(32, 64)):
            batch = given.take(part)
            own = [np.flatnonzero(batch.folds == fold) for fold in (0, 1)]
            if n_learned < 32:
                own = [rows[: n_learned // 2] for rows in own]
            for net, rows, each in zip(nets, own, hand, strict=True):
                each.step()
                if options.get("normalize_obs"):  # the statistics are of both halves
                    Discriminator.update_normalizer(net, batch.next_obs[np.concatenate(own)])
                each.backward(Batch(*batch.take(rows)[:3]), len(rows))
            np.testing.assert_allclose(log_q[part], held_out_log_q(nets, batch), atol=1e-5)
    assert trainer.n_updates == 39


def test_the_gradient_of_a_net_depends_on_its_own_fold_alone():
    gradients = []
    for changed in (None, 0, 1):
        trainer = make_trainer(cross_fit=True)
        given = folded(trainer)
        if changed is not None:
            given.next_obs[th.as_tensor(given.folds == changed)] += 1
        trainer.backward(given, 32)
        gradients.append([p.grad for p in trainer.discriminator.net.parameters()])
    for before, first, second in zip(*gradients, strict=True):
        th.testing.assert_close(first[1], before[1], rtol=0, atol=0)
        th.testing.assert_close(second[0], before[0], rtol=0, atol=0)
        assert not th.allclose(first[0], before[0]) and not th.allclose(second[1], before[1])


def test_a_net_that_has_not_learned_from_a_skill_pays_nothing_for_it():
    trainer = make_trainer(cross_fit=True)
    obs, skills = th.randn(6, 2), th.tensor([0, 1, 2, 0, 1, 0])
    folds = np.array([0, 0, 0, 1, 1, 0], np.uint8)
    trainer.update(Batch(obs, skills, folds=folds))
    # Net 0 has learned from all three skills, net 1 from 0 and 1.
    assert trainer.discriminator.has_learned.tolist() == [[True] * 3, [True, True, False]]
    rewards = trainer.discriminator.reward(obs, skills, folds=folds)
    assert (rewards == 0).tolist() == [False, False, True, False, False, False]


def test_the_memory_of_two_nets_holds_many_skills():
    """Folds are bytes, the number of a skill may be larger."""
    discriminator = Discriminator(SPACE, 300, net_arch=[16], cross_fit=True)
    trainer = DiscriminatorTrainer(discriminator, 1e-2, 0)
    obs, skills, fold = th.randn(300, 2), th.arange(300), np.zeros(300, np.uint8)
    trainer.update(Batch(obs, skills, folds=fold))
    assert discriminator.has_learned.sum(dim=1).tolist() == [300, 0]
    # The net that has learned nothing answers for the first fold.
    assert (discriminator.reward(obs, skills, folds=fold) == 0).all()
    assert (discriminator.reward(obs, skills, folds=fold + 1) != 0).all()


def test_the_loss_of_two_nets_is_their_mean():
    """Nets that know nothing have a loss of log 3 each."""
    trainer = make_trainer(cross_fit=True)
    with th.no_grad():
        for parameter in trainer.discriminator.parameters():
            parameter.zero_()
    trainer.update(folded(trainer))
    assert trainer.metrics()["discriminator_loss"] == pytest.approx(math.log(3), abs=1e-6)


def test_one_fold_alone_teaches_one_net():
    trainer = make_trainer(cross_fit=True)
    before = [p.detach().clone() for p in trainer.discriminator.net.parameters()]
    obs, skills = batch(trainer)
    folds = np.zeros(32, np.uint8)
    first_loss = F.cross_entropy(split_nets(trainer.discriminator, net_arch=[16])[0](obs), skills)
    for step in range(5):
        trainer.update(Batch(obs, skills, folds=folds))
        if step == 0:
            assert trainer.metrics()["discriminator_loss"] == pytest.approx(first_loss.item())
    for then, now in zip(before, trainer.discriminator.net.parameters(), strict=True):
        assert not th.equal(then[0], now[0]) and th.equal(then[1], now[1])
    assert (trainer.discriminator.reward(obs, skills, folds=folds) == 0).all()


@pytest.mark.slow
def test_held_out_metrics_show_what_was_learned_by_heart():
    """Random labels: what a net has seen it can learn, the other half it cannot know."""
    trainer = make_trainer(cross_fit=True)
    given = Batch(th.randn(40, 2), th.arange(40) % 3, None, np.tile([0, 1], 20).astype(np.uint8))
    for _ in range(400):
        trainer.update(given)
    metrics = trainer.metrics()
    assert metrics["discriminator_loss"] < 0.6  # log 3 = 1.1
    assert metrics["log_q_z"] < -1.1 and metrics["accuracy"] < 0.7


def test_a_restored_cross_fitted_trainer_continues_bit_for_bit():
    trainer = make_trainer(cross_fit=True)
    for _ in range(10):
        trainer.update(folded(trainer))
    other = make_trainer(seed=1, cross_fit=True)
    other.restore(unpack_state(json.loads(json.dumps(pack_state(trainer.state())))))
    for each in (trainer, other):
        for _ in range(10):
            each.update(folded(each))
    assert other.metrics() == trainer.metrics()
    mine, theirs = trainer.discriminator.state_dict(), other.discriminator.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(th.equal(mine[name], theirs[name]) for name in mine)


# -- rollouts of before ----------------------------------------------------------------------


def rollouts(trainer: DiscriminatorTrainer, n_rollouts: int, batch_size: int | None = None):
    """What each epoch of two learns from: the numbers of the rollouts, of 10 transitions each."""
    seen: list[list[int]] = []
    trainer.update = lambda batch: seen.append(batch.next_obs[:, 0].int().tolist())
    for number in range(n_rollouts):
        rollout = Batch(th.full((10, 2), float(number)), th.zeros(10).long(), th.zeros(10, 1))
        trainer.update_epochs(rollout, 2, batch_size)
    return seen


def test_with_three_rollouts_no_older_one_is_learned_from():
    trainer = DiscriminatorTrainer(Discriminator(SPACE, 3), 1e-2, 0, n_rollouts=3)
    seen = rollouts(trainer, 6)
    for number in range(6):
        for epoch in seen[2 * number : 2 * number + 2]:
            # All of the newest, and as many of the two before: 10 of 20, without replacement.
            assert epoch.count(number) == 10
            assert len(epoch) == (20 if number else 10)
            assert set(epoch) <= set(range(max(0, number - 2), number + 1))
            assert all(epoch.count(before) <= 10 for before in range(6))
    assert set(seen[-1]) == {3, 4, 5}
    assert seen[-1] != seen[-2]  # each epoch draws for itself


def test_smaller_batches_are_parts_of_an_epoch():
    trainer = DiscriminatorTrainer(Discriminator(SPACE, 3), 1e-2, 0, n_rollouts=2)
    assert [len(each) for each in rollouts(trainer, 2, 8)] == [8, 2, 8, 2, *[8, 8, 4] * 2]


def test_one_rollout_is_forgotten():
    trainer = make_trainer()
    assert [set(epoch) for epoch in rollouts(trainer, 3)] == [{0}, {0}, {1}, {1}, {2}, {2}]
    assert len(trainer.past) == 0
