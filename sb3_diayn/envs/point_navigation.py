"""A point in a plane with walls: the paper's illustrations, and a sparse task for hierarchies."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

Array = npt.NDArray[Any]

# The free space is a union of rectangles: x_min, y_min, x_max, y_max.
LAYOUTS = {
    "box": [(-1.0, -1.0, 1.0, 1.0)],
    "hallway": [(-2.0, -0.15, 0.0, 0.15), (0.0, -1.0, 1.0, 1.0)],
    "umaze": [(-1.0, -1.0, 1.0, -0.7), (0.7, -1.0, 1.0, 1.0), (-1.0, 0.7, 1.0, 1.0)],
}
STARTS = {"box": (0.0, 0.0), "hallway": (-1.9, 0.0), "umaze": (-0.85, -0.85)}
STEP_LENGTH = 0.1
START_NOISE = 0.02
PIXELS_PER_METRE = 100


class PointNavigationEnv(gym.Env[Array, Array]):
    """
    A point that moves as the action says, in a room with walls, after the "2D navigation" in
    figure 2 of Eysenbach et al. (2019). Sizes and the goal are our own.
    Paper: https://arxiv.org/abs/1802.06070

    **Observation**: the position (x, y) in metres, ``Box`` of shape ``(2,)``; with
    ``velocity=True`` of shape ``(4,)``: the position, then its last change in units of 0.1
    metres, clipped to [-1, 1]. At a wall the change is smaller than the action.
    **Action**: the velocity in [-1, 1] per coordinate, ``Box`` of shape ``(2,)``; 1 is 0.1 metres
    per step. A step that would end in a wall ends at the closest free point, as in the paper.
    **Layouts**: ``"box"``, 2 by 2 metres, starting in its centre; ``"hallway"``, a corridor of
    2 by 0.3 metres that opens into a room of 1 by 2, starting at the corridor's far end;
    ``"umaze"``, a corridor of 0.3 metres along three sides of the box, starting at its lower left
    end. No constant action leads through it.
    Starts vary with a standard deviation of 0.02 metres per coordinate.
    **Reward**: 1 on reaching the goal, which ends the episode (terminated), 0 otherwise.
    **Episode end**: the goal, or the time limit of the registered ids, 100 steps or, in the
    ``"umaze"``, 200 (truncated).
    ``info`` has ``x_position`` and ``y_position`` in metres, and ``is_success``.

    Example::

        >>> import gymnasium as gym
        >>> import numpy as np
        >>> import sb3_diayn  # registers the id
        >>> env = gym.make("sb3_diayn/PointHallway-v0")
        >>> obs, info = env.reset(seed=0)
        >>> for _ in range(25):  # to the right, along the corridor
        ...     obs, reward, terminated, truncated, info = env.step(np.array([1.0, 0.0]))
        >>> info["x_position"] > 0, reward, terminated  # in the room, not at the goal
        (True, 0.0, False)

    :param layout: ``"box"``, ``"hallway"`` or ``"umaze"``
    :param goal: (x, y) of the goal, in metres; None for no goal, so that every reward is 0
    :param goal_radius: how close counts as reached, in metres
    :param velocity: also observe the last change of position
    :param render_mode: None or ``"rgb_array"``
    :raises ValueError: if there is no such layout, the goal is not in it or its radius is not
        positive
    """

    # With the type that gymnasium declares.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(
        self,
        layout: str = "box",
        *,
        goal: Sequence[float] | None = None,
        goal_radius: float = 0.2,
        velocity: bool = False,
        render_mode: str | None = None,
    ) -> None:
        if layout not in LAYOUTS:
            raise ValueError(f"layout={layout!r} is not known; expected one of {sorted(LAYOUTS)}.")
        if not goal_radius > 0:
            raise ValueError(f"goal_radius={goal_radius!r} is not positive; expected a length.")
        self._rooms = np.array(LAYOUTS[layout], np.float32)
        self._start = np.array(STARTS[layout], np.float32)
        self._goal = None if goal is None else self._check_goal(goal)
        self._goal_radius = goal_radius
        self._low, self._high = self._rooms[:, :2].min(axis=0), self._rooms[:, 2:].max(axis=0)
        self._sees_velocity = velocity
        bounds = [self._low, self._high]
        if velocity:
            ones = np.ones(2, np.float32)
            bounds = [np.append(self._low, -ones), np.append(self._high, ones)]
        self.observation_space = spaces.Box(*bounds, dtype=np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.render_mode = render_mode
        self._position, self._velocity = self._start, np.zeros(2, np.float32)

    def _check_goal(self, goal: Sequence[float]) -> Array:
        point = np.array(goal, np.float32)
        if point.shape != (2,) or not np.allclose(self._nearest_free(point), point):
            raise ValueError(
                f"goal={goal!r} is not a free point of the layout; expected x and y inside one of "
                f"{self._rooms.tolist()} (x_min, y_min, x_max, y_max). Move it inside."
            )
        return point

    def _nearest_free(self, point: Array) -> Array:
        inside: Array = np.clip(point, self._rooms[:, :2], self._rooms[:, 2:])
        nearest: Array = inside[np.linalg.norm(inside - point, axis=1).argmin()]
        return nearest

    def _is_success(self) -> bool:
        if self._goal is None:
            return False
        return bool(np.linalg.norm(self._position - self._goal) <= self._goal_radius)

    def _obs(self) -> Array:
        parts = [self._position, self._velocity] if self._sees_velocity else [self._position]
        return np.concatenate(parts)

    def _info(self) -> dict[str, Any]:
        x, y = (float(value) for value in self._position)
        return {"x_position": x, "y_position": y, "is_success": self._is_success()}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """
        :param seed: of the start
        :param options: unused
        :return: the position, and ``info``
        """
        super().reset(seed=seed)
        noise = self.np_random.normal(0.0, START_NOISE, 2).astype(np.float32)
        self._position = self._nearest_free(self._start + noise)
        self._velocity = np.zeros(2, np.float32)
        return self._obs(), self._info()

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """
        :param action: the velocity, shape ``(2,)``; clipped to [-1, 1]
        :return: as any environment
        """
        before, move = self._position, np.clip(action, -1.0, 1.0).astype(np.float32)
        self._position = self._nearest_free(before + np.float32(STEP_LENGTH) * move)
        self._velocity = np.clip((self._position - before) / np.float32(STEP_LENGTH), -1.0, 1.0)
        info = self._info()
        return self._obs(), float(info["is_success"]), info["is_success"], False, info

    def render(self) -> npt.NDArray[np.uint8]:
        """:return: the plane from above, y upwards, 100 pixels per length"""
        margin = 0.1
        width, height = ((self._high - self._low + 2 * margin) * PIXELS_PER_METRE).astype(int)
        columns = self._low[0] - margin + (np.arange(width) + 0.5) / PIXELS_PER_METRE
        rows = self._high[1] + margin - (np.arange(height) + 0.5) / PIXELS_PER_METRE
        x, y = np.meshgrid(columns, rows)
        frame = np.full((height, width, 3), 60, np.uint8)
        for x_min, y_min, x_max, y_max in self._rooms:
            frame[(x >= x_min) & (x <= x_max) & (y >= y_min) & (y <= y_max)] = 255
        if self._goal is not None:
            at_goal = np.hypot(x - self._goal[0], y - self._goal[1]) <= self._goal_radius
            frame[at_goal] = (120, 200, 120)
        frame[np.hypot(x - self._position[0], y - self._position[1]) <= 0.05] = (200, 30, 30)
        return frame
