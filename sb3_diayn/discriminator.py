"""The discriminator q(z | s')."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sb3_diayn.extraction import ObsFunction, make_extractor
from sb3_diayn.indices import ObsIndices
from sb3_diayn.observations import as_float32
from sb3_diayn.skills import check_n_skills


class Discriminator(nn.Module):
    """
    A classifier that tells from the environment's own next observation which skill led there.

    It reads raw observations, without the one-hot and before any ``VecNormalize``: vectors as
    float32, any other space through SB3's own preprocessing and extractors (images with their
    channels first). Below, "shape ``(n, d)``" stands for a batch of any space; of a ``Dict`` it is
    a dict of tensors.

    :param observation_space: observation space of the environment, without the skill
    :param n_skills: the number of skills, K
    :param net_arch: units of each hidden layer
    :param obs_indices: what it may read (the paper's "prior", for example x-y of an ant), see
        :func:`~sb3_diayn.indices.resolve_selection`; None for everything
    :param obs_function: reads the observation through a function of one's own, which maps a batch
        to features of shape ``(n, f)``; None for SB3's extractors
    :param normalized_image: take three-dimensional boxes of real numbers for images, as the
        option of that name of SB3's extractors does
    :param action_space: pass the environment's action space to make the action a further input
    :param normalize_obs: scale inputs by a running mean and standard deviation, which are part of
        the state of the module
    :param log_q_min: lower bound of log q(z|s') in rewards (nats), against the very large penalty
        of a confident mistake; None for no bound
    :param subtract_log_p: reward log q(z|s') - log p(z) as in equation 3 of the paper; if False,
        reward log q(z|s')
    :param spectral_norm: divide the weights of each layer by their largest singular value (Miyato
        et al., 2018, arXiv 1802.05957). Between two states that are d apart, log q(z|s') then
        changes by at most 1.42 d: it must be a distance that tells skills apart
    :raises ValueError: if an option does not fit the space
    """

    log_p: th.Tensor
    obs_mean: th.Tensor
    obs_var: th.Tensor
    obs_count: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        n_skills: int,
        *,
        net_arch: Sequence[int] = (256, 256),
        obs_indices: ObsIndices = None,
        obs_function: ObsFunction | None = None,
        normalized_image: bool = False,
        action_space: spaces.Space[Any] | None = None,
        normalize_obs: bool = False,
        log_q_min: float | None = None,
        subtract_log_p: bool = True,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        self.n_skills = check_n_skills(n_skills)
        self.observation_space = as_float32(observation_space)
        self.action_space = action_space
        self.normalize_obs, self.subtract_log_p = normalize_obs, subtract_log_p
        self.log_q_min = log_q_min
        self.extractor = make_extractor(
            self.observation_space, obs_indices, obs_function, normalized_image
        )
        if normalize_obs:
            self.extractor.check_fixed()
        n_features = self.extractor.features_dim
        self.register_buffer("log_p", th.full((self.n_skills,), -math.log(self.n_skills)))
        self.register_buffer("obs_mean", th.zeros(n_features))
        self.register_buffer("obs_var", th.ones(n_features))
        self.register_buffer("obs_count", th.tensor(1e-4))
        input_dim = n_features + self._action_dim()
        relu: Any = partial(nn.ReLU, inplace=True)  # half the memory traffic of a batch
        self.net = nn.Sequential(*create_mlp(input_dim, self.n_skills, list(net_arch), relu))
        self.spectral_norm = spectral_norm
        if spectral_norm:
            for layer in self.net:
                if isinstance(layer, nn.Linear):
                    parametrizations.spectral_norm(layer)
        self.eval()  # a reward must not move the estimates of the singular values

    def _action_dim(self) -> int:
        if self.action_space is None:
            return 0
        if isinstance(self.action_space, spaces.Discrete):
            return int(self.action_space.n)
        return get_action_dim(self.action_space)

    def forward(self, obs: PyTorchObs, actions: th.Tensor | None = None) -> th.Tensor:
        """
        :param obs: next observations of the environment, shape ``(n, d)``
        :param actions: if actions are an input, as an SB3 replay buffer holds them: scaled to
            [-1, 1], shape ``(n, action_dim)``, or indices, shape ``(n, 1)``
        :return: logits over skills, shape ``(n, K)``
        """
        features = self.extractor(obs)
        if self.normalize_obs:
            features = (features - self.obs_mean) / th.sqrt(self.obs_var + 1e-8)
        if self.action_space is not None:
            assert actions is not None
            if isinstance(self.action_space, spaces.Discrete):
                actions = F.one_hot(actions.long().flatten(), int(self.action_space.n))
            features = th.cat([features, actions.to(features.dtype)], dim=1)
        logits: th.Tensor = self.net(features)
        return logits

    def log_prob(
        self, obs: PyTorchObs, skill: th.Tensor, actions: th.Tensor | None = None
    ) -> th.Tensor:
        """
        :param obs: next observations of the environment, shape ``(n, d)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :param actions: see :meth:`forward`
        :return: log q(z|s') in nats, at most 0, shape ``(n,)``
        """
        return -F.cross_entropy(self(obs, actions), skill, reduction="none")

    def reward(
        self, obs: PyTorchObs, skill: th.Tensor, actions: th.Tensor | None = None
    ) -> th.Tensor:
        """
        The skill reward, log q(z|s') - log p(z): equation 3 of Eysenbach et al. (2019),
        arXiv 1802.06070. It is 0 for a discriminator that cannot tell and log K for a perfect one.

        :param obs: next observations of the environment, shape ``(n, d)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :param actions: see :meth:`forward`
        :return: rewards in nats, no gradient, shape ``(n,)``
        """
        with th.no_grad():
            return self.to_reward(self.log_prob(obs, skill, actions), skill)

    def loss(
        self, obs: PyTorchObs, skill: th.Tensor, actions: th.Tensor | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        :param obs: next observations of the environment, shape ``(n, d)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :param actions: see :meth:`forward`
        :return: the cross-entropy of z given s' in nats, log K for a uniform discriminator, shape
            ``(n,)``, and the share of observations whose likeliest skill is the right one
        """
        logits = self(obs, actions)
        accuracy = th.count_nonzero(logits.detach().argmax(dim=1) == skill) / len(skill)
        return F.cross_entropy(logits, skill, reduction="none"), accuracy

    def to_reward(self, log_q: th.Tensor, skill: th.Tensor) -> th.Tensor:
        """
        The second half of :meth:`reward`, for those who know log q(z|s') already.

        :param log_q: log q(z|s') in nats, no gradient, shape ``(n,)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :return: rewards in nats, shape ``(n,)``
        """
        if self.log_q_min is not None:
            log_q = log_q.clamp(min=self.log_q_min)
        return log_q - self.log_p.index_select(0, skill) if self.subtract_log_p else log_q

    @th.no_grad()
    def update_normalizer(self, obs: PyTorchObs) -> None:
        """
        Fold observations into the running mean and variance (Chan et al., 1979).

        :param obs: observations of the environment, shape ``(n, d)``
        """
        features = self.extractor(obs)
        total = self.obs_count + len(features)
        delta = features.mean(dim=0) - self.obs_mean
        squares = self.obs_var * self.obs_count + features.var(dim=0, correction=0) * len(features)
        squares += delta**2 * self.obs_count * len(features) / total
        self.obs_mean += delta * len(features) / total
        self.obs_var.copy_(squares / total)
        self.obs_count.copy_(total)

    def scale_action(self, action: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """
        :param action: an action as the environment takes it, any shape with ``action_dim`` last
        :return: the same action as a replay buffer holds it: a bounded ``Box`` scaled to [-1, 1],
            anything else unchanged
        """
        space = self.action_space
        if not isinstance(space, spaces.Box) or not space.is_bounded():
            return action
        scaled: npt.NDArray[Any] = 2.0 * (action - space.low) / (space.high - space.low) - 1.0
        return scaled
