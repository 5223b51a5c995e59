"""The paper's two sparse locomotion tasks, on the bodies that gymnasium brings."""

import warnings
from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt
from gymnasium.envs.mujoco.ant_v5 import AntEnv
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.utils import EzPickle

HURDLES = tuple(2.0 + 3.0 * i for i in range(12))  # metres


HURDLE_HALF_SIZE = (0.05, 0.5, 0.125)  # metres; MuJoCo's boxes are given by half their edges


WAYPOINTS = ((2.0, 2.0), (-2.0, 2.0), (-2.0, -2.0), (2.0, -2.0), (2.0, 2.0))  # metres


RADIUS = 0.5  # metres


Array = npt.NDArray[Any]


class HalfCheetahHurdleEnv(HalfCheetahEnv):
    """
    ``HalfCheetah-v5`` with hurdles on its way: the "cheetah hurdle" of Eysenbach et al. (2019),
    arXiv 1802.06070, section 4.2.2.

    **Observation** and **action**: those of ``HalfCheetah-v5`` (17 and 6 numbers; metres, radians
    and their rates; torques in [-1, 1]), so that skills learned there can be used here. The
    hurdles are not observed.
    **Reward**: 1 for each hurdle that the torso passes, in order, once; no other reward or cost.
    Our hurdles are 0.1 m thick, 1 m wide and 0.25 m high, every 3 m from x = 2 m on.
    **Episode end**: the time limit of 1,000 steps of 0.05 s (truncated), never terminated.
    ``info`` is that of ``HalfCheetah-v5`` and ``hurdles_passed``; its ``reward_forward`` and
    ``reward_ctrl`` are not part of the reward.

    :param hurdles: x of each hurdle in ascending order, in metres
    :param kwargs: for gymnasium's ``HalfCheetahEnv``
    """

    def __init__(self, *, hurdles: Sequence[float] = HURDLES, **kwargs: Any) -> None:
        self._hurdles = np.array(sorted(hurdles))
        self._passed = 0
        # gymnasium's own camera looks at the middle of all geoms, here at the hurdles.
        super().__init__(**({"camera_name": "track"} | kwargs))
        EzPickle.__init__(self, hurdles=hurdles, **kwargs)

    def _initialize_simulation(self) -> tuple[mujoco.MjModel, mujoco.MjData]:
        spec = mujoco.MjSpec.from_file(self.fullpath)
        for x in self._hurdles:
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                size=HURDLE_HALF_SIZE,
                pos=(x, 0.0, HURDLE_HALF_SIZE[2]),
                # As the floor's: the cheetah's own parts collide with what has an affinity only.
                conaffinity=1,
                rgba=(0.7, 0.2, 0.2, 1.0),
            )
        with warnings.catch_warnings():
            # gymnasium's own file uses what MuJoCo wants to drop.
            warnings.filterwarnings("ignore", message=".*settotalmass")
            model = spec.compile()
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        return model, mujoco.MjData(model)

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
    ``Ant-v5`` with waypoints to visit in order: the "ant navigation" of Eysenbach et al. (2019),
    arXiv 1802.06070, section 4.2.2.

    **Observation** and **action**: those of ``Ant-v5`` with
    ``exclude_current_positions_from_observation=False`` (107 and 8 numbers; x and y in metres come
    first), so that skills learned there, with ``obs_indices="0:2"`` as the paper's prior, can be
    used here. Which waypoint is next is not observed, ``info["waypoints_reached"]`` counts them.
    **Reward**: 1 when the torso is within 0.5 m of the next waypoint, so at most 5; no other
    reward or cost.
    **Episode end**: the last waypoint or an unhealthy ant, as ``Ant-v5`` has it (terminated), or
    the time limit of 2,000 steps of 0.05 s (truncated).

    :param waypoints: x and y of each, in order, in metres; the default is our order of the
        corners at +-2 m
    :param kwargs: for gymnasium's ``AntEnv``
    """

    def __init__(self, *, waypoints: Sequence[Sequence[float]] = WAYPOINTS, **kwargs: Any) -> None:
        self._waypoints = np.array(waypoints)
        self._reached = 0
        options = {"exclude_current_positions_from_observation": False, **kwargs}
        super().__init__(**options)
        EzPickle.__init__(self, waypoints=waypoints, **options)

    def reset_model(self) -> Array:
        """:return: the first observation of an episode"""
        self._reached = 0
        obs: Array = super().reset_model()  # type: ignore[no-untyped-call]
        return obs

    def step(self, action: Array) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: torques, shape ``(8,)``
        :return: as any environment
        """
        obs, _, terminated, truncated, info = super().step(action)  # type: ignore[no-untyped-call]
        position = info["x_position"], info["y_position"]
        is_reached = np.linalg.norm(self._waypoints[self._reached] - position) <= RADIUS
        self._reached += int(is_reached)
        info = {**info, "waypoints_reached": self._reached}
        terminated = bool(terminated or self._reached == len(self._waypoints))
        return obs, float(is_reached), terminated, truncated, info
