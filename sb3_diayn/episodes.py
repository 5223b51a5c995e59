"""What brings an environment back into the middle of an episode."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

# An episode without end must not fill the memory.
MAX_RECORDED_STEPS = 100_000


@dataclass
class EpisodeRecord:
    """
    The random state before an episode's reset, the arguments of the reset and all actions since.
    A simulator that draws its random numbers from ``np_random`` then comes back to the bit, without
    having to give away its state.

    :param random_state: of the environment's generator, before the reset
    :param seed: that the reset got
    :param options: that the reset got
    :param p: p(z) of then, from which the skill was drawn
    :param round: what was left then of a round of skills
    :param actions: so far; None if there were too many to keep
    """

    random_state: dict[str, Any]
    seed: int | None
    options: dict[str, Any] | None
    p: npt.NDArray[np.float64]
    round: tuple[int, ...]
    actions: list[Any] | None = field(default_factory=list)

    def add(self, action: Any) -> None:
        """:param action: that the environment got; copied"""
        if self.actions is not None:
            self.actions.append(copy.copy(action))
            if len(self.actions) > MAX_RECORDED_STEPS:
                self.actions = None
