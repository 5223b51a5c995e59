"""Where the skill sits in an observation. No other module of the package knows."""

from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

FloatArray = npt.NDArray[np.float32]
SkillArray = npt.NDArray[np.integer[Any]]


def check_n_skills(n_skills: Any) -> int:
    """
    :param n_skills: the number of skills, K
    :return: the same number as an ``int``
    :raises ValueError: if it is not an integer of at least 2
    """
    if isinstance(n_skills, bool) or not isinstance(n_skills, Integral) or int(n_skills) < 2:
        raise ValueError(
            f"n_skills={n_skills!r} is not a number of skills; expected an integer of at least 2. "
            "With a single skill there is nothing to tell apart: pass n_skills=2 or more."
        )
    return int(n_skills)


def check_skill(skill: Any, n_skills: int) -> int:
    """
    :param skill: index of a skill
    :param n_skills: the number of skills, K
    :return: the same index as an ``int``
    :raises ValueError: if it is not an integer between 0 and ``n_skills - 1``
    """
    is_integer = isinstance(skill, Integral) and not isinstance(skill, bool)
    if not is_integer or not 0 <= int(skill) < n_skills:
        raise ValueError(
            f"skill={skill!r} is not one of the skills; expected an integer from 0 to "
            f"{n_skills - 1}. Skills are counted from 0: choose one of those {n_skills}."
        )
    return int(skill)


class SkillSpace:
    """
    The observation space that a policy conditioned on a skill sees: the environment's own
    observation, float32, followed by the one-hot of the skill.

    Worked example, an observation of 2 numbers and 3 skills: ``append([0.5, -1], 1)`` is
    ``[0.5, -1, 0, 1, 0]`` and ``split`` of that is ``([0.5, -1], 1)``.

    :param env_space: observation space of the environment, a one-dimensional ``Box``
    :param n_skills: the number of skills, K
    :raises ValueError: if the space is not a one-dimensional ``Box`` or K is not at least 2
    """

    def __init__(self, env_space: spaces.Space[Any], n_skills: int) -> None:
        if not isinstance(env_space, spaces.Box) or len(env_space.shape) != 1:
            raise ValueError(
                f"observation_space={env_space} is not supported; expected a one-dimensional Box. "
                "Flatten it first, for example with gymnasium.wrappers.FlattenObservation(env)."
            )
        self.n_skills = check_n_skills(n_skills)
        self.env_space = spaces.Box(
            env_space.low.astype(np.float32), env_space.high.astype(np.float32), dtype=np.float32
        )
        self._one_hots = np.eye(self.n_skills, dtype=np.float32)
        self.observation_space = spaces.Box(
            np.concatenate([self.env_space.low, np.zeros(self.n_skills, np.float32)]),
            np.concatenate([self.env_space.high, np.ones(self.n_skills, np.float32)]),
            dtype=np.float32,
        )

    @classmethod
    def from_augmented(cls, observation_space: spaces.Space[Any], n_skills: int) -> "SkillSpace":
        """
        The same object, starting from the space that a model was built on.

        :param observation_space: the augmented space, a one-dimensional ``Box``
        :param n_skills: the number of skills, K
        :raises ValueError: if the last K numbers of the space are not a one-hot
        """
        n_skills = check_n_skills(n_skills)
        is_box = isinstance(observation_space, spaces.Box) and len(observation_space.shape) == 1
        if is_box:
            low, high = observation_space.low, observation_space.high  # type: ignore[attr-defined]
            if len(low) > n_skills and not low[-n_skills:].any() and (high[-n_skills:] == 1).all():
                return cls(spaces.Box(low[:-n_skills], high[:-n_skills]), n_skills)
        raise ValueError(
            f"observation_space={observation_space} does not end with the one-hot of "
            f"n_skills={n_skills} skills; expected the space of a DIAYNWrapper. "
            "Wrap the environment with DIAYNWrapper, outside every wrapper that changes the "
            "observation, and use the number of skills that the model was trained with."
        )

    def append(self, env_obs: npt.NDArray[Any], skill: npt.ArrayLike) -> FloatArray:
        """
        :param env_obs: observations of the environment, shape ``(d,)`` or ``(n, d)``
        :param skill: index of a skill, a scalar or shape ``(n,)``
        :return: what the policy sees, float32, shape ``(d + K,)`` or ``(n, d + K)``
        """
        return self.append_weights(env_obs, self._one_hots[np.asarray(skill)])

    def append_weights(self, env_obs: npt.NDArray[Any], weights: npt.NDArray[Any]) -> FloatArray:
        """
        :param env_obs: observations of the environment, shape ``(d,)`` or ``(n, d)``
        :param weights: what stands in the place of the one-hot, shape ``(K,)`` or ``(n, K)``
        :return: what the policy sees, float32, shape ``(d + K,)`` or ``(n, d + K)``
        """
        return np.concatenate([env_obs, weights], axis=-1, dtype=np.float32)

    def split(self, observation: npt.NDArray[Any]) -> tuple[FloatArray, SkillArray]:
        """
        Undo :meth:`append`.

        :param observation: what the policy sees, shape ``(d + K,)`` or ``(n, d + K)``
        :return: observations of the environment, shape ``(d,)`` or ``(n, d)``, and the index of
            the skill, shape ``()`` or ``(n,)``
        """
        n_features = self.env_space.shape[0]
        skill = observation[..., n_features:].argmax(axis=-1)
        return observation[..., :n_features].astype(np.float32, copy=False), skill
