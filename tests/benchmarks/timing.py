"""The command line of a benchmark, side-by-side timing, and a table of the result."""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import stable_baselines3
import torch as th


def command_line() -> argparse.ArgumentParser:
    """:return: a parser whose help is the docstring of the benchmark"""
    return argparse.ArgumentParser(
        description=sys.modules["__main__"].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def turns(
    functions: dict[Hashable, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Any, list[float]]:
    """
    Call all functions in turn, so that noise of the machine meets all of them.

    :param functions: by name
    :param rounds: how often, after one round that does not count
    :param clock: ``time.process_time`` for what has one thread, where the machine is shared
    :return: seconds of each, one number for each round
    """
    times: dict[Any, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            start = clock()
            function()
            times[name].append(clock() - start)
    return {name: values[1:] for name, values in times.items()}


def interleave(
    functions: dict[Hashable, Callable[[], Any]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Any, float]:
    """
    The same as :func:`turns`.

    :return: median seconds of each
    """
    times = turns(functions, rounds, clock)
    return {name: statistics.median(values) for name, values in times.items()}


def ratio(name: str, above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """
    :param name: of the ratio
    :param above: numbers of each round
    :param below: numbers of the same rounds, to divide by
    :return: the median of their ratios and its spread, by names to print
    """
    quantiles = np.quantile(np.divide(above, below), [0.5, 0.1, 0.9])
    names = (name, f"{name}, 10 %", f"{name}, 90 %")
    return dict(zip(names, quantiles.tolist(), strict=True))


def report(name: str, measure: Callable[[], Sequence[dict[str, Any]]]) -> None:
    """
    Measure, print a table, and write it with the versions to ``benchmark_<name>.json`` or to the
    file that the first argument of the command names.

    :param name: of the benchmark
    :param measure: returns a dict with the same keys for each row
    """
    parser = command_line()
    default = f"benchmark_{name}.json"
    parser.add_argument("output", nargs="?", default=default, help=f"file; default: {default}")
    path = Path(parser.parse_known_args()[0].output)
    rows = list(measure())
    versions = {
        "python": platform.python_version(),
        "torch": th.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "torch threads": th.get_num_threads(),
    }
    table = {key: [_cell(row[key]) for row in rows] for key in rows[0]}
    widths = [max(12, *map(len, column)) for column in zip(*table.values(), strict=True)]
    for key, cells in table.items():
        print(f"{key:38s}" + " ".join(map(str.rjust, cells, widths)))
    print(", ".join(f"{key} {value}" for key, value in versions.items()))
    path.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1))


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
