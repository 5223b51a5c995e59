import json
import subprocess
import sys

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

HEAVY = ["matplotlib.pyplot", "seaborn", "moviepy", "rl_zoo3", "pandas", "imageio", "scipy"]


def test_imports_go_strictly_downward():
    """The contracts are in ``pyproject.toml``."""
    assert lint_imports() == EXIT_STATUS_SUCCESS


@pytest.mark.slow
def test_the_package_imports_nothing_heavy():
    script = f"""
import json, sys
import stable_baselines3
before = set(sys.modules)
import sb3_diayn
print(json.dumps([name for name in {HEAVY} if name in set(sys.modules) - before]))
"""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert json.loads(run.stdout) == []
