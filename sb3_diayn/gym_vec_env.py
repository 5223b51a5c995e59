"""Simulators that step many environments at once, as SB3's vectorised environments."""

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
    VectorWrapper,
)
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_diayn.observations import (
    Obs,
    as_float32,
    assign_obs,
    copy_obs,
    index_obs,
    map_obs,
)


class GymVecEnv(VecEnv):
    """
    A gymnasium ``VectorEnv`` as a ``VecEnv``. With :class:`VecDIAYNWrapper` around it, a simulator
    that steps many environments at once learns skills as DIAYN does
    (paper: https://arxiv.org/abs/1802.06070).

    SB3 wants the last observation of an episode and the first one of the next in the same step.
    gymnasium's default, ``NEXT_STEP``, gives the second one a step later and ignores an action in
    between, which must not be learned from. So the adapter resets ended episodes itself, at once,
    where that is possible: in gymnasium's ``SyncVectorEnv`` and ``AsyncVectorEnv``, in EnvPool
    (https://github.com/sail-sg/envpool), and in what has ``AutoresetMode.DISABLED``.

    Example::

        >>> import gymnasium as gym
        >>> from sb3_diayn import GymVecEnv, VecDIAYNWrapper
        >>> vector_env = gym.make_vec("CartPole-v1", num_envs=8, vectorization_mode="sync")
        >>> env = VecDIAYNWrapper(GymVecEnv(vector_env), n_skills=20)
        >>> env.reset().shape
        (8, 24)

    :param env: made by ``gym.make_vec`` or ``envpool.make_gymnasium``, or another one with
        ``AutoresetMode.SAME_STEP``, or ``DISABLED``: then ended episodes begin again by
        ``reset(options={"reset_mask": mask})``. Infos of JAX or torch arrays
        first go through ``gymnasium.wrappers.vector.JaxToNumpy`` or ``TorchToNumpy``. EnvPool has
        the seed that ``envpool.make_gymnasium`` got, whatever the model's seed is
    :param spec: of the same environment in gymnasium, from which evaluations during a training make
        copies; None for the one that the ``VectorEnv`` has
    :raises ValueError: if it is no ``VectorEnv``, cannot reset single episodes at their ends, or
        already has skills
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], spec: EnvSpec | None = None) -> None:
        _check_env(env)
        self.env, self._spec = env, spec
        self._listed: Any = DictInfoToList(_MaskedEnvPool(env) if _is_envpool(env) else env)
        self._resets_itself = env.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
        self._actions: npt.NDArray[Any] = np.zeros(0)
        # SB3's actions are float32, and gymnasium's environments expect that. EnvPool says float64.
        action_space = as_float32(env.single_action_space)
        super().__init__(env.num_envs, env.single_observation_space, action_space)

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
        return map_obs(np.array, obs)

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """:param actions: of all environments"""
        self._actions = actions

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as any ``VecEnv``"""
        obs, rewards, *ends, infos = self._listed.step(self._actions)
        terminated, truncated = (np.array(end, bool) for end in ends)
        obs, dones = map_obs(np.array, obs), terminated | truncated
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
                _check_final_obs(both)
                ended = both.pop("final_info", {})
                ended["terminal_observation"] = both.pop("final_obs")
                if "episode" in both:  # of RecordEpisodeStatistics: what SB3 logs
                    ended["episode"] = both.pop("episode")
                infos[index], self.reset_infos[index] = ended, both
            return obs
        first_obs, first_infos = self._listed.reset(options={"reset_mask": dones.copy()})
        first_obs = map_obs(np.array, first_obs)
        _check_others(index_obs(obs, ~dones), index_obs(first_obs, ~dones))
        for index in np.flatnonzero(dones):
            infos[index]["terminal_observation"] = index_obs(obs, index)
            self.reset_infos[index] = first_infos[index]
        return first_obs

    def close(self) -> None:
        """Close the environments."""
        self.env.close()

    def get_images(self) -> Sequence[npt.NDArray[Any] | None]:
        """:return: a frame of each environment"""
        frames: Any = self.env.render()
        return [None] * self.num_envs if frames is None else list(frames)

    def has_attr(self, attr_name: str) -> bool:
        """:return: whether :meth:`get_attr` knows it"""
        inner: Any = self.env.unwrapped
        if not isinstance(inner, (SyncVectorEnv, AsyncVectorEnv)):
            return super().has_attr(attr_name)
        # To ask for the value would call a method, and end a process that does not know it.
        return all(inner.call("has_wrapper_attr", attr_name))

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """:return: attributes of the single environments, or else of the vectorised one"""
        inner: Any = self.env.unwrapped
        if attr_name == "spec" and self._spec is not None:
            values = [self._spec] * self.num_envs
        elif isinstance(inner, AsyncVectorEnv) and not self.has_attr(attr_name):
            raise AttributeError(f"The environments have no attribute {attr_name!r}")
        elif hasattr(inner, "get_attr"):
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


class _MaskedEnvPool(VectorWrapper[Any, Any, Any, Any, Any]):
    """
    EnvPool with the resets of gymnasium's ``AutoresetMode.DISABLED``. It resets by index, and has
    had its seed since it was made.
    """

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        pool: Any = self.env
        if mask is None:
            self._obs, infos = pool.reset(options=options or None)
            return self._obs, _of_each(infos)
        indices = np.flatnonzero(mask).astype(np.int32)
        first_obs, first_infos = pool.reset(indices, options=options or None)
        obs = copy_obs(self._obs)
        assign_obs(obs, indices, first_obs)
        infos = {}
        for key, values in _of_each(first_infos).items():
            infos[key] = np.zeros((self.num_envs, *values.shape[1:]), values.dtype)
            infos[key][indices] = values
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        self._obs, rewards, terminated, truncated, infos = self.env.step(actions)
        return self._obs, rewards, terminated, truncated, _of_each(infos)


def _of_each(infos: dict[str, Any]) -> dict[str, Any]:
    """Without what EnvPool says of its own order."""
    return {key: value for key, value in infos.items() if key not in ("env_id", "players")}


def _is_envpool(env: VectorEnv[Any, Any, Any]) -> bool:
    return hasattr(env, "all_env_ids")


def _check_others(before: Obs, after: Obs) -> None:
    """A simulator that resets all its episodes, whatever the mask says, is not to be learned in."""

    def check(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> None:
        if not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            raise ValueError(
                'reset(options={"reset_mask": mask}) has changed observations outside of the mask; '
                "expected a reset of the ended episodes alone. Correct the VectorEnv, or give it "
                "AutoresetMode.SAME_STEP."
            )

    map_obs(check, before, after)


def _check_final_obs(info: dict[str, Any]) -> None:
    if "final_obs" not in info:
        raise ValueError(
            f"info={sorted(info)} has no 'final_obs' at the end of an episode; expected the last "
            "observation there, as gymnasium asks of AutoresetMode.SAME_STEP. Correct the "
            "VectorEnv."
        )


def _check_env(env: VectorEnv[Any, Any, Any]) -> None:
    if not isinstance(env, VectorEnv):
        raise ValueError(
            f"env={env} is not a VectorEnv of gymnasium; expected what gym.make_vec returns. A "
            "single environment needs no adapter: DIAYNWrapper(env)."
        )
    inner: Any = env.unwrapped
    is_of_single_envs = isinstance(inner, (SyncVectorEnv, AsyncVectorEnv))
    if _is_envpool(inner):
        _check_envpool(env)
        return
    mode = env.metadata.get("autoreset_mode")
    known = [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]
    if mode not in known + [AutoresetMode.NEXT_STEP] * is_of_single_envs:
        raise ValueError(
            f"autoreset_mode={mode} gives the first observation of an episode a step late, and "
            f"{type(inner).__name__} cannot reset single episodes before; expected "
            "AutoresetMode.SAME_STEP or DISABLED. Use vectorization_mode='async' of gym.make_vec, "
            "or give the simulator such a mode, see examples/vectorized.py."
        )
    if mode != AutoresetMode.SAME_STEP:
        _check_wrappers(env)
    if is_of_single_envs and any(inner.call("has_wrapper_attr", "skill_rule")):
        raise ValueError(
            "env has a DIAYNWrapper around each of its environments, which cannot be reached "
            "through a VectorEnv; expected environments without skills. Leave DIAYNWrapper out, "
            "and put VecDIAYNWrapper outside: VecDIAYNWrapper(GymVecEnv(env), n_skills=20)."
        )


def _check_wrappers(env: Any) -> None:
    """Gymnasium's environments take the mask away before this wrapper looks for it."""
    while isinstance(env, VectorWrapper):
        if isinstance(env, RecordEpisodeStatistics):
            raise ValueError(
                "env has RecordEpisodeStatistics, which forgets all episodes when one of them is "
                "reset; expected AutoresetMode.SAME_STEP, or no such wrapper. Use SB3's "
                "VecMonitor(GymVecEnv(env))."
            )
        env = env.env


def _check_envpool(env: Any) -> None:
    if env is not env.unwrapped:
        raise ValueError(
            f"env={type(env).__name__} wraps EnvPool, and would not know of its resets; expected "
            "what envpool.make_gymnasium returns. Put wrappers of SB3 around VecDIAYNWrapper."
        )
    config = env.config
    for name, expected in (("batch_size", env.num_envs), ("max_num_players", 1)):
        if config.get(name, expected) not in (expected, 0):
            raise ValueError(
                f"{name}={config[name]} of EnvPool with num_envs={env.num_envs}; expected "
                f"{expected}: SB3 steps all environments at once. Leave {name} out."
            )
