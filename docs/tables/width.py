"""
How wide the discriminator has to be: SAC on Hopper-v5, from the file in
``zoo_configs/results/width``.

    python -m docs.tables.width collect logs/width  # take over the runs of the sweeps
    python -m docs.tables.width  # write the table
"""

import sys
from pathlib import Path

import pandas as pd

from docs.tables import tables
from docs.tables.sweeps import ROOT, arguments_of, numbers_of, run_folders, seeds_table, write
from sb3_diayn.zoo.hyperparams import get_arguments

FILE = ROOT / "zoo_configs" / "results" / "width" / "runs.csv"
PAGE = ROOT / "docs" / "pages" / "learning.md"
BEGIN = "<!-- table: python -m docs.tables.width -->"
GOOD_RETURN = 1000  # a Hopper that stands
HEAD = {
    "distinct_skills": "distinct skills",
    "recognized_skills": "known to D",
    "fresh": "accuracy, fresh",
    "good_skills": "skills of 1,000",
    "length": "steps of an episode",
}


def collect(logs: Path) -> None:
    """
    :param logs: with the folders of the sweeps
    """
    rows = []
    for folder in run_folders(logs):
        config, args = arguments_of(folder)
        width, _ = get_arguments(config, "DIAYNCallback")["net_arch"]
        key = {"width": width, "seed": args["seed"]}
        rows.append(key | numbers_of(folder, GOOD_RETURN))
    write(pd.DataFrame(rows).sort_values(["width", "seed"]), FILE)


def runs() -> pd.DataFrame:
    """:return: one row per run"""
    return pd.read_csv(FILE)


def with_tables() -> str:
    """:return: the page as it has to be"""
    arms = [(f"{width}x2", part) for width, part in runs().groupby("width")]
    return tables.with_tables(PAGE, BEGIN, [seeds_table("discriminator", arms, HEAD)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(Path(sys.argv[2]))
    else:
        PAGE.write_text(with_tables(), encoding="utf-8")
