"""
A page that shows a training while it runs. It needs the extra ``report``.

The page is one plain file without a server: the callback writes it again and again, and the browser
loads it again.
"""

import io
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn.arguments import Count, CountFrom0, check_options
from sb3_diayn.callback_list import callbacks_in
from sb3_diayn.evaluation.callback import SkillEvaluationCallback
from sb3_diayn.evaluation.copies import copy_envs, copy_statistics, normalize_like
from sb3_diayn.evaluation.monitoring import EpisodeMonitor, find_diayn_callback
from sb3_diayn.evaluation.pages import number, render
from sb3_diayn.evaluation.trajectories import preserve_state
from sb3_diayn.files import require_extra, write_bytes
from sb3_diayn.trainer import HISTORY

__all__ = ["SkillDashboardCallback"]

MAX_POINTS = 500  # of a curve
MAX_SHARE = 0.02  # of the time, for writing the page
MAX_FILM_SHARE = 0.05  # of the time, for films
FILM_SECONDS = 3.0
Row = dict[str, float]
Line = tuple[str, Sequence[float], Sequence[float]]  # label, steps and values


class SkillDashboardCallback(BaseCallback):
    """
    Writes a page that shows the training while it runs: log q(z|s') and accuracy of the
    discriminator, task returns, the number of distinct skills where a
    :class:`SkillEvaluationCallback` of the same training measures it, and the latest episodes of
    each skill; on request films of a few. Open the file in a browser once; it renews itself until
    the training ends. The training is not disturbed: with the same seed it gives bit-equal
    parameters. A page that cannot be written is a warning, not an error.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillDashboardCallback
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64)
        >>> callback = [DIAYNCallback(), SkillDashboardCallback("live.html")]
        >>> model = model.learn(128, callback=callback)

    :param path: the page
    :param update_seconds: seconds between two versions of the page, more where writing it would
        take more than two percent of the time
    :param title: of the page
    :param n_films: how many skills to film now and then, three seconds each, in a copy of the
        training environment: those with the best task returns of late. Films take at most five
        percent of the time and lie next to the page, ``live_films`` for ``live.html``. Where there
        is no copy, or it does not render, the page says why
    :param verbose: 1 to say where the page is
    :raises ImportError: if the extra ``report`` is missing
    :raises ValueError: if ``update_seconds`` is not positive or ``n_films`` is negative; in
        ``learn`` if there is no ``DIAYNCallback``
    """

    def __init__(
        self,
        path: str | Path = "live.html",
        *,
        update_seconds: Count = 10,
        title: str = "Skills",
        n_films: CountFrom0 = 0,
        verbose: int = 0,
    ) -> None:
        check_options(SkillDashboardCallback, locals())
        super().__init__(verbose)
        with require_extra("report"):  # before anything is learned
            import jinja2  # noqa: F401
            import matplotlib  # noqa: F401
        self.path, self.title = Path(path), title
        self.update_seconds, self.n_films = update_seconds, n_films
        self.films: dict[int, Path] = {}
        self.why_no_films = ""
        self._film_env: VecEnv | None = None
        self.rows: list[Row] = []
        self._is_running = False

    def _on_training_start(self) -> None:
        self._diayn = find_diayn_callback(self.locals["callback"])
        self._episodes = EpisodeMonitor(self.training_env.num_envs)
        self._first_step, self._began = self.num_timesteps, time.monotonic()
        self._total_timesteps = self.locals["total_timesteps"]
        # Of a training that is resumed: what the zip knows of its beginning.
        history = self._diayn.trainer.history
        self.rows = [dict(zip(HISTORY, row, strict=True)) for row in history]
        self._is_running, self._may_warn = True, True
        self._write()
        # Not after what the first page costs, for which matplotlib is loaded.
        self._next_write = self._next_film = time.monotonic() + self.update_seconds
        if self.verbose:
            print(f"Open it in a browser: {self.path.resolve().as_uri()}")

    def _on_step(self) -> bool:
        self._episodes.add(self.locals["infos"], self.locals["dones"])
        if time.monotonic() >= self._next_write:
            if self.n_films and not self.why_no_films and time.monotonic() >= self._next_film:
                self._film()
            self._write()
        return True

    def _on_training_end(self) -> None:
        if self._is_running:  # the zoo ends callbacks twice
            self._is_running = False
            self._write()
            if self._film_env is not None:
                self._film_env.close()
                self._film_env = None

    # -- films -------------------------------------------------------------------------------

    def _film(self) -> None:
        """Film the skills with the best task returns of late, once enough have ended an episode."""
        rows = sorted(self._episodes.rows(), key=lambda row: -row["task_return"])
        skills = [int(row["skill"]) for row in rows[: self.n_films]]
        if len(skills) < min(self.n_films, self._diayn.n_skills):
            return
        began = time.monotonic()
        try:
            with preserve_state(self.model, self.training_env):
                self.films = self._record(skills)
        except Exception as error:  # an environment may do anything, and a film is not worth it
            self.why_no_films = " ".join(str(error).split())
        cost = time.monotonic() - began
        self._next_film = began + max(self.update_seconds, cost / MAX_FILM_SHARE)

    def _record(self, skills: Sequence[int]) -> dict[int, Path]:
        from sb3_diayn.evaluation.video import record_skills

        if self._film_env is None:
            env = copy_envs(
                self.training_env,
                render_mode="rgb_array",
                argument=f"n_films={self.n_films}",
                remedy="Leave it out.",
            )
            self._film_env = normalize_like(env, self.training_env)
        copy_statistics(self._film_env, self.training_env)
        folder = self.path.with_name(f"{self.path.stem}_films")
        options: Any = {"skills": sorted(skills), "max_seconds": FILM_SECONDS}
        films = record_skills(self.model, self._film_env, folder, **options)
        for old in set(folder.glob("skill_*.mp4")) - set(films.values()):
            old.unlink()
        return films

    # -- the page ----------------------------------------------------------------------------

    def _write(self) -> None:
        began = time.monotonic()
        self._remember()
        try:
            write_bytes(self.path, render("live.html", self._context()).encode())
        except OSError as error:  # a full disk must not end the training
            if self._may_warn:
                warnings.warn(f"The page could not be written: {error}", stacklevel=2)
            self._may_warn = False
        cost = time.monotonic() - began
        self._next_write = began + max(self.update_seconds, cost / MAX_SHARE)

    def _remember(self) -> None:
        steps = {"time/total_timesteps": float(self.num_timesteps)}
        metrics = {f"diayn/{name}": value for name, value in self._diayn.metrics().items()}
        self.rows.append(metrics | steps | {"best": self._episodes.best_task_return})
        if len(self.rows) > MAX_POINTS:
            self.rows = self.rows[::2]

    def _context(self) -> dict[str, Any]:
        now = self.rows[-1]
        seconds = time.monotonic() - self._began
        n_done = self.num_timesteps - self._first_step
        missing = max(self._total_timesteps - self.num_timesteps, 0)
        return {
            "title": self.title,
            "is_running": self._is_running,
            "update_seconds": self.update_seconds,
            "updated": datetime.now().astimezone(),
            "numbers": self._numbers(now),
            "share": 1 - missing / max(self._total_timesteps, 1),
            "steps": f"{self.num_timesteps:,} of {self._total_timesteps:,} steps",
            "elapsed": _duration(seconds),
            "remaining": _duration(seconds * missing / n_done) if n_done else "not known yet",
            "curves": draw_curves(self._curves()),
            "skills": self._episodes.rows(),
            "n_skills": self._diayn.n_skills,
            "films": {
                skill: film.relative_to(self.path.parent).as_posix()
                for skill, film in self.films.items()
            },
            "why_no_films": self.why_no_films,
            "steps_done": self.num_timesteps,
        }

    def _numbers(self, now: Row) -> dict[str, tuple[str, str]]:
        """The latest numbers by name, each with a remark."""
        n_skills = self._diayn.n_skills
        accuracy = now.get("diayn/accuracy", np.nan)
        share = "n/a" if np.isnan(accuracy) else f"{accuracy:.0%}"
        if self._diayn.discriminator.has_probabilities:
            log_q = number(now.get("diayn/log_q_z", np.nan))
            learned = {"log q(z|s')": (f"{log_q} nats", f"guessing: {number(-np.log(n_skills))}")}
        else:
            squared = number(now.get("diayn/squared_step", np.nan))
            learned = {"squared step of phi": (squared, "at most 1")}
        return {
            **learned,
            "accuracy": (share, f"guessing: {1 / n_skills:.0%}"),
            "skills seen": (f"{now['diayn/skills_seen']:.0f} of {n_skills}", "since the start"),
            "best task return": (number(now["best"]), "of an episode"),
        }

    def _curves(self) -> dict[str, list[Line]]:
        """Lines by the title of their axes."""
        steps = _column(self.rows, "time/total_timesteps")
        returns = {"best so far": "best", "mean of 100 episodes": "diayn/task_return"}
        title, name = "log q(z|s') [nats]", "diayn/log_q_z"
        if not self._diayn.discriminator.has_probabilities:
            title, name = "squared step of phi", "diayn/squared_step"
        curves: dict[str, list[Line]] = {
            title: [("", steps, _column(self.rows, name))],
            "accuracy": [("", steps, _column(self.rows, "diayn/accuracy"))],
            "task return": [(k, steps, _column(self.rows, name)) for k, name in returns.items()],
        }
        for each in callbacks_in(self.locals["callback"]):
            if isinstance(each, SkillEvaluationCallback) and each.history:
                moments = _column(each.history, "num_timesteps")
                distinct = _column(each.history, "distinct_skills")
                curves["distinct skills, held-out"] = [("", moments, distinct)]
        return curves


def _column(rows: Sequence[Row], name: str) -> list[float]:
    return [row.get(name, np.nan) for row in rows]


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def draw_curves(curves: Mapping[str, Sequence[Line]]) -> dict[str, str]:
    """
    :param curves: lines by the title of their axes
    :return: an SVG picture of each that has a finite value, by the same title
    """
    with require_extra("report"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter
    pictures = {}
    for title, lines in curves.items():
        if not any(np.isfinite(values).any() for _, _, values in lines):
            continue
        figure = Figure(figsize=(4.8, 2.4))
        # Fixed margins: a layout that finds its own takes as long as the drawing.
        axes = figure.add_axes((0.15, 0.22, 0.81, 0.64))
        for label, steps, values in lines:
            finite = np.where(np.isfinite(values), values, np.nan)
            axes.plot(steps, finite, label=label, marker="." if len(steps) < 20 else None)
        axes.set(title=title, xlabel="time steps")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if len(lines) > 1:
            axes.legend(frameon=False)
        picture = io.StringIO()
        figure.savefig(picture, format="svg")
        pictures[title] = picture.getvalue().partition("<svg")[2].join(["<svg", ""])
    return pictures
