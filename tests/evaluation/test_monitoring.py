"""The progress bar and the live page of a training."""

import io
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rich.progress
import torch as th
from rich.console import Console
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_diayn import (
    DIAYNCallback,
    DIAYNWrapper,
    SkillDashboardCallback,
    SkillEvaluationCallback,
    SkillProgressBarCallback,
)
from sb3_diayn.evaluation import dashboard
from sb3_diayn.evaluation.monitoring import EpisodeMonitor
from sb3_diayn.model_zip import skill_state
from tests.helpers.envs import PointEnv
from tests.helpers.models import K, make_callback, make_sac


def info(skill, task_reward, skill_reward):
    return {"skill": skill, "task_reward": task_reward, "skill_reward": skill_reward}


def test_episodes_of_each_skill():
    monitor = EpisodeMonitor(2)
    assert monitor.rows() == [] and monitor.best_task_return == -np.inf
    for done in (False, True):
        monitor.add([info(4, 1.0, 0.5), info(1, -3.0, 0.0)], np.array([done, False]))
    monitor.add([info(2, 7.0, 0.0), info(1, -3.0, 3.0)], np.array([False, True]))
    expected = {"task_return": -9.0, "steps": 3.0, "skill_reward": 1.0}
    assert monitor.rows() == [
        {"skill": 1, "episodes": 1, **expected},
        {"skill": 4, "episodes": 1, "task_return": 2.0, "steps": 2.0, "skill_reward": 0.5},
    ]
    assert monitor.best_task_return == 2.0


def test_only_the_latest_episodes_of_a_skill_count():
    monitor = EpisodeMonitor(1)
    for value in range(12):
        monitor.add([info(0, float(value), 0.0)], np.array([True]))
    (row,) = monitor.rows()
    assert row["task_return"] == np.mean(range(2, 12)) and row["episodes"] == 10
    assert monitor.best_task_return == 11.0


def learn(*callbacks, steps=60, **options):
    model = make_sac(DIAYNWrapper(PointEnv(), K), **options)
    return model.learn(steps, callback=[make_callback(), *callbacks])


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal shows, which rich takes for one, 100 columns wide."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, color_system=None)
    monkeypatch.setattr(rich.progress, "get_console", lambda: console)
    return stream


def last_line(terminal):
    return [line for line in terminal.getvalue().splitlines() if "left" in line][-1]


@pytest.mark.slow
def test_the_bar_shows_what_is_learned(terminal):
    bar = SkillProgressBarCallback()
    learn(bar)
    last = last_line(terminal)
    best = f"{bar._episodes.best_task_return:.4g}"
    found = re.search(r"log q (-?[\d.]+)  accuracy (\d+)%  skills (\d)/(\d)  best (\S+)", last)
    assert found is not None, last
    metrics = bar._diayn.metrics()
    assert found.groups() == (
        f"{metrics['log_q_z']:.2f}",
        f"{100 * metrics['accuracy']:.0f}",
        f"{metrics['skills_seen']}",
        f"{K}",
        best,
    )
    assert "100%" in last


def test_the_bar_says_that_nothing_is_learned_yet(terminal):
    learn(SkillProgressBarCallback(), steps=5)
    last = last_line(terminal)
    assert "warming up" in last and "log q" not in last


@pytest.mark.slow
def test_a_table_is_printed_above_the_bar(terminal):
    """SB3's logger knows the stream of before; the bar hands it the one that makes room."""

    class Streams(BaseCallback):
        def _on_step(self):
            self.during = self.logger.output_formats[0].file
            return True

    streams, stdout = Streams(), sys.stdout
    model = learn(SkillProgressBarCallback(), streams, verbose=1)
    assert type(streams.during).__name__ == "FileProxy"
    assert model.logger.output_formats[0].file is stdout is sys.stdout


def test_a_bar_without_a_discriminator():
    model = make_sac(DIAYNWrapper(PointEnv(), K))
    for callback in (SkillProgressBarCallback(), SkillDashboardCallback()):
        with pytest.raises(ValueError, match="callback has no DIAYNCallback"):
            model.learn(5, callback=callback)


# -- the page ----------------------------------------------------------------------------------


class Pages(BaseCallback):
    """Keeps each version of a page."""

    def __init__(self, path):
        super().__init__()
        self.path, self.versions = Path(path), []

    def _on_step(self):
        text = self.path.read_text()
        if text not in self.versions:
            self.versions.append(text)
        return True


@pytest.mark.slow
def test_the_page_is_rewritten_and_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(dashboard, "MAX_SHARE", 1e9)
    page = SkillDashboardCallback(tmp_path / "live.html", title="<My> skills")
    page.update_seconds = 0  # in each step
    pages = Pages(page.path)
    learn(page, pages, steps=40)
    assert len(pages.versions) > 30
    assert all("<svg" in text for text in pages.versions[25:])
    assert all('http-equiv="refresh"' in text for text in pages.versions)
    last = page.path.read_text()
    assert "http-equiv" not in last and "40 of 40 steps" in last and "ended at" in last
    assert "&lt;My&gt; skills" in last and "<My>" not in last
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:)""", last)  # nothing outside of it
    assert [path.name for path in tmp_path.iterdir()] == ["live.html"]
    numbers = re.findall(r"<dd>(.*?)</dd>", last)
    metrics = page._diayn.metrics()
    assert f"{metrics['accuracy']:.0%}" in numbers and f"{metrics['skills_seen']} of {K}" in numbers


@pytest.mark.slow
def test_rows_of_the_table_are_the_latest_episodes(tmp_path):
    page = SkillDashboardCallback(tmp_path / "live.html")
    learn(page)
    cells = re.findall(r"<tr><th>(\d+)</th><td>", page.path.read_text())
    assert [int(skill) for skill in cells] == [row["skill"] for row in page._episodes.rows()]
    assert cells


@pytest.mark.slow
def test_the_page_has_the_number_of_distinct_skills_where_it_is_measured(tmp_path):
    page = SkillDashboardCallback(tmp_path / "live.html")
    evaluating = SkillEvaluationCallback(DIAYNWrapper(PointEnv(), K), eval_freq=30, n_episodes=2)
    learn(page, evaluating)
    curves = page._curves()
    ((_, steps, values),) = curves["distinct skills, held-out"]
    assert steps == [30, 60]
    assert values == [row["distinct_skills"] for row in evaluating.history]


@pytest.mark.slow
def test_the_training_is_not_disturbed(tmp_path):
    page = SkillDashboardCallback(tmp_path / "live.html")
    page.update_seconds = 0
    models = [learn(), learn(page, SkillProgressBarCallback())]
    parameters = [dict(model.policy.state_dict()) for model in models]
    assert all(th.equal(parameters[0][name], parameters[1][name]) for name in parameters[0])
    states = [skill_state(model)["arrays"] for model in models]
    assert states[0] == states[1]


@pytest.mark.slow
def test_a_page_that_cannot_be_written_does_not_end_the_training(tmp_path, monkeypatch):
    def full_disk(*args):
        raise OSError(28, "No space left on device")

    page = SkillDashboardCallback(tmp_path / "live.html")
    page.update_seconds = 0
    monkeypatch.setattr(dashboard, "write_bytes", full_disk)
    monkeypatch.setattr(dashboard, "MAX_SHARE", 1e9)
    with pytest.warns(UserWarning, match="No space left on device") as caught:
        model = learn(page, steps=25)
    assert model.num_timesteps == 25 and len(caught) == 1


@pytest.mark.slow
def test_a_training_that_is_resumed_keeps_the_curve_of_its_beginning(tmp_path):
    model = learn()
    page = SkillDashboardCallback(tmp_path / "live.html")
    model.learn(20, callback=[DIAYNCallback(), page], reset_num_timesteps=False)
    steps = [row["time/total_timesteps"] for row in page.rows]
    assert steps[0] < 60 and steps[-1] == 80


# -- films on the page -------------------------------------------------------------------------


def train_points(*callbacks, steps=32):
    """A short PPO training with normalised observations, in environments that can be copied."""
    env = make_vec_env(
        "sb3_diayn/PointBox-v0",
        n_envs=2,
        seed=0,
        env_kwargs={"max_episode_steps": 10},
        wrapper_class=DIAYNWrapper,
        wrapper_kwargs={"n_skills": K},
    )
    env = VecNormalize(env, norm_reward=False)
    model = PPO("MlpPolicy", env, n_steps=8, batch_size=16, seed=0, device="cpu")
    return model.learn(steps, callback=[make_callback(), *callbacks])


def filming(tmp_path, monkeypatch, **kwargs):
    monkeypatch.setattr(dashboard, "MAX_SHARE", 1e9)
    monkeypatch.setattr(dashboard, "MAX_FILM_SHARE", 1e9)
    monkeypatch.setattr(dashboard, "FILM_SECONDS", 0.2)
    page = SkillDashboardCallback(tmp_path / "live.html", **kwargs)
    page.update_seconds = 0
    return page


@pytest.mark.slow
def test_the_page_shows_films_of_the_best_skills_and_does_not_disturb(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    page = filming(tmp_path, monkeypatch, n_films=2)
    filmed = []
    record = page._record
    page._record = lambda skills: filmed.append((page._episodes.rows(), skills)) or record(skills)
    models = [train_points(), train_points(page)]
    assert page.why_no_films == "" and len(filmed) > 2
    rows, skills = filmed[-1]
    ranked = sorted(rows, key=lambda row: -row["task_return"])
    assert skills == [row["skill"] for row in ranked[:2]]
    names = {f"live_films/skill_{skill:02d}.mp4" for skill in skills}
    shown = set(re.findall(r'<video src="(.*?)\?\d+"', page.path.read_text()))
    assert shown == names == {f"live_films/{f.name}" for f in (tmp_path / "live_films").iterdir()}
    first, second = (dict(model.policy.state_dict()) for model in models)
    assert all(th.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_films_are_normalised_as_the_training_is(tmp_path, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    page, seen = filming(tmp_path, monkeypatch, n_films=1), []
    record = page._record

    def compare(skills):
        films = record(skills)
        means = [env.obs_rms.mean.copy() for env in (page._film_env, page.training_env)]
        seen.append(np.array_equal(*means))
        return films

    page._record = compare
    train_points(page)
    assert len(seen) > 2 and all(seen)


def test_films_take_a_small_share_of_the_time(tmp_path, monkeypatch):
    """The next one begins twenty times as long after the last one as it took."""
    page = filming(tmp_path, monkeypatch, n_films=1)
    monkeypatch.setattr(dashboard, "MAX_FILM_SHARE", 0.05)
    clock = [0.0]
    monkeypatch.setattr(dashboard.time, "monotonic", lambda: clock[0])
    page._episodes = EpisodeMonitor(1)
    page._episodes.add([info(1, 2.0, 0.0)], np.array([True]))

    def record(skills):
        clock[0] += 3.0
        return {}

    page._record, page.model, page._diayn = record, None, SimpleNamespace(n_skills=K)
    monkeypatch.setattr(dashboard, "preserve_state", lambda *_: nullcontext())
    monkeypatch.setattr(SkillDashboardCallback, "training_env", None)
    page._next_film = 0.0
    page._film()
    assert page._next_film == pytest.approx(60.0)
    page.n_films = 2  # but only one skill has ended an episode
    clock[0] = 100.0
    page._film()
    assert (clock[0], page._next_film) == (100.0, pytest.approx(60.0))


@pytest.mark.slow
def test_a_training_that_cannot_be_filmed_goes_through_and_the_page_says_why(tmp_path, monkeypatch):
    page = filming(tmp_path, monkeypatch, n_films=2)
    model = learn(page, steps=45)  # an environment without a spec; two skills end an episode
    assert model.num_timesteps == 45
    text = page.path.read_text()
    assert "There are none: n_films=2 cannot be built: the training environment has no spec" in text
    assert "<video" not in text


def test_n_films_is_a_count():
    with pytest.raises(ValueError, match=r"n_films=-1 .*expected"):
        SkillDashboardCallback(n_films=-1)


@pytest.mark.parametrize("seconds", [0, -1, 1.5, None])
def test_update_seconds_is_a_count(seconds):
    with pytest.raises(ValueError, match=r"update_seconds.*expected"):
        SkillDashboardCallback(update_seconds=seconds)
