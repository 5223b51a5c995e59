"""Options of a model that count as another value for a while, and are saved as they are."""

import functools
from typing import Any

from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

LENT = ("learning_starts", "gradient_steps")


@functools.total_ordering
class LentOption:
    """
    An option of a model in the place of the option itself. It counts as ``value`` in the ``learn``
    in which it was lent. Whoever saves or copies the model meanwhile has the option, and so has a
    later ``learn``, also if this one ends with an exception.

    :param model: whose option it is
    :param option: the option itself
    :param value: what it counts as
    """

    __slots__ = ("_learn", "_model", "_value", "option")

    def __init__(self, model: OffPolicyAlgorithm, option: int, value: int) -> None:
        self._model, self.option, self._value = model, option, value
        self._learn = model.start_time  # each learn() has its own

    def __index__(self) -> int:
        return self._value if self._model.start_time == self._learn else self.option

    def __eq__(self, other: object) -> bool:
        return int(self) == other

    def __lt__(self, other: Any) -> bool:
        return bool(int(self) < other)

    def __hash__(self) -> int:
        return hash(int(self))

    def __mul__(self, other: int) -> int:
        return int(self) * other

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return repr(int(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return int, (self.option,)


def lend(model: OffPolicyAlgorithm, name: str, value: int) -> None:
    """
    :param model: within a ``learn``
    :param name: of one of its options, an integer
    :param value: what it counts as until :func:`take_back` or the end of the ``learn``
    """
    option = getattr(model, name)
    option = option.option if isinstance(option, LentOption) else option
    setattr(model, name, LentOption(model, option, value))


def take_back(model: OffPolicyAlgorithm, *names: str) -> None:
    """
    :param model: whose options get their own values back
    :param names: which; none for all
    """
    for name in names or LENT:
        option = getattr(model, name)
        if isinstance(option, LentOption):
            setattr(model, name, option.option)
