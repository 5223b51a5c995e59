"""The discriminator q(z | s') and what trains it."""

import math
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from sb3_diayn.arguments import Layers, NegativeNumber, check_options
from sb3_diayn.extractors import ObsFunction, ObsIndices, make_extractor
from sb3_diayn.observations import as_float32, index_obs
from sb3_diayn.skills import check_n_skills

# What a discriminator remembers of its training, by the names in SB3's logs.
HISTORY = (
    "time/total_timesteps",
    "diayn/log_q_z",
    "diayn/accuracy",
    "diayn/skill_reward",
    "diayn/skill_return",
    "diayn/task_return",
)


class Discriminator(nn.Module):
    """
    A classifier that tells from the environment's own next observation which skill led there.

    It reads raw observations, without the one-hot and before any ``VecNormalize``: vectors as
    float32, any other space through SB3's own preprocessing and extractors (images with their
    channels first). Below, "shape ``(n, d)``" stands for a batch of any space; of a ``Dict`` it is
    a dict of tensors.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import torch as th
        >>> from gymnasium import spaces
        >>> from sb3_diayn import Discriminator
        >>> discriminator = Discriminator(spaces.Box(-1.0, 1.0, (2,)), n_skills=4)
        >>> next_obs, skills = th.zeros(3, 2), th.tensor([0, 1, 3])
        >>> discriminator(next_obs).shape  # the logits of each skill
        torch.Size([3, 4])
        >>> discriminator.reward(next_obs, skills).shape
        torch.Size([3])

    :param observation_space: observation space of the environment, without the skill
    :param n_skills: the number of skills, K
    :param net_arch: units of each hidden layer
    :param obs_indices: what it may read (the paper's "prior", for example x-y of an ant), see
        :func:`~sb3_diayn.extractors.resolve_selection`; None for everything
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
        net_arch: Layers = (256, 256),
        obs_indices: ObsIndices = None,
        obs_function: ObsFunction | None = None,
        normalized_image: bool = False,
        action_space: spaces.Space[Any] | None = None,
        normalize_obs: bool = False,
        log_q_min: NegativeNumber | None = None,
        subtract_log_p: bool = True,
        spectral_norm: bool = False,
    ) -> None:
        options = check_options(Discriminator, {"net_arch": net_arch, "log_q_min": log_q_min})
        super().__init__()
        self.n_skills = check_n_skills(n_skills)
        self.observation_space = as_float32(observation_space)
        self.action_space = action_space
        self.normalize_obs, self.subtract_log_p = normalize_obs, subtract_log_p
        self.log_q_min: float | None = options["log_q_min"]
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
        self.net = nn.Sequential(*create_mlp(input_dim, self.n_skills, options["net_arch"], relu))
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


State = dict[str, Any]
Arrays = dict[str, npt.NDArray[Any]]
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
                self.update(index_obs(obs, rows), skills[rows], actions[rows])

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


def _rows(
    rows: slice, obs: PyTorchObs, skills: th.Tensor, actions: th.Tensor | None
) -> tuple[PyTorchObs, th.Tensor, th.Tensor | None]:
    return index_obs(obs, rows), skills[rows], None if actions is None else actions[rows]
