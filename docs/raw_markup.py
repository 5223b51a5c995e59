"""
Markup that no reader shall see, in the pages of a built site.

    python -m docs.raw_markup site  # ends with 1 and names each place if there is any
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

SNIPPET = re.compile(r"--8&lt;--|--8<--")  # in code, too: a file that was not included
UNSEEN = ("code", "pre", "script", "style", "title")
RAW = re.compile(
    r"!!! |^\?\?\? |\.\. \w+::|:(?:attr|class|data|func|meth|mod|param|return|raises)\b[^:]*:"
    r"|``|\*\*\S|^\|.*\|$|\]\(\S",
    re.MULTILINE,
)


class _Text(HTMLParser):
    """The text of a page outside of code."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []
        self._depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._depth += tag in UNSEEN

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag in UNSEEN

    def handle_data(self, data: str) -> None:
        if not self._depth:
            self.text.append(data)


def raw_markup(html: str) -> list[str]:
    """
    :param html: a page
    :return: each line of its text that holds markup
    """
    parser = _Text()
    parser.feed(html)
    found = [line for line in "".join(parser.text).splitlines() if RAW.search(line)]
    return found + SNIPPET.findall(html)


def main(site: str) -> int:
    """
    :param site: folder of a built site
    :return: the exit code
    """
    pages = sorted(Path(site).rglob("*.html"))
    found = [
        f"{page}: {line.strip()}"
        for page in pages
        for line in raw_markup(page.read_text(encoding="utf-8"))
    ]
    print("\n".join(found) or f"No raw markup in {len(pages)} pages.")
    return 0 if pages and not found else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
