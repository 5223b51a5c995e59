"""A saved model of the RL Zoo, and playing it."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import get_system_info
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from sb3_diayn import __version__
from sb3_diayn.checkpoints import STATISTICS
from sb3_diayn.checks import check_normalized
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation.evaluate import evaluate_skills
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import reading, require_extra
from sb3_diayn.model_zip import discriminator_from_state, load_state, training_history
from sb3_diayn.observations import as_float32
from sb3_diayn.processor import efficient_torch
from sb3_diayn.trainer import State
from sb3_diayn.user_code import UserCode
from sb3_diayn.zoo.environments import find_environment, why_not_made
from sb3_diayn.zoo.failures import close_envs, naming_failures
from sb3_diayn.zoo.hyperparams import check_classes, get_arguments, import_zoo
from sb3_diayn.zoo.run_files import OF_SB3, check_statistics, file_name, load_yaml, sha256

# With more, nearly all of the time of an evaluation is spent in the environments themselves.
EVALUATION_ENVS = 50
SDL_DRIVERS = ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER")
SYSTEM_INFO = ("Python", "Stable-Baselines3", "PyTorch", "Gymnasium", "Numpy")  # SB3's names
LIBRARIES = ("sb3-contrib", "sbx-rl", "rl_zoo3", "mujoco", "box2d")


@dataclass
class Run:
    """
    A saved model and what is known of its training.
    :func:`~sb3_diayn.zoo.finding.find_run` finds one.

    Example::

        run = find_run("logs/sac/Hopper-v5_1")
        print(run.evaluate().distinct_skills)
        with run.open(render_mode="human") as (model, env):
            for episode in play_skills(model, env, range(run.n_skills)):
                print(episode.skill, episode.task_rewards.sum())

    :param model_path: the zip
    :param algo: name of the algorithm's class, for example ``SAC``
    :param env_id: id of the environment
    :param n_skills: the number of skills, K
    :param hyperparams: as the zoo saved them; for a bare zip only the wrapper
    :param env_kwargs: arguments of the environment
    :param stats_path: folder with the zoo's files of the run, None for a bare zip
    :param folder: where reports and films of the run belong
    :param gym_packages: packages that register the environment
    """

    model_path: Path
    algo: str
    env_id: str
    n_skills: int
    hyperparams: dict[str, Any]
    env_kwargs: dict[str, Any]
    stats_path: Path | None
    folder: Path
    gym_packages: Sequence[str] = ()

    @cached_property
    def state(self) -> State:
        """:return: what ``DIAYNCallback`` stored in the zip, which is read once"""
        return load_state(self.model_path)

    @cached_property
    def saved_options(self) -> dict[str, Any]:
        """:return: the options of the training, as the zoo saved them; none for a bare zip"""
        return {} if self.stats_path is None else load_yaml(self.stats_path / "args.yml")

    @property
    def history(self) -> Mapping[str, Any] | None:
        """:return: logged values of the training by name; None for a zip older than they are"""
        with reading(self.model_path, OF_SB3):
            return training_history(self.state) or None

    @property
    def model_class(self) -> type[BaseAlgorithm]:
        """
        :return: the algorithm's class
        :raises ValueError: if the zoo does not know the algorithm
        """
        classes = {cls.__name__: cls for cls in import_zoo().ALGOS.values()}
        if self.algo not in classes:
            raise ValueError(
                f"algo={self.algo!r} is not known to the zoo; expected one of {sorted(classes)}. "
                "Load the model in Python instead."
            )
        found: type[BaseAlgorithm] = classes[self.algo]
        return found

    @property
    def zoo_algo(self) -> str:
        """:return: name of the algorithm as the zoo spells it, for example ``sac``"""
        names: dict[Any, str] = {cls: name for name, cls in import_zoo().ALGOS.items()}
        return names[self.model_class]

    def load_model(self, *, to_train: bool = False, **kwargs: Any) -> BaseAlgorithm:
        """
        :param to_train: with a replay buffer as in training, not for a single transition
        :param kwargs: for SB3's ``load``
        :return: the model
        """
        model_class = self.model_class
        if not to_train and issubclass(model_class, OffPolicyAlgorithm):
            kwargs.setdefault("buffer_size", 1)
        check_device(kwargs.get("device", "auto"))
        with reading(self.model_path, OF_SB3):
            return model_class.load(self.model_path, **kwargs)

    def load_discriminator(self) -> Discriminator:
        """
        :return: the discriminator in the model's zip. The ``obs_function`` or
            ``features_extractor_class`` that it reads through is imported if the run's
            ``config.yml`` names it, which the zoo executes anyway; never because a zip does
        """
        code = UserCode.load(get_arguments(self.hyperparams, "DIAYNCallback"))
        return discriminator_from_state(self.state, self.model_path, code)

    def make_env(
        self,
        n_envs: int = 1,
        *,
        seed: int = 0,
        render_mode: str | None = None,
        normalize: bool = True,
    ) -> VecEnv:
        """
        :param n_envs: number of environments, in this process
        :param seed: seed of the first one, counted up from there
        :param render_mode: None, "human" or "rgb_array"
        :param normalize: with ``VecNormalize`` where the run had it
        :return: environments as in training
        :raises ValueError: if the environment or a wrapper cannot be made, or the statistics of
            ``VecNormalize`` are missing
        """
        env_kwargs = dict(self.env_kwargs)
        if render_mode is not None:
            env_kwargs["render_mode"] = render_mode
        find_environment(self.env_id, self.gym_packages)
        check_classes(self.hyperparams, "env_wrapper", "vec_env_wrapper")
        create = import_zoo().create_test_env
        stats_path, hyperparams = self._normalization() if normalize else (None, self.hyperparams)
        if stats_path is not None and hyperparams.get("normalize"):
            check_statistics(Path(stats_path, STATISTICS))
        try:
            env: VecEnv = create(
                self.env_id,
                n_envs=n_envs,
                stats_path=stats_path,
                seed=seed,
                should_render=False,
                hyperparams=dict(hyperparams),
                env_kwargs=env_kwargs,
                vec_env_cls=DummyVecEnv,
            )
        except (ValueError, OSError, ImportError, gym.error.Error, AssertionError):
            raise
        except Exception as error:  # an environment may do anything
            raise why_not_made(self.env_id, env_kwargs, error) from error
        return env

    @property
    def statistics_file(self) -> Path | None:
        """
        :return: the statistics of ``VecNormalize``, if the run has them: checkpoints and the best
            models of evaluations have their own, next to the zip or in a folder as the zoo makes it
        """
        folder = self.model_path.parent
        name = file_name(self.env_id) if self.stats_path is None else self.stats_path.name
        places = [folder / name / STATISTICS]
        if self.stats_path is not None:
            places += [folder / STATISTICS, self.stats_path / STATISTICS]
        elif self.state.get("vec_normalize") is not False:
            places.append(folder / STATISTICS)
        return next((file for file in places if file.is_file()), None)

    def _normalization(self) -> tuple[str | None, dict[str, Any]]:
        """Folder of the statistics, and hyperparameters that say whether to use them."""
        file, hyperparams = self.statistics_file, self.hyperparams
        if self.stats_path is not None:
            return str(self.stats_path if file is None else file.parent), hyperparams
        if not self.state.get("vec_normalize", False):
            if file is not None and "vec_normalize" not in self.state:
                warnings.warn(
                    f"RUN={str(self.model_path)!r} does not say whether VecNormalize normalised "
                    f"its observations, as zips of version 0.1.0; {file} is not used.",
                    stacklevel=3,
                )
            return None, hyperparams
        if file is None:
            raise ValueError(
                f"RUN={str(self.model_path)!r} was trained on observations that VecNormalize "
                f"normalised, without which it does not play as it learned; expected {STATISTICS} "
                "next to the zip. Copy it from the run's folder, or pass that folder."
            )
        return str(file.parent), hyperparams | {"normalize": True, "normalize_kwargs": {}}

    @contextmanager
    def open(
        self,
        n_envs: int = 1,
        *,
        seed: int | None = 0,
        device: str = "auto",
        render_mode: str | None = None,
    ) -> Iterator[tuple[BaseAlgorithm, VecEnv]]:
        """
        :param n_envs: number of environments, which are closed at the end of the block
        :param seed: seed of the first environment
        :param device: PyTorch device of the model
        :param render_mode: None, "human" or "rgb_array"
        :return: the model, and environments that fit it
        :raises RunError: if an environment fails in the block
        :raises ValueError: if the environment does not fit the model
        """
        model = self.load_model(device=device)
        try:
            env = self.make_env(n_envs, seed=seed or 0, render_mode=render_mode)
        except AssertionError as error:  # VecNormalize asserts that its statistics fit the space
            raise ValueError(
                f"env={self.env_id!r} does not fit the run: {error}; expected the environment of "
                "the training, with its wrappers and arguments. Compare config.yml and args.yml of "
                "the run."
            ) from error
        has_failed = True
        try:
            normalizer = unwrap_vec_normalize(env)
            check_normalized(self.state, normalizer is not None and normalizer.norm_obs)
            for name in ("observation_space", "action_space"):
                given, expected = getattr(env, name), getattr(model, name)
                if as_float32(given) != as_float32(expected):  # EnvPool has float64
                    raise ValueError(
                        f"env={self.env_id!r} has the {name} {given}, the model in "
                        f"{self.model_path} was trained on {expected}; expected the same. Check "
                        "the environment's id and its arguments."
                    )
            with naming_failures(self.env_id, env), efficient_torch(model.observation_space):
                yield model, env
            has_failed = False
        finally:
            close_envs(env, has_failed=has_failed)

    def evaluate(
        self,
        *,
        n_episodes: int = 5,
        deterministic: bool = False,
        seed: int | None = 0,
        device: str = "auto",
        baseline: bool = False,
        obs_names: Sequence[str] | None = None,
        progress_bar: bool = False,
    ) -> SkillEvaluation:
        """
        :param n_episodes: fresh episodes of each skill
        :param deterministic: play the mode of the policy instead of samples
        :param seed: seed of the environments and of sampled actions
        :param device: PyTorch device of the model
        :param baseline: see :func:`~sb3_diayn.evaluation.evaluate.evaluate_skills`
        :param obs_names: see the same function
        :param progress_bar: show one
        :return: what was measured
        """
        n_envs = min(self.n_skills * n_episodes, EVALUATION_ENVS)
        with self.open(n_envs, seed=seed, device=device) as (model, env):
            evaluation = evaluate_skills(
                model,
                env,
                discriminator=self.load_discriminator(),
                n_episodes=n_episodes,
                deterministic=deterministic,
                seed=seed,
                baseline=baseline,
                obs_names=obs_names,
                progress_bar=progress_bar,
            )
        evaluation.info |= self.evaluated
        return evaluation

    @cached_property
    def evaluated(self) -> dict[str, Any]:
        """:return: what an evaluation of this run is of, for its ``info``"""
        statistics = self.statistics_file
        env_kwargs = json.dumps(self.env_kwargs, default=repr, sort_keys=True)
        return {
            "env_id": self.env_id,
            "env_kwargs": json.loads(env_kwargs),
            "model_sha256": sha256(self.model_path),
            "vec_normalize_sha256": None if statistics is None else sha256(statistics),
            "versions": installed_versions(),
        }

    def has_evaluation(
        self,
        evaluation: SkillEvaluation,
        *,
        n_episodes: int | None = None,
        deterministic: bool = False,
        seed: int | None = None,
    ) -> bool:
        """
        :param evaluation: of any model
        :param n_episodes: episodes of each skill that are wanted; None for any number
        :param deterministic: whether the mode of the policy is wanted instead of samples
        :param seed: that is wanted; None for any
        :return: whether it is of this very model, environment and versions, and as wanted
        :raises ValueError: if it says so and is of another number of skills
        """
        expected = {**self.evaluated, "deterministic": deterministic}
        wanted = {"n_episodes": n_episodes, "seed": seed}
        expected |= {name: value for name, value in wanted.items() if value is not None}
        fits = all(evaluation.info.get(name, ...) == value for name, value in expected.items())
        if fits and evaluation.n_skills != self.n_skills:
            raise ValueError(
                f"The evaluation has n_skills={evaluation.n_skills}; expected {self.n_skills}, as "
                "the run has. Evaluate the run again."
            )
        return fits

    def film(
        self,
        folder: Path,
        *,
        skills: Sequence[int] | None = None,
        seed: int | None = 0,
        device: str = "auto",
        **options: Any,
    ) -> Mapping[int, Path]:
        """
        :param folder: where to
        :param skills: which skills; None for all
        :param seed: seed of the environment and of sampled actions
        :param device: PyTorch device of the model
        :param options: for :func:`~sb3_diayn.evaluation.video.record_skills`
        :return: a film of each skill
        :raises ImportError: if the extra ``report`` is missing
        :raises OSError: if the environment gives no picture
        """
        with require_extra("report"):
            from sb3_diayn.evaluation.video import record_skills
        play = self.open(seed=seed, device=device, render_mode="rgb_array")
        with _without_window(), play as (model, env):
            return record_skills(model, env, folder, skills=skills, seed=seed, **options)

    def view(
        self,
        *,
        skill: int = 0,
        second: int | None = None,
        deterministic: bool = True,
        seed: int | None = 0,
        device: str = "auto",
    ) -> None:
        """
        Open a window in which keys switch the skill, see
        :func:`~sb3_diayn.evaluation.viewer.view_skills`.

        :param skill: the first one to play
        :param second: the one to mix it with, once a key asks for it; None for any
        :param deterministic: play the mode of the policy instead of samples
        :param seed: of environment and sampled actions; None for any
        :param device: PyTorch device of the model
        :raises ImportError: if the extra ``report`` is missing
        :raises OSError: if there is no display, or the environment gives no picture
        """
        with require_extra("report"):
            from sb3_diayn.evaluation.viewer import require_display, view_skills
        require_display()
        with self.open(seed=seed, device=device, render_mode="rgb_array") as (model, env):
            view_skills(
                model,
                env,
                skill=skill,
                second=second,
                discriminator=self.load_discriminator(),
                deterministic=deterministic,
                seed=seed,
                title=f"{self.algo} on {self.env_id}",
            )


@contextmanager
def _without_window() -> Iterator[None]:
    """Without a display and a sound card, SDL (pygame) would complain of both."""
    absent = [name for name in SDL_DRIVERS if name not in os.environ]
    os.environ.update(dict.fromkeys(absent, "dummy"))
    try:
        yield
    finally:
        for name in absent:  # a window that is opened later needs its own driver
            os.environ.pop(name, None)


def check_device(device: th.device | str) -> None:
    """
    :param device: where a model shall be
    :raises ValueError: if this machine does not have it. SB3 would take the CPU in its place
    """
    try:
        if device != "auto":
            th.empty(1, device=device).cpu()
        is_there = True
    except (RuntimeError, AssertionError, NotImplementedError):  # as PyTorch says it
        is_there = False
    if not is_there:
        raise ValueError(
            f"device={str(device)!r} is not on this machine; expected 'auto', 'cpu' or a device "
            "that PyTorch finds, such as 'cuda'. Leave it out."
        )


def installed_versions() -> dict[str, str]:
    """:return: versions of this package and of what a result depends on, by name"""
    system, _ = get_system_info(print_info=False)
    versions = {"sb3-diayn": __version__, **{name: system[name] for name in SYSTEM_INFO}}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
