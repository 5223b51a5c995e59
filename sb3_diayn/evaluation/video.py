"""Films of skills: one of each, and all of them side by side."""

import math
import re
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from itertools import zip_longest
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen, run
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.error import DependencyNotInstalled
from PIL import Image, ImageDraw, ImageFont
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper
from stable_baselines3.common.vec_env.base_vec_env import VecEnvStepReturn

from sb3_diayn.evaluation.trajectories import as_vec_env, play_skills
from sb3_diayn.files import replacing
from sb3_diayn.skills import check_skill

__all__ = ["RenderingError", "record_grid", "record_skills", "require_rendering"]


Frame = npt.NDArray[np.uint8]


FREE = -1  # the camera that stands where it was put, as gymnasium's MujocoRenderer calls it


CAMERA_OPTIONS = {"camera_id", "camera_name", "default_camera_config"}


class RenderingError(RuntimeError):
    """The environment gives no picture. The message says why, and what to do."""


def require_rendering(env: Any) -> Frame:
    """
    Reset the environment and render one frame, so that a failure comes before a long run.

    :param env: a ``DIAYNWrapper`` environment, or vectorised ones
    :return: the frame, uint8, shape ``(height, width, 3)``
    :raises RenderingError: if the environment gives no picture
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
    follow(vec_env)
    return render(vec_env)


def render(env: VecEnv) -> Frame:
    """
    :param env: vectorised environments, of which the first is rendered
    :return: the frame, uint8, shape ``(height, width, 3)``
    :raises RenderingError: if it gives no picture
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
        "Mend the environment's render()."
    )


def follow(env: VecEnv) -> None:
    """
    Choose the camera of MuJoCo's models that tracks the body: since gymnasium 1.4 theirs stands
    still, and what travels leaves the picture. An environment made with a camera keeps it.

    :param env: environments, of MuJoCo or not
    """
    if not isinstance(env.unwrapped, DummyVecEnv) or not env.has_attr("mujoco_renderer"):
        return
    import mujoco

    for spec, renderer in zip(*map(env.get_attr, ("spec", "mujoco_renderer")), strict=True):
        chosen = set() if spec is None else CAMERA_OPTIONS & spec.kwargs.keys()
        if renderer.camera_id == FREE and not chosen:
            camera = mujoco.mjtObj.mjOBJ_CAMERA
            renderer.camera_id = mujoco.mj_name2id(renderer.model, camera, "track")  # or FREE


def _remedy(error: Exception) -> str:
    if isinstance(error, DependencyNotInstalled):
        return 'Install what is missing. For pygame or Box2D: pip install "sb3-diayn[box2d]"'
    if "mujoco" in "".join(traceback.format_exception(error)):
        return (
            "MuJoCo needs EGL where there is no display: set MUJOCO_GL=egl before Python starts, "
            "and install libEGL (on Debian and Ubuntu: apt install libegl1)."
        )
    return "Render the environment by itself, in one process, to see the whole error."


# Most screens show 60 frames per second, and browsers slow down a gif that is much faster than 25.
MAX_FPS = {"mp4": 60, "gif": 25}


FFMPEG_OPTIONS = {
    "mp4": "-c:v libx264 -crf 20 -pix_fmt yuv420p -movflags +faststart",
    # A palette from the first frames only: ffmpeg keeps in memory what it takes the colours from.
    "gif": "-vf split[a][b];[a]trim=end_frame=50,palettegen[p];[b][p]paletteuse=dither=bayer",
}


AddFrame = Callable[[Frame], None]


def record_skills(
    model: BaseAlgorithm,
    env: Any,
    folder: str | Path,
    *,
    skills: Sequence[int] | None = None,
    max_steps: int = 1000,
    deterministic: bool = True,
    seed: int | None = 0,
    format: str = "mp4",
    caption: str = "skill {skill}",
) -> dict[int, Path]:
    """
    Film one episode of each skill, in real time, all from the same start, with the task return so
    far. Frames show the state in which the agent acts: the one after the last action is not seen.

    :param model: any SB3 model trained on the same augmented space
    :param env: a ``DIAYNWrapper`` environment made with ``render_mode="rgb_array"``, or vectorised
        ones, of which the first is filmed; not the training ones: they are reset
    :param folder: where the films go, created if need be
    :param skills: which ones; None for all
    :param max_steps: where an episode is cut
    :param deterministic: play the mode of the policy instead of samples
    :param seed: of environment and sampled actions; None for whatever comes
    :param format: ``"mp4"`` (H.264, which browsers play) or ``"gif"``
    :param caption: who acts, above the picture
    :return: by skill, files like ``skill_03.mp4``; each appears, or replaces an older one, whole
    :raises RenderingError: if the environment gives no picture
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if ffmpeg fails, which then says why on the standard error stream
    :raises ValueError: if an argument does not fit
    """
    _check(max_steps > 0, "max_steps", max_steps, "a positive number. Leave it out for 1000")
    _check(format in MAX_FPS, "format", format, "mp4 or gif. Choose mp4 for small files")
    vec_env = as_vec_env(env)
    n_skills = int(vec_env.get_attr("n_skills")[0])
    chosen = [check_skill(z, n_skills) for z in (range(n_skills) if skills is None else skills)]
    _ffmpeg()
    shape = _caption(require_rendering(vec_env), "").shape
    fps = vec_env.get_attr("metadata")[0].get("render_fps") or 30
    stride = math.ceil(fps / MAX_FPS[format])
    films = {skill: Path(folder) / f"skill_{skill:02d}.{format}" for skill in chosen}
    for skill, file in films.items():
        with _film(file, shape, fps / stride) as add:
            camera = _Camera(vec_env, add, stride, max_steps, caption.format(skill=skill))
            for _ in play_skills(model, camera, [skill], deterministic=deterministic, seed=seed):
                pass
    return films


def record_grid(films: Mapping[int, Path], file: str | Path, *, max_width: int = 1280) -> Path:
    """
    Show films side by side, in rows, in the order given. A film that is over stays, dimmed, until
    the longest one ends. The frames come from the files, one of each at a time: nothing is played
    again, and memory does not grow with the length.

    :param films: what :func:`record_skills` returned, or a part of it
    :param file: the film to write, ending in ``.mp4`` or ``.gif``
    :param max_width: of the whole picture, in pixels
    :return: ``file``; it appears, or replaces an older one, whole
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if a film cannot be read or ffmpeg fails
    :raises ValueError: if an argument does not fit
    """
    file = Path(file)
    _check(file.suffix[1:] in MAX_FPS, "file", str(file), "the ending .mp4 or .gif. Rename it")
    _check(len(films) > 0, "films", films, "at least one. Pass what record_skills returned")
    columns = math.ceil(math.sqrt(len(films)))
    _check(max_width >= 16 * columns, "max_width", max_width, f"{16 * columns} or more")
    fps, (width, height) = _probe(next(iter(films.values())))
    tile_width = _even(min(width, max_width / columns))
    tile_height = _even(height * tile_width / width)
    shape = (math.ceil(len(films) / columns) * tile_height, columns * tile_width, 3)
    stride = math.ceil(fps / MAX_FPS[file.suffix[1:]])
    with ExitStack() as stack:
        readers = (_read(film, tile_width, tile_height) for film in films.values())
        streams = [stack.enter_context(closing(reader)) for reader in readers]
        add = stack.enter_context(_film(file, shape, fps / stride))
        for tiles in _thin(_hold(streams), stride):
            add(_mosaic(tiles, columns))
    return file


@contextmanager
def _film(file: Path, shape: tuple[int, ...], fps: float) -> Iterator[AddFrame]:
    """What adds frames to a temporary file, which takes the film's name once it is whole."""
    height, width = _even(shape[0]), _even(shape[1])
    options = f"-y -v error -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -".split()
    command = [_ffmpeg(), *options, *FFMPEG_OPTIONS[file.suffix[1:]].split()]
    with replacing(file) as temporary:
        with Popen([*command, str(temporary)], stdin=PIPE) as process:

            def add(frame: Frame) -> None:
                if frame.shape != shape:
                    raise RenderingError(
                        f"env.render() returned a frame of shape {frame.shape} after one of "
                        f"{shape}; expected one size throughout. Fix the size of the picture."
                    )
                assert process.stdin is not None
                process.stdin.write(frame[:height, :width].tobytes())

            yield add
        if process.returncode != 0:
            raise OSError(f"ffmpeg failed to write {file}; see what it says above.")


class _Camera(VecEnvWrapper):
    """Films the first environment, before each step: within it a ``VecEnv`` resets by itself."""

    def __init__(
        self, venv: VecEnv, add: AddFrame, stride: int, max_steps: int, caption: str
    ) -> None:
        super().__init__(venv)
        self._add, self._stride, self._max_steps, self._text = add, stride, max_steps, caption

    def reset(self) -> Any:
        self._steps, self._task_return = 0, 0.0
        return self.venv.reset()

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        self._due = self._steps % self._stride == 0
        if self._due:
            self._frame = render(self.venv)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        obs, rewards, dones, infos = self.venv.step_wait()
        self._steps += 1
        self._task_return += infos[0]["task_reward"]
        dones[0] |= self._steps >= self._max_steps
        if self._due or dones[0]:
            text = f"{self._text}  return {self._task_return:.1f}"
            self._add(_caption(self._frame, text))
        return obs, rewards, dones, infos


def _caption(frame: Frame, text: str) -> Frame:
    """A bar above the frame, so that it hides nothing."""
    height, width, _ = frame.shape
    # In proportion to the frame, to be legible in the tiles of a grid too.
    size = max(8, min(height, width) // 14)
    bar = Image.new("RGB", (width, size * 3 // 2), (60, 60, 60))
    font = ImageFont.load_default(size)
    ImageDraw.Draw(bar).text((size // 2, bar.height // 2), text, "white", font, anchor="lm")
    return np.vstack([np.asarray(bar), frame])


def _ffmpeg() -> str:
    try:
        import imageio_ffmpeg  # type: ignore[import-untyped]
    except ImportError as error:
        remedy = 'Install it, with moviepy, by: pip install "sb3-diayn[report]"'
        raise ImportError(
            f"imageio-ffmpeg, which writes the films, is missing. {remedy}"
        ) from error
    return str(imageio_ffmpeg.get_ffmpeg_exe())


def _probe(film: str | Path) -> tuple[float, tuple[int, int]]:
    """Frames per second, and width and height in pixels."""
    command = [_ffmpeg(), "-hide_banner", "-i", str(film)]
    header = run(command, stdin=DEVNULL, capture_output=True, check=False).stderr.decode()
    # As in "Video: h264 (avc1 / 0x31637661), yuv420p, 600x442, 59 kb/s, 30 fps".
    found = re.search(r"Video: .* ([1-9]\d*)x(\d+)[ ,].* ([\d.]+) fps", header)
    if found is None:
        raise OSError(f"{film} is not a whole film; record it again.")
    return float(found[3]), (int(found[1]), int(found[2]))


def _read(film: str | Path, width: int, height: int) -> Generator[Frame, None, None]:
    options = f"-s {width}x{height} -pix_fmt rgb24 -f rawvideo -".split()
    # One thread: there are as many readers at a time as there are films.
    command = [_ffmpeg(), "-v", "fatal", "-threads", "1", "-i", str(film), *options]
    size = height * width * 3
    with Popen(command, stdin=DEVNULL, stdout=PIPE) as process:
        while process.stdout and len(frame := process.stdout.read(size)) == size:
            yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)
        if process.wait() != 0:
            raise OSError(f"{film} is not a whole film; record it again.")


def _hold(streams: Sequence[Iterable[Frame]]) -> Iterator[list[Frame]]:
    last: dict[int, Frame] = {}
    for frames in zip_longest(*streams):
        fresh = {index: frame for index, frame in enumerate(frames) if frame is not None}
        last |= fresh
        yield [frame if index in fresh else frame // 5 * 3 for index, frame in sorted(last.items())]


def _thin(batches: Iterable[list[Frame]], stride: int) -> Iterator[list[Frame]]:
    """Every so many, and the last one."""
    for index, batch in enumerate(batches):
        if index % stride == 0:
            yield batch
    if index % stride:
        yield batch


def _mosaic(tiles: Sequence[Frame], columns: int) -> Frame:
    full = [*tiles, *[np.zeros_like(tiles[0])] * (-len(tiles) % columns)]
    starts = range(0, len(full), columns)
    return np.vstack([np.hstack(full[start : start + columns]) for start in starts])


def _even(length: float) -> int:
    """H.264 halves the resolution of the colours, so sizes are even."""
    return int(length) // 2 * 2


def _check(fits: bool, argument: str, value: Any, rule: str) -> None:
    if not fits:
        raise ValueError(f"{argument}={value!r} does not fit; expected {rule}.")
