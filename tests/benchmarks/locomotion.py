"""
The paper's downstream tasks on MuJoCo, from the skills in ``zoo_configs/results``: does a skill
help to learn a task, does a controller of skills solve a sparse one, and which skill imitates an
expert?

    python -m tests.benchmarks.locomotion finetuning
    python -m tests.benchmarks.locomotion hierarchy
    python -m tests.benchmarks.locomotion imitation

The experts of ``imitation`` are the policies that ``finetuning`` learns from scratch, so that goes
first. The results go into ``zoo_configs/results/downstream``, one file for each. What a file
already has is not done again: run the command again to continue. ``python -m
docs.tables.downstream`` makes the tables and the figures.
"""

import csv
import itertools
import math
import subprocess
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from scipy.spatial import KDTree  # type: ignore[import-untyped]
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecNormalize,
    sync_envs_normalization,
    unwrap_vec_normalize,
)

from sb3_diayn import DisplacementObservation, SkillEvaluation, best_skill, export_skill
from sb3_diayn.downstream import infer_skill
from sb3_diayn.downstream.export import export_vec_normalize
from sb3_diayn.downstream.hierarchy import SkillActionVecEnv, WaitAtEnd
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.zoo import Run, find_run
from sb3_diayn.zoo.hyperparams import class_entries
from tests.benchmarks.hierarchy import HeldAction
from tests.benchmarks.timing import command_line

RESULTS = Path("zoo_configs/results")
EXPERTS = "experts"  # folder of their states, below the output
CONTROLLER_FOLDER = "controllers"  # folder of those that choose skills, with their VecNormalize
SKILLS_WITHOUT_PRIOR = "skills"  # folder of their runs
N_EPISODES = 4  # of each expert
GAMMA = 0.99
CHEETAH = "displacement/ppo/HalfCheetah-v5_1"
HOPPER = "ppo/Hopper-v5_1"
FAR_HOPPER = "displacement/ppo/Hopper-v5_1"
ANT = "displacement/ppo/Ant-v5_1"
Returns = list[tuple[int, float]]  # steps of the environment since the start, return
Array = npt.NDArray[Any]
Row = dict[str, Any]


class Start(NamedTuple):
    """
    What a training on the task begins with: the best skill of a run, or nothing but the
    observations of that run.
    """

    run: str
    from_skill: bool = True
    reset_critics: bool = True


class Skills(NamedTuple):
    """
    The run whose skills a controller chooses, the environment of skills without a prior, and how
    many coordinates of the position the controller sees and they do not.
    """

    run: str
    env_id: str
    n_positions: int = 0


class Decisions(NamedTuple):
    """How long each decision lasts, arguments of the PPO that decides, and which skills it has."""

    n_steps: int
    ppo: dict[str, Any]
    has_prior: bool = True


N_STEPS = {"finetuning": 200_000, "hierarchy": 300_000}  # that each method may learn
BIN = 10_000  # steps, of whose episodes there is one row
ENDS = ("max_episode_steps", "healthy_z_range")  # of a run, where a task has its own
SKILLS = {"HalfCheetah-v5": CHEETAH, "Hopper-v5": HOPPER, "Ant-v5": ANT}
EXPERTS_OF = ("HalfCheetah-v5", "Hopper-v5")  # from scratch no ant learns to walk
FINETUNING = {
    env_id: {
        "best skill, value function reset": Start(run),
        "best skill, value function kept": Start(run, reset_critics=False),
        "scratch": Start(run, from_skill=False),
    }
    for env_id, run in SKILLS.items()
}
FINETUNING["Hopper-v5"]["best skill that travels, value function reset"] = Start(FAR_HOPPER)
HIERARCHY = {
    "sb3_diayn/HalfCheetahHurdle-v0": Skills(CHEETAH, "HalfCheetah-v5"),
    "sb3_diayn/AntWaypoints-v0": Skills(ANT, "Ant-v5", n_positions=2),
}
BRIEF = {"n_steps": 20, "batch_size": 100, "learning_rate": 3e-4}
LONG = {"n_steps": 10, "batch_size": 100, "learning_rate": 1e-3}
CONTROLLERS = {
    "controller, a skill for 50 steps": Decisions(50, LONG),
    "controller, a skill for 10 steps": Decisions(10, BRIEF),
    "controller, a skill without a prior for 50 steps": Decisions(50, LONG, has_prior=False),
    "best skill alone": Decisions(50, {}),
    "flat PPO": Decisions(1, {}),
    "flat PPO, an action for 10 steps": Decisions(10, BRIEF),
    "flat SAC": Decisions(1, {}),
}


def plain_envs(
    task: str, run: Run, n_envs: int, seed: int, *wrappers: Any, sees_positions: bool = False
) -> VecEnv:
    """
    The environments of a task, observed as by the skills of ``run``, but without skills. Their
    episodes end as the task says.
    """
    kwargs = {key: value for key, value in run.env_kwargs.items() if key not in ENDS}
    displacement = displacement_of(run)
    if sees_positions:
        kwargs["exclude_current_positions_from_observation"] = False
        displacement = displacement and displacement | {"keep": True}

    def wrap(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        if displacement:
            env = DisplacementObservation(env, **displacement)
        for wrapper in wrappers:
            env = wrapper(env)
        return env

    return make_vec_env(task, n_envs, seed, wrapper_class=wrap, env_kwargs=kwargs)


def displacement_of(run: Run) -> dict[str, Any]:
    """Arguments of a run's DisplacementObservation, if it has one."""
    wrappers = dict(class_entries(run.hyperparams, "env_wrapper"))
    return dict(wrappers.get("sb3_diayn.DisplacementObservation", {}))


def statistics_of(run: Run) -> VecNormalize:
    """What the policy of a run was trained with."""
    statistics = unwrap_vec_normalize(run.make_env())
    assert statistics is not None
    return statistics


class DeterministicReturns(BaseCallback):
    """Mean returns of five episodes before the training, every 20,000 steps, and at the end."""

    def __init__(self, env: VecEnv, every: int = 20_000) -> None:
        super().__init__()
        self.env, self.every = env, every
        self.returns: Returns = []

    def _measure(self) -> None:
        sync_envs_normalization(self.training_env, self.env)
        mean, _ = evaluate_policy(self.model, self.env, self.env.num_envs, warn=False)
        self.returns.append((self.num_timesteps, float(mean)))  # type: ignore[arg-type]

    def _on_training_start(self) -> None:
        self._measure()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            self._measure()
        return True


class PlayedReturns(BaseCallback):
    """Return of each episode of the training; ends the training after ``n_steps`` steps."""

    def __init__(self, n_steps: int) -> None:
        super().__init__()
        self.steps, self.n_steps = 0, n_steps
        self.returns: Returns = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self.steps += sum(info.get("primitive_steps", 1) for info in infos)
        ended = [info["episode"] for info in infos if "episode" in info]
        self.returns += [(self.steps, float(episode["r"])) for episode in ended]
        return self.steps < self.n_steps


def ppo(env: VecEnv, seed: int, **kwargs: Any) -> PPO:
    options = {"n_steps": 100, "batch_size": 500, "gamma": GAMMA, "device": "cpu"}
    return PPO("MlpPolicy", env, seed=seed, **(options | kwargs))


def finetune(folder: Path, env_id: str, seed: int, method: str) -> list[Row]:
    """PPO on the task, with the same hyperparameters from a skill and from scratch."""
    start = FINETUNING[env_id][method]
    run = find_run(RESULTS / start.run)
    env, test_env = plain_envs(env_id, run, 20, seed), plain_envs(env_id, run, 5, seed + 1000)
    normalized = VecNormalize(env, gamma=GAMMA)
    model = ppo(normalized, seed)
    if start.from_skill:
        statistics, trained = statistics_of(run), run.load_model(device="cpu")
        skill = best_skill(SkillEvaluation.load(run.folder / "evaluation.json"))
        normalized.obs_rms = export_vec_normalize(statistics, env).obs_rms
        exported = export_skill(
            trained,
            skill,
            env=normalized,
            vec_normalize=statistics,
            reset_critics=start.reset_critics,
        )
        model.policy.load_state_dict(exported.policy.state_dict())
    test = VecNormalize(test_env, training=False, norm_reward=False)
    callback = DeterministicReturns(test)
    model.learn(N_STEPS["finetuning"], callback=callback)
    if not start.from_skill:
        states = play(model, normalized, plain_envs(env_id, run, N_EPISODES, seed + 2000))
        (folder / EXPERTS).mkdir(exist_ok=True)
        np.savez(folder / EXPERTS / f"{env_id}_{seed}.npz", *states)
    return as_rows(callback.returns)


def play(model: PPO, normalizer: VecNormalize, env: VecEnv) -> list[Array]:
    """The states of an episode of each environment, with sampled actions."""
    obs, playing = env.reset(), np.ones(env.num_envs, bool)
    states: list[list[Array]] = [[] for _ in playing]
    while playing.any():
        actions, _ = model.predict(normalizer.normalize_obs(obs))  # type: ignore[arg-type]
        obs, _, dones, infos = env.step(actions)
        for i in np.flatnonzero(playing):
            states[i].append(infos[i]["terminal_observation"] if dones[i] else obs[i])  # type: ignore[index]
        playing &= ~dones
    return [np.array(each, np.float32) for each in states]


def imitate(folder: Path, env_id: str, seed: int, _: str) -> list[Row]:
    """
    Which skill is retrieved for each episode of an expert, and how near it is: the mean distance
    of the expert's states to the nearest state of the skill, each coordinate divided by its
    standard deviation over all of these states. It does not ask for the same state at the same
    step, since a gait has no fixed phase.
    """
    run = find_run(RESULTS / SKILLS[env_id])
    with run.open(run.n_skills, device="cpu") as (model, env):
        skills = range(run.n_skills)
        episodes = list(play_skills(model, env, skills, seed=0, deterministic=False))
    experts = np.load(folder / EXPERTS / f"{env_id}_{seed}.npz")
    every = [*(episode.states for episode in episodes), *experts.values()]
    scale = np.concatenate(every).std(axis=0)
    trees = {episode.skill: KDTree(episode.states / scale) for episode in episodes}
    discriminator = run.load_discriminator()
    rows = []
    for name, states in experts.items():
        distances = [trees[skill].query(states / scale)[0].mean() for skill in skills]
        skill = infer_skill(discriminator, states).skill
        found = {
            "skill": skill,
            "retrieved": distances[skill],
            "nearest": min(distances),
            "mean": np.mean(distances),
            "rank": 1 + sum(distance < distances[skill] for distance in distances),
        }
        rows.append({"episode": name.removeprefix("arr_"), "length": len(states)} | found)
    return rows


def as_rows(returns: Returns) -> list[Row]:
    return [{"steps": steps, "return": value} for steps, value in returns]


def as_bins(returns: Returns) -> list[Row]:
    """The episodes that end within each 10,000 steps: how many, their mean, and the best."""
    bins: dict[int, list[float]] = {}
    for steps, value in returns:
        end = min(math.ceil(steps / BIN) * BIN, N_STEPS["hierarchy"])
        bins.setdefault(end, []).append(value)
    return [
        {"steps": steps, "episodes": len(found), "return": np.mean(found), "best": max(found)}
        for steps, found in sorted(bins.items())
    ]


def without_prior(folder: Path, env_id: str) -> Run:
    """
    Five skills, learned as by the provided configuration: the discriminator reads everything. They
    are learned where the folder does not have them.
    """
    run = folder / "ppo" / f"{env_id}_1"
    if not (run / f"{env_id}.zip").is_file():
        options = f"--algo ppo --env {env_id} --n-skills 5 --seed 0 --device cpu --no-report"
        subprocess.run(["sb3-diayn", "train", *options.split(), "-f", str(folder)], check=True)
    return find_run(run)


def control(output: Path, env_id: str, seed: int, method: str) -> list[Row]:
    """A sparse task, by a controller of skills or without skills."""
    n_steps, (k, options, has_prior) = N_STEPS["hierarchy"], CONTROLLERS[method]
    folder, skills_env_id, n_positions = HIERARCHY[env_id]
    if has_prior:
        run = find_run(RESULTS / folder)
    else:
        run = without_prior(output / SKILLS_WITHOUT_PRIOR, skills_env_id)
    envs = partial(plain_envs, env_id, run, 20, seed, sees_positions=n_positions > 0)

    def skills_env() -> SkillActionVecEnv:
        """Actions are skills, played as they were trained: with samples."""
        return SkillActionVecEnv(
            envs(WaitAtEnd),
            run.load_model(device="cpu"),
            steps_per_skill=k,
            gamma=GAMMA,
            deterministic=False,
            vec_normalize=statistics_of(run),
            obs_indices=f"{n_positions}:",
        )

    if method == "best skill alone":
        return as_bins(best_alone(skills_env(), run.n_skills, n_steps))
    model: BaseAlgorithm
    if method == "flat SAC":  # one update for 20 steps
        model = SAC(
            "MlpPolicy",
            envs(),
            train_freq=1,
            learning_starts=10_000,
            policy_kwargs={"net_arch": [128, 128]},
            seed=seed,
            device="cpu",
        )
    else:
        is_flat = method.startswith("flat")
        env = envs(partial(HeldAction, n_steps=k)) if is_flat else skills_env()
        normalized = VecNormalize(env, norm_reward=False)
        model = ppo(normalized, seed, gamma=GAMMA**k, ent_coef=0.01, **options)
    callback = PlayedReturns(n_steps)
    model.learn(10**9, callback=callback)
    if method.startswith("controller"):
        (output / CONTROLLER_FOLDER).mkdir(exist_ok=True)
        prior = "" if has_prior else "_without_prior"
        name = f"{env_id.rpartition('/')[2]}_{k}_steps{prior}_{seed}"
        file = output / CONTROLLER_FOLDER / name
        model.save(file)
        normalized.save(f"{file}.pkl")
    return as_bins(callback.returns)


def best_alone(env: SkillActionVecEnv, n_skills: int, n_steps: int) -> Returns:
    """Returns of the skill that is best in twenty episodes, in twenty others."""
    means = [np.mean(play_alone(env, skill)) for skill in range(n_skills)]
    return [(n_steps, value) for value in play_alone(env, int(np.argmax(means)))]


def play_alone(env: SkillActionVecEnv, skill: int) -> list[float]:
    """The return of an episode of each environment."""
    env.reset()
    returns: dict[int, float] = {}
    while len(returns) < env.num_envs:
        infos = env.step(np.full(env.num_envs, skill))[3]
        ended = {i: info["episode"]["r"] for i, info in enumerate(infos) if "episode" in info}
        returns = ended | returns
    return list(returns.values())


# Of each experiment the methods on each environment, and what makes the rows of one seed.
EXPERIMENTS: dict[str, tuple[Mapping[str, Iterable[str]], Callable[..., list[Row]]]] = {
    "finetuning": (FINETUNING, finetune),
    "hierarchy": (dict.fromkeys(HIERARCHY, CONTROLLERS), control),
    "imitation": (dict.fromkeys(EXPERTS_OF, ("retrieved skill",)), imitate),
}


def main() -> None:
    parser = command_line()
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--envs", nargs="+", help="default: all")
    parser.add_argument("--methods", nargs="+", help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "downstream")
    args = parser.parse_args()
    th.set_num_threads(1)
    methods, make_rows = EXPERIMENTS[args.experiment]
    file = args.output / f"{args.experiment}.csv"
    args.output.mkdir(parents=True, exist_ok=True)
    done = set()
    if file.is_file():
        with file.open(newline="") as lines:
            done = {(row["env"], row["method"], row["seed"]) for row in csv.DictReader(lines)}
    for seed, env_id in itertools.product(args.seeds, args.envs or methods):
        for method in methods[env_id]:
            is_wanted = args.methods is None or method in args.methods
            if is_wanted and (env_id, method, str(seed)) not in done:
                found = make_rows(args.output, env_id, seed, method)
                named = {"env": env_id, "method": method, "seed": seed}
                append(file, [named | row for row in found])
                print(*named.values(), found[-1], flush=True)


def append(file: Path, rows: list[Row]) -> None:
    is_new = not file.is_file()
    with file.open("a", newline="") as lines:
        writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
        if is_new:
            writer.writeheader()
        for row in rows:
            numbers = {k: f"{v:.5g}" for k, v in row.items() if isinstance(v, float)}
            writer.writerow(row | numbers)


if __name__ == "__main__":
    main()
