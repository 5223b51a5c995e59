"""Hyperparameters in the zoo's format: reading, changing and checking them."""

import argparse
import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml

from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.vec_env import VecDIAYNWrapper
from sb3_diayn.wrappers import DIAYNWrapper
from sb3_diayn.zoo.presets import describe_preset
from sb3_diayn.zoo.runs import CALLBACK, WRAPPER, Run, import_zoo

# What the zoo reads from a file of hyperparameters beside the arguments of the algorithm.
ZOO_KEYS = (
    "n_timesteps",
    "n_envs",
    "normalize",
    "env_wrapper",
    "vec_env_wrapper",
    "callback",
    "env_kwargs",
    "monitor_kwargs",
    "frame_stack",
    "noise_type",
    "noise_std",
)


CLASS_KEYS = ("env_wrapper", "vec_env_wrapper", "callback")


# What SB3 has no use for below 1, and says so late or not at all.
COUNTS = (
    "n_timesteps",
    "n_envs",
    "batch_size",
    "buffer_size",
    "n_steps",
    "n_epochs",
    "train_freq",
    "policy_delay",
    "target_update_interval",
)


NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"


SCHEDULE = re.compile(rf"lin(ear)?_{NUMBER}")


WORDS: dict[Any, str] = {
    float: "a number",
    int: "an integer",
    bool: "true or false",
    str: "a word",
    NoneType: "null",
    tuple: "[count, unit]",
    Callable: "lin_NUMBER",
    dict: "a mapping",
}


def read_entry(file: Path, env_id: str) -> dict[str, Any]:
    """
    :param file: of hyperparameters, in the zoo's format
    :param env_id: id of an environment
    :return: its entry, or the one named ``default``
    :raises ValueError: if the file is no YAML, or the entry is not there or no mapping
    """
    try:
        entries = yaml.safe_load(file.read_bytes())  # YAML itself tells how a file is encoded
    except yaml.YAMLError as error:
        raise ValueError(
            f"conf_file={str(file)!r} is not YAML: {error}; expected a file like the one that "
            "`sb3-diayn config` prints. Correct it there."
        ) from error
    entry = None
    if isinstance(entries, Mapping):
        entry = entries.get(env_id) or entries.get("default")
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"env={env_id!r} is not in {file}; expected an entry for it or one named 'default', "
            "with hyperparameters below. Add one."
        )
    for key in CLASS_KEYS:
        _check_classes(key, entry.get(key))
    return dict(entry)


def _check_classes(key: str, value: Any) -> None:
    """What the zoo takes: a path, a path with arguments, or a list of those."""
    for entry in value if isinstance(value, list) else [value]:
        with_arguments = (
            isinstance(entry, Mapping)
            and len(entry) == 1
            and all(isinstance(kwargs, Mapping) for kwargs in entry.values())
        )
        if not (value is None or isinstance(entry, str) or with_arguments):
            raise ValueError(
                f"{key}={entry!r} names no class; expected package.Class, or package.Class: "
                "{argument: value}, or a list of those. Write it like the provided files."
            )


def check_names(algo: str, hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param algo: name of an algorithm as the zoo spells it
    :param hyperparams: as in the zoo's files
    :return: the algorithm's arguments with their defaults
    :raises ValueError: if the algorithm or one of the hyperparameters is not known
    """
    algorithms = import_zoo().ALGOS
    if algo not in algorithms:
        raise ValueError(f"algo={algo!r} is not known; expected one of {sorted(algorithms)}.")
    parameters = inspect.signature(algorithms[algo]).parameters
    known = {*parameters, *ZOO_KEYS}
    for name in hyperparams:
        if name not in known:
            raise ValueError(
                f"{name}={hyperparams[name]!r} is not a hyperparameter of {algo}; expected one of "
                f"{sorted(known)}. Leave it out, or choose another algorithm."
            )
    return {name: parameter.default for name, parameter in parameters.items()}


def check_hyperparams(algo: str, hyperparams: Mapping[str, Any]) -> None:
    """
    :param algo: name of an algorithm as the zoo spells it
    :param hyperparams: all that a run is to be made of, in the zoo's format
    :raises ValueError: if a name is not known, a value cannot be what SB3's annotation says, or
        nothing trains a discriminator
    """
    check_names(algo, hyperparams)
    parameters = inspect.signature(import_zoo().ALGOS[algo]).parameters
    hints = {"n_timesteps": float, "n_envs": int}
    hints |= {name: parameter.annotation for name, parameter in parameters.items()}
    for name, value in hyperparams.items():
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            raise ValueError(
                f"{name}={value!r} is no such value; expected {_in_words(hint)}.{_hint(value)} "
                "Correct it in the file or on the command line."
            )
        if name in COUNTS and isinstance(value, (int, float)) and value < 1:
            raise ValueError(f"{name}={value!r} is too small; expected at least 1. Raise it.")
    for name in ("n_timesteps", "callback"):
        if not hyperparams.get(name):
            raise ValueError(
                f"{name}={hyperparams.get(name)!r} is missing; expected n_timesteps: NUMBER and "
                "callback: [sb3_diayn.DIAYNCallback] in the file. Add it."
            )


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from YAML can be what an annotation says, strings that are code aside."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    kind = get_origin(hint) or hint
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float:
        return is_number
    if kind is int:
        return is_number and isinstance(value, int)
    if kind in (bool, str, NoneType):
        return isinstance(value, kind)
    if kind is tuple:
        return isinstance(value, (list, tuple))
    if kind is Callable:
        return isinstance(value, str) and SCHEDULE.fullmatch(value) is not None
    return hint is Any or not isinstance(value, (int, float))


def _in_words(hint: Any) -> str:
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
    kinds = [get_origin(part) or part for part in parts]
    return " or ".join(dict.fromkeys(WORDS.get(kind, "another object") for kind in kinds))


def _hint(value: Any) -> str:
    """YAML 1.1 has its own idea of what a number is."""
    if isinstance(value, str) and re.fullmatch(NUMBER, value):
        return f" YAML takes {value} for a word: write {float(value):.6g} with a point."
    return ""


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
    package = Path(__file__).parents[1]
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
