"""Films of skills: one of each, and a grid of all of them. They need the extra ``report``."""

import base64
import logging
import math
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import zip_longest
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from gymnasium.error import DependencyNotInstalled
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecEnvWrapper,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn
from tqdm import tqdm

from sb3_diayn.arguments import check_positive
from sb3_diayn.checks import check_info
from sb3_diayn.evaluation.playing import check_vec_normalize
from sb3_diayn.evaluation.trajectories import as_vec_env, play_skills
from sb3_diayn.files import replacing, require_extra
from sb3_diayn.skills import check_skill

with require_extra("report"):
    from PIL import Image, ImageDraw, ImageFont

__all__ = [
    "FilmStrip",
    "RenderingError",
    "record_grid",
    "record_skills",
    "require_rendering",
    "save_poster",
    "simplify_rendering",
    "write_film",
]

Frame = npt.NDArray[np.uint8]
AddFrame = Callable[[Frame], None]

# Enough for the eye. Browsers slow down a gif that is much faster than 25 frames per second.
MAX_FPS = {"mp4": 30, "gif": 25}
WRITER_OPTIONS: dict[str, dict[str, Any]] = {
    "mp4": {"codec": "libx264", "quality": 6, "output_params": ["-movflags", "+faststart"]},
    "gif": {
        "codec": "gif",
        "pix_fmt_out": "pal8",
        "quality": None,
        # ffmpeg keeps the frames in memory that a palette is made from, so only the first ones.
        "output_params": [
            "-vf",
            "split[a][b];[a]trim=end_frame=50,palettegen[p];[b][p]paletteuse=dither=bayer",
        ],
    },
}
POSTER_WIDTH = 240
FREE_CAMERA = -1  # does not follow the body; the default of gymnasium's MujocoRenderer
CAMERA_OPTIONS = {"camera_id", "camera_name", "default_camera_config"}
SIZE_OPTIONS = {"width", "height"}

# It warns about scaled frames, which are intended here. Its failures are exceptions.
logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)


class RenderingError(OSError):
    """The environment renders no frame. The message says why, and what to do."""


def record_skills(
    model: BaseAlgorithm,
    env: Any,
    folder: str | Path,
    *,
    skills: Sequence[int] | None = None,
    max_steps: int = 1000,
    max_seconds: float | None = None,
    max_width: int | None = 400,
    deterministic: bool = True,
    seed: int | None = 0,
    format: str = "mp4",
    caption: str = "skill {skill}",
    progress_bar: bool = False,
) -> dict[int, Path]:
    """
    Film one episode of each skill in real time, all from the same start, with the task return so
    far. The last frame says whether that is the return of the whole episode, or the film was cut.
    A frame shows the state before its action, so the state after the last action is not seen.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNWrapper
        >>> from sb3_diayn.evaluation.video import record_skills
        >>> env = gym.make("sb3_diayn/PointBox-v0", render_mode="rgb_array")
        >>> env = DIAYNWrapper(env, n_skills=3)
        >>> films = record_skills(PPO("MlpPolicy", env), env, "videos", skills=[0, 2])
        >>> [film.name for film in films.values()]
        ['skill_00.mp4', 'skill_02.mp4']

    :param model: any SB3 model trained on the same augmented space
    :param env: a ``DIAYNWrapper`` environment made with ``render_mode="rgb_array"``, or vectorised
        ones, of which the first is filmed. They are reset
    :param folder: where the films go, created if need be
    :param skills: which ones; None for all
    :param max_steps: number of steps after which a film ends
    :param max_seconds: the same in seconds of the film, in place of ``max_steps``
    :param max_width: where MuJoCo draws, its frames are at most so wide and high, without shadows
        and reflections, which makes a film on a machine without GPU ten times as fast, see
        :func:`simplify_rendering`. None for the environment's own rendering
    :param deterministic: play the mode of the policy instead of samples
    :param seed: of environment and sampled actions; None for no fixed seed
    :param format: ``"mp4"`` (H.264, which browsers play) or ``"gif"``
    :param caption: text above the picture
    :param progress_bar: show one
    :return: by skill, files like ``skill_03.mp4``; each appears, or replaces an older one, whole
    :raises RenderingError: if the environment renders no frame
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if ffmpeg fails, which then says why on the standard error stream
    :raises ValueError: if an argument does not fit
    """
    check_positive("max_steps", max_steps)
    if max_seconds is not None:
        _check(0 < max_seconds < math.inf, "max_seconds", max_seconds, "a positive number")
    _check(format in MAX_FPS, "format", format, "mp4 or gif")
    vec_env = as_vec_env(env)
    check_vec_normalize(model, unwrap_vec_normalize(vec_env))
    n_skills = int(vec_env.get_attr("n_skills")[0])
    chosen = [check_skill(z, n_skills) for z in (range(n_skills) if skills is None else skills)]
    with require_extra("report"):
        import imageio_ffmpeg  # type: ignore[import-untyped]  # noqa: F401
    if max_width is not None:
        simplify_rendering(vec_env, check_positive("max_width", max_width))
    shape = _add_caption(require_rendering(vec_env), "").shape
    fps = steps_per_second(vec_env)
    if max_seconds is not None:
        max_steps = math.ceil(max_seconds * fps)
    stride = math.ceil(fps / MAX_FPS[format])
    films = {skill: Path(folder) / f"skill_{skill:02d}.{format}" for skill in chosen}
    options: Any = {"deterministic": deterministic, "seed": seed, "max_steps": max_steps}
    total = len(films) * max_steps
    with tqdm(total=total, desc="Filming", unit="step", disable=not progress_bar) as bar:
        for skill, file in films.items():
            with write_film(file, shape, fps / stride) as add:
                text = caption.format(skill=skill)
                camera = _Camera(vec_env, add, stride, max_steps, text, fps, bar)
                for episode in play_skills(model, camera, [skill], **options):
                    bar.update(max_steps - len(episode))  # what it has ended before
    return films


def record_grid(films: Mapping[int, Path], file: str | Path, *, max_width: int = 1280) -> Path:
    """
    Show films next to each other, in rows, in the given order. A film that has ended stays,
    dimmed, until the longest one ends. The frames come from the files, one of each at a time:
    nothing is played again, and memory does not grow with the length.

    :param films: what :func:`record_skills` returned, or a part of it
    :param file: the film to write, ending in ``.mp4`` or ``.gif``
    :param max_width: of the whole picture, in pixels
    :return: ``file``; it appears, or replaces an older one, whole
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if a film cannot be read or ffmpeg fails
    :raises ValueError: if an argument does not fit
    """
    file = Path(file)
    _check(file.suffix[1:] in MAX_FPS, "file", str(file), "the ending .mp4 or .gif")
    _check(len(films) > 0, "films", films, "at least one. Pass what record_skills returned")
    columns = math.ceil(math.sqrt(len(films)))
    _check(max_width >= 16 * columns, "max_width", max_width, f"{16 * columns} or more")
    fps, (width, height) = _film_properties(next(iter(films.values())))
    tile_width = _even(min(width, max_width / columns))
    tile_height = _even(height * tile_width / width)
    shape = (math.ceil(len(films) / columns) * tile_height, columns * tile_width, 3)
    stride = math.ceil(fps / MAX_FPS[file.suffix[1:]])
    scale = f"scale={tile_width}:{tile_height}"
    with ExitStack() as stack:
        readers = (read_film(film, ["-vf", scale]) for film in films.values())
        streams = [stack.enter_context(closing(reader)) for reader in readers]
        add = stack.enter_context(write_film(file, shape, fps / stride))
        for tiles in _skip_frames(_in_step(streams), stride):
            add(_mosaic(tiles, columns))
    return file


def save_poster(film: str | Path) -> Path:
    """
    Save a small picture of a film: the frame whose colours are most like the average.

    :param film: a film
    :return: a file with the film's name and the ending ``.jpg``
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if the film cannot be read
    """
    poster = Path(film).with_suffix(".jpg")
    options = ["-vf", f"thumbnail,scale={POSTER_WIDTH}:-2", "-frames:v", "1"]
    with closing(read_film(film, options)) as frames:
        frame = next(frames, None)
    if frame is None:
        raise _not_a_film(film)
    with replacing(poster) as temporary:
        Image.fromarray(frame).save(temporary)
    return poster


class FilmStrip:
    """
    Films in a notebook, next to each other. The notebook carries them and needs no files.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNWrapper
        >>> from sb3_diayn.evaluation.video import FilmStrip, record_skills
        >>> env = gym.make("sb3_diayn/PointBox-v0", render_mode="rgb_array")
        >>> env = DIAYNWrapper(env, n_skills=2)
        >>> films = record_skills(PPO("MlpPolicy", env), env, "videos", max_steps=4)
        >>> FilmStrip(films)  # in a notebook the films
        FilmStrip(skill_00.mp4, skill_01.mp4)

    :param films: what :func:`record_skills` returned, or a part of it
    :param width: of each film in pixels
    :raises OSError: if a film cannot be read
    :raises ValueError: if ``width`` is not positive
    """

    def __init__(self, films: Mapping[int, Path], *, width: int = 240) -> None:
        self.films, self.width = dict(films), check_positive("width", width)
        self._contents = {skill: Path(film).read_bytes() for skill, film in films.items()}

    def __repr__(self) -> str:
        """The names of the files."""
        return (
            f"{type(self).__name__}({', '.join(Path(film).name for film in self.films.values())})"
        )

    def _repr_html_(self) -> str:
        """For notebooks."""
        return "\n".join(self._element(skill) for skill in self.films)

    def _element(self, skill: int) -> str:
        content = base64.b64encode(self._contents[skill]).decode()
        attributes = f'width="{self.width}" title="skill {skill}"'
        if Path(self.films[skill]).suffix == ".gif":
            return f'<img {attributes} src="data:image/gif;base64,{content}">'
        attributes += " controls autoplay loop muted playsinline"
        return f'<video {attributes} src="data:video/mp4;base64,{content}"></video>'


def require_rendering(env: Any) -> Frame:
    """
    Reset the environment and render one frame, so that a failure comes before a long run.

    :param env: a ``DIAYNWrapper`` environment, or vectorised ones
    :return: the frame, uint8, shape ``(height, width, 3)``
    :raises RenderingError: if the environment renders no frame
    :raises ValueError: if there is no ``DIAYNWrapper``
    """
    vec_env = as_vec_env(env)
    render_mode = vec_env.get_attr("render_mode")[0]
    if render_mode != "rgb_array":
        raise RenderingError(
            f"env has render_mode={render_mode!r}, which gives no picture; expected 'rgb_array'. "
            "Create the environment with render_mode='rgb_array'."
        )
    vec_env.reset()
    track_body(vec_env)
    return render(vec_env)


def steps_per_second(env: VecEnv) -> float:
    """
    :param env: environments
    :return: how many of their steps make a second of a film
    """
    return env.get_attr("metadata")[0].get("render_fps") or 30


# -- rendering -------------------------------------------------------------------------------


def render(env: VecEnv) -> Frame:
    """
    :param env: vectorised environments, of which the first is rendered
    :return: the frame, uint8, shape ``(height, width, 3)``
    :raises RenderingError: if the environment renders no frame
    """
    try:
        frame = env.env_method("render", indices=[0])[0]
    except Exception as error:
        raise RenderingError(f"env does not render: {error!r}. {_remedy(error)}") from error
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.shape[2:] == (3,):
        return frame
    found = f"{type(frame).__name__} of shape {np.shape(frame)}, {np.asarray(frame).dtype}"
    raise RenderingError(
        f"env.render() returned {found}; expected a uint8 array of shape (height, width, 3). "
        "Fix the environment's render()."
    )


def track_body(env: VecEnv) -> None:
    """
    Choose the camera of a MuJoCo model that tracks the body. Since gymnasium 1.4 the default
    camera stands still, and a body that travels leaves the picture. An environment that was made
    with a camera keeps it.

    :param env: environments, of MuJoCo or not
    """
    if not isinstance(env.unwrapped, DummyVecEnv) or not env.has_attr("mujoco_renderer"):
        return
    for spec, renderer in zip(*map(env.get_attr, ("spec", "mujoco_renderer")), strict=True):
        chosen = set() if spec is None else CAMERA_OPTIONS & spec.kwargs.keys()
        if renderer.camera_id == FREE_CAMERA and not chosen:
            with suppress(KeyError):  # a model without such a camera
                renderer.camera_id = renderer.model.camera("track").id


def simplify_rendering(env: VecEnv, max_width: int) -> None:
    """
    Let MuJoCo draw small pictures without shadows, reflections and smoothed edges. Without a GPU
    they take nine tenths of the time. An environment that was made with a size keeps it, and so
    does one that has rendered before. Nothing but the pictures changes.

    :param env: environments, of MuJoCo or not
    :param max_width: largest width and height in pixels
    """
    if not isinstance(env.unwrapped, DummyVecEnv) or not env.has_attr("mujoco_renderer"):
        return
    for spec, renderer in zip(*map(env.get_attr, ("spec", "mujoco_renderer")), strict=True):
        model = renderer.model
        model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
        model.mat_reflectance[:] = 0
        if spec is None or not SIZE_OPTIONS & spec.kwargs.keys():
            scale = min(1, max_width / max(renderer.width, renderer.height))
            renderer.width = round(renderer.width * scale)
            renderer.height = round(renderer.height * scale)


def _remedy(error: Exception) -> str:
    if isinstance(error, DependencyNotInstalled):
        return 'Install what is missing. For pygame or Box2D: pip install "sb3-diayn[box2d]"'
    if "mujoco" in "".join(traceback.format_exception(error)):
        return (
            "MuJoCo needs EGL where there is no display: set MUJOCO_GL=egl before Python starts, "
            "and install libEGL (on Debian and Ubuntu: apt install libegl1)."
        )
    return "Render the environment by itself, in one process, to see the whole error."


class _Camera(VecEnvWrapper):
    """Films the first environment. It renders before each step, since a step may reset."""

    def __init__(
        self,
        venv: VecEnv,
        add: AddFrame,
        stride: int,
        max_steps: int,
        caption: str,
        fps: float,
        bar: "tqdm[NoReturn]",
    ) -> None:
        super().__init__(venv)
        self._add, self._stride, self._max_steps, self._text = add, stride, max_steps, caption
        self._fps, self._bar = fps, bar

    def reset(self) -> Any:
        self._steps, self._task_return = 0, 0.0
        return self.venv.reset()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        self._is_due = self._steps % self._stride == 0
        if self._is_due:
            self._frame = render(self.venv).copy()  # the step may draw into it
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        check_info(infos[0])
        self._steps += 1
        self._bar.update()
        self._task_return += infos[0]["task_reward"]
        is_cut = self._steps == self._max_steps and not dones[0]
        if self._is_due or dones[0] or is_cut:
            text = f"{self._text}  return {self._task_return:.1f}"
            if dones[0]:
                text += ", whole episode"
            elif is_cut:
                text += f", cut at {self._steps / self._fps:.3g} s"
            self._add(_add_caption(self._frame, text))
        return obs, rewards, dones, infos


def _add_caption(frame: Frame, text: str) -> Frame:
    """Put a bar with the text above the frame, so that it hides nothing."""
    height, width, _ = frame.shape
    # In proportion to the frame, so that it is also legible in the tiles of a grid.
    size = max(8, min(height, width) // 14)
    bar = Image.new("RGB", (width, size * 3 // 2), (60, 60, 60))
    font = ImageFont.load_default(size)
    fits = (width - size) / max(font.getlength(text), 1)
    if fits < 1:
        font = ImageFont.load_default(max(1, int(size * fits)))
    ImageDraw.Draw(bar).text((size // 2, bar.height // 2), text, "white", font, anchor="lm")
    return np.vstack([np.asarray(bar), frame])


# -- files -----------------------------------------------------------------------------------


@contextmanager
def write_film(file: Path, shape: tuple[int, ...], fps: float) -> Iterator[AddFrame]:
    """
    Write a film to a temporary file, which gets its name when the film is whole.

    :param file: the film, ending in ``.mp4`` or ``.gif``
    :param shape: of the frames, ``(height, width, 3)``; the last row or column of an odd size is
        cut off
    :param fps: frames per second
    :return: a function that adds a frame, uint8
    :raises ImportError: if the extra ``report`` is missing
    :raises RenderingError: if a frame has another shape
    :raises OSError: if ffmpeg fails, which then says why on the standard error stream
    """
    with require_extra("report"):
        from imageio_ffmpeg import write_frames
    height, width = _even(shape[0]), _even(shape[1])
    options = {"macro_block_size": 2, "ffmpeg_log_level": "error", "fps": fps}
    options |= WRITER_OPTIONS[file.suffix[1:]]
    n_frames = 0

    def add(frame: Frame) -> None:
        nonlocal n_frames
        if frame.shape != shape:
            raise RenderingError(
                f"env.render() returned a frame of shape {frame.shape} after one of {shape}; "
                "expected one size throughout. Fix the size of the picture."
            )
        try:
            writer.send(np.ascontiguousarray(frame[:height, :width]))
        except OSError as error:
            raise _writing_failed(file) from error
        n_frames += 1

    with replacing(file) as temporary:
        with closing(write_frames(str(temporary), (width, height), **options)) as writer:
            writer.send(None)  # starts ffmpeg
            yield add
        # The exit status of ffmpeg is not known here, and on a full disk it writes a part.
        if _count_frames(temporary) != n_frames:
            raise _writing_failed(file)


def _writing_failed(file: Path) -> OSError:
    return OSError(f"ffmpeg failed to write {file}; see what it says above.")


def _count_frames(film: Path) -> int:
    from imageio_ffmpeg import count_frames_and_secs

    try:
        return int(count_frames_and_secs(str(film))[0])
    except RuntimeError:  # not a film
        return 0


def read_film(film: str | Path, output_params: list[str]) -> Generator[Frame, None, None]:
    """
    :param film: a film
    :param output_params: options of ffmpeg, for example for another size
    :return: its frames
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if the film cannot be read
    """
    meta, frames = _open_film(film, output_params)
    width, height = meta["size"]
    with closing(frames):
        try:
            for frame in frames:
                yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)
        except RuntimeError as error:
            raise _not_a_film(film) from error


def _film_properties(film: str | Path) -> tuple[float, tuple[int, int]]:
    """Frames per second, and width and height in pixels."""
    meta, frames = _open_film(film, [])
    frames.close()
    if not meta["fps"]:
        raise _not_a_film(film)
    return meta["fps"], meta["size"]


def _open_film(
    film: str | Path, output_params: list[str]
) -> tuple[dict[str, Any], Generator[bytes, None, None]]:
    with require_extra("report"):
        from imageio_ffmpeg import read_frames
    # One thread, since a grid reads many films at the same time.
    frames = read_frames(str(film), input_params=["-threads", "1"], output_params=output_params)
    try:
        return next(frames), frames
    except (OSError, LookupError) as error:  # no header, or one without a picture
        raise _not_a_film(film) from error


def _not_a_film(film: str | Path) -> OSError:
    return OSError(f"{film} is not a whole film; record it again.")


def _even(length: float) -> int:
    """H.264 halves the resolution of the colours, so sizes are even."""
    return int(length) // 2 * 2


# -- grids -----------------------------------------------------------------------------------


def _in_step(streams: Sequence[Iterable[Frame]]) -> Iterator[list[Frame]]:
    """One frame of each stream at a time; streams that have ended give the last one, dimmed."""
    last: dict[int, Frame] = {}
    for frames in zip_longest(*streams):
        fresh = {index: frame for index, frame in enumerate(frames) if frame is not None}
        last |= fresh
        yield [frame if index in fresh else frame // 5 * 3 for index, frame in sorted(last.items())]


def _skip_frames(batches: Iterable[list[Frame]], stride: int) -> Iterator[list[Frame]]:
    """Each ``stride``-th batch, and the last one."""
    for index, batch in enumerate(batches):
        if index % stride == 0:
            yield batch
    if index % stride:
        yield batch


def _mosaic(tiles: Sequence[Frame], columns: int) -> Frame:
    full = [*tiles, *[np.zeros_like(tiles[0])] * (-len(tiles) % columns)]
    starts = range(0, len(full), columns)
    return np.vstack([np.hstack(full[start : start + columns]) for start in starts])


def _check(fits: bool, argument: str, value: Any, rule: str) -> None:
    if not fits:
        raise ValueError(f"{argument}={value!r} does not fit; expected {rule}.")
