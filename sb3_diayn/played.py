"""What a training has played so far: returns of episodes, and which skills."""

import warnings
from collections import deque
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_ENDED = 100  # episodes, as SB3 averages over
# Steps per skill after which half of the skills should have occurred, within a training and at its
# end. 20 environments with episodes of 1,000 steps have seen 13 of 20 skills by then.
FEW_SKILLS_STEPS, FEW_STEPS = 1000, 200


class EpisodeReturns:
    """Returns of the last 100 episodes, whichever environment they were played in."""

    def __init__(self) -> None:
        # Skill return, task return and steps. Lists: faster than an array, of 256 environments too.
        self._ended: deque[list[float]] = deque(maxlen=MAX_ENDED)
        self._running: list[list[float]] = []  # of each environment

    def start(self, n_envs: int, progress: dict[str, Any]) -> None:
        """
        :param n_envs: number of environments
        :param progress: from :meth:`state`, to continue its episodes; empty for new episodes
        """
        self._running = [list(row) for row in progress.get("returns", [[0.0, 0.0, 0]] * n_envs)]
        if "episodes" in progress:
            self._ended = deque(progress["episodes"], maxlen=MAX_ENDED)

    def state(self) -> dict[str, Any]:
        """:return: all of it, as JSON can hold it"""
        return {"returns": [list(row) for row in self._running], "episodes": list(self._ended)}

    def add(self, infos: list[dict[str, Any]], dones: npt.NDArray[np.bool_]) -> dict[str, float]:
        """
        :param infos: from ``DIAYNWrapper``, one of each environment
        :param dones: ends of episodes, shape ``(n_envs,)``
        :return: sums over the environments that tell whether every reward so far was finite
        """
        for row, info in zip(self._running, infos, strict=True):
            row[0] += float(info["skill_reward"])
            row[1] += float(info["task_reward"])
            row[2] += 1
        skill_sum, task_sum = (sum(row[column] for row in self._running) for column in (0, 1))
        for index in np.flatnonzero(dones):
            self._ended.append(self._running[index])
            self._running[index] = [0.0, 0.0, 0]
        return {"task_reward": task_sum, "skill_reward": skill_sum}

    def means(self) -> dict[str, float]:
        """:return: mean ``skill_return``, ``task_return`` and, per step, ``skill_reward``"""
        if not self._ended:
            return {}
        skill_return, task_return, length = np.mean(self._ended, axis=0)
        return {
            "skill_return": skill_return,
            "task_return": task_return,
            "skill_reward": skill_return / length,
        }


class SkillsSeen:
    """
    Which skills have occurred, and a warning once if they are few.

    :param n_skills: the number of skills, K
    :param seen: which have occurred before
    :param first_timestep: the model's number of steps at the start of this ``learn``
    """

    def __init__(self, n_skills: int, seen: Iterable[int], first_timestep: int) -> None:
        self.n_skills, self.seen, self.first_timestep = n_skills, set(seen), first_timestep
        self._is_due = True

    def add(self, infos: list[dict[str, Any]], timestep: int) -> None:
        """
        :param infos: from ``DIAYNWrapper``, one of each environment
        :param timestep: the model's number of steps
        """
        self.seen.update(info["skill"] for info in infos)
        if self._is_due and timestep - self.first_timestep >= FEW_SKILLS_STEPS * self.n_skills:
            self._is_due = False
            self._warn_if_few(timestep)

    def end_training(self, timestep: int) -> None:
        """:param timestep: the model's number of steps"""
        if self._is_due and timestep - self.first_timestep >= FEW_STEPS * self.n_skills:
            self._warn_if_few(timestep)

    def _warn_if_few(self, timestep: int) -> None:
        if len(self.seen) < self.n_skills / 2:
            warnings.warn(
                f"Only {len(self.seen)} of {self.n_skills} skills have occurred in "
                f"{timestep - self.first_timestep:,} steps, so log q and accuracy look better than "
                "they are. A new skill needs a new episode: limit episodes (max_episode_steps), "
                "set the skill_duration of DIAYNWrapper, use more environments, or train longer.",
                stacklevel=3,
            )
