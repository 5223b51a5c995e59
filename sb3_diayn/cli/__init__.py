"""The command ``sb3-diayn``."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pkgutil import resolve_name

from sb3_diayn.cli.commands import make_parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: arguments, None for the arguments of the process
    :return: exit code, see :func:`~sb3_diayn.cli.running.run`
    """
    words = sys.argv[1:] if argv is None else argv
    command = shlex.join(["sb3-diayn", *words])
    args = make_parser().parse_args(words, argparse.Namespace(command=command))
    try:
        # By name, since importing it takes seconds, see sb3_diayn.cli.commands.
        return int(resolve_name("sb3_diayn.cli.running:run")(args))
    except KeyboardInterrupt:  # within those seconds
        print("Interrupted.", file=sys.stderr)
        return 130
