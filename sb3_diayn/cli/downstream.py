"""The commands that use skills."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_diayn.cli.evaluation import known_evaluation, parse_skills
from sb3_diayn.cli.options import (
    Add,
    _film_steps,
    _learning,
    _logging,
    _measuring,
    _output,
    _positive,
    _run,
    _run_name,
)
from sb3_diayn.downstream.finetuning import rank_skills
from sb3_diayn.downstream.imitation import Demonstration, infer_skill, load_demonstration
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.zoo.downstream import export_run, task_returns
from sb3_diayn.zoo.downstream import finetune as finetune_run
from sb3_diayn.zoo.runs import Run, film, find_run, measure, open_run


def export(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn export``

    :param args: its options
    """
    run = find_run(args.run, args.env)
    folder = check_writable(args.output or run.folder / "skills")
    for skill in _choose(run, args):
        exported = export_run(run, skill, folder)
        algo, number = exported.folder.parent.name, exported.folder.name.rpartition("_")[2]
        print(f"skill {skill:3d}: {exported.folder}")
        words = f"--algo {algo} --env {run.env_id} -f {folder} --exp-id {number}"
        print(f"           python -m rl_zoo3.enjoy {words}")


def finetune(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn finetune``

    :param args: its options
    """
    run = find_run(args.run, args.env)
    skills = _choose(run, args)
    if len(skills) != 1:
        raise ValueError(
            f"skill={args.skill!r} names {len(skills)} skills; expected one to start from. Pass "
            "an index, or best."
        )
    tuned = finetune_run(args, run, skills[0])
    model = tuned.load_model(device=args.device)
    returns = task_returns(tuned, model, args.episodes, args.seed + 1)
    print(f"Task return: {np.mean(returns):.1f} +- {np.std(returns):.1f}, {len(returns)} episodes")
    print(f"Run saved in {tuned.folder}")


def imitate(args: argparse.Namespace) -> None:
    """
    ``sb3-diayn imitate``

    :param args: its options
    """
    run = find_run(args.run, args.env)
    expert = load_demonstration(args.trajectory, episode=args.episode)
    found = infer_skill(run.load_discriminator(), expert)
    print(f"The trajectory looks like skill {found.skill}.")
    ranked = np.argsort(-found.log_q.mean(axis=0))
    for skill in ranked[:3]:
        print(
            f"skill {skill:3d}   posterior {found.posterior[skill]:.3f}   "
            f"mean q {found.mean_q[skill]:.3f}   mean log q {found.log_q[:, skill].mean():.2f} nats"
        )
    print(f"Decided at step {found.decided_at + 1} of {len(found.log_q)}.")
    if not args.no_films:
        folder = check_writable(args.output or run.folder / "imitation")
        print(*film_imitation(run, args, expert, found.skill, folder), sep="\n")


def _choose(run: Run, args: argparse.Namespace) -> list[int]:
    if args.skill != "best":
        return parse_skills(args.skill, run.n_skills)
    ranked = rank_skills(known_evaluation(run) or measure(run, args))
    best, task_return = ranked[0]
    print(f"Skill {best} has the best task return: {task_return:.1f}")
    return [best]


TOLERANCE = 1e-3  # of states, absolute and relative: float32 and other processors


class Replay(VecEnvWrapper):
    """
    Plays an expert's actions in the first environment, whatever a model would do there.

    :param venv: vectorised environments
    :param actions: as the environment takes them, shape ``(T, ...)``; the episode is cut there
    """

    def __init__(self, venv: VecEnv, actions: npt.NDArray[Any]) -> None:
        super().__init__(venv)
        self._actions = actions

    def reset(self) -> Any:
        """:return: first observations"""
        self._step = 0
        return self.venv.reset()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """:param actions: those of a model, of which the first gives way"""
        actions = np.array(actions)
        actions[0] = self._actions[self._step]
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as any vectorised environment"""
        obs, rewards, dones, infos = self.venv.step_wait()
        self._step += 1
        dones[0] |= self._step >= len(self._actions)
        return obs, rewards, dones, infos


def why_no_replay(model: BaseAlgorithm, env: VecEnv, expert: Demonstration) -> str | None:
    """
    :param model: a model with skills
    :param env: vectorised environments that fit it
    :param expert: what to play again
    :return: why playing the expert's actions does not lead to its states; None if it does
    """
    if expert.actions is None or expert.seed is None:
        return "there is no array 'actions' or no 'seed' to play it again by"
    replay = Replay(env, expert.actions)
    (episode,) = play_skills(model, replay, [0], seed=expert.seed)
    states = expert.observations
    if len(episode) != len(states) or not np.allclose(episode.states, states, TOLERANCE, TOLERANCE):
        return "its actions lead to other states here: another environment or version"
    return None


def film_imitation(
    run: Run, args: argparse.Namespace, expert: Demonstration, skill: int, folder: Path
) -> list[Path]:
    """
    Film a skill and, where it can be played again, the expert; then the two side by side.

    :param run: a run
    :param args: options with ``seed``, ``device`` and ``film_steps``
    :param expert: its trajectory
    :param skill: the skill that was retrieved
    :param folder: where to
    :return: the films
    :raises OSError: if the environment gives no picture
    """
    with require_extra("report"):
        from sb3_diayn.evaluation.video import record_grid, record_skills
    args = argparse.Namespace(**vars(args))
    args.seed = args.seed if expert.seed is None else expert.seed  # both from the same start
    films = [film(run, args, [skill], folder)[skill]]
    model, env = open_run(run, args, 1, "rgb_array")
    try:
        reason = why_no_replay(model, env, expert)
        if reason is not None:
            print(f"The expert's film is left out: {reason}")
            return films
        assert expert.actions is not None
        (film_of_expert,) = record_skills(
            model,
            Replay(env, expert.actions),
            folder / "expert",
            skills=[skill],
            max_steps=args.film_steps,
            seed=args.seed,
            caption="expert",
        ).values()
    finally:
        env.close()
    both = dict(enumerate([film_of_expert, *films]))
    return [film_of_expert, *films, record_grid(both, folder / "expert_and_skill.mp4")]


def add_export_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn export``"""
    _measuring(add)
    text = "best, by task return, or an index, several as 0,3,7-9, or all"
    add("--skill", default="best", help=text)
    _output(add, "DIR", "RUN/skills")


def add_finetune_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn finetune``"""
    _run_name(add)
    add("--skill", default="best", help="index of a skill, or best, by task return")
    add("--reset-critics", action="store_true", help="keep the policy, start critics afresh")
    _learning(add)
    _logging(add)
    add("--episodes", type=_positive, default=5, help="episodes to measure task returns")


def add_imitate_options(add: Add) -> None:
    """:param add: adds an option to ``sb3-diayn imitate``"""
    _run(add)
    what = "an expert's states: .npz with observations, and actions and seed for its film; .npy; or"
    add("--trajectory", required=True, metavar="FILE", help=f"{what} the id of a Minari dataset")
    add("--episode", type=int, default=0, help="which episode of a Minari dataset")
    _output(add, "DIR", "RUN/imitation")
    add("--no-films", action="store_true", help="name the skill only")
    _film_steps(add)
