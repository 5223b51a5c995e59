"""Going on from one skill with the task's reward, through the RL Zoo."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
import yaml
from stable_baselines3.common.utils import set_random_seed

from sb3_diayn.hyperparams import check_names
from sb3_diayn.runs import Run
from sb3_diayn.warmup import WarmUp
from sb3_diayn.zoo import learn_and_save
from sb3_diayn.zoo_export import export_run, saved_run


def finetune(args: argparse.Namespace, run: Run, skill: int) -> Run:
    """
    :param args: the options of ``sb3-diayn finetune``
    :param run: whose skill
    :param skill: index of the skill to start from
    :return: the new run, which knows of no skills. It warms up with the skill, see
        :class:`~sb3_diayn.warmup.WarmUp`
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
