"""
The tables of the reference results, from the files in ``zoo_configs/results``.

A run of seed s is ``<algo>/<environment>_<s + 1>``, whether it went well or not. Below ``K_5`` are
runs with ``--n-skills 5``, and so on. Below ``velocity`` and ``position`` are the runs of
``ppo_travel.yml``, whose discriminator reads nothing else, below ``everything`` the same with a
discriminator that does, below ``displacement`` and ``metra`` runs of ``ppo_displacement.yml`` and
``ppo_metra.yml``, below ``tried`` single runs of other settings, below ``tasks`` and ``films``
those that the gallery alone shows.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import yaml

from docs.tables import tables
from docs.tables.tables import interval_text, table, text
from sb3_diayn.evaluation.comparison import interval
from sb3_diayn.evaluation.diagnosis import STATIC_MOVEMENT
from sb3_diayn.evaluation.held_out import classify_held_out
from sb3_diayn.evaluation.metrics import mutual_information
from sb3_diayn.evaluation.results import SkillEvaluation

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "zoo_configs" / "results"
# What the discriminator reads, or METRA in its place, and the log folder with such runs.
READ = ("everything", "position", "velocity", "displacement", "metra")
READS = {name: RESULTS / name for name in READ}
TRIED = RESULTS / "tried"
RANDOM = RESULTS / "random_policy.json"
ALGORITHMS = ["SAC", "PPO"]  # in the order of the tables
LONG = "evaluation_1000_steps.json"  # --env-kwargs max_episode_steps:1000
PAGE = ROOT / "docs" / "pages" / "results.md"
# Runs of 0.1.0 were measured on deterministic episodes, without a held-out classifier.
HELD_OUT = "distinct skills, held-out"
KNOWN = "known to D"  # the discriminator
DISTINCT_ENDS = "distinct ends, held-out"
BEGIN = "<!-- table: python -m docs.tables.reference -->"
CSV_FOLDER = PAGE.parent / "tables"  # every column; a page shows at most eight


@dataclass(frozen=True)
class Reference:
    """
    :param solved: return that counts as solving the task, gymnasium's ``reward_threshold``; the
        paper's 1000 for Hopper; None where there is none
    :param sac: return of task-trained SAC, from the benchmark of the RL Zoo (benchmark.md, MuJoCo
        in version 3); None where it has none
    """

    solved: float | None
    sac: float | None


REFERENCES = {
    "MountainCarContinuous-v0": Reference(90, 94.7),
    "Pendulum-v1": Reference(None, -157.0),
    "InvertedPendulum-v5": Reference(950, None),
    "InvertedDoublePendulum-v5": Reference(9100, None),
    "Reacher-v5": Reference(-3.75, None),
    "Hopper-v5": Reference(1000, 2325.5),
    "HalfCheetah-v5": Reference(4800, 9535.5),
    "Walker2d-v5": Reference(None, 3863.2),
    "Swimmer-v5": Reference(360, 345.6),
    "Ant-v5": Reference(6000, 4615.8),
    "Humanoid-v5": Reference(None, 6232.3),
    "BipedalWalker-v3": Reference(300, 297.7),
    "LunarLanderContinuous-v3": Reference(200, 260.4),
}


def other_n_skills() -> list[Path]:
    """:return: the log folders of runs with another number of skills than the file's"""
    return sorted(RESULTS.glob("K_*"))


def runs(*results: Path) -> pd.DataFrame:
    """
    :param results: log folders of the zoo; by default of the provided configurations
    :return: one row per run, from its files
    """
    folders = results or (RESULTS, *other_n_skills())
    files = sorted(file for folder in folders for file in folder.glob("*/*/run.json"))
    frame = pd.DataFrame([_row(file.parent) for file in files])
    frame["algo"] = pd.Categorical(frame["algo"], ALGORITHMS)
    return frame.sort_values(["env", "algo", "K", "seed"])


@cache
def _row(run: Path) -> dict[str, Any]:
    evaluation = SkillEvaluation.load(run / "evaluation.json")
    origin = json.loads((run / "run.json").read_text(encoding="utf-8"))
    history = pd.read_csv(run / "history.csv")
    env_id = evaluation.info["env_id"]
    returns = evaluation.task_returns.mean(axis=1)
    solved = REFERENCES[env_id].solved
    return {
        "env": env_id,
        "algo": evaluation.info["algo"].upper(),
        "seed": int(run.name.rpartition("_")[2]) - 1,
        "K": evaluation.n_skills,
        "steps": evaluation.info["num_timesteps"],
        "minutes": origin["cpu_time"] / 60,
        "log q": history["diayn/log_q_z"].iloc[-1],
        "fresh accuracy": evaluation.accuracy.mean(),
        HELD_OUT: evaluation.distinct_skills,
        KNOWN: evaluation.recognized_skills,
        "best return": returns.max(),
        "median return": np.median(returns),
        "worst return": returns.min(),
        "skills that solve it": np.nan if solved is None else (returns >= solved).sum(),
        "cells": evaluation.info["total_coverage"],
        "share of static skills": (evaluation.movement < STATIC_MOVEMENT).mean(),
    }


@cache  # intervals are resampled
def summary() -> pd.DataFrame:
    """:return: one row per environment, algorithm and K: means over seeds, 95 % intervals"""
    frame, random = runs(), json.loads(RANDOM.read_text(encoding="utf-8"))["returns"]
    measured = list(frame.columns[5:])
    groups = dict(list(frame.groupby(["env", "algo", "K"], observed=True)))
    rows = []
    for env_id, algo, n_skills in sorted(groups, key=_order):
        part = groups[env_id, algo, n_skills]
        rows.append(
            {
                "environment": env_id,
                "algorithm, K": f"{algo}, {n_skills}",
                "steps": part["steps"].iloc[0],
                "seeds": len(part),
                **{name: _cell(part[name]) for name in measured},
                "random policy": random[env_id],
                "SAC on the task": REFERENCES[env_id].sac,
            }
        )
    return _as_text(rows)


def _order(key: tuple[str, str, int]) -> tuple[int, int, int]:
    env_id, algo, n_skills = key
    return list(REFERENCES).index(env_id), ALGORITHMS.index(algo), n_skills


def each_run() -> pd.DataFrame:
    """:return: one row per run, none left out"""
    return _as_text(runs().to_dict("records"))


@cache  # classifiers are trained
def travelling() -> pd.DataFrame:
    """
    :return: how far apart skills end, one row per run of the environments that have a travelling
        variant
    """
    rows = []
    for env_id in travellers():
        for name, results in READS.items():
            for file in sorted(results.glob(f"*/{env_id}_*/run.json")):
                row = {"environment": env_id, "variant": name, **_travel(file.parent)}
                rows.append(row | _long_returns(file.parent))
    return _as_text(rows)


@cache  # classifiers are trained
def tried() -> pd.DataFrame:
    """:return: one row per run of another setting, with what it changed"""
    rows = []
    for file in sorted(TRIED.glob("*/*/*/run.json")):
        row = _travel(file.parent)
        evaluation = SkillEvaluation.load(file.parent / "evaluation.json")
        rows.append(
            {
                "run": file.relative_to(TRIED).parts[0],
                "K": evaluation.n_skills,
                "steps": evaluation.info["num_timesteps"],
                **_settings(file.parent),
                "steps of an episode": int(evaluation.lengths.max()),
                **{name: row[name] for name in row if "apart" in name or "return" in name},
                "static skills": row["static skills"],
            }
        )
    return _as_text(rows)


def _settings(run: Path) -> dict[str, Any]:
    (file,) = run.glob("*/config.yml")
    config = yaml.load(file.read_text(encoding="utf-8"), Loader=yaml.UnsafeLoader)
    ((_, options),) = config["callback"][0].items()
    env_kwargs = config.get("env_kwargs", {})
    return {
        "D reads": str(options["obs_indices"]),
        "scaled": "yes" if options.get("normalize_obs") else "",
        "spectral norm": "yes" if options.get("spectral_norm") else "",
        "`ent_coef`": config["ent_coef"],
        "gSDE": "yes" if config.get("use_sde") else "",
        "falls end it": "" if env_kwargs.get("terminate_when_unhealthy", True) else "no",
    }


def _as_text(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([{name: text(value) for name, value in row.items()} for row in rows])


def travellers() -> list[str]:
    """:return: ids of the environments that have a travelling variant"""
    return sorted({env_id for logs in READS.values() for env_id in runs(logs)["env"]})


def _travel(run: Path) -> dict[str, Any]:
    row, evaluation = _row(run), SkillEvaluation.load(run / "evaluation.json")
    apart = ends_apart(evaluation)
    n_static = (evaluation.movement < STATIC_MOVEMENT).sum()
    return {
        "seed": row["seed"],
        "fresh accuracy": row["fresh accuracy"],
        HELD_OUT: row[HELD_OUT],
        KNOWN: row[KNOWN],
        DISTINCT_ENDS: distinct_ends(evaluation),
        "ends apart, largest (m)": apart.max(),
        "ends apart, mean (m)": apart.mean(),
        "cells": row["cells"],
        "static skills": f"{n_static} of {evaluation.n_skills}",
        "best return": row["best return"],
        "worst return": row["worst return"],
    }


def _long_returns(run: Path) -> dict[str, float]:
    """From episodes of the usual length, which is longer than in the training, if played."""
    returns = [np.nan]
    if (run / LONG).is_file():
        returns = SkillEvaluation.load(run / LONG).task_returns.mean(axis=1)
    return {
        "best return of 1,000 steps": np.max(returns),
        "worst return of 1,000 steps": np.min(returns),
    }


def ends_apart(evaluation: SkillEvaluation) -> npt.NDArray[np.float64]:
    """
    :param evaluation: of skills whose positions ``info`` tells
    :return: distances between the places where two skills end, means over episodes, in the unit of
        the positions, one for each pair
    """
    ends = _ends(evaluation).mean(axis=1)
    first, second = np.triu_indices(len(ends), 1)
    distances: npt.NDArray[np.float64] = np.linalg.norm(ends[first] - ends[second], axis=-1)
    return distances


def distinct_ends(evaluation: SkillEvaluation) -> float:
    """
    :param evaluation: of skills whose positions ``info`` tells
    :return: how many skills a held-out classifier distinguishes by the place where an episode
        ends; where all episodes have the same length, that is the mean velocity as well
    """
    episodes = [[place[None] for place in skill] for skill in _ends(evaluation)]
    bound = mutual_information(classify_held_out(episodes).log_q, evaluation.n_skills)
    return float(np.exp(bound))


def _ends(evaluation: SkillEvaluation) -> npt.NDArray[np.float64]:
    """Where each episode of each skill ends, shape (K, episodes, coordinates)."""
    axes = ["position" in name for name in evaluation.info["coordinates"]]
    ends: npt.NDArray[np.float64] = evaluation.paths[:, :, -1, axes]
    return ends


def _cell(values: pd.Series) -> str:
    is_single = len(values) == 1 or values.isna().all()
    return text(float(values.iloc[0])) if is_single else interval_text(interval(values))


# The file with every column, where the rows come from, and the columns that the page shows.
TABLES: dict[str, tuple[Callable[[], pd.DataFrame], tuple[str, ...]]] = {
    "by_environment.csv": (
        summary,
        (
            "environment",
            "algorithm, K",
            "minutes",
            "fresh accuracy",
            HELD_OUT,
            KNOWN,
            "best return",
            "skills that solve it",
        ),
    ),
    "travelling.csv": (
        travelling,
        (
            "environment",
            "variant",
            "seed",
            DISTINCT_ENDS,
            KNOWN,
            "ends apart, largest (m)",
            "static skills",
            "best return",
        ),
    ),
    "tried.csv": (
        tried,
        (
            "run",
            "steps",
            "D reads",
            "spectral norm",
            "gSDE",
            "ends apart, largest (m)",
            "worst return",
            "static skills",
        ),
    ),
    "each_run.csv": (
        each_run,
        (
            "env",
            "algo",
            "K",
            "seed",
            "fresh accuracy",
            HELD_OUT,
            KNOWN,
            "skills that solve it",
        ),
    ),
}


def csv_files() -> dict[Path, str]:
    """:return: the content of each file that the page links, with every column"""
    return {
        CSV_FOLDER / name: make().to_csv(index=False, lineterminator="\n")
        for name, (make, _) in TABLES.items()
    }


def with_tables() -> str:
    """:return: the page as it has to be"""
    return tables.with_tables(PAGE, BEGIN, map(_shown, TABLES))


def _shown(name: str) -> str:
    make, columns = TABLES[name]
    rows = make()[list(columns)]
    link = f"[All columns]({CSV_FOLDER.name}/{name}) are in a file."
    return f"{table(columns, rows.itertuples(index=False))}\n\n{link}"
