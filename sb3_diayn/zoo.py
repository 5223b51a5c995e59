"""Training through the RL Zoo, with the provided configurations."""

import argparse
import inspect
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
import yaml
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import set_random_seed

from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.hyperparams import check_hyperparams, check_names, read_entry
from sb3_diayn.learning import learn, resume_point, save
from sb3_diayn.presets import describe_preset
from sb3_diayn.runs import CALLBACK, WRAPPER, Run, check_env_id, find_run, require_zoo
from sb3_diayn.vec_wrapper import VecDIAYNWrapper
from sb3_diayn.wrappers import DIAYNWrapper

__all__ = ["Run", "config_path", "find_run", "read_config", "train"]

VEC_WRAPPER = "sb3_diayn.VecDIAYNWrapper"
# Where the zoo's files name the classes whose arguments are hyperparameters too.
CLASSES: dict[str, tuple[type, str, str]] = {
    "DIAYNWrapper": (DIAYNWrapper, "env_wrapper", WRAPPER),
    "VecDIAYNWrapper": (VecDIAYNWrapper, "vec_env_wrapper", VEC_WRAPPER),
    "DIAYNCallback": (DIAYNCallback, "callback", CALLBACK),
}


def config_path(algo: str = "sac") -> Path:
    """
    :param algo: name of an algorithm as the zoo spells it, or ``"ppo_travel"``, in whose entries
        the discriminator reads the velocity or the position alone
    :return: the file with the provided hyperparameters, from a wheel as from a checkout
    :raises ValueError: if there is none of this name
    """
    package = Path(__file__).parent
    folders = (package / "zoo_configs", package.parent / "zoo_configs")
    found = {file.stem: file for folder in folders for file in folder.glob("*.yml")}
    if algo not in found:
        raise ValueError(
            f"algo={algo!r} has no provided configuration; expected one of {sorted(found)}. "
            "Pass a file of your own with --conf-file."
        )
    return found[algo]


def read_config(args: argparse.Namespace, resumed: Run | None = None) -> dict[str, Any]:
    """
    :param args: the options of ``sb3-diayn train``
    :param resumed: the run to go on with, whose hyperparameters then count
    :return: hyperparameters as in the zoo's files, with the options of the command line
    """
    if resumed is not None:
        hyperparams = dict(resumed.hyperparams)
        hyperparams.pop("normalize_kwargs", None)
    elif getattr(args, "preset", None):  # an option of train alone
        hyperparams = _read_preset(args)
    else:
        hyperparams = read_entry(_conf_file(args), args.env)
    if args.n_skills is not None:
        _set_argument(hyperparams, *_wrapper(hyperparams), "n_skills", args.n_skills)
    if args.reward_scale is not None:
        _set_argument(hyperparams, "callback", CALLBACK, "reward_scale", args.reward_scale)
    hyperparams = override(args.algo, hyperparams, chosen_hyperparams(args))
    check_hyperparams(args.algo, hyperparams)
    return hyperparams


def _conf_file(args: argparse.Namespace) -> Path:
    """A path, or the name of a provided file; by default that of the algorithm."""
    chosen = Path(args.conf_file or args.algo)
    is_path = args.conf_file is not None and (chosen.suffix != "" or chosen.is_file())
    return chosen if is_path else config_path(chosen.name)


def chosen_hyperparams(args: argparse.Namespace) -> dict[str, Any]:
    """
    :param args: the options of ``sb3-diayn train``
    :return: the hyperparameters among them, for :func:`override`
    """
    chosen = {"buffer_size": args.buffer_size, "ent_coef": args.ent_coef, "n_envs": args.n_envs}
    chosen = {key: value for key, value in chosen.items() if value is not None}
    return chosen | (args.hyperparams or {})


def override(algo: str, hyperparams: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """
    :param algo: name of the algorithm as the zoo spells it
    :param hyperparams: as in the zoo's files
    :param chosen: what shall be otherwise: arguments of the algorithm and the zoo's keys, and as
        ``DIAYNCallback.learning_rate`` or ``DIAYNWrapper.skill`` those of our classes
    :return: hyperparameters with them
    :raises ValueError: if a name is not known
    """
    plain = {key: value for key, value in chosen.items() if "." not in key}
    check_names(algo, plain)
    hyperparams = hyperparams | plain
    for name in [name for name in chosen if name not in plain]:
        _, key, path = _check_argument(name, chosen[name])
        _set_argument(hyperparams, key, path, name.split(".")[1], chosen[name])
    return hyperparams


def _check_argument(name: str, value: Any) -> tuple[type, str, str]:
    known = {
        f"{class_name}.{argument}": found
        for class_name, found in CLASSES.items()
        for argument in inspect.signature(found[0]).parameters
    }
    if name not in known:
        raise ValueError(
            f"{name}={value!r} is not an argument of a class of this package; expected one of "
            f"{sorted(known)}. Leave it out."
        )
    return known[name]


def _read_preset(args: argparse.Namespace) -> dict[str, Any]:
    """Only how long to train is left to the configuration."""
    values = describe_preset(args.preset, args.env)
    check_names(args.algo, values["model"])
    return {
        "policy": "MlpPolicy",
        "n_timesteps": read_entry(config_path(), args.env)["n_timesteps"],
        **values["model"],
        **values["noise"],
        "env_wrapper": [{WRAPPER: values["wrapper"]}],
        "callback": [{CALLBACK: values["callback"]}],
    }


def _wrapper(hyperparams: dict[str, Any]) -> tuple[str, str]:
    """Where the skills come from: the list that names the class, and its path."""
    _, key, path = CLASSES["VecDIAYNWrapper"]
    is_named = path.split(".")[-1] in str(hyperparams.get(key))
    return CLASSES["VecDIAYNWrapper" if is_named else "DIAYNWrapper"][1:]


def _set_argument(hyperparams: dict[str, Any], key: str, path: str, name: str, value: Any) -> None:
    """Give the class named ``path`` in a list of the zoo's the argument ``name``."""
    entries = hyperparams.get(key) or []
    entries = entries if isinstance(entries, list) else [entries]
    result, found = [], False
    for entry in entries:
        class_path, kwargs = next(iter(entry.items())) if isinstance(entry, dict) else (entry, {})
        if class_path.split(".")[-1] == path.split(".")[-1]:
            kwargs, found = {**(kwargs or {}), name: value}, True
        result.append({class_path: kwargs} if kwargs else class_path)
    hyperparams[key] = result if found else [*result, {path: {name: value}}]


def train(args: argparse.Namespace) -> Path:
    """
    Train through the zoo's ``ExperimentManager``, so that the run's folder is a zoo folder.

    :param args: the options of ``sb3-diayn train``
    :return: the run's folder
    """
    resumed = find_run(args.resume) if args.resume else None
    with prepared_config(args, resumed) as config:
        agent = None if resumed is None else resume_point(resumed.model_path, resumed.folder)
        return learn_and_save(args, config, agent)


@contextmanager
def prepared_config(args: argparse.Namespace, resumed: Run | None = None) -> Iterator[Path]:
    """
    Check the options, seed everything and limit the threads.

    :param args: options of ``sb3-diayn train``
    :param resumed: the run to go on with
    :return: a file for the zoo with the hyperparameters, for as long as the block lasts
    """
    _complete(args, resumed)
    check_env_id(args.env)
    hyperparams = read_config(args, resumed)
    set_random_seed(args.seed)
    if args.num_threads > 0:
        th.set_num_threads(args.num_threads)
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, f"{args.algo}.yml")
        config.write_text(yaml.safe_dump({args.env: hyperparams}), encoding="utf-8")
        yield config


def learn_and_save(
    args: argparse.Namespace,
    config: Path,
    trained_agent: Path | None,
    callbacks: Sequence[BaseCallback] = (),
) -> Path:
    """
    :param args: options as those of ``sb3-diayn train``
    :param config: file of hyperparameters, as the zoo reads them
    :param trained_agent: a model's zip to go on with, in its run's folder
    :param callbacks: beside those of ``config``
    :return: the run's folder
    :raises KeyboardInterrupt: after Ctrl-C, once the model is saved
    :raises ValueError: if the algorithm does not fit the environment
    """
    manager = _make_manager(args, config, trained_agent)
    try:
        model, _ = manager.setup_experiment()
    except (ValueError, OSError, ImportError, gym.error.Error):
        raise
    except Exception as error:  # SB3 asserts, and the zoo evaluates strings: nearly anything
        kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
        raise ValueError(f"{args.algo} cannot train on {args.env}: {kind}{error}") from error
    manager.callbacks.extend(callbacks)
    complete = learn(manager, model, args)
    save(manager, model)
    if not complete:
        print(f"Run saved in {manager.save_path}, unfinished")
        if hasattr(args, "resume"):  # of ``train``, not of ``finetune``
            print(f"Go on:        sb3-diayn train --resume {manager.save_path}")
        raise KeyboardInterrupt
    return Path(manager.save_path)


def _complete(args: argparse.Namespace, resumed: Run | None) -> None:
    """Fill in what the options leave to the resumed run or to chance."""
    if args.seed is None:
        args.seed = int(np.random.default_rng().integers(2**31))
    if resumed is not None:
        names = {cls.__name__: name for name, cls in require_zoo().ALGOS.items()}
        args.algo = names[resumed.algo]
        args.env = args.env or resumed.env_id
        args.env_kwargs = args.env_kwargs or resumed.env_kwargs or None
        if args.n_skills not in (None, resumed.n_skills):
            raise ValueError(
                f"n_skills={args.n_skills} does not match the run; expected {resumed.n_skills}. "
                "Leave --n-skills out to resume, or start a new run without --resume."
            )
    elif args.algo is None:
        args.algo = describe_preset(args.preset)["algo"] if args.preset else "sac"
    if resumed is not None and args.preset:  # train alone knows both
        raise ValueError(
            f"preset={args.preset!r} cannot change a run that goes on; expected --resume alone. "
            "Leave --preset out, or start a new run without --resume."
        )
    if args.env is None:
        raise ValueError(
            "env=None names no environment; expected a gymnasium id. Add --env, or --resume RUN."
        )


def _make_manager(args: argparse.Namespace, config: Path, trained_agent: Path | None) -> Any:
    require_zoo()
    from rl_zoo3.exp_manager import ExperimentManager

    return ExperimentManager(
        args,
        args.algo,
        args.env,
        args.log_folder,
        tensorboard_log=args.tensorboard_log,
        n_timesteps=args.total_timesteps,
        eval_freq=args.eval_freq,
        save_freq=args.save_freq,
        env_kwargs=args.env_kwargs,
        trained_agent="" if trained_agent is None else str(trained_agent),
        seed=args.seed,
        log_interval=args.log_interval,
        save_replay_buffer=args.save_replay_buffer,
        verbose=args.verbose,
        vec_env_type=args.vec_env,
        device=args.device,
        config=str(config),
        show_progress=not args.no_progress,
    )
