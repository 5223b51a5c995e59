"""Tables in Markdown, and the pages that hold them between two marks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

END = "<!-- end of the table -->"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """
    :param head: names of the columns
    :param rows: what :func:`text` can show
    :return: the table in Markdown
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(text, line)) + " |" for line in lines)


def text(value: Any) -> str:
    """
    :param value: words, a whole number, or a real one, of which NaN or None is what there is not
    :return: three digits of a real number, as many as there are before its point if those are more
    """
    if value is None or value != value:
        return "-"
    if not isinstance(value, float):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def interval_text(ends: dict[str, float]) -> str:
    """
    :param ends: ``mean``, ``low`` and ``high``
    :return: all three
    """
    return f"{text(ends['mean'])} ({text(ends['low'])} to {text(ends['high'])})"


def with_tables(page: Path, begin: str, tables: Iterable[str]) -> str:
    """
    :param page: a page with tables between the marks ``begin`` and ``END``
    :param begin: the first of the marks
    :param tables: what is to stand there, at least as many as there are marks
    :return: the page as it has to be
    """
    before, *parts = page.read_text(encoding="utf-8").split(begin)
    for part, each in zip(parts, tables, strict=False):
        before += f"{begin}\n\n{each}\n\n{END}{part.split(END)[1]}"
    return before
