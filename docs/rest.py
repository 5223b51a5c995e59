"""
The reST of the docstrings as Markdown, for mkdocstrings: roles become links, directives become
admonitions, and ``Example::`` before an indented block becomes a coloured one. Signatures show
the type of an ``Annotated`` alone.
"""

import re
import textwrap
from typing import Any

import griffe

# :class:`~sb3_diayn.wrappers.DIAYNWrapper`: the shown text is the last part where there is a tilde.
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?P<short>~?)(?P<name>[\w.]+)`", re.ASCII)
DIRECTIVE = re.compile(r"^(?P<indent> *)\.\. (?P<kind>note|warning)::", re.MULTILINE)
LITERAL = re.compile(
    r"^(?P<words>(?P<indent> *)\S.*)::\n\n(?P<block>(?:(?P=indent) {4}.*\n|\n)+)", re.MULTILINE
)
DOUBLE = re.compile(r"``(?!`)(.+?)``(?!`)")


def as_markdown(docstring: str) -> str:
    """
    :param docstring: with reST roles and directives
    :return: the same in Markdown
    """
    text = DOUBLE.sub(r"`\1`", docstring)
    text = ROLE.sub(_link, text)
    text = DIRECTIVE.sub(r"\g<indent>!!! \g<kind>", text)
    return LITERAL.sub(_fenced, text + "\n").rstrip()


def _link(role: re.Match[str]) -> str:
    """To the place of that name in the reference, if there is one."""
    name = role["name"]
    shown = name.rpartition(".")[2] if role["short"] else name
    return f'<autoref optional identifier="{name}"><code>{shown}</code></autoref>'


def _fenced(literal: re.Match[str]) -> str:
    block = textwrap.dedent(literal["block"]).strip("\n")
    language = "pycon" if block.startswith(">>>") else "python"
    fenced = f"```{language}\n{block}\n```"
    return f"{literal['words']}:\n\n{textwrap.indent(fenced, literal['indent'])}\n\n"


def _plain(annotation: Any) -> Any:
    """An ``Annotated[type, rules]`` without its rules, which are for the package itself."""
    if isinstance(annotation, griffe.ExprSubscript) and annotation.canonical_name == "Annotated":
        inner = annotation.slice
        return inner.elements[0] if isinstance(inner, griffe.ExprTuple) else inner
    return annotation


class RestDocstrings(griffe.Extension):
    """Runs when the package is read."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """
        :param obj: a module, class, function or attribute
        :param kwargs: the rest of what griffe knows
        """
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
        if isinstance(obj, griffe.Function):
            for parameter in obj.parameters:
                parameter.annotation = _plain(parameter.annotation)
