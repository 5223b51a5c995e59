"""Skills for vectorised environments as a whole."""

import copy
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices, VecEnvStepReturn

from sb3_diayn.observations import Obs, assign_obs, copy_obs, float_keys, index_obs, map_obs
from sb3_diayn.rewards import SkillReward
from sb3_diayn.skills import (
    SkillSampler,
    SkillSpace,
    check_duration,
    missing_last_obs,
    probabilities,
)
from sb3_diayn.wrappers import (
    DIAYNWrapper,
    bad_action,
    bad_observation,
    first_bad_row,
    moment,
    warn_of_task_reward,
)

CHECKED_ENDS = 5  # of episodes

# What is the same for all environments.
SHARED_ATTRIBUTES = (
    "n_skills",
    "skill_space",
    "skill_duration",
    "env_id",
    "env_action_space",
    "total_steps",
)


class VecDIAYNWrapper(VecEnvWrapper):
    """
    :class:`~sb3_diayn.wrappers.DIAYNWrapper` for a ``VecEnv`` as a whole: the same observations,
    rewards, infos and rules, with one call of the discriminator for all environments. It is for
    simulators that step many environments at once; around ``DummyVecEnv`` or ``SubprocVecEnv`` it
    works too, and spares worker processes a copy of the discriminator.

    To the rest of this package and of SB3 it answers as if each environment had a
    ``DIAYNWrapper``: ``env_is_wrapped(DIAYNWrapper)``, ``get_attr("n_skills")`` and
    ``env_method("set_skill", 3)``. Put ``VecNormalize``, ``VecFrameStack`` and ``VecMonitor``
    outside. ``set_options({"skill": 3})`` chooses the skills of the next ``reset``.

    The skills of environment i are those that ``DIAYNWrapper`` draws with the same seed.
    Paper: https://arxiv.org/abs/1802.06070

    .. warning::
        A simulator does not tell its state. So ``resume`` continues a checkpoint with new episodes
        and a warning, not bit for bit.

    Example::

        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> from sb3_diayn import VecDIAYNWrapper
        >>> venv = make_vec_env("CartPole-v1", n_envs=8)
        >>> env = VecDIAYNWrapper(venv, n_skills=3, skill="cycle")
        >>> env.reset().shape  # four numbers of the cart and the one-hot
        (8, 7)
        >>> env.env_method("set_skill", 2, indices=[0])
        [None]
        >>> env.reset()[0, 4:]
        array([0., 0., 1.], dtype=float32)

    :param venv: vectorised environments without skills, with ``terminal_observation`` in ``info``
        at the end of each episode as SB3 asks for
    :param n_skills: the number of skills, K
    :param skill: the standing rule, see :class:`~sb3_diayn.wrappers.DIAYNWrapper`
    :param skill_duration: steps of an episode after which a new skill is drawn; None for one skill
        per episode
    :raises ValueError: if an argument does not fit or ``venv`` has skills already
    """

    def __init__(
        self,
        venv: VecEnv,
        n_skills: int = 20,
        *,
        skill: int | str = "uniform",
        skill_duration: int | None = None,
    ) -> None:
        _check_venv(venv)
        self.skill_space = SkillSpace(venv.observation_space, n_skills)
        super().__init__(venv, self.skill_space.observation_space)
        self.n_skills = self.skill_space.n_skills
        self.skill_duration = check_duration(skill_duration)
        self._real_keys = float_keys(self.observation_space)
        n = self.num_envs
        self._samplers = [SkillSampler(self.n_skills, skill, index) for index in range(n)]
        seed = int(np.random.SeedSequence().generate_state(1)[0])
        for index, sampler in enumerate(self._samplers):
            sampler.join(index, seed)
        # ``make_vec_env`` has seeded its environments before a zoo's ``vec_env_wrapper`` is there.
        self._seeds = list(getattr(venv.unwrapped, "_seeds", self._seeds))
        self.skills = np.zeros(self.num_envs, np.int64)
        self._episode_steps = np.zeros(self.num_envs, np.int64)
        self.total_steps = 0
        self._last_obs: Obs = None
        self._actions: npt.NDArray[Any] = np.zeros(0)
        self._skill_reward: SkillReward | None = None
        self._task_reward_expected = False
        self._ends_to_check = CHECKED_ENDS

    @property
    def env_id(self) -> str | None:
        """:return: id of the environments, None if they are not registered"""
        spec = self.venv.get_attr("spec", [0])[0] if self.venv.has_attr("spec") else None
        return getattr(spec, "id", None)  # a simulator's own spec may have none

    @property
    def env_action_space(self) -> spaces.Space[Any]:
        """:return: the space of the actions that arrive here, whatever a wrapper outside does"""
        return self.action_space

    def set_skill(self, skill: int | str, indices: VecEnvIndices = None) -> None:
        """
        Change the standing rule, from the next draw on; to an index from the next episode on.

        :param skill: see the class
        :param indices: of the environments; None for all
        :raises ValueError: if it is neither a rule nor one of the skills
        """
        for index in self._get_indices(indices):
            self._samplers[index].set_rule(skill)

    def set_skill_reward(self, skill_reward: SkillReward | None) -> None:
        """:param skill_reward: see :meth:`DIAYNWrapper.set_skill_reward`; of all environments"""
        self._skill_reward = skill_reward
        self._task_reward_expected = skill_reward is None
        if skill_reward is not None:
            p = probabilities(skill_reward.discriminator.log_p.cpu().numpy())
            for sampler in self._samplers:
                sampler.p = p

    # -- episodes ----------------------------------------------------------------------------

    def seed(self, seed: int | None = None) -> Any:
        """
        :param seed: of the first environment, counted up from there; None for a random one
        :return: what the environments answer
        """
        seeds = VecEnv.seed(self, seed)  # simulators answer in ways of their own
        return self.venv.seed(seeds[0])

    def set_options(self, options: list[dict[str, Any]] | dict[str, Any] | None = None) -> None:
        """
        :param options: of the next ``reset``, for all environments or one for each; ``"skill"``
            chooses the skill, the rest is for the environments
        """
        VecEnv.set_options(self, options)
        inner = [{k: v for k, v in one.items() if k != "skill"} for one in self._options]
        self.venv.set_options(inner)

    def reset(self) -> Obs:
        """:return: the observations with the skills"""
        env_obs = self.venv.reset()
        for sampler, seed in zip(self._samplers, self._seeds, strict=True):
            if seed is not None:
                sampler.seed(seed)
        self._begin(range(self.num_envs))
        self._reset_seeds()
        self._reset_options()
        self._last_obs = self._augment(env_obs)
        # A wrapper outside may write into what it gets, and the callback would not notice.
        return copy_obs(self._last_obs)

    def _begin(self, indices: Any) -> None:
        """Draw the skills of new episodes."""
        self._episode_steps[indices] = 0
        inner_infos = getattr(self.venv, "reset_infos", self.reset_infos)
        for index in indices:
            skill = self._samplers[index].draw(self._options[index])
            self.skills[index] = skill
            self.reset_infos[index] = {**inner_infos[index], "skill": skill}

    def step_async(self, actions: npt.NDArray[Any]) -> None:
        """
        :param actions: of all environments
        :raises ValueError: if an action is not finite
        """
        if isinstance(self.action_space, spaces.Box):
            row = first_bad_row(actions)
            if row is not None:
                raise bad_action(actions[row], self._moment(row))
        # A simulator may write into what it gets, and the array belongs to the model.
        self._actions = np.array(actions)
        self.venv.step_async(np.array(actions))

    def step_wait(self) -> VecEnvStepReturn:
        """
        :return: as any ``VecEnv``; ``infos`` as described at ``DIAYNWrapper``
        :raises ValueError: if an observation is not finite
        """
        env_obs, task_rewards, dones, infos = self.venv.step_wait()
        self._episode_steps += 1
        self.total_steps += 1
        ends = np.flatnonzero(dones)
        if self._ends_to_check > 0:
            self._check_last(env_obs, ends, infos)
        last_obs = self._augment(_before_resets(env_obs, ends, infos))
        infos = self._described(infos, task_rewards)
        rewards = self._rewards(last_obs, task_rewards, infos)
        for index in ends:
            last = index_obs(last_obs, index)
            # VecNormalize clips ``terminal_observation``; the discriminator reads the raw one.
            raw = copy_obs(self.skill_space.env_obs(last))
            infos[index] |= {"terminal_observation": last, "terminal_env_obs": raw}
        self._last_obs = self._augment(env_obs) if self._draw(ends) else last_obs
        return copy_obs(self._last_obs), rewards, dones, infos

    def _check_last(
        self, env_obs: Obs, ends: npt.NDArray[np.int64], infos: list[dict[str, Any]]
    ) -> None:
        """
        ``DummyVecEnv`` and its like keep the last observation of an episode by reference. An
        environment that returns the same array in each step overwrites it at its reset.
        """
        before = self.skill_space.env_obs(self._last_obs)
        for index in ends:
            first, last = index_obs(env_obs, index), infos[index].get("terminal_observation")
            if last is not None:  # of the environment's own type
                last = map_obs(lambda a, b: np.asarray(b).astype(a.dtype)[()], first, last)
            if last is None or not data_equivalence(first, last, exact=True):
                self._ends_to_check = 0
                return
            if not data_equivalence(first, index_obs(before, index), exact=True):  # it does change
                self._ends_to_check -= 1
        if self._ends_to_check <= 0:
            warnings.warn(
                "The last observations of the first episodes are the very ones that the next "
                "episodes begin with. If the environment returns the same array in each step, they "
                "are lost, and the discriminator learns from wrong ones. Return a copy of the "
                "array, or put DIAYNWrapper around each environment.",
                stacklevel=3,
            )

    def _described(
        self, infos: list[dict[str, Any]], task_rewards: npt.NDArray[Any]
    ) -> list[dict[str, Any]]:
        """Each info with the skill that acted; the dicts of the environments stay as they are."""
        rows = zip(infos, self.skills.tolist(), task_rewards.tolist(), strict=True)
        return [{**info, "skill": skill, "task_reward": reward} for info, skill, reward in rows]

    def _rewards(
        self, last_obs: Obs, task_rewards: npt.NDArray[Any], infos: list[dict[str, Any]]
    ) -> npt.NDArray[Any]:
        if self._skill_reward is None:
            self._warn_once()
            return task_rewards
        env_obs = self.skill_space.env_obs(last_obs)
        before = self.skill_space.env_obs(self._last_obs)
        skill_rewards = self._skill_reward.batch(env_obs, self.skills, self._actions, before)
        for info, reward in zip(infos, skill_rewards.tolist(), strict=True):
            info["skill_reward"] = reward
        mixed: npt.NDArray[Any] = self._skill_reward.mix(skill_rewards, task_rewards)
        return mixed

    def _draw(self, ends: npt.NDArray[np.int64]) -> bool:
        """The skills of the next actions, and whether any of them is a new draw."""
        over = np.zeros(self.num_envs, bool)
        if self.skill_duration:
            over = self._episode_steps % self.skill_duration == 0
            over[ends] = False
        for index in np.flatnonzero(over):
            self.skills[index] = self._samplers[index].redraw(int(self.skills[index]))
        self._begin(ends)
        return bool(len(ends) or over.any())

    def _warn_once(self) -> None:
        is_fixed = all(isinstance(sampler.rule, int) for sampler in self._samplers)
        if not self._task_reward_expected and not is_fixed:
            self._task_reward_expected = True
            warn_of_task_reward("VecDIAYNWrapper")

    def _augment(self, env_obs: Obs) -> Obs:
        """With the skills, in new arrays: a simulator may return the same ones each time."""
        is_vector = self.skill_space.is_vector  # appending makes a new one
        obs = self.skill_space.append(env_obs if is_vector else copy_obs(env_obs), self.skills)
        named = {f"observation[{key!r}]": obs[key] for key in self._real_keys}
        for name, part in (named if isinstance(obs, dict) else {"observation": obs}).items():
            row = first_bad_row(part)
            if row is not None:
                raise bad_observation(part[row], name, self._moment(row))
        return obs

    def _moment(self, row: int) -> str:
        steps, skill = int(self._episode_steps[row]), int(self.skills[row])
        return moment(steps, self.total_steps, skill, f"environment {row}")

    # -- what others ask the environments for ------------------------------------------------

    def env_is_wrapped(
        self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: VecEnvIndices = None
    ) -> list[bool]:
        """:return: true for ``DIAYNWrapper``, otherwise what the environments answer"""
        if wrapper_class is DIAYNWrapper:
            return [True for _ in self._get_indices(indices)]
        return self.venv.env_is_wrapped(wrapper_class, indices=indices)

    def has_attr(self, attr_name: str) -> bool:
        """:return: whether :meth:`get_attr` knows it"""
        own = attr_name in SHARED_ATTRIBUTES or attr_name in OWN_ATTRIBUTES
        return own or self.venv.has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """:return: attributes of ``DIAYNWrapper``, or else of the environments"""
        if attr_name in SHARED_ATTRIBUTES:
            value = getattr(self, attr_name)
            return [value for _ in self._get_indices(indices)]
        if attr_name in OWN_ATTRIBUTES:
            get = OWN_ATTRIBUTES[attr_name]
            return [get(self, index) for index in self._get_indices(indices)]
        return self.venv.get_attr(attr_name, indices)

    def env_method(
        self, method_name: str, *method_args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """
        Call a method of ``DIAYNWrapper``, or else of the environments. All environments have the
        same skill reward, whatever ``indices`` are.
        """
        if method_name == "random_state":
            return self._random_states(self._get_indices(indices))
        if method_name == "set_random_state":
            self._set_random_state(method_args[0], self._get_indices(indices))
        elif method_name == "go_on":
            for index in self._get_indices(indices):
                self._samplers[index].go_on(*method_args)
        elif method_name == "set_skill":
            self.set_skill(*method_args, **kwargs, indices=indices)  # type: ignore[misc]
        elif method_name == "set_skill_reward":
            self.set_skill_reward(*method_args, **kwargs)
        # Nobody knows the state of a simulator, and the environments have joined already.
        elif method_name not in ("episode_state", "join"):
            return self.venv.env_method(method_name, *method_args, indices=indices, **kwargs)
        return [None for _ in self._get_indices(indices)]

    def _random_states(self, indices: Any) -> list[dict[str, Any]]:
        """As ``DIAYNWrapper`` has them, the environments' own generators where they have some."""
        states: list[dict[str, Any]] = [{"sampler": self._samplers[i].state()} for i in indices]
        if self.venv.has_attr("np_random"):
            generators = copy.deepcopy(self.venv.get_attr("np_random", indices))
            for state, generator in zip(states, generators, strict=True):
                state["generator"] = generator
        return states

    def _set_random_state(self, state: dict[str, Any], indices: Any) -> None:
        for index in indices:
            self._samplers[index].restore(state["sampler"])
        if "generator" in state:
            with suppress(AttributeError, NotImplementedError):  # nobody can set those
                self.venv.set_attr("np_random", state["generator"], indices)


def _check_venv(venv: VecEnv) -> None:
    if not isinstance(venv, VecEnv):
        raise ValueError(
            f"venv={venv} is not vectorised; expected a VecEnv of SB3. Use DIAYNWrapper for a "
            "single environment, and GymVecEnv(env) around a gymnasium VectorEnv."
        )
    if unwrap_vec_normalize(venv) is not None:
        raise ValueError(
            f"venv={venv} has VecNormalize, and a discriminator reads raw observations; expected "
            "it outside. Use VecNormalize(VecDIAYNWrapper(venv), norm_reward=False)."
        )
    if any(venv.env_is_wrapped(DIAYNWrapper)):
        raise ValueError(
            f"venv={venv} already has a DIAYNWrapper or VecDIAYNWrapper; expected environments "
            "without skills. Wrap them once: two wrappers would append two skills."
        )


# What each environment has of its own.
OWN_ATTRIBUTES: dict[str, Callable[[VecDIAYNWrapper, int], Any]] = {
    "skill": lambda env, index: int(env.skills[index]),
    "skill_rule": lambda env, index: env._samplers[index].rule,
    "stratum": lambda env, index: env._samplers[index].stratum,
    "last_obs": lambda env, index: (
        None if env._last_obs is None else index_obs(env._last_obs, index)
    ),
}


def _before_resets(env_obs: Obs, ends: npt.NDArray[np.int64], infos: list[dict[str, Any]]) -> Obs:
    """What the actions have led to, where new episodes have begun by themselves."""
    reached = copy_obs(env_obs) if len(ends) else env_obs
    for index in ends:
        last = infos[index].get("terminal_observation")
        if last is None:
            raise missing_last_obs(infos[index])
        assign_obs(reached, index, last)
    return reached
