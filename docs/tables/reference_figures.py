"""The figures of the reference results, from the files in ``zoo_configs/results``."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from docs.tables.reference_tables import RANDOM, READS, REFERENCES, RESULTS, ROOT
from sb3_diayn.evaluation.plotting import plot_trajectories
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.trainer import HISTORY

IMAGES = ROOT / "docs" / "pages" / "images" / "results"


def picture(env_id: str, algo: str) -> Path:
    """
    :param env_id: an environment
    :param algo: what its skills were learned with
    :return: where :func:`draw` puts its picture
    """
    return IMAGES / (f"{env_id}.png" if algo == "SAC" else f"{env_id}_{algo.lower()}.png")


def draw(env_id: str, algo: str) -> None:
    """
    :param env_id: an environment: log q of every seed while it was trained, the task return of
        every skill of every seed, and the paths of the skills of seed 0
    :param algo: what its skills were learned with
    """
    size = {"figsize": (15, 5.2), "layout": "constrained"}
    figure, (training, left, right) = plt.subplots(1, 3, **size)
    folders = sorted(file.parent for file in RESULTS.glob(f"{algo.lower()}/{env_id}_*/run.json"))
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
    figure.suptitle(f"{env_id}, {algo}")
    figure.savefig(picture(env_id, algo), dpi=60)
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


def draw_travel(env_id: str) -> None:
    """
    :param env_id: an environment with a travelling variant: the paths of all skills of seed 0, for
        each choice of what the discriminator reads
    """
    files = {name: folder / f"ppo/{env_id}_1/evaluation.json" for name, folder in READS.items()}
    files = {name: file for name, file in files.items() if file.is_file()}
    size = {"figsize": (5 * len(files), 5), "layout": "constrained", "squeeze": False}
    figure, (axes,) = plt.subplots(1, len(files), **size)
    for ax, (name, file) in zip(axes, files.items(), strict=True):
        plot_trajectories(SkillEvaluation.load(file), ax=ax)
        ax.set_title(f"the discriminator reads {name}")
    figure.suptitle(env_id)
    figure.savefig(IMAGES / f"{env_id}_travel.png", dpi=60)
    plt.close(figure)
