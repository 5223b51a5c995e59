"""What the discriminator learns from on-policy, where SB3 keeps no next observations."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.observations import Obs, like_space, map_parts, put_parts, take_parts
from sb3_diayn.skills import SkillSpace


class SkillRollout:
    """
    The environment's next observations, skills and actions of the rollout under way.

    :param skill_space: where the skill sits in an observation
    :param discriminator: what will learn from the rollout
    :param vec_normalize: the model's normalising wrapper, if it has one
    """

    def __init__(
        self,
        skill_space: SkillSpace,
        discriminator: Discriminator,
        vec_normalize: VecNormalize | None,
    ) -> None:
        self.skill_space = skill_space
        self.discriminator = discriminator
        self.vec_normalize = vec_normalize
        self._steps: list[tuple[Obs, npt.NDArray[Any], npt.NDArray[Any]]] = []

    def add(
        self,
        new_obs: Obs,
        actions: npt.NDArray[Any],
        dones: npt.NDArray[np.bool_],
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Store one step of each environment.

        Where a skill ended before its episode, ``dones`` and ``infos`` are changed in place to
        what SB3 expects at a time limit: it then bootstraps from the value that the state has for
        the old skill, and its advantages do not run on into the new one.

        :param new_obs: next observations as the model sees them, shape ``(n_envs, d + K)``
        :param actions: actions as the environments took them
        :param dones: ends of episodes, shape ``(n_envs,)``
        :param infos: those of ``DIAYNWrapper``
        """
        if self.vec_normalize is not None:
            new_obs = self.vec_normalize.get_original_obs()
        env_obs, new_skills = self.skill_space.split_newest(new_obs)
        env_obs, skills = map_parts(np.copy, env_obs), np.array([info["skill"] for info in infos])
        for index in np.flatnonzero(dones):
            last = like_space(infos[index]["terminal_env_obs"], self.skill_space.env_space)
            put_parts(env_obs, index, last)
        for index in np.flatnonzero(~dones & (new_skills != skills)):
            last_obs = self._with_skill(take_parts(new_obs, index), skills[index])
            infos[index] |= {"terminal_observation": last_obs, "TimeLimit.truncated": True}
            dones[index] = True
        actions = self.discriminator.scale_action(actions).reshape(len(infos), -1)
        self._steps.append((env_obs, skills, actions))

    def _with_skill(self, obs: Obs, skill: int) -> Obs:
        """What the model would have seen, had the skill gone on."""
        env_obs, skills = self.skill_space.split(obs)
        if self.skill_space.n_stack > 1:  # the older frames keep theirs
            last_obs = self.skill_space.append(env_obs, np.append(skills[:-1], skill))
        else:
            last_obs = self.skill_space.append(env_obs, skill)
        if self.vec_normalize is not None:
            last_obs = self.vec_normalize.normalize_obs(last_obs)
        return last_obs

    def pop(self, device: th.device) -> tuple[PyTorchObs, th.Tensor, th.Tensor]:
        """
        Empty the rollout.

        :param device: where the tensors go
        :return: next observations of the environment, shape ``(n, d)``, skills, shape ``(n,)``, and
            actions, shape ``(n, action_dim)``
        """
        obs, skills, actions = zip(*self._steps, strict=True)
        self._steps.clear()

        def to_tensor(*steps: npt.NDArray[Any]) -> th.Tensor:
            return th.as_tensor(np.concatenate(steps), device=device)

        return map_parts(to_tensor, *obs), to_tensor(*skills), to_tensor(*actions)
