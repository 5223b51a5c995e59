"""What the documentation is built with."""

import pytest

from docs.raw_markup import main, raw_markup


@pytest.mark.parametrize(
    "html",
    [
        "<p>!!! warning</p>",
        "<p>.. note:: twice</p>",
        "<p>see :class:<code>~a.B</code></p>",
        "<p>see :meth:`a.b`</p>",
        "<p>``name``</p>",
        "<p>:param x: a number</p>",
        "<p>[a link](page.md)</p>",
        '<pre><code>--8&lt;-- "examples/quickstart.py"</code></pre>',
    ],
)
def test_raw_markup_is_found(html):
    assert raw_markup(f"<html><title>``x``</title><body>{html}</body></html>")


@pytest.mark.parametrize(
    "html", ["<p>log q: a number</p>", "<pre>!!! note</pre>", "<p><code>:class:`A`</code></p>"]
)
def test_text_and_code_are_left_alone(html):
    assert raw_markup(html) == []


def test_the_script_fails_where_there_is_markup_or_nothing(tmp_path, capsys):
    assert main(str(tmp_path)) == 1
    (tmp_path / "index.html").write_text("<p>words</p>")
    assert main(str(tmp_path)) == 0
    (tmp_path / "page.html").write_text("<p>.. warning::</p>")
    assert main(str(tmp_path)) == 1
    assert "page.html" in capsys.readouterr().out


def test_docstrings_become_markdown():
    as_markdown = pytest.importorskip("docs.rest").as_markdown  # of the extra docs
    assert as_markdown("a ``name``") == "a `name`"
    assert as_markdown(".. note::\n    words") == "!!! note\n    words"
    assert '"a.B"><code>B</code>' in as_markdown("see :class:`~a.B`")
    assert as_markdown("Example::\n\n    >>> 1\n    1\n\nend") == (
        "Example:\n\n```pycon\n>>> 1\n1\n```\n\nend"
    )
