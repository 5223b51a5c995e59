"""
Draws each skill as the model plays it and as its exported model does, for the skills of
examples/composition.py.

    python -m tests.benchmarks.export skills.zip
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_diayn import DIAYNWrapper, export_skill
from sb3_diayn.evaluation.plotting import skill_colors
from tests.benchmarks.timing import command_line

ENV, N_SKILLS = "sb3_diayn/PointBox-v0", 8


def path(model: BaseAlgorithm, env: gym.Env[Any, Any]) -> np.ndarray[Any, Any]:
    """Positions of one deterministic episode, shape ``(101, 2)``."""
    obs, _ = env.reset(seed=0)
    points = [obs[:2]]
    for _ in range(100):
        obs, *_ = env.step(model.predict(obs, deterministic=True)[0])
        points.append(obs[:2])
    return np.array(points)


def differences(model: BaseAlgorithm, skill: int, plain: BaseAlgorithm) -> np.ndarray[Any, Any]:
    """Largest difference of the actions on each of 1,000 random observations, shape (1000,)."""
    obs = np.random.default_rng(0).uniform(-1, 1, (1000, 2)).astype(np.float32)
    one_hot = np.eye(N_SKILLS, dtype=np.float32)[[skill] * 1000]
    actions, _ = model.predict(np.hstack([obs, one_hot]), deterministic=True)
    difference: np.ndarray[Any, Any] = actions - plain.predict(obs, deterministic=True)[0]
    return np.abs(difference).max(axis=1)


def main() -> None:
    parser = command_line()
    parser.add_argument("model", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("export.png"))
    args = parser.parse_args()
    th.set_num_threads(1)
    model = SAC.load(args.model, device="cpu", buffer_size=1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    for skill, color in enumerate(skill_colors(N_SKILLS)):
        plain = export_skill(model, skill)
        played = path(model, DIAYNWrapper(gym.make(ENV), N_SKILLS, skill=skill))
        exported = path(plain, gym.make(ENV))
        left.plot(*played.T, color=color, linewidth=5, alpha=0.3)
        left.plot(*exported.T, color=color, linewidth=1)
        left.annotate(str(skill), exported[30], fontsize=9)
        apart = differences(model, skill, plain)
        right.scatter([skill] * len(apart), apart + 1e-10, color=color, s=4, alpha=0.2)
        print(
            f"skill {skill}: paths apart by {np.abs(played - exported).max():.1e} lengths, "
            f"actions by {apart.max():.1e}"
        )
    left.set(xlabel="x [lengths]", ylabel="y [lengths]", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05))
    left.set_title("the model (wide), its exports (thin)", fontsize="medium")
    right.axhline(1e-6, color="black", linestyle=":")
    right.set(xlabel="skill", yscale="log", ylim=(5e-11, 1e-5))
    right.set_title("difference of actions, plus 1e-10", fontsize="medium")
    figure.savefig(args.output, dpi=80)


if __name__ == "__main__":
    main()
