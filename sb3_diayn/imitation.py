"""An expert's film beside that of the skill which matches it."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_diayn.playing import film, open_run, report_extra
from sb3_diayn.retrieval import Demonstration
from sb3_diayn.runs import Run
from sb3_diayn.trajectories import play_skills

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
    with report_extra():
        from sb3_diayn.video import record_grid, record_skills
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
