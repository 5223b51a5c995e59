import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import sb3_diayn

PACKAGE = Path(sb3_diayn.__file__).parent
MODULES = sorted(path for path in PACKAGE.glob("**/*.py"))
# From the lowest level to the highest: a module imports from lower ones only.
LEVELS = {
    name: level
    for level, names in enumerate(
        [
            ["indices", "observations"],
            [
                "arguments",
                "arrays",
                "episodes",
                "extraction",
                "finite",
                "gating",
                "gym_vec_env",
                "locomotion",
                "metrics",
                "navigation",
                "nesting",
                "options",
                "presets",
                "returns",
                "saving",
                "skills",
                "tasks",
                "training_state",
                "warmup",
            ],
            ["discriminator", "drawing", "folders", "states"],
            ["rewards"],
            ["buffers", "checkpoint", "folding", "importance", "results", "rollouts", "wrappers"],
            ["vec_wrapper"],
            [
                "attachment",
                "compatibility",
                "composition",
                "guards",
                "provenance",
                "resuming",
                "retrieval",
                "runs",
                "seam",
                "trainer",
                "trajectories",
            ],
            [
                "callbacks",
                "checkpointing",
                "description",
                "evaluation",
                "export",
                "hyperparams",
                "ranking",
                "rendering",
            ],
            ["diagnosis", "hierarchy", "learning", "monitoring", "plotting", "video", "zoo_export"],
            ["comparison", "downstream", "report", "search_space", "zoo"],
            ["console", "finetuning", "grid", "playing"],
            ["commands", "imitation", "tuning"],
            ["downstream_commands", "sweep"],
            ["cli"],
            ["sweep_child"],
        ]
    )
    for name in names
}
EXEMPT = {"__init__", "__main__"}
VERSION = "__version__"  # of the package itself
HEAVY = ["matplotlib.pyplot", "seaborn", "moviepy", "rl_zoo3", "pandas", "imageio", "scipy"]


def imports_of(tree: ast.AST) -> set[str]:
    """The modules of this package that a module imports, wherever the import stands."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        parts = [name.split(".") for name in names]
        found |= {p[1] for p in parts if p[0] == "sb3_diayn" and len(p) > 1}
    return found - {VERSION}


def test_imports_of_finds_every_form():
    source = """
import sb3_diayn.skills
from sb3_diayn import metrics, wrappers as w
def late():
    from sb3_diayn.report import write
import os, sb3_diayn
"""
    assert imports_of(ast.parse(source)) == {"skills", "metrics", "wrappers", "report"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_imports_go_strictly_downward(path):
    if path.stem in EXEMPT:
        return
    assert path.stem in LEVELS, f"{path.name} has no level: add it to LEVELS in this test"
    for name in imports_of(ast.parse(path.read_text(encoding="utf-8"))):
        assert name in LEVELS, f"{name}, imported by {path.name}, is not in LEVELS in this test"
        assert LEVELS[name] < LEVELS[path.stem], f"{path.stem} must not import {name}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


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
