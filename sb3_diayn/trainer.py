"""Trains a discriminator on batches, wherever they come from."""

import math
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_diayn.arrays import Arrays, restore_modules, save_modules
from sb3_diayn.checkpoint import DISCRIMINATOR_OPTIONS, HISTORY, State
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.extraction import ObsFunction
from sb3_diayn.observations import take_parts
from sb3_diayn.rewards import SkillReward

Batch = tuple[PyTorchObs, th.Tensor, th.Tensor]

RUNNING_RATE = 0.01  # a running mean over about the last 100 updates
MAX_HISTORY = 500
# Half of 256, the smallest part whose skills were compared with those of the whole batch.
MIN_PART = 128


class DiscriminatorTrainer:
    """
    A discriminator, its optimiser, its random numbers and its running statistics: all that has to
    be saved to go on with it.

    :param discriminator: what to train
    :param learning_rate: of Adam
    :param seed: of the draws of batches; None for a random one
    :param weight_decay: of AdamW (Loshchilov and Hutter, 2019); 0 is plain Adam
    :param max_grad_norm: bound of the gradient's norm; None for none
    """

    def __init__(
        self,
        discriminator: Discriminator,
        learning_rate: float,
        seed: int | None,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
    ) -> None:
        self.discriminator = discriminator
        self.max_grad_norm = max_grad_norm
        self.optimizer = th.optim.AdamW(
            discriminator.parameters(), learning_rate, weight_decay=weight_decay, fused=True
        )
        self.rng = np.random.default_rng(seed)
        self.n_updates = 0
        self.has_gradient = False
        self.history: list[list[float]] = []
        # Running loss and accuracy stay on the device: reading them would make it wait.
        self._running = th.zeros(2, device=discriminator.log_p.device)

    def update(self, obs: PyTorchObs, skills: th.Tensor, actions: th.Tensor | None = None) -> None:
        """
        One gradient step on the cross-entropy of z given s'.

        :param obs: next observations of the environment, shape ``(n, d)``
        :param skills: the skills that led there, int64, shape ``(n,)``
        :param actions: see :meth:`Discriminator.forward`
        """
        self.backward(obs, skills, actions)
        self.step()

    def backward(
        self, obs: PyTorchObs, skills: th.Tensor, actions: th.Tensor | None = None
    ) -> th.Tensor:
        """
        The first half of :meth:`update`: the gradient, which :meth:`step` applies later. Until
        then the discriminator is the one that gave the result.

        :param obs: next observations of the environment, shape ``(n, d)``
        :param skills: the skills that led there, int64, shape ``(n,)``
        :param actions: see :meth:`Discriminator.forward`
        :return: log q(z|s') in nats, no gradient, shape ``(n,)``
        """
        if self.discriminator.normalize_obs:
            self.discriminator.update_normalizer(obs)
        is_estimating = self.discriminator.spectral_norm  # singular values, by this very pass
        if is_estimating:
            self.discriminator.train()
        losses, accuracy = self.discriminator.loss(obs, skills, actions)
        if is_estimating:
            self.discriminator.eval()
        loss = losses.mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.has_gradient = True
        rate = max(RUNNING_RATE, 1 / (self.n_updates + 1))
        self._running.lerp_(th.stack([loss.detach(), accuracy]), rate)
        return -losses.detach()

    def update_epochs(self, batch: Batch, n_epochs: int, batch_size: int | None) -> None:
        """
        Updates on all of a rollout, in shuffled smaller batches.

        :param batch: next observations, skills and actions, see :meth:`update`
        :param n_epochs: how many times
        :param batch_size: of the smaller batches; None for all at once
        """
        obs, skills, actions = batch
        for _ in range(n_epochs):
            order = th.as_tensor(self.rng.permutation(len(skills)), device=skills.device)
            for rows in th.split(order, batch_size or len(skills)):
                self.update(take_parts(obs, rows), skills[rows], actions[rows])

    def learn(
        self,
        sizes: tuple[int, int],
        obs: PyTorchObs,
        skills: th.Tensor,
        actions: th.Tensor | None = None,
    ) -> th.Tensor:
        """
        Finish with the batch before and begin with this one. A replay buffer calls it while the
        policy is trained: one forward pass then serves the reward and the gradient, and no reward
        is older than the discriminator.

        :param sizes: what the policy makes an update with (SBX draws the batches of several updates
            at once), and how many transitions of that the discriminator learns from
        :param obs: see :meth:`backward`
        :param skills: see :meth:`backward`
        :param actions: see :meth:`backward`
        :return: see :meth:`backward`
        """
        batch_size, n_learned = sizes
        log_q = []
        for start in range(0, len(skills), batch_size):
            self.step()
            middle, end = start + n_learned, start + batch_size
            log_q.append(self.backward(*_rows(slice(start, middle), obs, skills, actions)))
            if middle < end:
                with th.no_grad():
                    rest = _rows(slice(middle, end), obs, skills, actions)
                    log_q.append(self.discriminator.log_prob(*rest))
        return log_q[0] if len(log_q) == 1 else th.cat(log_q)

    def step(self) -> None:
        """Apply the gradient of :meth:`backward`, if there is one that was not applied yet."""
        if self.has_gradient:
            if self.max_grad_norm is not None:
                nn.utils.clip_grad_norm_(self.discriminator.net.parameters(), self.max_grad_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.has_gradient = False
            self.n_updates += 1

    @th.no_grad()
    def update_p_z(
        self, obs: PyTorchObs, skills: th.Tensor, actions: th.Tensor | None = None
    ) -> None:
        """
        Set p(z) to the softmax of the mean log q(z|s') of each skill, as the original code does
        when it learns p(z). A skill without observations keeps its log p(z) in place of the mean.

        :param obs: next observations of the environment, shape ``(n, d)``
        :param skills: the skills that led there, int64, shape ``(n,)``
        :param actions: see :meth:`Discriminator.forward`
        """
        log_p = self.discriminator.log_p
        log_q = self.discriminator.log_prob(obs, skills, actions)
        counts = th.bincount(skills, minlength=len(log_p))
        sums = th.zeros_like(log_p).index_add_(0, skills, log_q)
        means = th.where(counts > 0, sums / counts.clamp(min=1), log_p)
        log_p.copy_(th.log_softmax(means, dim=0))

    def metrics(self) -> dict[str, float]:
        """
        :return: ``discriminator_loss`` and ``log_q_z`` (nats) and ``accuracy``, running means over
            the last batches; ``effective_skills``, exp(H[p(z)]); and ``n_updates``
        """
        loss, accuracy = self._running.tolist()
        log_p = self.discriminator.log_p
        metrics = {
            "effective_skills": math.exp(-(log_p.exp() * log_p).sum().item()),
            "n_updates": self.n_updates,
        }
        if self.n_updates:
            metrics |= {"discriminator_loss": loss, "log_q_z": -loss, "accuracy": accuracy}
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
        """:return: everything that changes in training, see :meth:`restore`"""
        extra: Arrays = {
            "running": self._running.cpu().numpy(),
            "history": np.array(self.history, np.float64).reshape(-1, len(HISTORY)),
        }
        return {
            "counters": {"n_updates": self.n_updates},
            "random_state": self.rng.bit_generator.state,
            "arrays": save_modules(self.discriminator, self.optimizer, extra),
        }

    def restore(self, state: State) -> None:
        """:param state: from :meth:`state`"""
        extra: dict[str, Any] = restore_modules(state["arrays"], self.discriminator, self.optimizer)
        self._running.copy_(th.as_tensor(extra["running"]))
        self.history = extra["history"].tolist()
        self.n_updates = state["counters"]["n_updates"]
        self.rng.bit_generator.state = state["random_state"]


def learned_part(batch_size: int) -> int:
    """
    :param batch_size: of the policy
    :return: how many transitions of each the discriminator learns from unless told otherwise: half,
        but 128 at least, or all that there are
    """
    return max(batch_size // 2, min(batch_size, MIN_PART))


def _rows(
    rows: slice, obs: PyTorchObs, skills: th.Tensor, actions: th.Tensor | None
) -> tuple[PyTorchObs, th.Tensor, th.Tensor | None]:
    return take_parts(obs, rows), skills[rows], None if actions is None else actions[rows]


def build(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    n_skills: int,
    options: dict[str, Any],
    seed: int | None,
    device: th.device,
    obs_function: ObsFunction | None = None,
) -> tuple[Discriminator, DiscriminatorTrainer, SkillReward]:
    """
    :param observation_space: of the environment, without the skill
    :param action_space: of the environment
    :param n_skills: the number of skills, K
    :param options: of ``DIAYNCallback``
    :param seed: of the draws of batches; None for a random one
    :param device: where the discriminator is
    :param obs_function: see :class:`Discriminator`
    :return: a new discriminator, what trains it, and what the agent is paid
    """
    discriminator = Discriminator(
        observation_space,
        n_skills,
        action_space=action_space if options["use_actions"] else None,
        obs_function=obs_function,
        **{name: options[name] for name in DISCRIMINATOR_OPTIONS},
    ).to(device)
    trainer = DiscriminatorTrainer(
        discriminator,
        options["learning_rate"],
        seed,
        options["weight_decay"],
        options["max_grad_norm"],
    )
    skill_reward = SkillReward(
        discriminator,
        options["reward_scale"],
        options["skill_reward_weight"],
        options["task_reward_weight"],
        options["min_task_return"],
    )
    return discriminator, trainer, skill_reward
