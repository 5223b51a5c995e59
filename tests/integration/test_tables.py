"""Pages whose tables are made of signatures and of rows of the tests."""

import inspect

import pytest

pytest.importorskip("pandas")  # of the extra report

from docs.tables import options, wrappers


@pytest.mark.parametrize("module", [options, wrappers], ids=lambda module: module.__name__)
def test_the_page_is_up_to_date(module):
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.with_tables(), f"run python -m {module.__name__}"


@pytest.mark.parametrize("cls", [options.DIAYNCallback, options.DIAYNWrapper])
def test_every_option_is_explained(cls):
    text = options.meanings(cls)
    for name in inspect.signature(cls).parameters:
        assert len(text.get(name, "")) > 10, name
