"""Callbacks inside of callbacks."""

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback


def callbacks_in(callback: Any) -> Iterator[BaseCallback]:
    """
    :param callback: the callback of a ``learn``, often a ``CallbackList``, or None
    :return: it and all callbacks inside of it
    """
    if callback is not None:
        yield callback
        for child in [*getattr(callback, "callbacks", []), getattr(callback, "callback", None)]:
            yield from callbacks_in(child)
