"""What the discriminator reads of an observation."""

from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
)
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_diayn.files import brief
from sb3_diayn.observations import Obs, as_channels_first, cast, is_vector, map_obs, map_spaces
from sb3_diayn.user_code import ExtractorClass, ObsFunction

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
            f"obs_indices={obs_indices!r} chooses coordinates, but {space} has none; expected "
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


def select_obs(obs: Any, selection: Selection) -> Any:
    """
    :param obs: a batch of observations, arrays or tensors
    :param selection: from :func:`resolve_selection`
    :return: what is chosen of each
    """
    if isinstance(selection, dict):
        return {key: select_obs(obs[key], part) for key, part in selection.items()}
    return obs if selection is None else obs[:, selection]


def resolve_indices(
    obs_indices: Coordinates, n_features: int, *, name: str = "obs_indices"
) -> list[int]:
    """
    :param obs_indices: which coordinates of the observation to read: a list of indices, a slice,
        a slice written as in Python (``"0:2"``, for YAML files), or None for all of them
    :param n_features: length of the observation
    :param name: of the argument, for the error
    :return: the indices, each from 0 to ``n_features - 1``
    :raises ValueError: if one is out of range, appears twice, or none is left
    """
    if obs_indices is None:
        return list(range(n_features))
    chosen = _parse_slice(obs_indices, name) if isinstance(obs_indices, str) else obs_indices
    if isinstance(chosen, slice):
        indices = list(range(n_features)[chosen])
    elif isinstance(chosen, Iterable) and all(map(_is_index, chosen)):
        indices = [int(i) + (n_features if i < 0 else 0) for i in chosen]
    else:
        indices = []
    are_distinct = len(set(indices)) == len(indices) > 0
    if not are_distinct or not all(0 <= index < n_features for index in indices):
        remedy = "None chooses the whole observation."
        if isinstance(obs_indices, Integral):
            remedy = f"Write [{obs_indices}] for one index. A slice needs quotes in YAML: '2:4'."
        raise ValueError(
            f"{name}={obs_indices!r} does not choose coordinates of an observation of length "
            f"{n_features}; expected different indices from {-n_features} to {n_features - 1}, or "
            f"a slice that holds at least one. {remedy}"
        )
    return indices


def _is_index(value: Any) -> bool:
    """A mask of truth values would be read as the indices 0 and 1."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _parse_slice(text: str, name: str) -> slice:
    try:
        parts = [int(part) if part else None for part in text.split(":")]
        if not 2 <= len(parts) <= 3 or parts[2:] == [0]:
            raise ValueError("not a slice")
    except ValueError as error:
        raise ValueError(
            f"{name}={text!r} is not a slice; expected 'start:stop' or 'start:stop:step' with "
            "integers. Write for example '0:2', or a list of indices."
        ) from error
    return slice(*parts)


def make_extractor(
    space: spaces.Space[Any],
    *,
    obs_indices: ObsIndices = None,
    obs_function: ObsFunction | None = None,
    features_extractor_class: ExtractorClass | None = None,
    features_extractor_kwargs: Mapping[str, Any] | None = None,
    normalized_image: bool = False,
) -> "VectorExtractor | SpaceExtractor | FunctionExtractor":
    """
    :param space: observation space of the environment, images with their channels first
    :param obs_indices: see :func:`~sb3_diayn.extractors.resolve_selection`
    :param obs_function: see :class:`FunctionExtractor`
    :param features_extractor_class: see :class:`SpaceExtractor`
    :param features_extractor_kwargs: see :class:`SpaceExtractor`
    :param normalized_image: see :class:`SpaceExtractor`
    :return: what makes features of observations
    :raises ValueError: if two of them exclude each other
    """
    is_stock = features_extractor_class is None and not features_extractor_kwargs
    if obs_function is not None:
        if obs_indices is not None:
            raise ValueError(
                f"obs_indices={obs_indices!r} chooses what obs_function={obs_function!r} would "
                "read; expected one of the two. Choose within the function."
            )
        if not is_stock:
            raise ValueError(
                f"obs_function={obs_function!r} takes the place of a features extractor; expected "
                "no features_extractor_class and no features_extractor_kwargs with it. Call the "
                "function in the class."
            )
        return FunctionExtractor(space, obs_function)
    if features_extractor_class is not None and normalized_image:
        raise ValueError(
            "normalized_image=True is for SB3's choice of an extractor, and "
            f"features_extractor_class={features_extractor_class.__name__} replaces it; expected "
            "False. Put it into features_extractor_kwargs, if the class has such an argument."
        )
    if is_vector(space) and is_stock:
        return VectorExtractor(space, obs_indices)
    return SpaceExtractor(
        space,
        resolve_selection(obs_indices, space),
        normalized_image,
        features_extractor_class,
        features_extractor_kwargs,
    )


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
    SB3's own preprocessing and a features extractor of SB3 or of a user. Unless a class is given,
    the extractor is ``NatureCNN`` for an image, ``CombinedExtractor`` for a ``Dict`` and
    ``FlattenExtractor`` for anything else.

    :param space: observation space of the environment, images with their channels first
    :param selection: the part of it to read
    :param normalized_image: take three-dimensional boxes of real numbers for images, as SB3's
        option of that name does
    :param features_extractor_class: a class of features extractors, which gets the space of what is
        read; None for SB3's choice
    :param features_extractor_kwargs: further arguments of the class
    :raises ValueError: if the extractor cannot be built or gives no features, or an image is too
        small for ``NatureCNN``
    """

    def __init__(
        self,
        space: spaces.Space[Any],
        selection: Selection,
        normalized_image: bool = False,
        features_extractor_class: ExtractorClass | None = None,
        features_extractor_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.space, self.selection = space, selection
        self.input_space = select_space(space, selection)
        kwargs = dict(features_extractor_kwargs or {})
        self.extractor: BaseFeaturesExtractor
        if features_extractor_class is None:
            self.extractor = _make_stock(self.input_space, normalized_image, kwargs)
        else:
            self.extractor = _make_own(features_extractor_class, self.input_space, kwargs)
            self._check_features()
        self.features_dim: int = self.extractor.features_dim

    def _check_features(self) -> None:
        """Read two observations."""
        name = type(self.extractor).__name__
        with th.no_grad():
            try:
                features = self(_two_observations(self.space))
            except Exception as error:  # a user's code may do anything
                raise ValueError(
                    f"features_extractor_class={name} cannot read {self.input_space} "
                    f"({brief(error)}); expected features of what SB3's "
                    "preprocessing gives. Correct forward()."
                ) from error
        found = _shape_of(features)
        expected = (2, self.extractor.features_dim)
        if found != expected:
            raise ValueError(
                f"features_extractor_class={name} turns 2 observations into {found}; expected a "
                f"tensor of shape {expected}, where the second number is its features_dim. Correct "
                "forward(), or the number that super().__init__() gets."
            )

    def check_fixed(self) -> None:
        """:raises ValueError: if what it gives changes as it learns, so has no fixed scale"""
        if any(True for _ in self.parameters()):
            raise ValueError(
                "normalize_obs=True would scale what learned layers, such as convolutions, make of "
                "an observation; expected False. Leave it out: images are divided by 255."
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
        chosen: PyTorchObs = select_obs(shape_like(obs, self.space), self.selection)
        return chosen


def _make_stock(
    space: spaces.Space[Any], normalized_image: bool, kwargs: dict[str, Any]
) -> BaseFeaturesExtractor:
    """What SB3's policies choose for the space."""
    chosen: Any = FlattenExtractor
    if isinstance(space, spaces.Dict):
        chosen = CombinedExtractor
    elif is_image_space(space, normalized_image=normalized_image):
        chosen = NatureCNN
    image = {} if chosen is FlattenExtractor else {"normalized_image": normalized_image}
    try:
        extractor: BaseFeaturesExtractor = chosen(space, **image | kwargs)
    except RuntimeError as error:  # a convolution larger than its input
        raise ValueError(
            f"observation_space={space} holds an image that is too small for SB3's NatureCNN "
            f"({error}); expected at least 36 pixels by 36, channels first. Flatten the image in "
            "the environment, choose other keys with obs_indices, or pass a "
            "features_extractor_class or an obs_function."
        ) from error
    except TypeError as error:
        raise ValueError(
            f"features_extractor_kwargs={kwargs} do not fit {chosen.__name__}, SB3's choice for "
            f"{space} ({error}); expected its arguments. Correct them, or add a "
            "features_extractor_class."
        ) from error
    return extractor


def _make_own(
    extractor_class: ExtractorClass, space: spaces.Space[Any], kwargs: dict[str, Any]
) -> BaseFeaturesExtractor:
    try:
        return extractor_class(space, **kwargs)
    except Exception as error:  # a user's code may do anything
        raise ValueError(
            f"features_extractor_class={extractor_class.__name__} cannot be built for {space} with "
            f"features_extractor_kwargs={kwargs} ({brief(error)}); expected a "
            "class that takes this space and these arguments. Correct one of them."
        ) from error


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
        features = function(shape_like(_two_observations(space, "cpu"), space))
        found = _shape_of(features)
        if isinstance(found, str) or len(found) != 2 or found[0] != 2:
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


def _two_observations(space: spaces.Space[Any], device: str | None = None) -> PyTorchObs:
    samples = [map_spaces(lambda part: part.sample(), space) for _ in range(2)]
    batch: PyTorchObs = map_obs(
        lambda *parts: th.as_tensor(np.stack(parts), device=device), *samples
    )
    return batch


def _shape_of(features: Any) -> tuple[int, ...] | str:
    """Of a tensor its shape, of anything else its type."""
    return tuple(features.shape) if isinstance(features, th.Tensor) else type(features).__name__


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
