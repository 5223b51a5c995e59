"""
Draws where mixtures and schedules of skills lead, for the skills of examples/composition.py.

    python -m tests.benchmarks.composition skills.zip
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3 import SAC

from sb3_diayn.downstream import ScheduledSkills
from sb3_diayn.evaluation.plotting import skill_colors
from tests.benchmarks.export import ENV, N_SKILLS, path
from tests.benchmarks.timing import command_line

SCHEDULE = [(0, 20), (1, 20), ({0: 1, 1: 1}, 20), (2, 20), (3, 20)]


def scheduled_path(model: SAC, schedule: Any) -> np.ndarray[Any, Any]:
    """Positions of one deterministic episode, shape ``(101, 2)``."""
    return path(model, ScheduledSkills(gym.make(ENV), N_SKILLS, schedule))


def main() -> None:
    parser = command_line()
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("composition.png"))
    args = parser.parse_args()
    model = SAC.load(args.model, device="cpu", buffer_size=1)
    figure, panels = plt.subplots(1, 3, figsize=(9, 3.3), sharey=True, layout="constrained")
    for skill, color in enumerate(skill_colors(N_SKILLS)):
        points = scheduled_path(model, [(skill, 1)])
        panels[0].plot(*points.T, color=color)
        panels[0].annotate(str(skill), points[30], fontsize=9)
    for share in (0, 1, 2, 3, 4):
        mixture = {z: part for z, part in ((0, 4 - share), (1, share)) if part}
        points = scheduled_path(model, [(mixture, 1)])
        panels[1].plot(*points.T, color=plt.get_cmap("viridis")(share / 4.5))
        panels[1].annotate(f"{share / 4:.2f}", points[-1], ha="center", va="bottom", fontsize=7)
        print(f"share {share / 4:.2f} of skill 1: ends at {points[-1].round(2)}")
    panels[2].plot(*scheduled_path(model, SCHEDULE).T, color="black", marker=".", markersize=3)
    titles = ("single skills", "skill 0 to skill 1, by its share", "a schedule, 20 steps each")
    for panel, title in zip(panels, titles, strict=True):
        panel.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.15), title=title, aspect="equal")
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
