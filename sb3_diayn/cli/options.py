"""
Options that several commands share, as parents of their parsers, and the kinds of values that
options take. Each call makes new parents: argparse shares the options of a parent.
"""

import argparse
import math
import re
import textwrap
from typing import Any, TypeAlias

import yaml

from sb3_diayn.arguments import did_you_mean

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
Group: TypeAlias = argparse._ActionsContainer  # a parser, or a group of its options

FILM_SECONDS = 10.0
FILM_STEPS = 1000  # where a film of a whole episode is cut
N_EPISODES = 5  # of each skill, in an evaluation
N_FILMS = 6  # of the best skills, at the end of a training
ALGO_DEFAULT = "ppo where it learns much better skills, else sac"  # zoo.hyperparams.default_algo
# What each command may run of other people's files, at the end of its help.
SECURITY_PAGE = "docs/pages/security.md"
OPENS_RUN = (
    "Opening RUN can run code of its model and of the files in a run's folder: open only what you "
    "trust"
)
READS_CONFIG = "A file for --conf-file can run code: use only what you trust."

TRUST = {
    name: f"{OPENS_RUN}. Which files: {SECURITY_PAGE}"
    for name in ("play", "view", "report", "evaluate", "record", "push", "export", "finetune")
} | {
    "plot": f"{OPENS_RUN}; an evaluation.json or .npz runs none. Which files: {SECURITY_PAGE}",
    "compare": f"{OPENS_RUN}; an evaluation.json or .npz runs none. Which files: {SECURITY_PAGE}",
    "imitate": f"{OPENS_RUN}; with --no-films, a zip outside of a run's folder runs none. "
    f"Which files: {SECURITY_PAGE}",
    "train": f"With --resume: {OPENS_RUN[0].lower()}{OPENS_RUN[1:]}. {READS_CONFIG} "
    f"Which files: {SECURITY_PAGE}",
    "tune": f"{READS_CONFIG} See {SECURITY_PAGE}",
    "sweep": f"{READS_CONFIG} See {SECURITY_PAGE}",
}


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows defaults that tell something, and examples as they are."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        says_nothing = action.default is None or action.default is False
        if says_nothing or action.default in ("", []) or "default" in text:
            return text
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser that asks whether something similar was meant."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if hint := did_you_mean(value, map(str, action.choices or ())):
                error.message += f".{hint}"
            raise


def add_command(
    commands: Commands,
    name: str,
    body: str,
    text: str,
    *parents: Parser,
    example: str,
) -> Parser:
    """
    Add a command; return the parser for its options.

    :param commands: of the main parser
    :param name: of the command
    :param body: the function that does it, as ``module:function`` of this package, so that the
        parser does not import it
    :param text: what it does
    :param parents: shared options
    :param example: arguments
    """
    trust = textwrap.fill(TRUST.get(name, ""), 79)
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  sb3-diayn {name} {example}\n\n{trust}",
        parents=parents,
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(body=f"sb3_diayn.cli.{body}")
    return parser


# -- shared options ----------------------------------------------------------------------------


def config_options() -> Parser:
    """What is trained."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("what to train")
    add = group.add_argument
    add_env(group, "environment id, or PACKAGE:ID")
    text = f"algorithm, as the zoo spells it; default: the preset's, or {ALGO_DEFAULT}"
    add("--algo", help=text)
    add("--n-skills", type=int, help="number of skills; default: the configuration's")
    add("--buffer-size", type=int, help="replay buffer; default: the configuration's")
    add("--reward-scale", type=float, help="factor of the reward; default: the configuration's")
    add("--ent-coef", type=entropy_coefficient, help="entropy coefficient, a number or auto")
    text = "file of hyperparameters, or a provided one, e.g. ppo_metra; default: the algorithm's"
    add("--conf-file", metavar="YML", help=text)
    return parser


def learning_options(*, knows_auto: bool = True) -> Parser:
    """How long, how and where to learn; ``knows_auto`` where ``--n-envs auto`` can be chosen."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("how to train")
    add = group.add_argument
    text = "steps; -1: the configuration's"
    add("-n", "--total-timesteps", dest="n_timesteps", type=int, default=-1, help=text)
    add("--seed", type=int, help="seed of everything; default: a random one, printed")
    kind = positive_or_auto if knows_auto else positive
    auto = ", a number or auto: as many as skills, in processes of their own where that is faster"
    text = f"parallel environments{auto if knows_auto else ''}; default: the configuration's"
    add("--n-envs", type=kind, metavar="N", help=text)
    add("-f", "--log-folder", default="logs", help="where runs are saved")
    add("--device", default="auto", help="PyTorch device")
    text = "PyTorch threads while it learns; -1: one, or PyTorch's own choice for images and where "
    text += "OMP_NUM_THREADS is set"
    add("--num-threads", type=int, default=-1, help=text)
    text = "in one process, the default, in processes of their own, or EnvPool's simulators"
    add("--vec-env", choices=["dummy", "subproc", "envpool"], help=text)
    add_pairs(group, "--hyperparams", "override hyperparameters, e.g. learning_rate:0.001")
    add_pairs(group, "--env-kwargs", "arguments of the environment")
    add("--verbose", type=int, default=0, help="1: the zoo's and SB3's messages")
    return parser


def logging_options(*, of_skills: bool = True) -> Parser:
    """What a training saves and logs on the way; of skills, or of a task."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("what to save and to show")
    add = group.add_argument
    text = "steps between checkpoints, each as large as the model (some MB), and as the replay "
    text += "buffer with --save-replay-buffer; default: a tenth of the training, at least 10000, "
    text += "where skills are learned; -1: none"
    add("--save-freq", type=int, help=text)
    if of_skills:
        text = "how many of the newest checkpoints to keep"
        add("--keep-checkpoints", type=positive, default=2, metavar="N", help=text)
    add("--save-replay-buffer", action="store_true", help="save it, at the end and in checkpoints")
    text = "print SB3's table each N episodes, on-policy rollouts; default: not at all"
    add("--log-interval", type=int, default=-1, metavar="N", help=text)
    add("--eval-freq", type=int, default=-1, help="steps between zoo evaluations; -1: none")
    add("-tb", "--tensorboard-log", default="", metavar="DIR", help="TensorBoard folder")
    add("--no-progress", action="store_true", help="no progress bar")
    if not of_skills:
        return parser
    text = "track the run with Weights & Biases, which gets what TensorBoard gets"
    add("--track", action="store_true", help=text)
    add("--wandb-project-name", default="sb3", metavar="NAME", help="project there")
    add("--wandb-entity", metavar="NAME", help="user or team there")
    add("--wandb-group", metavar="NAME", help="group of runs there")
    add("-tags", "--wandb-tags", nargs="+", default=[], metavar="TAG", help="tags of the run there")
    add("--live", action="store_true", help="write a page that shows the training while it runs")
    return parser


def run_options(**kwargs: Any) -> Parser:
    """Which run; ``kwargs`` of the argument where they differ."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("which run")
    what = "a run's folder, e.g. logs/sac/Hopper-v5_1, or a model's zip"
    group.add_argument("run", **({"metavar": "RUN", "help": what} | kwargs))
    add_env(group, "environment id, or PACKAGE:ID; needed for a zip whose environment had none")
    return parser


def zoo_run_options() -> Parser:
    """Which run, in the way of the zoo's command ``enjoy``."""
    parser = Parser(add_help=False)
    add = parser.add_argument_group("which run").add_argument
    add("--algo", help=f"without RUN: its algorithm; default: {ALGO_DEFAULT}")
    add("-f", "--log-folder", default="logs", help="without RUN: where runs are saved")
    text = "without RUN: its number, as in Hopper-v5_1; 0: the latest"
    add("--exp-id", type=int, default=0, metavar="N", help=text)
    text = "the best model of its evaluations in place of the last one"
    add("--load-best", action="store_true", help=text)
    text = "the checkpoint after N steps"
    add("--load-checkpoint", type=positive, metavar="N", help=text)
    add("--load-last-checkpoint", action="store_true", help="the newest checkpoint")
    return parser


def skill_options(text: str, *, default: str = "all", alias: bool = False) -> Parser:
    """Which skill or skills."""
    parser = Parser(add_help=False)
    names = ("--skill", "--skills") if alias else ("--skill",)
    parser.add_argument_group("which skills").add_argument(
        *names, default=default, metavar="Z", help=text
    )
    return parser


def playing_options() -> Parser:
    """How to play a run."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("how to play")
    group.add_argument("--seed", type=seed, default=0, help="seed of the environments")
    group.add_argument("--device", default="auto", help="PyTorch device")
    group.add_argument("--verbose", type=int, default=0, help="1: where an error came from")
    return parser


def add_stochastic(parser: Parser) -> None:
    """Add the option that says how actions are chosen."""
    text = "sample actions instead of taking the mode"
    parser.add_argument("--stochastic", action="store_true", help=text)


def measuring_options(*, reuses_report: bool = False) -> Parser:
    """How to evaluate a run, if the evaluation of its report does not serve."""
    parser = Parser(add_help=False, parents=[playing_options()])
    group = parser.add_argument_group("how to measure")
    add_episodes(group, reuses_report=reuses_report)
    text = "take the mode instead of sampled actions, which makes even untrained skills distinct"
    group.add_argument("--deterministic", action="store_true", help=text)
    group.add_argument("--no-progress", action="store_true", help="no progress bar")
    if reuses_report:
        parser.set_defaults(seed=None)  # for any
    else:
        text = "names of the observation's coordinates, e.g. angle,velocity; default: the "
        text += "environment's obs_names, or what is known of MuJoCo, Box2D and classic control"
        group.add_argument("--obs-names", type=words, metavar="NAME,NAME", help=text)
    return parser


def add_episodes(group: Group, *, reuses_report: bool = False) -> None:
    """Add the option that says how many episodes an evaluation has."""
    if reuses_report:
        text = (
            f"episodes of each skill; default: as in the run's report, if it fits, or {N_EPISODES}"
        )
        group.add_argument("--episodes", type=positive, help=text)
    else:
        text = "episodes of each skill"
        group.add_argument("--episodes", type=positive, default=N_EPISODES, help=text)


def baseline_options() -> Parser:
    """Whether to compare with an untrained policy."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("how to measure")
    text = "also count the distinct skills of a policy that has learned nothing"
    action = argparse.BooleanOptionalAction
    group.add_argument("--baseline", action=action, default=True, help=text)
    return parser


def env_kwargs_options() -> Parser:
    """Arguments of a run's environment."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("which run")
    text = "further arguments of the environment, e.g. max_episode_steps:1000"
    add_pairs(group, "--env-kwargs", text)
    return parser


def film_options(seconds: float | None = FILM_SECONDS) -> Parser:
    """Where films end."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("films")
    text = "where a film ends, in seconds of the film"
    if seconds is None:
        text += f"; default: where its episode ends, or after {FILM_STEPS} steps"
    group.add_argument(
        "--film-seconds", type=positive_number, default=seconds, metavar="S", help=text
    )
    text = "the same in steps, in place of seconds"
    group.add_argument("--film-steps", type=positive, metavar="N", help=text)
    return parser


def output_options(metavar: str, default: str) -> Parser:
    """Where to write."""
    parser = Parser(add_help=False)
    group = parser.add_argument_group("output")
    text = f"where to write; default: {default}"
    group.add_argument("-o", "--output", metavar=metavar, help=text)
    return parser


def add_env(group: Group, text: str) -> None:
    """Add the options that say which environment."""
    group.add_argument("--env", help=text)
    add_gym_packages(group)


def add_gym_packages(group: Group) -> None:
    """Add the option that names packages, as the zoo's own commands have it."""
    text = "packages that register the environment; a run remembers them"
    kind: dict[str, Any] = {"nargs": "+", "default": [], "metavar": "PACKAGE"}
    group.add_argument("--gym-packages", help=text, **kind)


def add_pairs(group: Group, name: str, text: str) -> None:
    """Add an option that takes ``key:value`` pairs, as the zoo's own commands do."""
    kind: dict[str, Any] = {"type": pair, "nargs": "+", "action": CollectPairs}
    group.add_argument(name, metavar="KEY:VALUE", help=text, **kind)


# -- kinds of values ---------------------------------------------------------------------------


def number_or_word(text: str) -> float | str:
    """A number, or the word as it is."""
    try:
        return float(text)
    except ValueError:
        return text


def entropy_coefficient(text: str) -> float | str:
    """A number of at least 0; or ``auto``, with a first value such as ``auto_0.1``."""
    number = number_or_word(text.removeprefix("auto_"))
    if text != "auto" and (isinstance(number, str) or not 0 <= number < math.inf):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of at least 0 nor auto")
    return text if text.startswith("auto") else number


def positive(text: str) -> int:
    """A positive integer."""
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return int(text)


def jobs(text: str) -> int:
    """A positive integer, or -1 for as many as there are cores."""
    return -1 if text == "-1" else positive(text)


def seed(text: str) -> int:
    """An integer that seeds NumPy."""
    value = int(text) if text.isdecimal() else -1
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer from 0 to {2**32 - 1}")
    return value


def positive_or_auto(text: str) -> int | str:
    """A positive integer, or ``auto``."""
    return text if text == "auto" else positive(text)


def positive_number(text: str) -> float:
    """A positive number."""
    value = number_or_word(text)
    if isinstance(value, str) or not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return value


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
    """
    A value as YAML writes it. ``None`` is null, as for the zoo, ``1e-4`` is a number, and ``2:4`` a
    slice, not YAML's number to base 60.
    """
    value = None if text == "None" else yaml.safe_load(text)
    if isinstance(value, int | float) and ":" in text:
        return text
    return number_or_word(value) if isinstance(value, str) else value


class CollectPairs(argparse.Action):
    """Collects pairs in a dict, also when the option is repeated."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Same as argparse's."""
        known = getattr(namespace, self.dest) or {}
        setattr(namespace, self.dest, {**known, **dict(values)})
