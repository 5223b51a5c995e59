"""The tables of the ends of episodes come from their file, and this is whole."""

import pytest

pytest.importorskip("rl_zoo3")

from docs.tables.ends import GOOD_RETURNS, PAGE, arms, runs, with_tables

SEEDS = [0, 1, 2]
ARMS = ["defaults", "`absorbing=True`", "`log_q_min=-3.0`", "`subtract_log_p=False`"]


def test_the_tables_are_those_of_the_file():
    assert PAGE.read_text(encoding="utf-8") == with_tables(), "run python -m docs.tables.ends"


@pytest.mark.parametrize("env_id", GOOD_RETURNS)
def test_every_option_has_three_seeds(env_id):
    frame = runs()
    found = dict(arms(frame[frame["env"] == env_id]))
    assert list(found) == ARMS
    for part in found.values():
        assert sorted(part["seed"]) == SEEDS


def test_numbers_are_possible():
    frame = runs()
    counts = frame[["distinct_skills", "recognized_skills", "good_skills"]]
    assert counts.stack().between(0, 20).all()
    assert frame["length"].between(1, 1000).all()
