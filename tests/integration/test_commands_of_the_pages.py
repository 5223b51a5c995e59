"""The commands that the documentation names are there, and each benchmark says what it does."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs" / "pages").glob("*.md")),
]
FOLDERS = "docs|examples|sb3_diayn|tests|zoo_configs"
HELPERS = {"__init__", "timing"}  # no benchmarks
BENCHMARKS = [
    pytest.param(path.stem, marks=[pytest.mark.sbx] if path.stem == "sbx" else [])
    for path in sorted((ROOT / "tests" / "benchmarks").glob("*.py"))
    if path.stem not in HELPERS
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_modules_and_files_are_there(page):
    text = page.read_text(encoding="utf-8")
    modules = re.findall(rf"python -m ((?:{FOLDERS})[\w.]*)", text)
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    files = re.findall(rf"(?:pytest|python) (?:-\S+ \w+ )*((?:{FOLDERS})/[\w/.]+\.py)", text)
    assert [name for name in files if not (ROOT / name).is_file()] == []


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # one uses another
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_says_what_it_does(name, monkeypatch, capsys):
    pytest.importorskip("seaborn")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__", alter_sys=True)
    assert caught.value.code == 0
    assert f"python -m tests.benchmarks.{name}" in capsys.readouterr().out
