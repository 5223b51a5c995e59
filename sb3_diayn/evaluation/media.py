"""
Pictures and films of an evaluation in SB3's logger, and so in TensorBoard and in Weights & Biases.
They need the extra ``report``.
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.logger import (
    Figure,
    HParam,
    Logger,
    TensorBoardOutputFormat,
    Video,
)

from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import require_extra

__all__ = ["log_confusion", "log_report"]

TEXT_FORMATS = ("stdout", "log", "csv", "json")
# Films are kept as moving pictures, which are large.
FILM_FPS, FILM_WIDTH = 10, 240


def log_report(
    logger: Logger,
    evaluation: SkillEvaluation,
    *,
    step: int,
    films: Mapping[int, Path] | None = None,
    hyperparams: Mapping[str, Any] | None = None,
) -> None:
    """
    Log an evaluation under ``report/``: its numbers, the confusion matrix as a figure, a film of
    each skill that has one, and hyperparameters for TensorBoard's table of runs.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills
        >>> from sb3_diayn.evaluation.media import log_report
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64, tensorboard_log="runs")
        >>> model = model.learn(64, callback=DIAYNCallback())
        >>> log_report(model.logger, evaluate_skills(model, env), step=model.num_timesteps)

    :param logger: of a model after ``learn``
    :param evaluation: of the model
    :param step: number of environment steps so far
    :param films: what :func:`~sb3_diayn.evaluation.video.record_skills` returned
    :param hyperparams: of the training, by name
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if a film cannot be read
    """
    numbers = {f"report/{name}": value for name, value in evaluation.numbers().items()}
    for name, value in numbers.items():
        logger.record(name, value)
    log_confusion(logger, evaluation, "report/confusion")
    for skill, film in (films or {}).items():
        logger.record(f"report/skill_{skill:02d}", _video(film), exclude=TEXT_FORMATS)
    if hyperparams:
        known = {name: value for name, value in numbers.items() if np.isfinite(value)}
        logger.record("hparams", HParam(_plain(hyperparams), known), exclude=TEXT_FORMATS)
    with _films_by_pillow():
        logger.dump(step)


def log_confusion(logger: Logger, evaluation: SkillEvaluation, name: str) -> None:
    """
    :param logger: gets the confusion matrix as a figure, at the next dump
    :param evaluation: whose
    :param name: of the figure
    :raises ImportError: if the extra ``report`` is missing
    """
    with require_extra("report"):
        import matplotlib.figure

        from sb3_diayn.evaluation.plotting import plot_confusion
    drawing = matplotlib.figure.Figure(figsize=(6.4, 4.8), layout="constrained")
    plot_confusion(evaluation, ax=drawing.subplots())
    logger.record(name, Figure(drawing, close=False), exclude=TEXT_FORMATS)


def has_tensorboard(logger: Logger) -> bool:
    """
    :param logger: of a model
    :return: whether somebody will see what is not text
    """
    return any(isinstance(each, TensorBoardOutputFormat) for each in logger.output_formats)


def _video(film: Path) -> Video:
    from sb3_diayn.evaluation.video import read_film

    options = ["-vf", f"fps={FILM_FPS},scale={FILM_WIDTH}:-2"]
    frames = np.stack(list(read_film(film, options)))
    return Video(th.from_numpy(frames.transpose(0, 3, 1, 2))[None], fps=FILM_FPS)


def _plain(hyperparams: Mapping[str, Any]) -> dict[str, bool | str | float | None]:
    """What the table of hyperparameters can hold."""
    kinds = (bool, int, float, str)
    return {k: v if isinstance(v, kinds) else str(v) for k, v in hyperparams.items()}


@contextmanager
def _films_by_pillow() -> Iterator[None]:
    """Within the block, PyTorch's writer does without moviepy: it knows version 1 alone."""
    from torch.utils.tensorboard import summary

    original, summary.make_video = summary.make_video, _moving_picture
    try:
        yield
    finally:
        summary.make_video = original


def _moving_picture(frames: np.ndarray, fps: float) -> Any:
    """Frames of shape ``(n, height, width, 3)`` as TensorBoard shows them."""
    from PIL import Image
    from tensorboard.compat.proto.summary_pb2 import Summary

    first, *others = map(Image.fromarray, frames)
    gif = io.BytesIO()
    duration = round(1000 / fps)  # milliseconds
    first.save(gif, "gif", save_all=True, append_images=others, duration=duration, loop=0)
    _, height, width, channels = frames.shape
    return Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=gif.getvalue()
    )
