"""
Hierarchies: environments whose action is a skill, on which stock SB3 learns a controller.

Section 4.2.2 of the paper, https://arxiv.org/abs/1802.06070.
"""

from numbers import Real
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import (
    VecEnvIndices,
    VecEnvObs,
    VecEnvStepReturn,
)

from sb3_diayn.arguments import check_positive
from sb3_diayn.evaluation.playing import SkillPolicy
from sb3_diayn.extractors import ObsIndices, resolve_selection, select_obs, select_space
from sb3_diayn.model_zip import model_n_skills
from sb3_diayn.observations import channels_first, copy_obs, map_obs
from sb3_diayn.skills import SkillSpace, check_skill
from sb3_diayn.wrappers import reset_env

__all__ = ["SkillActionEnv", "SkillActionVecEnv", "WaitAtEnd"]

Array = npt.NDArray[Any]


class SkillActionEnv(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    Runs a chosen skill for ``steps_per_skill`` steps as one step (section 4.2.2 of Eysenbach et
    al., 2019). The observation is the environment's own; the action is the index of the skill,
    ``Discrete(K)``.
    Paper: https://arxiv.org/abs/1802.06070

    The reward is the sum of gamma^i r_i over the steps i = 0, 1, ... of the skill. A skill stops
    early where the episode ends. ``info`` has the entries of the last step and ``skill``,
    ``primitive_steps`` (the number of steps, fewer than ``steps_per_skill`` at an early end) and
    ``task_reward`` (the undiscounted sum of rewards).

    .. note::
        For a discount of g per step of the environment, pass ``gamma=g`` here and
        ``gamma=g**steps_per_skill`` to the controller. Together they give the discounted return
        of the environment. The one exception is a time limit within a skill: SB3 discounts its
        bootstrap value as if the skill had run to its end.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper
        >>> from sb3_diayn.downstream import SkillActionEnv
        >>> env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
        >>> skills = PPO("MlpPolicy", env, n_steps=64).learn(64, callback=DIAYNCallback())
        >>> env = SkillActionEnv(gym.make("Pendulum-v1"), skills, steps_per_skill=10)
        >>> obs, info = env.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = env.step(3)
        >>> info["skill"], info["primitive_steps"]
        (3, 10)
        >>> controller = PPO("MlpPolicy", env, n_steps=16, batch_size=16).learn(16)

    :param env: an environment without ``DIAYNWrapper``
    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip;
        it acts and is never changed
    :param steps_per_skill: steps of the environment per step of this one, k
    :param gamma: discount of the rewards within a skill, per step of the environment
    :param deterministic: play the mode of the skills' policy instead of samples
    :param vec_normalize: the statistics of a model trained under ``VecNormalize``; None for the
        statistics of the model's own environment, if it has one. A zip does not hold them: a
        loaded model needs ``VecNormalize.load("vecnormalize.pkl", venv)`` here
    :param obs_indices: which part of the observation the skills were trained on, as
        :class:`~sb3_diayn.callbacks.DIAYNCallback` takes it; None for all of it. The controller
        sees everything, so it can know a place or a goal that the skills do not
    :raises ValueError: if the model has no skills, the spaces do not fit, a number is out of
        range, or the model was trained under ``VecNormalize`` and there is none
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        model: BaseAlgorithm,
        *,
        steps_per_skill: int = 10,
        gamma: float = 1.0,
        deterministic: bool = True,
        vec_normalize: VecNormalize | None = None,
        obs_indices: ObsIndices = None,
    ) -> None:
        RecordConstructorArgs.__init__(
            self,
            _disable_deepcopy=True,
            model=model,
            steps_per_skill=steps_per_skill,
            gamma=gamma,
            deterministic=deterministic,
            vec_normalize=vec_normalize,
            obs_indices=obs_indices,
        )
        self._saved_kwargs = _Shared(self._saved_kwargs)
        gym.Wrapper.__init__(self, env)
        self.steps_per_skill, self.gamma = _check_timing(steps_per_skill, gamma)
        self._skills = _FrozenSkills(model, env, deterministic, vec_normalize, obs_indices)
        self.n_skills = self._skills.n_skills
        self.action_space = spaces.Discrete(self.n_skills)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: of the environment
        :param options: of the environment
        :return: its observation and ``info``
        """
        obs, info = reset_env(self.env, seed, options)
        self._obs = copy_obs(obs)
        self._skills.begin(1)
        return copy_obs(obs), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        :param action: index of a skill
        :return: as in gymnasium; see the class for the reward and ``info``
        :raises ValueError: if there is no such skill
        """
        skill = check_skill(action, self.n_skills)
        reward = task_reward = 0.0
        for steps in range(self.steps_per_skill):
            batch = map_obs(lambda part: np.asarray(part)[None], self._obs)
            primitive_action = self._skills.act(batch, np.array([skill]))[0]
            obs, step_reward, terminated, truncated, info = self.env.step(primitive_action)
            self._obs = copy_obs(obs)  # the environment may write into its own
            reward += self.gamma**steps * float(step_reward)
            task_reward += float(step_reward)
            if terminated or truncated:
                break
        info = {
            **copy_obs(info),
            "skill": skill,
            "primitive_steps": steps + 1,
            "task_reward": task_reward,
        }
        return copy_obs(obs), reward, terminated, truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """:return: that each skill may be chosen; the skills keep to the environment's own masks"""
        return np.ones(self.n_skills, dtype=bool)


class SkillActionVecEnv(VecEnvWrapper):
    """
    :class:`SkillActionEnv` for vectorised environments: the frozen policy gets one batch with the
    observations of all of them. ``VecNormalize`` and ``VecMonitor`` of the controller belong
    outside.

    Environments step together. One whose episode ends within a skill waits for the others and is
    reset when all have finished the skill (see :class:`WaitAtEnd`). ``terminal_observation``,
    ``TimeLimit.truncated`` and ``dones`` are as SB3 expects them of one step.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import gymnasium as gym
        >>> import numpy as np
        >>> from stable_baselines3 import PPO
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper
        >>> from sb3_diayn.downstream import SkillActionVecEnv, WaitAtEnd
        >>> env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
        >>> skills = PPO("MlpPolicy", env, n_steps=64).learn(64, callback=DIAYNCallback())
        >>> venv = make_vec_env("Pendulum-v1", n_envs=2, wrapper_class=WaitAtEnd)
        >>> venv = SkillActionVecEnv(venv, skills, steps_per_skill=10)
        >>> obs = venv.reset()
        >>> obs, rewards, dones, infos = venv.step(np.array([0, 3]))
        >>> [info["skill"] for info in infos]
        [0, 3]

    :param venv: a ``DummyVecEnv`` or ``SubprocVecEnv``, with :class:`WaitAtEnd` around each
        environment and without ``DIAYNWrapper``
    :param model: as in :class:`SkillActionEnv`
    :param steps_per_skill: as in :class:`SkillActionEnv`
    :param gamma: as in :class:`SkillActionEnv`
    :param deterministic: as in :class:`SkillActionEnv`
    :param vec_normalize: as in :class:`SkillActionEnv`
    :param obs_indices: as in :class:`SkillActionEnv`
    :raises ValueError: as in :class:`SkillActionEnv`, or if ``venv`` has other wrappers
    """

    def __init__(
        self,
        venv: VecEnv,
        model: BaseAlgorithm,
        *,
        steps_per_skill: int = 10,
        gamma: float = 1.0,
        deterministic: bool = True,
        vec_normalize: VecNormalize | None = None,
        obs_indices: ObsIndices = None,
    ) -> None:
        if isinstance(venv, VecEnvWrapper) or not all(venv.env_is_wrapped(WaitAtEnd)):
            raise ValueError(
                f"venv={venv} cannot run skills in parallel; expected plain vectorised "
                "environments with WaitAtEnd around each. Make them with make_vec_env(env_id, "
                "n_envs, wrapper_class=WaitAtEnd), and put VecNormalize or VecMonitor outside."
            )
        self.steps_per_skill, self.gamma = _check_timing(steps_per_skill, gamma)
        self._skills = _FrozenSkills(model, venv, deterministic, vec_normalize, obs_indices)
        self.n_skills = self._skills.n_skills
        super().__init__(venv, action_space=spaces.Discrete(self.n_skills))
        venv.env_method("set_steps_per_skill", self.steps_per_skill)

    def reset(self) -> VecEnvObs:
        """:return: the environments' own observations"""
        obs = self.venv.reset()
        self._obs = copy_obs(obs)
        self._skills.begin(self.num_envs)
        return obs

    def step_async(self, actions: Array) -> None:
        """
        :param actions: index of a skill for each environment, shape ``(n_envs,)``
        :raises ValueError: if there is no such skill
        """
        self._current_skills = np.array([check_skill(skill, self.n_skills) for skill in actions])

    def step_wait(self) -> VecEnvStepReturn:
        """:return: as in SB3; see :class:`SkillActionEnv` for rewards and infos"""
        rewards, task_rewards = np.zeros((2, self.num_envs))
        for step in range(self.steps_per_skill):
            actions = self._skills.act(self._obs, self._current_skills)
            obs, step_rewards, dones, infos = self.venv.step(actions)
            self._obs = copy_obs(obs)
            self._skills.end_step(dones)
            rewards += self.gamma**step * step_rewards
            task_rewards += step_rewards
        rows = zip(infos, self._current_skills.tolist(), task_rewards.tolist(), strict=True)
        infos = [{**info, "skill": skill, "task_reward": reward} for info, skill, reward in rows]
        return obs, rewards.astype(np.float32), dones, infos

    def has_attr(self, attr_name: str) -> bool:
        """:return: true for ``action_masks``, otherwise what the environments answer"""
        return attr_name == "action_masks" or self.venv.has_attr(attr_name)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """:return: as in SB3; of ``action_masks`` that each skill may be chosen"""
        if method_name == "action_masks":
            return [np.ones(self.n_skills, dtype=bool) for _ in self._get_indices(indices)]
        return self.venv.env_method(method_name, *method_args, indices=indices, **kwargs)


class WaitAtEnd(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """
    Goes around each environment of a :class:`SkillActionVecEnv`, which steps all of them together.

    An episode that ends within a skill waits until the skill is over: the environment is not
    stepped, rewards are 0, and the end is reported with the last step of the skill. The
    ``VecEnv`` resets only then, so a skill chosen for one episode never acts in the next one.
    ``info`` of the last step of a skill has ``primitive_steps``, which does not count the waiting.

    Example::

        >>> import gymnasium as gym
        >>> from sb3_diayn.downstream import WaitAtEnd
        >>> env = WaitAtEnd(gym.make("Pendulum-v1", max_episode_steps=2))
        >>> env.set_steps_per_skill(3)
        >>> obs, info = env.reset(seed=0)
        >>> for _ in range(3):  # the third step waits
        ...     obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        ...     print(truncated)
        False
        False
        True
        >>> info["primitive_steps"]
        2

    :param env: an environment without ``DIAYNWrapper``
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.Wrapper.__init__(self, env)
        self._steps_per_skill = 1
        self._end: tuple[Any, bool, bool, dict[str, Any]] | None = None
        self._begin_skill()

    def set_steps_per_skill(self, steps_per_skill: int) -> None:
        """:param steps_per_skill: steps of each environment in one step of the vectorised ones"""
        self._steps_per_skill = steps_per_skill

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: of the environment
        :param options: of the environment
        :return: its observation and ``info``
        """
        self._begin_skill()
        return reset_env(self.env, seed, options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        :param action: of the environment; without effect while it waits
        :return: as in gymnasium; an episode ends with the last step of a skill
        """
        if self._end is not None:
            obs, terminated, truncated, info = self._end
            reward = 0.0
        else:
            obs, given, terminated, truncated, info = self.env.step(copy_obs(action))
            reward = float(given)
            self._primitive_steps += 1
            if terminated or truncated:
                # A VecEnv copies after the reset, which may write into the environment's arrays.
                obs, info = copy_obs(obs), copy_obs(info)
                self._end = obs, terminated, truncated, info
        self._skill_steps += 1
        if self._skill_steps < self._steps_per_skill:
            return obs, reward, False, False, {}
        info = {**info, "primitive_steps": self._primitive_steps}
        self._begin_skill()
        return obs, reward, terminated, truncated, info

    def _begin_skill(self) -> None:
        self._skill_steps, self._primitive_steps = 0, 0  # with and without waiting
        self._end = None


class _FrozenSkills:
    """The policy of a model, which gives the actions of chosen skills."""

    def __init__(
        self,
        model: BaseAlgorithm,
        env: gym.Env[Any, Any] | VecEnv,
        deterministic: bool,
        vec_normalize: VecNormalize | None,
        obs_indices: ObsIndices,
    ) -> None:
        self.n_skills = model_n_skills(model)
        self._selection = resolve_selection(obs_indices, env.observation_space)
        seen = select_space(env.observation_space, self._selection)
        self._space = SkillSpace(seen, self.n_skills)
        self._model, self._deterministic = model, deterministic
        self._check_spaces(env)
        self._policy = SkillPolicy(model, env, vec_normalize=vec_normalize)
        self.begin(1)

    def _check_spaces(self, env: gym.Env[Any, Any] | VecEnv) -> None:
        spaces_of_env = {
            "observation_space": channels_first(self._space.observation_space),
            "action_space": env.action_space,
        }
        for name, given in spaces_of_env.items():
            expected = getattr(self._model, name)
            if given != expected:
                raise ValueError(
                    f"env={env} does not fit the model, whose {name} is {expected}; expected an "
                    f"environment without DIAYNWrapper for which that is {given}, the one-hot of "
                    f"{self.n_skills} skills included. Make the environment that the skills were "
                    "learned in, with the same arguments. Where it has more than the skills saw, "
                    "choose their part with obs_indices."
                )

    def begin(self, n_envs: int) -> None:
        """All environments have been reset."""
        self._starts, self._state = np.ones(n_envs, dtype=bool), None

    def act(self, env_obs: Any, skills: Array) -> Array:
        """Actions for a batch: observations ``(n, d)`` and skills ``(n,)``."""
        obs = self._space.append(select_obs(env_obs, self._selection), skills)
        actions, self._state = self._policy.predict(
            obs, self._state, self._starts, self._deterministic
        )
        self._starts = np.zeros(len(skills), dtype=bool)
        return actions

    def end_step(self, dones: npt.NDArray[np.bool_]) -> None:
        """Episodes that are over have been reset."""
        self._starts = dones.copy()


class _Shared(dict[str, Any]):
    """Arguments in a spec, which gymnasium copies for each wrapper outside: but not the model."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Shared":
        return self


def _check_timing(steps_per_skill: Any, gamma: Any) -> tuple[int, float]:
    hint = "The paper used 10 for the half-cheetah and 100 for the ant."
    n_steps = check_positive("steps_per_skill", steps_per_skill, hint)
    if not isinstance(gamma, Real) or not 0 < float(gamma) <= 1:
        raise ValueError(
            f"gamma={gamma!r} is not a discount; expected a number above 0 and at most 1. Leave "
            "it out to sum the rewards of a skill without a discount."
        )
    return n_steps, float(gamma)
