"""Environments whose action is a skill: stock SB3 learns the controller of a hierarchy on them."""

from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_diayn.model_zip import model_n_skills
from sb3_diayn.observations import channels_first, map_obs
from sb3_diayn.skills import SkillSpace, check_skill

__all__ = ["SkillActionEnv", "SkillActionVecEnv", "WaitAtEnd"]


Array = npt.NDArray[Any]


class SkillActionEnv(gym.Wrapper[Any, Any, Any, Any]):
    """
    Runs a chosen skill for ``steps_per_skill`` steps as one step (section 4.2.2 of Eysenbach et
    al., 2019). The observation is the environment's own, the action the index of the skill.

    The reward is the sum of gamma^i r_i over the steps i = 0, 1, ... of the skill. A skill stops
    early where the episode ends. ``info`` is that of the last step and has ``skill``,
    ``primitive_steps`` (how many there were: fewer than ``steps_per_skill`` at an early end) and
    ``task_reward`` (the undiscounted sum).

    .. note::
        For a discount of g per step of the environment, pass ``gamma=g`` here and
        ``gamma=g**steps_per_skill`` to the controller: together they are the discounted return of
        the environment, exactly so but for a time limit within a skill, whose bootstrap value SB3
        discounts as if the skill had run to its end.

    :param env: an environment without ``DIAYNWrapper``
    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip;
        it is played, never changed
    :param steps_per_skill: steps of the environment per step of this one, k
    :param gamma: discount of the rewards within a skill, per step of the environment
    :param deterministic: play the mode of the skills' policy instead of samples
    :param vec_normalize: the statistics of a model trained under ``VecNormalize``; None for those
        of the model's own environment, if it has one. A zip does not hold them: a loaded model
        needs ``VecNormalize.load("vecnormalize.pkl", venv)`` here
    :raises ValueError: if the model has no skills, the spaces do not fit or a number is out of
        range
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
    ) -> None:
        super().__init__(env)
        self.steps_per_skill, self.gamma = _check_steps(steps_per_skill), _check_gamma(gamma)
        self._skills = _FrozenSkills(model, env, deterministic, vec_normalize)
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
        self._obs, info = self.env.reset(seed=seed, options=options)
        self._starts = np.ones(1, dtype=bool)
        return self._obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        :param action: index of a skill
        :return: what became of running it, see the class
        :raises ValueError: if there is no such skill
        """
        skill = check_skill(action, self.n_skills)
        reward = task_reward = 0.0
        for steps in range(self.steps_per_skill):
            obs = map_obs(lambda part: np.asarray(part)[None], self._obs)
            low_level = self._skills.act(obs, np.array([skill]), self._starts)[0]
            self._obs, step_reward, terminated, truncated, info = self.env.step(low_level)
            self._starts[:] = False
            reward += self.gamma**steps * float(step_reward)
            task_reward += float(step_reward)
            if terminated or truncated:
                break
        info = {**info, "primitive_steps": steps + 1}
        info |= {"skill": skill, "task_reward": task_reward}
        return self._obs, reward, terminated, truncated, info


class WaitAtEnd(gym.Wrapper[Any, Any, Any, Any]):
    """
    One environment among those of a :class:`SkillActionVecEnv`, which step together.

    An episode that ends within a skill waits for the others: the environment is not stepped any
    more, rewards are 0, and the end is reported when the skill is over. So the ``VecEnv`` resets
    at that moment, and no step of the next episode is played by a skill chosen for this one.
    ``info`` of the last step of a skill has ``primitive_steps``, without those of waiting.

    :param env: an environment without ``DIAYNWrapper``
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        super().__init__(env)
        self._steps_per_skill = 1
        self._begin_skill()

    def set_steps_per_skill(self, steps_per_skill: int) -> None:
        """:param steps_per_skill: steps after which the others are through"""
        self._steps_per_skill = steps_per_skill

    def _begin_skill(self) -> None:
        self._clock, self._primitive_steps = 0, 0
        self._end: tuple[Any, bool, bool, dict[str, Any]] | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: of the environment
        :param options: of the environment
        :return: its observation and ``info``
        """
        self._begin_skill()
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """
        :param action: of the environment; without effect while it waits
        :return: as any environment, the end of an episode not before that of the skill
        """
        if self._end is not None:
            obs, terminated, truncated, info = self._end
            reward = 0.0
        else:
            obs, given, terminated, truncated, info = self.env.step(action)
            reward = float(given)
            self._primitive_steps += 1
            if terminated or truncated:
                self._end = obs, terminated, truncated, info
        self._clock += 1
        if self._clock < self._steps_per_skill:
            return obs, reward, False, False, {}
        info = {**info, "primitive_steps": self._primitive_steps}
        self._begin_skill()
        return obs, reward, terminated, truncated, info


class SkillActionVecEnv(VecEnvWrapper):
    """
    :class:`SkillActionEnv` for vectorised environments: one batch through the frozen policy per
    step, for all of them. ``make_vec_env(env_id, n_envs, wrapper_class=WaitAtEnd)`` makes what it
    takes. ``VecNormalize`` and ``VecMonitor`` of the controller belong outside.

    Environments step together. One that ends within a skill waits for the others, unstepped, and
    is reset when all are through (see :class:`WaitAtEnd`): ``terminal_observation``,
    ``TimeLimit.truncated`` and ``dones`` are those that SB3 expects of a step of this environment.

    :param venv: a ``DummyVecEnv`` or ``SubprocVecEnv``, with :class:`WaitAtEnd` around each
        environment and without ``DIAYNWrapper``
    :param model: as in :class:`SkillActionEnv`
    :param steps_per_skill: as in :class:`SkillActionEnv`
    :param gamma: as in :class:`SkillActionEnv`
    :param deterministic: as in :class:`SkillActionEnv`
    :param vec_normalize: as in :class:`SkillActionEnv`
    :raises ValueError: as :class:`SkillActionEnv` does, or if ``venv`` is not such a one
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
    ) -> None:
        if isinstance(venv, VecEnvWrapper) or not all(venv.env_is_wrapped(WaitAtEnd)):
            raise ValueError(
                f"venv={venv} cannot run skills side by side; expected plain vectorised "
                "environments with WaitAtEnd around each. Make them with make_vec_env(env_id, "
                "n_envs, wrapper_class=WaitAtEnd), and put VecNormalize or VecMonitor outside."
            )
        self.steps_per_skill, self.gamma = _check_steps(steps_per_skill), _check_gamma(gamma)
        self._skills = _FrozenSkills(model, venv, deterministic, vec_normalize)
        self.n_skills = self._skills.n_skills
        super().__init__(venv, action_space=spaces.Discrete(self.n_skills))
        venv.env_method("set_steps_per_skill", self.steps_per_skill)

    def reset(self) -> VecEnvObs:
        """:return: the environments' own observations"""
        self._obs = self.venv.reset()
        self._starts = np.ones(self.num_envs, dtype=bool)
        return self._obs

    def step_async(self, actions: Array) -> None:
        """
        :param actions: index of a skill for each environment, shape ``(n_envs,)``
        :raises ValueError: if there is no such skill
        """
        self._chosen = np.array([check_skill(skill, self.n_skills) for skill in actions])

    def step_wait(self) -> VecEnvStepReturn:
        """:return: what became of running the skills, see the class"""
        rewards, task_rewards = np.zeros((2, self.num_envs))
        for step in range(self.steps_per_skill):
            actions = self._skills.act(self._obs, self._chosen, self._starts)
            self._obs, step_rewards, dones, infos = self.venv.step(actions)
            self._starts = dones
            rewards += self.gamma**step * step_rewards
            task_rewards += step_rewards
        for info, skill, task_reward in zip(infos, self._chosen, task_rewards, strict=True):
            info |= {"skill": int(skill), "task_reward": float(task_reward)}
        return self._obs, rewards.astype(np.float32), dones, infos


class _FrozenSkills:
    """The policy of a model, asked for the actions of chosen skills."""

    def __init__(
        self,
        model: BaseAlgorithm,
        env: gym.Env[Any, Any] | VecEnv,
        deterministic: bool,
        vec_normalize: VecNormalize | None,
    ) -> None:
        self.n_skills = model_n_skills(model)
        self._space = SkillSpace(env.observation_space, self.n_skills)
        self._model, self._deterministic = model, deterministic
        self._normalizer = vec_normalize or model.get_vec_normalize_env()
        self._memory: Any = None  # of a recurrent policy
        self._check_spaces(env)

    def _check_spaces(self, env: gym.Env[Any, Any] | VecEnv) -> None:
        takes = {
            "observation_space": channels_first(self._space.observation_space),
            "action_space": env.action_space,
        }
        for name, given in takes.items():
            expected = getattr(self._model, name)
            if given != expected:
                raise ValueError(
                    f"env={env} does not fit the model, whose {name} is {expected}; expected an "
                    f"environment without DIAYNWrapper for which that is {given}, the one-hot of "
                    f"{self.n_skills} skills included. Make the environment that the skills were "
                    "learned in, with the same arguments."
                )

    def act(self, env_obs: Any, skills: Array, starts: npt.NDArray[np.bool_]) -> Array:
        """One batch: observations ``(n, d)``, skills and starts of episodes ``(n,)``."""
        obs: Any = self._space.append(env_obs, skills)
        if self._normalizer is not None:
            obs = self._normalizer.normalize_obs(obs)
        actions, self._memory = self._model.predict(obs, self._memory, starts, self._deterministic)
        return actions


def _check_steps(steps_per_skill: Any) -> int:
    is_integer = isinstance(steps_per_skill, Integral) and not isinstance(steps_per_skill, bool)
    if not is_integer or steps_per_skill < 1:
        raise ValueError(
            f"steps_per_skill={steps_per_skill!r} is not a number of steps; expected a positive "
            "integer. The paper used 10 for the half-cheetah and 100 for the ant."
        )
    return int(steps_per_skill)


def _check_gamma(gamma: Any) -> float:
    if not isinstance(gamma, (int, float)) or not 0 < gamma <= 1:
        raise ValueError(
            f"gamma={gamma!r} is not a discount; expected a number above 0 and at most 1. Leave "
            "it out to sum the rewards of a skill as they are."
        )
    return float(gamma)
