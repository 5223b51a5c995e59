"""The tables of the downstream tasks come from their files, and these are whole."""

import pandas as pd
import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("matplotlib")

from docs.tables.downstream import FOLDER, PAGE_TABLES, PAGES, with_tables

SEEDS = [0, 1, 2, 3, 4]
FILES = ["finetuning", "hierarchy", "imitation"]


@pytest.mark.parametrize("page", PAGE_TABLES)
def test_the_table_is_that_of_the_file(page):
    remedy = "run python -m docs.tables.downstream"
    assert (PAGES / page).read_text(encoding="utf-8") == with_tables(page), remedy


@pytest.mark.parametrize("name", FILES)
def test_every_method_has_five_seeds_once(name):
    frame = pd.read_csv(FOLDER / f"{name}.csv")
    for _, part in frame.groupby(["env", "method"]):
        # One block of rows for each seed: none is missing, and none was made twice.
        blocks = part["seed"][part["seed"].diff() != 0]
        assert sorted(blocks) == SEEDS


def test_every_seed_of_a_method_was_measured_alike():
    frame = pd.read_csv(FOLDER / "finetuning.csv")
    for _, part in frame.groupby("env"):
        found = part.groupby(["method", "seed"])["steps"].apply(tuple)
        assert found.nunique() == 1


def test_a_retrieved_skill_is_no_nearer_than_the_nearest():
    frame = pd.read_csv(FOLDER / "imitation.csv")
    assert (frame["retrieved"] >= frame["nearest"]).all()
    assert ((frame["rank"] == 1) == (frame["retrieved"] == frame["nearest"])).all()
