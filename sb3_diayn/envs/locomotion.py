"""The paper's two sparse locomotion tasks, on gymnasium's MuJoCo models."""

import warnings
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.mujoco.mujoco_env import MujocoEnv
from gymnasium.utils import EzPickle

Array = npt.NDArray[Any]

HURDLES = tuple(2.0 + 3.0 * i for i in range(12))  # x of each, in metres
HURDLE_HALF_SIZE = (0.05, 0.5, 0.125)  # metres; MuJoCo describes a box by half its edges
WAYPOINTS = ((2.0, 2.0), (-2.0, 2.0), (-2.0, -2.0), (2.0, -2.0), (2.0, 2.0))  # x and y in metres
WAYPOINT_RADIUS = 0.5  # metres
# Waypoints in pictures: green, and faint until they are next.
GREEN, NEXT, LATER, REACHED = (0.1, 0.7, 0.2), 0.8, 0.2, 0.0


def _simulation(env: MujocoEnv, spec: mujoco.MjSpec) -> tuple[mujoco.MjModel, mujoco.MjData]:
    """What gymnasium makes from its model file, here from a changed one."""
    with warnings.catch_warnings():
        # gymnasium's model file uses settotalmass, which MuJoCo deprecates.
        warnings.filterwarnings("ignore", message=".*settotalmass")
        model = spec.compile()
    model.vis.global_.offwidth = max(model.vis.global_.offwidth, env.width)
    model.vis.global_.offheight = max(model.vis.global_.offheight, env.height)
    return model, mujoco.MjData(model)


class HalfCheetahHurdleEnv(HalfCheetahEnv):
    """
    ``HalfCheetah-v5`` with hurdles on its way: the "cheetah hurdle" of section 4.2.2 of
    Eysenbach et al. (2019).
    Paper: https://arxiv.org/abs/1802.06070

    **Observation** and **action**: as in ``HalfCheetah-v5`` (17 and 6 numbers; metres, radians
    and their rates; torques in [-1, 1]), so that skills learned there can be used here. The
    hurdles are not observed.
    **Reward**: 1 for each hurdle that the torso passes, in order, once; no other reward or cost.
    Our hurdles are 0.1 m thick, 1 m wide and 0.25 m high, every 3 m from x = 2 m on.
    **Episode end**: the time limit of 1,000 steps of 0.05 s (truncated), never terminated.
    ``info`` has the entries of ``HalfCheetah-v5`` and ``hurdles_passed``. Its ``reward_forward``
    and ``reward_ctrl`` are not part of the reward.

    Example::

        >>> import gymnasium as gym
        >>> import sb3_diayn  # registers the id
        >>> env = gym.make("sb3_diayn/HalfCheetahHurdle-v0")
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        >>> obs.shape, reward, info["hurdles_passed"]
        ((17,), 0.0, 0)

    :param hurdles: x of each hurdle in ascending order, in metres
    :param kwargs: for gymnasium's ``HalfCheetahEnv``
    """

    def __init__(self, *, hurdles: Sequence[float] = HURDLES, **kwargs: Any) -> None:
        self._hurdles = np.array(sorted(hurdles))
        self._passed = 0
        # By default gymnasium's camera looks at the centre of all geoms: here, at the hurdles.
        super().__init__(**({"camera_name": "track"} | kwargs))
        EzPickle.__init__(self, hurdles=hurdles, **kwargs)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        for x in self._hurdles:
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=HURDLE_HALF_SIZE,
                pos=(x, 0.0, HURDLE_HALF_SIZE[2]),
                # As for the floor: the parts of the cheetah collide only with geoms that have it.
                conaffinity=1,
                rgba=(0.7, 0.2, 0.2, 1.0),
            )
        return _simulation(self, spec)

    def reset_model(self) -> Array:
        """:return: the first observation of an episode"""
        self._passed = 0
        obs: Array = super().reset_model()  # type: ignore[no-untyped-call]
        return obs

    def step(self, action: Array) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: torques, shape ``(6,)``
        :return: as any environment
        """
        obs, _, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        passed = max(self._passed, int(np.searchsorted(self._hurdles, info["x_position"])))
        reward, self._passed = float(passed - self._passed), passed
        return obs, reward, terminated, truncated, {**info, "hurdles_passed": passed}


class AntWaypointsEnv(AntEnv):
    """
    ``Ant-v5`` with waypoints to visit in order: the "ant navigation" of section 4.2.2 of
    Eysenbach et al. (2019).
    Paper: https://arxiv.org/abs/1802.06070

    **Observation** and **action**: as in ``Ant-v5`` with
    ``exclude_current_positions_from_observation=False`` (107 and 8 numbers; x and y in metres come
    first), so that skills learned there, with ``obs_indices="0:2"`` as the paper's prior, can be
    used here. Which waypoint is next is not observed, ``info["waypoints_reached"]`` counts them.
    **Reward**: 1 when the torso is within 0.5 m of the next waypoint, so at most 5; no other
    reward or cost.
    **Episode end**: the last waypoint or an unhealthy ant as in ``Ant-v5`` (terminated), or the
    time limit of 2,000 steps of 0.05 s (truncated).
    **Pictures** show the waypoints as green discs: the next one bright, later ones faint.

    Example::

        >>> import gymnasium as gym
        >>> import sb3_diayn  # registers the id
        >>> env = gym.make("sb3_diayn/AntWaypoints-v0")
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        >>> obs.shape, reward, info["waypoints_reached"]
        ((107,), 0.0, 0)

    :param waypoints: x and y of each, in order, in metres; by default the corners at
        +-2 m, in our own order
    :param kwargs: for gymnasium's ``AntEnv``
    """

    def __init__(self, *, waypoints: Sequence[Sequence[float]] = WAYPOINTS, **kwargs: Any) -> None:
        self._waypoints = np.array(waypoints)
        self._reached = 0
        options = {"exclude_current_positions_from_observation": False, **kwargs}
        super().__init__(**options)
        EzPickle.__init__(self, waypoints=waypoints, **options)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        for x, y in self._waypoints:  # sites are seen, and touch nothing
            spec.worldbody.add_site(
                type=mujoco.mjtGeom.mjGEOM_CYLINDER,
                size=(WAYPOINT_RADIUS, 0.005, 0.0),
                pos=(x, y, 0.005),
                rgba=(*GREEN, LATER),
            )
        return _simulation(self, spec)

    def _show_waypoints(self) -> None:
        alpha = self.model.site_rgba[-len(self._waypoints) :, 3]
        alpha[:] = LATER
        alpha[: self._reached + 1] = NEXT
        alpha[: self._reached] = REACHED

    def reset_model(self) -> Array:
        """:return: the first observation of an episode"""
        self._reached = 0
        self._show_waypoints()
        obs: Array = super().reset_model()  # type: ignore[no-untyped-call]
        return obs

    def step(self, action: Array) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: torques, shape ``(8,)``
        :return: as any environment
        """
        obs, _, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        position = info["x_position"], info["y_position"]
        is_reached = np.linalg.norm(self._waypoints[self._reached] - position) <= WAYPOINT_RADIUS
        if is_reached:
            self._reached += 1
            self._show_waypoints()
        info = {**info, "waypoints_reached": self._reached}
        terminated = bool(terminated or self._reached == len(self._waypoints))
        return obs, float(is_reached), terminated, truncated, info
