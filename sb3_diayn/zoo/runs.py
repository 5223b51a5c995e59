"""Runs of the RL Zoo: finding what one has saved, and playing it."""

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn.checkpoints import CHECKPOINTS_FOLDER, MODEL_FILE, STATISTICS, list_checkpoints
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation.evaluate import evaluate_skills
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.extractors import import_function
from sb3_diayn.files import require_extra
from sb3_diayn.model_zip import load_discriminator, load_state

WRAPPER, CALLBACK = "sb3_diayn.DIAYNWrapper", "sb3_diayn.DIAYNCallback"


def import_zoo() -> Any:
    """:return: ``rl_zoo3``, imported only where it is used, since it patches gymnasium"""
    with require_extra("zoo"):
        import rl_zoo3
        import rl_zoo3.import_envs
    return rl_zoo3


@dataclass
class Run:
    """
    A saved model and what is known of its training.

    :param model_path: the zip
    :param algo: name of the algorithm's class, for example ``SAC``
    :param env_id: id of the environment
    :param n_skills: the number of skills, K
    :param hyperparams: as the zoo saved them; of a bare zip only the wrapper
    :param env_kwargs: arguments of the environment
    :param stats_path: folder with the zoo's files of the run, None for a bare zip
    :param folder: where reports and films of the run belong
    """

    model_path: Path
    algo: str
    env_id: str
    n_skills: int
    hyperparams: dict[str, Any]
    env_kwargs: dict[str, Any]
    stats_path: Path | None
    folder: Path

    def load_model(self, *, to_train: bool = False, **kwargs: Any) -> BaseAlgorithm:
        """
        :param to_train: with a replay buffer as in training, not for a single transition
        :param kwargs: for SB3's ``load``
        :return: the model
        """
        algorithms = {cls.__name__: cls for cls in import_zoo().ALGOS.values()}
        if self.algo not in algorithms:
            raise ValueError(
                f"algo={self.algo!r} is not known to the zoo; expected one of "
                f"{sorted(algorithms)}. Load the model in Python instead."
            )
        cls = algorithms[self.algo]
        if not to_train and "buffer_size" in cls.__init__.__code__.co_varnames:
            kwargs.setdefault("buffer_size", 1)
        model: BaseAlgorithm = cls.load(self.model_path, **kwargs)
        return model

    def load_discriminator(self) -> Discriminator:
        """
        :return: the discriminator in the model's zip. The ``obs_function`` that it reads through is
            imported if the run's ``config.yml`` names it, which the zoo executes anyway; never
            because a zip does
        """
        callbacks = self.hyperparams.get("callback", [])
        for each in callbacks if isinstance(callbacks, list) else [callbacks]:
            options = each.get(CALLBACK) if isinstance(each, dict) else None
            if options and options.get("obs_function"):
                function = import_function(options["obs_function"])
                return load_discriminator(self.model_path, obs_function=function)
        return load_discriminator(self.model_path)

    def make_env(self, n_envs: int = 1, *, seed: int = 0, render_mode: str | None = None) -> VecEnv:
        """
        :param n_envs: number of environments, in this process
        :param seed: seed of the first one, counted up from there
        :param render_mode: None, "human" or "rgb_array"
        :return: environments as in training, with ``VecNormalize`` where the run had it
        :raises ValueError: if the environment does not take its arguments
        """
        env_kwargs = dict(self.env_kwargs)
        if render_mode is not None:
            env_kwargs["render_mode"] = render_mode
        create = import_zoo().create_test_env
        try:
            env: VecEnv = create(
                self.env_id,
                n_envs=n_envs,
                stats_path=self._statistics(),
                seed=seed,
                should_render=False,
                hyperparams=dict(self.hyperparams),
                env_kwargs=env_kwargs,
                vec_env_cls=DummyVecEnv,
            )
        except TypeError as error:
            raise ValueError(
                f"env_kwargs={env_kwargs} do not fit {self.env_id} ({error}); expected arguments "
                "that it takes. Look them up in its documentation."
            ) from error
        return env

    def _statistics(self) -> str | None:
        """The folder with those of ``VecNormalize``: a checkpoint has its own."""
        if self.stats_path is None:
            return None
        own = self.model_path.parent / self.stats_path.name
        return str(own if (own / STATISTICS).is_file() else self.stats_path)


def find_run(
    path: str | Path, env_id: str | None = None, env_kwargs: dict[str, Any] | None = None
) -> Run:
    """
    :param path: a run's folder as the zoo writes it, or a zip inside or outside of one
    :param env_id: id of the environment, needed for a zip whose environment had none
    :param env_kwargs: arguments of the environment besides those of the training
    :return: the run
    :raises FileNotFoundError: if there is no such run
    :raises ValueError: if it holds no discriminator, or the environment is not known
    """
    path = Path(path)
    if not path.exists() and not path.with_name(path.name + ".zip").is_file():
        raise FileNotFoundError(
            f"RUN={str(path)!r} does not exist; expected a run's folder, such as "
            "logs/sac/Hopper-v5_1, or a model's zip. Look into your log folder."
        )
    if (path / MODEL_FILE).is_file():
        path = path / MODEL_FILE  # of a checkpoint
    folder = path if path.is_dir() else path.parent
    if folder.parent.name == CHECKPOINTS_FOLDER:
        folder = folder.parent.parent
    configs = sorted(folder.glob("*/config.yml"))
    if not configs:
        if path.is_dir():
            raise FileNotFoundError(
                f"RUN={str(path)!r} is not a run's folder, it holds no */config.yml; expected one "
                "that sb3-diayn train or rl_zoo3.train wrote. Pass a zip, or another folder."
            )
        return _bare_zip(path, env_id, env_kwargs or {})
    stats_path = configs[0].parent
    model_path = path if path.is_file() else _newest_zip(folder, stats_path.name)
    state = load_state(model_path)
    hyperparams, saved_env_id, saved_kwargs = _read_configuration(stats_path)
    return Run(
        model_path,
        state["algo"],
        env_id or saved_env_id,
        state["n_skills"],
        hyperparams,
        saved_kwargs | (env_kwargs or {}),
        stats_path,
        folder,
    )


def _read_configuration(stats_path: Path) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Hyperparameters, the environment's id and its arguments, of the zoo's two files."""
    try:
        hyperparams, _ = import_zoo().get_saved_hyperparams(str(stats_path), test_mode=True)
        args = yaml.load((stats_path / "args.yml").read_bytes(), Loader=yaml.UnsafeLoader)
        env_kwargs = {**hyperparams.pop("env_kwargs", {}), **(args["env_kwargs"] or {})}
        return hyperparams, args["env"], env_kwargs
    except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"RUN={str(stats_path.parent)!r} has a damaged config.yml or args.yml "
            f"({type(error).__name__}: {error}); expected what the zoo wrote. Pass a zip, copied "
            "out of the folder, and --env."
        ) from error


def _bare_zip(path: Path, env_id: str | None, env_kwargs: dict[str, Any]) -> Run:
    state = load_state(path)
    env_id = env_id or state.get("env_id")
    if env_id is None:
        raise ValueError(
            f"RUN={str(path)!r} was trained on an environment without an id; expected the option "
            "--env. Register the environment and add its id."
        )
    check_env_id(env_id)
    hyperparams = {"env_wrapper": [{WRAPPER: {"n_skills": state["n_skills"]}}]}
    algo, n_skills, folder = state["algo"], state["n_skills"], path.parent / f"{path.stem}_report"
    return Run(path, algo, env_id, n_skills, hyperparams, env_kwargs, None, folder)


def _newest_zip(folder: Path, env_name: str) -> Path:
    """The final model, or the last checkpoint of a run that did not reach its end."""
    final = folder / f"{env_name}.zip"
    if final.is_file():
        return final
    if own := list(list_checkpoints(folder / CHECKPOINTS_FOLDER).values()):
        return own[-1] / MODEL_FILE
    checkpoints = sorted(folder.glob("rl_model_*_steps.zip"), key=lambda file: file.stat().st_mtime)
    if not checkpoints:
        raise FileNotFoundError(
            f"RUN={str(folder)!r} holds no model; expected {final.name} or a checkpoint "
            "rl_model_*_steps.zip. The training may have ended before it saved anything."
        )
    return checkpoints[-1]


def check_env_id(env_id: str) -> None:
    """
    :param env_id: id of an environment
    :raises ValueError: if it is not registered
    """
    if env_id in gym.registry:
        return
    close = difflib.get_close_matches(env_id, gym.registry, n=3)
    hint = f"Did you mean {' or '.join(close)}?" if close else "Is its package installed?"
    raise ValueError(f"env={env_id!r} is not registered; expected a gymnasium id. {hint}")


MAX_ENVS = 50  # more gain nothing: then nearly all of the time is the environment's own


def open_run(
    run: Run, args: argparse.Namespace, n_envs: int, render_mode: str | None = None
) -> tuple[BaseAlgorithm, VecEnv]:
    """
    :param run: a run
    :param args: options with ``seed`` and ``device``
    :param n_envs: number of environments
    :param render_mode: of the environments
    :return: its model, and environments that fit it
    :raises ValueError: if the environment does not fit the model
    """
    model = run.load_model(device=args.device)
    try:
        env = run.make_env(n_envs, seed=args.seed or 0, render_mode=render_mode)
    except AssertionError as error:  # VecNormalize, of statistics for another space
        raise ValueError(f"env={run.env_id!r} does not fit the run: {error}") from error
    for name in ("observation_space", "action_space"):
        given, expected = getattr(env, name), getattr(model, name)
        if given != expected:
            env.close()
            raise ValueError(
                f"env={run.env_id!r} has the {name} {given}, the model was trained on {expected}; "
                "expected the same. Check the environment's id and its arguments."
            )
    return model, env


def measure(run: Run, args: argparse.Namespace) -> SkillEvaluation:
    """
    :param run: a run
    :param args: options with ``seed``, ``device`` and ``episodes``
    :return: its skills on fresh episodes
    """
    model, env = open_run(run, args, min(run.n_skills * args.episodes, MAX_ENVS))
    try:
        evaluation = evaluate_skills(
            model,
            env,
            discriminator=run.load_discriminator(),
            n_episodes=args.episodes,
            seed=args.seed,
            progress_bar=not args.no_progress and sys.stderr.isatty(),
        )
    finally:
        env.close()
    evaluation.info["env_id"] = run.env_id
    return evaluation


def film(
    run: Run,
    args: argparse.Namespace,
    skills: Sequence[int],
    folder: Path,
    *,
    format: str = "mp4",
    deterministic: bool = True,
) -> Mapping[int, Path]:
    """
    :param run: a run
    :param args: options with ``seed``, ``device`` and ``film_steps``
    :param skills: which skills
    :param folder: where to
    :param format: ``"mp4"`` or ``"gif"``
    :param deterministic: play the mode of the policy instead of samples
    :return: a film of each skill
    :raises OSError: if the environment gives no picture
    """
    with require_extra("report"):
        from sb3_diayn.evaluation.video import RenderingError, record_skills
    # SDL, which nothing shows or plays here, would complain of a missing display and sound card.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
    model, env = open_run(run, args, 1, "rgb_array")
    plural = "s" if len(skills) > 1 else ""
    print(f"Filming {len(skills)} skill{plural}, at most {args.film_steps} steps each ...")
    try:
        return record_skills(
            model,
            env,
            folder,
            skills=skills,
            max_steps=args.film_steps,
            deterministic=deterministic,
            seed=args.seed,
            format=format,
        )
    except RenderingError as error:
        raise OSError(str(error)) from error
    finally:
        env.close()
