"""The public names, which are imported when they are first used."""

import ast
import importlib
import inspect
import subprocess
import sys

import pytest

import sb3_diayn

# Without what other tests have imported already.
SCRIPT = """
import pickle, sys
import gymnasium as gym
import sb3_diayn
assert {f"sb3_diayn/Point{name}-v0" for name in ("Box", "Hallway", "UMaze")} <= set(gym.registry)
wrapper = pickle.loads(b"csb3_diayn\\nDIAYNWrapper\\n.")
assert "sb3_diayn.callbacks" not in sys.modules
from sb3_diayn import *
assert DIAYNWrapper is wrapper is sb3_diayn.wrappers.DIAYNWrapper
assert all(name in globals() for name in sb3_diayn.__all__)
assert sb3_diayn.checks.__name__ == "sb3_diayn.checks"
"""


@pytest.mark.slow
def test_names_come_when_they_are_used():
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=120)


def typed_names():
    """What a type checker takes the public names for: their modules, by name."""
    for node in ast.walk(ast.parse(inspect.getsource(sb3_diayn))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return {name.name: each.module for each in node.body for name in each.names}
    raise LookupError("There is no block for type checkers.")


def test_type_checkers_and_python_see_the_same_names():
    typed = typed_names()
    assert sb3_diayn.__all__ == sorted(sb3_diayn.__all__)
    assert typed.keys() == {*sb3_diayn.__all__} - {"tasks"}
    for name, module in typed.items():
        assert getattr(sb3_diayn, name) is getattr(importlib.import_module(module), name)


def test_all_public_names_are_listed():
    assert {*sb3_diayn.__all__, "__version__"} <= set(dir(sb3_diayn))


def test_other_names_are_missing():
    with pytest.raises(AttributeError, match="module 'sb3_diayn' has no attribute 'DIAYNWraper'"):
        _ = sb3_diayn.DIAYNWraper
    with pytest.raises(ImportError, match="DIAYNWraper"):
        exec("from sb3_diayn import DIAYNWraper", {})


def test_the_page_of_modules_is_up_to_date():
    pytest.importorskip("tomllib")  # Python 3.11
    from docs.tables.modules import PACKAGES, PAGE, ordered, subject, with_tables

    assert PAGE.read_text(encoding="utf-8") == with_tables(), "run python -m docs.tables.modules"
    assert all(subject(file).endswith(".") for package in PACKAGES for file in ordered(package))
