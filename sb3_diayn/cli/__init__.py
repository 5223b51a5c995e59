"""The command ``sb3-diayn``."""

import argparse
import shlex
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import gymnasium as gym
import shtab

from sb3_diayn.cli import downstream, evaluation, sharing, sweep, training
from sb3_diayn.cli.options import Parser
from sb3_diayn.files import brief
from sb3_diayn.zoo.failures import RunError, TerminatedError
from sb3_diayn.zoo.runs import VERSION

# Errors that say what is wrong in a sentence for the caller.
SENTENCES = (RunError, ValueError, OSError, ImportError, gym.error.Error)


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments, None for the arguments of the process
    :return: exit code: 0 if all went well, 1 if an environment or a training has failed, 2 for a
        mistake of the caller, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP
    """
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["sb3-diayn", *words])
    args = make_parser().parse_args(words, argparse.Namespace(command=command))
    try:
        args.body(args)
    except TerminatedError as error:
        with suppress(OSError):  # the terminal may be gone
            print(f"Terminated by {error}.", file=sys.stderr)
        return 128 + error.number
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = in_a_sentence(error, args)
        if sentence is None:
            raise
        if getattr(args, "verbose", 0):  # to show where in the caller's own code it began
            traceback.print_exc()
        print(f"error: {sentence}", file=sys.stderr)
        return 1 if isinstance(error, RunError) else 2
    return 0


def in_a_sentence(error: Exception, args: argparse.Namespace) -> str | None:
    """
    :param error: that ended a command
    :param args: options of the command
    :return: what is wrong, for the caller; None if nothing of the caller's can be
    """
    run = getattr(args, "run", None) or getattr(args, "resume", None)
    if isinstance(error, SENTENCES):
        sentence = str(error)
        # A value that is wrong can come from any file of the run.
        return sentence if run is None or str(run) in sentence else f"{sentence} (RUN={run!r})"
    if run is None:
        return None
    return (
        f"RUN={run!r} cannot be used ({brief(error)}); expected files as they were written. Is one "
        "of them damaged? --verbose 1 shows where it failed."
    )


def make_parser() -> argparse.ArgumentParser:
    """:return: the parser of all commands"""
    parser = Parser(
        "sb3-diayn",
        description="Learn skills without a reward function, and use them.",
        epilog="example: sb3-diayn train --env MountainCarContinuous-v0 --seed 1",
    )
    parser.add_argument("--version", action="version", version=f"sb3-diayn {VERSION}")
    shtab.add_argument_to(parser, help="print what completes commands in this shell, and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        training.add_train,
        evaluation.add_play,
        evaluation.add_view,
        evaluation.add_report,
        evaluation.add_evaluate,
        evaluation.add_plot,
        evaluation.add_record,
        evaluation.add_compare,
        sharing.add_push,
        downstream.add_export,
        downstream.add_finetune,
        downstream.add_imitate,
        sweep.add_sweep,
        training.add_tune,
        training.add_config,
    ):
        add(commands)
    return parser
