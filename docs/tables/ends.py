"""
What happens at the ends of episodes: four environments in which they differ, from the file in
``zoo_configs/results/ends``.

    python -m docs.tables.ends collect logs/ends  # take over the runs of the sweeps
    python -m docs.tables.ends  # write the tables
"""

import sys
from pathlib import Path

import pandas as pd

from docs.tables import tables
from docs.tables.sweeps import ROOT, arguments_of, numbers_of, run_folders, seeds_table, write
from sb3_diayn.zoo.hyperparams import get_arguments

FILE = ROOT / "zoo_configs" / "results" / "ends" / "runs.csv"
PAGE = ROOT / "docs" / "pages" / "ends_of_episodes.md"
BEGIN = "<!-- table: python -m docs.tables.ends -->"
# A mountain car at the flag, a pole balanced to the end, a robot that stands.
GOOD_RETURNS = {
    "MountainCarContinuous-v0": 90,
    "InvertedPendulum-v5": 950,
    "Hopper-v5": 1000,
    "Walker2d-v5": 1000,
}
OPTIONS = {"log_q_min": None, "subtract_log_p": True, "absorbing": False}
HEAD = {
    "distinct_skills": "distinct skills",
    "good_skills": "good skills",
    "median_return": "median return",
    "length": "steps of an episode",
}


def collect(logs: Path) -> None:
    """
    :param logs: with the folders of the sweeps
    """
    rows = []
    for folder in run_folders(logs):
        config, args = arguments_of(folder)
        options = get_arguments(config, "DIAYNCallback")
        arm = {name: options.get(name, default) for name, default in OPTIONS.items()}
        key = {"env": args["env"]} | arm | {"seed": args["seed"]}
        rows.append(key | numbers_of(folder, GOOD_RETURNS[args["env"]]))
    write(pd.DataFrame(rows).sort_values(["env", *OPTIONS, "seed"]), FILE)


def runs() -> pd.DataFrame:
    """:return: one row per run"""
    return pd.read_csv(FILE)


def arms(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """
    :param frame: runs on one environment
    :return: the options that differ from the defaults, and the rows
    """
    found = [(_changes(values), part) for values, part in frame.groupby([*OPTIONS], dropna=False)]
    return sorted(found, key=lambda arm: (arm[0] != "defaults", arm[0]))


def _changes(values: tuple[object, ...]) -> str:
    options = zip(OPTIONS.items(), values, strict=True)
    changes = [f"`{name}={value}`" for (name, base), value in options if _differs(value, base)]
    return ", ".join(changes) or "defaults"


def _differs(value: object, base: object) -> bool:
    return value == value and value != base  # NaN is the None of a file


def with_tables() -> str:
    """:return: the page as it has to be, one table for each environment"""
    frame = runs()
    found = [seeds_table(env, arms(frame[frame["env"] == env]), HEAD) for env in GOOD_RETURNS]
    return tables.with_tables(PAGE, BEGIN, found)


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(Path(sys.argv[2]))
    else:
        PAGE.write_text(with_tables(), encoding="utf-8")
