"""The options of each command of ``sb3-diayn``."""

import argparse
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import yaml

Add: TypeAlias = Callable[..., argparse.Action]  # ArgumentParser.add_argument

# Films take longer than all the rest: 20 skills of 300 steps of Hopper, rendered without a GPU,
# are five minutes.
FILM_STEPS = 300


def train(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn train``"""
    _skills(add, algo=None)
    text = "values of a published code: paper, original-code, seed or urlb"
    add("--preset", metavar="NAME", help=text)
    _learning(add)
    _logging(add)
    add("-i", "--resume", metavar="RUN", help="go on with this run or checkpoint, in a new folder")
    add("--no-report", action="store_true", help="write no report at the end")
    text = "episodes of each skill for the evaluation; default: 5, with --no-report 1"
    add("--episodes", type=_positive, help=text)
    _film_steps(add)
    add("--films", action="store_true", help="film each skill for the report: takes minutes")


def play(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn play``"""
    _run(add)
    _env_kwargs(add)
    add("--skill", default="all", help="index of a skill, several as 0,3,7-9, or all")
    add("--episodes", type=_positive, default=1, help="episodes of each skill")
    text = "human shows a window, rgb_array writes a film of one episode to RUN/videos"
    add("--render", choices=["human", "rgb_array"], help=text)
    _film_steps(add, 1000)
    add("--stochastic", action="store_true", help="sample actions instead of taking the mode")


def report(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn report``"""
    _measuring(add)
    _env_kwargs(add)
    _output(add, "DIR", "RUN/report")
    add("--no-films", action="store_true", help="leave out the films, which take minutes")
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    _film_steps(add)
    text = "also write README.md, the model card for an upload to the Hugging Face hub"
    add("--model-card", action="store_true", help=text)


def evaluate(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn evaluate``"""
    _measuring(add)
    _env_kwargs(add)
    _output(add, "FILE", "RUN/evaluation.json; may end in .npz")


def plot(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn plot``"""
    text = "a run's folder, a model's zip, or an evaluation.json or .npz"
    _measuring(add, metavar="RUN|FILE", help=text)
    _env_kwargs(add)
    _output(add, "DIR", "RUN/figures")


def record(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn record``"""
    _run(add)
    _env_kwargs(add)
    _output(add, "DIR", "RUN/videos")
    add("--skills", help="which to film, as 0,3,7-9; default: all")
    add("--grid", action="store_true", help="also film them side by side")
    add("--format", choices=["mp4", "gif"], default="mp4", help="format of the films")
    _film_steps(add, 1000)


def compare(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn compare``"""
    _measuring(add, nargs="+", help="runs; those with a report are not played again")
    _output(add, "DIR", "nothing is written")


def export(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn export``"""
    _measuring(add)
    text = "best, by task return, or an index, several as 0,3,7-9, or all"
    add("--skill", default="best", help=text)
    _output(add, "DIR", "RUN/skills")


def finetune(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn finetune``"""
    _run_name(add)
    add("--skill", default="best", help="index of a skill, or best, by task return")
    add("--reset-critics", action="store_true", help="keep the policy, start critics afresh")
    _learning(add)
    _logging(add)
    add("--episodes", type=_positive, default=5, help="episodes to measure task returns")


def imitate(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn imitate``"""
    _run(add)
    what = "an expert's states: .npz with observations, and actions and seed for its film; .npy; or"
    add("--trajectory", required=True, metavar="FILE", help=f"{what} the id of a Minari dataset")
    add("--episode", type=int, default=0, help="which episode of a Minari dataset")
    _output(add, "DIR", "RUN/imitation")
    add("--no-films", action="store_true", help="name the skill only")
    _film_steps(add)


def config(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn config``"""
    add("algo", nargs="?", default="sac", help="algorithm")


def sweep(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn sweep``"""
    add("--envs", nargs="+", required=True, metavar="ENV", help="environment ids")
    add("--algo", default="sac", type=_words, metavar="A,B", help="algorithms")
    add("--seeds", type=_positive, default=5, metavar="N", help="seeds of each setting: 0 to N-1")
    add("--n-skills", type=_words, metavar="K,K", help="numbers of skills; default: the config's")
    text = "values of a hyperparameter, e.g. ent_coef=0.1,0.2 or DIAYNCallback.learning_rate=1e-3"
    add("--param", type=_values, action="append", default=[], metavar="KEY=V,V", help=text)
    add("-n", "--total-timesteps", type=int, default=-1, help="steps; -1: the configuration's")
    add("-o", "--output", default="logs/sweep", metavar="DIR", help="folder of all runs")
    add("--backend", choices=["loky", "ray", "dask"], default="loky", help="where runs go")
    add("--address", help="of a Ray or Dask cluster; default: one is started on this machine")
    add("--n-jobs", type=int, default=-1, help="runs at once; -1: as many as there are cores")
    text = "after --: options of sb3-diayn train for every run, e.g. -- --device cpu --no-report"
    add("train_options", nargs="*", metavar="-- OPTION", help=text)


def tune(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn tune``"""
    _skills(add)
    _learning(add)
    add("--n-trials", type=_positive, default=30, help="trials of this process")
    add("--max-total-trials", type=_positive, help="trials of all processes together")
    text = "database of the study, sqlite:///study.db or study.log; default: one in the log folder"
    add("--storage", metavar="URL", help=text)
    add("--study-name", help="study to start or to join; default: algorithm and environment")
    add("--sampler", choices=["tpe", "random"], default="tpe", help="Optuna's sampler")
    add("--pruner", choices=["median", "halving", "none"], default="median", help="its pruner")
    add("--n-startup-trials", type=int, default=10, help="random trials before the sampler")
    add("--n-evaluations", type=_positive, default=4, help="evaluations of each trial")
    add("--episodes", type=_positive, default=1, help="episodes of each skill in an evaluation")
    text = "what to search in place of all: one value, choices, or the two ends of a number"
    add("--space", type=_range, nargs="+", default=[], metavar="NAME=V,V", help=text)


# -- options that several commands share -----------------------------------------------------


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


# -- kinds of values ------------------------------------------------------------------------


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
