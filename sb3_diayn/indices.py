"""Which part of an observation the discriminator reads."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

from gymnasium import spaces

Coordinates = Sequence[int] | slice | str | None
ObsIndices = Coordinates | Sequence[str] | Mapping[str, Coordinates]
# What a state keeps of it: JSON knows no slice.
Selection = list[int] | dict[str, list[int] | None] | None


def resolve_selection(obs_indices: ObsIndices, space: spaces.Space[Any]) -> Selection:
    """
    :param obs_indices: which part of the observation to read. Of a vector: see
        :func:`resolve_indices`. Of a ``Dict``: a key, a list of keys, or a mapping from keys to
        coordinates (None for all of them). None for everything
    :param space: observation space of the environment
    :return: None for everything; indices; or for a ``Dict`` the indices, or None, of each key
    :raises ValueError: if the space has no such key or coordinate
    """
    if obs_indices is None:
        return None
    if not isinstance(space, spaces.Dict):
        return resolve_indices(obs_indices, _n_coordinates(obs_indices, space))  # type: ignore[arg-type]
    chosen: Any = [obs_indices] if isinstance(obs_indices, str) else obs_indices
    if not isinstance(chosen, Mapping):
        is_list = isinstance(chosen, Iterable)
        chosen = dict.fromkeys(chosen) if is_list else {}
    if not chosen or not all(key in space.spaces for key in chosen):
        raise ValueError(
            f"obs_indices={obs_indices!r} does not choose keys of a Dict observation; expected a "
            "key, a list of keys or a mapping from keys to indices, the keys being "
            f"{list(space.spaces)}. Leave it out to read the whole observation."
        )
    return {
        key: None if part is None else resolve_indices(part, _n_coordinates(part, space[key]))
        for key, part in chosen.items()
    }


def _n_coordinates(obs_indices: Any, space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Discrete) or len(space.shape or ()) != 1:
        raise ValueError(
            f"obs_indices={obs_indices!r} chooses coordinates, which {space} has none of; expected "
            "None. Leave it out, or pass an obs_function."
        )
    return int(space.shape[0])  # type: ignore[index]


def select_space(space: spaces.Space[Any], selection: Selection) -> spaces.Space[Any]:
    """
    :param space: observation space of the environment
    :param selection: from :func:`resolve_selection`
    :return: the space of what is chosen
    """
    if isinstance(selection, dict):
        assert isinstance(space, spaces.Dict)
        return spaces.Dict({key: select_space(space[key], part) for key, part in selection.items()})
    if selection is None:
        return space
    if isinstance(space, spaces.MultiDiscrete):
        return spaces.MultiDiscrete(space.nvec[selection])
    if isinstance(space, spaces.MultiBinary):
        return spaces.MultiBinary(len(selection))
    assert isinstance(space, spaces.Box)
    return spaces.Box(space.low[selection], space.high[selection], dtype=space.low.dtype.type)


def resolve_indices(obs_indices: Coordinates, n_features: int) -> list[int]:
    """
    :param obs_indices: which coordinates of the observation to read: a list of indices, a slice,
        a slice written as in Python (``"0:2"``, for YAML files), or None for all of them
    :param n_features: length of the observation
    :return: the indices, each from 0 to ``n_features - 1``
    :raises ValueError: if one is out of range, appears twice, or none is left
    """
    if obs_indices is None:
        return list(range(n_features))
    if isinstance(obs_indices, str):
        obs_indices = _parse_slice(obs_indices)
    if isinstance(obs_indices, slice):
        indices = list(range(n_features))[obs_indices]
    elif isinstance(obs_indices, Iterable) and all(isinstance(i, Integral) for i in obs_indices):
        indices = [int(i) + (n_features if i < 0 else 0) for i in obs_indices]
    else:
        indices = []
    are_distinct = len(set(indices)) == len(indices) > 0
    if not are_distinct or not set(indices) <= set(range(n_features)):
        raise ValueError(
            f"obs_indices={obs_indices!r} does not choose coordinates of an observation of length "
            f"{n_features}; expected different indices from {-n_features} to {n_features - 1}, or "
            "a slice that holds at least one. Leave it out to read the whole observation."
        )
    return indices


def _parse_slice(text: str) -> slice:
    try:
        parts = [int(part) if part else None for part in text.split(":")]
        if not 2 <= len(parts) <= 3 or parts[2:] == [0]:
            raise ValueError("not a slice")
    except ValueError as error:
        raise ValueError(
            f"obs_indices={text!r} is not a slice; expected 'start:stop' or 'start:stop:step' with "
            "integers. Write for example '0:2', or a list of indices."
        ) from error
    return slice(*parts)
