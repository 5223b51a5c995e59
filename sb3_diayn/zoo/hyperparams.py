"""Hyperparameters in the zoo's format: reading, changing and checking them."""

import importlib
import inspect
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import yaml
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_diayn.arguments import did_you_mean, is_count
from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.files import reading, require_extra
from sb3_diayn.skills import check_n_skills
from sb3_diayn.vec_env import VecDIAYNWrapper
from sb3_diayn.wrappers import DIAYNWrapper

# The classes whose arguments are hyperparameters, too, and where the zoo's files name them.
CLASSES: dict[str, tuple[type, str]] = {
    "DIAYNWrapper": (DIAYNWrapper, "env_wrapper"),
    "VecDIAYNWrapper": (VecDIAYNWrapper, "vec_env_wrapper"),
    "DIAYNCallback": (DIAYNCallback, "callback"),
}
CLASS_KEYS = tuple(key for _, key in CLASSES.values())
# What the zoo reads from a file of hyperparameters in addition to the algorithm's arguments.
ZOO_KEYS = (
    *CLASS_KEYS,
    "n_timesteps",
    "n_envs",
    "normalize",
    "env_kwargs",
    "monitor_kwargs",
    "frame_stack",
    "noise_type",
    "noise_std",
)
FRACTIONS = ("gamma", "tau", "gae_lambda", "exploration_fraction")
# SB3 cannot use a number below 1 here. It says so late, or not at all.
COUNTS = (
    "n_timesteps",
    "n_envs",
    "frame_stack",
    "batch_size",
    "buffer_size",
    "n_steps",
    "n_epochs",
    "train_freq",
    "policy_delay",
    "target_update_interval",
)
# How often an off-policy model is updated.
UPDATES = frozenset({"gradient_steps", "train_freq"})
NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
SCHEDULE = re.compile(rf"lin(ear)?_{NUMBER}")
# Where ppo.yml learns much better skills than sac.yml, in no more time: docs/pages/tips.md.
PPO_BY_DEFAULT = ("InvertedPendulum-v5", "MountainCarContinuous-v0")
ALGORITHMS = ("ppo", "sac", "tqc")  # with a provided file
# Provided files with the values of published codes.
PRESETS = ("original-code", "paper", "seed", "urlb")


def import_zoo() -> Any:
    """:return: ``rl_zoo3``, imported only where it is used, since it patches gymnasium"""
    with require_extra("zoo"):
        import rl_zoo3
        import rl_zoo3.import_envs
    return rl_zoo3


# -- files -------------------------------------------------------------------------------------


def config_path(algo: str = "sac") -> Path:
    """
    :param algo: name of an algorithm as the zoo spells it, where TQC has the file of SAC;
        ``"ppo_travel"`` or ``"ppo_displacement"``, in whose entries the discriminator reads the
        velocity, the position or the displacement alone; ``"ppo_metra"``; or the name of a preset
    :return: the file with the provided hyperparameters, from a wheel as from a checkout
    :raises ValueError: if there is none of this name
    """
    found = _provided_files()
    if algo not in found:
        raise ValueError(
            f"algo={algo!r} has no provided configuration; expected one of {list(ALGORITHMS)}."
            f"{did_you_mean(algo, ALGORITHMS)} Pass a file of your own with --conf-file."
        )
    return found[algo]


def _provided_files() -> dict[str, Path]:
    package = Path(__file__).resolve().parents[1]
    folders = (package / "zoo_configs", package.parent / "zoo_configs")
    found = {file.stem: file for folder in folders for file in folder.glob("*.yml")}
    return {**found, "tqc": found["sac"]}


def conf_file_path(conf_file: str | Path | None, algo: str | None) -> Path:
    """
    :param conf_file: a path, or the name of a provided file; None for the algorithm's
    :param algo: name of the algorithm as the zoo spells it; None for ``sac``
    :return: the file
    :raises ValueError: if no provided file has this name
    """
    if conf_file is None:
        return config_path(algo or "sac")
    path = Path(conf_file)
    if path.is_dir():
        raise ValueError(
            f"conf_file={str(conf_file)!r} is a folder; expected a YAML file, or the name of a "
            "provided one such as 'ppo_displacement'."
        )
    if path.suffix or path.is_file():
        return path
    found = _provided_files()
    if str(path) not in found:
        raise ValueError(
            f"conf_file={str(conf_file)!r} is not a provided file; expected one of "
            f"{sorted(found)}.{did_you_mean(path.name, found)} Or pass the path of a YAML file."
        )
    return found[path.name]


def _load_file(file: Path) -> dict[str, Any]:
    with reading(file, "YAML like the file that `sb3-diayn config` names", argument="conf_file"):
        entries = yaml.safe_load(file.read_bytes())  # YAML itself finds out the encoding
    return dict(entries) if isinstance(entries, Mapping) else {}


def default_algo(conf_file: str | Path | None, env_id: str) -> str:
    """
    :param conf_file: see :func:`conf_file_path`
    :param env_id: id of the environment, or ``package:id``
    :return: see :func:`named_algo`, ``sac`` for a file that names none. Without a file the one that
        learns the better skills here; ``sac`` where both are good
    """
    if conf_file is None:
        return "ppo" if env_id.rpartition(":")[2] in PPO_BY_DEFAULT else "sac"
    return named_algo(conf_file) or "sac"


def named_algo(conf_file: str | Path) -> str | None:
    """
    :param conf_file: see :func:`conf_file_path`
    :return: the algorithm that the file names under the key ``algo``, as presets do, or that a
        provided file has in its own name; None for another file
    """
    file = conf_file_path(conf_file, None).resolve()
    named: str | None = _load_file(file).get("algo")
    if named is None and file in _provided_files().values():
        named = file.stem.partition("_")[0]  # of ppo_displacement.yml, for example
    return named


def read_entry(file: Path, env_id: str) -> dict[str, Any]:
    """
    :param file: a file of hyperparameters, in the zoo's format
    :param env_id: id of an environment
    :return: its entry, or the one named ``default``
    :raises ValueError: if the file is not YAML, or the entry is missing or not a mapping
    """
    entries = _load_file(file)
    entry = entries.get(env_id) or entries.get("default")
    if not isinstance(entry, Mapping):
        raise ValueError(
            f"env={env_id!r} is not in {file}; expected an entry for it or one named 'default', "
            "with hyperparameters below. Add one."
        )
    for key in CLASS_KEYS:
        class_entries(entry, key)
    return dict(entry)


def read_config(
    algo: str,
    env_id: str,
    *,
    conf_file: str | Path | None = None,
    n_skills: int | None = None,
    hyperparams: Mapping[str, Any] | None = None,
    resumed: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """
    :param algo: name of the algorithm as the zoo spells it
    :param env_id: id of the environment
    :param conf_file: see :func:`conf_file_path`
    :param n_skills: number of skills, None for the file's
    :param hyperparams: what shall differ from the file, see :func:`override`
    :param resumed: hyperparameters of a run that is resumed, which then count instead of a file
    :return: all hyperparameters in the zoo's format, checked
    :raises ValueError: if one is not known or cannot be right
    """
    if resumed is not None:
        entry = {key: value for key, value in resumed.items() if key != "normalize_kwargs"}
    else:
        _check_algo(algo, conf_file)
        entry = read_entry(conf_file_path(conf_file, algo), env_id)
    if n_skills is not None:
        has_own_updates = not UPDATES.isdisjoint(hyperparams or {})
        entry = _with_skills(algo, entry, n_skills, scales_updates=not has_own_updates)
    entry = override(algo, entry, hyperparams or {})
    check_hyperparams(algo, entry)
    return entry


def _check_algo(algo: str, conf_file: str | Path | None) -> None:
    """A file of PPO fits no off-policy algorithm, and the other way round."""
    named = None if conf_file is None else named_algo(conf_file)
    is_known = {algo, named} <= import_zoo().ALGOS.keys()
    if is_known and is_on_policy(algo) != is_on_policy(str(named)):
        raise ValueError(
            f"conf_file={str(conf_file)!r} has hyperparameters of {named}, not of {algo}; expected "
            f"algo={named!r}. Leave --algo out, or choose another file."
        )


def _with_skills(
    algo: str, entry: Mapping[str, Any], n_skills: int, *, scales_updates: bool
) -> dict[str, Any]:
    """
    Another number of skills, and what depends on it: a bound of -log K, and with stratified skills
    the number of environments. Off-policy there are as many per skill as before, at the same number
    of steps per update. On-policy there are about as many in total, at least two per skill (one
    where there was one): with larger rollouts the policy would change less often.
    """
    wrapper, before = wrapper_of_skills(entry), n_skills_of(entry)
    changed = set_argument(entry, wrapper, "n_skills", check_n_skills(n_skills))
    if n_skills == before:
        return changed
    bound = get_arguments(entry, "DIAYNCallback").get("log_q_min")
    if bound is not None and math.isclose(bound, -math.log(before), abs_tol=0.05):
        bound = round(-math.log(n_skills), 1)
        changed = set_argument(changed, "DIAYNCallback", "log_q_min", bound)
    if get_arguments(entry, wrapper).get("skill") == "stratified":
        n_envs = entry.get("n_envs", 1)
        per_skill = max(1, round(n_envs / before))
        if is_on_policy(algo):
            per_skill = max(min(2, per_skill), round(n_envs / n_skills))
        changed["n_envs"] = per_skill * n_skills
        if scales_updates and "gradient_steps" in entry:
            changed |= scale_updates(entry, changed["n_envs"])
    return changed


def is_on_policy(algo: str) -> bool:
    """
    :param algo: name of the algorithm as the zoo spells it
    :return: whether it learns from rollouts; False for a name that is not known
    """
    return issubclass(import_zoo().ALGOS.get(algo, object), OnPolicyAlgorithm)


def scale_updates(entry: Mapping[str, Any], n_envs: int) -> dict[str, int]:
    """
    :param entry: hyperparameters of an off-policy algorithm, in the zoo's format
    :param n_envs: another number of environments
    :return: ``gradient_steps``, and where it would be below 1 ``train_freq``, for as many updates
        per transition as before; nothing if ``entry`` counts updates by steps or by episodes
    """
    n_updates, train_freq = entry.get("gradient_steps", 1), entry.get("train_freq", 1)
    if not (is_count(n_updates) and is_count(train_freq)):
        return {}
    wanted = Fraction(n_updates * n_envs, entry.get("n_envs", 1))
    if wanted >= 1:
        return {"gradient_steps": round(wanted)}
    share = wanted.limit_denominator(10) or Fraction(1, round(1 / wanted))
    return {"gradient_steps": share.numerator, "train_freq": train_freq * share.denominator}


def preset(name: str, env_id: str | None = None) -> dict[str, dict[str, Any]]:
    """
    The hyperparameters that a published code uses, from the provided file of this name.

    Example::

        values = preset("paper")
        env = DIAYNWrapper(gym.make("Hopper-v5"), **values["wrapper"])
        model = SAC("MlpPolicy", env, **values["model"])
        model.learn(300_000, callback=DIAYNCallback(**values["callback"]))

    :param name: ``"paper"``, ``"original-code"``, ``"seed"`` or ``"urlb"``, which is for DDPG
    :param env_id: id of the environment: some codes have own values for some of them
    :return: arguments of the model, of ``DIAYNWrapper`` and of ``DIAYNCallback``
    :raises ValueError: if there is no such preset
    """
    entry = read_entry(preset_path(name), env_id or "default")
    return {
        "model": {k: v for k, v in entry.items() if k not in (*ZOO_KEYS, "policy")},
        "wrapper": get_arguments(entry, "DIAYNWrapper"),
        "callback": get_arguments(entry, "DIAYNCallback"),
    }


def preset_path(name: str) -> Path:
    """
    :param name: name of a preset
    :return: its file
    :raises ValueError: if there is no such preset
    """
    if name not in PRESETS:
        raise ValueError(
            f"preset={name!r} is not known; expected one of {sorted(PRESETS)}. Leave it out for "
            "the values of this package."
        )
    return config_path(name)


# -- classes with arguments --------------------------------------------------------------------


def class_entries(hyperparams: Mapping[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    """
    :param hyperparams: in the zoo's format
    :param key: ``"env_wrapper"``, ``"vec_env_wrapper"`` or ``"callback"``
    :return: path and arguments of each class there
    :raises ValueError: if it is not a path, a path with arguments, or a list of those
    """
    value = hyperparams.get(key)
    result = []
    for entry in value if isinstance(value, list) else [] if value is None else [value]:
        items = list(entry.items()) if isinstance(entry, Mapping) else [(entry, {})]
        (path, kwargs), *more = items or [(None, None)]
        if more or not _is_path(path) or not isinstance(kwargs, Mapping):
            raise ValueError(
                f"{key}={entry!r} names no class; expected package.Class, or package.Class: "
                "{argument: value}, or a list of those. Write it like the provided files."
            )
        result.append((path, dict(kwargs)))
    return result


def _is_path(value: object) -> bool:
    """Whether it is ``package.Class``: the zoo looks for the package before the last dot."""
    return isinstance(value, str) and re.fullmatch(r"\w+(\.\w+)+", value) is not None


def _named(hyperparams: Mapping[str, Any], class_name: str) -> list[dict[str, Any]]:
    entries = class_entries(hyperparams, CLASSES[class_name][1])
    return [kwargs for path, kwargs in entries if path.split(".")[-1] == class_name]


def get_arguments(hyperparams: Mapping[str, Any], class_name: str) -> dict[str, Any]:
    """
    :param hyperparams: in the zoo's format
    :param class_name: a class of ``CLASSES``
    :return: the arguments that it gets there
    """
    return {
        name: value for kwargs in _named(hyperparams, class_name) for name, value in kwargs.items()
    }


def wrapper_of_skills(hyperparams: Mapping[str, Any]) -> str:
    """
    :param hyperparams: in the zoo's format
    :return: the class of ``CLASSES`` that appends the skills there
    """
    return "VecDIAYNWrapper" if _named(hyperparams, "VecDIAYNWrapper") else "DIAYNWrapper"


def n_skills_of(hyperparams: Mapping[str, Any]) -> int:
    """
    :param hyperparams: in the zoo's format
    :return: the number of skills of the wrapper there, or its default
    """
    default = inspect.signature(DIAYNWrapper).parameters["n_skills"].default
    return int(get_arguments(hyperparams, wrapper_of_skills(hyperparams)).get("n_skills", default))


def set_argument(
    hyperparams: Mapping[str, Any], class_name: str, argument: str, value: Any
) -> dict[str, Any]:
    """
    :param hyperparams: in the zoo's format
    :param class_name: a class of ``CLASSES``, which is added where it is missing
    :param argument: name of an argument
    :param value: of it
    :return: hyperparameters in which the class gets the argument
    """
    key = CLASSES[class_name][1]
    entries = class_entries(hyperparams, key)
    if not _named(hyperparams, class_name):
        entries.append((f"sb3_diayn.{class_name}", {}))
    changed = [
        (path, kwargs | {argument: value} if path.split(".")[-1] == class_name else kwargs)
        for path, kwargs in entries
    ]
    return {**hyperparams, key: [{path: kwargs} if kwargs else path for path, kwargs in changed]}


def vectorize_skills(hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param hyperparams: in the zoo's format
    :return: the same with ``VecDIAYNWrapper`` in the place of ``DIAYNWrapper``, for simulators that
        have no single environments
    :raises ValueError: if other wrappers are for single environments
    """
    paths = [path for path, _ in class_entries(hyperparams, "env_wrapper")]
    others = [path for path in paths if path.split(".")[-1] != "DIAYNWrapper"]
    if others:
        raise ValueError(
            f"env_wrapper={others[0]!r} wraps single environments, and EnvPool has none; expected "
            "DIAYNWrapper alone. Leave the wrapper out, or use --vec-env dummy."
        )
    result = {name: value for name, value in hyperparams.items() if name != "env_wrapper"}
    if not paths:
        return result
    outer = class_entries(hyperparams, "vec_env_wrapper")
    entries = [("sb3_diayn.VecDIAYNWrapper", get_arguments(hyperparams, "DIAYNWrapper")), *outer]
    return {**result, "vec_env_wrapper": [{path: kwargs} for path, kwargs in entries]}


def override(
    algo: str, hyperparams: Mapping[str, Any], chosen: Mapping[str, Any]
) -> dict[str, Any]:
    """
    :param algo: name of the algorithm as the zoo spells it
    :param hyperparams: as in the zoo's files
    :param chosen: what shall be otherwise: arguments of the algorithm and the zoo's keys, and as
        ``DIAYNCallback.learning_rate`` or ``DIAYNWrapper.skill`` arguments of our classes
    :return: hyperparameters with them
    :raises ValueError: if a name is not known
    """
    plain = {name: value for name, value in chosen.items() if "." not in name}
    check_names(algo, plain)
    result = {**hyperparams, **plain}
    known = {
        f"{class_name}.{argument}"
        for class_name, (cls, _) in CLASSES.items()
        for argument in inspect.signature(cls).parameters
    }
    for name, value in chosen.items():
        if name in plain:
            continue
        if name not in known:
            raise ValueError(
                f"{name}={value!r} is not an argument of a class of this package; expected one of "
                f"{sorted(known)}.{did_you_mean(name, known)} Leave it out, or correct the name."
            )
        class_name, argument = name.split(".")
        result = set_argument(result, class_name, argument, value)
    return result


# -- checks ------------------------------------------------------------------------------------


def check_names(algo: str, hyperparams: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
    """
    :param algo: name of an algorithm as the zoo spells it
    :param hyperparams: as in the zoo's files
    :return: the algorithm's arguments
    :raises ValueError: if the algorithm or one of the hyperparameters is not known
    """
    algorithms = import_zoo().ALGOS
    if algo not in algorithms:
        raise ValueError(
            f"algo={algo!r} is not known; expected one of {sorted(algorithms)}."
            f"{did_you_mean(algo, algorithms)}"
        )
    parameters = inspect.signature(algorithms[algo]).parameters
    known = {*(name for name in parameters if not name.startswith("_")), *ZOO_KEYS}
    for name in hyperparams:
        if name not in known:
            raise ValueError(
                f"{name}={hyperparams[name]!r} is not a hyperparameter of {algo}; expected one of "
                f"{sorted(known)}.{did_you_mean(name, known)} Leave it out, or choose another "
                "algorithm."
            )
    return parameters


def check_hyperparams(algo: str, hyperparams: Mapping[str, Any]) -> None:
    """
    Compare each value with SB3's annotation. SB3 itself takes most values as they are and fails
    thousands of steps later, in the middle of an update and without the name, or never: it trains
    with ``buffer_size: -5`` and takes ``use_sde: "no"`` for true.

    :param algo: name of an algorithm as the zoo spells it
    :param hyperparams: all hyperparameters of a run, in the zoo's format
    :raises ValueError: if a name is not known, a value does not fit its annotation, or nothing
        trains a discriminator
    """
    parameters = check_names(algo, hyperparams)
    hints: dict[str, Any] = {name: each.annotation for name, each in parameters.items()}
    hints |= {"n_timesteps": float, "n_envs": int}
    for name, value in hyperparams.items():
        hint = hints.get(name, Any)
        if not _fits(value, hint):
            words = inspect.formatannotation(hint)
            rule = re.sub(r"[\w.]*Callable\[\[float\], float\]", "lin_NUMBER", words)
            raise ValueError(
                f"{name}={value!r} has the wrong type; expected {rule}.{_yaml_hint(value)} "
                "Correct it in the file or on the command line."
            )
        if name in COUNTS and isinstance(value, (int, float)) and value < 1:
            raise ValueError(f"{name}={value!r} is too small; expected at least 1. Raise it.")
        if name in FRACTIONS and isinstance(value, (int, float)) and not 0 <= value <= 1:
            raise ValueError(f"{name}={value!r} is not a fraction; expected a number from 0 to 1.")
    for name in ("n_timesteps", "callback"):
        if not hyperparams.get(name):
            raise ValueError(
                f"{name}={hyperparams.get(name)!r} is missing; expected n_timesteps: NUMBER and "
                "callback: [sb3_diayn.DIAYNCallback] in the file. Add it."
            )


def check_classes(hyperparams: Mapping[str, Any], *keys: str) -> None:
    """
    Import what the zoo will import, so that an error names the class.

    :param hyperparams: in the zoo's format
    :param keys: of ``CLASS_KEYS``
    :raises ValueError: if a class there cannot be imported
    """
    for key in keys:
        for path, _ in class_entries(hyperparams, key):
            module, _, name = path.rpartition(".")
            try:
                getattr(importlib.import_module(module), name)
            except Exception as error:  # a module may do anything
                raise ValueError(
                    f"{key}={path!r} cannot be imported ({type(error).__name__}: {error}); "
                    "expected package.Class. Correct the name, install the package, or add its "
                    "folder to PYTHONPATH."
                ) from error


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value from YAML, where code is a string, can be what an annotation says."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    kind = get_origin(hint) or hint
    if kind is Any:
        return True
    if kind is Callable:
        return isinstance(value, str) and SCHEDULE.fullmatch(value) is not None
    if isinstance(value, bool):  # which is an int to Python
        return kind is bool
    if kind in (bool, int, str, NoneType):
        return isinstance(value, kind)
    if kind in (float, tuple):
        return isinstance(value, (int, float) if kind is float else (list, tuple))
    return not isinstance(value, (int, float))


def _yaml_hint(value: Any) -> str:
    """YAML 1.1 has its own idea of what a number is."""
    if isinstance(value, str) and re.fullmatch(NUMBER, value):
        return f" YAML takes {value} for a word: write {float(value):.6g} with a point."
    return ""
