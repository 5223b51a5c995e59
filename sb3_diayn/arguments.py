"""What arguments must be like."""

from numbers import Integral
from typing import Any


def check_positive(name: str, value: Any, hint: str = "") -> int:
    """
    :param name: name of an argument that counts something
    :param value: its value
    :param hint: a last sentence for the message, for example a value to start with
    :return: the value
    :raises ValueError: if it is not an integer of at least 1
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or int(value) < 1:
        raise ValueError(
            f"{name}={value!r} is not a positive integer; expected an integer of at least 1."
            f"{' ' + hint if hint else ''}"
        )
    return int(value)
