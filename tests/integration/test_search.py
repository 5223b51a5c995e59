"""The search's tables come from its files, and these are whole."""

import math

import numpy as np
import pandas as pd
import pytest
import yaml

pytest.importorskip("optuna")
pytest.importorskip("scipy")

from docs.tables.search import (
    ENTRY,
    ENVS,
    FOLDER,
    PAGE,
    WINNER,
    again,
    csv_files,
    gain,
    trials,
    with_tables,
)


def test_the_tables_are_those_of_the_files():
    remedy = "run python -m docs.tables.search"
    assert PAGE.read_text(encoding="utf-8") == with_tables(), remedy
    for file, content in csv_files().items():
        assert file.read_text(encoding="utf-8") == content, remedy


@pytest.mark.parametrize("env_id", ENVS)
def test_no_trial_is_left_out(env_id):
    frame = trials(env_id)
    assert len(frame) >= 30
    assert list(frame["number"]) == list(range(len(frame)))
    assert set(frame["state"]) == {"COMPLETE", "PRUNED"}
    assert frame.drop(columns="value").notna().all(axis=None)
    assert frame.loc[frame["state"] == "COMPLETE", "value"].notna().all()


@pytest.mark.parametrize("env_id", ENVS)
def test_the_winner_is_the_best_trial(env_id):
    complete = trials(env_id).query("state == 'COMPLETE'")
    best = complete.loc[complete["value"].idxmax()]
    entry = yaml.safe_load((FOLDER / f"{env_id}_best.yml").read_text(encoding="utf-8"))[env_id]
    for name in ("learning_rate", "ent_coef", "tau", "n_envs"):
        assert entry[name] == pytest.approx(best[name], rel=1e-4), name
    assert entry["batch_size"] == 2 ** best["batch_size_pow"]


@pytest.mark.parametrize("env_id", ENVS)
def test_winner_and_entry_have_the_same_fresh_seeds_and_steps(env_id):
    frame = again(env_id)
    seeds = {arm: sorted(part["seed"]) for arm, part in frame.groupby("arm")}
    assert set(seeds) == {WINNER, ENTRY}
    assert seeds[WINNER] == seeds[ENTRY] and len(set(seeds[ENTRY])) >= 3
    assert frame["n_skills"].nunique() == 1
    assert np.ptp(frame["steps"]) <= 20  # the last round of environments may go beyond
    assert frame["mutual_information"].max() <= math.log(frame["n_skills"].iloc[0])


@pytest.mark.parametrize("env_id", ENVS)
def test_a_gain_lies_in_its_interval(env_id):
    ends = gain(env_id)
    assert ends["low"] < ends["mean"] < ends["high"]


def test_what_is_said_of_the_whole_budget():
    frame = pd.read_csv(FOLDER / "Pendulum-v1_whole.csv").sort_values("seed")
    nats = np.log(frame["distinct_skills"]).groupby(frame["arm"]).apply(list)
    said = " ".join(PAGE.read_text(encoding="utf-8").split())
    for arm in (WINNER, ENTRY):
        figures = [f"{value:.2f}" for value in nats[arm]]
        assert figures[0] in said and figures[1] in said, arm
    assert set(frame["steps"]) == {40_000}
