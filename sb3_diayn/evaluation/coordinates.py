"""Names of the coordinates of an observation, for readers of figures and reports."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn.observations import is_vector

__all__ = ["check_obs_names", "coordinate_labels", "find_obs_names", "orientation_indices"]

ATTRIBUTE = "obs_names"  # of an environment that names its own coordinates
_LANDER = (
    *("x position", "y position", "x velocity", "y velocity", "angle", "angular velocity"),
    *("contact of the left leg", "contact of the right leg"),
)
# By id without version, where no MuJoCo model names the coordinates.
KNOWN: dict[str, tuple[str, ...]] = {
    "Acrobot": (
        *("cos(angle 1)", "sin(angle 1)", "cos(angle 2)", "sin(angle 2)"),
        *("angular velocity 1", "angular velocity 2"),
    ),
    "CartPole": ("cart position", "cart velocity", "pole angle", "pole angular velocity"),
    "InvertedDoublePendulum": (
        *("slider position", "sin(hinge)", "sin(hinge2)", "cos(hinge)", "cos(hinge2)"),
        *("slider velocity", "hinge angular velocity", "hinge2 angular velocity"),
        "constraint force",
    ),
    "LunarLander": _LANDER,
    "LunarLanderContinuous": _LANDER,
    "MountainCar": ("position", "velocity"),
    "MountainCarContinuous": ("position", "velocity"),
    "Pendulum": ("cos(angle)", "sin(angle)", "angular velocity"),
    "Reacher": (
        *("cos(joint0)", "cos(joint1)", "sin(joint0)", "sin(joint1)", "target x", "target y"),
        *("joint0 angular velocity", "joint1 angular velocity"),
        *("fingertip to target x", "fingertip to target y"),
    ),
}
# Names of a joint's positions and velocities, by its type in MuJoCo: free, ball, slide and hinge.
# Numbers, so that the package does not load MuJoCo for environments without it.
QUATERNION = tuple(f"{{}} quaternion {axis}" for axis in "wxyz")
ROTATION = tuple(f"{{}} angular velocity {axis}" for axis in "xyz")
JOINTS: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {
    0: (
        (*(f"{{}} {axis}" for axis in "xyz"), *QUATERNION),
        (*(f"{{}} {axis} velocity" for axis in "xyz"), *ROTATION),
    ),
    1: (QUATERNION, ROTATION),
    2: (("{} position",), ("{} velocity",)),
    3: (("{} angle",), ("{} angular velocity",)),
}

# The torso's joint in gymnasium's MuJoCo environments, in space and in a vertical plane.
ORIENTATIONS = (tuple(name.format("root") for name in QUATERNION), ("rooty angle",))


def check_obs_names(obs_names: Sequence[str], space: gym.Space[Any]) -> list[str]:
    """
    :param obs_names: a name for each coordinate of the observation
    :param space: of the environment's own observations
    :return: them
    :raises ValueError: if the observation is not a vector of this length
    """
    names = [str(name) for name in obs_names]
    if not _fit(names, space):
        raise ValueError(
            f"obs_names={names!r} does not fit observations of {space}; expected a name for each "
            "coordinate of a vector."
        )
    return names


def find_obs_names(env: VecEnv, space: gym.Space[Any]) -> list[str] | None:
    """
    :param env: environments. An attribute ``obs_names`` of theirs is what they call the coordinates
    :param space: of the environment's own observations, without the skill
    :return: a name for each coordinate; None if nothing is known, or what is known does not fit
    """
    candidates = [_of_attribute(env), _of_mujoco(env), _of_id(env)]
    if env.has_attr("rename_obs"):  # of DisplacementObservation
        candidates = [env.env_method("rename_obs", n)[0] for n in candidates if n]
    return next((list(names) for names in candidates if names and _fit(names, space)), None)


def coordinate_labels(info: Mapping[str, Any]) -> list[str]:
    """
    :param info: of an evaluation
    :return: what to call its two ``coordinates``
    """
    return [_label(name, info.get("obs_names")) for name in info["coordinates"]]


def orientation_indices(obs_names: Sequence[str] | None) -> list[int]:
    """
    :param obs_names: what the coordinates are called, see :func:`find_obs_names`
    :return: the coordinates that hold the orientation of the torso, as
        :func:`~sb3_diayn.evaluation.metrics.uprightness` reads them; none if it is unknown
    """
    for names in ORIENTATIONS:
        if set(names) <= set(obs_names or ()):
            return [list(obs_names or ()).index(name) for name in names]
    return []


def _label(name: str, obs_names: Sequence[str] | None) -> str:
    found = re.fullmatch(r"observation (\d+)", name)
    if found and obs_names and int(found[1]) < len(obs_names):
        return str(obs_names[int(found[1])])
    return name.replace("_", " ")


def _fit(names: Sequence[str], space: gym.Space[Any]) -> bool:
    return is_vector(space) and space.shape == (len(names),)


def _of_attribute(env: VecEnv) -> Sequence[str]:
    names = env.get_attr(ATTRIBUTE, indices=[0])[0] if env.has_attr(ATTRIBUTE) else ()
    is_list = isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    return names if is_list else ()


def _of_id(env: VecEnv) -> Sequence[str]:
    spec = env.get_attr("spec", indices=[0])[0] if env.has_attr("spec") else None
    name = getattr(spec, "name", None)  # a simulator's own spec may have none
    return () if name is None or getattr(spec, "namespace", None) else KNOWN.get(name, ())


def _of_mujoco(env: VecEnv) -> Sequence[str]:
    """Since their version 5, gymnasium's environments say what their observation consists of."""
    if not env.has_attr("observation_structure"):
        return ()
    structure = dict(env.get_attr("observation_structure", indices=[0])[0])
    positions, velocities = joint_coordinates(env.get_attr("model", indices=[0])[0])
    known = {"qpos": positions[structure.pop("skipped_qpos", 0) :], "qvel": velocities}
    names: list[str] = []
    for key, size in structure.items():
        names += known[key] if key in known else [f"{key} {index}" for index in range(size)]
    return names


def joint_coordinates(model: Any) -> tuple[list[str], list[str]]:
    """
    :param model: a MuJoCo model
    :return: the names of its generalised positions and velocities, ``qpos`` and ``qvel``
    """
    positions: list[str] = []
    velocities: list[str] = []
    for index, kind in enumerate(model.jnt_type):
        joint = model.joint(index).name or f"joint {index}"
        joint = joint.removesuffix("_joint").replace("_", " ")
        of_position, of_velocity = JOINTS[int(kind)]
        positions += [text.format(joint) for text in of_position]
        velocities += [text.format(joint) for text in of_velocity]
    return positions, velocities
