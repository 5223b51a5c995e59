"""
Does a skill help to learn a task? MountainCarContinuous, whose reward is at the end of a climb that
random actions never make: SAC from the best of ten skills, with its critics or with new ones,
against SAC from scratch.

    python -m tests.benchmarks.finetuning -o finetuning --seeds 1 2 3 4 5

Each seed has its own pretraining of 100,000 steps. What is finished is kept: run the command again
to continue. At the end it prints the table and draws ``finetuning/finetuning.png``.

    python -m tests.benchmarks.finetuning -o finetuning --seeds 1 2 3 4 5 --weights 0 0.1 1

compares the skills of pretrainings that are paid the task reward too, with these weights.
"""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills, export_skill, rank_skills
from sb3_diayn.downstream.finetuning import WarmUp
from tests.benchmarks.timing import command_line

ENV = "MountainCarContinuous-v0"
SOLVED = 90.0
EVALUATION = {"n_episodes": 3, "deterministic": True}  # as the tables of the page
N_SKILLS, PRETRAINING_STEPS, STEPS, EVAL_FREQ, N_EPISODES = 10, 100_000, 5_000, 1_000, 5
HYPERPARAMS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "ent_coef": 0.1,
    "gradient_steps": 1,
    "policy_kwargs": {"net_arch": [64, 64]},
    "device": "cpu",
}
CONDITIONS = {
    "kept": "from the best skill, critics kept",
    "reset": "from the best skill, critics reset",
    "scratch": "from scratch",
}


def make_env(n_envs: int, seed: int, skills: bool = False) -> VecEnv:
    wrapper = {"n_skills": N_SKILLS, "skill": "balanced"}
    kwargs: dict[str, Any] = {"wrapper_class": DIAYNWrapper, "wrapper_kwargs": wrapper}
    return make_vec_env(ENV, n_envs=n_envs, seed=seed, **(kwargs if skills else {}))


def pretrain(file: Path, seed: int, task_reward_weight: float = 0.0) -> SAC:
    if file.is_file():
        return SAC.load(file, device="cpu")
    env = make_env(16, seed, skills=True)
    model = SAC("MlpPolicy", env, seed=seed, learning_starts=4_000, **HYPERPARAMS)
    callback = DIAYNCallback(
        net_arch=[64, 64],
        batch_size=256,
        normalize_obs=True,
        learning_rate=1e-3,
        task_reward_weight=task_reward_weight,
    )
    model.learn(PRETRAINING_STEPS, callback=callback)
    model.save(file)
    return model


def best_of(model: SAC, seed: int) -> tuple[int, float]:
    evaluation = evaluate_skills(model, make_env(N_SKILLS, seed + 1000, skills=True), **EVALUATION)
    return rank_skills(evaluation)[0]


class Curve(BaseCallback):
    """Deterministic task returns before, every so many steps, and at the end."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.env, self.returns = make_env(N_EPISODES, seed), []

    def _measure(self) -> None:
        returns, _ = evaluate_policy(
            self.model, self.env, N_EPISODES, return_episode_rewards=True, warn=False
        )
        self.returns.append(float(np.mean(returns)))

    def _on_training_start(self) -> None:
        self._measure()

    def _on_step(self) -> bool:
        if self.num_timesteps % EVAL_FREQ == 0:
            self._measure()
        return True


def learn(condition: str, seed: int, pretrained: SAC, skill: int) -> list[float]:
    env = make_env(4, seed + 2000)
    if condition == "scratch":
        model: Any = SAC("MlpPolicy", env, seed=seed, learning_starts=1_000, **HYPERPARAMS)
    else:
        model = export_skill(pretrained, skill, env=env, reset_critics=condition == "reset")
        model.learning_starts = 1_000
    curve = Curve(seed + 3000)
    model.learn(STEPS, callback=curve if condition == "scratch" else [curve, WarmUp()])
    return curve.returns


def run(folder: Path, seed: int) -> None:
    pretrained = pretrain(folder / f"skills_{seed}.zip", seed)
    skill, task_return = best_of(pretrained, seed)
    for condition in CONDITIONS:
        file = folder / f"{condition}_{seed}.json"
        if not file.is_file():
            returns = learn(condition, seed, pretrained, skill)
            content = {"returns": returns, "skill": skill, "skill_return": task_return}
            file.write_text(json.dumps(content))
            print(seed, condition, np.round(returns, 1).tolist(), flush=True)


def read(folder: Path, condition: str, seeds: list[int]) -> np.ndarray:
    """Task returns, shape ``(seeds, evaluations)``."""
    files = [folder / f"{condition}_{seed}.json" for seed in seeds]
    return np.array([json.loads(file.read_text())["returns"] for file in files])


def print_table(folder: Path, seeds: list[int]) -> None:
    for condition, label in CONDITIONS.items():
        curves = read(folder, condition, seeds)
        solved = curves >= SOLVED
        first = [int(row.argmax()) * EVAL_FREQ if row.any() else None for row in solved]
        final = f"{curves[:, -1].mean():6.1f} +- {curves[:, -1].std():.1f}"
        print(f"{label:36s} steps to {SOLVED:.0f}: {first}   at the end: {final}")
        print(f"{'':36s} share of evaluations at {SOLVED:.0f} or more: {solved.mean():.2f}")


def plot(folder: Path, seeds: list[int]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for condition, label in CONDITIONS.items():
        curves = read(folder, condition, seeds)
        steps = np.arange(curves.shape[1]) * EVAL_FREQ
        (line,) = axes.plot(steps, curves.mean(axis=0), label=label)
        axes.plot(steps, curves.T, color=line.get_color(), alpha=0.3, linewidth=0.8)
    axes.axhline(SOLVED, color="gray", linestyle=":", linewidth=1)
    axes.set(xlabel="steps on the task", ylabel="task return", title=f"{ENV}, {len(seeds)} seeds")
    axes.legend(loc="center right", fontsize="small")
    figure.savefig(folder / "finetuning.png", dpi=90)


def weigh(folder: Path, seed: int, weight: float) -> None:
    """The skills of a pretraining that is paid the task reward too."""
    name = f"skills_{seed}.zip" if weight == 0 else f"skills_{seed}_weight_{weight}.zip"
    model = pretrain(folder / name, seed, weight)
    evaluation = evaluate_skills(model, make_env(N_SKILLS, seed + 1000, skills=True), **EVALUATION)
    returns = evaluation.task_returns.mean(axis=1)
    print(
        f"weight {weight}, seed {seed}: {(returns >= SOLVED).sum()} of {N_SKILLS} skills at "
        f"{SOLVED:.0f}, best {returns.max():.1f}, median {np.median(returns):.1f}, "
        f"accuracy {evaluation.accuracy.mean():.2f}, "
        f"skills known to D {evaluation.recognized_skills:.1f}",
        flush=True,
    )


def main() -> None:
    parser = command_line()
    parser.add_argument("-o", "--output", type=Path, default=Path("finetuning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--weights", type=float, nargs="+", help="of the task reward")
    args = parser.parse_args()
    th.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    if args.weights is not None:
        for weight, seed in itertools.product(args.weights, args.seeds):
            weigh(args.output, seed, weight)
        return
    for seed in args.seeds:
        run(args.output, seed)
    print_table(args.output, args.seeds)
    plot(args.output, args.seeds)


if __name__ == "__main__":
    main()
