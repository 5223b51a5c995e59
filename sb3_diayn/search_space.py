"""What a hyperparameter search may choose from, and how a person narrows it. It needs ``zoo``."""

from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

NETS = {"small": [64, 64], "medium": [256, 256], "big": [400, 300]}  # as the zoo names them
Space = Mapping[str, Sequence[Any]]


class Narrowed:
    """
    A trial that asks Optuna for less than it is asked.

    :param trial: to ask
    :param pinned: hyperparameters that stay as they are, which need no question
    :param space: by the search's own names the two ends of a number, or the choices
    """

    def __init__(
        self, trial: optuna.trial.BaseTrial, pinned: Mapping[str, Any], space: Space
    ) -> None:
        self._trial, self._space = trial, space
        self._answers = _answers(pinned)

    def suggest_float(self, name: str, low: float, high: float, **kwargs: Any) -> float:
        """As Optuna's."""
        if name in self._answers:
            return self._answers[name] or low
        ends = self._space.get(name, (low, high))
        return self._trial.suggest_float(name, min(ends), max(ends), **kwargs)

    def suggest_int(self, name: str, low: int, high: int, **kwargs: Any) -> int:
        """As Optuna's."""
        if name in self._answers:
            return self._answers[name] or low
        ends = self._space.get(name, (low, high))
        return self._trial.suggest_int(name, min(ends), max(ends), **kwargs)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """As Optuna's."""
        if name in self._answers:
            return self._answers[name] or choices[0]
        return self._trial.suggest_categorical(name, self._space.get(name, choices))

    def set_user_attr(self, name: str, value: Any) -> None:
        """As Optuna's."""
        self._trial.set_user_attr(name, value)


def _answers(pinned: Mapping[str, Any]) -> dict[str, Any]:
    """What the search calls the pinned hyperparameters; None where it means something else."""
    answers: dict[str, Any] = {}
    for name, value in pinned.items():
        answers |= dict.fromkeys((f"one_minus_{name}", f"{name}_pow"))
        answers[name.replace("DIAYNCallback.", "discriminator_")] = None
        answers[name] = value if type(value) in (int, float) else None
    if "policy_kwargs" in pinned:
        answers |= dict.fromkeys(("net_arch", "activation_fn"))
    if "gradient_steps" in pinned:
        answers["updates_per_step"] = None
    return answers


def sample(
    trial: optuna.trial.BaseTrial,
    algo: str,
    n_actions: int,
    pinned: Mapping[str, Any],
    space: Space | None = None,
) -> dict[str, Any]:
    """
    What the zoo samples, and what matters to DIAYN: how much the policy is paid to be random, how
    many environments feed how many updates, and the discriminator.

    :param trial: to ask
    :param algo: name of the algorithm as the zoo spells it
    :param n_actions: dimension of the action space
    :param pinned: hyperparameters that stay as they are
    :param space: by the search's own names the two ends of a number, or the choices; None for all
    :return: hyperparameters for :func:`sb3_diayn.zoo.override`, plain values only
    """
    ask = Narrowed(trial, pinned, space or {})
    n_envs = ask.suggest_categorical("n_envs", [1, 4, 8, 16])
    her = {"using_her_replay_buffer": False, "her_kwargs": {}}
    sampled: dict[str, Any] = HYPERPARAMS_SAMPLER[algo](ask, n_actions, n_envs, her)
    sampled["n_envs"] = n_envs
    sampled["policy_kwargs"] = _as_text(sampled["policy_kwargs"])
    if sampled.pop("action_noise", None) is not None:
        names = ("noise_type", "noise_std")
        sampled |= {name: trial.params[name] for name in names if name in trial.params}
    if algo in ("sac", "tqc"):
        sampled["ent_coef"] = ask.suggest_float("ent_coef", 0.01, 1.0, log=True)
    if issubclass(ALGOS[algo], OffPolicyAlgorithm):
        ratio = ask.suggest_categorical("updates_per_step", [0.125, 0.25, 0.5, 1.0])
        sampled["gradient_steps"] = max(1, round(sampled["train_freq"] * n_envs * ratio))
    callback = {
        "learning_rate": ask.suggest_float("discriminator_learning_rate", 1e-4, 3e-3, log=True),
        "net_arch": NETS[ask.suggest_categorical("discriminator_net_arch", list(NETS))],
        "normalize_obs": ask.suggest_categorical("discriminator_normalize_obs", [False, True]),
    }
    return {**sampled, **{f"DIAYNCallback.{name}": callback[name] for name in callback}, **pinned}


def _as_text(policy_kwargs: dict[str, Any]) -> str:
    """As the zoo's files have it, in which ``nn`` is PyTorch's."""
    words = {
        key: f"nn.{value.__name__}" if isinstance(value, type) else repr(value)
        for key, value in policy_kwargs.items()
    }
    return f"dict({', '.join(f'{key}={word}' for key, word in words.items())})"


def check_space(algo: str, pinned: Mapping[str, Any], space: Space) -> None:
    """
    :param algo: name of the algorithm as the zoo spells it
    :param pinned: hyperparameters that stay as they are
    :param space: what a person wants to search, as for :func:`sample`
    :raises ValueError: if the search does not ask for a name, or its values are of another kind
    """
    known = _questions(algo, pinned)
    for name, values in space.items():
        if name not in known:
            raise ValueError(
                f"space={name!r} is not searched here; expected one of {sorted(known)}. Leave it "
                "out, or set a hyperparameter with --hyperparams."
            )
        if not _fits(known[name], values):
            raise ValueError(
                f"space={name}={list(values)!r} does not fit what is searched; expected "
                f"{_rule(known[name])}. Change the values, or leave them out."
            )


def _questions(algo: str, pinned: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # no word of a study that nobody wants
    trial = optuna.create_study().ask()
    optuna.logging.set_verbosity(verbosity)
    sample(trial, algo, 1, pinned)
    return trial.distributions


def _fits(known: BaseDistribution, values: Sequence[Any]) -> bool:
    kind = int if isinstance(known, IntDistribution) else (int, float)
    are_numbers = all(isinstance(value, kind) for value in values)
    if not isinstance(known, CategoricalDistribution):
        least = _least(known)
        return are_numbers and len(values) <= 2 and all(v > 0 or v == least for v in values)
    is_positive = are_numbers and all(value > 0 for value in values)
    return (is_positive and _counts(known)) or set(values) <= set(known.choices)


def _least(known: BaseDistribution) -> float | None:
    """0 where that is searched, as in TQC's number of quantiles to drop."""
    return 0 if getattr(known, "low", None) == 0 else None


def _counts(known: CategoricalDistribution) -> bool:
    """Its choices are points on a scale, between and beyond which there are others."""
    return all(type(choice) in (int, float) for choice in known.choices)


def _rule(known: BaseDistribution) -> str:
    if isinstance(known, CategoricalDistribution):
        return "positive numbers" if _counts(known) else f"some of {list(known.choices)}"
    kind = "integer" if isinstance(known, IntDistribution) else "number"
    sign = "positive" if _least(known) is None else "non-negative"
    return f"one {sign} {kind}, or the two ends"
