"""
In which order wrappers work, from the rows of ``tests/helpers/orders.py``.

    python -m docs.tables.wrappers  # write the tables into docs/pages/wrappers.md
"""

from pathlib import Path

from docs.tables import tables
from docs.tables.tables import table
from tests.helpers.orders import REFUSED, WORKS

PAGE = Path(__file__).parents[1] / "pages" / "wrappers.md"
BEGIN = "<!-- table: python -m docs.tables.wrappers -->"


def with_tables() -> str:
    """:return: the page as it has to be"""
    works = [[order, remark] for order, (_, remark) in WORKS.items()]
    refused = [[order, remedy] for order, (_, _, remedy) in REFUSED.items()]
    each = [table(["works", "meaning"], works), table(["refused", "right"], refused)]
    return tables.with_tables(PAGE, BEGIN, each)


if __name__ == "__main__":
    PAGE.write_text(with_tables(), encoding="utf-8")
