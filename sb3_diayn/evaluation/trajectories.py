"""Fresh episodes of chosen skills, played in parallel."""

import copy
import random
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium.vector.utils import create_empty_array
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from sb3_diayn.arguments import check_positive, check_seed
from sb3_diayn.callback_list import shares_environments
from sb3_diayn.checks import check_info, check_repeats, check_seen
from sb3_diayn.evaluation.playing import SkillPolicy, check_vec_normalize
from sb3_diayn.observations import FloatArray, Obs, Space, flatten, index_obs, map_obs
from sb3_diayn.skills import SkillSpace, check_skill
from sb3_diayn.wrappers import DIAYNWrapper

POSITION_KEYS = ("x_position", "y_position", "z_distance_from_origin")
DEFAULT_MAX_STEPS = 10_000
TIME_LIMIT = "_max_episode_steps"  # of gymnasium's TimeLimit
CHECKED_STEPS = 20  # of each round, for wrappers that repeat actions


@dataclass
class Trajectory:
    """
    One episode of one skill, T steps long.

    :param skill: index of the skill
    :param states: next observations of the environment as vectors, float32, shape ``(T, d)``, see
        :func:`~sb3_diayn.observations.flatten`
    :param actions: actions as the environment took them, shape ``(T, ...)``
    :param task_rewards: the environment's own rewards, shape ``(T,)``
    :param positions: by name, what ``info`` tells about the position after each step, in metres
        with MuJoCo, shape ``(T,)`` each
    :param observations: next observations of the environment as they are, with a first axis of
        length T; None for vectors, which ``states`` already holds
    """

    skill: int
    states: FloatArray
    actions: npt.NDArray[Any]
    task_rewards: npt.NDArray[np.float64]
    positions: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    observations: Obs = None

    def __post_init__(self) -> None:
        if self.observations is None:
            self.observations = self.states

    def __len__(self) -> int:
        """:return: number of steps, T"""
        return len(self.task_rewards)


def as_vec_env(env: Any) -> VecEnv:
    """
    :param env: a ``DIAYNWrapper`` environment, or vectorised ones
    :return: vectorised environments with skills
    :raises ValueError: if there is no ``DIAYNWrapper``
    """
    if not isinstance(env, gym.Env | VecEnv):
        raise ValueError(
            f"env={env!r} is not an environment; expected DIAYNWrapper(gym.make(...), n_skills=K), "
            "K as in training, or vectorised ones."
        )
    # SB3 prepares the environments of a model in the same way: with the channels of images first.
    vec_env = BaseAlgorithm._wrap_env(env, monitor_wrapper=False)
    if not all(vec_env.env_is_wrapped(DIAYNWrapper)):
        raise ValueError(
            f"env={env} has no DIAYNWrapper; expected one around each environment. Wrap it with "
            "DIAYNWrapper(env, n_skills=K), K as in training."
        )
    return vec_env


def check_space(model: BaseAlgorithm, env: VecEnv) -> None:
    """
    :param model: any SB3 model
    :param env: where it shall be played
    :raises ValueError: if it was trained on another space
    """
    if model.observation_space != env.observation_space:
        raise ValueError(
            f"env has the observation space {env.observation_space}, the model was trained on "
            f"{model.observation_space}; expected the same. Check the environment's id, its "
            f"arguments, n_skills={env.get_attr('n_skills')[0]} and its wrappers, as VecFrameStack "
            "or VecTransposeImage."
        )


def play_skills(
    model: BaseAlgorithm,
    env: Any,
    skills: Sequence[int],
    *,
    deterministic: bool = True,
    seed: int | None = None,
    max_steps: int | None = None,
) -> Iterator[Trajectory]:
    """
    Play one episode of each entry of ``skills``, as many at once as there are environments.
    Afterwards, random states, the policy's mode and the environments' rules for drawing skills are
    as before.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from stable_baselines3.common.vec_env import DummyVecEnv
        >>> from sb3_diayn import DIAYNWrapper
        >>> from sb3_diayn.evaluation import play_skills
        >>> def make_env():
        ...     return DIAYNWrapper(gym.make("Pendulum-v1", max_episode_steps=20), n_skills=4)
        >>> env = DummyVecEnv([make_env, make_env])
        >>> model = PPO("MlpPolicy", env)
        >>> trajectories = list(play_skills(model, env, [0, 3, 3], seed=0))
        >>> [(trajectory.skill, trajectory.states.shape) for trajectory in trajectories]
        [(0, (20, 3)), (3, (20, 3)), (3, (20, 3))]

    :param model: any SB3 model trained on the same augmented space
    :param env: a ``DIAYNWrapper`` environment, or vectorised ones. The model's training
        environments are reset; its next ``learn`` then begins new episodes
    :param skills: a skill for each episode; repeat one to play it more often
    :param deterministic: play the mode of the policy instead of samples
    :param seed: of environments and sampled actions; None for no fixed seed
    :param max_steps: the number of steps after which an episode is cut; None for 10,000, or for
        the environment's time limit where that is longer, with a warning if an episode is cut
    :return: trajectories in the order in which they end
    :raises ValueError: if the observation spaces of model and environments differ, one normalises
        observations and the other does not, a skill does not exist, or a wrapper outside of
        ``DIAYNWrapper`` hides what the skill does
    """
    if max_steps is not None:
        check_positive("max_steps", max_steps)
    seed = check_seed(seed)
    env = as_vec_env(env)
    check_space(model, env)
    check_vec_normalize(model, unwrap_vec_normalize(env))
    episodes = _Episodes(env, skills, max_steps)
    with borrow(model, env, seed):
        try:
            if seed is not None:
                env.seed(seed)
            yield from _play(model, env, episodes, deterministic)
        finally:
            _remove_idle(env)


@contextmanager
def borrow(model: BaseAlgorithm, env: VecEnv, seed: int | None = None) -> Iterator[None]:
    """
    Play in environments that the training may use, too: :func:`preserve_state`, and after the
    block the environments have the rules for drawing skills and the random states of before.

    :param model: any SB3 model
    :param env: vectorised environments with ``DIAYNWrapper``
    :param seed: of sampled actions within the block; None to keep the random states
    """
    rules, states = env.get_attr("skill_rule"), env.env_method("random_state")
    with preserve_state(model, env, seed):
        try:
            yield
        finally:
            for index, (rule, state) in enumerate(zip(rules, states, strict=True)):
                env.env_method("set_skill", rule, indices=[index])
                env.env_method("set_random_state", state, indices=[index])
            _forget_episodes(model, env)


def _forget_episodes(model: BaseAlgorithm, env: VecEnv) -> None:
    """After a reset of its own environments, the next ``learn`` of a model resets them too."""
    own = model.get_env()
    if own is not None and shares_environments(env, own):
        model._last_obs = None


@contextmanager
def preserve_state(model: BaseAlgorithm, env: VecEnv, seed: int | None = None) -> Iterator[None]:
    """
    Restore all random states and the modes of policy and ``VecNormalize`` after the block.
    Within it, ``VecNormalize`` does not update its statistics.

    :param model: any SB3 model
    :param env: vectorised environments
    :param seed: of sampled actions within the block; None to keep the random states
    """
    normalizer = unwrap_vec_normalize(env)
    was_training = model.policy.training
    was_learning = normalizer is not None and normalizer.training
    if normalizer is not None:
        normalizer.training = False
    devices = [model.device] if model.device.type == "cuda" else []
    python_state, numpy_state = random.getstate(), np.random.get_state()
    action_space = model.action_space
    model.action_space = copy.deepcopy(action_space)  # DQN samples its random actions from it
    with th.random.fork_rng(devices=devices):
        try:
            if seed is not None:
                random.seed(seed)
                th.manual_seed(seed)
                np.random.seed(seed % 2**32)
                model.action_space.seed(seed)
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)
            model.action_space = action_space
            model.policy.set_training_mode(was_training)
            if normalizer is not None:
                normalizer.training = was_learning


def _play(
    model: BaseAlgorithm, env: VecEnv, episodes: "_Episodes", deterministic: bool
) -> Iterator[Trajectory]:
    policy = SkillPolicy(model, env)
    while episodes.tasks:
        obs, state = episodes.begin(), None
        check_seen(env, obs, episodes.space)
        starts, steps = np.ones(env.num_envs, dtype=bool), env.get_attr("total_steps")
        for number in count():
            actions, state = policy.predict(obs, state, starts, deterministic)
            # Others may write into what they get.
            obs, _, starts, infos = env.step(np.array(actions))
            if number < CHECKED_STEPS:
                steps = check_repeats(env, starts, steps)
            yield from episodes.add(obs, actions, starts, infos)
            if not episodes.are_under_way:
                break


class _Episodes:
    """
    Which environment plays which skill, and what has come of it.

    A ``VecEnv`` resets an environment only where an episode ends. So if one has to be cut, no new
    episode begins until all of those under way are over, and then all environments are reset.

    :param env: vectorised environments with skills
    :param skills: a skill for each episode
    :param max_steps: where episodes are cut; None for a default and a warning
    """

    def __init__(self, env: VecEnv, skills: Sequence[int], max_steps: int | None) -> None:
        n_skills = int(env.get_attr("n_skills")[0])
        self.space = SkillSpace.from_vec_env(env, n_skills)
        self.tasks = deque(check_skill(skill, n_skills) for skill in skills)
        self._env, self._normalizer = env, unwrap_vec_normalize(env)
        self._max_steps = _default_max_steps(env) if max_steps is None else max_steps
        self._is_warned = max_steps is not None

    def begin(self) -> Obs:
        """Reset all environments, each with a skill of its own; return what they show."""
        _remove_idle(self._env)
        everyone = range(self._env.num_envs)
        self._is_cut = False
        self._playing = [self._set_next_skill(index) for index in everyone]
        obs = self._env.reset()
        self._next = [self._set_next_skill(index) for index in everyone]
        self._recorders = [_Recorder(self.space.env_space) for _ in everyone]
        _make_idle(self._env, [i for i in everyone if self._playing[i] is None])
        return obs

    @property
    def are_under_way(self) -> bool:
        """Whether any is."""
        return any(skill is not None for skill in self._playing)

    def _set_next_skill(self, index: int) -> int | None:
        # A VecEnv resets by itself, so the skill of the next episode is set during this one.
        skill = self.tasks.popleft() if self.tasks else None
        self._env.env_method("set_skill", 0 if skill is None else skill, indices=[index])
        return skill

    def add(
        self,
        obs: Any,
        actions: npt.NDArray[Any],
        dones: npt.NDArray[np.bool_],
        infos: list[dict[str, Any]],
    ) -> Iterator[Trajectory]:
        """A step of all environments; return the episodes that are over with it."""
        if self._normalizer is not None:
            obs = self._normalizer.get_original_obs()
        env_obs, _ = self.space.split_newest(obs)
        for index, skill in enumerate(self._playing):
            if skill is None:
                continue
            info, recorder = infos[index], self._recorders[index]
            _check_skill_played(info, skill)
            next_obs = index_obs(env_obs, index)
            if dones[index]:
                next_obs = self.space.terminal_env_obs(info, self._normalizer)
            recorder.add(next_obs, actions[index], info)
            if not dones[index] and len(recorder) < self._max_steps:
                continue
            self._end(index, is_cut=not dones[index])
            yield recorder.finish(skill)

    def _end(self, index: int, is_cut: bool) -> None:
        if is_cut and not self._is_warned:
            self._is_warned = True
            _warn_of_cut(self._max_steps)
        if is_cut and not self._is_cut:
            self._is_cut = True
            self.tasks.extendleft(skill for skill in reversed(self._next) if skill is not None)
            self._next = [None] * len(self._next)
        self._recorders[index] = _Recorder(self.space.env_space)
        self._playing[index] = self._next[index]
        if self._playing[index] is None:
            _make_idle(self._env, [index])
        else:
            self._next[index] = self._set_next_skill(index)


def _default_max_steps(env: VecEnv) -> int:
    """Episodes may be longer where a time limit says so."""
    # Not from ``spec``, which ``unwrapped`` keeps without its limit, and which may not be pickled.
    limits = env.get_attr(TIME_LIMIT) if env.has_attr(TIME_LIMIT) else []
    return max([DEFAULT_MAX_STEPS, *(limit or 0 for limit in limits)])


def _warn_of_cut(max_steps: int) -> None:
    warnings.warn(
        f"max_steps=None: an episode did not end within {max_steps} steps and was cut there, so "
        "lengths and returns belong to its beginning; expected episodes that end. Put "
        "gymnasium.wrappers.TimeLimit around the environment, or pass max_steps=.",
        stacklevel=5,
    )


def _check_skill_played(info: dict[str, Any], skill: int) -> None:
    check_info(info)
    if info["skill"] != skill:
        raise ValueError(
            f"env plays skill {info['skill']} in an episode of skill {skill}; expected the skill "
            "of the last reset. Put DIAYNWrapper outside every wrapper that begins and ends "
            "episodes of its own or passes a skill to reset."
        )


class _Recorder:
    """Collects the steps of one :class:`Trajectory`, in arrays of its own."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._observations: list[Obs] = []
        self._actions: list[npt.NDArray[Any]] = []
        self._task_rewards: list[float] = []
        self._positions: dict[str, list[float]] = {}

    def __len__(self) -> int:
        return len(self._task_rewards)

    def add(self, obs: Obs, action: npt.NDArray[Any], info: dict[str, Any]) -> None:
        self._observations.append(map_obs(np.array, obs))
        self._actions.append(np.array(action))
        self._task_rewards.append(float(info["task_reward"]))
        for key in POSITION_KEYS:
            if key in info:
                self._positions.setdefault(key, []).append(float(info[key]))

    def finish(self, skill: int) -> Trajectory:
        observations = map_obs(lambda *steps: np.stack(steps), *self._observations)
        return Trajectory(
            skill,
            flatten(observations, self._space),
            np.stack(self._actions),
            np.array(self._task_rewards),
            {key: np.array(steps) for key, steps in self._positions.items()},
            observations,
        )


class _Idle(gym.Wrapper[Any, Any, Any, Any]):
    """An environment without an episode left to play: it is stepped with the others at no cost."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        zeros = create_empty_array(self.observation_space, 1, np.zeros)
        return index_obs(zeros, 0), 0.0, False, False, {}


def _make_idle(env: VecEnv, indices: Sequence[int]) -> None:
    if isinstance(env.unwrapped, DummyVecEnv):  # other processes play on, unrecorded
        for index in indices:
            env.unwrapped.envs[index] = _Idle(env.unwrapped.envs[index])


def _remove_idle(env: VecEnv) -> None:
    if isinstance(env.unwrapped, DummyVecEnv):
        envs = env.unwrapped.envs
        envs[:] = [each.env if isinstance(each, _Idle) else each for each in envs]
