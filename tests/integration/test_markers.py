"""Which tests an expression for ``-m`` leaves: see ``tests/conftest.py``."""

from types import SimpleNamespace

import pytest

from tests.conftest import pytest_collection_modifyitems

MARKERS = ["none", "slow", "expensive", "sbx"]


def left(expression):
    """The markers of the tests that are left before pytest applies the expression itself."""
    deselected = []
    hook = SimpleNamespace(pytest_deselected=lambda items: deselected.extend(items))
    config = SimpleNamespace(option=SimpleNamespace(markexpr=expression), hook=hook)
    items = [
        SimpleNamespace(name=name, iter_markers=lambda name=name: [SimpleNamespace(name=name)])
        for name in MARKERS
    ]
    pytest_collection_modifyitems(config, items)
    names = [item.name for item in items]
    assert sorted(names + [item.name for item in deselected]) == sorted(MARKERS)
    return names


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", ["none", "slow"]),
        ("slow", ["none", "slow"]),
        ("not slow", ["none", "slow"]),
        ("expensive", ["none", "slow", "expensive"]),
        ("sbx", ["none", "slow", "sbx"]),
        ("slow or expensive or sbx", MARKERS),
        ("not slow and not expensive", ["none", "slow", "expensive"]),
    ],
)
def test_expensive_tests_run_only_where_they_are_named(expression, expected):
    assert left(expression) == expected
