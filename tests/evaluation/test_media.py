"""Figures and films in SB3's logger, as TensorBoard reads them."""

import io
import sys

import numpy as np
import pytest
from stable_baselines3.common.logger import Figure, configure

pytest.importorskip("tensorboard")
pytest.importorskip("matplotlib")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sb3_diayn import SkillEvaluationCallback
from sb3_diayn.evaluation import callback as evaluating
from sb3_diayn.evaluation.media import FILM_FPS, FILM_WIDTH, has_tensorboard, log_report
from tests.evaluation.evaluations import straight_walks
from tests.helpers.models import make_callback, make_sac
from tests.helpers.scripted import point_env


def events(folder):
    """What TensorBoard reads."""
    found = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    found.Reload()
    return found


def picture(found, tag):
    from PIL import Image

    (event,) = found.Images(tag)
    return Image.open(io.BytesIO(event.encoded_image_string)), event


@pytest.mark.slow
def test_a_report_in_tensorboard(tmp_path):
    """A film of two seconds at 30 frames per second, of which TensorBoard gets 20 frames."""
    pytest.importorskip("imageio_ffmpeg")
    from sb3_diayn.evaluation.video import write_film

    film = tmp_path / "skill_02.mp4"
    with write_film(film, (80, 120, 3), 30) as add:
        for number in range(60):
            add(np.full((80, 120, 3), 4 * number, np.uint8))
    evaluation = straight_walks(3)
    logger = configure(str(tmp_path), ["stdout", "csv", "tensorboard"])
    hyperparams = {"gamma": 0.99, "net_arch": [4]}
    log_report(logger, evaluation, step=500, films={2: film}, hyperparams=hyperparams)
    logger.close()
    found = events(tmp_path)
    assert found.Tags()["images"] == ["report/confusion", "report/skill_02"]
    (accuracy,) = found.Scalars("report/accuracy")
    assert accuracy.step == 500
    assert accuracy.value == pytest.approx(evaluation.accuracy.mean())
    moving, event = picture(found, "report/skill_02")
    assert event.step == 500
    assert (moving.format, moving.n_frames) == ("GIF", 20)
    assert moving.size == (FILM_WIDTH, FILM_WIDTH * 80 // 120)
    assert moving.info["duration"] == 1000 / FILM_FPS
    moving.seek(15)
    assert np.abs(np.asarray(moving.convert("L")).astype(int) - 4 * 45).max() < 12
    still, _ = picture(found, "report/confusion")
    assert still.format == "PNG" and len(still.getcolors(2**24)) > 10
    assert "_hparams_/experiment" in found.summary_metadata
    assert "report/accuracy" in (tmp_path / "progress.csv").read_text()


@pytest.mark.slow
def test_the_writer_of_pytorch_is_as_before(tmp_path):
    from torch.utils.tensorboard import summary

    before = summary.make_video
    logger = configure(str(tmp_path), ["tensorboard"])
    log_report(logger, straight_walks(3), step=1)
    logger.close()
    assert summary.make_video is before


def test_a_logger_of_text_alone_gets_numbers_alone(tmp_path):
    logger = configure(str(tmp_path), ["json"])
    assert not has_tensorboard(logger)
    log_report(logger, straight_walks(3), step=1, hyperparams={"gamma": 0.9})
    logger.close()
    assert "report/accuracy" in (tmp_path / "progress.json").read_text()


def learn(tmp_path, formats):
    model = make_sac(point_env())
    logger = configure(str(tmp_path), formats)
    recorded, record = {}, logger.record
    logger.record = lambda key, value, **how: (
        recorded.update({key: value}) or record(key, value, **how)
    )
    model.set_logger(logger)
    evaluation = SkillEvaluationCallback(eval_freq=30, n_episodes=1, n_envs=1, eval_env=point_env())
    model.learn(30, callback=[make_callback(), evaluation])
    logger.close()
    return recorded


@pytest.mark.slow
def test_an_evaluation_during_a_training_logs_the_confusion_as_a_figure(tmp_path):
    recorded = learn(tmp_path, ["tensorboard", "csv"])
    assert isinstance(recorded["diayn_eval/confusion"], Figure)
    assert picture(events(tmp_path), "diayn_eval/confusion")[0].format == "PNG"


def test_no_figure_is_drawn_where_nobody_sees_it(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluating, "log_confusion", None)  # would fail if it were called
    assert "diayn_eval/accuracy" in learn(tmp_path, ["csv"])


@pytest.mark.slow
def test_without_the_extra_an_evaluation_has_no_figure(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sb3_diayn.evaluation.plotting", None)
    recorded = learn(tmp_path, ["tensorboard"])
    assert "diayn_eval/confusion" not in recorded and "diayn_eval/accuracy" in recorded
