"""Skills as runs of the RL Zoo: exporting one, and learning a task from it."""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_diayn.downstream.export import export_skill, export_vec_normalize
from sb3_diayn.downstream.finetuning import WarmUp
from sb3_diayn.files import replacing, write_through_memory
from sb3_diayn.zoo.hyperparams import check_names
from sb3_diayn.zoo.runs import Run, import_zoo
from sb3_diayn.zoo.training import learn_and_save

PACKAGE = "sb3_diayn"


def export_run(run: Run, skill: int, log_folder: str | Path, *, reset_critics: bool = False) -> Run:
    """
    Write a skill as a run that no longer knows of skills: ``rl_zoo3.enjoy -f log_folder`` plays
    it where this package is not installed.

    :param run: whose skill
    :param skill: index of the skill
    :param log_folder: log folder of the zoo; the run gets the next free number in it
    :param reset_critics: see :func:`~sb3_diayn.downstream.export.export_skill`
    :return: the exported run
    :raises ValueError: if the skill does not exist or cannot be exported
    """
    model = run.load_model(to_train=True, device="cpu")
    normalizer = unwrap_vec_normalize(run.make_env())
    env = _plain_env(run)
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
            statistics.training = True  # the zoo stops it in environments that are to be played
            statistics.save(str(stats_path / "vecnormalize.pkl"))
        _write_configuration(run, stats_path, exported, target.folder.parent.name, skill)
    env.close()
    return target


def task_returns(run: Run, model: BaseAlgorithm, n_episodes: int, seed: int) -> list[float]:
    """
    :param run: a run without skills
    :param model: its model
    :param n_episodes: number of fresh episodes
    :param seed: of their environment
    :return: the task return of each, played deterministically
    """
    env = run.make_env(seed=seed)
    returns, _ = evaluate_policy(
        model, env, n_eval_episodes=n_episodes, return_episode_rewards=True, warn=False
    )
    env.close()
    return list(returns)  # type: ignore[arg-type]


def saved_run(run: Run, folder: Path) -> Run:
    """
    :param run: an exported run
    :param folder: of a run of the same algorithm and environment that went on from it
    :return: that run
    """
    stats_path = folder / run.model_path.stem
    hyperparams, _ = import_zoo().get_saved_hyperparams(str(stats_path), test_mode=True)
    hyperparams.pop("env_kwargs", None)
    model_path = folder / run.model_path.name
    return replace(
        run, model_path=model_path, hyperparams=hyperparams, stats_path=stats_path, folder=folder
    )


def _plain_run(run: Run, log_folder: Path) -> Run:
    zoo = import_zoo()
    algo = {cls.__name__: name for name, cls in zoo.ALGOS.items()}[run.algo]
    env_name = run.env_id.split(":")[-1].replace("/", "-")  # as huggingface_sb3 names files
    number = zoo.get_latest_run_id(str(log_folder / algo), env_name) + 1
    folder = log_folder / algo / f"{env_name}_{number}"
    return replace(
        run,
        model_path=folder / f"{env_name}.zip",
        hyperparams=without_skills(run.hyperparams),
        stats_path=folder / env_name,
        folder=folder,
    )


def _plain_env(run: Run) -> VecEnv:
    """An environment as in training but for skills and normalisation."""
    hyperparams = without_skills(run.hyperparams)
    return replace(run, hyperparams=hyperparams, stats_path=None).make_env()


def without_skills(hyperparams: dict[str, Any]) -> dict[str, Any]:
    """
    :param hyperparams: as in the zoo's files
    :return: the same without wrappers and callbacks of this package
    """
    result = dict(hyperparams)
    for key in ("env_wrapper", "vec_env_wrapper", "callback"):
        entries = result.pop(key, None) or []
        entries = entries if isinstance(entries, list) else [entries]
        kept = [entry for entry in entries if not _class_path(entry).startswith(f"{PACKAGE}.")]
        if kept:
            result[key] = kept
    return result


def _class_path(entry: Any) -> str:
    return str(next(iter(entry)) if isinstance(entry, dict) else entry)


def _write_configuration(
    run: Run, stats_path: Path, model: BaseAlgorithm, algo: str, skill: int
) -> None:
    """The two files that the zoo's commands read."""
    config: dict[str, Any] = {"policy": "MlpPolicy", "n_timesteps": model.num_timesteps}
    args: dict[str, Any] = {"env_kwargs": None, "seed": model.seed}
    if run.stats_path is not None:
        config, args = (_read(run.stats_path / name) for name in ("config.yml", "args.yml"))
    args |= {"env": run.env_id, "algo": algo, "skill": skill}
    for name, content in {"config.yml": without_skills(config), "args.yml": args}.items():
        (stats_path / name).write_text(yaml.dump(content), encoding="utf-8")


def _read(file: Path) -> dict[str, Any]:
    return dict(yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.UnsafeLoader))


def finetune(args: argparse.Namespace, run: Run, skill: int) -> Run:
    """
    :param args: the options of ``sb3-diayn finetune``
    :param run: whose skill
    :param skill: index of the skill to start from
    :return: the new run, which knows of no skills. It warms up with the skill, see
        :class:`~sb3_diayn.downstream.finetuning.WarmUp`
    :raises ValueError: if the skill cannot be exported or a hyperparameter is not known
    """
    if args.seed is None:
        args.seed = int(np.random.default_rng().integers(2**31))
    set_random_seed(args.seed)
    if args.num_threads > 0:
        th.set_num_threads(args.num_threads)
    with tempfile.TemporaryDirectory() as folder:
        exported = export_run(run, skill, folder, reset_critics=args.reset_critics)
        args.algo, args.env, args.skill = exported.folder.parent.name, run.env_id, skill
        args.env_kwargs = args.env_kwargs or run.env_kwargs or None
        config = Path(folder, "config.yml")
        config.write_text(yaml.safe_dump({args.env: _hyperparams(args, exported)}), "utf-8")
        saved = learn_and_save(args, config, exported.model_path, [WarmUp()])
    return saved_run(exported, saved)


def _hyperparams(args: argparse.Namespace, exported: Run) -> dict[str, Any]:
    """Those of the run, but DQN explores as at the end of its schedule: the skill is the start."""
    assert exported.stats_path is not None
    saved = (exported.stats_path / "config.yml").read_text(encoding="utf-8")
    hyperparams = dict(yaml.load(saved, Loader=yaml.UnsafeLoader))
    if args.n_envs is not None:
        hyperparams["n_envs"] = args.n_envs
    defaults = check_names(args.algo, args.hyperparams or {})
    if "exploration_final_eps" in defaults:
        final = hyperparams.get("exploration_final_eps", defaults["exploration_final_eps"])
        hyperparams["exploration_initial_eps"] = final
    return hyperparams | (args.hyperparams or {})
