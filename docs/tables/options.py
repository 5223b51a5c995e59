"""
The options of ``DIAYNCallback`` and of the wrappers, from their signatures and docstrings.

    python -m docs.tables.options  # write the tables into docs/pages/options.md
"""

import inspect
import re
from pathlib import Path

from docs.tables import tables
from docs.tables.tables import table
from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.arguments import architecture, rules

PAGE = Path(__file__).parents[1] / "pages" / "options.md"
BEGIN = "<!-- table: python -m docs.tables.options -->"
REFERENCE = re.compile(r":(?:class|meth|func):`~?(?:[\w.]*\.)?(\w+)`")


def meanings(cls: type) -> dict[str, str]:
    """:return: what the docstring of a class says of each parameter, in Markdown"""
    text = inspect.getdoc(cls) or ""
    found = re.findall(r"^:param (\w+): (.*?)(?=^:|\Z)", text, re.DOTALL | re.MULTILINE)
    return {name: _markdown(words) for name, words in found}


def _markdown(words: str) -> str:
    one_line = " ".join(words.split()).replace("|", r"\|")
    return REFERENCE.sub(r"`\1`", one_line).replace("``", "`")


def options(cls: type, names: list[str]) -> str:
    """:return: a row for each parameter of a class, in Markdown"""
    parameters, words, fixed = inspect.signature(cls).parameters, rules(cls), architecture(cls)
    text = meanings(cls)
    rows = []
    for name in names:
        rule = words[name].words if name in words else "see the text"
        marked = f"`{name}` *" if name in fixed else f"`{name}`"
        rows.append([marked, f"`{parameters[name].default!r}`", rule, text[name]])
    return table(["option", "default", "allowed", "meaning"], rows)


def with_tables() -> str:
    """:return: the page as it has to be"""
    of_callback = [name for name in inspect.signature(DIAYNCallback).parameters]
    of_wrapper = [name for name in inspect.signature(DIAYNWrapper).parameters if name != "env"]
    each = [options(DIAYNCallback, of_callback), options(DIAYNWrapper, of_wrapper)]
    return tables.with_tables(PAGE, BEGIN, each)


if __name__ == "__main__":
    PAGE.write_text(with_tables(), encoding="utf-8")
