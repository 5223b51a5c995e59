"""The rules by which skills are drawn, whatever they are drawn for."""

import os
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from sb3_diayn.skills import check_skill

SKILL_VARIABLE = "DIAYN_SKILL"
SKILL_RULES = ("uniform", "balanced", "cycle")


class SkillDraw:
    """
    Draws the skills of one environment.

    :param n_skills: the number of skills, K
    :param skill: the standing rule, see :class:`~sb3_diayn.wrappers.DIAYNWrapper`; the environment
        variable ``DIAYN_SKILL`` overrides it
    :raises ValueError: if it is neither a rule nor one of the skills
    """

    def __init__(self, n_skills: int, skill: int | str) -> None:
        self.n_skills = n_skills
        self.set_rule(os.environ.get(SKILL_VARIABLE) or skill)
        self.p: npt.NDArray[np.float64] = np.full(n_skills, 1 / n_skills)
        self.round: list[int] = []  # what is left of it, for the rules that go in rounds

    def set_rule(self, skill: int | str) -> None:
        """
        :param skill: the standing rule from the next draw on
        :raises ValueError: if it is neither a rule nor one of the skills
        """
        if isinstance(skill, str) and skill not in SKILL_RULES:
            if not skill.lstrip("-").isdigit():
                raise ValueError(
                    f"skill={skill!r} is not a rule for drawing skills; expected an index or one "
                    f"of {SKILL_RULES}. It may also come from the variable {SKILL_VARIABLE}."
                )
            skill = int(skill)
        self.rule = skill if isinstance(skill, str) else check_skill(skill, self.n_skills)

    def draw(self, rng: np.random.Generator, options: dict[str, Any] | None = None) -> int:
        """
        :param rng: where the draw comes from
        :param options: of a reset; with ``{"skill": 3}`` that one is taken and nothing is drawn
        :return: index of the next skill
        :raises ValueError: if ``options`` name none of the skills
        """
        if options is not None and "skill" in options:
            return check_skill(options["skill"], self.n_skills)
        if isinstance(self.rule, int):
            return self.rule
        if self.rule == "uniform":
            return int(rng.choice(self.n_skills, p=self.p))
        if not self.round:
            order = np.arange(self.n_skills)
            if self.rule == "balanced":
                order = rng.permutation(self.n_skills)
            self.round = [int(skill) for skill in order]
        return self.round.pop(0)


def probabilities(log_p: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """
    :param log_p: log p(z) of a discriminator, shape ``(K,)``
    :return: p(z); float32 logarithms do not sum to 1 in float64, this does
    """
    p = np.exp(log_p.astype(np.float64))
    normalized: npt.NDArray[np.float64] = p / p.sum()
    return normalized


def check_duration(skill_duration: int | None) -> int | None:
    """
    :param skill_duration: steps for which a skill is held; None for the episode
    :return: the same
    :raises ValueError: if it is not a positive integer
    """
    is_integer = isinstance(skill_duration, int) and not isinstance(skill_duration, bool)
    if skill_duration is not None and (not is_integer or skill_duration < 1):
        raise ValueError(
            f"skill_duration={skill_duration!r} is not a number of steps; expected a positive "
            "integer. Leave it out to hold a skill for the whole episode."
        )
    return skill_duration


def warn_of_task_reward(wrapper: str) -> None:
    """:param wrapper: name of the class that pays the environment's own reward"""
    warnings.warn(
        f"{wrapper} returns the environment's own reward, since no discriminator is "
        "attached. That is right for playing and evaluating; to learn skills, pass "
        "callback=DIAYNCallback() to learn().",
        stacklevel=4,
    )
