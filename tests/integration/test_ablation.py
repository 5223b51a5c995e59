"""The ablation's tables come from its files, and these are whole."""

import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("matplotlib")

from docs.tables.ablation import BASE, PAGE, arms, curves, runs, with_tables

SEEDS = [0, 1, 2]


def test_the_table_is_that_of_the_files():
    remedy = "run python -m docs.tables.ablation"
    assert PAGE.read_text(encoding="utf-8") == with_tables(), remedy


def test_every_setting_has_three_seeds_and_equally_many_updates():
    found = dict(arms(runs()))
    assert next(iter(found)) == "the base"
    for part in found.values():
        assert sorted(part["seed"]) == SEEDS
    assert runs()["updates"].between(2900, 3100).all()


def test_numbers_are_possible():
    frame = runs()
    assert frame[["distinct_skills", "recognized_skills"]].stack().between(0, 20).all()
    assert frame[["replayed", "fresh"]].stack().between(0, 1).all()


def test_each_curve_belongs_to_a_run():
    keys = [
        set(map(tuple, frame[[*BASE, "seed"]].fillna(0).to_numpy())) for frame in (runs(), curves())
    ]
    assert keys[0] == keys[1]
