"""Observations of any space as vectors, to measure what skills do in one and the same way."""

import numpy as np
import torch as th
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from torch.nn import functional as F

from sb3_diayn.observations import Obs, Space, is_vector, map_spaces
from sb3_diayn.skills import FloatArray

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
