"""
Processor time until the package is imported, and until ``sb3-diayn`` has answered.

    python -m tests.benchmarks.startup

Each row is a process of its own. All take turns with ``import stable_baselines3``, to which the
ratios refer. What was compiled in an earlier run is on the disk, as usual.
"""

import resource
import statistics
import subprocess
import sys
from typing import Any

from tests.benchmarks.timing import ratio, report

ROUNDS = 15
SB3 = "import stable_baselines3"
CASES = {
    "Python alone": ["-c", "pass"],
    "import gymnasium": ["-c", "import gymnasium"],
    SB3: ["-c", SB3],
    "import sb3_diayn": ["-c", "import sb3_diayn"],
    "wrapper, callback": ["-c", "from sb3_diayn import DIAYNCallback, DIAYNWrapper"],
    "all public names": ["-c", "from sb3_diayn import *"],
    "--help": ["-m", "sb3_diayn", "--help"],
    "train --help": ["-m", "sb3_diayn", "train", "--help"],
    "a mistyped command": ["-m", "sb3_diayn", "trian"],
    "completion": ["-m", "sb3_diayn", "--print-completion", "bash"],
}


def seconds(arguments: list[str]) -> float:
    """:return: processor time of a Python process with these arguments"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def measure() -> list[dict[str, Any]]:
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for _ in range(ROUNDS + 1):
        for name, arguments in CASES.items():
            times[name].append(seconds(arguments))
    times = {name: values[1:] for name, values in times.items()}
    return [
        {
            "case": name,
            "s": statistics.median(values),
            "s beyond SB3": statistics.median(
                a - b for a, b in zip(values, times[SB3], strict=True)
            ),
            **ratio("ratio to SB3", values, times[SB3]),
        }
        for name, values in times.items()
    ]


if __name__ == "__main__":
    report("startup", measure)
