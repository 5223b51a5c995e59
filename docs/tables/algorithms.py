"""
Which algorithms are supported, from the rows of ``tests/helpers/algorithms.py``.

    python -m docs.tables.algorithms  # write the table into docs/pages/algorithms.md
"""

from pathlib import Path

from docs.tables import tables
from docs.tables.tables import table
from tests.helpers.algorithms import GAPS, REFUSALS, ROWS

PAGE = Path(__file__).parents[1] / "pages" / "algorithms.md"
BEGIN = "<!-- table: python -m docs.tables.algorithms -->"


def supported() -> str:
    """:return: one row per combination that the tests run, in Markdown"""
    head = ["class", "actions", "options that are tested too", "remark"]
    rows = []
    for row in ROWS:
        variants = ", ".join(f"`{variant}`" for variant in row.variants) or "-"
        rows.append([f"`{row.path}`", f"`{row.actions}`", variants, row.remark])
    return table(head, rows)


def refused() -> str:
    """:return: one row per combination that is refused, in Markdown"""
    rows = [[f"{refusal.name} (`{refusal.path}`)", refusal.reason] for refusal in REFUSALS]
    return table(["not supported", "reason"], rows)


def gaps() -> str:
    """:return: one row per model that the library itself cannot make, in Markdown"""
    rows = [[f"`{gap.path}`", gap.observations, gap.instead] for gap in GAPS]
    return table(["class", "cannot read these observations", "use instead"], rows)


def with_tables() -> str:
    """:return: the page as it has to be"""
    return tables.with_tables(PAGE, BEGIN, [f"{supported()}\n\n{refused()}", gaps()])


if __name__ == "__main__":
    PAGE.write_text(with_tables(), encoding="utf-8")
