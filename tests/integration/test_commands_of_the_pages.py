"""The commands that the documentation names are there, and each benchmark says what it does."""

import importlib.util
import re
import runpy
import sys
from pathlib import Path

import pytest

from docs.run_commands import PLACEHOLDERS, SHORT, commands, shortened, why_left_out
from sb3_diayn.cli import make_parser

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs" / "pages").glob("*.md")),
]
FOLDERS = "docs|examples|sb3_diayn|tests|zoo_configs"
RUN = PLACEHOLDERS["RUN"]
HELPERS = {"__init__", "timing", "main_py"}  # no benchmarks
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_package_parses(page, capsys):
    pytest.importorskip("rl_zoo3")
    for words in commands(page.read_text(encoding="utf-8")):
        try:
            make_parser().parse_args(words)
        except SystemExit as error:  # of --help with 0
            assert error.code == 0, f"{words}: {capsys.readouterr().err}"


def test_commands_are_found_with_their_variables_and_without_comments():
    page = """
```bash
options="--seed 1 -n 5"
sb3-diayn train --env A $options \\
    --algo ppo  # a remark
MUJOCO_GL=egl sb3-diayn report RUN && sb3-diayn view RUN
```
`sb3-diayn play RUN --skill 3`, `sb3-diayn train`
"""
    assert commands(page) == [
        ["train", "--env", "A", "--seed", "1", "-n", "5", "--algo", "ppo"],
        ["report", "RUN"],
        ["view", "RUN"],
        ["play", "RUN", "--skill", "3"],
    ]


def test_a_command_is_cut_short_before_the_options_of_another_one():
    words = ["sweep", "--seeds", "5", "--", "--no-report"]
    assert shortened(words) == [*words[:3], *SHORT["sweep"].split(), *words[3:]]


def test_a_command_is_run_where_its_placeholders_are_known():
    assert shortened(["export", "RUN", "-o", "RUN/x"])[1:] == [RUN, "-o", f"{RUN}/x"]
    assert why_left_out(shortened(["export", "RUN"])) == ""
    assert why_left_out(["export", "FILE"]) == "has a placeholder"
    assert why_left_out(["view", RUN]) == "opens a window"


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # one uses another
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_says_what_it_does(name, monkeypatch, capsys):
    pytest.importorskip("seaborn")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__", alter_sys=True)
    assert caught.value.code == 0
    assert f"python -m tests.benchmarks.{name}" in capsys.readouterr().out
