"""
What each module is about, from the first sentences of the modules and the order of their imports.

    python -m docs.tables.modules  # write the tables into docs/pages/modules.md; Python 3.11 on
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import tomllib

from docs.tables import tables
from docs.tables.tables import table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pages" / "modules.md"
BEGIN = "<!-- table: python -m docs.tables.modules -->"
PACKAGES = (
    "sb3_diayn",
    "sb3_diayn.cli",
    "sb3_diayn.zoo",
    "sb3_diayn.downstream",
    "sb3_diayn.evaluation",
    "sb3_diayn.envs",
)


def subject(file: Path) -> str:
    """
    :param file: a module, or the folder of a package
    :return: the first sentence of its docstring, in Markdown
    """
    file = file / "__init__.py" if file.is_dir() else file
    words = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split())
    first = re.split(r"(?<=[.])\s", words)[0]
    return first.replace("``", "`").replace("|", "\\|")


def ordered(package: str) -> Iterator[Path]:
    """
    :param package: a package
    :return: its modules and packages, those that import before those that are imported where a
        contract of ``pyproject.toml`` says so
    """
    folder = ROOT / package.replace(".", "/")
    names = {path.stem for path in folder.iterdir() if subject_of_its_own(path)}
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = [
        line for each in contracts if package in each["containers"] for line in each["layers"]
    ]
    known = [name.strip() for line in layers for name in line.split("|")]
    for name in [*known, *sorted(names - set(known))]:
        path = folder / name
        yield path if path.is_dir() else path.with_suffix(".py")


def subject_of_its_own(path: Path) -> bool:
    """
    :param path: within a package
    :return: whether it is a module or a package, not a part of one
    """
    is_module = path.suffix == ".py" and not path.stem.startswith("__")
    return is_module or (path / "__init__.py").is_file()


def with_tables() -> str:
    """:return: the page as it has to be"""
    rows = {
        package: [
            [f"`{path.name}{'/' if path.is_dir() else ''}`", subject(path)]
            for path in ordered(package)
        ]
        for package in PACKAGES
    }
    found = [table(["module", "what it is about"], each) for each in rows.values()]
    return tables.with_tables(PAGE, BEGIN, found)


if __name__ == "__main__":
    PAGE.write_text(with_tables(), encoding="utf-8")
