"""What trains the discriminator."""

import math
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from torch import nn

from sb3_diayn.arguments import Count
from sb3_diayn.discriminator import Batch, Discriminator, FoldRows
from sb3_diayn.observations import map_obs

# What a discriminator remembers of its training, by the names in SB3's logs.
HISTORY = (
    "time/total_timesteps",
    "diayn/log_q_z",
    "diayn/accuracy",
    "diayn/skill_reward",
    "diayn/skill_return",
    "diayn/task_return",
)

State = dict[str, Any]
Arrays = dict[str, npt.NDArray[Any]]
RUNNING_RATE = 0.01  # a running mean over about the last 100 updates
MAX_HISTORY = 500
# Half of 256, the smallest part that was compared with the whole batch.
MIN_PART = 128
# A moment of Adam below this moves a weight by less than 1e-22 times the learning rate: by nothing.
# In so many updates it does not become denormal: 0.9**100 is 3e-5.
NEGLIGIBLE, TIDY_FREQ = 1e-30, 100


class DiscriminatorTrainer:
    """
    A discriminator, its optimiser, its random numbers and its running statistics: all that has to
    be saved to continue its training.

    :param discriminator: what to train
    :param learning_rate: of Adam
    :param seed: of the draws of batches; None for a random one
    :param weight_decay: of AdamW (Loshchilov and Hutter, 2019); 0 is plain Adam
    :param max_grad_norm: bound of the norm of a net's gradient; None for none
    :param n_rollouts: how many rollouts an on-policy discriminator learns from, see
        :meth:`update_epochs`
    """

    def __init__(
        self,
        discriminator: Discriminator,
        learning_rate: float,
        seed: int | None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        n_rollouts: Count = 1,
    ) -> None:
        self.discriminator = discriminator
        self.max_grad_norm = max_grad_norm
        self.optimizer = th.optim.AdamW(
            discriminator.parameter_groups(),
            learning_rate,
            weight_decay=weight_decay,
            fused=True,
        )
        self.rng = np.random.default_rng(seed)
        self.n_updates = 0
        self.has_gradient = False
        self.history: list[list[float]] = []
        self.past: deque[Batch] = deque(maxlen=n_rollouts - 1)  # rollouts, the newest last
        # Running loss and accuracy stay on the device: reading them would make it wait.
        n_running = len(discriminator.running_names)
        self._running = th.zeros(n_running, device=discriminator.log_p.device)

    def update(self, batch: Batch) -> None:
        """
        One gradient step on the objective, for DIAYN the cross-entropy of z given s'.

        :param batch: transitions
        """
        self.backward(batch, len(batch.skills))
        self.step()

    def backward(self, batch: Batch, n_learned: int) -> th.Tensor:
        """
        The first half of :meth:`update`: the gradient, which :meth:`step` applies later. Until
        then the discriminator is the one that gave the result.

        :param batch: transitions
        :param n_learned: how many of them, the first ones, the discriminator learns from; with
            ``cross_fit`` each net from the first ones of its fold, half as many
        :return: :meth:`Discriminator.score` of all of them, no gradient, shape ``(n,)``
        """
        if self.discriminator.cross_fit:
            return self._backward_folds(batch, n_learned)
        learned = batch.take(slice(n_learned))
        if self.discriminator.normalize_obs:
            self.discriminator.update_normalizer(learned.next_obs)
        self._estimate(True)
        loss, score, measured = self.discriminator.objective(learned)
        self._estimate(False)
        self._finish_backward(loss, loss.detach(), *measured)
        if n_learned < len(batch.skills):
            with th.no_grad():
                rest = batch.take(slice(n_learned, None))
                score = th.cat([score, self.discriminator.score(rest)])
        return score

    def _backward_folds(self, batch: Batch, n_learned: int) -> th.Tensor:
        """Each net learns from its own fold; the other net is the one that answers."""
        assert batch.folds is not None
        fold_rows = FoldRows.of(batch.folds)
        learned = fold_rows.first(n_learned)
        if self.discriminator.normalize_obs:
            read = batch.take(learned.transitions())
            self.discriminator.update_normalizer(read.next_obs)
        self._estimate(True)
        loss = self.discriminator.fold_loss(batch, learned)
        self._estimate(False)
        with th.no_grad():
            log_q, accuracy = self.discriminator.held_out(batch, fold_rows)
        n_learning = sum(len(part) > 0 for part in learned.of_fold)
        self._finish_backward(loss, loss.detach() / n_learning, accuracy, log_q.mean())
        return log_q

    def _estimate(self, mode: bool) -> None:
        """Whether forward passes improve the estimates of singular values."""
        if self.discriminator.spectral_norm:
            self.discriminator.net.train(mode)

    def _finish_backward(self, loss: th.Tensor, *metrics: th.Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self.has_gradient = True
        rate = max(RUNNING_RATE, 1 / (self.n_updates + 1))
        self._running.lerp_(th.stack(metrics), rate)

    def update_epochs(self, rollout: Batch, n_epochs: int, batch_size: int | None) -> None:
        """
        Updates on all of a rollout, in shuffled smaller batches. With ``n_rollouts`` above 1 each
        epoch also has as many transitions of the rollouts before, drawn without replacement.

        :param rollout: transitions
        :param n_epochs: how many times
        :param batch_size: of the smaller batches; None for all at once
        """
        n_new, n_past = len(rollout.skills), sum(len(past.skills) for past in self.past)
        known = _concatenate([*self.past, rollout]) if self.past else rollout
        for _ in range(n_epochs):
            rows = self.rng.permutation(n_new) + n_past
            if n_past:
                past = self.rng.choice(n_past, min(n_new, n_past), replace=False)
                rows = self.rng.permutation(np.concatenate([past, rows]))
            for start in range(0, len(rows), batch_size or len(rows)):
                self.update(known.take(rows[start:][:batch_size]))
        self.past.append(rollout)

    def learn(self, sizes: tuple[int, int], batch: Batch) -> th.Tensor:
        """
        Finish with the batch before and begin with this one. A replay buffer calls it while the
        policy is trained: one forward pass then serves the reward and the gradient, and no reward
        is older than the discriminator.

        :param sizes: what the policy makes an update with (SBX draws the batches of several updates
            at once), and how many transitions of that the discriminator learns from
        :param batch: transitions
        :return: :meth:`Discriminator.score`, no gradient, shape ``(n,)``
        """
        batch_size, n_learned = sizes
        if len(batch.skills) <= batch_size:
            self.step()
            return self.backward(batch, n_learned)
        scores = []
        for start in range(0, len(batch.skills), batch_size):
            self.step()
            scores.append(self.backward(batch.take(slice(start, start + batch_size)), n_learned))
        return th.cat(scores)

    def step(self) -> None:
        """Apply the gradient of :meth:`backward`, if there is one that was not applied yet."""
        if self.has_gradient:
            if self.max_grad_norm is not None:
                _clip_gradients(self.discriminator, self.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.has_gradient = False
            self.n_updates += 1
            if self.n_updates % TIDY_FREQ == 0:
                self._drop_negligible_moments()

    def _drop_negligible_moments(self) -> None:
        """
        The moments of a unit that has died decay until they are denormal numbers (below 1.2e-38),
        with which a CPU is so slow that Adam's step takes three times as long.
        """
        for moments in self.optimizer.state.values():
            for moment in (moments["exp_avg"], moments["exp_avg_sq"]):
                moment.masked_fill_(moment.abs() < NEGLIGIBLE, 0.0)

    @th.no_grad()
    def update_p_z(self, batch: Batch) -> None:
        """
        Set p(z) to the softmax of the mean log q(z|s') of each skill, as the original code does
        when it learns p(z). A skill without observations keeps its log p(z) in place of the mean.

        :param batch: transitions
        """
        log_p, skills = self.discriminator.log_p, batch.skills
        log_q = self.discriminator.log_prob(batch.next_obs, skills, batch.actions, batch.folds)
        counts = th.bincount(skills, minlength=len(log_p))
        sums = th.zeros_like(log_p).index_add_(0, skills, log_q)
        means = th.where(counts > 0, sums / counts.clamp(min=1), log_p)
        log_p.copy_(th.log_softmax(means, dim=0))

    def metrics(self) -> dict[str, float]:
        """
        :return: ``discriminator_loss`` and ``log_q_z`` (nats) and ``accuracy``, running means over
            the last batches, with ``cross_fit`` the latter two held-out; what the discriminator
            itself measures; and ``n_updates``. METRA has no ``log_q_z``
        """
        metrics = self.discriminator.metrics() | {"n_updates": self.n_updates}
        if self.n_updates:
            names = self.discriminator.running_names
            running = dict(zip(names, self._running.tolist(), strict=True))
            if self.discriminator.has_probabilities:
                metrics["log_q_z"] = -running["discriminator_loss"]
            metrics |= running
        return metrics

    def remember(self, metrics: dict[str, float]) -> None:
        """
        Keep a row of the history that is saved with the discriminator, so that any zip can show
        how it was trained. When 500 rows are full, every second one is dropped, and from then on
        rows are kept at the mean distance of those that are there.

        :param metrics: by name, as they are logged; what is missing is NaN
        """
        row = [float(metrics.get(name, math.nan)) for name in HISTORY]
        if len(self.history) > MAX_HISTORY // 2:
            mean_gap = (self.history[-1][0] - self.history[0][0]) / (len(self.history) - 1)
            if 0 <= row[0] - self.history[-1][0] < mean_gap:
                return
        self.history.append(row)
        if len(self.history) >= MAX_HISTORY:
            self.history = self.history[::2]

    def state(self) -> State:
        """:return: everything that changes in training, arrays by name, see :meth:`restore`"""
        tensors = {f"discriminator.{k}": v for k, v in self.discriminator.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{k}": v for k, v in moments.items()}
        tensors["running"] = self._running
        arrays = {k: v.detach().cpu().numpy() for k, v in tensors.items()}
        arrays["history"] = np.array(self.history, np.float64).reshape(-1, len(HISTORY))
        return {
            "counters": {"n_updates": self.n_updates},
            "random_state": self.rng.bit_generator.state,
            "arrays": arrays,
        }

    def restore(self, state: State) -> None:
        """:param state: from :meth:`state`"""
        groups = group_arrays(state["arrays"])
        learned = {k: th.tensor(v) for k, v in groups["discriminator"].items()}
        self.discriminator.load_state_dict(learned)
        moments: dict[int, dict[str, th.Tensor]] = {}
        for key, value in groups["optimizer"].items():
            index, name = key.split(".")
            moments.setdefault(int(index), {})[name] = th.tensor(value)
        param_groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": param_groups})
        self._running.copy_(th.as_tensor(groups["extra"]["running"]))
        self.history = groups["extra"]["history"].tolist()
        self.n_updates = state["counters"]["n_updates"]
        self.rng.bit_generator.state = state["random_state"]


def group_arrays(arrays: Arrays) -> dict[str, Arrays]:
    """
    :param arrays: of :meth:`DiscriminatorTrainer.state`
    :return: the same under "discriminator", "optimizer" and "extra", without these prefixes
    """
    groups: dict[str, Arrays] = {"discriminator": {}, "optimizer": {}, "extra": {}}
    for key, value in arrays.items():
        group, _, name = key.rpartition(".") if "." not in key else key.partition(".")
        groups[group or "extra"][name] = value
    return groups


def default_batch_size(batch_size: int) -> int:
    """
    :param batch_size: of the policy
    :return: how many transitions of each the discriminator learns from unless told otherwise: half,
        but 128 at least, or all that there are
    """
    return max(batch_size // 2, min(batch_size, MIN_PART))


def _clip_gradients(discriminator: Discriminator, max_norm: float) -> None:
    """Of each net of ``cross_fit`` by itself, so that they learn nothing from each other."""
    shared, extractors = list(discriminator.net.parameters()), discriminator.extractors
    if not discriminator.cross_fit:
        nn.utils.clip_grad_norm_([*shared, *extractors[0].parameters()], max_norm)
        return
    for fold, extractor in enumerate(extractors):
        parts = [p.grad[fold] for p in shared if p.grad is not None]  # views
        parts += [p.grad for p in extractor.parameters() if p.grad is not None]
        norm = th.stack([part.norm() for part in parts]).norm()
        for part in parts:
            part.mul_((max_norm / (norm + 1e-6)).clamp(max=1.0))


def _concatenate(batches: list[Batch]) -> Batch:
    next_obs, skills, actions, _, obs = zip(*batches, strict=True)

    def join(parts: Any) -> Any:
        return map_obs(lambda *tensors: th.cat(tensors), *parts)

    before = None if obs[0] is None else join(obs)
    return Batch(join(next_obs), th.cat(skills), th.cat(actions), obs=before)
