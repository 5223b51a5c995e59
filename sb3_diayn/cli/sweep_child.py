"""What a sweep starts for each of its runs: ``sb3-diayn train``, for as long as the sweep lives."""

import os
import signal
import sys
import threading

from sb3_diayn.cli import main


def _end_with_parent() -> None:
    """The parent holds the other end of the pipe, which closes however the parent ends."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    # Ctrl-C is for the parent to answer: the zoo would save half a training like a whole one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The zoo writes down how the process was called; this is the command that repeats the run.
    sys.orig_argv = ["sb3-diayn", *sys.argv[1:]]
    sys.exit(main())
