"""
Registers the sparse tasks of the paper (section 4.2.2) with gymnasium, by ``import sb3_diayn``.

| id | task |
|---|---|
| ``sb3_diayn/PointBox-v0`` | a point in a box, no reward: to look at skills |
| ``sb3_diayn/PointHallway-v0`` | a point in a corridor, a goal in the room behind it |
| ``sb3_diayn/PointUMaze-v0`` | a point in a corridor with two bends, a goal at its end |
| ``sb3_diayn/HalfCheetahHurdle-v0`` | 1 for each hurdle passed |
| ``sb3_diayn/AntWaypoints-v0`` | 1 for each of five waypoints reached in order |

Classes are registered by their names, so that registering does not import them.
"""

from typing import Any

import gymnasium as gym

_TASKS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "PointBox": ("point_navigation:PointNavigationEnv", 100, {"layout": "box"}),
    "PointHallway": (
        "point_navigation:PointNavigationEnv",
        100,
        {"layout": "hallway", "goal": (0.8, 0.8)},
    ),
    "PointUMaze": (
        "point_navigation:PointNavigationEnv",
        200,
        {"layout": "umaze", "goal": (-0.85, 0.85), "velocity": True},
    ),
    "HalfCheetahHurdle": ("locomotion:HalfCheetahHurdleEnv", 1000, {}),
    "AntWaypoints": ("locomotion:AntWaypointsEnv", 2000, {}),
}

for _name, (_entry_point, _max_episode_steps, _kwargs) in _TASKS.items():
    gym.register(
        f"sb3_diayn/{_name}-v0",
        entry_point=f"sb3_diayn.envs.{_entry_point}",
        max_episode_steps=_max_episode_steps,
        kwargs=_kwargs,
    )
