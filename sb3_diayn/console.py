"""What the commands print."""

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sb3_diayn.diagnosis import diagnose
from sb3_diayn.report import number
from sb3_diayn.results import SkillEvaluation

if TYPE_CHECKING:
    import pandas as pd


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


def print_verdicts(evaluation: SkillEvaluation) -> None:
    """:param evaluation: to judge"""
    for diagnosis in diagnose(evaluation):
        print(f"{diagnosis.severity}: {diagnosis.message} {diagnosis.advice}")


def print_frame(frame: "pd.DataFrame", title: str) -> None:
    """
    :param frame: to print, without its index
    :param title: above it
    """
    table = Table(title=title, box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in frame.columns:
        is_text = frame[column].dtype == object
        justify: Any = "left" if is_text else "right"
        heading = str(column).replace("_", " ")
        width = 12 if is_text else len(heading)
        table.add_column(heading, justify=justify, overflow="fold", min_width=width)
    for row in frame.itertuples(index=False):
        table.add_row(*(number(cell) if isinstance(cell, float) else str(cell) for cell in row))
    Console().print(table)
