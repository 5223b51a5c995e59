"""Several skills in one episode: one after the other, and mixtures of them."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from sb3_diayn.skills import SkillSpace, check_skill

__all__ = ["ScheduledSkills", "mix_skills"]


Weights = npt.NDArray[np.float32]


Mixture = int | Mapping[int, float]


Schedule = Sequence[tuple[Mixture, int]]


def mix_skills(mixture: Mixture, n_skills: int) -> Weights:
    """
    A convex combination of one-hots. The policy has never seen one in training: what it makes of
    it is for you to look at.

    :param mixture: a skill, or shares by skill: ``{3: 1, 7: 1}`` is half skill 3, half skill 7
    :param n_skills: the number of skills, K
    :return: weights that sum to 1, shape ``(K,)``
    :raises ValueError: if a skill does not exist, or the shares are not positive numbers
    """
    shares = mixture if isinstance(mixture, Mapping) else {mixture: 1.0}
    numbers = np.array(list(shares.values()), dtype=float)
    if len(numbers) == 0 or not (np.isfinite(numbers) & (numbers > 0)).all():
        raise ValueError(
            f"mixture={mixture!r} has no shares to mix by; expected a positive number for each "
            "skill in it. Leave out the skills that shall have no part."
        )
    weights = np.zeros(n_skills, np.float32)
    for skill, share in zip(shares, numbers / numbers.sum(), strict=True):
        weights[check_skill(skill, n_skills)] = share
    return weights


class ScheduledSkills(gym.Wrapper[Any, Any, Any, Any]):
    """
    Plays skills by a schedule, as the original code's scheduled policy does: in the place of
    ``DIAYNWrapper``, which draws one for each episode. ``evaluate_policy``, ``RecordVideo`` and
    every other tool of SB3 and gymnasium then play, measure and film the composition.

    ``ScheduledSkills(env, 20, [(3, 100), ({3: 1, 7: 1}, 50), (7, 100)])`` is skill 3 for 100 steps,
    half of each for 50, then skill 7. The reward is the environment's own; ``info["weights"]`` is
    the mixture that acted, by skill.

    :param env: an environment without ``DIAYNWrapper``
    :param n_skills: the number of skills, K, of the model that will play
    :param schedule: mixtures, see :func:`mix_skills`, each with its number of steps
    :param repeat: begin again after the last one, instead of going on with it
    :raises ValueError: if the schedule is empty, or a mixture or a number of steps is wrong
    """

    def __init__(
        self, env: gym.Env[Any, Any], n_skills: int, schedule: Schedule, *, repeat: bool = False
    ) -> None:
        super().__init__(env)
        self.skill_space = SkillSpace(env.observation_space, n_skills)
        self.observation_space = self.skill_space.observation_space
        if len(schedule) == 0:
            raise ValueError(
                f"schedule={schedule!r} has no skill; expected at least one, with its steps. "
                "For example [(3, 100), (7, 100)]."
            )
        stages = [mix_skills(mixture, n_skills) for mixture, _ in schedule]
        self._weights = np.repeat(stages, [_check_steps(steps) for _, steps in schedule], axis=0)
        self._repeat = repeat
        self._step = 0

    def _current(self) -> Weights:
        last = len(self._weights)
        row = self._step % last if self._repeat else min(self._step, last - 1)
        weights: Weights = self._weights[row].copy()  # a Dict observation holds it as it is
        return weights

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: of the environment
        :param options: of the environment
        :return: the observation with the first mixture, and ``info``
        """
        self._step = 0
        obs, info = self.env.reset(seed=seed, options=options)
        return self.skill_space.append_weights(obs, self._current()), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """
        :param action: of the environment
        :return: as any environment, the observation with the mixture that acts next
        """
        weights = self._current()
        obs, reward, terminated, truncated, info = self.env.step(action)
        self._step += 1
        info = {**info, "weights": {int(z): float(weights[z]) for z in np.flatnonzero(weights)}}
        obs = self.skill_space.append_weights(obs, self._current())
        return obs, reward, terminated, truncated, info


def _check_steps(steps: Any) -> int:
    if not isinstance(steps, Integral) or isinstance(steps, bool) or int(steps) < 1:
        raise ValueError(
            f"steps={steps!r} in the schedule is not a number of steps; expected a positive "
            "integer. The last skill goes on when its steps are over."
        )
    return int(steps)
