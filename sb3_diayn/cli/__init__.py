"""The command ``sb3-diayn``."""

import argparse
import shlex
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TypeAlias

import gymnasium as gym

from sb3_diayn import __version__
from sb3_diayn.cli import downstream, evaluation, options, sweep, training


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments, None for those of the process
    :return: exit code: 0 if all went well, 2 for a mistake of the caller, 130 after Ctrl-C
    """
    args = _parser().parse_args(argv)
    args.command = shlex.join(["sb3-diayn", *(sys.argv[1:] if argv is None else argv)])
    # The zoo saves all arguments of a run as YAML, where a function has no place.
    run_command = args.__dict__.pop("run_command")
    try:
        run_command(args)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, ImportError, gym.error.Error) as error:
        if getattr(args, "verbose", 0):  # where in the caller's own code it began
            traceback.print_exc()
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


# Name, options, body and one line of help of each command.
Command: TypeAlias = tuple[
    str, Callable[[options.Add], None], Callable[[argparse.Namespace], None], str
]


COMMANDS: list[Command] = [
    (
        "train",
        training.add_train_options,
        training.train_command,
        "Learn skills and save them as a run of the RL Zoo.",
    ),
    (
        "play",
        evaluation.add_play_options,
        evaluation.play,
        "Play skills and print the task return of each episode.",
    ),
    (
        "report",
        evaluation.add_report_options,
        evaluation.report,
        "Measure and film skills; write a page.",
    ),
    (
        "evaluate",
        evaluation.add_evaluate_options,
        evaluation.evaluate,
        "Measure skills; write the numbers.",
    ),
    (
        "plot",
        evaluation.add_plot_options,
        evaluation.plot,
        "Draw the figures of a run or of an evaluation.",
    ),
    (
        "record",
        evaluation.add_record_options,
        evaluation.record,
        "Film skills, one episode of each.",
    ),
    (
        "compare",
        evaluation.add_compare_options,
        evaluation.compare,
        "Put runs in one table, and one figure.",
    ),
    (
        "export",
        downstream.add_export_options,
        downstream.export,
        "Make plain models of skills.",
    ),
    (
        "finetune",
        downstream.add_finetune_options,
        downstream.finetune,
        "Learn the task from a skill.",
    ),
    (
        "imitate",
        downstream.add_imitate_options,
        downstream.imitate,
        "Name the skill like an expert.",
    ),
    (
        "sweep",
        sweep.add_sweep_options,
        sweep.run_sweep,
        "Learn a grid of settings and seeds.",
    ),
    (
        "tune",
        training.add_tune_options,
        training.tune_command,
        "Search for hyperparameters, judged by the skills.",
    ),
    (
        "config",
        training.add_config_options,
        training.config,
        "Print where the provided hyperparameters are.",
    ),
]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sb3-diayn", description="Learn skills without a reward function, and use them."
    )
    parser.add_argument("--version", action="version", version=f"sb3-diayn {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, add_options, run_command, text in COMMANDS:
        sub = subparsers.add_parser(
            name,
            help=text,
            description=text,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(run_command=run_command)
        add_options(sub.add_argument)
    return parser
