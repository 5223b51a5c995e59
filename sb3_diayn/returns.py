"""Skill and task returns of the episodes of a training."""

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt


class EpisodeReturns:
    """Returns of the last 100 episodes, whichever environment they were played in."""

    def __init__(self) -> None:
        # Skill return, task return and steps. Lists: faster than an array, of 256 environments too.
        self._ended: deque[list[float]] = deque(maxlen=100)
        self._running: list[list[float]] = []  # of each environment

    def start(self, n_envs: int, progress: dict[str, Any]) -> None:
        """
        :param n_envs: number of environments
        :param progress: from :meth:`state`, to go on within its episodes; empty for new episodes
        """
        self._running = [list(row) for row in progress.get("returns", [[0.0, 0.0, 0]] * n_envs)]
        self._ended.extend(progress.get("episodes", []))

    def state(self) -> dict[str, Any]:
        """:return: all of it, as JSON can hold it"""
        return {"returns": [list(row) for row in self._running], "episodes": list(self._ended)}

    def add(self, infos: list[dict[str, Any]], dones: npt.NDArray[np.bool_]) -> dict[str, float]:
        """
        :param infos: those of ``DIAYNWrapper``, one of each environment
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
