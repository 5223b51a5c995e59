"""Functions and classes that a user has written, of which a zip keeps the names alone."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor

ObsFunction = Callable[[Any], th.Tensor]
ExtractorClass = type[BaseFeaturesExtractor]
MAX_NAME = 200  # characters of a name in a message


class UserCode(NamedTuple):
    """
    What a discriminator reads through. The fields have the names of the options.

    :param obs_function: see :class:`~sb3_diayn.discriminator.Discriminator`
    :param features_extractor_class: see :class:`~sb3_diayn.discriminator.Discriminator`
    """

    obs_function: ObsFunction | None = None
    features_extractor_class: ExtractorClass | None = None

    @classmethod
    def load(cls, options: Mapping[str, Any]) -> "UserCode":
        """
        :param options: of ``DIAYNCallback``: functions and classes, or where they are, see
            :func:`import_code`
        :return: the functions and classes
        :raises ValueError: if one cannot be imported or is of another kind
        """
        names = [name for name in cls._fields if options.get(name) is not None]
        return cls(**{name: import_code(name, options[name]) for name in names})

    def paths(self) -> dict[str, str]:
        """
        :return: where each one is, ``"module:name"``, by the name of the option
        :raises ValueError: see :func:`code_path`
        """
        given = self._asdict().items()
        return {name: code_path(name, code) for name, code in given if code is not None}

    def check(self, saved: Mapping[str, Any]) -> None:
        """
        :param saved: options of a saved discriminator
        :raises ValueError: see :func:`check_code`
        """
        for name, given in self._asdict().items():
            check_code(name, given, saved.get(name))


NO_CODE = UserCode()
KINDS = {"obs_function": "function", "features_extractor_class": "class"}


def code_path(option: str, code: Any) -> str:
    """
    :param option: the option that takes it
    :param code: a function or class
    :return: where it is, ``"module:name"``
    :raises ValueError: if it is not at the top of a module, so that neither another process nor a
        later session would find it
    """
    module, name = _place(code)
    if getattr(sys.modules.get(module), name, None) is not code:
        kind = KINDS[option]
        word = "def" if kind == "function" else "class"
        raise ValueError(
            f"{option}={code!r} cannot be found again by its name; expected a {kind} at the top "
            f"level of a module. Write it with {word}, outside every class and function."
        )
    return f"{module}:{name}"


def import_code(option: str, path: Any) -> Any:
    """
    :param option: the option that takes it
    :param path: a function or class, or where it is: ``"module:name"`` or ``"module.name"``, as a
        YAML file can say it
    :return: the function or class
    :raises ValueError: if there is none, or it is of another kind
    """
    code = _import(option, path) if isinstance(path, str) else path
    if option == "features_extractor_class":
        if not (isinstance(code, type) and issubclass(code, BaseFeaturesExtractor)):
            raise ValueError(
                f"{option}={path!r} is no features extractor; expected a subclass of "
                "BaseFeaturesExtractor of stable_baselines3.common.torch_layers. Derive the class "
                "from it, or pass a function as obs_function."
            )
    elif not callable(code):
        raise ValueError(f"{option}={path!r} is not a function; expected one, or 'module:name'.")
    return code


def _import(option: str, path: str) -> Any:
    kind = KINDS[option]
    try:
        module, _, name = path.rpartition(":" if ":" in path else ".")
        return getattr(importlib.import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(
            f"{option}={path!r} is not there ({error}); expected a {kind} or 'module:{kind}'. "
            "Check the name, and that the module can be imported from here."
        ) from error


def check_code(option: str, given: Any, saved: Any) -> None:
    """
    :param option: the option that takes it
    :param given: a user's function or class, or None
    :param saved: where the one is that a saved discriminator was trained with, ``"module:name"``,
        or None. A file may say anything
    :raises ValueError: if they are not the same. A script that is run has no name, so only the
        name of the function or class is known
    """
    found = None if given is None else _place(given)
    expected = None if saved is None else tuple(str(saved).split(":", 1))
    if found and expected and "__main__" in (found[0], expected[0]):
        found, expected = found[1:], expected[1:]
    if found != expected:
        raise ValueError(
            f"{option}={given!r} is not what the saved discriminator reads through; expected "
            f"{str(saved)[:MAX_NAME]}. Pass that {KINDS[option]}: a file does not make this "
            "package import anything."
        )


def _place(code: Any) -> tuple[str, ...]:
    """Its module and its name."""
    return getattr(code, "__module__", ""), getattr(code, "__qualname__", repr(code))
