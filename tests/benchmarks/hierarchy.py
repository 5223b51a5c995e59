"""
A controller of skills against flat PPO and flat SAC on the sparse hallway:
``python -m tests.benchmarks.hierarchy``. What is done is kept in the folder and not done again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.hierarchy import SkillActionVecEnv, WaitAtEnd

TASK = "sb3_diayn/PointHallway-v0"
N_ENVS = 8
N_SKILLS = 10
STEPS_PER_SKILL = 10
GAMMA = 0.99
SKILL_STEPS = 40_000
TASK_STEPS = 30_000
FLAT_STEPS = SKILL_STEPS + TASK_STEPS
BIN = 2_500
NET = {"net_arch": [64, 64]}
METHODS = ("hierarchy", "mirrored", "ppo", "sac")
MIRRORED = (0.8, -0.8)  # the other corner: do the same skills lead there?


class Successes(BaseCallback):
    """Steps of the environment and success at each end of an episode, as it was played."""

    def __init__(self, total_steps: int) -> None:
        super().__init__()
        self.steps, self.total_steps = 0, total_steps
        self.ends: list[tuple[int, bool]] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.steps += sum(info.get("primitive_steps", 1) for info in infos)
        ended = np.flatnonzero(self.locals["dones"])
        self.ends += [(self.steps, bool(infos[index]["is_success"])) for index in ended]
        return self.steps < self.total_steps


def sac(env: VecEnv, seed: int, **kwargs: Any) -> SAC:
    return SAC(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        batch_size=128,
        learning_starts=1000,
        policy_kwargs=NET,
        seed=seed,
        device="cpu",
        **kwargs,
    )


def ppo(env: VecEnv, seed: int, **kwargs: Any) -> PPO:
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=1e-3,
        ent_coef=0.01,
        policy_kwargs=NET,
        seed=seed,
        device="cpu",
        **kwargs,
    )


def learn_skills(folder: Path, seed: int) -> None:
    """No goal, no reward: nothing of the task."""
    env = make_vec_env(
        TASK,
        N_ENVS,
        seed,
        wrapper_class=DIAYNWrapper,
        wrapper_kwargs={"n_skills": N_SKILLS, "skill": "balanced"},
        env_kwargs={"goal": None},
    )
    model = sac(env, seed, ent_coef=0.1, gamma=0.95, gradient_steps=2)
    model.learn(SKILL_STEPS, callback=DIAYNCallback(net_arch=[64, 64], learning_rate=1e-3))
    model.save(folder / f"skills_{seed}.zip")


def controller_env(skills: SAC, n_envs: int, seed: int, task: dict[str, Any]) -> VecEnv:
    venv = make_vec_env(TASK, n_envs, seed, wrapper_class=WaitAtEnd, env_kwargs=task)
    return SkillActionVecEnv(venv, skills, steps_per_skill=STEPS_PER_SKILL, gamma=GAMMA)


def learn_task(folder: Path, method: str, seed: int) -> None:
    model: BaseAlgorithm
    if method in ("hierarchy", "mirrored"):
        skills = SAC.load(folder / f"skills_{seed}.zip", device="cpu", buffer_size=1)
        task = {"goal": MIRRORED} if method == "mirrored" else {}
        env = controller_env(skills, N_ENVS, seed, task)
        total, gamma = TASK_STEPS, GAMMA**STEPS_PER_SKILL
        model = ppo(env, seed, gamma=gamma, n_steps=16, batch_size=64)
        test_env = controller_env(skills, 1, seed + 1000, task)
    else:
        env = make_vec_env(TASK, N_ENVS, seed)
        total = FLAT_STEPS
        if method == "ppo":
            model = ppo(env, seed, gamma=GAMMA, n_steps=128, batch_size=256)
        else:
            model = sac(env, seed, gamma=GAMMA, train_freq=2)
        test_env = make_vec_env(TASK, 1, seed + 1000)
    log = Successes(total)
    model.learn(10**9, callback=log)
    test, _ = evaluate_policy(model, test_env, n_eval_episodes=20, return_episode_rewards=True)
    np.savez(folder / f"{method}_{seed}.npz", ends=log.ends, test=np.array(test) > 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmark_hierarchy"))
    args = parser.parse_args()
    th.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    for seed in range(args.seeds):
        if not (args.output / f"skills_{seed}.zip").exists():
            learn_skills(args.output, seed)
    for method in METHODS:
        for seed in range(args.seeds):
            file = args.output / f"{method}_{seed}.npz"
            if not file.exists():
                learn_task(args.output, method, seed)
            print(
                f"{method:9}  seed {seed}  success {np.load(file)['test'].mean():.2f}", flush=True
            )
    draw(args.output, range(args.seeds))


def success_rates(folder: Path, method: str, seeds: range) -> npt.NDArray[np.float64]:
    """Of the training episodes that end within each bin of steps, of the seeds that are done."""
    total = TASK_STEPS if method == "hierarchy" else FLAT_STEPS
    known = [seed for seed in seeds if (folder / f"{method}_{seed}.npz").exists()]
    rates = np.full((len(known), total // BIN), np.nan)
    for row, seed in zip(rates, known, strict=True):
        steps, success = np.load(folder / f"{method}_{seed}.npz")["ends"].T
        for index in range(len(row)):
            row[index] = success[(steps - 1) // BIN == index].mean()
    return rates


def draw(folder: Path, seeds: range) -> None:
    """Means over seeds, and each seed as a thin line."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.4, 3.4), layout="constrained")
    curves = [("hierarchy", SKILL_STEPS, "-", "skills, then a PPO controller")]
    curves += [("hierarchy", 0, "--", "the controller's own steps alone")]
    curves += [("ppo", 0, "-.", "flat PPO"), ("sac", 0, ":", "flat SAC")]
    for color, (method, offset, style, label) in enumerate(curves):
        rates = success_rates(folder, method, seeds)
        steps = offset + BIN * (np.arange(rates.shape[1]) + 1)
        axes.plot(steps, rates.mean(axis=0), style, color=f"C{color}", linewidth=2.5, label=label)
        axes.plot(steps, rates.T, style, color=f"C{color}", alpha=0.3, linewidth=0.8)
    axes.axvspan(0, SKILL_STEPS, color="black", alpha=0.06, label="learning skills, no reward")
    axes.set(
        xlabel="steps of the environment", ylabel="success rate in training", ylim=(-0.03, 1.03)
    )
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(folder / "hierarchy.png", dpi=90)


if __name__ == "__main__":
    main()
