"""
A controller of skills against flat PPO and flat SAC on a sparse task.

    python -m tests.benchmarks.hierarchy

What is done is kept in the folder and not done again.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
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
from sb3_diayn.downstream.hierarchy import SkillActionVecEnv, WaitAtEnd
from tests.benchmarks.timing import command_line

TASK = "sb3_diayn/PointUMaze-v0"
OPEN_ROOM = "sb3_diayn/PointBox-v0"
N_ENVS = 16
N_SKILLS = 20
STEPS_PER_SKILL = 10
GAMMA = 0.99
SKILL_STEPS = 15_000
TASK_STEPS = 30_000
FLAT_STEPS = SKILL_STEPS + TASK_STEPS
BIN = 5_000  # longer than an episode of all environments
NET = {"net_arch": [64, 64]}
METHODS = {
    "controller": "skills, then a PPO controller",
    "ppo": "flat PPO",
    "sac": "flat SAC",
    "held": f"flat PPO, each action held {STEPS_PER_SKILL} steps",
}


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


class HeldAction(gym.Wrapper[Any, Any, Any, Any]):
    """A controller without skills: one decision every so many steps."""

    def __init__(self, env: gym.Env[Any, Any], n_steps: int = STEPS_PER_SKILL) -> None:
        super().__init__(env)
        self.n_steps = n_steps

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        total, steps, done = 0.0, 0, False
        while steps < self.n_steps and not done:
            obs, reward, terminated, truncated, info = self.env.step(action)
            total, steps, done = total + float(reward), steps + 1, terminated or truncated
        return obs, total, terminated, truncated, {**info, "primitive_steps": steps}


def shared_options() -> dict[str, Any]:
    """For SAC and PPO. SB3 adds keys of its own to the network's."""
    return {"learning_rate": 1e-3, "policy_kwargs": dict(NET), "device": "cpu"}


def sac(env: VecEnv, seed: int, **kwargs: Any) -> SAC:
    options = shared_options() | {"batch_size": 128, "learning_starts": 1000} | kwargs
    return SAC("MlpPolicy", env, seed=seed, **options)


def ppo(env: VecEnv, seed: int, **kwargs: Any) -> PPO:
    return PPO("MlpPolicy", env, seed=seed, **(shared_options() | {"ent_coef": 0.01} | kwargs))


def learn_skills(file: Path, seed: int) -> None:
    """In an open room, by velocity: no walls, no goal, no reward, nothing of the task."""
    env = make_vec_env(
        OPEN_ROOM,
        N_ENVS,
        seed,
        wrapper_class=DIAYNWrapper,
        wrapper_kwargs={
            "n_skills": N_SKILLS,
            "skill": "balanced",
            "skill_duration": STEPS_PER_SKILL,
        },
        env_kwargs={"velocity": True},
    )
    model = sac(env, seed, ent_coef=0.1, gamma=0.9, gradient_steps=4)
    callback = DIAYNCallback(obs_indices="2:4", net_arch=NET["net_arch"], learning_rate=1e-3)
    model.learn(SKILL_STEPS, callback=callback)
    model.save(file)


def task_env(method: str, n_envs: int, seed: int, skills: SAC | None) -> VecEnv:
    wrappers: dict[str, type[gym.Wrapper[Any, Any, Any, Any]]] = {
        "held": HeldAction,
        "controller": WaitAtEnd,
    }
    env = make_vec_env(TASK, n_envs, seed, wrapper_class=wrappers.get(method))
    if skills is None:
        return env
    return SkillActionVecEnv(env, skills, steps_per_skill=STEPS_PER_SKILL, gamma=GAMMA)


def learn_task(folder: Path, method: str, seed: int) -> None:
    skills = None
    if method == "controller":
        skills = SAC.load(folder / f"skills_{seed}.zip", device="cpu", buffer_size=1)
    env, test_env = (
        task_env(method, n_envs, first_seed, skills)
        for n_envs, first_seed in ((N_ENVS, seed), (1, seed + 1000))
    )
    model: BaseAlgorithm
    if method == "sac":
        model = sac(env, seed, gamma=GAMMA, train_freq=1)
    elif method == "ppo":
        model = ppo(env, seed, gamma=GAMMA, n_steps=64, batch_size=256)
    else:
        model = ppo(env, seed, gamma=GAMMA**STEPS_PER_SKILL, n_steps=8, batch_size=64)
    log = Successes(TASK_STEPS if skills else FLAT_STEPS)
    model.learn(10**9, callback=log)
    test, _ = evaluate_policy(model, test_env, n_eval_episodes=20, return_episode_rewards=True)
    np.savez(folder / f"{method}_{seed}.npz", ends=log.ends, test=np.array(test) > 0)


def main() -> None:
    parser = command_line()
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmark_hierarchy"))
    args = parser.parse_args()
    th.set_num_threads(1)
    folder = args.output
    folder.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for method in args.methods:
            skills, result = folder / f"skills_{seed}.zip", folder / f"{method}_{seed}.npz"
            if method == "controller" and not skills.exists():
                learn_skills(skills, seed)
            if not result.exists():
                learn_task(folder, method, seed)
            describe(result)
    draw(folder, args.methods)


def describe(result: Path) -> None:
    """Success of the tests, and the bin since which 90 % of the training episodes succeed."""
    rates = success_rates(result)
    unsolved = np.flatnonzero(rates < 0.9)
    first = unsolved[-1] + 1 if len(unsolved) else 0
    since = f"{BIN * (first + 1):,}" if first < len(rates) else "never"
    ends, test = (np.load(result)[key] for key in ("ends", "test"))
    print(
        f"{result.stem:12}  success {test.mean():.2f}  steps to 90 % in training: {since}"
        f"  successes: {int(ends[:, 1].sum()):,} of {len(ends):,}",
        flush=True,
    )


def success_rates(result: Path) -> npt.NDArray[np.float64]:
    """Of the training episodes that end within each bin of steps."""
    steps, success = np.load(result)["ends"].T
    bins = (steps - 1) // BIN
    return np.array([success[bins == index].mean() for index in range(round(steps.max() / BIN))])


def draw(folder: Path, methods: list[str]) -> None:
    """Means over seeds, and each seed as a thin line."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8.8, 3.4), layout="constrained")
    for color, method in enumerate(methods):
        rates = [success_rates(file) for file in sorted(folder.glob(f"{method}_*.npz"))]
        length = min(map(len, rates))
        curves = np.array([rate[:length] for rate in rates])
        steps = BIN * (np.arange(length) + 1)
        if method == "controller":
            own = {"linestyle": ":", "label": "the controller's own steps alone"}
            axes.plot(steps, curves.mean(axis=0), color=f"C{color}", lw=2, **own)
            steps += SKILL_STEPS
        axes.plot(steps, curves.mean(axis=0), color=f"C{color}", lw=2.5, label=METHODS[method])
        axes.plot(steps, curves.T, color=f"C{color}", alpha=0.3, lw=0.8)
    axes.axvspan(0, SKILL_STEPS, color="black", alpha=0.06, label="learning skills, no reward")
    axes.set(
        xlabel="steps of the environment", ylabel="success rate in training", ylim=(-0.03, 1.03)
    )
    axes.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    figure.savefig(folder / "hierarchy.png", dpi=90)


if __name__ == "__main__":
    main()
