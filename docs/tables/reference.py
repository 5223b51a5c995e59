"""
The reference results: what the provided configurations learn, from the files in
``zoo_configs/results``, which is a log folder of the zoo.

    python -m docs.tables.reference collect logs/sweep              # take over the runs of a sweep
    python -m docs.tables.reference collect logs/K_5 K_5            # those with --n-skills 5
    python -m docs.tables.reference collect logs/velocity velocity  # those with ppo_travel
    python -m docs.tables.reference collect logs/displacement displacement
    python -m docs.tables.reference collect logs/metra metra
    python -m docs.tables.reference collect logs/tried/x tried/x     # a run of another setting
    python -m docs.tables.reference collect tasks tasks              # our own environments
    python -m docs.tables.reference random                          # measure random policies
    python -m docs.tables.reference                                 # write tables and figures
"""

import csv
import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import yaml

from docs.tables.reference_figures import IMAGES, draw, draw_travel
from docs.tables.reference_tables import (
    CSV_FOLDER,
    PAGE,
    RANDOM,
    REFERENCES,
    RESULTS,
    csv_files,
    other_n_skills,
    runs,
    travellers,
    with_tables,
)
from sb3_diayn.checkpoints import STATISTICS
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.model_zip import load_state, training_history, unpack_arrays
from sb3_diayn.trainer import HISTORY

FloatArray = npt.NDArray[np.float64]
# The paths fill most of an evaluation. A coordinate has so many digits of its largest value.
# Figures show the paths of seed 0, which have at most so many points together. In the files of
# other seeds each path has N_POINTS.
DIGITS, N_ALL_POINTS, N_POINTS = 3, 10_000, 5
WITH_MODEL = (  # keep their zips
    "sac/MountainCarContinuous-v0_1",
    "ppo/MountainCarContinuous-v0_1",
    "sac/Pendulum-v1_1",
    "sac/Reacher-v5_1",
    "sac/Hopper-v5_1",
    "velocity/ppo/HalfCheetah-v5_1",
    "displacement/ppo/Ant-v5_1",
    "displacement/ppo/HalfCheetah-v5_1",
    "displacement/ppo/Hopper-v5_1",
    "displacement/ppo/Swimmer-v5_1",
    "displacement/ppo/Walker2d-v5_1",
    "position/ppo/Ant-v5_1",
    "films/ppo/BipedalWalker-v3_1",
    "ppo/Hopper-v5_1",
    "tasks/ppo/sb3_diayn-PointBox-v0_1",
    "tasks/ppo/sb3_diayn-PointHallway-v0_1",
    "tasks/ppo/sb3_diayn-PointUMaze-v0_1",
)


def collect(sweep: Path, results: Path) -> None:
    """
    Take over every complete run below a folder: evaluation, configuration, command, versions,
    machine, times and history; the model itself where ``WITH_MODEL`` says so.

    :param sweep: folder of a ``sb3-diayn sweep``
    :param results: log folder of the zoo, where they go
    """
    for run in sorted(file.parent for file in sweep.glob("**/run.json")):
        (config,) = (path.parent for path in run.glob("*/config.yml"))
        args = dict(yaml.load((config / "args.yml").read_text(), Loader=yaml.UnsafeLoader))
        target = results / args["algo"] / f"{config.name}_{args['seed'] + 1}"
        shutil.copytree(config, target / config.name, dirs_exist_ok=True)
        shutil.copy(run / "run.json", target)
        _drop_paths(target, target / config.name)
        model = run / f"{config.name}.zip"
        if target.relative_to(RESULTS).as_posix() in WITH_MODEL:
            _copy_compressed(model, target / model.name)
        else:  # statistics are of use to a model only
            (target / config.name / STATISTICS).unlink(missing_ok=True)
        _write_history(model, target / "history.csv")
        for file in sorted(run.glob("evaluation*.json")):
            evaluation = SkillEvaluation.load(file)
            n_skills, n_episodes = evaluation.paths.shape[:2]
            n_points = N_POINTS if args["seed"] > 0 else N_ALL_POINTS // (n_skills * n_episodes)
            evaluation.paths = thinned(evaluation.paths, n_points)
            write_compact(evaluation, target / file.name)
        print(target)


def _drop_paths(run: Path, config: Path) -> None:
    """Without where Python and the package happened to be installed."""
    command = json.loads((run / "run.json").read_text(encoding="utf-8"))["command"]
    (config / "command.txt").write_text(command, encoding="utf-8")
    args = config / "args.yml"
    text = args.read_text(encoding="utf-8")
    args.write_text(re.sub(r"/\S*/zoo_configs/(\w+)\.yml", r"\1", text), encoding="utf-8")


def _copy_compressed(model: Path, target: Path) -> None:
    """The same files; SB3 does not compress them."""
    with (
        zipfile.ZipFile(model) as source,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as copy,
    ):
        for name in source.namelist():
            copy.writestr(name, source.read(name))


def _write_history(model: Path, file: Path) -> None:
    """As the zip has it, thinned to some hundred rows, and the end of the training."""
    state = load_state(model)
    history = training_history(state)
    loss, accuracy, *more = unpack_arrays(state["arrays"])["running"]
    end = {HISTORY[0]: state["progress"]["total_timesteps"], HISTORY[2]: accuracy}
    if state["options"].get("objective") != "metra":  # which has no log q
        end[HISTORY[1]] = more[0] if more else -loss  # held-out, as SB3's log has it
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HISTORY)
        writer.writerows(
            [f"{value:.6g}" for value in row]
            for row in zip(*(history[name] for name in HISTORY), strict=True)
        )
        writer.writerow([f"{end[name]:.6g}" if name in end else "nan" for name in HISTORY])


def thinned(paths: FloatArray, n_points: int) -> FloatArray:
    """
    :param paths: of skills, shape ``(K, E, P, 2)``
    :param n_points: how many of the P points to keep at most, with the first and the last one
    :return: shape ``(K, E, n_points, 2)``
    """
    n_all = paths.shape[2]
    rows = np.linspace(0, n_all - 1, min(n_all, n_points)).round().astype(int)
    return paths[:, :, rows]


def write_compact(evaluation: SkillEvaluation, file: Path) -> None:
    """
    :param evaluation: what was measured
    :param file: the file to write, ending in ``.json``
    """
    for axis in np.moveaxis(evaluation.paths, -1, 0):  # each with its own unit
        largest = np.nanmax(np.abs(axis))
        exponent = np.floor(np.log10(largest)) if largest > 0 else 0
        axis[:] = np.round(axis, int(DIGITS - 1 - exponent))
    evaluation.save(file)
    content = json.loads(file.read_text(), parse_float=lambda digits: float(f"{float(digits):.6g}"))
    file.write_text(json.dumps(content, separators=(",", ":")) + "\n")


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


def main(task: str = "", sweep: str = "", folder: str = "") -> None:
    """
    :param task: ``"collect"``, ``"random"`` or nothing, to write tables and figures
    :param sweep: the folder to collect
    :param folder: where to, below ``zoo_configs/results``
    """
    if task == "collect":
        return collect(Path(sweep), RESULTS / folder)
    if task == "random":
        return measure_random()
    PAGE.write_text(with_tables(), encoding="utf-8")
    CSV_FOLDER.mkdir(exist_ok=True)
    for file, content in csv_files().items():
        file.write_text(content, encoding="utf-8")
    IMAGES.mkdir(exist_ok=True)
    for logs in (RESULTS, *other_n_skills()):
        names = runs(logs)[["env", "algo"]].itertuples(index=False, name=None)
        for env_id, algo in sorted(set(names)):
            draw(env_id, algo, logs)
    for env_id in travellers():
        draw_travel(env_id)


if __name__ == "__main__":
    main(*sys.argv[1:])
