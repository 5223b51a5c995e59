"""Pictures of an environment, and what to say when there are none."""

import traceback
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium.error import DependencyNotInstalled
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn.trajectories import as_vec_env

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
