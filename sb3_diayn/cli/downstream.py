"""What export, finetune and imitate do: they use skills."""

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_diayn.cli.evaluation import (
    cached_evaluation,
    chosen_skills,
    evaluate_run,
    film_run,
    open_run,
    wanted,
)
from sb3_diayn.cli.options import N_EPISODES
from sb3_diayn.cli.training import training_options
from sb3_diayn.downstream.imitation import (
    Demonstration,
    SkillInference,
    infer_skill,
    load_demonstration,
)
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.zoo.downstream import export_run, finetune, task_returns
from sb3_diayn.zoo.provenance import enjoy_command
from sb3_diayn.zoo.runs import Run
from sb3_diayn.zoo.settings import TrainingOptions

TOLERANCE = 1e-3  # of states, absolute and relative: float32, and other processors


def export(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn export``."""
    run = open_run(args)
    folder = check_writable(args.output or run.folder / "skills")
    for skill in _chosen_skills(run, args):
        exported = export_run(run, skill, folder)
        print(f"skill {skill:3d}: {exported.folder}\n           {enjoy_command(exported)}")


def finetune_command(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn finetune``."""
    run = open_run(args)
    options = training_options(args)
    TrainingOptions(**options)  # refuses what is wrong before the work
    skills = _chosen_skills(run, args)
    if len(skills) != 1:
        raise ValueError(
            f"skill={args.skill!r} names {len(skills)} skills; expected one to start from. Pass "
            "an index, or best."
        )
    if options["seed"] is None:
        options["seed"] = int(np.random.default_rng().integers(2**31))
    n_episodes = args.episodes or N_EPISODES
    with tempfile.TemporaryDirectory() as folder:
        exported = export_run(run, skills[0], folder)
        print_returns("before", exported, args.device, n_episodes, options["seed"] + 1)
    tuned = finetune(run, skills[0], reset_critics=args.reset_critics, **options)
    print_returns("after", tuned, args.device, n_episodes, options["seed"] + 1)
    print(f"Run saved in {tuned.folder}\nPlay it: {enjoy_command(tuned)}")


def print_returns(moment: str, run: Run, device: str, n_episodes: int, seed: int) -> None:
    """Play a run without skills, and print its task return."""
    returns = task_returns(run, run.load_model(device=device), n_episodes, seed)
    mean, deviation = np.mean(returns), np.std(returns)
    print(
        f"Task return {moment}: {mean:.1f} +- {deviation:.1f}, {n_episodes} episodes with "
        "deterministic actions"
    )


def _chosen_skills(run: Run, args: argparse.Namespace) -> list[int]:
    def evaluation() -> SkillEvaluation:
        return cached_evaluation(run, **wanted(args)) or evaluate_run(run, args)

    return chosen_skills(run, args.skill, evaluation)


def imitate(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn imitate``."""
    run = open_run(args)
    expert = load_demonstration(args.trajectory, episode=args.episode)
    found = infer_skill(run.load_discriminator(), expert)
    print(f"The trajectory looks like skill {found.skill}.")
    ranked = np.argsort(-found.log_q.mean(axis=0))
    for skill in ranked[:3]:
        print(f"skill {skill:3d}   {describe_match(found, skill)}")
    print(f"Decided at step {found.decided_at + 1} of {len(found.log_q)}.")
    if not args.no_films:
        folder = check_writable(args.output or run.folder / "imitation")
        print(*film_imitation(run, args, expert, found.skill, folder), sep="\n")


def describe_match(found: SkillInference, skill: int) -> str:
    """How well a skill matches the trajectory, in words."""
    if not found.has_probabilities:
        return f"phi moves {found.log_q[:, skill].sum():.2f} along it"
    return (
        f"posterior {found.posterior[skill]:.3f}   mean q {found.mean_q[skill]:.3f}   "
        f"mean log q {found.log_q[:, skill].mean():.2f} nats"
    )


def film_imitation(
    run: Run, args: argparse.Namespace, expert: Demonstration, skill: int, folder: Path
) -> list[Path]:
    """Film a skill and, where it can be replayed, the expert; then the two side by side."""
    with require_extra("report"):
        from sb3_diayn.evaluation.video import record_grid, record_skills, steps_per_second
    seed = args.seed if expert.seed is None else expert.seed  # both from the same start
    films = [film_run(run, args, folder, skills=[skill], seed=seed)[skill]]
    with run.open(seed=seed, device=args.device, render_mode="rgb_array") as (model, env):
        reason = why_no_replay(model, env, expert)
        if reason is not None:
            print(f"The expert's film is left out: {reason}")
            return films
        assert expert.actions is not None
        longest = args.film_steps or math.ceil(args.film_seconds * steps_per_second(env))
        (film_of_expert,) = record_skills(
            model,
            Replay(env, expert.actions),
            folder / "expert",
            skills=[skill],
            max_steps=min(longest, len(expert.actions)),
            seed=seed,
            caption="expert",
        ).values()
    both = dict(enumerate([film_of_expert, *films]))
    return [film_of_expert, *films, record_grid(both, folder / "expert_and_skill.mp4")]


class Replay(VecEnvWrapper):
    """
    Plays an expert's actions in the first environment, whatever a model would do there.

    :param venv: vectorised environments
    :param actions: as the environment takes them, shape ``(T, ...)``: for T steps
    """

    def __init__(self, venv: VecEnv, actions: npt.NDArray[Any]) -> None:
        super().__init__(venv)
        self._actions = actions

    def reset(self) -> Any:
        """:return: first observations"""
        self._step = 0
        return self.venv.reset()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """:param actions: a model's, of which the first is replaced by the expert's"""
        actions = np.array(actions)
        actions[0] = self._actions[self._step]
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as any vectorised environment"""
        self._step += 1
        return self.venv.step_wait()


def why_no_replay(model: BaseAlgorithm, env: VecEnv, expert: Demonstration) -> str | None:
    """
    :param model: a model with skills
    :param env: vectorised environments that fit it
    :param expert: what to play again
    :return: why playing the expert's actions does not lead to its states; None if it does
    """
    if expert.actions is None or expert.seed is None:
        return "there is no array 'actions' or no 'seed' to play it again by"
    width = expert.actions.shape[1:]
    if width != env.action_space.shape:
        return (
            f"its actions have shape {width} each, not the environment's {env.action_space.shape}"
        )
    replay = Replay(env, expert.actions)
    max_steps = len(expert.actions)
    (episode,) = play_skills(model, replay, [0], seed=expert.seed, max_steps=max_steps)
    states = expert.observations
    if len(episode) != len(states) or not np.allclose(episode.states, states, TOLERANCE, TOLERANCE):
        return "its actions lead to other states here: another environment or version"
    return None
