"""Hyperparameter search in the zoo's Optuna study, judged by the skills. It needs ``zoo``."""

import copy
import json
from collections.abc import Mapping, Sequence
from functools import partialmethod
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_diayn.arguments import check_positive
from sb3_diayn.evaluation.callback import SkillEvaluationCallback
from sb3_diayn.files import reading, write_bytes
from sb3_diayn.processor import efficient_torch
from sb3_diayn.zoo.failures import close_envs, naming_failures
from sb3_diayn.zoo.hyperparams import (
    default_algo,
    get_arguments,
    n_skills_of,
    override,
    set_argument,
    wrapper_of_skills,
)
from sb3_diayn.zoo.runs import EVALUATION_ENVS
from sb3_diayn.zoo.settings import TrainingOptions, complete, seeded
from sb3_diayn.zoo.training import make_manager

Space = Mapping[str, Sequence[Any]]


class TrialCallback(SkillEvaluationCallback):
    """
    Reports the held-out bound of each evaluation to a trial, and ends a pruned trial. All that
    was measured becomes the trial's attributes: skills that fall at once may be easy to
    distinguish, which only their returns and their coverage show.

    :param trial: the trial
    :param kwargs: for :class:`sb3_diayn.evaluation.callback.SkillEvaluationCallback`
    """

    def __init__(self, trial: optuna.Trial, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trial, self.is_pruned = trial, False

    def _on_step(self) -> bool:
        n_evaluations = len(self.history)
        continues = super()._on_step()
        if len(self.history) > n_evaluations:
            self.trial.report(self.history[-1]["held_out_bound"], len(self.history))
            for name, value in self.history[-1].items():
                self.trial.set_user_attr(name, value)
            self.is_pruned = self.trial.should_prune()
        return continues and not self.is_pruned


class SkillSearch(ExperimentManager):  # type: ignore[misc]  # the zoo has no types
    """
    The zoo's search with another objective, in place of the return of a few episodes: a held-out
    classifier's lower bound on the mutual information of skills and states in nats, on fresh
    episodes of every skill.

    :param fixed_hyperparams: in the zoo's format, for all that is not searched
    :param pinned: hyperparameters that stay as they are
    :param space: what to choose from, by the search's names, in place of all of it
    :param n_skill_episodes: episodes of each skill in an evaluation
    :param args: for the zoo's ``ExperimentManager``
    :param kwargs: for the same
    """

    def __init__(
        self,
        *args: Any,
        fixed_hyperparams: Mapping[str, Any],
        pinned: Mapping[str, Any],
        space: Space,
        n_skill_episodes: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fixed_hyperparams, self.pinned, self.space = fixed_hyperparams, pinned, space
        self.n_skill_episodes = n_skill_episodes
        self.is_interrupted = False
        self.last_failure = ""

    def with_trial(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """
        :param trial: to ask
        :return: all hyperparameters of the trial in the zoo's format
        """
        chosen = sample(trial, self.algo, self.n_actions, self.pinned, self.space)
        fixed = copy.deepcopy(dict(self.fixed_hyperparams))
        return _without_uneven_strata(override(self.algo, fixed, chosen))

    def objective(self, trial: optuna.Trial) -> float:
        """
        :param trial: to ask and to report to
        :return: the last evaluation's held-out bound in nats
        :raises optuna.TrialPruned: if it is pruned, or the hyperparameters do not work
        """
        try:
            return self._objective(trial)
        except KeyboardInterrupt:  # the zoo catches it
            self.is_interrupted = True
            raise

    def _objective(self, trial: optuna.Trial) -> float:
        hyperparams = self.with_trial(trial)
        hyperparams, self.env_wrapper, callbacks, self.vec_env_wrapper = (
            self._preprocess_hyperparams(hyperparams)
        )
        env = self.create_envs(self.n_envs, no_log=True)
        n_skills = int(env.get_attr("n_skills")[0])
        evaluation = TrialCallback(
            trial,
            eval_env=self.create_envs(
                min(n_skills * self.n_skill_episodes, EVALUATION_ENVS), eval_env=True
            ),
            eval_freq=max(1, self.n_timesteps // self.n_evaluations),
            n_episodes=self.n_skill_episodes,
        )
        has_failed = True
        try:
            env_id, eval_env = self.env_name.gym_id, evaluation.given_env
            threads = efficient_torch(env.observation_space, self.args.num_threads)
            with naming_failures(env_id, env), naming_failures(env_id, eval_env), threads:
                hyperparams = self._preprocess_action_noise(hyperparams, hyperparams, env)
                model = ALGOS[self.algo](env=env, device=self.device, **hyperparams)
                model.learn(self.n_timesteps, callback=[*callbacks, evaluation])
            has_failed = False
        except (AssertionError, ValueError) as error:  # what NaN brings about, as in the zoo
            self.last_failure = str(error)
            raise optuna.TrialPruned(self.last_failure) from error
        finally:
            close_envs(env, has_failed=has_failed)
            close_envs(evaluation.given_env, has_failed=has_failed)
        if evaluation.is_pruned:
            raise optuna.TrialPruned()
        return evaluation.history[-1]["held_out_bound"]

    def best_hyperparams(self) -> dict[str, Any]:
        """:return: all hyperparameters of the study's best trial in the zoo's format"""
        params = self.load_trial(self.storage, self.study_name, convert=False)
        return self.with_trial(optuna.trial.FixedTrial(params))


def tune(
    env: str | None = None,
    *,
    space: Space | None = None,
    n_episodes: int = 2,
    storage: str | None = None,
    study_name: str | None = None,
    study: Mapping[str, Any] | None = None,
    **options: Any,
) -> Path:
    """
    Start a study or join it, and write the best hyperparameters.

    :param env: id of the environment
    :param space: what to search in place of all of it, see :func:`sample`
    :param n_episodes: episodes of each skill in an evaluation, at least 2
    :param storage: database of the study; None for one in the log folder
    :param study_name: the study to start or to join; None for algorithm and environment
    :param study: how to search, as the zoo's ``ExperimentManager`` calls it: ``n_trials``,
        ``max_total_trials``, ``sampler``, ``pruner``, ``n_startup_trials``, ``n_evaluations``
    :param options: see :class:`~sb3_diayn.zoo.settings.TrainingOptions`
    :return: file with the best hyperparameters, in the zoo's format
    :raises ValueError: if the algorithm cannot be searched, the space does not fit, or no trial has
        reached its end
    """
    if check_positive("n_episodes", n_episodes) < 2:
        raise ValueError(
            f"n_episodes={n_episodes} leaves no episode for a held-out classifier; expected at "
            "least 2."
        )
    given = TrainingOptions(env=env, **options)
    algo = given.algo or default_algo(given.conf_file, env or "")
    if algo not in HYPERPARAMS_SAMPLER or algo == "ars":
        raise ValueError(
            f"algo={algo!r} cannot be searched; expected one of "
            f"{sorted(set(HYPERPARAMS_SAMPLER) - {'ars'})}."
        )
    check_space(algo, given.hyperparams, space or {})
    settings, hyperparams = complete(given)
    folder = Path(settings.log_folder, algo)
    folder.mkdir(parents=True, exist_ok=True)
    storage = storage or f"sqlite:///{(folder / 'studies.db').as_posix()}"
    _check_storage(storage)
    name = study_name or f"{algo}_{settings.env}".replace("/", "-")
    searched = {
        "hyperparameters": hyperparams,
        "pinned": settings.hyperparams,
        "space": space or {},
        "env_kwargs": settings.env_kwargs,
        "n_timesteps": settings.n_timesteps,
        "n_episodes": n_episodes,
    }
    _join(_backend(storage), name, json.loads(json.dumps(searched, default=str)))
    with make_manager(
        SkillSearch,
        seeded(settings),
        hyperparams,
        fixed_hyperparams=hyperparams,
        pinned=settings.hyperparams,
        space=space or {},
        n_skill_episodes=n_episodes,
        storage=storage,
        study_name=name,
        optimize_hyperparameters=True,
        no_optim_plots=True,
        **(study or {}),
    ) as search:
        search.setup_experiment()
        _optimize(search)
    best = search.best_hyperparams()
    if settings.env_kwargs:
        best["env_kwargs"] = dict(settings.env_kwargs)
    file = folder / f"{name}_best.yml"
    write_bytes(file, yaml.safe_dump({settings.env: best}).encode())
    return file


def _optimize(search: SkillSearch) -> None:
    """The zoo's search, which ends in an error of Optuna's if no trial is complete."""
    try:
        search.hyperparameters_optimization()
    except ValueError as error:
        if str(error) not in NO_BEST_TRIAL:
            raise
        if search.is_interrupted:
            print(f"The study is kept in {search.storage}. The same command continues it.")
            raise KeyboardInterrupt from error
        why = search.last_failure and f" The last one failed with: {search.last_failure}"
        raise ValueError(
            f"study_name={search.study_name!r} has no complete trial; expected at least one. "
            f"Raise n_timesteps, or add trials.{why}"
        ) from error


def _check_storage(storage: str) -> None:
    """A damaged database is refused by its name, which neither Optuna nor the zoo would do."""
    is_log = storage.endswith(".log")
    if is_log and not Path(storage).exists():
        return
    with reading(storage, "studies of Optuna. Choose another file", argument="storage"):
        if is_log:  # Optuna appends to a line that is not whole, and fails from then on
            lines = Path(storage).read_text(encoding="utf-8").split("\n")
            if lines.pop() or not all(isinstance(json.loads(line), dict) for line in lines):
                raise ValueError("a line is not whole")
        optuna.study.get_all_study_names(_backend(storage))


def _backend(storage: str) -> Any:
    """As the zoo has it."""
    is_log = storage.endswith(".log")
    return JournalStorage(JournalFileBackend(storage)) if is_log else storage


def _join(backend: Any, name: str, searched: Mapping[str, Any]) -> None:
    """Start a study, or join one of the same trainings: bounds of others cannot be compared."""
    study = optuna.create_study(
        storage=backend, study_name=name, direction="maximize", load_if_exists=True
    )
    if not study.get_trials(deepcopy=False):
        study.set_user_attr(SEARCHED, searched)
    before = study.user_attrs.get(SEARCHED, searched)  # version 0.1.0 wrote nothing down
    changed = [key for key in searched if before.get(key) != searched[key]]
    if changed:
        had, has = ({key: each.get(key) for key in changed} for each in (before, searched))
        raise ValueError(
            f"study_name={name!r} holds trials with {had}; expected {has}: other trainings cannot "
            "be compared. Choose another --study-name, or repeat the study's own command."
        )


NO_BEST_TRIAL = ("No trials are completed yet.", "Record does not exist.")  # Optuna's words
SEARCHED = "searched"  # attribute of a study: what its trials have in common
NETS = {"small": [64, 64], "medium": [256, 256], "big": [400, 300]}  # as the zoo names them


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

    def _suggest(self, kind: str, name: str, low: float, high: float, **kwargs: Any) -> Any:
        if name in self._answers:
            return self._answers[name] or low
        ends = self._space.get(name, (low, high))
        return getattr(self._trial, f"suggest_{kind}")(name, min(ends), max(ends), **kwargs)

    suggest_float = partialmethod(_suggest, "float")
    suggest_int = partialmethod(_suggest, "int")

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
    What the zoo samples, and what matters to DIAYN: how much the policy is rewarded for
    randomness, how many environments feed how many updates, and the discriminator.

    :param trial: to ask
    :param algo: name of the algorithm as the zoo spells it
    :param n_actions: dimension of the action space
    :param pinned: hyperparameters that stay as they are
    :param space: by the search's own names the two ends of a number, or the choices; None for all
    :return: hyperparameters for :func:`sb3_diayn.zoo.hyperparams.override`, plain values only
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


def _without_uneven_strata(entry: dict[str, Any]) -> dict[str, Any]:
    """Stratified skills need a multiple of K environments. With other numbers they are balanced."""
    wrapper = wrapper_of_skills(entry)
    is_stratified = get_arguments(entry, wrapper).get("skill") == "stratified"
    if is_stratified and entry["n_envs"] % n_skills_of(entry):
        return set_argument(entry, wrapper, "skill", "balanced")
    return entry


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
        try:
            _check_values(known[name], values)
        except ValueError as error:
            raise ValueError(f"space={name}={list(values)!r} does not fit: {error}") from error


def _questions(algo: str, pinned: Mapping[str, Any]) -> dict[str, BaseDistribution]:
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # not to announce the study of this line
    trial = optuna.create_study().ask()
    optuna.logging.set_verbosity(verbosity)
    sample(trial, algo, 1, pinned)
    return trial.distributions


def _check_values(asked: BaseDistribution, values: Sequence[Any]) -> None:
    """
    Optuna refuses what is not one of the choices. Of numbers it takes 6.5 for 6, and a negative
    count as it is, and a choice of numbers may lie beyond those that are searched by default.
    """
    choices = asked.choices if isinstance(asked, CategoricalDistribution) else ()
    if not all(type(choice) in (int, float) for choice in choices):
        for value in values:
            asked.to_internal_repr(value)
        return
    kind = int if isinstance(asked, IntDistribution) else (int, float)
    has_zero = getattr(asked, "low", None) == 0  # as TQC's number of quantiles to drop
    fits = all(isinstance(v, kind) and (v > 0 or (v == 0 and has_zero)) for v in values)
    if not fits or (not choices and len(values) > 2):
        sign = "non-negative" if has_zero else "positive"
        noun = "integer" if kind is int else "number"
        rule = f"{sign} {noun}s" if choices else f"one {sign} {noun}, or the two ends"
        raise ValueError(f"expected {rule}")
