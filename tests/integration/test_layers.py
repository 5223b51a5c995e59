import json
import subprocess
import sys

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

HEAVY = ["matplotlib.pyplot", "seaborn", "moviepy", "rl_zoo3", "pandas", "imageio", "scipy"]
TRAINING = ["torch", "stable_baselines3", "sb3_contrib", "tensorboard", "mujoco", "rich"]


def test_imports_go_strictly_downward():
    """The contracts are in ``pyproject.toml``."""
    assert lint_imports() == EXIT_STATUS_SUCCESS


def imported_by(*statements):
    """The modules that statements import in a process of their own."""
    script = "; ".join(["import json, sys", *statements, "print(json.dumps([*sys.modules]))"])
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(run.stdout.splitlines()[-1]))


@pytest.mark.slow
def test_the_public_names_import_nothing_heavy():
    before = imported_by("import stable_baselines3")
    after = imported_by("import stable_baselines3", "from sb3_diayn import *")
    assert "sb3_diayn.evaluation.dashboard" in after
    assert not (after - before).intersection(HEAVY)


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "import sb3_diayn",
        "import sb3_diayn.cli; sb3_diayn.cli.make_parser().format_help()",
        "import sb3_diayn.cli; sb3_diayn.cli.make_parser().parse_args(['play', 'RUN'])",
    ],
)
def test_help_does_not_wait_for_pytorch(statement):
    imported = imported_by(statement)
    assert "gymnasium" in imported  # to register the tasks
    assert not imported.intersection(HEAVY + TRAINING)
