"""The command ``sb3-diayn``."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import yaml
from rich.console import Console
from rich.table import Table

from sb3_diayn import __version__
from sb3_diayn.evaluation import evaluate_skills
from sb3_diayn.results import SkillEvaluation
from sb3_diayn.skills import check_skill
from sb3_diayn.trajectories import play_skills
from sb3_diayn.zoo import config_path, find_run, train

MAX_ENVS = 10


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments, None for those of the process
    :return: exit code: 0 if all went well, 2 for a mistake of the caller, 130 after Ctrl-C
    """
    args = _parser().parse_args(argv)
    # The zoo saves all arguments of a run as YAML, where a function has no place.
    run_command = args.__dict__.pop("run_command")
    try:
        run_command(args)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, gym.error.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _train(args: argparse.Namespace) -> None:
    folder = train(args)
    run = find_run(folder)
    env = run.make_env(min(run.n_skills, MAX_ENVS), seed=args.seed)
    evaluation = evaluate_skills(
        run.load_model(device=args.device), env, n_episodes=1, progress_bar=not args.no_progress
    )
    env.close()
    print_table(evaluation)
    print(f"Run saved in {folder}\nPlay it:      sb3-diayn play {folder}")


def print_table(evaluation: SkillEvaluation) -> None:
    """:param evaluation: whose skills to print, best task return first"""
    table = Table(title="Skills, played deterministically")
    columns = {
        "skill": "skill",
        "task_return": "task return",
        "length": "steps",
        "accuracy": "recognised",
        "log_q": "log q(z|s')",
    }
    for heading in columns.values():
        table.add_column(heading, justify="right")
    values = evaluation.table()
    for row in (-values["task_return"]).argsort(kind="stable"):
        cells = [values[name][row] for name in columns]
        table.add_row(
            f"{cells[0]}",
            f"{cells[1]:.1f}",
            f"{cells[2]:.0f}",
            f"{cells[3]:.0%}",
            f"{cells[4]:.2f}",
        )
    Console().print(table)


def _play(args: argparse.Namespace) -> None:
    run = find_run(args.run, args.env)
    if args.skill == "all":
        skills = list(range(run.n_skills))
    else:
        skills = [check_skill(_integer(args.skill), run.n_skills)]
    env = run.make_env(1, seed=args.seed, render_mode=args.render)
    model = run.load_model(device=args.device)
    episodes = play_skills(
        model,
        env,
        [skill for skill in skills for _ in range(args.episodes)],
        deterministic=not args.stochastic,
        seed=args.seed,
    )
    for episode in episodes:
        task_return = episode.task_rewards.sum()
        print(f"skill {episode.skill:3d}   task return {task_return:9.2f}   {len(episode)} steps")
    env.close()


def _integer(text: str) -> int | str:
    return int(text) if text.lstrip("-").isdigit() else text


def _config(args: argparse.Namespace) -> None:
    print(config_path(args.algo))


def _pair(text: str) -> tuple[str, Any]:
    key, separator, value = text.partition(":")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form key:value")
    return key, yaml.safe_load(value)


class _Pairs(argparse.Action):
    """Collects ``key:value`` arguments in a dict."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, dict(values))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sb3-diayn", description="Learn skills without a reward function, and use them."
    )
    parser.add_argument("--version", action="version", version=f"sb3-diayn {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], None], text: str) -> Any:
        sub = commands.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run_command=run)
        return sub.add_argument

    _add_train(command("train", _train, "Learn skills and save them as a run of the RL Zoo."))
    _add_play(command("play", _play, "Play skills and print the task return of each episode."))
    add = command("config", _config, "Print where the provided hyperparameters are.")
    add("algo", nargs="?", default="sac", help="algorithm")
    return parser


def _add_train(add: Any) -> None:
    add("--env", required=True, help="environment id")
    add("--algo", default="sac", help="algorithm, as the zoo spells it")
    add("--n-skills", type=int, help="number of skills; default: the configuration's")
    add("-n", "--total-timesteps", type=int, default=-1, help="steps; -1: the configuration's")
    add("--seed", type=int, help="seed of everything; default: a random one, printed")
    add("--n-envs", type=int, help="parallel environments; default: the configuration's")
    add("--buffer-size", type=int, help="replay buffer; default: the configuration's")
    add("--reward-scale", type=float, help="factor of the reward; default: the configuration's")
    add("--ent-coef", type=_number_or_word, help="entropy coefficient, a number or auto")
    add("-f", "--log-folder", default="logs", help="where runs are saved")
    add("--save-freq", type=int, default=-1, help="steps between checkpoints; -1: none")
    add("--save-replay-buffer", action="store_true", help="save the replay buffer at the end")
    add("--log-interval", type=int, default=-1, help="episodes between log lines; -1: SB3's")
    add("--eval-freq", type=int, default=-1, help="steps between zoo evaluations; -1: none")
    add("-i", "--resume", metavar="RUN", help="go on with this run, in a new folder")
    add("--device", default="auto", help="PyTorch device")
    add("-tb", "--tensorboard-log", default="", metavar="DIR", help="TensorBoard folder")
    add("--conf-file", metavar="YML", help="hyperparameters; default: the provided ones")
    add("--vec-env", choices=["dummy", "subproc"], default="dummy", help="type of VecEnv")
    pair = {"type": _pair, "nargs": "+", "action": _Pairs, "metavar": "KEY:VALUE"}
    add("--hyperparams", **pair, help="override hyperparameters, e.g. learning_rate:0.001")
    add("--env-kwargs", **pair, help="arguments of the environment")
    add("--no-progress", action="store_true", help="no progress bar")
    add("--verbose", type=int, default=0, help="1: the zoo's and SB3's messages")


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _add_run(add: Any) -> None:
    add("run", metavar="RUN", help="a run's folder, e.g. logs/sac/Hopper-v5_1, or a model's zip")
    add("--env", help="environment id; needed for a zip outside of a run's folder")
    add("--seed", type=int, default=0, help="seed of the environments")
    add("--device", default="auto", help="PyTorch device")


def _add_play(add: Any) -> None:
    _add_run(add)
    add("--skill", default="all", help="index of a skill, or all")
    add("--episodes", type=int, default=1, help="episodes of each skill")
    add("--render", choices=["human", "rgb_array"], help="show a window, or render off screen")
    add("--stochastic", action="store_true", help="sample actions instead of taking the mode")


if __name__ == "__main__":
    sys.exit(main())
