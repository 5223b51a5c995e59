"""Films and figures of runs, as small files."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import imageio.v3 as iio
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from docs.tables.reference import write_compact
from sb3_diayn.evaluation import plotting
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.video import record_grid
from sb3_diayn.zoo import find_run

SECONDS = 6  # of a film, at most
FILM_WIDTH = 720
COMPRESSION = "30"  # of H.264: 23 is usual, and a larger number makes a smaller file
FIGURE_SIZE, DPI, QUALITY = (6.4, 4.8), 100, 75
README_STEPS = 300  # of 8 ms each
README_WIDTH = 660
README_FPS = 25
README_QUALITY = 25  # of 100


def measure(file: Path, run: Path, env_id: str) -> None:
    """
    :param file: the evaluation to write
    :param run: folder of a run with its model
    :param env_id: id of an environment that fits it
    """
    evaluation = find_run(run, env_id).evaluate(deterministic=True, device="cpu")
    write_compact(evaluation, file)


def save_film(
    file: Path, run: Path, env_id: str, skills: Sequence[int], *, deterministic: bool
) -> None:
    """
    :param file: the film to write, ending in ``.mp4``: an episode of each skill, side by side
    :param run: folder of a run with its model
    :param env_id: id of an environment that fits it
    :param skills: in the order of the film
    :param deterministic: play the mode of the policy instead of samples
    """
    width = FILM_WIDTH // math.ceil(math.sqrt(len(skills)))  # of a column of the grid
    options: dict[str, Any] = {"max_seconds": SECONDS, "max_width": width}
    with TemporaryDirectory() as folder:
        films = find_run(run, env_id).film(
            Path(folder), skills=skills, device="cpu", deterministic=deterministic, **options
        )
        grid = record_grid(films, Path(folder, "grid.mp4"), max_width=FILM_WIDTH)
        output_params = ["-crf", COMPRESSION, "-movflags", "+faststart"]
        options = {"codec": "libx264", "quality": None, "macro_block_size": 2}
        options |= {"fps": iio.immeta(grid)["fps"], "output_params": output_params}
        iio.imwrite(file, iio.imread(grid), **options)


def save_readme_film(file: Path, run: Path, skills: Sequence[int]) -> None:
    """
    :param file: the animation to write, ending in ``.webp``, which starts again when it ends
    :param run: folder of a run with its model
    :param skills: in the order of the animation
    """
    with TemporaryDirectory() as folder:
        films = find_run(run).film(
            Path(folder), skills=skills, max_steps=README_STEPS, device="cpu"
        )
        grid = record_grid(films, Path(folder, "grid.mp4"), max_width=README_WIDTH)
        fps = iio.immeta(grid)["fps"]
        stride = math.ceil(fps / README_FPS)
        first, *others = map(Image.fromarray, iio.imread(grid)[::stride])
    duration = round(1000 * stride / fps)  # milliseconds
    options: dict[str, Any] = {"duration": duration, "loop": 0, "quality": README_QUALITY}
    first.save(file, save_all=True, append_images=others, **options)


def save_run_figures(files: dict[str, Path], run: Path, evaluation: SkillEvaluation) -> None:
    """
    :param files: the figures to write, by what they show: ``"training"``, ``"task_returns"``,
        ``"trajectories"``
    :param run: folder of a run, with its history
    :param evaluation: what was measured of its skills
    """
    history, n_skills = pd.read_csv(run / "history.csv"), evaluation.n_skills
    plots: dict[str, Callable[..., Any]] = {
        "training": partial(plotting.plot_training, history, n_skills=n_skills),
        "task_returns": partial(plotting.plot_task_returns, evaluation),
        "trajectories": partial(plotting.plot_trajectories, evaluation),
    }
    for name, file in files.items():
        figure = Figure(figsize=FIGURE_SIZE, layout="constrained")
        plots[name](ax=figure.subplots())
        figure.savefig(file, dpi=DPI, pil_kwargs={"quality": QUALITY})
