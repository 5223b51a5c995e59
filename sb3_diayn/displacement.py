"""How far an agent has come lately, as a part of its observation."""

from collections import deque
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from sb3_diayn.arguments import Count, PositiveNumber, check_options
from sb3_diayn.extractors import Coordinates, resolve_indices
from sb3_diayn.observations import is_vector

Array = npt.NDArray[Any]


class DisplacementObservation(gym.ObservationWrapper[Array, Any, Array], RecordConstructorArgs):
    """
    Appends to a vector observation how far chosen coordinates have moved in the last ``n_steps``
    steps, or since the reset where that is shorter.

    A discriminator that reads the displacement alone rewards the speed and the direction of a way,
    not a place and not the velocity of a moment. It reads one observation, so what it needs of the
    past has to be in it: this wrapper belongs inside ``DIAYNWrapper``. The policy, the replay
    buffer and ``VecNormalize`` then see the same observation. The displacements are the last
    coordinates, in the order of ``indices``: with two of them ``DIAYNCallback(obs_indices="-2:")``
    reads just these.

    Example::

        >>> import gymnasium as gym
        >>> from sb3_diayn import DIAYNWrapper, DisplacementObservation
        >>> ant = gym.make("Ant-v5", exclude_current_positions_from_observation=False)
        >>> walker = DisplacementObservation(ant, [0, 1], n_steps=50, keep=False)
        >>> ant.observation_space.shape, walker.observation_space.shape
        ((107,), (107,))
        >>> env = DIAYNWrapper(walker, n_skills=10)

    :param env: an environment whose observation is a vector of real numbers
    :param indices: of the coordinates in the observation, as ``obs_indices`` of
        :class:`~sb3_diayn.callbacks.DIAYNCallback` takes them; negative ones count from its end
    :param n_steps: over how many steps they are compared
    :param keep: keep the coordinates themselves in the observation. Without them, a policy that
        sees positions cannot depend on where it is
    :param scale: factor of the displacements. With ``spectral_norm`` log q changes by about 1 from
        one unit to the next: a larger factor lets a discriminator distinguish skills that are
        closer together, so that more of them have room
    :raises ValueError: if an argument does not fit
    """

    def __init__(
        self,
        env: gym.Env[Array, Any],
        indices: Coordinates,
        *,
        n_steps: Count = 20,
        keep: bool = True,
        scale: PositiveNumber = 1.0,
    ) -> None:
        super().__init__(env)
        space: Any = env.observation_space
        if not is_vector(space) or not np.issubdtype(space.dtype, np.floating):
            raise ValueError(
                f"env has observations of {space}; expected a vector of real numbers. Put "
                "gymnasium's FlattenObservation inside."
            )
        self.indices = resolve_indices(indices, space.shape[0], name="indices")
        given = {"n_steps": n_steps, "keep": keep, "scale": scale}
        options = check_options(DisplacementObservation, given)
        RecordConstructorArgs.__init__(self, indices=self.indices, **options)
        self.n_steps, self.scale = options["n_steps"], space.dtype.type(options["scale"])
        self._kept = np.setdiff1d(np.arange(space.shape[0]), [] if keep else self.indices)
        low, high = space.low[self.indices], space.high[self.indices]
        self.observation_space = spaces.Box(
            np.concatenate([space.low[self._kept], self.scale * (low - high)]),
            np.concatenate([space.high[self._kept], self.scale * (high - low)]),
            dtype=space.dtype,
        )
        self._places: deque[Array] = deque(maxlen=self.n_steps + 1)  # the newest last

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """
        :param seed: of the environment
        :param options: of the environment
        :return: the first observation, with displacements of 0, and ``info``
        """
        self._places.clear()
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Array) -> Array:
        """
        :param observation: of the environment
        :return: the same, with the displacements
        """
        self._places.append(observation[self.indices])
        displacement = self.scale * (self._places[-1] - self._places[0])
        return np.concatenate([observation[self._kept], displacement])

    def rename_obs(self, names: Sequence[str]) -> list[str]:
        """
        :param names: of the coordinates of the environment's own observation
        :return: names of the coordinates with the displacements; none if they do not fit, as
            where a wrapper inside leaves coordinates out
        """
        if self.env.observation_space.shape != (len(names),):
            return []
        moved = [f"displacement of {names[index]}" for index in self.indices]
        return [names[index] for index in self._kept] + moved
