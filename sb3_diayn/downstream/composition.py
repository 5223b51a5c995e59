"""Several skills in one episode: one after the other, and mixtures of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.utils import RecordConstructorArgs

from sb3_diayn.arguments import check_positive
from sb3_diayn.observations import copy_obs
from sb3_diayn.skills import SkillSpace, check_skill
from sb3_diayn.wrappers import reset_env

__all__ = ["ScheduledSkills", "mix_skills"]

Weights = npt.NDArray[np.float32]
Mixture = int | Mapping[int, float]
Schedule = Sequence[tuple[Mixture, int]]


class ScheduledSkills(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    Plays skills by a schedule, as the scheduled policy of the original code does. It takes the
    place of ``DIAYNWrapper``, which draws one skill for each episode. ``evaluate_policy``,
    ``RecordVideo`` and every other tool of SB3 and gymnasium then play, measure and film the
    composition. Where actions are masked, the policy is recurrent or observations were normalised,
    pass them :class:`~sb3_diayn.evaluation.playing.SkillPolicy` in place of the model. The reward
    is the environment's own; ``info["weights"]`` has the mixture that acted, by skill.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import gymnasium as gym
        >>> from sb3_diayn.downstream import ScheduledSkills
        >>> # Skill 0 for two steps, half of each for one step, then skill 2.
        >>> schedule = [(0, 2), ({0: 1, 2: 1}, 1), (2, 5)]
        >>> env = ScheduledSkills(gym.make("Pendulum-v1"), 4, schedule)
        >>> obs, info = env.reset(seed=0)
        >>> obs.shape  # three numbers of the pendulum and the one-hot
        (7,)
        >>> for _ in range(3):
        ...     obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        >>> info["weights"]
        {0: 0.5, 2: 0.5}

    :param env: an environment without ``DIAYNWrapper``
    :param n_skills: the number of skills, K, of the model that will play
    :param schedule: mixtures, see :func:`mix_skills`, each with its number of steps
    :param repeat: start again after the last mixture, instead of keeping it
    :raises ValueError: if the schedule is empty, or a mixture or a number of steps is wrong
    """

    def __init__(
        self, env: gym.Env[Any, Any], n_skills: int, schedule: Schedule, *, repeat: bool = False
    ) -> None:
        RecordConstructorArgs.__init__(self, n_skills=n_skills, schedule=schedule, repeat=repeat)
        gym.Wrapper.__init__(self, env)
        self.skill_space = SkillSpace(env.observation_space, n_skills)
        self.observation_space = self.skill_space.observation_space
        self.n_skills = self.skill_space.n_skills
        if len(schedule) == 0:
            raise ValueError(
                f"schedule={schedule!r} has no skill; expected at least one, with its steps, such "
                "as [(3, 100), (7, 100)]."
            )
        mixtures = [mix_skills(mixture, n_skills) for mixture, _ in schedule]
        hint = "The last mixture of a schedule stays when its steps are over."
        steps = [check_positive("steps", steps, hint) for _, steps in schedule]
        self._weights = np.repeat(mixtures, steps, axis=0)  # one row per step
        self._repeat = repeat
        self._step = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: of the environment
        :param options: of the environment
        :return: the observation with the first mixture, and ``info``
        """
        self._step = 0
        obs, info = reset_env(self.env, seed, options)
        return self._append_weights(obs), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: of the environment
        :return: as in gymnasium; the observation has the mixture that acts next
        """
        weights = self._current_weights()
        obs, reward, terminated, truncated, info = self.env.step(copy_obs(action))
        self._step += 1
        acted = {int(z): float(weights[z]) for z in np.flatnonzero(weights)}
        info = {**copy_obs(info), "weights": acted}
        return self._append_weights(obs), reward, terminated, truncated, info

    def _append_weights(self, env_obs: Any) -> Any:
        """In new arrays: an environment may return the same one each time."""
        return self.skill_space.append_weights(copy_obs(env_obs), self._current_weights())

    def _current_weights(self) -> Weights:
        n_steps = len(self._weights)
        row = self._step % n_steps if self._repeat else min(self._step, n_steps - 1)
        weights: Weights = self._weights[row].copy()  # a Dict observation keeps this array
        return weights


def mix_skills(mixture: Mixture, n_skills: int) -> Weights:
    """
    A convex combination of one-hots. The policy has seen no mixture in training: look at what it
    does with one.

    Example::

        >>> from sb3_diayn.downstream import mix_skills
        >>> mix_skills({0: 3, 2: 1}, n_skills=4).tolist()
        [0.75, 0.0, 0.25, 0.0]

    :param mixture: a skill, or shares by skill: ``{3: 1, 7: 1}`` is half skill 3, half skill 7
    :param n_skills: the number of skills, K
    :return: weights that sum to 1, shape ``(K,)``
    :raises ValueError: if a skill does not exist, or the shares are not positive numbers
    """
    shares = mixture if isinstance(mixture, Mapping) else {mixture: 1.0}
    numbers = np.array(list(shares.values()), dtype=float)
    if len(numbers) == 0 or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError(
            f"mixture={mixture!r} has no valid shares; expected a positive number for each skill "
            "in it. Leave out skills without a share."
        )
    weights = np.zeros(n_skills, np.float32)
    for skill, share in zip(shares, numbers / numbers.sum(), strict=True):
        weights[check_skill(skill, n_skills)] = share
    return weights
