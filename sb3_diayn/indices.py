"""Which coordinates of an observation the discriminator reads."""

from collections.abc import Iterable, Sequence
from numbers import Integral

ObsIndices = Sequence[int] | slice | str | None


def resolve_indices(obs_indices: ObsIndices, n_features: int) -> list[int]:
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
