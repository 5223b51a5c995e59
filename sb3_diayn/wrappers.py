"""The environment of a policy conditioned on a skill."""

import copy
import pickle
import warnings
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from stable_baselines3.common.env_util import is_wrapped

from sb3_diayn.observations import Obs, real_keys
from sb3_diayn.rewards import RewardOfOne, SkillReward
from sb3_diayn.skills import SkillDraw, SkillSpace, check_duration, probabilities


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


# An episode without end must not fill the memory.
MAX_RECORDED_STEPS = 100_000


@dataclass
class EpisodeRecord:
    """
    The random state before an episode's reset, the arguments of the reset and all actions since.
    A simulator that draws its random numbers from ``np_random`` then comes back to the bit, without
    having to give away its state.

    :param random_state: of the environment's generator, before the reset
    :param seed: that the reset got
    :param options: that the reset got
    :param p: p(z) of then, from which the skill was drawn
    :param round: what was left then of a round of skills
    :param actions: so far; None if there were too many to keep
    """

    random_state: dict[str, Any]
    seed: int | None
    options: dict[str, Any] | None
    p: npt.NDArray[np.float64]
    round: tuple[int, ...]
    actions: list[Any] | None = field(default_factory=list)

    def add(self, action: Any) -> None:
        """:param action: that the environment got; copied"""
        if self.actions is not None:
            self.actions.append(copy.copy(action))
            if len(self.actions) > MAX_RECORDED_STEPS:
                self.actions = None


def warn_of_task_reward(wrapper: str) -> None:
    """:param wrapper: name of the class that pays the environment's own reward"""
    warnings.warn(
        f"{wrapper} returns the environment's own reward, since no discriminator is "
        "attached. That is right for playing and evaluating; to learn skills, pass "
        "callback=DIAYNCallback() to learn().",
        stacklevel=4,
    )


_IMMUTABLE = (int, float, str, bytes, np.generic, type(None))


class _Info(dict[str, Any]):
    """``DummyVecEnv`` deep-copies each info: a tenth of a step of Hopper, for numbers alone."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Info":
        items = self.items()
        return _Info((k, v if isinstance(v, _IMMUTABLE) else deepcopy(v, memo)) for k, v in items)


class DIAYNWrapper(gym.Wrapper[Obs, Any, Any, Any]):
    """
    Draws a skill, adds its one-hot to the observation and replaces the reward.

    The skill is drawn at each reset from the environment's own seeded generator and held for the
    episode. The reward is the environment's own until ``DIAYNCallback`` attaches a discriminator:
    that is what playing and evaluating want. ``info`` of each step holds ``skill`` (the one that
    acted), ``task_reward`` (the environment's own) and, with a discriminator, ``skill_reward``
    (nats). The inner environment and its spaces stay as they are.
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
        every skill seen soon), ``"cycle"`` for 0, 1, 2, ... in turn. The environment variable
        ``DIAYN_SKILL`` overrides it: that reaches tools that cannot pass arguments, such as the
        zoo's ``enjoy``. ``reset(options={"skill": 3})`` overrides both once.
    :param skill_duration: draw a new skill every so many steps of an episode, as URLB does;
        None for one skill per episode
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
        super().__init__(env)
        self.skill_space = SkillSpace(env.observation_space, n_skills)
        self.observation_space = self.skill_space.observation_space
        self.n_skills = self.skill_space.n_skills
        self._real_keys = real_keys(self.observation_space)
        self.env_id = None if env.unwrapped.spec is None else env.unwrapped.spec.id
        self.skill_duration = check_duration(skill_duration)
        self._draw = SkillDraw(self.n_skills, skill)
        self.skill = 0
        self._skill_reward: SkillReward | None = None
        self._reward_of_one: RewardOfOne | None = None
        self._task_reward_expected = False
        self._episode_steps = self._total_steps = 0
        self._record: EpisodeRecord | None = None
        self._last_obs: Obs = None

    def set_skill(self, skill: int | str) -> None:
        """
        Change the standing rule, from the next draw on.

        :param skill: see the class
        :raises ValueError: if it is neither a rule nor one of the skills
        """
        self._draw.set_rule(skill)

    @property
    def skill_rule(self) -> int | str:
        """:return: the standing rule, see the class"""
        return self._draw.rule

    def set_skill_reward(self, skill_reward: SkillReward | None) -> None:
        """
        :param skill_reward: what replaces the reward from now on (shared, not copied), or None to
            say that the environment's own reward is wanted, as an evaluation does
        """
        self._skill_reward = skill_reward
        self._task_reward_expected = skill_reward is None
        if skill_reward is not None:
            self._reward_of_one = skill_reward.of_one()
            self._draw.p = probabilities(skill_reward.discriminator.log_p.cpu().numpy())

    def load_skill_reward(self, pickled: bytes) -> None:
        """
        :meth:`set_skill_reward` across processes. Plain bytes, since torch would otherwise move
        the parameters to shared memory, where they would go on changing within a rollout.

        :param pickled: a pickled :class:`~sb3_diayn.discriminator.SkillReward`, on the CPU
        """
        th.set_num_threads(1)  # this process steps one environment; more threads only contend
        self.set_skill_reward(pickle.loads(pickled))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Obs, dict[str, Any]]:
        """
        :param seed: seed of the environment, and with it of the skills
        :param options: ``{"skill": 3}`` plays that skill for one episode; the rest goes on to the
            environment
        :return: the observation with the skill, and ``info`` with the key ``skill``
        """
        random_state = dict(self.np_random.bit_generator.state)
        draw = self._draw
        self._record = EpisodeRecord(random_state, seed, options, draw.p, tuple(draw.round))
        inner = {key: value for key, value in (options or {}).items() if key != "skill"}
        obs, info = self.env.reset(seed=seed, options=inner or None)
        if seed is not None:
            draw.round = []  # what is left of a round belongs to the old seed
        self.skill = draw.draw(self.np_random, options)
        self._episode_steps = 0
        self._last_obs = self._augment(obs)
        return self._last_obs, {**info, "skill": self.skill}

    def step(
        self, action: npt.NDArray[Any]
    ) -> tuple[Obs, SupportsFloat, bool, bool, dict[str, Any]]:
        """
        :param action: an action of the environment
        :return: as any environment; ``info`` as described in the class
        :raises ValueError: if the action or the observation is not finite
        """
        self._check_action(action)
        if self._record is not None:
            self._record.add(action)
        env_obs, task_reward, terminated, truncated, info = self.env.step(action)
        self._episode_steps += 1
        self._total_steps += 1
        obs = self._augment(env_obs)
        info = _Info(info, skill=self.skill, task_reward=float(task_reward))
        reward = self._reward(obs, action, info)
        if terminated or truncated:
            # VecNormalize clips ``terminal_observation``; the discriminator reads the raw one.
            info["terminal_env_obs"] = self.skill_space.split(obs)[0]
        elif self.skill_duration and self._episode_steps % self.skill_duration == 0:
            # ``info["skill"]`` keeps the skill that acted, the next action belongs to the new one.
            self.skill = self._draw.draw(self.np_random)
            obs = self.skill_space.append(self.skill_space.split(obs)[0], self.skill)
        self._last_obs = obs
        return obs, reward, terminated, truncated, info

    def episode_state(self) -> dict[str, Any] | None:
        """
        :return: what :meth:`restore_episode` needs to come back to this moment, from plain values;
            None before the first reset and in an episode of more than 100,000 steps
        """
        if self._record is None or self._record.actions is None:
            return None
        random_state = dict(self.np_random.bit_generator.state)
        now = {"random_state": random_state, "observation": self._last_obs, "p": self._draw.p}
        return {"record": asdict(self._record), "now": now}

    def restore_episode(self, state: dict[str, Any]) -> bool:
        """
        Play the episode of that moment again, with the same random numbers and actions.

        :param state: from :meth:`episode_state`, of an environment like this one
        :return: whether that led to the same observation and random state. If not, reset the
            environment: its states depend on more than its ``np_random`` and the actions
        """
        record, now = EpisodeRecord(**state["record"]), state["now"]
        self.np_random.bit_generator.state = record.random_state
        self._draw.p, self._draw.round = record.p, list(record.round)
        self.reset(seed=record.seed, options=record.options)
        over = False
        for action in record.actions or []:
            if over:
                return False
            _, _, terminated, truncated, _ = self.step(action)
            over = terminated or truncated
        self._draw.p = now["p"]
        same_observation = data_equivalence(self._last_obs, now["observation"], exact=True)
        return same_observation and self.np_random.bit_generator.state == now["random_state"]

    def _reward(self, obs: Obs, action: npt.NDArray[Any], info: dict[str, Any]) -> float:
        task_reward: float = info["task_reward"]
        if self._skill_reward is None or self._reward_of_one is None:
            self._warn_once()
            return task_reward
        env_obs = self.skill_space.split(obs)[0]
        info["skill_reward"] = self._reward_of_one(env_obs, self.skill, action)
        return float(self._skill_reward.mix(info["skill_reward"], task_reward))

    def _warn_once(self) -> None:
        if not self._task_reward_expected and not isinstance(self.skill_rule, int):
            self._task_reward_expected = True
            warn_of_task_reward("DIAYNWrapper")

    def _check_action(self, action: npt.NDArray[Any]) -> None:
        if isinstance(self.action_space, spaces.Box) and not np.isfinite(action).all():
            raise bad_action(action, self._moment())

    def _augment(self, env_obs: Obs) -> Obs:
        obs = self.skill_space.append(env_obs, self.skill)
        if not self.skill_space.is_vector:
            for key in self._real_keys:
                self._check_finite(obs[key], f"observation[{key!r}]")
        else:
            self._check_finite(obs, "observation")
        return obs

    def _check_finite(self, part: npt.NDArray[Any], name: str) -> None:
        if not np.isfinite(part).all():
            raise bad_observation(part, name, self._moment())

    def _moment(self) -> str:
        return moment(self._episode_steps, self._total_steps, self.skill)
