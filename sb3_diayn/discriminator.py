"""The discriminator q(z | s')."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from sb3_diayn.arguments import JsonDict, Layers, NegativeNumber, check_options
from sb3_diayn.extractors import ObsIndices, make_extractor
from sb3_diayn.observations import as_float32, index_obs, map_obs
from sb3_diayn.skills import check_n_skills
from sb3_diayn.user_code import ExtractorClass, ObsFunction

Folds = npt.NDArray[np.uint8]
N_FOLDS = 2


class Batch(NamedTuple):
    """
    Transitions, as a discriminator reads them.

    :param next_obs: next observations of the environment, shape ``(n, d)``
    :param skills: the skills that led there, int64, shape ``(n,)``
    :param actions: see :meth:`Discriminator.forward`
    :param folds: with ``cross_fit``, which net learns from each transition, shape ``(n,)``. In
        NumPy: to count them must not wait for a device
    :param obs: observations of the environment before the step, shape ``(n, d)``, where the
        objective reads them, see :attr:`Discriminator.reads_obs`
    """

    next_obs: PyTorchObs
    skills: th.Tensor
    actions: th.Tensor | None = None
    folds: Folds | None = None
    obs: PyTorchObs | None = None

    def take(self, rows: slice | npt.NDArray[np.int64]) -> "Batch":
        """
        :param rows: which transitions
        :return: these alone
        """
        where = rows if isinstance(rows, slice) else th.as_tensor(rows, device=self.skills.device)
        return Batch(
            index_obs(self.next_obs, where),
            self.skills[where],
            None if self.actions is None else self.actions[where],
            None if self.folds is None else self.folds[rows],
            None if self.obs is None else index_obs(self.obs, where),
        )


class FoldRows(NamedTuple):
    """
    Which transitions of a batch are in which fold, and how both nets of ``cross_fit`` read them in
    one pass: in two rows, the shorter of which is filled up.

    :param of_fold: the transitions of each fold, of shapes ``(n_0,)`` and ``(n_1,)``
    """

    of_fold: tuple[npt.NDArray[np.int64], ...]

    @classmethod
    def of(cls, folds: Folds) -> "FoldRows":
        """
        Worked example: the folds 0, 1, 0, 0 give the rows ``[0, 2, 3]`` and ``[1, 0, 0]``, where
        the last two only fill up.

        :param folds: of a batch, shape ``(n,)``
        :return: its rows
        """
        return cls(tuple(np.flatnonzero(folds == fold) for fold in range(N_FOLDS)))

    def first(self, n_transitions: int) -> "FoldRows":
        """
        :param n_transitions: of how many transitions, half of them of each fold
        :return: the rows of the first ones, or all if there are no more
        """
        if n_transitions >= sum(map(len, self.of_fold)):
            return self
        return FoldRows(tuple(part[: -(-n_transitions // N_FOLDS)] for part in self.of_fold))

    def swapped(self) -> "FoldRows":
        """:return: the rows that each net does not learn from"""
        return FoldRows(self.of_fold[::-1])

    def transitions(self) -> npt.NDArray[np.int64]:
        """:return: all of them, fold after fold, shape ``(n_0 + n_1,)``"""
        return np.concatenate(self.of_fold)

    def rows(self) -> npt.NDArray[np.int64]:
        """:return: which transition is at each place, shape ``(2, max(n_0, n_1))``"""
        rows = np.zeros((N_FOLDS, max(map(len, self.of_fold))), np.int64)
        for row, part in zip(rows, self.of_fold, strict=True):
            row[: len(part)] = part
        return rows

    def weights(self) -> npt.NDArray[np.float32]:
        """:return: of the places, 0 where a row is filled up; they give the mean of each fold"""
        weights = np.zeros((N_FOLDS, max(map(len, self.of_fold))), np.float32)
        for row, part in zip(weights, self.of_fold, strict=True):
            row[: len(part)] = 1 / max(len(part), 1)
        return weights

    def places(self) -> npt.NDArray[np.int64]:
        """:return: where each transition of the batch is, row after row, shape ``(n_0 + n_1,)``"""
        counts = [len(part) for part in self.of_fold]
        places = np.empty(sum(counts), np.int64)
        for fold, part in enumerate(self.of_fold):
            places[part] = np.arange(len(part)) + fold * max(counts)
        return places


class FoldLinear(nn.Module):
    """
    Two linear layers, one for each fold, in one matrix product.

    :param weight: of both, shape ``(2, n_inputs, n_outputs)``: gradients then have the layout of
        the parameters
    :param bias: of both, shape ``(2, n_outputs)``
    """

    def __init__(self, weight: th.Tensor, bias: th.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    @classmethod
    def stack(cls, layers: Sequence[nn.Linear], spectral_norm: bool) -> "FoldLinear":
        """
        :param layers: one for each fold
        :param spectral_norm: divide each by its own largest singular value
        :return: all of them
        """
        weight = th.stack([layer.weight.detach().T for layer in layers])
        stacked = cls(weight, th.stack([layer.bias.detach() for layer in layers]))
        if spectral_norm:
            normed: list[Any] = [parametrizations.spectral_norm(layer) for layer in layers]
            norms = FoldSpectralNorm([layer.parametrizations.weight[0] for layer in normed])
            parametrize.register_parametrization(stacked, "weight", norms)
        return stacked

    def forward(self, inputs: th.Tensor) -> th.Tensor:
        """
        :param inputs: of each fold, shape ``(2, n, n_inputs)``
        :return: outputs of each fold, shape ``(2, n, n_outputs)``
        """
        return th.baddbmm(self.bias.unsqueeze(1), inputs, self.weight)


class FoldSpectralNorm(nn.Module):
    """
    Spectral norm of each of two stacked layers.

    :param norms: of one layer each, as torch makes them
    """

    def __init__(self, norms: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, weight: th.Tensor) -> th.Tensor:
        """
        :param weight: of both layers, shape ``(2, n_inputs, n_outputs)``
        :return: the same, each divided by its largest singular value
        """
        return th.stack([norm(one.T).T for norm, one in zip(self.norms, weight, strict=True)])


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
    :param features_extractor_class: a features extractor, SB3's or one of one's own, as a policy
        takes it: it gets the space of what is read (images with their channels first) and learns
        with the discriminator. It stays in evaluation mode. None for SB3's choice
    :param features_extractor_kwargs: further arguments of the extractor
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
        changes by at most 1.42 d: it must be a distance that distinguishes skills. A
        ``features_extractor_class`` must then have no parameters, since it could stretch distances
    :param cross_fit: two nets instead of one, each of which learns from half of the episodes and
        rewards the other half, so that no reward is for an episode that was learned by heart
        (cross-fitting: Chernozhukov et al., 2018, arXiv 1608.00060). Without ``folds`` the
        discriminator is the normalised average of the two in log space
    :raises ValueError: if an option does not fit the space
    """

    objective_name = "diayn"
    reads_obs = False  # whether the reward depends on the observation before the step, too
    has_probabilities = True  # whether there is a q(z|s')
    # What :meth:`objective` measures, by the names in SB3's logs.
    running_names: tuple[str, ...] = ("discriminator_loss", "accuracy")
    log_p: th.Tensor
    obs_mean: th.Tensor
    obs_var: th.Tensor
    obs_count: th.Tensor
    has_learned: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        n_skills: int,
        *,
        net_arch: Layers = (128, 128),
        obs_indices: ObsIndices = None,
        obs_function: ObsFunction | None = None,
        features_extractor_class: ExtractorClass | None = None,
        features_extractor_kwargs: JsonDict | None = None,
        normalized_image: bool = False,
        action_space: spaces.Space[Any] | None = None,
        normalize_obs: bool = False,
        log_q_min: NegativeNumber | None = None,
        subtract_log_p: bool = True,
        spectral_norm: bool = False,
        cross_fit: bool = False,
    ) -> None:
        given: dict[str, Any] = {"net_arch": net_arch, "log_q_min": log_q_min}
        given |= {"features_extractor_kwargs": features_extractor_kwargs}
        options = check_options(Discriminator, given)
        super().__init__()
        self.n_skills = check_n_skills(n_skills)
        self.observation_space = as_float32(observation_space)
        self.action_space = action_space
        self.normalize_obs, self.subtract_log_p = normalize_obs, subtract_log_p
        self.log_q_min: float | None = options["log_q_min"]
        make = partial(
            make_extractor,
            self.observation_space,
            obs_indices=obs_indices,
            obs_function=obs_function,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalized_image=normalized_image,
        )
        self.extractor = make()
        self.learns_features = any(True for _ in self.extractor.parameters())
        if normalize_obs:
            self.extractor.check_fixed()
        if spectral_norm and features_extractor_class is not None:
            self._check_distances(features_extractor_class)
        n_features = self.extractor.features_dim
        self.register_buffer("log_p", th.full((self.n_skills,), -math.log(self.n_skills)))
        self.register_buffer("obs_mean", th.zeros(n_features))
        self.register_buffer("obs_var", th.ones(n_features))
        self.register_buffer("obs_count", th.tensor(1e-4))
        self.spectral_norm, self.cross_fit = spectral_norm, cross_fit
        if cross_fit:  # the third one is held-out
            self.running_names = (*self.running_names, "log_q_z")
        input_dim = n_features + self._action_dim()
        if cross_fit:
            if self.learns_features:
                self.second_extractor = make()
            self.register_buffer("has_learned", th.zeros(N_FOLDS, self.n_skills, dtype=th.bool))
            self._knows_all = False  # whether all of it is known to be True
        sizes = (input_dim, self.n_skills, options["net_arch"])
        self.net = _make_net(*sizes, cross_fit, spectral_norm)
        self.eval()  # a reward must not move the estimates of the singular values

    def _check_distances(self, extractor_class: ExtractorClass) -> None:
        if self.learns_features:
            raise ValueError(
                "spectral_norm=True bounds log q by distances, which the parameters of "
                f"features_extractor_class={extractor_class.__name__} could stretch; "
                "expected False, or a class without parameters. Leave one of the two out."
            )

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
        if self.cross_fit:  # logits are log-probabilities up to a constant
            obs = map_obs(lambda part: th.cat([part] * N_FOLDS), obs)
            actions = None if actions is None else th.cat([actions] * N_FOLDS)
            return self._fold_logits(obs, actions).view(N_FOLDS, -1, self.n_skills).mean(dim=0)
        logits: th.Tensor = self.net(self._inputs(self.extractor(obs), actions))
        return logits

    @property
    def extractors(self) -> tuple[nn.Module, ...]:
        """What each net reads through: the same, unless it learns."""
        if not self.cross_fit:
            return (self.extractor,)
        return (self.extractor, self.second_extractor if self.learns_features else self.extractor)

    def _fold_logits(self, obs: PyTorchObs, actions: th.Tensor | None) -> th.Tensor:
        """The net of fold 0 reads the first half of 2 n observations, the other net the second."""
        if self.learns_features:
            halves = map_obs(lambda part: part.chunk(N_FOLDS), obs)
            read = [extract(index_obs(halves, i)) for i, extract in enumerate(self.extractors)]
            features = th.cat(read)
        else:
            features = self.extractor(obs)
        inputs = self._inputs(features, actions)
        logits: th.Tensor = self.net(inputs.reshape(N_FOLDS, -1, inputs.shape[1]))
        return logits.flatten(0, 1)

    def _inputs(self, features: th.Tensor, actions: th.Tensor | None) -> th.Tensor:
        """What the first layer reads."""
        if self.normalize_obs:
            features = (features - self.obs_mean) / th.sqrt(self.obs_var + 1e-8)
        if self.action_space is not None:
            assert actions is not None
            if isinstance(self.action_space, spaces.Discrete):
                actions = F.one_hot(actions.long().flatten(), int(self.action_space.n))
            features = th.cat([features, actions.to(features.dtype)], dim=1)
        return features

    def log_prob(
        self,
        obs: PyTorchObs,
        skill: th.Tensor,
        actions: th.Tensor | None = None,
        folds: Folds | None = None,
    ) -> th.Tensor:
        """
        :param obs: next observations of the environment, shape ``(n, d)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :param actions: see :meth:`forward`
        :param folds: of ``cross_fit``, see :class:`Batch`: the answers come from the net of the
            other fold, as of :meth:`held_out`; None for the average of both nets
        :return: log q(z|s') in nats, at most 0, shape ``(n,)``
        """
        if folds is not None:
            return self.held_out(Batch(obs, skill, actions, folds))[0]
        return -F.cross_entropy(self(obs, actions), skill, reduction="none")

    def held_out(
        self, batch: Batch, fold_rows: FoldRows | None = None
    ) -> tuple[th.Tensor, th.Tensor]:
        """
        Ask of each transition the net that does not learn from it. A net that has never learned
        from a skill cannot tell whether it sees that skill: its answer is p(z), reward 0.

        :param batch: transitions with their folds
        :param fold_rows: of the batch, for those who know them already
        :return: log q(z|s') in nats, shape ``(n,)``, and the share of transitions whose likeliest
            skill is the right one
        """
        assert batch.folds is not None
        fold_rows = (fold_rows or FoldRows.of(batch.folds)).swapped()
        logits, skills = self._read(batch, fold_rows)
        places = th.as_tensor(fold_rows.places(), device=logits.device)
        log_q = -F.cross_entropy(logits, skills, reduction="none").index_select(0, places)
        if not self._knows_all:
            has_learned = self.has_learned.view(-1)[self._cells(batch.skills, 1 - batch.folds)]
            log_q = th.where(has_learned, log_q, self.log_p[batch.skills])
        is_right = (logits.argmax(dim=1) == skills).index_select(0, places)
        return log_q, th.count_nonzero(is_right) / len(places)

    def fold_loss(self, batch: Batch, fold_rows: FoldRows) -> th.Tensor:
        """
        :param batch: transitions with their folds
        :param fold_rows: those to learn from
        :return: the sum, over both nets, of the mean cross-entropy of the transitions from which
            the net learns
        """
        assert batch.folds is not None
        logits, skills = self._read(batch, fold_rows)
        losses = F.cross_entropy(logits, skills, reduction="none")
        if not self._knows_all:
            learned = batch.take(fold_rows.transitions())
            self.has_learned.view(-1)[self._cells(learned.skills, learned.folds)] = True
            self._knows_all = bool(self.has_learned.all())
        return losses @ th.as_tensor(fold_rows.weights().ravel(), device=losses.device)

    def _read(self, batch: Batch, fold_rows: FoldRows) -> tuple[th.Tensor, th.Tensor]:
        """Logits and skills, row after row."""
        where = th.as_tensor(fold_rows.rows().ravel(), device=batch.skills.device)
        actions = None if self.action_space is None else batch.actions[where]  # type: ignore[index]
        logits = self._fold_logits(index_obs(batch.next_obs, where), actions)
        return logits, batch.skills[where]

    def _cells(self, skills: th.Tensor, nets: Any) -> th.Tensor:
        """Where nets and skills are in ``has_learned``, flattened."""
        which = th.as_tensor(nets, dtype=th.int64, device=skills.device)  # folds come as bytes
        return skills + self.n_skills * which

    def reward(
        self,
        obs: PyTorchObs,
        skill: th.Tensor,
        actions: th.Tensor | None = None,
        folds: Folds | None = None,
    ) -> th.Tensor:
        """
        The skill reward, log q(z|s') - log p(z): equation 3 of Eysenbach et al. (2019),
        arXiv 1802.06070. It is 0 for a discriminator that cannot tell and log K for a perfect one.

        :param obs: next observations of the environment, shape ``(n, d)``
        :param skill: indices of skills, int64, shape ``(n,)``
        :param actions: see :meth:`forward`
        :param folds: see :meth:`log_prob`
        :return: rewards in nats, no gradient, shape ``(n,)``
        """
        with th.no_grad():
            return self.to_reward(self.score(Batch(obs, skill, actions, folds)), skill)

    def score(self, batch: Batch) -> th.Tensor:
        """
        :param batch: transitions
        :return: what :meth:`to_reward` makes the reward of: log q(z|s') in nats, shape ``(n,)``
        """
        return self.log_prob(*batch[:4])

    def objective(self, batch: Batch) -> tuple[th.Tensor, th.Tensor, list[th.Tensor]]:
        """
        :param batch: transitions to learn from
        :return: the loss, whose gradient is followed; :meth:`score` of the batch, no gradient; and
            what is logged of it after the loss, see ``running_names``
        """
        losses, accuracy = self.loss(*batch[:3])
        return losses.mean(), -losses.detach(), [accuracy]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """:return: the parameters, as PyTorch's optimisers take them"""
        return [{"params": list(self.parameters())}]

    def metrics(self) -> dict[str, float]:
        """:return: what is logged of the present state: ``effective_skills``, exp(H[p(z)])"""
        log_p = self.log_p
        return {"effective_skills": math.exp(-(log_p.exp() * log_p).sum().item())}

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

        :param log_q: from :meth:`score`, no gradient, shape ``(n,)``
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


def _make_net(
    input_dim: int, n_skills: int, net_arch: list[int], cross_fit: bool, spectral_norm: bool
) -> nn.Sequential:
    relu: Any = partial(nn.ReLU, inplace=True)  # half the memory traffic of a batch
    nets = [create_mlp(input_dim, n_skills, net_arch, relu) for _ in range(1 + cross_fit)]
    modules = nets[0]
    for index, layers in enumerate(zip(*nets, strict=True)):
        if isinstance(layers[0], nn.Linear):
            if cross_fit:
                modules[index] = FoldLinear.stack(layers, spectral_norm)
            elif spectral_norm:
                parametrizations.spectral_norm(layers[0])
    return nn.Sequential(*modules)
