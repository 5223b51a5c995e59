"""What arguments must be like, and the sentence that a wrong one gets."""

import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np

# In the annotation of an option: what a discriminator is built from, and keeps.
ARCHITECTURE = "architecture"


@dataclass(frozen=True)
class Rule:
    """
    What the value of an option must be like. It is part of the option's annotation, so that the
    signature says all there is to say of it: ``n_updates: Annotated[int, Rule(...)] = 1``.

    :param holds: whether a value is right
    :param words: the rule in words, after "expected"
    """

    holds: Callable[[Any], bool]
    words: str


def is_count(value: Any) -> bool:
    """
    :param value: anything
    :return: whether it is an integer of at least 1
    """
    return _is_integer(value) and int(value) >= 1


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_seed(value: Any) -> bool:
    return _is_integer(value) and 0 <= value < 2**32


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < 1e30


def _is_layers(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(map(is_count, value))


def _is_json_dict(value: Any) -> bool:
    json.dumps(_plain(value))
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


Count = Annotated[int, Rule(is_count, "a positive integer")]
CountFrom0 = Annotated[int, Rule(lambda v: _is_integer(v) and v >= 0, "an integer of at least 0")]
Seed = Annotated[int, Rule(_is_seed, f"an integer from 0 to {2**32 - 1}")]
CountOrMinus1 = Annotated[
    int, Rule(lambda v: is_count(v) or (_is_integer(v) and v == -1), "a positive integer or -1")
]
Number = Annotated[float, Rule(_is_number, "a finite number")]
PositiveNumber = Annotated[float, Rule(lambda v: _is_number(v) and v > 0, "a positive number")]
NegativeNumber = Annotated[float, Rule(lambda v: _is_number(v) and v < 0, "a negative number")]
NumberFrom0 = Annotated[float, Rule(lambda v: _is_number(v) and v >= 0, "a number of at least 0")]
Fraction = Annotated[
    float, Rule(lambda v: _is_number(v) and 0 <= v < 1, "a number of at least 0 and below 1")
]
Layers = Annotated[Sequence[int], Rule(_is_layers, "a list of positive integers")]
JsonDict = Annotated[dict[str, Any], Rule(_is_json_dict, "a dict of values that JSON can hold")]
FLAG = Rule(lambda v: isinstance(v, bool), "True or False")


def check_positive(name: str, value: Any, hint: str = "") -> int:
    """
    :param name: of an argument that counts something
    :param value: its value
    :param hint: what to do, a sentence
    :return: the value as an ``int``
    :raises ValueError: if it is not an integer of at least 1
    """
    if not is_count(value):
        raise ValueError(
            f"{name}={value!r} is not a positive integer; expected an integer of at least 1."
            f"{' ' + hint if hint else ''}"
        )
    return int(value)


def did_you_mean(name: object, known: Iterable[str], n: int = 1) -> str:
    """
    :param name: that is not known
    :param known: names that are
    :param n: how many to suggest at most
    :return: a question, with a space before it; nothing if no name is similar
    """
    close = difflib.get_close_matches(str(name), known, n)
    return f" Did you mean {' or '.join(close)}?" if close else ""


def check_seed(seed: Any) -> int | None:
    """
    :param seed: of random numbers, None for none
    :return: the same as an ``int``
    :raises ValueError: if it is not an integer from 0 to 4294967295
    """
    if seed is None:
        return None
    if not _is_seed(seed):
        raise ValueError(
            f"seed={seed!r} is not a seed; expected an integer from 0 to {2**32 - 1}, or None for "
            "no fixed seed."
        )
    return int(seed)


def check_options(owner: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param owner: the class whose signature has the rules of the options
    :param options: values by name
    :return: the same in types that JSON knows: no tuples, NumPy numbers or arrays
    :raises ValueError: if one breaks its rule
    """
    for name, rule in rules(owner).items():
        if name in options and not _obeys(options[name], rule):
            raise ValueError(
                f"{name}={options[name]!r} is not allowed; expected {rule.words}. "
                f"See the parameters of {owner.__name__}."
            )
    return {name: _plain(value) for name, value in options.items()}


def _obeys(value: Any, rule: Rule) -> bool:
    try:
        return bool(rule.holds(value))
    except (TypeError, OverflowError):
        return False


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    return float(value) if isinstance(value, Real) and not isinstance(value, int) else value


def rules(owner: type) -> dict[str, Rule]:
    """
    :param owner: a class
    :return: the rules of its constructor's arguments, read off their annotations
    """
    found = {name: _rule(hint) for name, hint in _hints(owner).items()}
    return {name: rule for name, rule in found.items() if rule is not None}


def _hints(owner: type) -> dict[str, Any]:
    return get_type_hints(owner.__init__, include_extras=True)  # type: ignore[misc]


def _rule(hint: Any) -> Rule | None:
    if hint is bool:
        return FLAG
    if get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        return next((mark for mark in marks if isinstance(mark, Rule)), None) or _rule(inner)
    if NoneType in get_args(hint):
        found = [rule for part in get_args(hint) if (rule := _rule(part)) is not None]
        if len(found) == 1:
            (rule,) = found
            return Rule(lambda v: v is None or rule.holds(v), f"{rule.words} or None")
    return None


def architecture(owner: type) -> list[str]:
    """
    :param owner: a class
    :return: the arguments of its constructor that are marked with ``ARCHITECTURE``
    """
    return [name for name, hint in _hints(owner).items() if ARCHITECTURE in get_args(hint)]


def defaults(owner: type) -> dict[str, Any]:
    """
    :param owner: a class
    :return: the defaults of its constructor's arguments, in types that JSON knows
    """
    parameters = inspect.signature(owner).parameters.values()
    return {p.name: _plain(p.default) for p in parameters if p.default is not p.empty}


def arguments_for(owner: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param owner: a class
    :param options: values by name
    :return: those that its constructor takes, also through ``**options`` from a class above it
    """
    signatures = (
        inspect.signature(vars(c)["__init__"]) for c in owner.__mro__[:-1] if "__init__" in vars(c)
    )
    names = {name for signature in signatures for name in signature.parameters}
    return {name: value for name, value in options.items() if name in names}
