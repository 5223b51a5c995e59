"""Skill and task returns of the episodes of a training."""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt


class EpisodeReturns:
    """Returns of the last 100 episodes, whichever environment they were played in."""

    def __init__(self) -> None:
        self._ended: deque[npt.NDArray[np.float64]] = deque(maxlen=100)
        self._running = np.zeros((0, 3))  # skill return, task return and steps of each environment

    def start(self, n_envs: int, progress: dict[str, Any]) -> None:
        """
        :param n_envs: number of environments
        :param progress: from :meth:`state`, to go on within its episodes; empty for new episodes
        """
        self._running = np.array(progress.get("returns", np.zeros((n_envs, 3))))
        self._ended.extend(map(np.array, progress.get("episodes", [])))

    def state(self) -> dict[str, Any]:
        """:return: all of it, as JSON can hold it"""
        ended = [episode.tolist() for episode in self._ended]
        return {"returns": self._running.tolist(), "episodes": ended}

    def add(self, infos: list[dict[str, Any]], dones: npt.NDArray[np.bool_]) -> dict[str, float]:
        """
        :param infos: those of ``DIAYNWrapper``, one of each environment
        :param dones: ends of episodes, shape ``(n_envs,)``
        :return: sums over the environments that tell whether every reward so far was finite
        """
        self._running += [[info["skill_reward"], info["task_reward"], 1] for info in infos]
        skill_sum, task_sum, _ = self._running.sum(axis=0)
        for index in np.flatnonzero(dones):
            self._ended.append(self._running[index].copy())
            self._running[index] = 0
        return {"task_reward": float(task_sum), "skill_reward": float(skill_sum)}

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
