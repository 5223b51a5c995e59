"""``train --track``: Weights & Biases, offline."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("rl_zoo3")
pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_diayn.cli import main
from sb3_diayn.cli.sweep import _options
from sb3_diayn.zoo.tracking import tracking
from tests.helpers.runs import ENV, NAME, QUICK, TINY

TRAIN = ["train", "--env", ENV, "--n-skills", "2", "-n", "60", "--seed", "1", *QUICK, *TINY]
FILMS = ["--films", "--film-steps", "4"]


def images(folder):
    """Names of the pictures and films that TensorBoard shows."""
    (file,) = folder.rglob("events.out.tfevents.*")
    found = EventAccumulator(str(file.parent))
    found.Reload()
    assert "_hparams_/experiment" in found.summary_metadata
    return found.Tags()["images"]


@pytest.mark.slow
def test_a_training_is_tracked_with_films_and_confusion(tmp_path):
    pytest.importorskip("wandb")
    pytest.importorskip("imageio_ffmpeg")
    words = [*TRAIN, *FILMS, "--track", "-tags", "quick", "--wandb-project-name", "skills"]
    subprocess.run(
        [sys.executable, "-m", "sb3_diayn", *words],
        cwd=tmp_path,
        env={**os.environ, "WANDB_MODE": "offline", "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        capture_output=True,
        timeout=300,
    )
    shown = ["report/confusion", "report/skill_00", "report/skill_01"]
    assert images(tmp_path / "runs") == shown
    (offline,) = (tmp_path / "wandb").glob("offline-run-*")
    media = [file.suffix for file in (offline / "files" / "media").rglob("*.*")]
    assert sorted(media) == [".gif", ".gif", ".png"]
    assert (tmp_path / "logs" / "sac" / f"{NAME}_1" / "run.json").is_file()


@pytest.mark.slow
def test_tensorboard_has_the_same_without_tracking(tmp_path, capsys):
    pytest.importorskip("imageio_ffmpeg")
    words = [*TRAIN, *FILMS, "-f", str(tmp_path / "logs"), "-tb", str(tmp_path / "tb")]
    assert main(words) == 0
    shown = ["report/confusion", "report/skill_00", "report/skill_01"]
    assert images(tmp_path / "tb") == shown


@pytest.mark.slow
def test_a_training_that_cannot_draw_is_no_failure(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    words = [*TRAIN, "--no-report", "-f", str(tmp_path / "logs"), "-tb", str(tmp_path / "tb")]
    assert main(words) == 0
    assert "The report is not logged: This needs matplotlib" in capsys.readouterr().out


class FakeWandb(SimpleNamespace):
    """Remembers what it was asked."""

    class Error(Exception):
        """As W&B has it."""

    def __init__(self, error=None):
        super().__init__(error=error, asked=None, exit_code=None)

    def init(self, **options):
        if self.error:
            raise self.error
        self.asked = options
        return SimpleNamespace(finish=self.finish)

    def finish(self, exit_code):
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_what_is_asked_of_wandb(wandb):
    settings = {"env": ENV, "n_skills": 3, "hyperparams": {"gamma": 0.9}}
    settings["log_folder"] = Path("logs")
    about = {"project": "p", "entity": "team", "group": "g", "tags": ["a"]}
    with tracking(settings, **about) as tracked:
        assert wandb.exit_code is None
    assert wandb.exit_code == 0
    asked = wandb.asked
    assert (asked["project"], asked["entity"], asked["group"]) == ("p", "team", "g")
    assert asked["tags"][0] == "a"
    assert asked["sync_tensorboard"] is True
    assert asked["config"]["log_folder"] == "logs"
    assert asked["config"]["hyperparams"]["gamma"] == 0.9
    assert asked["config"]["seed"] == tracked["seed"] >= 0
    assert asked["name"].startswith(f"{NAME}__sac__{tracked['seed']}__")
    assert tracked == settings | {
        "seed": tracked["seed"],
        "tensorboard_log": os.path.join("runs", asked["name"]),
    }


def test_a_given_folder_and_seed_stay(wandb):
    given = {"env": ENV, "seed": 7, "tensorboard_log": "mine"}
    with tracking(given) as tracked:
        assert tracked == given


def test_wandb_hears_that_a_training_has_failed(wandb):
    with pytest.raises(KeyboardInterrupt), tracking({"env": ENV}):
        raise KeyboardInterrupt
    assert wandb.exit_code == 1


def sentence(capsys, *words):
    assert main(["train", "--track", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_mistake_is_found_before_wandb_is_asked(wandb, capsys):
    assert "env=None names no environment" in sentence(capsys)
    assert wandb.asked is None


def test_wandb_does_not_answer(wandb, capsys):
    wandb.error = wandb.Error("no API key\nconfigured")
    error = sentence(capsys, "--env", ENV)
    assert "(Error: no API key configured)" in error and "WANDB_MODE=offline" in error


def test_a_missing_library_is_named_with_its_extra(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "wandb", None)
    error = sentence(capsys, "--env", ENV)
    assert "This needs wandb" in error and "pip install 'sb3-diayn[track]'" in error


def test_a_sweep_does_not_make_a_run_again_to_track_it():
    assert _options([*TRAIN, "--track", "-tags", "x", "--wandb-group", "g"]) == _options(TRAIN)
