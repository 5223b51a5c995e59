"""
Reads zips within bounds of memory and of processor time, each in a process of its own::

    python -m tests.helpers.bounded_load HONEST.zip HOSTILE.zip ...

Prints one line of JSON for each hostile file. What is imported late does not count: the honest one
is read first, and PyTorch's compiler is imported, which PyTorch does where images are read.
"""

import json
import os
import resource
import sys
from pathlib import Path

import torch._dynamo  # noqa: F401

from sb3_diayn import load_discriminator
from sb3_diayn.model_zip import load_state, training_history

MEGABYTES, SECONDS = 200, 5


def address_space() -> int:
    """:return: bytes that this process has mapped"""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def causes(error: BaseException | None) -> list[str]:
    """:return: the names of an error's class and of those that led to it"""
    return [] if error is None else [type(error).__name__, *causes(error.__cause__)]


def read(path: str) -> dict[str, object]:
    """:return: how reading ended: the errors' names, or none"""
    before = resource.getrusage(resource.RUSAGE_SELF)
    result: dict[str, object] = {"file": Path(path).stem, "error": "", "causes": []}
    for step in (load_discriminator, lambda path: training_history(load_state(path))):
        try:
            step(path)
        except BaseException as error:
            result["error"] = str(error)[:500]
            result["causes"] = [*result["causes"], *causes(error)]  # type: ignore[misc]
    after = resource.getrusage(resource.RUSAGE_SELF)
    result["MB"] = (after.ru_maxrss - before.ru_maxrss) // 1024
    result["seconds"] = round(after.ru_utime - before.ru_utime, 1)
    return result


def read_in_a_child(path: str) -> None:
    """Print how reading ended; of a process that was killed, by which signal."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (address_space() + MEGABYTES * 2**20,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        print(json.dumps(read(path)), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        print(json.dumps({"file": Path(path).stem, "error": f"status {status}", "causes": []}))


if __name__ == "__main__":
    honest, *hostile = sys.argv[1:]
    load_discriminator(honest)
    for path in hostile:
        read_in_a_child(path)
