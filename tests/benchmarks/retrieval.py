"""
Is the retrieved skill closer to the expert than the mean skill? Experts are the skills of another
seed's model, and a walker written by hand.

    python -m tests.benchmarks.retrieval

Skills that are in the folder are not learned again.
"""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env

from sb3_diayn import DIAYNCallback, DIAYNWrapper, load_discriminator
from sb3_diayn.downstream import infer_skill
from sb3_diayn.evaluation.trajectories import play_skills
from tests.benchmarks.hierarchy import sac
from tests.benchmarks.timing import command_line

TASK = "sb3_diayn/PointHallway-v0"
N_SKILLS = 10
SKILL_STEPS = 40_000

# Where the walker goes: along the corridor, and to the room's middle, corners and walls.
TARGETS = [(-1.5, 0), (-1, 0), (-0.5, 0), (0.2, 0), (0.5, 0), (0.9, 0), (0.5, 0.9), (0.5, -0.9)]
TARGETS += [(0.9, 0.9), (0.9, -0.9)]

Array = np.ndarray[Any, Any]


def learn_skills(file: Path, seed: int) -> None:
    env = make_vec_env(
        TASK,
        8,
        seed,
        wrapper_class=DIAYNWrapper,
        wrapper_kwargs={"n_skills": N_SKILLS, "skill": "balanced"},
        env_kwargs={"goal": None},
    )
    model = sac(env, seed, ent_coef=0.1, gamma=0.95, gradient_steps=2)
    model.learn(SKILL_STEPS, callback=DIAYNCallback(net_arch=[64, 64], learning_rate=1e-3))
    model.save(file)


def play(file: Path) -> Array:
    """States of each skill, shape ``(K, 100, 2)``."""
    env = make_vec_env(
        TASK,
        wrapper_class=DIAYNWrapper,
        wrapper_kwargs={"n_skills": N_SKILLS},
        env_kwargs={"goal": None},
    )
    model = SAC.load(file, device="cpu", buffer_size=1)
    episodes = play_skills(model, env, range(N_SKILLS), seed=0)
    return np.stack([e.states for e in sorted(episodes, key=lambda episode: episode.skill)])


def walk(target: tuple[float, float]) -> Array:
    """States of a walker that follows the corridor and then heads for its target."""
    env = gym.make(TASK, goal=None)
    obs, _ = env.reset(seed=0)
    states = []
    for _ in range(100):
        waypoint = np.array(target if obs[0] > -0.01 or target[0] < 0 else (0.0, 0.0))
        obs, *_ = env.step(np.clip((waypoint - obs) / 0.1, -1, 1).astype(np.float32))
        states.append(obs)
    return np.stack(states)


def compare(file: Path, skills: Array, expert: Array) -> dict[str, float]:
    """Mean distances of states at the same step, in lengths of the room."""
    found = infer_skill(load_discriminator(file), expert)
    distances = np.linalg.norm(skills - expert, axis=-1).mean(axis=1)
    return {
        "skill": found.skill,
        "retrieved": distances[found.skill],
        "mean": distances.mean(),
        "best": distances.min(),
        "rank": int((distances < distances[found.skill]).sum()) + 1,
        "decided_at": found.decided_at,
    }


def main() -> None:
    parser = command_line()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmark_retrieval"))
    args = parser.parse_args()
    th.set_num_threads(1)
    args.output.mkdir(parents=True, exist_ok=True)
    files = [args.output / f"skills_{seed}.zip" for seed in range(args.seeds)]
    for seed, file in enumerate(files):
        if not file.exists():
            learn_skills(file, seed)
    plays = [play(file) for file in files]
    walks = [walk(target) for target in TARGETS]
    results: dict[str, list[dict[str, float]]] = {"another seed's skills": [], "walker": []}
    for index, file in enumerate(files):
        experts = {"another seed's skills": plays[(index + 1) % len(plays)], "walker": walks}
        for name, trajectories in experts.items():
            found = [compare(file, plays[index], expert) for expert in trajectories]
            results[name] += found
            closer = sum(each["retrieved"] < each["mean"] for each in found)
            print(f"{file.stem}  {name:22} closer than the mean skill: {closer} of {len(found)}")
    for name, found in results.items():
        columns = {key: np.array([each[key] for each in found]) for key in found[0]}
        share = (columns["retrieved"] < columns["mean"]).mean()
        medians = {key: float(np.median(columns[key])) for key in columns if key != "skill"}
        print(f"{name}: closer in {share:.0%} of {len(found)}; medians {medians}")
    draw(results, walks, plays[0], [compare(files[0], plays[0], w) for w in walks], args.output)


def draw(
    results: dict[str, list[dict[str, float]]],
    walks: list[Array],
    skills: Array,
    found: list[dict[str, float]],
    folder: Path,
) -> None:
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for (name, each), marker in zip(results.items(), "ox", strict=True):
        points = np.array([(one["mean"], one["retrieved"]) for one in each])
        left.scatter(*points.T, label=name, marker=marker, s=18, alpha=0.7)
    limit = left.get_xlim()[1]
    left.plot([0, limit], [0, limit], color="black", linestyle=":")
    left.set(xlabel="distance of the mean skill [lengths]", ylabel="of the retrieved skill")
    left.legend(frameon=False, fontsize="small")
    for index in (1, 5, 6, 9):
        (line,) = right.plot(*walks[index].T, linewidth=4, alpha=0.35)
        skill = int(found[index]["skill"])
        right.plot(*skills[skill].T, color=line.get_color(), linewidth=1, label=f"skill {skill}")
    right.set(xlabel="x [lengths]", ylabel="y [lengths]", xlim=(-2.05, 1.05), ylim=(-1.05, 1.05))
    right.legend(frameon=False, fontsize="small", loc="lower left")
    right.set_title("walkers (wide) and their skills, seed 0", fontsize="medium")
    figure.savefig(folder / "retrieval.png", dpi=90)


if __name__ == "__main__":
    main()
