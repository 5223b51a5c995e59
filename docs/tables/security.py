"""
What each command runs as code, from the rows of ``tests/helpers/security.py``.

    python -m docs.tables.security  # write the table into docs/pages/security.md
"""

from pathlib import Path

from docs.tables import tables
from docs.tables.tables import table
from tests.helpers.security import MODEL, ROWS

PAGE = Path(__file__).parents[1] / "pages" / "security.md"
BEGIN = "<!-- table: python -m docs.tables.security -->"


def executed() -> str:
    """:return: one row per command, in Markdown"""
    head = ["`sb3-diayn` ...", "of a bare zip", "of a run's folder, or of a zip in one", "remark"]
    rows = [
        [f"`{row.words}`", _files(row.of_zip), _files(row.of_folder), row.remark] for row in ROWS
    ]
    return table(head, rows)


def _files(names: frozenset[str] | None) -> str:
    if names is None:
        return "refused"
    words = [name if name == MODEL else f"`{name}`" for name in sorted(names)]
    return ", ".join(reversed(words)) or "**nothing**"


def with_tables() -> str:
    """:return: the page as it has to be"""
    return tables.with_tables(PAGE, BEGIN, [executed()])


if __name__ == "__main__":
    PAGE.write_text(with_tables(), encoding="utf-8")
