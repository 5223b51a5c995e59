"""What the options of ``DIAYNCallback`` must be like, said early and clearly."""

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np

# What cannot change once a discriminator exists.
ARCHITECTURE = (
    "net_arch",
    "obs_indices",
    "normalized_image",
    "use_actions",
    "normalize_obs",
    "spectral_norm",
)
_POSITIVE_INTEGER = "a positive integer"
_POSITIVE = "a positive number"
_AT_LEAST_0 = "a number of at least 0"
_FLAG = "True or False"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < 1e30


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "net_arch": (
        lambda v: isinstance(v, (list, tuple)) and all(map(_is_count, v)),
        "a list of positive integers",
    ),
    "learning_rate": (lambda v: _is_number(v) and v > 0, _POSITIVE),
    "weight_decay": (lambda v: _is_number(v) and v >= 0, _AT_LEAST_0),
    "max_grad_norm": (lambda v: v is None or (_is_number(v) and v > 0), f"{_POSITIVE} or None"),
    "batch_size": (lambda v: v is None or _is_count(v), f"{_POSITIVE_INTEGER} or None"),
    "n_updates": (_is_count, _POSITIVE_INTEGER),
    "normalized_image": (_is_flag, _FLAG),
    "use_actions": (_is_flag, _FLAG),
    "normalize_obs": (_is_flag, _FLAG),
    "spectral_norm": (_is_flag, _FLAG),
    "subtract_log_p": (_is_flag, _FLAG),
    "learn_p_z": (_is_flag, _FLAG),
    "log_q_min": (lambda v: v is None or (_is_number(v) and v < 0), "a negative number or None"),
    "reward_scale": (lambda v: _is_number(v) and v > 0, _POSITIVE),
    "skill_reward_weight": (lambda v: _is_number(v) and v >= 0, _AT_LEAST_0),
    "task_reward_weight": (_is_number, "a finite number"),
    "min_task_return": (lambda v: v is None or _is_number(v), "a finite number or None"),
    "p_z_update_freq": (_is_count, _POSITIVE_INTEGER),
    "sync_freq": (_is_count, _POSITIVE_INTEGER),
    "hold": (lambda v: _is_count(v) or (_is_number(v) and v == 0), "an integer of at least 0"),
}


def check_positive(name: str, value: Any) -> int:
    """
    :param name: of an argument that counts something
    :param value: its value
    :return: the value
    :raises ValueError: if it is not an integer of at least 1
    """
    if not _is_count(value):
        raise ValueError(
            f"{name}={value!r} is not a positive number; expected an integer of at least 1. "
            "Choose one."
        )
    return int(value)


def check_options(options: dict[str, Any]) -> dict[str, Any]:
    """
    :param options: options of ``DIAYNCallback``
    :return: the same with what JSON knows in place of NumPy's numbers and arrays, and of tuples
    :raises ValueError: if one is out of range
    """
    for name, (is_right, rule) in RULES.items():
        if name not in options:
            continue
        try:
            right = is_right(options[name])
        except (TypeError, OverflowError):
            right = False
        if not right:
            raise ValueError(
                f"{name}={options[name]!r} is out of range; expected {rule}. "
                "See the parameters of DIAYNCallback."
            )
    if options.get("min_task_return") is not None and options.get("task_reward_weight", 0) <= 0:
        raise ValueError(
            f"min_task_return={options['min_task_return']!r} pays for diversity in good episodes "
            f"only, and task_reward_weight={options['task_reward_weight']!r} makes none good; "
            "expected a positive task_reward_weight. Add task_reward_weight=1."
        )
    return {name: _plain(value) for name, value in options.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, np.ndarray):
        return value.tolist()
    return float(value) if isinstance(value, Real) and not isinstance(value, int) else value


def check_saved(saved: dict[str, Any], n_skills: int, given: dict[str, Any]) -> None:
    """
    :param saved: the state that a model brings along
    :param n_skills: the number of skills of the environment
    :param given: options of ``DIAYNCallback`` other than its defaults
    :raises ValueError: if they describe another discriminator than the saved one
    """
    if saved["n_skills"] != n_skills:
        raise ValueError(
            f"n_skills={n_skills} of the environment does not match the saved model; expected "
            f"{saved['n_skills']}. Use DIAYNWrapper(env, n_skills={saved['n_skills']})."
        )
    for name in ARCHITECTURE:
        if name in given and given[name] != saved["options"].get(name):
            raise ValueError(
                f"{name}={given[name]!r} does not match the saved discriminator; expected "
                f"{saved['options'].get(name)!r}. Leave it out to go on with the saved one, or "
                "train a new model."
            )
