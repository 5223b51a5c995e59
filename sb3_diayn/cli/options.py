"""Options that several commands share, and the kinds of values they take."""

import argparse
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import yaml

Add: TypeAlias = Callable[..., argparse.Action]  # ArgumentParser.add_argument


# Films take longer than all the rest: 20 skills of 300 steps of Hopper, rendered without a GPU,
# are five minutes.
FILM_STEPS = 300


def _skills(add: Add, algo: str | None = "sac") -> None:
    add("--env", help="environment id")
    default = "" if algo else "; default: sac, or the preset's"
    add("--algo", default=algo, help=f"algorithm, as the zoo spells it{default}")
    add("--n-skills", type=int, help="number of skills; default: the configuration's")
    add("--buffer-size", type=int, help="replay buffer; default: the configuration's")
    add("--reward-scale", type=float, help="factor of the reward; default: the configuration's")
    add("--ent-coef", type=_number_or_word, help="entropy coefficient, a number or auto")
    add(
        "--conf-file",
        metavar="YML",
        help="file of hyperparameters, or ppo_travel; default: the provided one",
    )


def _learning(add: Add) -> None:
    add("-n", "--total-timesteps", type=int, default=-1, help="steps; -1: the configuration's")
    add("--seed", type=int, help="seed of everything; default: a random one, printed")
    add("--n-envs", type=int, help="parallel environments; default: the configuration's")
    add("-f", "--log-folder", default="logs", help="where runs are saved")
    add("--device", default="auto", help="PyTorch device")
    add("--num-threads", type=int, default=-1, help="PyTorch threads; -1: its own choice")
    add("--vec-env", choices=["dummy", "subproc"], default="dummy", help="type of VecEnv")
    _pairs(add, "--hyperparams", "override hyperparameters, e.g. learning_rate:0.001")
    _pairs(add, "--env-kwargs", "arguments of the environment")
    add("--verbose", type=int, default=0, help="1: the zoo's and SB3's messages")


def _logging(add: Add) -> None:
    add("--save-freq", type=int, default=-1, help="steps between checkpoints; -1: none")
    add("--keep-checkpoints", type=_positive, default=2, metavar="N", help="the newest to keep")
    add("--save-replay-buffer", action="store_true", help="save it, at the end and in checkpoints")
    add("--log-interval", type=int, default=-1, help="episodes between log lines; -1: SB3's")
    add("--eval-freq", type=int, default=-1, help="steps between zoo evaluations; -1: none")
    add("-tb", "--tensorboard-log", default="", metavar="DIR", help="TensorBoard folder")
    add("--no-progress", action="store_true", help="no progress bar")


def _run_name(add: Add, **kwargs: Any) -> None:
    what = "a run's folder, e.g. logs/sac/Hopper-v5_1, or a model's zip"
    add("run", **({"metavar": "RUN", "help": what} | kwargs))
    add("--env", help="environment id; needed for a zip whose environment had none")


def _run(add: Add, **kwargs: Any) -> None:
    _run_name(add, **kwargs)
    add("--seed", type=int, default=0, help="seed of the environments")
    add("--device", default="auto", help="PyTorch device")


def _measuring(add: Add, **kwargs: Any) -> None:
    _run(add, **kwargs)
    add("--episodes", type=_positive, default=5, help="episodes of each skill")
    add("--no-progress", action="store_true", help="no progress bar")


def _env_kwargs(add: Add) -> None:
    text = "arguments of the environment beside those of the training, e.g. max_episode_steps:1000"
    _pairs(add, "--env-kwargs", text)


def _pairs(add: Add, name: str, text: str) -> None:
    add(name, type=_pair, nargs="+", action=_Pairs, metavar="KEY:VALUE", help=text)


def _film_steps(add: Add, steps: int = FILM_STEPS) -> None:
    add("--film-steps", type=_positive, default=steps, metavar="N", help="where films end")


def _output(add: Add, metavar: str, default: str) -> None:
    add("-o", "--output", metavar=metavar, help=f"where to write; default: {default}")


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def _words(text: str) -> list[str]:
    """What stands between commas, those in brackets aside."""
    return [word.strip() for word in re.split(r",(?![^\[(]*[\])])", text)]


def _values(text: str) -> tuple[str, list[str]]:
    key, separator, values = text.partition("=")
    if not (key and separator and values):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value,value")
    return key, _words(values)


def _range(text: str) -> tuple[str, list[Any]]:
    key, words = _values(text)
    return key, [_loaded(word) for word in words]


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition(":")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key:value")
    return key, _loaded(value)


def _loaded(text: str) -> Any:
    if text == "None":  # YAML's null, as Python and the zoo's own --hyperparams have it
        return None
    loaded = yaml.safe_load(text)
    # YAML 1.1 takes 1e-4, without a point, for a word.
    return _number_or_word(loaded) if isinstance(loaded, str) else loaded


class _Pairs(argparse.Action):
    """Collects ``key:value`` arguments in a dict, those of a repeated option too."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        known = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**known, **dict(values)})
