"""Examples run, and the README shows them as they are."""

import re
import runpy
from pathlib import Path

import pytest

from tests.integration import typed_example

ROOT = Path(__file__).parents[2]
EXAMPLES = [
    pytest.param(path, marks=[pytest.mark.sbx] if path.stem.startswith("sbx") else [], id=path.stem)
    for path in sorted((ROOT / "examples").glob("*.py"))
]


def test_readme_shows_two_examples_verbatim():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert (ROOT / "examples" / "quickstart.py").read_text() == blocks[0]
    _, many_environments = (ROOT / "examples" / "many_environments.py").read_text().split("\n\n", 1)
    assert many_environments == blocks[1]


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 900


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")  # SB3's own progress bar
@pytest.mark.parametrize("path", EXAMPLES)
def test_example_runs_and_prints_a_result(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shrunk = re.sub(r"\b\d{1,3}_\d{3}\b", "200", path.read_text())  # steps, checkpoints
    assert shrunk != path.read_text()
    copy = tmp_path / path.name
    copy.write_text(shrunk.replace('"zoo_configs/', f'"{ROOT.as_posix()}/zoo_configs/'))
    runpy.run_path(str(copy), run_name="__main__")
    assert [*tmp_path.rglob("*.zip"), *tmp_path.rglob("*.mp4")]
    # A bar with percents comes from SB3 and is no result.
    printed = [line for line in capsys.readouterr().out.splitlines() if "it/s" not in line]
    assert any(line.strip() for line in printed)


@pytest.mark.slow
def test_the_typed_example_runs(tmp_path):
    model = typed_example.learn(tmp_path, 60)
    assert typed_example.look(tmp_path, model) < 0
