"""What a training through the zoo prints before it begins."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pprint import pprint
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sb3_diayn.zoo.hyperparams import CLASS_KEYS, class_entries

# They are in the title, or in the names of the classes' arguments.
LEFT_OUT = ("n_timesteps", *CLASS_KEYS)


@contextmanager
def quiet_zoo() -> Iterator[None]:
    """
    Within the block, the zoo's experiment manager prints nothing. It has no option for that:
    whatever its verbosity, it shows hyperparameters as an ``OrderedDict`` and the temporary file
    that they come from. Only this module loses its ``print``, so environments can still be heard.
    """
    from rl_zoo3 import exp_manager

    exp_manager.print = exp_manager.pprint = _say_nothing
    try:
        yield
    finally:
        vars(exp_manager).pop("print", None)  # so that it is the builtin one again
        exp_manager.pprint = pprint


def _say_nothing(*args: object, **kwargs: object) -> None:
    pass


def print_hyperparams(title: str, hyperparams: Mapping[str, Any]) -> None:
    """
    :param title: of the table
    :param hyperparams: in the zoo's format
    """
    table = Table(title=Text(title), title_justify="left", show_header=False, box=None)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in flatten(hyperparams).items():
        table.add_row(name, Text(str(value)))  # not markup, which has brackets too
    Console().print(table)


def flatten(hyperparams: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param hyperparams: in the zoo's format
    :return: values by the names that ``--hyperparams`` takes, for example
        ``DIAYNCallback.net_arch``; a class without arguments has an empty text
    """
    flat = {name: value for name, value in sorted(hyperparams.items()) if name not in LEFT_OUT}
    for key in CLASS_KEYS:
        for path, arguments in class_entries(hyperparams, key):
            name = path.rpartition(".")[2]
            rows = {f"{name}.{argument}": value for argument, value in arguments.items()}
            flat |= rows or {name: ""}
    return flat
