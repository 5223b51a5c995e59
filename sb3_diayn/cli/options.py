"""
Options that several commands share, as parents of their parsers, and the kinds of values that
options take. Each call makes new parents: argparse shares the options of a parent.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeAlias

import yaml

from sb3_diayn.cli.trust import TRUST
from sb3_diayn.zoo.training import TrainingOptions

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
Parser: TypeAlias = argparse.ArgumentParser

# Films take longer than everything else: 20 skills of 300 steps of Hopper, rendered without a GPU,
# take five minutes.
FILM_STEPS = 300
N_EPISODES = 5  # of each skill, in an evaluation
# Options with a name of their own for a hyperparameter.
SHORTCUTS = {
    "n_envs": "n_envs",
    "buffer_size": "buffer_size",
    "ent_coef": "ent_coef",
    "reward_scale": "DIAYNCallback.reward_scale",
}


def add_command(
    commands: Commands, name: str, body: Callable[[argparse.Namespace], None], *parents: Parser
) -> Parser:
    """Add a command whose help is the docstring of its body; return the parser for its options."""
    parser = commands.add_parser(
        name,
        help=body.__doc__,
        description=body.__doc__,
        epilog=TRUST.get(name),
        parents=parents,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(body=body)
    return parser


# -- shared options ----------------------------------------------------------------------------


def config_options(algo: str | None) -> Parser:
    """What is trained; without a default the preset names the algorithm."""
    parser = Parser(add_help=False)
    add = parser.add_argument
    add_env(parser, "environment id, or PACKAGE:ID")
    default = "" if algo else "; default: sac, or the preset's"
    add("--algo", default=algo, help=f"algorithm, as the zoo spells it{default}")
    add("--n-skills", type=int, help="number of skills; default: the configuration's")
    add("--buffer-size", type=int, help="replay buffer; default: the configuration's")
    add("--reward-scale", type=float, help="factor of the reward; default: the configuration's")
    add("--ent-coef", type=number_or_word, help="entropy coefficient, a number or auto")
    text = "file of hyperparameters, or a provided one, e.g. ppo_travel; default: the algorithm's"
    add("--conf-file", metavar="YML", help=text)
    return parser


def learning_options() -> Parser:
    """How long, how and where to learn."""
    parser = Parser(add_help=False)
    add = parser.add_argument
    text = "steps; -1: the configuration's"
    add("-n", "--total-timesteps", dest="n_timesteps", type=int, default=-1, help=text)
    add("--seed", type=int, help="seed of everything; default: a random one, printed")
    add("--n-envs", type=int, help="parallel environments; default: the configuration's")
    add("-f", "--log-folder", default="logs", help="where runs are saved")
    add("--device", default="auto", help="PyTorch device")
    add("--num-threads", type=int, default=-1, help="PyTorch threads; -1: its own choice")
    add("--vec-env", choices=["dummy", "subproc"], default="dummy", help="type of VecEnv")
    add_pairs(parser, "--hyperparams", "override hyperparameters, e.g. learning_rate:0.001")
    add_pairs(parser, "--env-kwargs", "arguments of the environment")
    add("--verbose", type=int, default=0, help="1: the zoo's and SB3's messages")
    return parser


def logging_options() -> Parser:
    """What a training saves and logs on the way."""
    parser = Parser(add_help=False)
    add = parser.add_argument
    text = "steps between checkpoints, each as large as the model (some MB), and as the replay "
    text += "buffer with --save-replay-buffer; default: a tenth of the training, at least 10000, "
    text += "where skills are learned; -1: none"
    add("--save-freq", type=int, help=text)
    text = "how many of the newest checkpoints to keep"
    add("--keep-checkpoints", type=positive, default=2, metavar="N", help=text)
    add("--save-replay-buffer", action="store_true", help="save it, at the end and in checkpoints")
    add("--log-interval", type=int, default=-1, help="episodes between log lines; -1: SB3's")
    add("--eval-freq", type=int, default=-1, help="steps between zoo evaluations; -1: none")
    add("-tb", "--tensorboard-log", default="", metavar="DIR", help="TensorBoard folder")
    add("--no-progress", action="store_true", help="no progress bar")
    return parser


def training_options(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of ``TrainingOptions``, with shortcuts such as ``--ent-coef`` resolved."""
    given = vars(args)
    names = {field.name for field in fields(TrainingOptions)}
    shortcuts = {key: given.get(name) for name, key in SHORTCUTS.items()}
    chosen = {key: value for key, value in shortcuts.items() if value is not None}
    return {
        **{name: value for name, value in given.items() if name in names},
        "hyperparams": chosen | (args.hyperparams or {}),
        "progress_bar": not given.get("no_progress", True),
    }


def run_options(**kwargs: Any) -> Parser:
    """Which run; ``kwargs`` of the argument where they differ."""
    parser = Parser(add_help=False)
    what = "a run's folder, e.g. logs/sac/Hopper-v5_1, or a model's zip"
    parser.add_argument("run", **({"metavar": "RUN", "help": what} | kwargs))
    add_env(parser, "environment id, or PACKAGE:ID; needed for a zip whose environment had none")
    return parser


def playing_options() -> Parser:
    """How to play a run."""
    parser = Parser(add_help=False)
    parser.add_argument("--seed", type=int, default=0, help="seed of the environments")
    parser.add_argument("--device", default="auto", help="PyTorch device")
    parser.add_argument("--verbose", type=int, default=0, help="1: where an error came from")
    return parser


def measuring_options(*, reuses_report: bool = False) -> Parser:
    """How to evaluate a run, if the evaluation of its report does not serve."""
    parser = Parser(add_help=False, parents=[playing_options()])
    add_episodes(parser, reuses_report=reuses_report)
    text = "take the mode instead of sampled actions, which makes even untrained skills distinct"
    parser.add_argument("--deterministic", action="store_true", help=text)
    parser.add_argument("--no-progress", action="store_true", help="no progress bar")
    if reuses_report:
        parser.set_defaults(seed=None)  # for any
    return parser


def add_episodes(parser: Parser, *, reuses_report: bool = False) -> None:
    """Add the option that says how many episodes an evaluation has."""
    if reuses_report:
        text = (
            f"episodes of each skill; default: as in the run's report, if it fits, or {N_EPISODES}"
        )
        parser.add_argument("--episodes", type=positive, help=text)
    else:
        text = "episodes of each skill"
        parser.add_argument("--episodes", type=positive, default=N_EPISODES, help=text)


def baseline_options() -> Parser:
    """Whether to compare with an untrained policy."""
    parser = Parser(add_help=False)
    text = "also count the distinct skills of a policy that has learned nothing"
    action = argparse.BooleanOptionalAction
    parser.add_argument("--baseline", action=action, default=True, help=text)
    return parser


def env_kwargs_options() -> Parser:
    """Arguments of a run's environment."""
    parser = Parser(add_help=False)
    text = "arguments of the environment beside those of the training, e.g. max_episode_steps:1000"
    add_pairs(parser, "--env-kwargs", text)
    return parser


def film_options(steps: int = FILM_STEPS) -> Parser:
    """Where films end."""
    parser = Parser(add_help=False)
    text = "where films end"
    parser.add_argument("--film-steps", type=positive, default=steps, metavar="N", help=text)
    return parser


def output_options(metavar: str, default: str) -> Parser:
    """Where to write."""
    parser = Parser(add_help=False)
    text = f"where to write; default: {default}"
    parser.add_argument("-o", "--output", metavar=metavar, help=text)
    return parser


def add_env(parser: Parser, text: str) -> None:
    """Add the options that say which environment."""
    parser.add_argument("--env", help=text)
    add_gym_packages(parser)


def add_gym_packages(parser: Parser) -> None:
    """Add the option that names packages, as the zoo's own commands have it."""
    text = "packages that register the environment; a run remembers them"
    kind: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "PACKAGE"}
    parser.add_argument("--gym-packages", help=text, **kind)


def add_pairs(parser: Parser, name: str, text: str) -> None:
    """Add an option that takes ``key:value`` pairs, as the zoo's own commands do."""
    kind: dict[str, Any] = {"type": pair, "nargs": "+", "action": CollectPairs}
    parser.add_argument(name, metavar="KEY:VALUE", help=text, **kind)


# -- kinds of values ---------------------------------------------------------------------------


def number_or_word(text: str) -> float | str:
    """A number, or the word as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def positive(text: str) -> int:
    """A positive integer."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def words(text: str) -> list[str]:
    """Words between commas; commas in brackets separate none."""
    return [word.strip() for word in re.split(r",(?![^\[(]*[\])])", text)]


def key_and_words(text: str) -> tuple[str, list[str]]:
    """Key and words of ``key=word,word``."""
    key, separator, values = text.partition("=")
    if not (key and separator and values):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key=value,value")
    return key, words(values)


def key_and_values(text: str) -> tuple[str, list[Any]]:
    """Key and values of ``key=value,value``."""
    key, found = key_and_words(text)
    return key, [value_of(word) for word in found]


def pair(text: str) -> tuple[str, Any]:
    """Key and value of ``key:value``."""
    key, separator, value = text.partition(":")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key:value")
    return key, value_of(value)


def value_of(text: str) -> Any:
    """A value as YAML writes it. ``None`` is null, as for the zoo, and ``1e-4`` is a number."""
    value = None if text == "None" else yaml.safe_load(text)
    return number_or_word(value) if isinstance(value, str) else value


class CollectPairs(argparse.Action):
    """Collects pairs in a dict, also those of a repeated option."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Same as argparse's."""
        known = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**known, **dict(values)})
