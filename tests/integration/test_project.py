"""What the files of the project say about each other."""

import re
from pathlib import Path

import yaml

from sb3_diayn import __version__

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")


def test_the_newest_release_is_the_version():
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, date = re.search(r"^## (\d\S*) - (\S+)$", changelog, re.MULTILINE).groups()
    assert version == __version__ == CITATION["version"]
    assert date == CITATION["date-released"]


def test_the_repository_has_one_address():
    assert f'Repository = "{CITATION["repository-code"]}"' in PYPROJECT


def test_the_workflow_runs_the_matrix_of_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    commands = re.findall(r"`(pip install [^`]+)`", text.partition("## Versions")[2])
    assert commands and all(command in WORKFLOW for command in commands)
    classifiers = set(re.findall(r"Python :: (3\.\d+)", PYPROJECT))
    assert set(re.findall(r'"(3\.\d+)"', WORKFLOW)) == classifiers


def test_the_wheel_has_the_models_that_it_names():
    folders = re.findall(r'^"(zoo_configs/results/\S+)" = ', PYPROJECT, re.MULTILINE)
    assert len(folders) == 2
    assert all(list((ROOT / folder).glob("*.zip")) for folder in folders)
