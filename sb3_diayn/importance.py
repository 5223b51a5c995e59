"""How much the discriminator leans on each part of an observation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.extraction import VectorExtractor
from sb3_diayn.observations import map_spaces, take_parts

MAX_STATES = 5000
MAX_OTHERS = 500  # images among them


def importance(
    obs: PyTorchObs, skills: th.Tensor, actions: th.Tensor, discriminator: Discriminator
) -> npt.NDArray[np.float64]:
    """
    :param obs: next observations of the environment, n of them
    :param skills: the skills that led there, shape ``(n,)``
    :param actions: see :meth:`Discriminator.forward`
    :param discriminator: what reads them
    :return: by how many nats the mean log q(z|s') falls when one coordinate of a vector is
        shuffled, shape ``(d,)``; of other observations one key, or everything, see
        :func:`readings`
    """
    rng = np.random.default_rng(0)
    reads_vector = isinstance(discriminator.extractor, VectorExtractor)
    n_states = min(len(skills), MAX_STATES if reads_vector else MAX_OTHERS)
    rows = th.as_tensor(rng.choice(len(skills), size=n_states, replace=False))
    obs, skills, actions = take_parts(obs, rows), skills[rows], actions[rows]
    order = th.as_tensor(rng.permutation(n_states))
    falls = np.zeros(obs.shape[1] if reads_vector else len(_parts(obs)))  # type: ignore[union-attr]
    with th.no_grad():
        base = discriminator.log_prob(obs, skills, actions).mean()
        for index, shuffled in _shuffles(obs, order, discriminator):
            falls[index] = float(base - discriminator.log_prob(shuffled, skills, actions).mean())
    return falls


def readings(discriminator: Discriminator) -> dict[str, Any]:
    """
    :param discriminator: a discriminator
    :return: what the entries of its importance stand for: of a vector ``obs_indices``, the
        coordinates that it reads; else ``parts``, the names of the observation's keys
    """
    if isinstance(discriminator.extractor, VectorExtractor):
        return {"obs_indices": discriminator.extractor.indices.tolist()}
    return {"parts": _parts(map_spaces(str, discriminator.observation_space))}


def _parts(obs: Any) -> list[str]:
    return list(obs) if isinstance(obs, dict) else ["observation"]


def _shuffles(
    obs: Any, order: th.Tensor, discriminator: Discriminator
) -> Iterator[tuple[int, Any]]:
    extractor = discriminator.extractor
    if isinstance(extractor, VectorExtractor):
        for index in extractor.indices.tolist():
            shuffled = obs.clone()
            shuffled[:, index] = obs[order, index]
            yield index, shuffled
    elif isinstance(obs, dict):
        for index, key in enumerate(obs):
            yield index, {**obs, key: obs[key][order]}
    else:
        yield 0, obs[order]
