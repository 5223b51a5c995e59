"""Hyperparameter search in the zoo's Optuna study, judged by the skills. It needs ``zoo``."""

import argparse
import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from rl_zoo3.exp_manager import ExperimentManager
from rl_zoo3.hyperparams_opt import HYPERPARAMS_SAMPLER
from rl_zoo3.utils import ALGOS

from sb3_diayn.monitoring import SkillEvaluationCallback
from sb3_diayn.playing import MAX_ENVS
from sb3_diayn.saving import write_bytes
from sb3_diayn.search_space import Space, check_space, sample
from sb3_diayn.zoo import chosen_hyperparams, override, prepared_config


class TrialCallback(SkillEvaluationCallback):
    """
    Reports the mutual information of each evaluation to a trial, and ends one that is pruned. What
    else was measured becomes the trial's attributes: skills that fall at once may be easy to tell
    apart, which only their returns and coverage show.

    :param trial: the trial
    :param kwargs: for :class:`sb3_diayn.monitoring.SkillEvaluationCallback`
    """

    def __init__(self, trial: optuna.Trial, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.trial, self.is_pruned = trial, False

    def _on_step(self) -> bool:
        n_evaluations = len(self.history)
        goes_on = super()._on_step()
        if len(self.history) > n_evaluations:
            self.trial.report(self.history[-1]["mutual_information"], len(self.history))
            for name, value in self.history[-1].items():
                self.trial.set_user_attr(name, value)
            self.is_pruned = self.trial.should_prune()
        return goes_on and not self.is_pruned


class SkillSearch(ExperimentManager):  # type: ignore[misc]  # the zoo has no types
    """
    The zoo's search with another objective: the mutual information of skills and states in nats,
    on fresh episodes of every skill, in place of the return of a few.

    :param hyperparams: in the zoo's format, for all that is not searched
    :param pinned: hyperparameters that stay as they are
    :param space: what to choose from, by the search's names, in place of all of it
    :param n_episodes: episodes of each skill in an evaluation
    :param args: for the zoo's ``ExperimentManager``
    :param kwargs: for the same
    """

    def __init__(
        self,
        hyperparams: Mapping[str, Any],
        pinned: Mapping[str, Any],
        space: Space,
        n_episodes: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.fixed_hyperparams, self.pinned, self.space = hyperparams, pinned, space
        self.n_skill_episodes = n_episodes

    def with_trial(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """
        :param trial: to ask
        :return: all hyperparameters of the trial in the zoo's format
        """
        chosen = sample(trial, self.algo, self.n_actions, self.pinned, self.space)
        return override(self.algo, copy.deepcopy(dict(self.fixed_hyperparams)), chosen)

    def objective(self, trial: optuna.Trial) -> float:
        """
        :param trial: to ask and to report to
        :return: the last evaluation's mutual information in nats
        :raises optuna.TrialPruned: if it is pruned, or the hyperparameters do not work
        """
        hyperparams = self.with_trial(trial)
        hyperparams, self.env_wrapper, callbacks, self.vec_env_wrapper = (
            self._preprocess_hyperparams(hyperparams)
        )
        env = self.create_envs(self.n_envs, no_log=True)
        n_skills = int(env.get_attr("n_skills")[0])
        evaluation = TrialCallback(
            trial,
            eval_env=self.create_envs(
                min(n_skills * self.n_skill_episodes, MAX_ENVS), eval_env=True
            ),
            eval_freq=max(1, self.n_timesteps // self.n_evaluations),
            n_episodes=self.n_skill_episodes,
        )
        try:
            hyperparams = self._preprocess_action_noise(hyperparams, hyperparams, env)
            model = ALGOS[self.algo](env=env, device=self.device, **hyperparams)
            model.learn(self.n_timesteps, callback=[*callbacks, evaluation])
        except (AssertionError, ValueError) as error:  # what NaN brings about, as in the zoo
            raise optuna.TrialPruned(str(error)) from error
        finally:
            env.close()
            evaluation.given_env.close()
        if evaluation.is_pruned:
            raise optuna.TrialPruned()
        return evaluation.history[-1]["mutual_information"]

    def best_hyperparams(self) -> dict[str, Any]:
        """:return: all hyperparameters of the study's best trial in the zoo's format"""
        params = self.load_trial(self.storage, self.study_name, convert=False)
        return self.with_trial(optuna.trial.FixedTrial(params))


def tune(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn tune``: start a study or join it, and write the best hyperparameters.

    :param args: its options
    :raises ValueError: if the algorithm cannot be searched, the space does not fit, or no trial has
        reached its end
    """
    if args.algo not in HYPERPARAMS_SAMPLER or args.algo == "ars":
        raise ValueError(
            f"algo={args.algo!r} cannot be searched; expected one of "
            f"{sorted(set(HYPERPARAMS_SAMPLER) - {'ars'})}. Choose one."
        )
    check_space(args.algo, chosen_hyperparams(args), dict(args.space))
    folder = Path(args.log_folder, args.algo)
    folder.mkdir(parents=True, exist_ok=True)
    args.study_name = args.study_name or f"{args.algo}_{args.env}".replace("/", "-")
    args.storage = args.storage or f"sqlite:///{(folder / 'studies.db').as_posix()}"
    with prepared_config(args) as config:
        hyperparams = yaml.safe_load(config.read_text(encoding="utf-8"))[args.env]
        search = _make_search(args, config, hyperparams)
        search.setup_experiment()
        search.hyperparameters_optimization()
    file = folder / f"{args.study_name}_best.yml"
    best = yaml.safe_dump({args.env: search.best_hyperparams()})
    write_bytes(file, best.encode())
    command = f"sb3-diayn train --algo {args.algo} --env {args.env} --conf-file {file}"
    print(f"{best}\nBest hyperparameters: {file}\nLearn with them:      {command}")


def _make_search(
    args: argparse.Namespace, config: Path, hyperparams: dict[str, Any]
) -> SkillSearch:
    return SkillSearch(
        hyperparams,
        chosen_hyperparams(args),
        dict(args.space),
        args.episodes,
        args,
        args.algo,
        args.env,
        args.log_folder,
        config=str(config),
        n_timesteps=args.total_timesteps,
        env_kwargs=args.env_kwargs,
        optimize_hyperparameters=True,
        storage=args.storage,
        study_name=args.study_name,
        n_trials=args.n_trials,
        max_total_trials=args.max_total_trials,
        sampler=args.sampler,
        pruner=args.pruner,
        n_startup_trials=args.n_startup_trials,
        n_evaluations=args.n_evaluations,
        no_optim_plots=True,
        seed=args.seed,
        verbose=args.verbose,
        vec_env_type=args.vec_env,
        device=args.device,
    )
