"""What a training shows while it runs: episodes of each skill so far, and a progress bar."""

import sys
import time
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from stable_baselines3.common.callbacks import BaseCallback, ProgressBarCallback
from stable_baselines3.common.logger import HumanOutputFormat
from tqdm import TqdmExperimentalWarning
from tqdm.rich import tqdm

from sb3_diayn.callback_list import callbacks_in
from sb3_diayn.callbacks import DIAYNCallback

MAX_EPISODES = 10  # of each skill, which count as its present ones
REFRESH_SECONDS = 0.5  # of the numbers in the progress bar
COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(bar_width=None),
    TaskProgressColumn(),
    TimeRemainingColumn(),
    TextColumn("left"),
)


class EpisodeMonitor:
    """
    The latest episodes of each skill, and the best task return of all.

    :param n_envs: number of environments
    """

    def __init__(self, n_envs: int) -> None:
        self.best_task_return = -np.inf
        self._running = np.zeros((n_envs, 3))  # task return, skill reward and steps
        self._ended: dict[int, deque[npt.NDArray[np.float64]]] = {}

    def add(self, infos: Sequence[Mapping[str, Any]], dones: npt.NDArray[np.bool_]) -> None:
        """
        :param infos: from ``DIAYNWrapper``, one of each environment
        :param dones: ends of episodes, shape ``(n_envs,)``
        """
        self._running += [[info["task_reward"], info["skill_reward"], 1] for info in infos]
        for index, info in enumerate(infos):
            if not dones[index]:
                continue
            episode = self._running[index].copy()
            self._running[index] = 0
            skill = int(info["skill"])  # the last one, where an episode has several
            self._ended.setdefault(skill, deque(maxlen=MAX_EPISODES)).append(episode)
            self.best_task_return = max(self.best_task_return, float(episode[0]))

    def rows(self) -> list[dict[str, float]]:
        """
        :return: of each skill that has ended an episode: ``skill``, number of ``episodes`` that
            count, their mean ``task_return`` and ``steps``, and the mean ``skill_reward`` per step
        """
        rows = []
        for skill, episodes in sorted(self._ended.items()):
            task_return, skill_reward, steps = np.mean(episodes, axis=0)
            row = {"skill": skill, "episodes": len(episodes), "task_return": task_return}
            rows.append(row | {"steps": steps, "skill_reward": skill_reward / steps})
        return rows


def find_diayn_callback(callback: BaseCallback | None) -> DIAYNCallback:
    """
    :param callback: the callback of a ``learn``
    :return: the one that trains the discriminator
    :raises ValueError: if there is none
    """
    for each in callbacks_in(callback):
        if isinstance(each, DIAYNCallback):
            return each
    raise ValueError(
        "callback has no DIAYNCallback, whose progress could be shown; expected one. Pass "
        "callback=[DIAYNCallback(), ...] to learn."
    )


class SkillProgressBarCallback(ProgressBarCallback):
    """
    SB3's progress bar with what the training has learned so far: the running log q(z|s') (nats)
    and accuracy of the discriminator, how many skills have occurred, and the best task return of
    an episode. It replaces ``learn(progress_bar=True)``.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillProgressBarCallback
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64)
        >>> callback = [DIAYNCallback(), SkillProgressBarCallback()]
        >>> model = model.learn(128, callback=callback)  # doctest: +SKIP

    :raises ValueError: in ``learn``, if there is no ``DIAYNCallback``
    """

    def _on_training_start(self) -> None:
        self._diayn = find_diayn_callback(self.locals["callback"])
        self._episodes = EpisodeMonitor(self.training_env.num_envs)
        self._next_refresh = 0.0
        stdout = sys.stdout
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmExperimentalWarning)
            total = self.locals["total_timesteps"] - self.model.num_timesteps
            self.pbar = tqdm(total=total, progress=COLUMNS, desc="warming up")
        self._redirect(stdout, sys.stdout)

    def _redirect(self, old: object, new: Any) -> None:
        """Print SB3's tables above the bar: its logger knows only the stream of before."""
        for output in self.logger.output_formats:
            if isinstance(output, HumanOutputFormat) and output.file is old:
                output.file = new

    def _on_step(self) -> bool:
        self._episodes.add(self.locals["infos"], self.locals["dones"])
        if time.monotonic() >= self._next_refresh:
            self._next_refresh = time.monotonic() + REFRESH_SECONDS
            self._describe()
        return super()._on_step()

    def _describe(self) -> None:
        metrics = self._diayn.metrics()
        words = ["warming up"]
        if "accuracy" in metrics:
            words = [f"accuracy {metrics['accuracy']:.0%}"]
            if "log_q_z" in metrics:
                words.insert(0, f"log q {metrics['log_q_z']:.2f}")
            else:
                words.insert(0, f"squared step {metrics['squared_step']:.2f}")
        words.append(f"skills {metrics['skills_seen']:.0f}/{self._diayn.n_skills}")
        if np.isfinite(self._episodes.best_task_return):
            words.append(f"best {self._episodes.best_task_return:.4g}")
        self.pbar.set_description_str("  ".join(words), refresh=False)

    def _on_training_end(self) -> None:
        if hasattr(self, "pbar") and not self.pbar.disable:  # the zoo ends callbacks twice
            self._describe()
            inner = sys.stdout
            super()._on_training_end()
            self._redirect(inner, sys.stdout)
