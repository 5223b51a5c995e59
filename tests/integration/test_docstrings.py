"""The examples in the docstrings of all that ``sb3_diayn`` offers run as they stand."""

import doctest
import inspect
import types

import pytest

import sb3_diayn

PAPER = "https://arxiv.org/abs/1802.06070"
METHOD = [  # what implements the paper
    "DIAYNCallback",
    "DIAYNCheckpointCallback",
    "DIAYNWrapper",
    "Discriminator",
    "GymVecEnv",
    "SkillEvaluationCallback",
    "SkillReplayBuffer",
    "VecDIAYNWrapper",
]
CLASSES = [*METHOD, "SkillEvaluation", "SkillReward", "WarmUp"]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(name: str) -> list[doctest.DocTest]:
    """One for the docstring of the object and for each of its methods that holds ``>>>``."""
    found = doctest.DocTestFinder().find(getattr(sb3_diayn, name), name, globs={})
    return [test for test in found if test.examples]


NAMES = [
    name for name in sb3_diayn.__all__ if not isinstance(getattr(sb3_diayn, name), types.ModuleType)
]


@pytest.mark.parametrize("name", NAMES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for test in examples(name):
        report: list[str] = []
        failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
        assert not failed, "".join(report)


@pytest.mark.parametrize("name", CLASSES)
def test_each_class_has_an_example(name):
    assert name in [test.name for test in examples(name)]


@pytest.mark.parametrize("name", METHOD)
def test_each_class_of_the_method_names_the_paper(name):
    assert PAPER in inspect.getdoc(getattr(sb3_diayn, name))


def test_a_wrong_example_fails():
    """Else the tests above could not fail."""
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    failed, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=lambda text: None)
    assert failed == 1
