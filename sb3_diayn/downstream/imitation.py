"""
Imitation: the skill that matches an expert's trajectory best.

Section 4.2.3 of the paper, https://arxiv.org/abs/1802.06070.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.files import reading, require_extra
from sb3_diayn.representation import Representation

__all__ = ["Demonstration", "SkillInference", "infer_skill", "load_demonstration"]

Array = npt.NDArray[Any]
WHOLE_NUMBERS, REAL_NUMBERS = "iu", "biuf"  # NumPy's kinds of types


@dataclass(frozen=True)
class Demonstration:
    """
    The trajectory of an expert, T steps long.

    :param observations: next observations of the environment, shape ``(T, d)``
    :param actions: the actions that led there, as the environment took them, shape ``(T, ...)``;
        None if they are not known
    :param seed: of the reset before the first action; None if it is not known
    """

    observations: Array
    actions: Array | None = None
    seed: int | None = None


@dataclass(frozen=True)
class SkillInference:
    """
    The skills that a discriminator recognises in a trajectory.

    Example::

        >>> import numpy as np
        >>> from sb3_diayn.downstream import SkillInference
        >>> q = np.array([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8]])  # three states, two skills
        >>> inference = SkillInference(np.log(q))
        >>> inference.skill, inference.decided_at
        (1, 1)
        >>> inference.mean_q.round(2).tolist()
        [0.37, 0.63]

    :param log_q: log q(z|s_t) in nats, shape ``(T, K)``. Of METRA, how far phi moves along z into
        s_t, which is 0 for the first state
    :param has_probabilities: False for METRA, whose phi has neither ``posterior`` nor ``mean_q``
    """

    log_q: Array
    has_probabilities: bool = True

    @property
    def skill(self) -> int:
        """:return: z* = argmax_z sum_t log q(z|s_t)"""
        return int(self.log_q.sum(axis=0).argmax())

    @property
    def posterior(self) -> Array:
        """
        The probability of each skill given the trajectory, the softmax of sum_t log q(z|s_t): with
        a uniform p(z), and as if the states of a skill were independent of each other. They are
        not, so it is too confident; ``mean_q`` is the other extreme.

        :return: shape ``(K,)``
        :raises ValueError: of METRA
        """
        self._check_probabilities("posterior")
        total = self.log_q.sum(axis=0)
        likelihood = np.exp(total - total.max())
        posterior: Array = likelihood / likelihood.sum()
        return posterior

    @property
    def mean_q(self) -> Array:
        """
        :return: q(z|s_t) averaged over the trajectory, shape ``(K,)``
        :raises ValueError: of METRA
        """
        self._check_probabilities("mean_q")
        mean: Array = np.exp(self.log_q).mean(axis=0)
        return mean

    @property
    def decided_at(self) -> int:
        """:return: the first t from which sum_{i <= t} log q(z|s_i) stays largest for z*"""
        leaders = self.log_q.cumsum(axis=0).argmax(axis=1)
        others = np.flatnonzero(leaders != self.skill)
        return int(others[-1]) + 1 if len(others) else 0

    def _check_probabilities(self, name: str) -> None:
        if not self.has_probabilities:
            raise ValueError(
                f"{name} has no meaning with objective='metra', which has no q(z|s'); expected "
                "'diayn'. Use log_q.sum(axis=0): how far phi moves along each skill."
            )


def infer_skill(
    discriminator: Discriminator, observations: Any, actions: Any = None
) -> SkillInference:
    """
    Find the skill that matches an expert's states best: z* = argmax_z sum_t log q(z|s_t), the
    equation in section 4.2.3 of Eysenbach et al. (2019). With METRA's phi it is the skill that
    would have been rewarded most for them.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import numpy as np
        >>> from gymnasium import spaces
        >>> from sb3_diayn import Discriminator
        >>> from sb3_diayn.downstream import infer_skill
        >>> discriminator = Discriminator(spaces.Box(-1.0, 1.0, (2,)), n_skills=4)
        >>> inference = infer_skill(discriminator, np.zeros((10, 2)))
        >>> inference.log_q.shape
        (10, 4)

    :param discriminator: of the model that has the skills
    :param observations: next observations of the environment, raw (as before any
        ``VecNormalize``) and without a skill, shape ``(T, d)``; or a :class:`Demonstration`
    :param actions: the actions that led there, as the environment took them, shape ``(T, ...)``;
        needed only by a discriminator that reads actions
    :return: the skill, its probability, and the step at which it was decided
    :raises ValueError: if the shapes do not fit, there is no observation (METRA needs two), one is
        not finite, or actions are missing
    """
    if isinstance(observations, Demonstration):
        observations, actions = observations.observations, observations.actions
    states = _check_observations(discriminator, np.asarray(observations))
    device = discriminator.log_p.device
    tensors = [th.as_tensor(states, device=device)]
    if discriminator.action_space is not None:
        taken = _check_actions(discriminator.action_space, actions, len(states))
        scaled = discriminator.scale_action(taken)
        tensors.append(th.as_tensor(scaled.reshape(len(states), -1), device=device))
    with th.no_grad():
        if isinstance(discriminator, Representation):
            return _infer_direction(discriminator, tensors[0])
        log_q = th.log_softmax(discriminator(*tensors), dim=1)
    return SkillInference(log_q.double().cpu().numpy())


def _infer_direction(representation: Representation, states: th.Tensor) -> SkillInference:
    if len(states) < 2:
        raise ValueError(
            "observations has one state, from which phi has not moved; expected at least two with "
            "objective='metra'."
        )
    progress = representation.progress(states).double().cpu().numpy()
    return SkillInference(np.diff(progress, axis=0, prepend=0), has_probabilities=False)


def load_demonstration(trajectory: str | os.PathLike[str], *, episode: int = 0) -> Demonstration:
    """
    Read an expert's trajectory. If there is one observation more than actions, the first one comes
    from the reset. It is left out, since discriminators read next observations.

    Example::

        >>> import numpy as np
        >>> from sb3_diayn.downstream import load_demonstration
        >>> np.savez("expert.npz", observations=np.zeros((11, 3)), actions=np.zeros((10, 1)))
        >>> load_demonstration("expert.npz").observations.shape
        (10, 3)

    :param trajectory: an ``.npz`` file with ``observations`` and, where known, ``actions`` and
        ``seed``; a ``.npy`` file of observations; or the id of a Minari dataset on this machine
    :param episode: which episode of a Minari dataset
    :return: the trajectory
    :raises FileNotFoundError: if there is no such file or dataset
    :raises ImportError: if a dataset is named and the extra ``minari`` is missing
    :raises ValueError: if the file cannot be read or has something else, or there is no such
        episode
    """
    path = Path(trajectory)
    if path.suffix in (".npy", ".npz"):
        entries = _read_arrays(path)
    else:
        entries = _read_minari(str(trajectory), episode)
    observations, actions, seed = (
        entries.get(name) for name in ("observations", "actions", "seed")
    )
    if observations is None or np.ndim(observations) == 0:
        raise ValueError(
            f"trajectory={str(trajectory)!r} has {sorted(entries)}; expected an array "
            "'observations' of shape (T, d). Save it with np.savez(file, observations=..., "
            "actions=..., seed=...)."
        )
    observations = _read_numbers(trajectory, "observations", observations)
    if actions is not None:
        actions = _read_numbers(trajectory, "actions", actions)
        if len(observations) == len(actions) + 1:
            observations = observations[1:]
        if len(observations) != len(actions):
            raise ValueError(
                f"trajectory={str(trajectory)!r} has {len(observations)} observations and "
                f"{len(actions)} actions; expected as many, or one observation more: the reset's."
            )
    return Demonstration(observations, actions, _read_seed(trajectory, seed))


def _read_numbers(trajectory: str | os.PathLike[str], name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.ndim == 0 or array.dtype.kind not in REAL_NUMBERS:
        raise ValueError(
            f"trajectory={str(trajectory)!r} has {name} of shape {array.shape} and type "
            f"{array.dtype}; expected real numbers, one row for each step. Save them as such."
        )
    if name == "actions" and not np.isfinite(array).all():  # of observations see infer_skill
        step = int(np.argwhere(~np.isfinite(array))[0][0])
        raise ValueError(
            f"trajectory={str(trajectory)!r} has actions[{step}] that is not finite; expected "
            "finite numbers. Cut the trajectory there."
        )
    return array


def _read_seed(trajectory: str | os.PathLike[str], value: Any) -> int | None:
    if value is None:
        return None
    seed = np.asarray(value)
    if seed.ndim != 0 or seed.dtype.kind not in WHOLE_NUMBERS or seed < 0:
        raise ValueError(
            f"trajectory={str(trajectory)!r} has seed={seed.tolist()!r}; expected one integer of "
            "at least 0, as env.reset(seed=...) takes it. Leave it out if it is not known."
        )
    return int(seed)


def _check_observations(discriminator: Discriminator, observations: Array) -> Array:
    if isinstance(discriminator.observation_space, spaces.Dict):
        raise ValueError(
            f"discriminator reads observations of {discriminator.observation_space}; expected one "
            "array for each state, not a Dict. Train with gymnasium's FlattenObservation inside."
        )
    shape = discriminator.observation_space.shape or ()
    if observations.shape[1:] != shape or len(observations) == 0:
        raise ValueError(
            f"observations of shape {observations.shape} do not fit the discriminator; expected "
            f"(T, {', '.join(map(str, shape))}) with T of at least 1, next observations without "
            "the skill. Check that the expert acted in the same environment."
        )
    if not np.isfinite(observations).all():
        step = int(np.argwhere(~np.isfinite(observations))[0][0])
        raise ValueError(
            f"observations[{step}] is not finite; expected finite numbers. Cut the trajectory "
            "where the simulation broke down."
        )
    return observations.astype(np.float32)


def _check_actions(space: spaces.Space[Any], actions: Any, length: int) -> Array:
    if actions is None or len(actions) != length:
        given = "None" if actions is None else f"{len(actions)} of them"
        raise ValueError(
            f"actions={given} do not fit {length} observations; expected one for each, since this "
            "discriminator reads actions too. Pass the expert's actions."
        )
    taken, shape = np.asarray(actions), space.shape or ()
    if taken[0].size != math.prod(shape):
        raise ValueError(
            f"actions of shape {taken.shape} do not fit the discriminator; expected "
            f"{(length, *shape)}, as the environment takes them. Check that the expert acted in "
            "the same environment."
        )
    return taken


def _read_arrays(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"trajectory={str(path)!r} is not a file; expected .npz or .npy.")
    expected = "numbers that np.savez or np.save wrote. Save it again, without objects"
    with reading(path, expected, argument="trajectory"):
        loaded = np.load(path, allow_pickle=False)
        return {"observations": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)


def _read_minari(dataset_id: str, episode: int) -> dict[str, Any]:
    if Path(dataset_id).is_file():
        raise ValueError(
            f"trajectory={dataset_id!r} is a file of another kind; expected .npz or .npy, or the "
            "id of a Minari dataset. Save its arrays with np.savez."
        )
    try:
        with require_extra("minari"):
            import minari
    except ImportError as error:
        raise ImportError(
            f"trajectory={dataset_id!r} ends neither in .npz nor in .npy, so it is read as a "
            f"Minari dataset. {error}"
        ) from error
    if dataset_id not in minari.list_local_datasets():
        raise FileNotFoundError(
            f"trajectory={dataset_id!r} is not a Minari dataset on this machine; expected one of "
            f"{sorted(minari.list_local_datasets())}, or a file ending in .npz or .npy. "
            f"To get it: minari download {dataset_id}"
        )
    dataset = minari.load_dataset(dataset_id)
    if not 0 <= episode < dataset.total_episodes:
        raise ValueError(
            f"episode={episode!r} is not in {dataset_id!r}; expected 0 to "
            f"{dataset.total_episodes - 1}."
        )
    found = next(iter(dataset.iterate_episodes([episode])))
    if not isinstance(found.observations, np.ndarray):
        raise ValueError(
            f"trajectory={dataset_id!r} has observations of {type(found.observations).__name__}; "
            "expected vectors. Flatten them and save them with np.savez."
        )
    seed = dataset.storage.get_episode_metadata([episode])
    return {
        "observations": found.observations,
        "actions": found.actions,
        "seed": next(iter(seed)).get("seed"),
    }
