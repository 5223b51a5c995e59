"""Evaluations of all skills during a training."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_diayn.arguments import Count, Number, PositiveNumber, Seed, check_options
from sb3_diayn.callback_list import check_eval_envs
from sb3_diayn.checkpoints import STATISTICS, run_folder
from sb3_diayn.evaluation.copies import copy_envs, copy_statistics, normalize_like
from sb3_diayn.evaluation.evaluate import evaluate_skills
from sb3_diayn.evaluation.media import TEXT_FORMATS, has_tensorboard, log_confusion
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import as_vec_env, check_space, preserve_state
from sb3_diayn.files import make_folder, reading, replacing, write_bytes, write_through_memory
from sb3_diayn.model_zip import skill_state
from sb3_diayn.representation import objective_class
from sb3_diayn.trainer import State

SKILLS_FOLDER = "skills"
HISTORY_FILE, BEST_MODEL = "evaluations.json", "best_model.zip"


class SkillEvaluationCallback(BaseCallback):
    """
    Evaluates every skill on fresh episodes each ``eval_freq`` environment steps. The training is
    not disturbed: with the same seed it gives bit-equal parameters.
    Paper: https://arxiv.org/abs/1802.06070

    It logs under ``diayn_eval/``: ``held_out_bound`` (nats) and ``distinct_skills``, its
    exponential; ``discriminator_bound`` (nats, also by its old name ``mutual_information``),
    ``accuracy`` (share of states) and ``calibration_error``; ``task_return_mean`` and
    ``task_return_best`` over skills, ``coverage`` (cells of all skills together), ``sensitivity``,
    and for TensorBoard the histogram ``task_returns`` with one value per skill and the figure
    ``confusion``, which needs the extra ``report``. See :class:`SkillEvaluation` for what they
    mean. METRA has no ``discriminator_bound`` and no ``calibration_error``.

    It is passed together with ``DIAYNCallback``, in Python or in the zoo's YAML::

        callback:
          - sb3_diayn.DIAYNCallback
          - sb3_diayn.SkillEvaluationCallback:
              eval_freq: 20000
              save_path: auto

    .. warning::
        Unlike SB3's ``EvalCallback``, which counts calls, this one counts environment steps: do
        not divide ``eval_freq`` by the number of environments.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillEvaluationCallback
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64)
        >>> evaluating = SkillEvaluationCallback(eval_freq=64, save_path="skills")
        >>> model = model.learn(128, callback=[DIAYNCallback(), evaluating])
        >>> [row["num_timesteps"] for row in evaluating.history]
        [64, 128]

    :param eval_env: a ``DIAYNWrapper`` environment or vectorised ones, not the training ones;
        None to build ``n_envs`` copies of the training environment from its ``spec``
    :param eval_freq: environment steps between two evaluations
    :param n_episodes: episodes of each skill. With a single one the number of distinct skills is
        not known
    :param n_envs: environments to build, in this process
    :param deterministic: play the mode of the policy instead of samples
    :param seed: of environments and sampled actions, the same for each evaluation
    :param max_steps: see :func:`~sb3_diayn.evaluation.trajectories.play_skills`
    :param save_path: folder for ``evaluations.json``, ``best_model.zip`` and the statistics of
        ``VecNormalize``. A training that is resumed continues what is there. ``"auto"`` for the
        folder ``skills`` within the run's, see
        :class:`~sb3_diayn.checkpoints.DIAYNCheckpointCallback`. None to save nothing
    :param save_best: save the model whenever it has more distinct skills than any before; where
        their number is not known, whenever the discriminator's own bound is the highest so far.
        Unlike ``best_model`` of ``EvalCallback``, which is judged by the task return of a few
        random skills
    :param stop_at_distinct_skills: number of distinct skills at which to stop the training; None
        for never
    :param stop_at_mutual_information: the discriminator's own bound in nats at which to stop; None
        for never
    :param verbose: 1 to print each evaluation, 0 for silence
    :raises ValueError: if an option is not allowed; in ``learn`` if the environment cannot be
        built, the model has no discriminator or ``"auto"`` finds no folder
    """

    subfolder = SKILLS_FOLDER  # of the run's folder, for "auto"

    def __init__(
        self,
        eval_env: Any = None,
        *,
        eval_freq: Count = 10_000,
        n_episodes: Count = 2,
        n_envs: Count = 10,
        deterministic: bool = False,
        seed: Seed = 0,
        max_steps: Count | None = None,
        save_path: str | Path | None = None,
        save_best: bool = True,
        stop_at_distinct_skills: PositiveNumber | None = None,
        stop_at_mutual_information: Number | None = None,
        verbose: int = 0,
    ) -> None:
        check_options(SkillEvaluationCallback, locals())
        super().__init__(verbose)
        self.eval_freq, self.n_episodes, self.n_envs = eval_freq, n_episodes, n_envs
        self.deterministic, self.seed, self.max_steps = deterministic, int(seed), max_steps
        self.save_path, self.save_best = save_path, save_best
        if stop_at_distinct_skills is not None and n_episodes < 2:
            raise ValueError(
                f"n_episodes={n_episodes} is too few to count distinct skills; expected at least 2 "
                "with stop_at_distinct_skills."
            )
        self.stop_at_distinct_skills = stop_at_distinct_skills
        self.stop_at_mutual_information = stop_at_mutual_information
        self.given_env = eval_env
        self.history: list[dict[str, float]] = []
        self.last_evaluation: SkillEvaluation | None = None
        self.best_bound = -np.inf
        self._env: VecEnv | None = None

    # -- set-up ------------------------------------------------------------------------------

    def _on_training_start(self) -> None:
        self._check_objective(skill_state(self.model))  # refuses a model without a discriminator
        check_eval_envs(self, self.training_env)
        self._folder = self._find_folder()
        self._continue_history()
        self._periods = self.num_timesteps // self.eval_freq
        if self._env is None:
            with preserve_state(self.model, self.training_env):
                self._env = self._make_env()
        check_space(self.model, self._env)

    def _check_objective(self, state: State) -> None:
        """Without probabilities there is no bound of the discriminator's own."""
        if objective_class(state["options"]).has_probabilities:
            return
        if self.stop_at_mutual_information is not None:
            raise ValueError(
                f"stop_at_mutual_information={self.stop_at_mutual_information!r} has no meaning "
                "with objective='metra', which has no log q(z|s'); expected None. Use "
                "stop_at_distinct_skills."
            )
        if self.save_best and self.save_path is not None and self.n_episodes < 2:
            raise ValueError(
                f"n_episodes={self.n_episodes} finds no best model with objective='metra', since "
                "the number of distinct skills is not known; expected at least 2, or "
                "save_best=False."
            )

    @property
    def own_env(self) -> VecEnv | None:
        """:return: the environments that it has built for a training, None where it has none"""
        return self._env if self.given_env is None else None

    def _make_env(self) -> VecEnv:
        env = self._copy_envs() if self.given_env is None else as_vec_env(self.given_env)
        has_none = unwrap_vec_normalize(self.training_env) is None
        if has_none and unwrap_vec_normalize(env) is not None:
            raise ValueError(
                f"eval_env={env} has VecNormalize; expected none, since the training has none."
            )
        return normalize_like(env, self.training_env)

    def _copy_envs(self) -> VecEnv:
        n_skills = int(self.training_env.get_attr("n_skills")[0])
        return copy_envs(
            self.training_env,
            min(self.n_envs, n_skills * self.n_episodes),
            argument="eval_env=None",
            remedy="Pass eval_env=, a separate environment for the evaluation.",
        )

    def _find_folder(self) -> Path | None:
        if self.save_path is None:
            return None
        folder = Path(self.save_path)
        if self.save_path == "auto":
            folder = run_folder(self.locals["callback"]) / self.subfolder
        return make_folder(folder)

    def _continue_history(self) -> None:
        """Of the training that this one resumes. A later best model stays the one to beat."""
        if self._folder is None or self.history or self.num_timesteps == 0:
            return
        file = self._folder / HISTORY_FILE
        if not file.is_file():
            return
        expected = "evaluations as they were written. Remove the file to begin a new one"
        with reading(file, expected, argument="save_path"):
            rows = json.loads(file.read_bytes())
            self.history = [row for row in rows if row["num_timesteps"] <= self.num_timesteps]
            if (self._folder / BEST_MODEL).is_file():
                self.best_bound = max((_bound(row) for row in rows), default=-np.inf)

    # -- training ----------------------------------------------------------------------------

    def _on_step(self) -> bool:
        periods = self.num_timesteps // self.eval_freq
        if periods == self._periods:
            return True
        self._periods = periods
        evaluation = self._evaluate()
        row = evaluation.numbers()
        self.history.append({"num_timesteps": self.num_timesteps, **row})
        self._log(evaluation, row)
        self._save(_bound(row))
        targets = {
            "distinct_skills": self.stop_at_distinct_skills,
            "mutual_information": self.stop_at_mutual_information,
        }
        return not any(t is not None and row[name] >= t for name, t in targets.items())

    def _evaluate(self) -> SkillEvaluation:
        assert self._env is not None
        copy_statistics(self._env, self.training_env)
        self.last_evaluation = evaluate_skills(
            self.model,
            self._env,
            n_episodes=self.n_episodes,
            deterministic=self.deterministic,
            seed=self.seed,
            max_steps=self.max_steps,
        )
        return self.last_evaluation

    def _log(self, evaluation: SkillEvaluation, row: dict[str, float]) -> None:
        for name, value in row.items():
            self.logger.record(f"diayn_eval/{name}", value)
        returns = th.as_tensor(evaluation.task_returns.mean(axis=1))
        self.logger.record("diayn_eval/task_returns", returns, exclude=TEXT_FORMATS)
        if has_tensorboard(self.logger):
            with suppress(ImportError):  # without the extra report there is no figure
                log_confusion(self.logger, evaluation, "diayn_eval/confusion")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(self.num_timesteps)
        if self.verbose >= 1:
            distinct = row["distinct_skills"]
            known = "n/a" if np.isnan(distinct) else f"{distinct:.1f}"
            print(
                f"Skills after {self.num_timesteps} steps: {known} distinct, "
                f"best task return {row['task_return_best']:.1f}"
            )

    def _save(self, bound: float) -> None:
        is_best = bound > self.best_bound
        self.best_bound = max(bound, self.best_bound)
        if self._folder is None:
            return
        write_bytes(self._folder / HISTORY_FILE, json.dumps(self.history, indent=1).encode())
        if is_best and self.save_best:
            with replacing(self._folder / BEST_MODEL) as temporary:
                write_through_memory(temporary, self.model.save)
            normalizer = unwrap_vec_normalize(self.training_env)
            if normalizer is not None:
                with replacing(self._folder / STATISTICS) as temporary:
                    normalizer.save(str(temporary))

    def _on_training_end(self) -> None:
        if self.own_env is not None:
            self.own_env.close()
            self._env = None


def _bound(row: dict[str, float]) -> float:
    """What the best model is chosen by."""
    bounds = [row.get(name, np.nan) for name in ("held_out_bound", "discriminator_bound")]
    return next((bound for bound in bounds if not np.isnan(bound)), -np.inf)
