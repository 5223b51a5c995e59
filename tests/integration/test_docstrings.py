"""The examples in the docstrings of all that ``sb3_diayn`` offers run as they stand."""

import doctest
import inspect
import types
from typing import Any

import pytest

import sb3_diayn
from sb3_diayn import downstream, evaluation
from sb3_diayn.envs import locomotion, point_navigation
from sb3_diayn.evaluation import video

PAPER = "https://arxiv.org/abs/1802.06070"
METHOD = [  # what implements the paper
    "DIAYNCallback",
    "DIAYNCheckpointCallback",
    "DIAYNWrapper",
    "Discriminator",
    "GymVecEnv",
    "ScheduledSkills",
    "SkillActionEnv",
    "SkillActionVecEnv",
    "SkillEvaluationCallback",
    "SkillPolicy",
    "SkillReplayBuffer",
    "VecDIAYNWrapper",
]
# `resume` is shown in the example of DIAYNCheckpointCallback.
SHOWN = [
    *sorted(set(sb3_diayn.__all__) - {"resume", "tasks"}),
    *sorted(set(METHOD) - set(sb3_diayn.__all__)),
    "AntWaypointsEnv",
    "HalfCheetahHurdleEnv",
    "PointNavigationEnv",
    "SkillInference",
    "WaitAtEnd",
]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


MODULES = [sb3_diayn, downstream, evaluation, video, locomotion, point_navigation]


def objects(module: types.ModuleType) -> dict[str, Any]:
    """What a module offers, by name: all that is its own where it has no ``__all__``."""
    own = [name for name, value in vars(module).items() if is_own(value, module)]
    found = {name: getattr(module, name) for name in getattr(module, "__all__", own)}
    return {name: value for name, value in found.items() if not inspect.ismodule(value)}


def is_own(value: Any, module: types.ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def examples(name: str, value: Any) -> list[doctest.DocTest]:
    """One for the docstring of the object and for each of its methods that holds ``>>>``."""
    found = doctest.DocTestFinder().find(value, name, globs={})
    return [test for test in found if test.examples]


OBJECTS = {name: value for module in MODULES for name, value in objects(module).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTS)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in examples(name, OBJECTS[name]):
        report: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
        assert not failed, "".join(report)


@pytest.mark.parametrize("name", SHOWN)
def test_each_has_an_example(name):
    assert name in [test.name for test in examples(name, OBJECTS[name])]


@pytest.mark.parametrize("name", METHOD)
def test_each_class_of_the_method_names_the_paper(name):
    assert PAPER in inspect.getdoc(OBJECTS[name])


def test_a_wrong_example_fails():
    """Else the tests above could not fail."""
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=lambda text: None)
    assert failed == 1
