"""The environment of a policy conditioned on a skill."""

import copy
import pickle
import random
import warnings
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs
from gymnasium.utils.env_checker import data_equivalence
from stable_baselines3.common.env_util import is_wrapped

from sb3_diayn.observations import Obs, check_structure, copy_obs, float_keys, has_numbers
from sb3_diayn.rewards import RewardOfOne, SkillReward
from sb3_diayn.skills import SkillSampler, SkillSpace, check_duration, probabilities

# An episode without end must not fill the memory.
MAX_RECORD_BYTES = 8_000_000
# This number of resets with one and the same seed is no coincidence.
MAX_SAME_SEEDS = 3
IMMUTABLE = (int, float, str, bytes, np.generic, type(None))


class DIAYNWrapper(gym.Wrapper[Obs, Any, Any, Any], RecordConstructorArgs):
    """
    Draws a skill, adds its one-hot to the observation and replaces the reward.

    The skill is drawn at each reset and held for the episode. The draws come from a generator of
    the wrapper's own, which the seed of its ``reset`` seeds: they do not depend on what the
    environment does with its generator. The reward is the environment's own until
    ``DIAYNCallback`` attaches a discriminator: that is what playing and evaluating want. ``info``
    of each step holds ``skill`` (the one that acted), ``task_reward`` (the environment's own) and,
    with a discriminator, ``skill_reward`` (nats). The inner environment and its spaces stay as they
    are.
    Paper: https://arxiv.org/abs/1802.06070

    .. warning::
        Give the training environments no fixed ``skill``, and pass ``DIAYNCallback()`` to
        ``learn``: without it the model learns the task, not skills.

    Example::

        >>> import gymnasium as gym
        >>> from sb3_diayn import DIAYNWrapper
        >>> env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
        >>> env.observation_space.shape  # three numbers of the pendulum and the one-hot
        (7,)
        >>> obs, info = env.reset(seed=0, options={"skill": 2})
        >>> obs[3:]
        array([0., 0., 1., 0.], dtype=float32)
        >>> info["skill"]
        2

    :param env: an environment whose observation is a ``Box``, ``Discrete``, ``MultiDiscrete``,
        ``MultiBinary`` or a ``Dict`` of these; what the policy then sees is described at
        :class:`~sb3_diayn.skills.SkillSpace`
    :param n_skills: the number of skills, K
    :param skill: the standing rule: an index for always that skill, ``"uniform"`` for independent
        draws, ``"balanced"`` for shuffled rounds over all skills (the same marginal distribution,
        every skill seen soon), ``"cycle"`` for 0, 1, 2, ... in turn. With these two, environments
        that train one model play different skills at a time, as far as their episodes are equally
        long. ``"stratified"`` for the same skill always, a different one in each of K
        environments: then each skill has the same share of the steps. See
        :class:`~sb3_diayn.skills.SkillSampler`. The environment variable ``DIAYN_SKILL``
        overrides the rule: that reaches tools that cannot pass arguments, such as the zoo's
        ``enjoy``. ``reset(options={"skill": 3})`` overrides both once.
    :param skill_duration: steps of an episode after which a new skill is drawn, as in URLB; None
        for one skill per episode
    :raises ValueError: if an argument does not fit or ``env`` already has a ``DIAYNWrapper``
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        n_skills: int = 20,
        *,
        skill: int | str = "uniform",
        skill_duration: int | None = None,
    ) -> None:
        if is_wrapped(env, DIAYNWrapper):
            raise ValueError(
                f"env={env} already has a DIAYNWrapper; expected an environment without skills. "
                "Wrap it once: two wrappers would append two skills."
            )
        RecordConstructorArgs.__init__(
            self, n_skills=n_skills, skill=skill, skill_duration=skill_duration
        )
        gym.Wrapper.__init__(self, env)
        self._env_space = env.observation_space
        self.skill_space = SkillSpace(self._env_space, n_skills)
        self.observation_space = self.skill_space.observation_space
        self.n_skills = self.skill_space.n_skills
        self._vector_shape = self._env_space.shape if self.skill_space.is_vector else None
        self._float_keys = float_keys(self.observation_space)
        self.env_id = getattr(env.unwrapped.spec, "id", None)
        self.skill_duration = check_duration(skill_duration)
        self._sampler = SkillSampler(self.n_skills, skill)
        self.skill = 0
        self._skill_reward: SkillReward | None = None
        self._reward_of_one: RewardOfOne | None = None
        self._task_reward_expected = False
        self._episode_steps = self.total_steps = 0
        self._task_return = 0.0
        self._seeds: list[int | None] = []
        self._record: EpisodeRecord | None = None
        self.last_obs: Obs = None

    def set_skill(self, skill: int | str) -> None:
        """
        Change the standing rule, from the next draw on; to an index from the next episode on.

        :param skill: see the class
        :raises ValueError: if it is neither a rule nor one of the skills
        """
        self._sampler.set_rule(skill)

    def join(self, index: int, seed: int) -> None:
        """
        Draw skills as one of several environments, from the next draw on.

        :param index: see :meth:`~sb3_diayn.skills.SkillSampler.join`
        :param seed: see :meth:`~sb3_diayn.skills.SkillSampler.join`
        """
        self._sampler.join(index, seed)

    def go_on(self, n_steps: int) -> None:
        """:param n_steps: see :meth:`~sb3_diayn.skills.SkillSampler.go_on`"""
        self._sampler.go_on(n_steps)

    @property
    def skill_rule(self) -> int | str:
        """:return: the standing rule, see the class"""
        return self._sampler.rule

    @property
    def stratum(self) -> int:
        """:return: the skill that the rule ``"stratified"`` draws"""
        return self._sampler.stratum

    def random_state(self) -> dict[str, Any]:
        """:return: what the next skills and the environment's own draws depend on"""
        return {"sampler": self._sampler.state(), "generator": generator_state(self)}

    def set_random_state(self, state: dict[str, Any]) -> None:
        """:param state: from :meth:`random_state`"""
        self._sampler.restore(state["sampler"])
        if state["generator"] is not None:
            set_generator_state(self, state["generator"])

    @property
    def env_action_space(self) -> spaces.Space[Any]:
        """:return: the space of the actions that arrive here, whatever a wrapper outside does"""
        return self.action_space

    def set_skill_reward(self, skill_reward: SkillReward | None) -> None:
        """
        :param skill_reward: what replaces the reward from now on (shared, not copied), or None to
            say that the environment's own reward is wanted, as an evaluation does
        """
        self._skill_reward = skill_reward
        self._task_reward_expected = skill_reward is None
        if skill_reward is not None:
            self._reward_of_one = skill_reward.of_one()
            self._sampler.p = probabilities(skill_reward.discriminator.log_p.cpu().numpy())

    def load_skill_reward(self, pickled: bytes) -> None:
        """
        :meth:`set_skill_reward` across processes. Plain bytes, since torch would otherwise move
        the parameters to shared memory, where they would change within a rollout.

        :param pickled: a pickled :class:`~sb3_diayn.rewards.SkillReward`, on the CPU
        """
        th.set_num_threads(1)  # this process steps one environment; more threads only contend
        self.set_skill_reward(pickle.loads(pickled))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """
        :param seed: seed of the environment, and with it of the skills
        :param options: ``{"skill": 3}`` plays that skill for one episode; the rest is for the
            environment
        :return: the observation with the skill, and ``info`` with the key ``skill``
        """
        self._warn_of_same_seeds(seed, options)
        self._record = EpisodeRecord(
            generator_state(self), seed, copy.deepcopy(options), self._sampler.state()
        )
        rest = {key: value for key, value in (options or {}).items() if key != "skill"}
        obs, info = reset_env(self.env, seed, rest)
        if seed is not None:
            self._sampler.seed(seed)
        self.skill = self._sampler.draw(options)
        self._episode_steps, self._task_return = 0, 0.0
        self._check_info(info)
        self.last_obs = self._augment(obs)
        # A wrapper outside may write into what it gets, and the callback would not notice.
        return copy_obs(self.last_obs), {**info, "skill": self.skill}

    def step(
        self, action: npt.NDArray[Any]
    ) -> tuple[Obs, SupportsFloat, bool, bool, dict[str, Any]]:
        """
        :param action: an action of the environment
        :return: as any environment; ``info`` as described in the class
        :raises ValueError: if the action or the observation is not finite
        """
        self._check_action(action)
        # The environment may write into what it gets, and the array belongs to the model.
        given = action.copy() if isinstance(action, np.ndarray) else action
        if self._record is not None:
            self._record.add(action)
        env_obs, task_reward, terminated, truncated, info = self.env.step(given)
        self._episode_steps += 1
        self.total_steps += 1
        obs = self._augment(env_obs)
        # A VecEnv copies ``info`` after the reset, which may write into the environment's arrays.
        self._check_info(info)
        last_info = copy_obs(info) if terminated or truncated else info
        info = _Info(last_info, skill=self.skill, task_reward=self._as_number(task_reward))
        self._task_return += info["task_reward"]
        reward = self._reward(obs, action, info)
        if terminated or truncated:
            # VecNormalize clips ``terminal_observation``; the discriminator reads the raw one.
            info["terminal_env_obs"] = self.skill_space.env_obs(obs)
        elif self.skill_duration and self._episode_steps % self.skill_duration == 0:
            # ``info["skill"]`` keeps the skill that acted, the next action belongs to the new one.
            self.skill = self._sampler.redraw(self.skill)
            obs = self.skill_space.append(self.skill_space.env_obs(obs), self.skill)
        self.last_obs = obs
        return copy_obs(obs), reward, terminated, truncated, info

    def episode_state(self) -> dict[str, Any] | None:
        """
        :return: what :meth:`restore_episode` needs to come back to this moment, from plain values;
            None before the first reset, in an episode whose actions take more than 8 MB, and where
            the environment's generator is of a kind whose state nobody knows
        """
        now = generator_state(self)
        record = None if self._record is None else self._record.state()
        if record is None or now is None:
            return None
        moment = {"generator": now, "observation": self.last_obs, "sampler": self._sampler.state()}
        return {"record": record, "now": {**moment, "task_return": self._task_return}}

    def restore_episode(self, state: dict[str, Any]) -> bool:
        """
        Play the episode of that moment again, with the same random numbers and actions.

        :param state: from :meth:`episode_state`, of an environment like this one
        :return: whether that led to the same observation, task return and random state. If not,
            reset the environment: it depends on more than its ``np_random`` and the actions, or
            version 0.1.0, which drew the skills otherwise, has saved the episode
        """
        if "sampler" not in state["now"]:
            return False
        record, now = state["record"], state["now"]
        set_generator_state(self, record["generator"])
        self._sampler.restore(record["sampler"])
        self.reset(seed=record["seed"], options=record["options"])
        over = False
        for action in record["actions"]:
            if over:
                return False
            _, _, terminated, truncated, _ = self.step(action)
            over = terminated or truncated
        self._sampler.restore(now["sampler"])
        same_observation = data_equivalence(self.last_obs, now["observation"], exact=True)
        same_return = now.get("task_return", self._task_return) == self._task_return
        same_generator = data_equivalence(generator_state(self), now["generator"])
        return same_observation and same_return and same_generator

    def _reward(self, obs: Obs, action: npt.NDArray[Any], info: dict[str, Any]) -> float:
        task_reward: float = info["task_reward"]
        if self._skill_reward is None or self._reward_of_one is None:
            self._warn_once()
            return task_reward
        env_obs = self.skill_space.env_obs(obs)
        before = self.skill_space.env_obs(self.last_obs)
        info["skill_reward"] = self._reward_of_one(env_obs, self.skill, action, before)
        return float(self._skill_reward.mix(info["skill_reward"], task_reward))

    def _warn_once(self) -> None:
        if not self._task_reward_expected and not isinstance(self.skill_rule, int):
            self._task_reward_expected = True
            warn_of_task_reward("DIAYNWrapper")

    def _warn_of_same_seeds(self, seed: int | None, options: dict[str, Any] | None) -> None:
        """A wrapper outside that fixes the seed of each episode fixes its skill."""
        is_drawn = not isinstance(self.skill_rule, int) and "skill" not in (options or {})
        if self._skill_reward is None or seed is None or not is_drawn:
            self._seeds = []
            return
        self._seeds = [*self._seeds, seed] if seed in self._seeds[-1:] else [seed]
        if len(self._seeds) == MAX_SAME_SEEDS:
            warnings.warn(
                f"seed={seed} came with {MAX_SAME_SEEDS} resets in a row, and so the same skill "
                "was drawn each time; expected no seed, or another one. Put the wrapper that "
                "fixes the seed inside DIAYNWrapper.",
                stacklevel=3,
            )

    def _check_action(self, action: npt.NDArray[Any]) -> None:
        if isinstance(self.action_space, spaces.Box) and not np.isfinite(action).all():
            raise bad_action(action, self._moment())

    def _augment(self, env_obs: Obs) -> Obs:
        """With the skill, in new arrays: an environment may return the same one each time."""
        shape = self._vector_shape  # in the usual case this costs nothing
        if shape is None or getattr(env_obs, "shape", None) != shape or not has_numbers(env_obs):
            check_structure(env_obs, self._env_space, self._moment)
        if self.skill_space.is_vector:
            obs = self.skill_space.append(env_obs, self.skill)
            self._check_finite(obs, "observation")
            return obs
        if isinstance(self._env_space, spaces.Dict):
            env_obs = {key: env_obs[key] for key in self._env_space.spaces}
        obs = self.skill_space.append(copy_obs(env_obs), self.skill)
        for key in self._float_keys:
            self._check_finite(obs[key], f"observation[{key!r}]")
        return obs

    def _check_info(self, info: Any) -> None:
        if not isinstance(info, dict):
            raise ValueError(
                f"info={info!r} at {self._moment()} is no dict; expected one, which may be empty. "
                "Return it from reset() and step() of the environment."
            )

    def _as_number(self, task_reward: SupportsFloat) -> float:
        try:
            return float(task_reward)
        except (TypeError, ValueError):
            raise ValueError(
                f"reward={task_reward!r} at {self._moment()} is no number; expected a float. "
                "Return one from step() of the environment: float(reward)."
            ) from None

    def _check_finite(self, part: npt.NDArray[Any], name: str) -> None:
        if not np.isfinite(part).all():
            raise bad_observation(part, name, self._moment())

    def _moment(self) -> str:
        return moment(self._episode_steps, self.total_steps, self.skill)


class EpisodeRecord:
    """
    The random state before an episode's reset, the arguments of the reset and all actions since.
    A simulator that draws its random numbers from ``np_random`` then comes back to the bit, without
    having to give away its state.

    The actions are kept as bytes, up to ``MAX_RECORD_BYTES``: a list of arrays would take 240 bytes
    for three numbers.

    :param generator: state of the environment's generator before the reset
    :param seed: that the reset got
    :param options: that the reset got
    :param sampler: state of the skills' generator before the reset
    """

    def __init__(
        self,
        generator: Any,
        seed: int | None,
        options: dict[str, Any] | None,
        sampler: dict[str, Any],
    ) -> None:
        self._reset = {
            "generator": generator,
            "seed": seed,
            "options": options,
            "sampler": sampler,
        }
        self._actions: bytearray | None = bytearray()  # None if there were too many
        self._kind: tuple[Any, tuple[int, ...]] | None = None

    def add(self, action: Any) -> None:
        """:param action: that the environment got; copied"""
        if self._actions is None:
            return
        row = np.asarray(action)
        kind = (row.dtype, row.shape)
        self._kind = self._kind or kind
        is_full = len(self._actions) + row.nbytes > MAX_RECORD_BYTES
        if is_full or kind != self._kind or row.dtype.hasobject:
            self._actions = None
        else:
            self._actions += row.tobytes()

    def state(self) -> dict[str, Any] | None:
        """:return: all of it, by name; None if there were too many actions to keep"""
        if self._actions is None:
            return None
        dtype, shape = self._kind or (np.dtype(np.float32), ())
        actions = np.frombuffer(bytes(self._actions), dtype).reshape(-1, *shape)
        return {**self._reset, "actions": actions}


class _Info(dict[str, Any]):
    """``DummyVecEnv`` deep-copies each info: a tenth of a step of Hopper, for numbers alone."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Info":
        items = self.items()
        return _Info(
            (k, v if isinstance(v, IMMUTABLE) else copy.deepcopy(v, memo)) for k, v in items
        )


# -- environments in general -----------------------------------------------------------------


def reset_env(
    env: gym.Env[Any, Any], seed: int | None, options: dict[str, Any] | None
) -> tuple[Any, dict[str, Any]]:
    """
    Reset as SB3 does: without the argument ``options`` where there are none, since an environment
    need not take it.

    :param env: an environment
    :param seed: of the environment
    :param options: of the environment
    :return: what the environment returns
    """
    return env.reset(seed=seed, **({"options": options} if options else {}))


def generator_state(env: gym.Env[Any, Any]) -> Any:
    """
    :param env: an environment
    :return: the state of its ``np_random``, None if it is of an unknown kind
    """
    generator: Any = getattr(env, "np_random", None)
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state()
    return generator.getstate() if isinstance(generator, random.Random) else None


def set_generator_state(env: gym.Env[Any, Any], state: Any) -> None:
    """
    :param env: an environment with a generator of the same kind
    :param state: from :func:`generator_state`
    """
    generator: Any = env.np_random
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    else:
        generator.setstate(state)


# -- what is said when something is wrong ----------------------------------------------------


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
        "diverged: lower the learning_rate of the model, and resume from an earlier checkpoint."
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


def warn_of_task_reward(wrapper: str) -> None:
    """:param wrapper: name of the class that returns the environment's own reward"""
    warnings.warn(
        f"{wrapper} returns the environment's own reward, since no discriminator is "
        "attached. That is right for playing and evaluating; to learn skills, pass "
        "callback=DIAYNCallback() to learn().",
        stacklevel=4,
    )
