"""
The moving picture of the README: some skills of the provided Hopper model next to each other.

    MUJOCO_GL=egl python -m docs.tables.film  # write docs/pages/images/hopper_skills.webp
"""

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import imageio.v3 as iio
from PIL import Image

from docs.tables.reference_figures import IMAGES
from docs.tables.reference_tables import RESULTS
from sb3_diayn.evaluation.video import record_grid
from sb3_diayn.zoo import find_run

RUN = RESULTS / "sac" / "Hopper-v5_1"
FILE = IMAGES.parent / "hopper_skills.webp"
SKILLS = (3, 8, 14, 2, 4, 9)
STEPS = 300  # of 8 ms each
WIDTH = 660
MAX_FPS = 25
QUALITY = 25  # of 100


def film(file: Path = FILE) -> None:
    """
    :param file: the animation to write, which starts again when it ends
    """
    with TemporaryDirectory() as folder:
        films = find_run(RUN).film(Path(folder), skills=SKILLS, max_steps=STEPS, device="cpu")
        grid = record_grid(films, Path(folder) / "grid.mp4", max_width=WIDTH)
        fps = iio.immeta(grid)["fps"]
        stride = math.ceil(fps / MAX_FPS)
        frames = [Image.fromarray(frame) for frame in iio.imiter(grid)][::stride]
    first, *others = frames
    duration = round(1000 * stride / fps)  # milliseconds
    first.save(
        file, save_all=True, append_images=others, duration=duration, loop=0, quality=QUALITY
    )


if __name__ == "__main__":
    film()
