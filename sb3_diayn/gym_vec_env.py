"""Vectorised environments of gymnasium, as SB3 wants them."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.wrappers.vector import DictInfoToList
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_diayn.observations import Obs, map_parts, take_parts


class GymVecEnv(VecEnv):
    """
    A gymnasium ``VectorEnv`` as a ``VecEnv``::

        vector_env = gym.make_vec(
            "Hopper-v5",
            num_envs=8,
            vectorization_mode="async",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        )
        env = VecDIAYNWrapper(GymVecEnv(vector_env), n_skills=20)

    SB3 wants the last observation of an episode and the first one of the next in the same step.
    gymnasium's default, ``NEXT_STEP``, gives the second one a step later and ignores an action in
    between, which would have to be learned from; it is refused.

    :param env: with ``AutoresetMode.SAME_STEP``, or with ``DISABLED``: then ended episodes begin
        anew by ``reset(options={"reset_mask": mask})``. Infos of JAX or torch arrays
        first go through ``gymnasium.wrappers.vector.JaxToNumpy`` or ``TorchToNumpy``
    :raises ValueError: if it is no ``VectorEnv`` or resets in another mode
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        _check_env(env)
        self.env = env
        self._listed: Any = DictInfoToList(env)
        self._resets_itself = env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        self._actions: npt.NDArray[Any] = np.zeros(0)
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)

    def reset(self) -> Obs:
        """
        :return: first observations
        :raises ValueError: if ``set_options`` got different ones for some environments
        """
        options = self._options[0]
        if any(other != options for other in self._options):
            raise ValueError(
                f"options={self._options} differ between environments; expected one for all, which "
                "is what a VectorEnv takes. Pass a single dict to set_options()."
            )
        obs, self.reset_infos = self._listed.reset(seed=self._seeds[0], options=options or None)
        self._reset_seeds()
        self._reset_options()
        return map_parts(np.array, obs)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """:param actions: of all environments"""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as any ``VecEnv``"""
        obs, rewards, *ends, infos = self._listed.step(self._actions)
        terminated, truncated = (np.array(end, bool) for end in ends)
        obs, dones = map_parts(np.array, obs), terminated | truncated
        if dones.any():
            obs = self._begin_episodes(obs, dones, infos)
        for info, is_cut in zip(infos, (truncated & ~terminated).tolist(), strict=True):
            info["TimeLimit.truncated"] = is_cut
        return obs, np.array(rewards, np.float32), dones, infos

    def _begin_episodes(
        self, obs: Obs, dones: npt.NDArray[np.bool_], infos: list[dict[str, Any]]
    ) -> Obs:
        """Put the last observations where SB3 looks for them; return the first ones."""
        if self._resets_itself:
            for index in np.flatnonzero(dones):
                both = infos[index]
                last = {"terminal_observation": both.pop("final_obs")}
                infos[index] = both.pop("final_info", {}) | last
                self.reset_infos[index] = both
            return obs
        first_obs, first_infos = self._listed.reset(options={"reset_mask": dones})
        for index in np.flatnonzero(dones):
            infos[index]["terminal_observation"] = take_parts(obs, index)
            self.reset_infos[index] = first_infos[index]
        return map_parts(np.array, first_obs)

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """:return: a frame of each environment"""
        frames: Any = self.env.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """:return: attributes of the single environments, or else of the vectorised one"""
        inner: Any = self.env.unwrapped
        if hasattr(inner, "get_attr"):
            values = inner.get_attr(attr_name)
        else:
            values = [getattr(inner, attr_name)] * self.num_envs
        return [values[index] for index in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Not possible for environments that share their attributes."""
        raise NotImplementedError(
            f"{attr_name} cannot be set from here. Set it on the VectorEnv before it is wrapped."
        )

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """:return: what a method of the single environments returns; ``render`` works always"""
        targets = list(self._get_indices(indices))
        if method_name == "render":
            results: Sequence[Any] = self.get_images()
        elif hasattr(self.env.unwrapped, "call") and targets == list(range(self.num_envs)):
            results = self.env.unwrapped.call(method_name, *method_args, **kwargs)
        else:
            raise NotImplementedError(
                f"{method_name} cannot be called for environments {targets}; expected all of "
                "them, and a VectorEnv that has call(). Call it on the VectorEnv itself."
            )
        return [results[index] for index in targets]

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """:return: whether the single environments are, as far as they are in this process"""
        envs = getattr(self.env.unwrapped, "envs", None)
        targets = self._get_indices(indices)
        return [envs is not None and is_wrapped(envs[index], wrapper_class) for index in targets]


def _check_env(env: VectorEnv[Any, Any, Any]) -> None:
    if not isinstance(env, VectorEnv):
        raise ValueError(
            f"env={env} is not a VectorEnv of gymnasium; expected what gym.make_vec returns. A "
            "single environment needs no adapter: DIAYNWrapper(env)."
        )
    mode = env.metadata.get("autoreset_mode")
    if mode not in (AutoresetMode.SAME_STEP, AutoresetMode.DISABLED):
        raise ValueError(
            f"autoreset_mode={mode} gives the first observation of an episode a step late; "
            "expected AutoresetMode.SAME_STEP or DISABLED. Make the environments with "
            'gym.make_vec(id, num_envs, "async", vector_kwargs={"autoreset_mode": '
            "AutoresetMode.SAME_STEP}), or give a simulator of your own such a mode."
        )
