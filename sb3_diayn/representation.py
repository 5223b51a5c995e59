"""METRA's representation phi(s), which takes the place of the discriminator."""

from collections.abc import Mapping
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_diayn.arguments import PositiveNumber, check_options, defaults
from sb3_diayn.discriminator import Batch, Discriminator, Folds
from sb3_diayn.observations import map_obs

# Options of a discriminator that are about its probabilities, or replaced by the dual variable.
WITHOUT_MEANING = ("action_space", "log_q_min", "subtract_log_p", "spectral_norm", "cross_fit")


class Representation(Discriminator):
    """
    The objective of METRA (Park, Rybkin and Levine, 2024) with discrete skills. It rewards
    distance, counted in steps of the environment, and needs no chosen coordinates.
    Paper: https://arxiv.org/abs/2310.08887

    A network phi maps an observation to K numbers. The reward of a transition is how far it moves
    phi in the direction z of the skill, and no transition may move phi by more than 1::

        r(s, z, s') = (phi(s') - phi(s)) . z
        maximise E[r] such that |phi(s') - phi(s)|^2 <= 1 for each transition

    The rewards of an episode add up to (phi(s_T) - phi(s_0)) . z: a skill gains by going far, and
    only in its own direction. As in METRA's code, z is the centred one-hot: 1 for the skill itself
    and -1 / (K - 1) for each other one, so that the directions add up to 0.

    A dual variable, lambda, is the price of the constraint. Phi and the logarithm of lambda follow
    the gradients of two losses at once (Algorithm 1 of the paper; METRA's code
    has the logarithm, too)::

        c = min(epsilon, 1 - |phi(s') - phi(s)|^2)
        loss of phi = -E[r + lambda c],  loss of lambda = log(lambda) E[c]

    METRA's code takes the mean over the K numbers where this takes the sum, as the paper does.
    Lambda starts at 1. Where each step moves phi by 1 along z, it has to be at least |z| / 2, which
    is sqrt(K / (K - 1)) / 2.

    The rewards are differences, so phi is known up to a constant, and a single state has no
    probabilities of skills: :meth:`log_prob` is refused. Phi recognises directions instead: the
    skill along which an episode has moved it farthest, see :meth:`progress`. That serves
    evaluation and imitation.

    Example::

        >>> import torch as th
        >>> from gymnasium import spaces
        >>> from sb3_diayn.discriminator import Batch
        >>> from sb3_diayn.representation import Representation
        >>> representation = Representation(spaces.Box(-1.0, 1.0, (2,)), n_skills=4)
        >>> batch = Batch(th.ones(3, 2), th.tensor([0, 1, 3]), obs=th.zeros(3, 2))
        >>> representation.score(batch).shape  # the rewards
        torch.Size([3])

    :param observation_space: see :class:`~sb3_diayn.discriminator.Discriminator`
    :param n_skills: the number of skills, K
    :param dual_slack: epsilon: how much of the room within the constraint counts
    :param dual_learning_rate: of log lambda (Adam); None for the one of phi
    :param options: other options of :class:`~sb3_diayn.discriminator.Discriminator`, but for those
        in ``WITHOUT_MEANING``
    :raises ValueError: see :class:`~sb3_diayn.discriminator.Discriminator`; if an option has no
        meaning
    """

    objective_name = "metra"
    reads_obs = True
    has_probabilities = False
    running_names = ("discriminator_loss", "accuracy", "squared_step")
    skill_vectors: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        n_skills: int,
        *,
        dual_slack: PositiveNumber = 1e-3,
        dual_learning_rate: PositiveNumber | None = None,
        **options: Any,
    ) -> None:
        own = {"dual_slack": dual_slack, "dual_learning_rate": dual_learning_rate}
        checked = check_options(Representation, own)
        for name, default in defaults(Discriminator).items():
            if name in WITHOUT_MEANING and options.get(name, default) != default:
                raise ValueError(
                    f"{name}={options[name]!r} has no meaning for METRA's phi; expected "
                    f"{default!r}. Leave it out."
                )
        super().__init__(observation_space, n_skills, **options)
        self.dual_slack: float = checked["dual_slack"]
        self.dual_learning_rate: float | None = checked["dual_learning_rate"]
        self.log_lambda = nn.Parameter(th.zeros(()))
        k = self.n_skills
        vectors = (th.eye(k) - 1 / k) * k / (k - 1)
        self.register_buffer("skill_vectors", vectors, persistent=False)

    def phi(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations of the environment, shape ``(n, d)``
        :return: their representation, shape ``(n, K)``
        """
        return self.forward(obs)

    def progress(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations of one episode in their order, shape ``(n, d)``
        :return: how far phi has moved since the first one along each skill, (phi(s_t) - phi(s_1))
            . z, shape ``(n, K)``: the sum of the rewards that each skill would have got
        """
        phi = self.phi(obs)
        return (phi - phi[:1]) @ self.skill_vectors

    def log_prob(
        self,
        obs: PyTorchObs,
        skill: th.Tensor,
        actions: th.Tensor | None = None,
        folds: Folds | None = None,
    ) -> th.Tensor:
        """
        :param obs: ignored
        :param skill: ignored
        :param actions: ignored
        :param folds: ignored
        :raises ValueError: always: phi is known up to a constant
        """
        raise ValueError(
            "objective='metra' has no log q(z|s'), since phi is known up to a constant; expected "
            "'diayn'. Use score, the rewards of transitions, or progress."
        )

    def score(self, batch: Batch) -> th.Tensor:
        """
        :param batch: transitions with ``obs``
        :return: (phi(s') - phi(s)) z, shape ``(n,)``
        """
        return self._along(self._step(batch), batch.skills)

    def to_reward(self, score: th.Tensor, skill: th.Tensor) -> th.Tensor:
        """
        :param score: from :meth:`score`
        :param skill: ignored
        :return: the same: it is the reward
        """
        return score

    def objective(self, batch: Batch) -> tuple[th.Tensor, th.Tensor, list[th.Tensor]]:
        """
        :param batch: transitions with ``obs``
        :return: see :meth:`Discriminator.objective`; the losses of phi and lambda are added
        """
        step = self._step(batch)
        score = self._along(step, batch.skills)
        squared = step.square().sum(dim=1)
        room = (1 - squared).clamp(max=self.dual_slack)
        loss = -(score + self.log_lambda.detach().exp() * room).mean()
        loss = loss + self.log_lambda * room.detach().mean()
        farthest = (step.detach() @ self.skill_vectors).argmax(dim=1)
        accuracy = th.count_nonzero(farthest == batch.skills) / len(farthest)
        return loss, score.detach(), [accuracy, squared.detach().mean()]

    def _step(self, batch: Batch) -> th.Tensor:
        """phi(s') - phi(s), in one pass."""
        if batch.obs is None:
            raise ValueError(
                "obs=None leaves the step from s to s' unknown; expected the observations before "
                "the step. Pass obs= with the transitions."
            )
        both = map_obs(lambda before, after: th.cat([before, after]), batch.obs, batch.next_obs)
        before, after = self.phi(both).chunk(2)
        return after - before

    def _along(self, step: th.Tensor, skills: th.Tensor) -> th.Tensor:
        return (step * self.skill_vectors[skills]).sum(dim=1)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """:return: see :meth:`Discriminator.parameter_groups`; lambda is not decayed"""
        of_phi = [p for p in self.parameters() if p is not self.log_lambda]
        of_lambda: dict[str, Any] = {"params": [self.log_lambda], "weight_decay": 0.0}
        if self.dual_learning_rate is not None:
            of_lambda["lr"] = self.dual_learning_rate
        return [{"params": of_phi}, of_lambda]

    def metrics(self) -> dict[str, float]:
        """:return: of :class:`Discriminator`, and ``dual_lambda``, the price of the constraint"""
        return super().metrics() | {"dual_lambda": self.log_lambda.exp().item()}


OBJECTIVES: dict[str, type[Discriminator]] = {
    each.objective_name: each for each in (Discriminator, Representation)
}


def objective_class(options: Mapping[str, Any]) -> type[Discriminator]:
    """
    :param options: of ``DIAYNCallback``; version 0.1.0 had no ``objective``
    :return: the class whose loss is learned and whose score is rewarded
    """
    return OBJECTIVES[options.get("objective", "diayn")]
