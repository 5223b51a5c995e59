"""Observations of any space that SB3 knows: parts, batches and frames."""

import math
from collections.abc import Callable
from operator import itemgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import (
    is_image_space,
    is_image_space_channels_first,
    maybe_transpose,
    preprocess_obs,
)
from stable_baselines3.common.vec_env import VecTransposeImage
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations
from torch.nn import functional as F

from sb3_diayn.arguments import is_count

FloatArray = npt.NDArray[np.float32]
# An array, or for an environment with a Dict space an array for each of its keys.
Obs = Any
Space = spaces.Space[Any]
# What a description may claim in a few words, all parts together. A picture of 1920 x 1080 pixels
# has six million numbers.
MAX_PARTS, MAX_IMAGES, MAX_PIXELS, MAX_BINARY = 2**10, 2**6, 2**24, 2**20


def map_obs(function: Callable[..., Any], obs: Any, *others: Any) -> Any:
    """
    :param function: of one array (or tensor, or space) of each argument
    :param obs: one of them, or a dict of them
    :param others: further arguments of the same structure
    :return: the function's result, or a dict of its results
    """
    if isinstance(obs, dict):
        return {key: function(obs[key], *(other[key] for other in others)) for key in obs}
    return function(obs, *others)


def index_obs(obs: Any, where: Any) -> Any:
    """
    :param obs: an array or tensor, or a dict of them
    :param where: an index
    :return: what is there, of each
    """
    return map_obs(itemgetter(where), obs)


def copy_obs(obs: Obs) -> Obs:
    """
    :param obs: observations, one or a batch
    :return: the same in new arrays
    """
    return map_obs(lambda part: part.copy() if isinstance(part, np.ndarray) else part, obs)


def check_structure(obs: Obs, space: Space, when: Callable[[], str]) -> None:
    """
    Whether an observation is of its space, but for the bounds of boxes, which many environments
    overstep a little, and further keys, which SB3 does not read.

    :param obs: an observation of an environment
    :param space: its space
    :param when: says at which step
    :raises ValueError: if keys, shapes, types or whole numbers are not the space's
    """
    name = "observation"
    if isinstance(space, spaces.Dict):
        if not isinstance(obs, dict):
            raise _unlike(f"{name} is of the type {type(obs).__name__}", when, "a dict")
        if not set(space.spaces) <= set(obs):
            raise _unlike(f"{name} has the keys {list(obs)}", when, list(space.spaces))
    parts = space.spaces if isinstance(space, spaces.Dict) else {"": space}
    for key, part in parts.items():
        value = obs[key] if key else obs
        if key:
            name = f"observation[{key!r}]"
        if np.shape(value) != part.shape:
            raise _unlike(f"{name} has the shape {np.shape(value)}", when, part.shape)
        if not isinstance(part, spaces.Box):
            if not part.contains(value):
                raise _unlike(f"{name} is {value}", when, part)
        elif not has_numbers(np.asarray(value)):
            raise _unlike(f"{name} has the type {np.asarray(value).dtype}", when, part.dtype)


def has_numbers(array: npt.NDArray[Any]) -> bool:
    """
    :param array: any array
    :return: whether it has real numbers or truth values
    """
    kind = getattr(array.dtype, "kind", "")  # a tensor of PyTorch has none
    return kind != "" and kind in "biuf"


def _unlike(found: str, when: Callable[[], str], expected: Any) -> ValueError:
    return ValueError(
        f"{found} at {when()}; expected {expected} as observation_space says. Correct the "
        "environment, in reset() and in step()."
    )


def take_rows(arrays: Any, where: npt.NDArray[np.int64]) -> Any:
    """
    :param arrays: an array of shape ``(size, n_envs, ...)``, or a dict of them
    :param where: which transitions: row * n_envs + environment, shape ``(n,)``
    :return: what ``array[rows, envs]`` gives of each, in a third of the time
    """
    if isinstance(arrays, dict):
        return {key: take_rows(array, where) for key, array in arrays.items()}
    return arrays.reshape(-1, *arrays.shape[2:]).take(where, axis=0)


def assign_obs(target: Any, where: Any, values: Any) -> None:
    """
    :param target: an array, or a dict of them
    :param where: an index
    :param values: what to put there, in each
    """

    def put(array: Any, value: Any) -> None:
        array[where] = value

    map_obs(put, target, values)


def map_spaces(function: Callable[[Space], Any], space: Space) -> Any:
    """
    :param function: of a space that is no ``Dict``
    :param space: a space
    :return: the function's result, or for a ``Dict`` a dict of its results
    """
    return map_obs(function, space.spaces if isinstance(space, spaces.Dict) else space)


def is_vector(space: Space) -> bool:
    """
    :param space: a space
    :return: whether it is a one-dimensional ``Box``
    """
    return isinstance(space, spaces.Box) and len(space.shape) == 1


def is_supported(space: Space) -> bool:
    """
    :param space: a space that is no ``Dict``
    :return: whether SB3 can make numbers of it for a network
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return not np.any(space.start) and len(space.shape or ()) <= 1
    return isinstance(space, (spaces.Box, spaces.MultiBinary)) and space.shape != ()


def float_keys(space: Space) -> list[str]:
    """
    :param space: a space
    :return: the keys of a ``Dict`` that hold real numbers, which may turn out not to be finite
    """
    parts = space.spaces if isinstance(space, spaces.Dict) else {}
    return [key for key, part in parts.items() if np.issubdtype(part.dtype, np.floating)]


def as_float32(space: Space) -> Space:
    """
    :param space: observation or action space of an environment
    :return: the same with vectors and real numbers as float32; images and indices stay as they are
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: _real(part) for key, part in space.spaces.items()})
    return _real(space, always=is_vector(space))


def _real(space: Space, always: bool = False) -> Space:
    if isinstance(space, spaces.Box) and (always or np.issubdtype(space.dtype, np.floating)):
        low, high = space.low.astype(np.float32), space.high.astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32)
    return space


def cast(part: Any) -> Any:
    """
    :param part: a part of an observation
    :return: the same, float64 as float32
    """
    return part.astype(np.float32) if getattr(part, "dtype", None) == np.float64 else part


def as_channels_first(obs: Obs, space: Space) -> Obs:
    """
    SB3 puts the channels of images first outside the environment (``VecTransposeImage``).

    :param obs: observations as the environment gives them, one or a batch
    :param space: their space as the model knows it
    :return: the same in the layout of the space
    """
    if is_vector(space):
        return obs
    return map_obs(maybe_transpose, obs, map_spaces(lambda part: part, space))


def channels_first(space: Space) -> Space:
    """
    :param space: observation space of an environment
    :return: the space of a model trained in it, for whose images SB3 puts the channels first
    """

    def transpose(part: Space) -> Space:
        is_last = is_image_space(part) and not is_image_space_channels_first(part)  # type: ignore[arg-type]
        return VecTransposeImage.transpose_space(part) if is_last else part  # type: ignore[arg-type]

    parts = map_spaces(transpose, space)
    return spaces.Dict(parts) if isinstance(parts, dict) else parts


def describe_space(space: Space | None) -> dict[str, Any] | None:
    """
    :param space: a space that SB3 knows, or None
    :return: the space in words that JSON knows; None for any other
    """
    if isinstance(space, spaces.Dict):
        parts = {key: describe_space(part) for key, part in space.spaces.items()}
        return {"type": "Dict", "spaces": parts}
    if isinstance(space, spaces.Discrete):
        return {"type": "Discrete", "n": int(space.n)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"type": "MultiDiscrete", "nvec": space.nvec.tolist()}
    if isinstance(space, spaces.MultiBinary):
        return {"type": "MultiBinary", "n": space.n if isinstance(space.n, int) else list(space.n)}
    if not isinstance(space, spaces.Box):
        return None
    if is_image_space(space):  # millions of equal bounds
        return {"type": "Image", "shape": list(space.shape)}
    bounds = {"low": space.low.tolist(), "high": space.high.tolist()}
    return {"type": "Box", "dtype": str(space.dtype), **bounds}


def rebuild_space(description: dict[str, Any] | None) -> Space | None:
    """
    :param description: from :func:`describe_space`, perhaps damaged
    :return: the space
    :raises ValueError: if it claims more than memory should be taken for; anything else that is
        wrong with it raises what Python, NumPy and gymnasium raise
    """
    if description is None:
        return None
    parts = description["spaces"] if description["type"] == "Dict" else {"": description}
    _check_claims(list(parts.values()))
    rebuilt = {key: _rebuild_part(part) for key, part in parts.items()}
    return spaces.Dict(rebuilt) if description["type"] == "Dict" else rebuilt[""]


def _check_claims(parts: list[dict[str, Any]]) -> None:
    """Before any space is made: a box of numbers is as long as its text, these are not."""
    images = [part["shape"] for part in parts if part["type"] == "Image"]
    binaries = [np.atleast_1d(part["n"]) for part in parts if part["type"] == "MultiBinary"]
    if not all(is_count(size) for sizes in [*images, *map(list, binaries)] for size in sizes):
        raise ValueError("sizes that are not positive integers")
    claims = (
        (len(parts), MAX_PARTS, "parts"),
        (len(images), MAX_IMAGES, "images"),
        (sum(map(math.prod, images)), MAX_PIXELS, "numbers in images"),
        (sum(math.prod(map(int, sizes)) for sizes in binaries), MAX_BINARY, "binary numbers"),
    )
    for found, most, name in claims:
        if found > most:
            raise ValueError(f"{found} {name}, at most {most} are read")


def _rebuild_part(description: dict[str, Any]) -> Space:
    kind = description["type"]
    if kind == "Discrete":
        return spaces.Discrete(description["n"])
    if kind == "MultiDiscrete":
        return spaces.MultiDiscrete(description["nvec"])
    if kind == "MultiBinary":
        return spaces.MultiBinary(description["n"])
    if kind == "Image":
        return _Image(description["shape"])
    if kind != "Box":
        raise ValueError(f"a space of type {kind!r}")
    dtype = np.dtype(description["dtype"])
    if dtype.kind not in "biuf":
        raise ValueError(f"a box of {dtype}")
    low, high = (np.array(description[side], dtype) for side in ("low", "high"))
    return spaces.Box(low, high, dtype=dtype.type)


class _Image(spaces.Box):
    """
    A ``Box`` of bytes from 0 to 255 that takes no memory: gymnasium keeps arrays of equal bounds,
    and takes 58 bytes for each number of a sample.

    :param shape: of the image
    """

    def __init__(self, shape: list[int]) -> None:
        super().__init__(0, 255, (1,) * len(shape), np.uint8)
        self._shape = tuple(shape)
        for name in ("low", "high", "bounded_below", "bounded_above"):
            setattr(self, name, np.broadcast_to(getattr(self, name), shape))

    def sample(self, *_: Any, **__: Any) -> npt.NDArray[np.uint8]:
        """:return: random bytes"""
        return self.np_random.integers(256, size=self.shape, dtype=np.uint8)


def stack_axis(space: Space) -> int:
    """
    :param space: a space that is no ``Dict``
    :return: where ``VecFrameStack`` puts frames after each other, counted from the end
    """
    is_first = is_image_space(space) and is_image_space_channels_first(space)  # type: ignore[arg-type]
    return -3 if is_first else -1


def stacked(space: Space, n_stack: int) -> Space:
    """
    :param space: of one frame
    :param n_stack: number of frames, k
    :return: what ``VecFrameStack`` makes of it
    """
    return StackedObservations(1, n_stack, space).stacked_observation_space  # type: ignore[arg-type]


def unstacked(space: Space, n_stack: int) -> Space:
    """
    :param space: from :func:`stacked`
    :param n_stack: number of frames, k
    :return: the space of one frame
    """
    if isinstance(space, spaces.Dict):
        return spaces.Dict({key: unstacked(part, n_stack) for key, part in space.spaces.items()})
    if n_stack == 1 or not isinstance(space, spaces.Box):
        return space
    # SB3 repeats each bound k times in its place, rather than all of them k times.
    index = along(stack_axis(space), slice(None, None, n_stack))
    return spaces.Box(space.low[index], space.high[index], dtype=space.low.dtype.type)


def along(axis: int, part: slice) -> tuple[Any, ...]:
    """
    :param axis: an axis, counted from the end
    :param part: what to take of it
    :return: the index that does
    """
    return (Ellipsis, part, *[slice(None)] * (-axis - 1))


def split_frames(array: npt.NDArray[Any], n_stack: int) -> npt.NDArray[Any]:
    """
    :param array: stacked vectors, shape ``(..., k * d)``
    :param n_stack: number of frames, k
    :return: shape ``(..., k, d)``; for a single frame the same array
    """
    *leading, width = array.shape
    return array if n_stack == 1 else array.reshape(*leading, n_stack, width // n_stack)


def merge_frames(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """
    :param array: shape ``(..., k, d)``
    :return: shape ``(..., k * d)``
    """
    *leading, n_stack, width = array.shape
    return array.reshape(*leading, n_stack * width)


PIXELS = 8


def flatten(observations: Obs, space: Space) -> FloatArray:
    """
    :param observations: a batch of observations of the environment
    :param space: their space, images with their channels first
    :return: shape ``(n, d)``: vectors as they are, indices as one-hots, an image as its brightness
        from 0 to 1 in 8 times 8 fields; the parts of a ``Dict`` after each other, by key
    """
    if is_vector(space):
        return np.asarray(observations, np.float32)
    parts = map_spaces(lambda part: part, space)
    if not isinstance(parts, dict):
        return _flatten_part(observations, space)
    columns = [_flatten_part(observations[key], part) for key, part in parts.items()]
    return np.concatenate(columns, axis=1)


def _flatten_part(observations: Obs, space: Space) -> FloatArray:
    numbers = preprocess_obs(th.as_tensor(observations), space)
    assert isinstance(numbers, th.Tensor)
    if is_image_space(space):
        numbers = F.adaptive_avg_pool2d(numbers.mean(dim=1), PIXELS)
    flat: FloatArray = numbers.reshape(len(observations), -1).numpy()
    return flat
