"""
The tutorial as a page, made of the notebook ``examples/tutorial.ipynb``.

    python -m docs.tables.tutorial  # write docs/pages/tutorial.md
"""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples" / "tutorial.ipynb"
PAGE = ROOT / "docs" / "pages" / "tutorial.md"
NOTE = (
    "This page is the notebook `examples/tutorial.ipynb`, without its results. The tests run it "
    "from top to bottom."
)


def as_page() -> str:
    """:return: the page as it has to be"""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    title, *others = [_as_markdown(cell) for cell in cells]
    heading, _, text = title.partition("\n\n")
    return "\n\n".join([heading, NOTE, text, *others]) + "\n"


def _as_markdown(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    lines = [line for line in source.splitlines() if not line.startswith("%")]
    return "\n".join(["```python", *lines, "```"])


if __name__ == "__main__":
    PAGE.write_text(as_page(), encoding="utf-8")
