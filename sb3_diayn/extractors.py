"""What the discriminator reads of an observation."""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_diayn.observations import Obs, as_channels_first, cast, is_vector, map_obs, map_spaces

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
        indices = list(range(n_features)[obs_indices])
    elif isinstance(obs_indices, Iterable) and all(isinstance(i, Integral) for i in obs_indices):
        indices = [int(i) + (n_features if i < 0 else 0) for i in obs_indices]
    else:
        indices = []
    are_distinct = len(set(indices)) == len(indices) > 0
    if not are_distinct or not all(0 <= index < n_features for index in indices):
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


ObsFunction = Callable[[Any], th.Tensor]
MAX_NAME = 200  # characters of a name in a message


def make_extractor(
    space: spaces.Space[Any],
    obs_indices: ObsIndices,
    function: ObsFunction | None,
    normalized_image: bool,
) -> "VectorExtractor | SpaceExtractor | FunctionExtractor":
    """
    :param space: observation space of the environment, images with their channels first
    :param obs_indices: see :func:`~sb3_diayn.extractors.resolve_selection`
    :param function: see :class:`FunctionExtractor`
    :param normalized_image: see :class:`SpaceExtractor`
    :return: what makes features of observations
    :raises ValueError: if there is both a function and a choice of coordinates
    """
    if function is not None:
        if obs_indices is not None:
            raise ValueError(
                f"obs_indices={obs_indices!r} chooses what obs_function={function!r} would read; "
                "expected one of the two. Choose within the function."
            )
        return FunctionExtractor(space, function)
    if is_vector(space):
        return VectorExtractor(space, obs_indices)
    return SpaceExtractor(space, resolve_selection(obs_indices, space), normalized_image)


class VectorExtractor(nn.Module):
    """
    Coordinates of a vector as they are: what ``FlattenExtractor`` gives, without its detours.

    :param space: observation space of the environment, a one-dimensional ``Box``
    :param obs_indices: see :func:`~sb3_diayn.extractors.resolve_indices`
    """

    indices: th.Tensor

    def __init__(self, space: spaces.Space[Any], obs_indices: ObsIndices) -> None:
        super().__init__()
        n_coordinates = space.shape[0]  # type: ignore[index]
        indices = resolve_indices(obs_indices, n_coordinates)  # type: ignore[arg-type]
        self.reads_all = indices == list(range(n_coordinates))
        self.features_dim = len(indices)
        self.register_buffer("indices", th.tensor(indices), persistent=False)

    def check_fixed(self) -> None:
        """Coordinates do not change as the discriminator learns."""

    def forward(self, obs: th.Tensor) -> th.Tensor:
        """
        :param obs: a batch of observations, shape ``(n, d)``
        :return: what is read of them, shape ``(n, features_dim)``
        """
        return obs if self.reads_all else obs[:, self.indices]


class SpaceExtractor(nn.Module):
    """
    SB3's own preprocessing and extractors: ``NatureCNN`` for an image, ``CombinedExtractor`` for a
    ``Dict``, ``FlattenExtractor`` for anything else.

    :param space: observation space of the environment, images with their channels first
    :param selection: the part of it to read
    :param normalized_image: take three-dimensional boxes of real numbers for images, as SB3's
        option of that name does
    :raises ValueError: if an image is too small for ``NatureCNN``
    """

    def __init__(
        self, space: spaces.Space[Any], selection: Selection, normalized_image: bool
    ) -> None:
        super().__init__()
        self.space, self.selection = space, selection
        self.input_space = select_space(space, selection)
        self.extractor: Any
        try:
            if isinstance(self.input_space, spaces.Dict):
                self.extractor = CombinedExtractor(
                    self.input_space, normalized_image=normalized_image
                )
            elif is_image_space(self.input_space, normalized_image=normalized_image):
                self.extractor = NatureCNN(self.input_space, normalized_image=normalized_image)
            else:
                self.extractor = FlattenExtractor(self.input_space)
        except RuntimeError as error:  # a convolution larger than its input
            raise ValueError(
                f"observation_space={self.input_space} holds an image that is too small for SB3's "
                f"NatureCNN ({error}); expected at least 36 pixels by 36, channels first. Flatten "
                "the image in the environment, choose other keys with obs_indices, or pass an "
                "obs_function."
            ) from error
        self.features_dim: int = self.extractor.features_dim

    def check_fixed(self) -> None:
        """:raises ValueError: if what it gives changes as it learns, so has no fixed scale"""
        if any(True for _ in self.parameters()):
            raise ValueError(
                "normalize_obs=True would scale what convolutions make of an image; expected "
                "False. Leave it out: images are divided by 255."
            )

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: a batch of observations, as SB3 stores them
        :return: features, float32, shape ``(n, features_dim)``
        """
        features: th.Tensor = self.extractor(preprocess_obs(self.select(obs), self.input_space))
        return features

    def select(self, obs: PyTorchObs) -> PyTorchObs:
        """
        :param obs: a batch of observations, as SB3 stores them
        :return: the part that is read, of ``input_space``
        """
        chosen: PyTorchObs = _select(shape_like(obs, self.space), self.selection)
        return chosen


class FunctionExtractor(nn.Module):
    """
    A user's own function in the place of an extractor.

    :param space: observation space of the environment, images with their channels first
    :param function: maps a batch of observations, a tensor or a dict of tensors, to features of
        shape ``(n, f)``
    :raises ValueError: if it gives anything else
    """

    def __init__(self, space: spaces.Space[Any], function: ObsFunction) -> None:
        super().__init__()
        self.space, self.function = space, function
        probe = [map_spaces(lambda part: part.sample(), space) for _ in range(2)]
        batch = map_obs(lambda *parts: th.as_tensor(np.stack(parts), device="cpu"), *probe)
        features = function(shape_like(batch, space))
        if not isinstance(features, th.Tensor) or features.ndim != 2 or len(features) != 2:
            found = tuple(features.shape) if isinstance(features, th.Tensor) else repr(features)
            raise ValueError(
                f"obs_function={function!r} turns 2 observations into {found}; expected a tensor "
                "of shape (2, number of features). Keep the first axis, and flatten the others."
            )
        self.features_dim = features.shape[1]

    def check_fixed(self) -> None:
        """A function gives the same at any time."""

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: a batch of observations, as SB3 stores them
        :return: features, float32, shape ``(n, features_dim)``
        """
        return self.function(shape_like(obs, self.space)).float()


def to_batch(obs: Obs, space: spaces.Space[Any], device: th.device) -> PyTorchObs:
    """
    :param obs: a batch of observations as the environment gives them
    :param space: their space as the discriminator knows it
    :param device: where to
    :return: the same as tensors
    """
    if is_vector(space):
        return th.as_tensor(obs, dtype=th.float32, device=device)
    batch: PyTorchObs = map_obs(
        lambda part: th.as_tensor(cast(part), device=device), as_channels_first(obs, space)
    )
    return batch


def shape_like(obs: PyTorchObs, space: spaces.Space[Any]) -> PyTorchObs:
    """
    :param obs: a batch of observations; a buffer has one more axis for a ``Discrete``
    :param space: their space
    :return: the same, shape ``(n, *space.shape)`` each
    """
    shapes = map_spaces(lambda part: part.shape, space)
    shaped: PyTorchObs = map_obs(lambda part, shape: part.reshape(-1, *shape), obs, shapes)
    return shaped


def _select(obs: Any, selection: Selection) -> Any:
    if isinstance(selection, dict):
        return {key: _select(obs[key], part) for key, part in selection.items()}
    return obs if selection is None else obs[:, selection]


def function_path(function: ObsFunction) -> str:
    """
    :param function: a user's function
    :return: where it is, ``"module:function"``
    :raises ValueError: if it is not a function at the top of a module, so that neither another
        process nor a later session would find it
    """
    module, name = _place(function)
    if getattr(sys.modules.get(module), name, None) is not function:
        raise ValueError(
            f"obs_function={function!r} cannot be found again by its name; expected a function at "
            "the top level of a module. Write it with def, outside every class and function."
        )
    return f"{module}:{name}"


def import_function(path: Any) -> ObsFunction:
    """
    :param path: a function, or where it is: ``"module:function"``, as a YAML file can say it
    :return: the function
    :raises ValueError: if there is none
    """
    if callable(path):
        return path  # type: ignore[no-any-return]
    try:
        module, name = path.split(":")
        function: ObsFunction = getattr(importlib.import_module(module), name)
    except (AttributeError, ImportError, ValueError) as error:
        raise ValueError(
            f"obs_function={path!r} is not there ({error}); expected a function or "
            "'module:function'. Check the name, and that the module can be imported from here."
        ) from error
    return function


def check_function(given: ObsFunction | None, saved: str | None) -> None:
    """
    :param given: a user's function, or None
    :param saved: where the one is that a saved discriminator was trained with,
        ``"module:function"``, or None
    :raises ValueError: if they are not the same. A script that is run has no name, so only
        the function's own name is known
    """
    found = None if given is None else _place(given)
    expected = None if saved is None else tuple(str(saved).split(":", 1))  # a file says anything
    if found and expected and "__main__" in (found[0], expected[0]):
        found, expected = found[1:], expected[1:]
    if found != expected:
        raise ValueError(
            f"obs_function={given!r} is not what the saved discriminator reads through; expected "
            f"{str(saved)[:MAX_NAME]}. Pass that function: a file does not make this package "
            "import anything."
        )


def _place(function: ObsFunction) -> tuple[str, ...]:
    """Its module and its name."""
    return getattr(function, "__module__", ""), getattr(function, "__qualname__", repr(function))
