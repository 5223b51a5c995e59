"""The commands that the documentation names are there, and each benchmark says what it does."""

import importlib.util
import re
import runpy
import shlex
import sys
from itertools import dropwhile
from pathlib import Path

import pytest

from sb3_diayn.cli import make_parser

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


def commands(page: str) -> list[list[str]]:
    """The words after each ``sb3-diayn`` of the blocks, and of the text where it has arguments."""
    found, variables = [], {}
    for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            if assignment := re.fullmatch(r'(\w+)="([^()]*)"', line.strip()):
                variables[assignment[1]] = assignment[2]
            line = re.sub(r"\$(\w+)", lambda name: variables.get(name[1], name[0]), line)
            found += [shlex.split(part, comments=True) for part in line.split("&&")]
    found += map(shlex.split, re.findall(r"`(sb3-diayn \w+ [^`.]+)`", page))
    return [words[1:] for words in map(_without_environment, found) if words[:1] == ["sb3-diayn"]]


def _without_environment(words: list[str]) -> list[str]:
    """``A=1 command`` as ``command``."""
    return list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")  # one uses another
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_says_what_it_does(name, monkeypatch, capsys):
    pytest.importorskip("seaborn")
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__", alter_sys=True)
    assert caught.value.code == 0
    assert f"python -m tests.benchmarks.{name}" in capsys.readouterr().out
