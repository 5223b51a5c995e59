"""Running a command, and a sentence for each of its errors."""

import argparse
import io
import os
import sys
import traceback
from contextlib import suppress
from pkgutil import resolve_name

import gymnasium as gym

from sb3_diayn.files import brief
from sb3_diayn.zoo.failures import RunError, TerminatedError

# Errors that say what is wrong in a sentence for the caller.
SENTENCES = (RunError, ValueError, OSError, ImportError, gym.error.Error)


def run(args: argparse.Namespace) -> int:
    """
    :param args: options of a command
    :return: exit code: 0 if all went well, 1 if an environment or a training has failed, 2 for a
        mistake of the caller, 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP
    """
    # As ``python -m`` does, but last: packages and functions of one's own lie there.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # no character ends a command
            stream.reconfigure(errors="replace")
    try:
        resolve_name(args.body)(args)
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
    if isinstance(run, list):  # of compare
        run = " ".join(map(str, run))
    if isinstance(error, SENTENCES):
        sentence = str(error)
        # A value that is wrong can come from any file of the run.
        return sentence if run is None or str(run) in sentence else f"{sentence} (RUN={str(run)!r})"
    if run is None:
        return None
    return (
        f"RUN={run!r} cannot be used ({brief(error)}); expected files as they were written. Is one "
        "of them damaged? --verbose 1 shows where it failed."
    )
