"""
How PyTorch uses the processor. Two things slow it down:

- Its threads, OpenMP's, spin while they wait for each other. Next to another busy program, two can
  be several times slower than one.
- Denormal numbers, below 1.2e-38 in float32, take a processor many times as long as others. Adam
  makes them: its moments of a unit that has died decay towards 0.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.preprocessing import is_image_space

from sb3_diayn.observations import Space


@contextmanager
def efficient_torch(space: Space, num_threads: int = -1) -> Iterator[None]:
    """
    One thread and no denormal numbers while a run is trained or played. Small nets gain little from
    more threads, and a number below 1.2e-38 changes no weight.

    :param space: what a policy observes
    :param num_threads: PyTorch threads in the block; -1 for one. Images, whose nets are large, and
        ``OMP_NUM_THREADS`` then leave the number to PyTorch
    """
    before, had_denormals = th.get_num_threads(), has_denormals()
    th.set_flush_denormal(True)
    if num_threads > 0:
        th.set_num_threads(num_threads)
    elif "OMP_NUM_THREADS" not in os.environ and not _has_image(space):
        th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(before)
        th.set_flush_denormal(not had_denormals)


def has_denormals() -> bool:
    """:return: whether this thread computes with denormal numbers, or takes them for 0"""
    return bool(th.tensor([1e-39]) * 1 != 0)


def _has_image(space: Space) -> bool:
    parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
    return any(is_image_space(part, normalized_image=True) for part in parts)  # of any type


def leave_cores_to_sbx(model: BaseAlgorithm) -> int:
    """
    Give PyTorch one thread next to a model of SBX, whose XLA needs the cores, unless
    ``OMP_NUM_THREADS`` says how many.

    :param model: about to learn
    :return: how many threads there were
    """
    n_threads = th.get_num_threads()
    is_sbx = any(base.__module__.startswith("sbx.") for base in type(model).__mro__)
    if is_sbx and "OMP_NUM_THREADS" not in os.environ:
        th.set_num_threads(1)
    return n_threads
