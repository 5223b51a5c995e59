"""Which transitions belong to episodes that were good enough to be rewarded for diversity."""

from typing import Any

import numpy as np
import numpy.typing as npt


class EpisodeGate:
    """
    The gate of SMERL (Kumar et al., 2020, arXiv 2010.14484): skill rewards are paid only within
    episodes whose task return is near the optimum. One flag per transition of a replay buffer,
    closed until the episode has ended and its return is known.

    :param buffer_size: rows of the replay buffer
    :param n_envs: number of parallel environments
    """

    def __init__(self, buffer_size: int, n_envs: int) -> None:
        self.is_open = np.zeros((buffer_size, n_envs), np.float32)
        self.restart()

    def restart(self) -> None:
        """Forget episodes that have not ended: the environments begin new ones."""
        n_envs = self.is_open.shape[1]
        self._returns, self._lengths = np.zeros(n_envs), np.zeros(n_envs, np.int64)

    def add(
        self,
        row: int,
        task_rewards: npt.NDArray[Any],
        dones: npt.NDArray[Any],
        min_task_return: float,
    ) -> None:
        """
        :param row: of the replay buffer, where one transition of each environment has been stored
        :param task_rewards: the environment's own rewards, shape ``(n_envs,)``
        :param dones: ends of episodes, shape ``(n_envs,)``
        :param min_task_return: the least task return that opens the gate
        """
        size = len(self.is_open)
        self.is_open[row] = 0.0
        self._returns += task_rewards
        self._lengths += 1
        for i in np.flatnonzero(dones):
            steps = np.arange(min(self._lengths[i], size))
            self.is_open[(row - steps) % size, i] = self._returns[i] >= min_task_return
            self._returns[i], self._lengths[i] = 0.0, 0
