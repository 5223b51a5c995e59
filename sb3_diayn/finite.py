"""Numbers that are not finite, refused where they arise."""

from typing import Any

import numpy as np
import numpy.typing as npt


def moment(episode_steps: int, total_steps: int, skill: int, env: str = "this environment") -> str:
    """
    :param episode_steps: steps of the episode
    :param total_steps: steps since the wrapper was made
    :param skill: index of the skill that acts
    :param env: which environment
    :return: when it happened, in words
    """
    steps = f"step {episode_steps} of the episode (step {total_steps} of {env}"
    return f"{steps}, skill {skill})"


def bad_action(action: npt.NDArray[Any], when: str) -> ValueError:
    """
    :param action: of one environment
    :param when: from :func:`moment`
    :return: the error to raise
    """
    return ValueError(
        f"action={action} is not finite at {when}; expected finite numbers. The policy has "
        "diverged: lower the learning_rate of the model, and go on from an earlier checkpoint."
    )


def bad_observation(part: npt.NDArray[Any], name: str, when: str) -> ValueError:
    """
    :param part: of one environment, not finite somewhere
    :param name: of the observation, or of a part of it
    :param when: from :func:`moment`
    :return: the error to raise
    """
    index = tuple(int(i) for i in np.argwhere(~np.isfinite(part))[0])
    return ValueError(
        f"{name}{list(index)}={float(part[index])} is not finite at {when}; expected finite "
        "numbers. Look at the environment: an unstable simulation or a division by zero is the "
        "usual cause."
    )


def first_bad_row(batch: npt.NDArray[Any]) -> int | None:
    """
    :param batch: of many environments, shape ``(n, ...)``
    :return: the first row that is not finite, if there is one
    """
    finite = np.isfinite(batch)
    return None if finite.all() else int(finite.reshape(len(batch), -1).all(axis=1).argmin())
