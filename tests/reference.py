"""
The reference results: what the provided configurations learn, from the files in
``zoo_configs/results``, which is a log folder of the zoo.

    python -m tests.reference collect logs/sweep   # take over the runs of a sweep
    python -m tests.reference random               # measure random policies
    python -m tests.reference                      # write tables and figures

A run of seed s is ``<algo>/<environment>_<s + 1>``, whether it went well or not.
"""

import csv
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import yaml

from sb3_diayn.arrays import unpack_arrays
from sb3_diayn.checkpoint import HISTORY, load_state, training_history
from sb3_diayn.comparison import interval
from sb3_diayn.plotting import plot_trajectories
from sb3_diayn.results import SkillEvaluation

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "zoo_configs" / "results"
RANDOM = RESULTS / "random_policy.json"
IMAGES = ROOT / "docs" / "pages" / "images" / "results"
BEGIN, END = "<!-- table: python -m tests.reference -->", "<!-- end of the table -->"
SIGNIFICANT_DIGITS = 5  # of paths, which fill most of an evaluation and are there to be drawn
WITH_MODEL = (  # seed 0 of these keeps its zip
    "MountainCarContinuous-v0",
    "Pendulum-v1",
    "InvertedPendulum-v5",
    "Reacher-v5",
    "Hopper-v5",
)


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


# -- files --------------------------------------------------------------------------------------


def collect(sweep: Path) -> None:
    """
    Take over every complete run below a folder: evaluation, configuration, command, versions,
    machine, times and history; the model itself where ``WITH_MODEL`` says so.

    :param sweep: folder of a ``sb3-diayn sweep``
    """
    for file in sorted(sweep.glob("**/run.json")):
        run = file.parent
        (config,) = (path.parent for path in run.glob("*/config.yml"))
        args = dict(yaml.load((config / "args.yml").read_text(), Loader=yaml.UnsafeLoader))
        target = RESULTS / args["algo"] / f"{config.name}_{args['seed'] + 1}"
        shutil.copytree(config, target / config.name, dirs_exist_ok=True)
        shutil.copy(file, target)
        model = run / f"{config.name}.zip"
        if config.name in WITH_MODEL and args["seed"] == 0:
            shutil.copy(model, target)
        _write_history(model, target / "history.csv")
        _write_compact(SkillEvaluation.load(run / "evaluation.json"), target / "evaluation.json")
        print(target)


def _write_history(model: Path, file: Path) -> None:
    """As the zip has it, thinned to some hundred rows, and the end of the training."""
    state = load_state(model)
    history = training_history(state)
    loss, accuracy = unpack_arrays(state["arrays"])["running"]
    end = {
        HISTORY[0]: state["progress"]["total_timesteps"],
        HISTORY[1]: -loss,
        HISTORY[2]: accuracy,
    }
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HISTORY)
        writer.writerows(
            [f"{value:.6g}" for value in row]
            for row in zip(*(history[name] for name in HISTORY), strict=True)
        )
        writer.writerow([f"{end[name]:.6g}" if name in end else "nan" for name in HISTORY])


def _write_compact(evaluation: SkillEvaluation, file: Path) -> None:
    paths = evaluation.paths
    with np.errstate(divide="ignore"):
        digits = SIGNIFICANT_DIGITS - 1 - np.floor(np.log10(np.abs(paths).max()))
    evaluation.paths = np.round(paths.astype(float), int(digits))
    evaluation.save(file)
    file.write_text(json.dumps(json.loads(file.read_text()), separators=(",", ":")) + "\n")


def measure_random(episodes: int = 100) -> None:
    """
    :param episodes: of each environment with uniformly drawn actions, seeds 0, 1, 2, ...
    """
    returns = {env_id: float(np.mean(list(_random(env_id, episodes)))) for env_id in REFERENCES}
    RESULTS.mkdir(exist_ok=True)
    RANDOM.write_text(json.dumps({"episodes": episodes, "returns": returns}, indent=1) + "\n")


def _random(env_id: str, episodes: int) -> Iterator[float]:
    env = gym.make(env_id)
    env.action_space.seed(0)
    for seed in range(episodes):
        env.reset(seed=seed)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        yield total


# -- table --------------------------------------------------------------------------------------


def runs() -> pd.DataFrame:
    """:return: one row per run, from its files"""
    files = sorted(RESULTS.glob("*/*/run.json"))
    return pd.DataFrame([_row(file.parent) for file in files]).sort_values(["env", "seed"])


def _row(run: Path) -> dict[str, Any]:
    evaluation = SkillEvaluation.load(run / "evaluation.json")
    origin = json.loads((run / "run.json").read_text(encoding="utf-8"))
    history = pd.read_csv(run / "history.csv")
    env_id = evaluation.info["env_id"]
    returns = evaluation.task_returns.mean(axis=1)
    solved = REFERENCES[env_id].solved
    return {
        "env": env_id,
        "algo": evaluation.info["algo"],
        "seed": int(run.name.rpartition("_")[2]) - 1,
        "K": evaluation.n_skills,
        "steps": evaluation.info["num_timesteps"],
        "minutes": origin["cpu_time"] / 60,
        "log q": history["diayn/log_q_z"].iloc[-1],
        "fresh accuracy": evaluation.accuracy.mean(),
        "distinct skills": evaluation.distinct_skills,
        "best return": returns.max(),
        "median return": np.median(returns),
        "worst return": returns.min(),
        "skills that solve it": np.nan if solved is None else (returns >= solved).sum(),
        "cells": evaluation.info["total_coverage"],
    }


def summary() -> str:
    """:return: one row per environment in Markdown: means over seeds, 95 % intervals"""
    frame, random = runs(), json.loads(RANDOM.read_text(encoding="utf-8"))["returns"]
    measured = list(frame.columns[5:])
    head = ["environment", "K", "steps", "seeds", *measured, "random policy", "SAC on the task"]
    lines = [_line(head), _line(["---"] * len(head))]
    for env_id in [env_id for env_id in REFERENCES if env_id in set(frame["env"])]:
        part = frame[frame["env"] == env_id]
        lines.append(
            _line(
                [
                    env_id,
                    *(str(part[name].iloc[0]) for name in ("K", "steps")),
                    str(len(part)),
                    *(_cell(part[name]) for name in measured),
                    _number(random[env_id]),
                    _number(REFERENCES[env_id].sac),
                ]
            )
        )
    return "\n".join(lines)


def each_run() -> str:
    """:return: one row per run in Markdown, none left out"""
    frame = runs()
    lines = [_line(frame.columns), _line(["---"] * len(frame.columns))]
    for row in frame.itertuples(index=False):
        lines.append(_line([v if isinstance(v, str) else _number(v) for v in row]))
    return "\n".join(lines)


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(values: pd.Series) -> str:
    if values.isna().any():
        return "-"
    if len(values) == 1:
        return _number(values.iloc[0])
    ends = interval(values)
    return f"{_number(ends['mean'])} ({_number(ends['low'])} to {_number(ends['high'])})"


def _number(value: float | None) -> str:
    if value is None or np.isnan(value):
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def with_tables(page: Path) -> str:
    """
    :param page: a page with the marks of one table or two: the summary, then each run
    :return: the page as it has to be
    """
    before, *parts = page.read_text(encoding="utf-8").split(BEGIN)
    for part, table in zip(parts, (summary(), each_run()), strict=False):
        before += f"{BEGIN}\n\n{table}\n\n{END}{part.split(END)[1]}"
    return before


PAGES = (ROOT / "README.md", ROOT / "docs" / "pages" / "results.md")


# -- figures ------------------------------------------------------------------------------------


def draw(env_id: str) -> None:
    """
    :param env_id: an environment: log q of every seed while it was trained, the task return of
        every skill of every seed, and the paths of the skills of seed 0
    """
    size = {"figsize": (15, 5.2), "layout": "constrained"}
    figure, (training, left, right) = plt.subplots(1, 3, **size)
    folders = sorted(RESULTS.glob(f"*/{env_id}_*"))
    _draw_training(folders, training)
    evaluations = [SkillEvaluation.load(folder / "evaluation.json") for folder in folders]
    for seed, evaluation in enumerate(evaluations):
        returns = evaluation.task_returns.mean(axis=1)
        left.scatter(np.full(len(returns), seed), returns, s=30, alpha=0.5, color="tab:blue")
    random = json.loads(RANDOM.read_text(encoding="utf-8"))["returns"][env_id]
    left.axhline(random, color="gray", linestyle=":", label="random policy")
    if (solved := REFERENCES[env_id].solved) is not None:
        left.axhline(solved, color="tab:green", linestyle="--", label="solved")
    left.set(xlabel="seed", xticks=range(len(folders)), ylabel="task return of a skill")
    left.legend()
    plot_trajectories(evaluations[0], ax=right)
    figure.suptitle(env_id)
    for folder in (RESULTS, IMAGES):  # the pages of the documentation reach their own folder only
        figure.savefig(folder / f"{env_id}.png", dpi=60)
    plt.close(figure)


def _draw_training(folders: list[Path], ax: plt.Axes) -> None:
    for seed, folder in enumerate(folders):
        history = pd.read_csv(folder / "history.csv")
        ax.plot(history[HISTORY[0]], history[HISTORY[1]], label=f"seed {seed}", linewidth=1)
    n_skills = SkillEvaluation.load(folders[0] / "evaluation.json").n_skills
    ax.axhline(-np.log(n_skills), color="gray", linestyle=":", label="-log K")
    ax.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
    ax.set(xlabel="environment steps", ylabel="log q(z|s') of replayed states (nats)")
    ax.legend()


if __name__ == "__main__":
    if sys.argv[1:2] == ["collect"]:
        collect(Path(sys.argv[2]))
    elif sys.argv[1:2] == ["random"]:
        measure_random()
    else:
        for page in PAGES:
            page.write_text(with_tables(page), encoding="utf-8")
        IMAGES.mkdir(exist_ok=True)
        for env_id in sorted(set(runs()["env"])):
            draw(env_id)
