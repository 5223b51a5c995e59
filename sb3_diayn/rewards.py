"""What the agent is rewarded for."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from sb3_diayn.discriminator import N_FOLDS, Batch, Discriminator, FoldLinear, Folds
from sb3_diayn.extractors import VectorExtractor, to_batch
from sb3_diayn.observations import FloatArray, Obs, map_obs
from sb3_diayn.representation import Representation

# Of the next observation, the skill, the action and the observation before the step.
RewardOfOne = Callable[[Obs, int, npt.NDArray[Any] | int, Obs], float]


@dataclass(frozen=True)
class SkillReward:
    """
    The agent's reward for a transition:
    ``scale * (skill_weight * skill reward + task_weight * task reward - step_cost)``.

    The one object that wrappers and buffers share with the callback. They always see the
    discriminator of this moment, since they hold the same object.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> from gymnasium import spaces
        >>> from sb3_diayn import Discriminator, SkillReward
        >>> discriminator = Discriminator(spaces.Box(-1.0, 1.0, (2,)), n_skills=4)
        >>> reward = SkillReward(discriminator, scale=10.0, task_weight=0.5)
        >>> reward.mix(2.0, -3.0)  # 10 * (1 * 2 + 0.5 * -3)
        5.0

    :param discriminator: q(z | s'), or METRA's phi
    :param scale: factor of the whole reward
    :param skill_weight: weight of the skill reward (nats)
    :param task_weight: weight of the environment's own reward
    :param min_task_return: a replay buffer gives the skill reward only in episodes of at least this
        task return, see :class:`~sb3_diayn.buffers.EpisodeGate`; None for all episodes
    :param absorbing: a terminal state is rewarded as if the skill stayed there for ever, see
        :meth:`terminal_factor`
    :param step_cost: of each step that is played (nats). With ``absorbing`` a terminal state is
        rewarded without it, so that skills hurry to the ends at which they are recognised
    """

    discriminator: Discriminator
    scale: float = 1.0
    skill_weight: float = 1.0
    task_weight: float = 0.0
    min_task_return: float | None = None
    absorbing: bool = False
    step_cost: float = 0.0

    def __call__(
        self,
        next_obs: PyTorchObs,
        skill: th.Tensor,
        task_reward: th.Tensor,
        actions: th.Tensor | None = None,
        factors: th.Tensor | None = None,
        folds: Folds | None = None,
        obs: PyTorchObs | None = None,
    ) -> th.Tensor:
        """
        :param next_obs: next observations of the environment, shape ``(n, d)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :param task_reward: the environment's own rewards, shape ``(n,)``
        :param actions: see :meth:`Discriminator.forward`
        :param factors: of the skill rewards, shape ``(n,)``; None for 1
        :param folds: see :meth:`Discriminator.log_prob`
        :param obs: observations before the step, shape ``(n, d)``, where the objective reads them
        :return: rewards, shape ``(n,)``
        """
        with th.no_grad():
            log_q = self.discriminator.score(Batch(next_obs, skill, actions, folds, obs))
            return self.from_log_q(log_q, skill, task_reward, factors)

    def from_log_q(
        self,
        log_q: th.Tensor,
        skill: th.Tensor,
        task_reward: th.Tensor,
        factors: th.Tensor | None = None,
    ) -> th.Tensor:
        """
        The second half of a call, for those who know log q(z|s') already.

        :param log_q: from :meth:`Discriminator.score`, no gradient, shape ``(n,)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :param task_reward: the environment's own rewards, shape ``(n,)``
        :param factors: see the call
        :return: rewards, shape ``(n,)``
        """
        skill_reward = self.discriminator.to_reward(log_q, skill)
        if factors is not None:
            skill_reward = skill_reward * factors
        reward: th.Tensor = self.mix(skill_reward, task_reward)
        return reward

    def mix(self, skill_reward: Any, task_reward: Any) -> Any:
        """
        :param skill_reward: skill rewards in nats, a number, array or tensor
        :param task_reward: the environment's own rewards, the same shape
        :return: the weighted sum of the two
        """
        if (self.scale, self.skill_weight, self.task_weight, self.step_cost) == (1, 1, 0, 0):
            return skill_reward  # nearly always so, and four operations less in each batch
        weighted = self.skill_weight * skill_reward + self.task_weight * task_reward
        return self.scale * (weighted - self.step_cost)

    def later(self, skill_reward: float, gamma: float) -> float:
        """
        :param skill_reward: of a terminal state (nats)
        :param gamma: the discount factor
        :return: the reward of all steps that would follow, see :meth:`terminal_factor`
        """
        return self.scale * self.skill_weight * (self.terminal_factor(gamma) - 1) * skill_reward

    def terminal_factor(self, gamma: float) -> float:
        """
        How often a terminal state gives its skill reward. Without ``absorbing`` once: an agent then
        gains or loses all later rewards by ending the episode, whatever it could have shown in
        them. With it the terminal state is an absorbing one, as in Kostrikov et al., *Discriminator
        Actor-Critic*, 2019 (https://arxiv.org/abs/1809.02925): it gives r at once and again in each
        step that follows, 1 + gamma + gamma^2 + ... = 1 / (1 - gamma) times r. The rewards of the
        task are not repeated.

        :param gamma: the discount factor
        :return: the factor of the skill reward
        """
        return 1 / (1 - gamma) if self.absorbing else 1.0

    def batch(
        self,
        next_obs: Obs,
        skills: npt.NDArray[Any],
        actions: npt.NDArray[Any],
        obs: Obs | None = None,
    ) -> FloatArray:
        """
        The skill rewards of one step of many environments, as a wrapper sees it.

        :param next_obs: next observations of the environments, shape ``(n, d)``
        :param skills: indices of skills, shape ``(n,)``
        :param actions: the actions as the environments take them, shape ``(n, ...)``
        :param obs: observations before the step, where the objective reads them
        :return: skill rewards in nats, float32, shape ``(n,)``
        """
        disc = self.discriminator
        device = disc.log_p.device
        inputs = None
        if disc.action_space is not None:
            scaled = disc.scale_action(actions).reshape(len(skills), -1)
            inputs = th.as_tensor(scaled, device=device)
        skill = th.as_tensor(skills, device=device).long()
        before = None
        if disc.reads_obs and obs is not None:
            before = to_batch(obs, disc.observation_space, device)
        after = to_batch(next_obs, disc.observation_space, device)
        with th.no_grad():
            score = disc.score(Batch(after, skill, inputs, obs=before))
            on_cpu: FloatArray = disc.to_reward(score, skill).cpu().numpy()
        return on_cpu

    def single(
        self, next_obs: Obs, skill: int, action: npt.NDArray[Any] | int, obs: Obs | None = None
    ) -> float:
        """
        The skill reward of one transition.

        :param next_obs: next observation of the environment, shape ``(d,)``
        :param skill: index of the skill
        :param action: the action as the environment takes it
        :param obs: observation before the step, where the objective reads it
        :return: skill reward in nats
        """
        after = map_obs(lambda part: np.asarray(part)[None], next_obs)
        before = None if obs is None else map_obs(lambda part: np.asarray(part)[None], obs)
        return float(self.batch(after, np.array([skill]), np.asarray(action)[None], before)[0])

    def of_one(self) -> RewardOfOne:
        """
        :return: :meth:`single`, or where the discriminator is a plain net over a vector on the CPU
            the same in numpy, in a quarter of the time: on one row torch spends most of it on its
            calls. It shares the parameters, so it follows the training
        """
        disc = self.discriminator
        extractor: Any = disc.extractor
        is_plain = disc.action_space is None and isinstance(extractor, VectorExtractor)
        if is_plain and disc.log_p.device.type == "cpu":
            net = _NumpyNet(disc, extractor)
            if isinstance(disc, Representation):
                return _NumpyMetraReward(disc, net)
            return _NumpyReward(disc, net)
        return self.single


class _NumpyReward:
    """``SkillReward.single`` of plain nets."""

    def __init__(self, discriminator: Discriminator, net: "_NumpyNet") -> None:
        self.discriminator, self.net = discriminator, net
        self.log_p = discriminator.log_p.numpy()

    def __call__(
        self, next_obs: Obs, skill: int, action: npt.NDArray[Any] | int, obs: Obs = None
    ) -> float:
        with np.errstate(all="ignore"):  # check_finite says it better if the discriminator diverges
            logits = self.net(next_obs)
            logits -= logits.max()
            log_q = float(logits[skill] - np.log(np.exp(logits).sum()))
        disc = self.discriminator
        if disc.log_q_min is not None:
            log_q = max(log_q, disc.log_q_min)
        return log_q - float(self.log_p[skill]) if disc.subtract_log_p else log_q


class _NumpyMetraReward:
    """The same of METRA's objective."""

    def __init__(self, representation: Representation, net: "_NumpyNet") -> None:
        self.net, self.skill_vectors = net, representation.skill_vectors.numpy()

    def __call__(
        self, next_obs: Obs, skill: int, action: npt.NDArray[Any] | int, obs: Obs
    ) -> float:
        with np.errstate(all="ignore"):
            return float((self.net(next_obs) - self.net(obs)) @ self.skill_vectors[skill])


class _NumpyNet:
    """``Discriminator.net`` for one row. Its arrays are the memory of the tensors."""

    def __init__(self, discriminator: Discriminator, extractor: VectorExtractor) -> None:
        self.normalize_obs = discriminator.normalize_obs
        self.indices = None if extractor.reads_all else extractor.indices.numpy()
        self.mean, self.var = discriminator.obs_mean.numpy(), discriminator.obs_var.numpy()
        linear = [layer for layer in discriminator.net if isinstance(layer, nn.Linear | FoldLinear)]
        folds = range(N_FOLDS) if discriminator.cross_fit else [None]
        self.nets = [[_NumpyLinear(layer, fold) for layer in linear] for fold in folds]

    def __call__(self, obs: Obs) -> FloatArray:
        row: FloatArray = np.asarray(obs, np.float32)
        if self.indices is not None:
            row = row[self.indices]
        if self.normalize_obs:
            row = (row - self.mean) / np.sqrt(self.var + np.float32(1e-8))
        logits = [_net_logits(net, row) for net in self.nets]
        return logits[0] if len(logits) == 1 else np.float32(0.5) * (logits[0] + logits[1])


def _net_logits(layers: "list[_NumpyLinear]", row: FloatArray) -> FloatArray:
    *hidden, last = layers
    for layer in hidden:
        row = np.maximum(layer(row), 0)
    return last(row)


class _NumpyLinear:
    """``nn.Linear``, or one of a ``FoldLinear``, for one row, with spectral norm or without."""

    def __init__(self, layer: nn.Linear | FoldLinear, fold: int | None) -> None:
        weight: Any = layer.weight
        bias: Any = layer.bias
        norm: Any = None
        if is_parametrized(layer, "weight"):
            norms: Any = layer.parametrizations["weight"]  # type: ignore[index]
            weight, norm = norms.original, norms[0]
        if fold is not None:
            weight, bias = weight[fold].T, bias[fold]
            norm = None if norm is None else norm.norms[fold]
        self.weight: FloatArray = weight.detach().numpy()
        self.bias: FloatArray = bias.detach().numpy()
        self.singular = None if norm is None else (norm._u.numpy(), norm._v.numpy())

    def __call__(self, row: FloatArray) -> FloatArray:
        product: FloatArray = self.weight @ row
        if self.singular is not None:
            u, v = self.singular
            product /= u @ (self.weight @ v)  # the estimate of the largest singular value
        return product + self.bias


def warn_of_unattended_learning() -> None:
    """Of a ``learn`` without the callback, after one with it."""
    warnings.warn(
        "This learn() has no DIAYNCallback, but the environments still have the discriminator of "
        "an earlier one. The model learns its skill reward, and the discriminator does not learn. "
        "Pass callback=DIAYNCallback() to learn skills. To learn the task, train the model that "
        "export_skill(model, skill, env=env) returns.",
        stacklevel=3,
    )
