"""Skills as runs of the RL Zoo: exporting one, and learning a task from it."""

import tempfile
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_diayn.checkpoints import STATISTICS
from sb3_diayn.downstream.export import export_skill, export_vec_normalize
from sb3_diayn.downstream.finetuning import WarmUp
from sb3_diayn.files import replacing, write_through_memory
from sb3_diayn.processor import efficient_torch
from sb3_diayn.zoo.failures import close_envs, naming_failures
from sb3_diayn.zoo.hyperparams import CLASS_KEYS, check_names, class_entries, import_zoo
from sb3_diayn.zoo.parallel import AUTO
from sb3_diayn.zoo.run_files import check_log_folder, file_name, load_yaml
from sb3_diayn.zoo.runs import Run
from sb3_diayn.zoo.settings import TrainingOptions, seeded
from sb3_diayn.zoo.training import learn_and_save

# A wrapper of this package that knows nothing of skills, but is a part of what the policy sees.
OF_ENVIRONMENT = ".DisplacementObservation"


def export_run(run: Run, skill: int, log_folder: str | Path, *, reset_critics: bool = False) -> Run:
    """
    Write a skill as a run that no longer knows of skills: ``rl_zoo3.enjoy -f log_folder`` plays
    it where this package is not installed, unless its environment has a
    ``DisplacementObservation``.

    :param run: whose skill
    :param skill: index of the skill
    :param log_folder: log folder of the zoo; the run gets the next free number in it
    :param reset_critics: see :func:`~sb3_diayn.downstream.export.export_skill`
    :return: the exported run
    :raises ValueError: if the skill does not exist or cannot be exported
    """
    model = run.load_model(to_train=True, device="cpu")
    skills_env, env = run.make_env(), _plain_env(run)
    normalizer = unwrap_vec_normalize(skills_env)
    exported = export_skill(
        model, skill, env=env, vec_normalize=normalizer, reset_critics=reset_critics
    )
    target = _plain_run(run, Path(log_folder))
    with replacing(target.folder) as folder:
        stats_path = folder / target.model_path.stem
        stats_path.mkdir(parents=True)
        write_through_memory(folder / target.model_path.name, exported.save)
        if normalizer is not None:
            statistics = export_vec_normalize(normalizer, env)
            statistics.training = True  # the zoo stops it in environments that are only played
            statistics.save(str(stats_path / STATISTICS))
        _write_configuration(run, stats_path, exported, target.folder.parent.name, skill)
    close_envs(env, has_failed=False)
    close_envs(skills_env, has_failed=False)
    return _reopened(target, target.folder)


def task_returns(run: Run, model: BaseAlgorithm, n_episodes: int, seed: int) -> list[float]:
    """
    :param run: a run without skills
    :param model: its model
    :param n_episodes: number of fresh episodes
    :param seed: of their environment
    :return: the task return of each, played deterministically
    """
    env = run.make_env(seed=seed)
    with naming_failures(run.env_id, env), efficient_torch(model.observation_space):
        returns, _ = evaluate_policy(
            model, env, n_eval_episodes=n_episodes, return_episode_rewards=True, warn=False
        )
    close_envs(env, has_failed=False)
    return list(returns)  # type: ignore[arg-type]


def _plain_run(run: Run, log_folder: Path) -> Run:
    env_name = file_name(run.env_id)
    parent = log_folder / run.zoo_algo
    number = import_zoo().get_latest_run_id(str(check_log_folder(parent)), env_name) + 1
    folder = parent / f"{env_name}_{number}"
    return replace(
        run,
        model_path=folder / f"{env_name}.zip",
        hyperparams=without_skills(run.hyperparams),
        stats_path=folder / env_name,
        folder=folder,
    )


def _plain_env(run: Run) -> VecEnv:
    """An environment as in training, without skills and without normalisation."""
    hyperparams = without_skills(run.hyperparams)
    return replace(run, hyperparams=hyperparams).make_env(normalize=False)


def without_skills(hyperparams: dict[str, Any]) -> dict[str, Any]:
    """
    :param hyperparams: as in the zoo's files
    :return: the same without wrappers and callbacks of this package, but for ``OF_ENVIRONMENT``
    """
    result = dict(hyperparams)
    for key in CLASS_KEYS:
        paths = [path for path, _ in class_entries(hyperparams, key)]
        value = result.pop(key, None)
        entries = value if isinstance(value, list) else [value] * len(paths)
        pairs = zip(entries, paths, strict=True)
        if kept := [entry for entry, path in pairs if not _has_skills(path)]:
            result[key] = kept
    return result


def _has_skills(path: str) -> bool:
    return path.startswith("sb3_diayn.") and not path.endswith(OF_ENVIRONMENT)


def _write_configuration(
    run: Run, stats_path: Path, model: BaseAlgorithm, algo: str, skill: int
) -> None:
    """The two files that the zoo's commands read."""
    config: dict[str, Any] = {"policy": "MlpPolicy", "n_timesteps": model.num_timesteps}
    if (stats_path / STATISTICS).is_file():
        config["normalize"] = True
    if run.stats_path is not None:
        config = load_yaml(run.stats_path / "config.yml")
    args = {"env_kwargs": None, "seed": model.seed, **run.saved_options}
    args |= {"env": run.env_id, "gym_packages": list(run.gym_packages)}
    args |= {"algo": algo, "skill": skill}
    for name, content in {"config.yml": without_skills(config), "args.yml": args}.items():
        (stats_path / name).write_text(yaml.dump(content), encoding="utf-8")


def finetune(run: Run, skill: int, *, reset_critics: bool = False, **options: Any) -> Run:
    """
    Learn the environment's task from a skill.

    :param run: whose skill
    :param skill: index of the skill to start from
    :param reset_critics: keep the policy, and start the critics again
    :param options: see :class:`~sb3_diayn.zoo.settings.TrainingOptions`. Environment and algorithm
        are the run's; ``n_skills``, ``conf_file``, ``keep_checkpoints``, ``live`` and
        ``n_envs="auto"`` are for skills
    :return: the new run, which knows of no skills. It warms up with the skill, see
        :class:`~sb3_diayn.downstream.finetuning.WarmUp`
    :raises ValueError: if the skill cannot be exported or a hyperparameter is not known
    """
    _check_of_task(run, options)
    of_run = {"env": run.env_id, "gym_packages": run.gym_packages, "algo": run.zoo_algo}
    settings = seeded(TrainingOptions(**{**options, **of_run}))
    settings = replace(settings, env_kwargs=settings.env_kwargs or run.env_kwargs or None)
    with tempfile.TemporaryDirectory() as folder:
        exported = export_run(run, skill, folder, reset_critics=reset_critics)
        saved = learn_and_save(
            settings,
            _finetuning_hyperparams(exported, settings),
            exported.model_path,
            [WarmUp()],
            skill=skill,
            reset_critics=reset_critics,
        )
    return _reopened(exported, saved)


def _check_of_task(run: Run, options: Mapping[str, Any]) -> None:
    """Refuse options that belong to another run or to a training of skills."""
    of_run = {"env": run.env_id, "algo": run.zoo_algo}
    for name, own in of_run.items():
        if options.get(name) not in (None, own):
            raise ValueError(
                f"{name}={options[name]!r} is not the run's; expected {own!r}. Leave it out."
            )
    given = {**options, "n_envs": options.get("hyperparams", {}).get("n_envs")}
    if given["n_envs"] != AUTO:
        del given["n_envs"]
    defaults = {field.name: field.default for field in fields(TrainingOptions)}
    for name in ("n_envs", "live", "n_skills", "conf_file", "keep_checkpoints"):
        if name in given and given[name] != defaults.get(name):
            raise ValueError(
                f"{name}={given[name]!r} is for a training of skills, this one is of the task; "
                "expected another value. Leave it out."
            )


def _finetuning_hyperparams(exported: Run, options: TrainingOptions) -> dict[str, Any]:
    """The run's, except that DQN explores as at the end of its schedule: the skill is a start."""
    assert options.algo is not None and exported.stats_path is not None
    hyperparams = load_yaml(exported.stats_path / "config.yml")
    parameters = check_names(options.algo, options.hyperparams)
    if "exploration_final_eps" in parameters:
        default = parameters["exploration_final_eps"].default
        final = hyperparams.get("exploration_final_eps", default)
        hyperparams["exploration_initial_eps"] = final
    return hyperparams | dict(options.hyperparams)


def _reopened(exported: Run, folder: Path) -> Run:
    """The exported run, or one that continued it, as its own files in ``folder`` describe it."""
    stats_path = folder / exported.model_path.stem
    hyperparams, _ = import_zoo().get_saved_hyperparams(str(stats_path), test_mode=True)
    hyperparams.pop("env_kwargs", None)
    return replace(
        exported,
        model_path=folder / exported.model_path.name,
        hyperparams=hyperparams,
        stats_path=stats_path,
        folder=folder,
    )
