"""Fresh episodes of chosen skills, played in parallel."""

import copy
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium.vector.utils import create_empty_array
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, unwrap_vec_normalize

from sb3_diayn.observations import (
    FloatArray,
    Obs,
    Space,
    as_channels_first,
    flatten,
    index_obs,
    map_obs,
)
from sb3_diayn.skills import SkillSpace, check_skill
from sb3_diayn.wrappers import DIAYNWrapper

POSITION_KEYS = ("x_position", "y_position", "z_distance_from_origin")


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
    # SB3 prepares the environments of a model in the same way: with the channels of images first.
    vec_env = BaseAlgorithm._wrap_env(env, monitor_wrapper=False)
    if not all(vec_env.env_is_wrapped(DIAYNWrapper)):
        raise ValueError(
            f"env={env} has no DIAYNWrapper; expected one around each environment. Wrap it with "
            "DIAYNWrapper(env, n_skills=K), K as in training."
        )
    return vec_env


def play_skills(
    model: BaseAlgorithm,
    env: VecEnv,
    skills: Sequence[int],
    *,
    deterministic: bool = True,
    seed: int | None = None,
) -> Iterator[Trajectory]:
    """
    Play one episode of each entry of ``skills``, as many at once as there are environments.
    Afterwards, global random states, the policy's mode and the environments' rules for drawing
    skills are as before.

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
    :param env: vectorised environments with ``DIAYNWrapper``
    :param skills: a skill for each episode; repeat one to play it more often
    :param deterministic: play the mode of the policy instead of samples
    :param seed: of environments and sampled actions; None for no fixed seed
    :return: trajectories in the order in which they end
    :raises ValueError: if the observation spaces of model and environments differ, or a skill does
        not exist
    """
    n_skills = int(env.get_attr("n_skills")[0])
    if model.observation_space != env.observation_space:
        raise ValueError(
            f"env has the observation space {env.observation_space}, the model was trained on "
            f"{model.observation_space}; expected the same. Check the environment's id, its "
            f"arguments and n_skills={n_skills}."
        )
    tasks = deque(check_skill(skill, n_skills) for skill in skills)
    rules = env.get_attr("skill_rule")
    with preserve_state(model, env, seed):
        try:
            if seed is not None:
                env.seed(seed)
            yield from _play(model, env, tasks, n_skills, deterministic)
        finally:
            _remove_idle(env)
            for index, rule in enumerate(rules):
                env.env_method("set_skill", rule, indices=[index])


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
    numpy_state, action_space = np.random.get_state(), model.action_space
    model.action_space = copy.deepcopy(action_space)  # DQN samples its random actions from it
    with th.random.fork_rng(devices=devices):
        try:
            if seed is not None:
                th.manual_seed(seed)
                np.random.seed(seed % 2**32)
                model.action_space.seed(seed)
            yield
        finally:
            np.random.set_state(numpy_state)
            model.action_space = action_space
            model.policy.set_training_mode(was_training)
            if normalizer is not None:
                normalizer.training = was_learning


def _play(
    model: BaseAlgorithm, env: VecEnv, tasks: deque[int], n_skills: int, deterministic: bool
) -> Iterator[Trajectory]:
    def set_next_skill(index: int) -> int | None:
        # A VecEnv resets by itself, so the skill of the next episode is set during this one.
        skill = tasks.popleft() if tasks else None
        env.env_method("set_skill", 0 if skill is None else skill, indices=[index])
        return skill

    everyone = range(env.num_envs)
    playing = [set_next_skill(index) for index in everyone]
    obs = env.reset()
    upcoming = [set_next_skill(index) for index in everyone]
    space = SkillSpace.from_vec_env(env, n_skills)
    recorders = [_Recorder(space.env_space) for _ in everyone]
    normalizer = unwrap_vec_normalize(env)
    _make_idle(env, [index for index in everyone if playing[index] is None])
    state, starts = None, np.ones(env.num_envs, dtype=bool)
    while any(skill is not None for skill in playing):
        actions, state = model.predict(
            obs,  # type: ignore[arg-type]
            state,
            starts,
            deterministic,
            **_action_masks(model, env),
        )
        obs, _, starts, infos = env.step(actions)
        raw: Any = obs if normalizer is None else normalizer.get_original_obs()
        env_obs, _ = space.split_newest(raw)
        for index in everyone:
            if playing[index] is None:
                continue
            next_obs = infos[index].get("terminal_env_obs", index_obs(env_obs, index))
            recorders[index].add(next_obs, actions[index], infos[index])
            if starts[index]:
                yield recorders[index].finish(playing[index])
                recorders[index] = _Recorder(space.env_space)
                playing[index], upcoming[index] = upcoming[index], set_next_skill(index)
                _make_idle(env, [index] if playing[index] is None else [])


def _action_masks(model: BaseAlgorithm, env: VecEnv) -> dict[str, Any]:
    """The action masks that ``predict`` of MaskablePPO takes, so that every action is valid."""
    if not isinstance(model, MaskablePPO) or not is_masking_supported(env):
        return {}
    return {"action_masks": get_action_masks(env)}


class _Recorder:
    """Collects the steps of one :class:`Trajectory`."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.observations: list[Obs] = []
        self.actions: list[npt.NDArray[Any]] = []
        self.infos: list[dict[str, Any]] = []

    def add(self, obs: Obs, action: npt.NDArray[Any], info: dict[str, Any]) -> None:
        self.observations.append(map_obs(np.array, as_channels_first(obs, self.space)))
        self.actions.append(np.array(action))
        self.infos.append(info)

    def finish(self, skill: int | None) -> Trajectory:
        assert skill is not None
        keys = [key for key in POSITION_KEYS if key in self.infos[-1]]
        observations = map_obs(lambda *steps: np.stack(steps), *self.observations)
        return Trajectory(
            skill,
            flatten(observations, self.space),
            np.stack(self.actions),
            np.array([info["task_reward"] for info in self.infos]),
            {key: np.array([float(info[key]) for info in self.infos]) for key in keys},
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
