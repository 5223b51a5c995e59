"""The tables of K come from their file, and this is whole."""

import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("matplotlib")

from docs.tables.n_skills import ENVS, PAGE, runs, with_tables

SEEDS = [0, 1, 2]
KS = [5, 10, 20, 50, 100]


def test_the_tables_are_those_of_the_file():
    assert PAGE.read_text(encoding="utf-8") == with_tables(), "run python -m docs.tables.n_skills"


@pytest.mark.parametrize("env_id", ENVS)
def test_every_number_of_skills_has_its_seeds(env_id):
    frame = runs()
    found = frame[frame["env"] == env_id].groupby("n_skills")["seed"].apply(sorted).to_dict()
    assert found == dict.fromkeys(KS, SEEDS)


def test_numbers_are_possible():
    frame = runs()
    for column in ("distinct_skills", "recognized_skills", "good_skills"):
        assert frame[column].ge(0).all()
        assert frame[column].le(frame["n_skills"]).all()
    assert frame["fresh"].between(0, 1).all()
    assert frame["length"].between(1, 1000).all()
