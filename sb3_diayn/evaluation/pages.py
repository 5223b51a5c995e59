"""Pages from templates: reports, comparisons and the page of a training that runs."""

import math
import re
from collections.abc import Mapping
from typing import Any

from sb3_diayn.files import require_extra

__all__ = ["number", "render", "without_folders"]

# A path from the root: a drive or nothing, then folders. Not the slashes of a URL or of a tag.
FOLDERS = re.compile(r"(?<![\w.:/\\~<])(?:[A-Za-z]:)?[/\\](?:[\w.@+%~-]+[/\\])*(?=[\w.@+%~-])")


def without_folders(text: str) -> str:
    """
    :param text: any text
    :return: it with the last part of each absolute path alone, since readers elsewhere have no such
        folders
    """
    return FOLDERS.sub("", text)


def number(value: float) -> str:
    """
    :param value: any number
    :return: it, with three significant digits
    """
    if not math.isfinite(value):
        return "n/a"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}") if "e" not in text else text


def render(template: str, context: Mapping[str, Any]) -> str:
    """
    Names of a run can hold anything, so each value is escaped, in HTML and in Markdown.

    :param template: name of a template of this package
    :param context: its variables, by name
    :return: the text
    :raises ImportError: if the extra ``report`` is missing
    """
    with require_extra("report"):
        from jinja2 import Environment, PackageLoader, StrictUndefined

    is_html = template.endswith(".html")
    env = Environment(
        loader=PackageLoader("sb3_diayn.evaluation"),
        autoescape=is_html,
        finalize=None if is_html else _escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"number": number, "log": math.log}
    env.filters |= {"pairs": _pairs, "code": _code_block}
    return env.get_template(template).render(context)


def _pairs(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in values.items())


def _escape_markdown(value: Any) -> str:
    """A value as text in one line, in which no Markdown and no HTML means anything."""
    if hasattr(value, "__html__"):  # it is marked as safe
        return str(value)
    text = " ".join(_printable(str(value)).split())
    text = re.sub(r"[\\`*\[\]]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)
    # HTML's own way of writing letters is understood by each renderer. The last three make links.
    return re.sub(r"[<>&|~$#{}]|@|:(?=//)|(?<=www)\.", lambda found: f"&#{ord(found[0])};", text)


def _code_block(text: str, language: str) -> Any:
    """
    A block of code. Where the text could end a fence or is more than text to renderers without
    fences, the block is indented: nothing ends that but a line that is not.
    """
    from markupsafe import Markup

    lines = [_printable(line) for line in text.strip("\n").splitlines()]
    if set("<&`~[") & set(text):
        return Markup("\n".join(f"    {line}" for line in lines))
    return Markup("\n".join([f"```{language}", *lines, "```"]))


def _printable(text: str) -> str:
    """Without control characters, which some renderers use themselves."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
