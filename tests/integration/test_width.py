"""The table of the discriminator's width comes from its file, and this is whole."""

import pytest

pytest.importorskip("rl_zoo3")

from docs.tables.width import PAGE, runs, with_tables


def test_the_table_is_that_of_the_file():
    assert PAGE.read_text(encoding="utf-8") == with_tables(), "run python -m docs.tables.width"


def test_every_width_has_three_seeds():
    by_width = runs().groupby("width")["seed"]
    assert {width: sorted(seeds) for width, seeds in by_width} == {128: [0, 1, 2], 256: [0, 1, 2]}


def test_numbers_are_possible():
    frame = runs()
    counts = frame[["distinct_skills", "recognized_skills", "good_skills"]]
    assert counts.stack().between(0, 20).all()
    assert frame["fresh"].between(0, 1).all()
