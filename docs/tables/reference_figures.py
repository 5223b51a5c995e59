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


def picture(env_id: str, algo: str, logs: Path = RESULTS) -> Path:
    """
    :param env_id: an environment
    :param algo: what its skills were learned with
    :param logs: the log folder of the runs
    :return: where :func:`draw` puts its picture
    """
    parts = [env_id] + [algo.lower()] * (algo != "SAC") + [logs.name] * (logs != RESULTS)
    return IMAGES / f"{'_'.join(parts)}.png"


def draw(env_id: str, algo: str, logs: Path = RESULTS) -> None:
    """
    :param env_id: an environment: log q of every seed while it was trained and afterwards, the task
        return of every skill of every seed, and the paths of the skills of seed 0
    :param algo: what its skills were learned with
    :param logs: the log folder of the runs
    """
    size = {"figsize": (15, 5.2), "layout": "constrained"}
    figure, (training, left, right) = plt.subplots(1, 3, **size)
    folders = sorted(file.parent for file in logs.glob(f"{algo.lower()}/{env_id}_*/run.json"))
    evaluations = [SkillEvaluation.load(folder / "evaluation.json") for folder in folders]
    _draw_training(folders, evaluations, training)
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
    figure.suptitle(f"{env_id}, {algo}, K = {evaluations[0].n_skills}")
    figure.savefig(picture(env_id, algo, logs), dpi=60)
    plt.close(figure)


def _draw_training(folders: list[Path], evaluations: list[SkillEvaluation], ax: plt.Axes) -> None:
    """
    Lines: the discriminator on replayed states. At their ends, on fresh episodes: the same
    discriminator, and the held-out classifier.
    """
    for seed, (folder, evaluation) in enumerate(zip(folders, evaluations, strict=True)):
        history = pd.read_csv(folder / "history.csv")
        steps, color = history[HISTORY[0]], f"C{seed}"
        ax.plot(steps, history[HISTORY[1]], label=f"seed {seed}", linewidth=1, color=color)
        end = steps.iloc[-1]
        ax.scatter(end, evaluation.log_q.mean(), marker="o", color=color, zorder=3)
        ax.scatter(end, evaluation.held_out_log_q.mean(), marker="x", color=color, zorder=3)
    log_k = np.log(evaluations[0].n_skills)
    ax.axhline(-log_k, color="gray", linestyle=":", label="-log K")
    for marker, label in [("o", "fresh episodes"), ("x", "held-out classifier")]:
        ax.scatter([], [], marker=marker, color="gray", label=label)
    ax.ticklabel_format(axis="x", style="sci", scilimits=(3, 3))
    ax.set(xlabel="environment steps", ylabel="log q(z|s') (nats)")
    ax.legend(fontsize="small")


def draw_travel(env_id: str) -> None:
    """
    :param env_id: an environment with a travelling variant: the paths of all skills of seed 0, for
        each variant
    """
    files = {name: folder / f"ppo/{env_id}_1/evaluation.json" for name, folder in READS.items()}
    files = {name: file for name, file in files.items() if file.is_file()}
    size = {"figsize": (5 * len(files), 5), "layout": "constrained", "squeeze": False}
    figure, (axes,) = plt.subplots(1, len(files), **size)
    for ax, (name, file) in zip(axes, files.items(), strict=True):
        plot_trajectories(SkillEvaluation.load(file), ax=ax)
        ax.set_title("METRA" if name == "metra" else f"the discriminator reads {name}")
    figure.suptitle(env_id)
    figure.savefig(IMAGES / f"{env_id}_travel.png", dpi=60)
    plt.close(figure)
