"""The progress bar and the live page of a training."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import rich.progress
import torch as th
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback

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
        model = learn(page)
    assert model.num_timesteps == 60 and len(caught) == 1


@pytest.mark.slow
def test_a_training_that_is_resumed_keeps_the_curve_of_its_beginning(tmp_path):
    model = learn()
    page = SkillDashboardCallback(tmp_path / "live.html")
    model.learn(20, callback=[DIAYNCallback(), page], reset_num_timesteps=False)
    steps = [row["time/total_timesteps"] for row in page.rows]
    assert steps[0] < 60 and steps[-1] == 80


@pytest.mark.parametrize("seconds", [0, -1, 1.5, None])
def test_update_seconds_is_a_count(seconds):
    with pytest.raises(ValueError, match=r"update_seconds.*expected"):
        SkillDashboardCallback(update_seconds=seconds)
