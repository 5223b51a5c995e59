"""Replay buffers: skills as numbers, rewards of the present discriminator."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import get_obs_shape
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_diayn.discriminator import Batch, Folds
from sb3_diayn.observations import (
    FloatArray,
    Obs,
    assign_obs,
    copy_obs,
    index_obs,
    map_obs,
    map_spaces,
    take_rows,
)
from sb3_diayn.rewards import SkillReward, warn_of_unattended_learning
from sb3_diayn.skills import SkillSpace

Learn = Callable[[Batch], th.Tensor]
Indices = npt.NDArray[np.int64]
Where = Indices  # which transitions: row * n_envs + environment
CHUNK = 100  # rows that are compared at once


class SkillReplayBuffer(ReplayBuffer):
    """
    SB3's replay buffer over the environment's own observations, plus a skill id per transition.

    Observations with the one-hot are rebuilt when a batch is sampled, and the reward of each
    transition comes from the discriminator of that moment: it is never stale. ``rewards`` holds
    the task rewards. ``skill_reward`` is bound by ``DIAYNCallback`` and not saved with the buffer;
    ``learn`` is bound, too, while the model trains: it takes a
    :class:`~sb3_diayn.discriminator.Batch`, gives its log q(z|s') and lets the discriminator learn
    from it. ``folds`` says which of two cross-fitted nets learns from a transition. ``n_steps`` and
    ``gamma`` are the model's: with more than one step, batches hold n-step returns as SB3's
    ``NStepReplayBuffer`` has them, and each of the n rewards is computed at this moment. A return
    ends early where the episode or the skill does.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import gymnasium as gym
        >>> from sb3_diayn import DIAYNWrapper, SkillReplayBuffer
        >>> env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
        >>> env.observation_space.shape
        (7,)
        >>> buffer = SkillReplayBuffer(1000, env.observation_space, env.action_space, n_skills=4)
        >>> buffer.observations.shape  # without the one-hot
        (1000, 1, 3)
        >>> buffer.skills.shape
        (1000, 1)

    :param buffer_size: maximum number of transitions
    :param observation_space: the augmented space, as the model sees it
    :param action_space: the action space
    :param device: where batches go
    :param n_envs: number of parallel environments
    :param n_skills: the number of skills, K
    :param n_stack: frames of a ``VecFrameStack``, k
    :param optimize_memory_usage: refused: it takes the next observation from the next row, which
        belongs to another skill at each border, and this buffer is the smaller one
    :param handle_timeout_termination: see SB3's ``ReplayBuffer``
    :raises ValueError: if ``optimize_memory_usage`` is set, or the space does not end with a skill
    """

    # Class attributes also stand for what a buffer has not that an older version has saved.
    folds: "StretchFolds | None" = None
    model: OffPolicyAlgorithm | None = None
    start_time: float = 0.0  # of the model's ``learn`` in which the discriminator learns

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: th.device | str = "auto",
        n_envs: int = 1,
        *,
        n_skills: int,
        n_stack: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ) -> None:
        if optimize_memory_usage:
            raise ValueError(
                "optimize_memory_usage=True is not supported; expected False. It would take next "
                "observations from rows of another skill. This buffer is the smaller one already."
            )
        self.skill_space = SkillSpace.from_augmented(observation_space, n_skills, n_stack)
        super().__init__(
            buffer_size,
            self.skill_space.stack_space,
            action_space,
            device,
            n_envs,
            handle_timeout_termination=handle_timeout_termination,
        )
        # The parent has sized its arrays by the environment's space; to SB3 it is the model's.
        self.observation_space = observation_space
        size = (self.buffer_size, self.n_envs)
        self.skills = np.zeros(size, np.int32)
        if n_stack > 1:  # of the next frames all but the newest are among these
            self.past_skills = np.zeros((*size, n_stack - 1), np.int32)
            self.next_observations = map_spaces(
                lambda part: np.zeros((*size, *get_obs_shape(part)), part.dtype),
                self.skill_space.env_space,
            )
        self.skill_reward: SkillReward | None = None
        self.learn: Learn | None = None
        self.gate: EpisodeGate | None = None
        self.n_steps, self.gamma = 1, 0.99

    def add(
        self,
        obs: Obs,
        next_obs: Obs,
        action: npt.NDArray[Any],
        reward: npt.NDArray[Any],
        done: npt.NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Store one transition of each environment.

        :param obs: augmented observations, shape ``(n_envs, d + K)``
        :param next_obs: augmented next observations; their skill is ignored, it may already be
            the skill of the next episode
        :param action: actions as the model stores them
        :param reward: ignored: the reward is computed when the transition is sampled
        :param done: ends of episodes, shape ``(n_envs,)``
        :param infos: from ``DIAYNWrapper``, with ``skill`` and ``task_reward``
        """
        env_obs, skills = self.skill_space.split(obs)
        next_env_obs = copy_obs(self.skill_space.split_newest(next_obs)[0])
        for i, info in enumerate(infos):
            if "terminal_env_obs" in info:
                last = self.skill_space.terminal_env_obs(info, None)
                assign_obs(next_env_obs, i, last)
        self.skills[self.pos] = [info["skill"] for info in infos]
        if self.skill_space.n_stack > 1:
            self.past_skills[self.pos] = skills[:, :-1]
        task_reward = np.array([info["task_reward"] for info in infos])
        row = self.pos
        super().add(
            self._as_stored(env_obs),
            self._as_stored(next_env_obs),
            action,
            task_reward,
            done,
            infos,
        )
        if self.gate is not None:
            self.gate.add(row, task_reward, done)
        if self.folds is not None:
            self.folds.add(row, self.skills[row], done)

    def restart_episodes(self) -> None:
        """The environments begin new episodes: forget those that have not ended."""
        for running in (self.gate, self.folds):
            if running is not None:
                running.restart()

    def _as_stored(self, env_obs: Obs) -> Any:
        """With the axis that a ``Discrete`` has in SB3's buffers."""
        if self.skill_space.is_vector:
            return env_obs
        return map_obs(lambda part: part[:, None] if part.ndim == 1 else part, env_obs)

    def sample_transitions(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """
        What the discriminator learns from.

        :param batch_size: number of transitions, n
        :param rng: where the draws come from
        :return: n transitions
        """
        rows, envs = (rng.integers(n, size=batch_size) for n in (self.size(), self.n_envs))
        where = self._where(rows, envs)
        return self._transitions(where, take_rows(self.next_observations, where))

    def _transitions(self, where: Where, next_env_obs: Obs) -> Batch:
        skills = self._tensor(self.skills.take(where).astype(np.int64))
        actions = self._tensor(take_rows(self.actions, where))
        folds = None if self.folds is None else self.folds.of.take(where)
        obs = None
        if self.skill_reward is not None and self.skill_reward.discriminator.reads_obs:
            before = self.skill_space.newest_frame(take_rows(self.observations, where))
            obs = map_obs(self._tensor, before)
        return Batch(map_obs(self._tensor, next_env_obs), skills, actions, folds, obs)

    def _where(self, rows: Indices, envs: Indices) -> Where:
        return rows * self.n_envs + envs

    def _tensor(self, array: npt.NDArray[Any]) -> th.Tensor:
        return th.from_numpy(array).to(self.device)

    def _get_samples(
        self, batch_inds: Indices, env: VecNormalize | None = None
    ) -> ReplayBufferSamples:
        envs = np.random.randint(0, high=self.n_envs, size=len(batch_inds))
        where = self._where(batch_inds, envs)
        next_env_obs = take_rows(self.next_observations, where)
        transitions = self._transitions(where, next_env_obs)
        assert transitions.actions is not None
        self._check_attended()
        rewards = self._fresh_rewards(where, transitions, self.learn)
        observations, next_observations = self._as_seen(where, next_env_obs, env)
        samples = ReplayBufferSamples(
            observations=observations,
            actions=transitions.actions,
            next_observations=next_observations,
            dones=self._terminations(where),
            rewards=rewards,
        )
        return samples if self.n_steps == 1 else self._n_step(samples, batch_inds, envs, env)

    def _check_attended(self) -> None:
        """The callback of one ``learn`` has no part in another one."""
        if self.model is not None and self.model.start_time != self.start_time:
            self.model, self.learn = None, None
            warn_of_unattended_learning()

    def _n_step(
        self, samples: ReplayBufferSamples, rows: Indices, envs: Indices, env: VecNormalize | None
    ) -> ReplayBufferSamples:
        """Follow each transition: where n steps lead, and their rewards on the way."""
        last, alive = rows.copy(), np.arange(len(rows))
        steps: list[tuple[Indices, Indices]] = []  # which of the batch, and the row it is at
        for _ in range(1, self.n_steps):
            alive = alive[self._continues(last[alive], envs[alive])]
            last[alive] = (last[alive] + 1) % self.buffer_size
            steps.append((alive, last[alive]))
        members, visited = (np.concatenate(column) for column in zip(*steps, strict=True))
        powers = np.repeat(np.arange(1, self.n_steps), [len(row) for row, _ in steps])
        where = self._where(visited, envs[members])
        visited_obs = take_rows(self.next_observations, where)
        later_rewards = self._fresh_rewards(where, self._transitions(where, visited_obs))
        later_rewards *= self._column(self.gamma**powers)
        final = self._where(last, envs)
        final_obs = take_rows(self.next_observations, final)
        lengths = 1 + np.bincount(members, minlength=len(rows))
        return samples._replace(
            next_observations=self._as_seen(final, final_obs, env)[1],
            dones=self._terminations(final),
            rewards=samples.rewards.index_add(
                0, th.as_tensor(members, device=self.device), later_rewards
            ),
            discounts=self._column(self.gamma**lengths),
        )

    def _continues(self, rows: Indices, envs: Indices) -> npt.NDArray[np.bool_]:
        """Whether the next row is the next step of the same episode with the same skill."""
        following = (rows + 1) % self.buffer_size
        continues: npt.NDArray[np.bool_] = (
            (self.dones[rows, envs] == 0)
            & (following != self.pos)
            & (self.skills[rows, envs] == self.skills[following, envs])
            & self._leads_to_next(rows, envs)
        )
        return continues

    def _leads_to_next(self, rows: Indices, envs: Indices) -> npt.NDArray[np.bool_]:
        """Not where a later ``learn`` has reset the environments in the middle of episodes."""
        reached = take_rows(self.next_observations, self._where(rows, envs))
        following = self._where((rows + 1) % self.buffer_size, envs)
        started = self.skill_space.newest_frame(take_rows(self.observations, following))
        same = map_obs(lambda a, b: (a == b).all(axis=tuple(range(1, a.ndim))), reached, started)
        parts = list(same.values()) if isinstance(same, dict) else [same]
        leads: npt.NDArray[np.bool_] = np.all(parts, axis=0)
        return leads

    def recorded(self) -> Iterator[tuple[int, bool]]:
        """:return: the rows, oldest first, and whether all episodes were cut off after each"""
        oldest, newest = self.pos if self.full else 0, (self.pos - 1) % self.buffer_size
        rows = (oldest + np.arange(self.size())) % self.buffer_size
        for start in range(0, len(rows), CHUNK):
            some = rows[start : start + CHUNK]
            shape = (len(some), self.n_envs)
            envs = np.broadcast_to(np.arange(self.n_envs), shape).ravel()
            leads = self._leads_to_next(np.repeat(some, self.n_envs), envs).reshape(shape)
            are_cut = ~leads.any(axis=1) & (some != newest)
            yield from zip(some.tolist(), are_cut.tolist(), strict=True)

    def _terminations(self, where: Where) -> th.Tensor:
        return self._column(self.dones.take(where) * (1 - self.timeouts.take(where)))

    def _column(self, values: npt.NDArray[Any]) -> th.Tensor:
        return self._tensor(values.reshape(-1, 1).astype(np.float32, copy=False))

    def _as_seen(
        self, where: Where, next_env_obs: Obs, env: VecNormalize | None
    ) -> tuple[Any, Any]:
        """Observations and next observations as the policy sees them."""
        env_obs = take_rows(self.observations, where)
        now = then = self.skill_space.one_hot(self.skills.take(where))
        if self.skill_space.n_stack > 1:
            past = self.skill_space.one_hot(take_rows(self.past_skills, where))
            now = np.concatenate([past, now[:, None]], axis=1)
            then = np.concatenate([now[:, 1:], now[:, -1:]], axis=1)
            next_env_obs = self.skill_space.push(env_obs, next_env_obs)
        return self._augmented(env_obs, now, env), self._augmented(next_env_obs, then, env)

    def _augmented(self, env_obs: Obs, one_hot: FloatArray, env: VecNormalize | None) -> th.Tensor:
        obs = self._normalize_obs(self.skill_space.append_weights(env_obs, one_hot), env)
        tensors: th.Tensor = map_obs(self._tensor, obs)
        return tensors

    def _fresh_rewards(
        self, where: Where, transitions: Batch, learn: Learn | None = None
    ) -> th.Tensor:
        if self.skill_reward is None:
            raise RuntimeError(
                "This SkillReplayBuffer has no discriminator to compute rewards with. Pass "
                "callback=DIAYNCallback() to learn(); it binds the discriminator to the buffer."
            )
        factors = self._reward_factors(where)
        task = self._tensor(self.rewards.take(where))
        next_obs, skills, actions, folds, obs = transitions
        if learn is None:
            rewards = self.skill_reward(next_obs, skills, task, actions, factors, folds, obs)
        else:
            log_q = learn(transitions)
            rewards = self.skill_reward.from_log_q(log_q, skills, task, factors)
        # A discriminator that has diverged stops the training, once the device says so; until then
        # it must not spoil the policy.
        return th.nan_to_num(rewards, nan=0.0, posinf=0.0, neginf=0.0).unsqueeze(1)

    def _reward_factors(self, where: Where) -> th.Tensor | None:
        """Of the skill rewards: of SMERL's gate, and of terminal states that are absorbing."""
        assert self.skill_reward is not None
        factors = None
        if self.gate is not None:
            assert self.skill_reward.min_task_return is not None
            is_open = self.gate.is_open(where, self.skill_reward.min_task_return)
            factors = self._tensor(is_open.astype(np.float32))
        if self.skill_reward.absorbing:
            terminal = self._terminations(where).squeeze(1)
            extra = self.skill_reward.terminal_factor(self.gamma) - 1
            repeated = 1 + extra * terminal
            factors = repeated if factors is None else factors * repeated
        return factors

    def __getstate__(self) -> dict[str, Any]:
        # The discriminator lives in the model's zip and keeps changing: never a copy here.
        return {**self.__dict__, "skill_reward": None, "learn": None, "model": None}


class SkillDictReplayBuffer(SkillReplayBuffer, DictReplayBuffer):  # type: ignore[misc]
    """The same for environments with a ``Dict`` space, over SB3's ``DictReplayBuffer``."""


class StretchFolds:
    """
    Which of two cross-fitted nets learns from each transition of a replay buffer, one byte each.

    A stretch, which is the time for which an episode plays a skill, belongs to one fold as a
    whole: its states are alike. The stretches of a skill alternate between the folds. The first
    one of every skill is in the same fold, since a net that knew only some of the skills would
    take all others for them.

    :param buffer_size: rows of the replay buffer
    :param n_envs: number of parallel environments
    :param n_skills: the number of skills, K
    """

    def __init__(self, buffer_size: int, n_envs: int, n_skills: int) -> None:
        self.of: Folds = np.zeros((buffer_size, n_envs), np.uint8)
        self._n_stretches = np.zeros(n_skills, np.int64)
        self._now: Folds = np.zeros(n_envs, np.uint8)
        self.restart()

    @classmethod
    def of_buffer(cls, buffer: SkillReplayBuffer) -> "StretchFolds":
        """
        :param buffer: a replay buffer that was filled without folds
        :return: the folds of its transitions
        """
        folds = cls(buffer.buffer_size, buffer.n_envs, buffer.skill_space.n_skills)
        for row, restarted in buffer.recorded():
            folds.add(row, buffer.skills[row], buffer.dones[row])
            if restarted:
                folds.restart()
        return folds

    def restart(self) -> None:
        """The environments begin new episodes."""
        self._skills = np.full(len(self._now), -1)

    def add(
        self, row: int | np.integer[Any], skills: npt.NDArray[Any], dones: npt.NDArray[Any]
    ) -> None:
        """
        :param row: of the replay buffer, where one transition of each environment has been stored
        :param skills: their skills, shape ``(n_envs,)``
        :param dones: ends of episodes, shape ``(n_envs,)``
        """
        for i in np.flatnonzero(skills != self._skills):
            self._now[i] = self._n_stretches[skills[i]] % 2
            self._n_stretches[skills[i]] += 1
        self.of[row] = self._now
        self._skills = np.where(dones, -1, skills)


class EpisodeGate:
    """
    The gate of SMERL (Kumar et al., 2020, arXiv 2010.14484): the skill reward counts only within
    episodes whose task return is near the optimum. One return per transition of a replay buffer,
    unknown until the episode has ended.

    :param buffer_size: rows of the replay buffer
    :param n_envs: number of parallel environments
    """

    def __init__(self, buffer_size: int, n_envs: int) -> None:
        self.returns = np.full((buffer_size, n_envs), -np.inf, np.float32)
        self.restart()

    @classmethod
    def of_buffer(cls, buffer: SkillReplayBuffer) -> "EpisodeGate":
        """
        :param buffer: a replay buffer that was filled without a gate
        :return: the gate of its transitions. An episode that has lost its first rows has the return
            of the rest
        """
        gate = cls(buffer.buffer_size, buffer.n_envs)
        for row, restarted in buffer.recorded():
            gate.add(row, buffer.rewards[row], buffer.dones[row])
            if restarted:
                gate.restart()
        return gate

    def restart(self) -> None:
        """Forget episodes that have not ended: the environments begin new ones."""
        n_envs = self.returns.shape[1]
        self._returns, self._lengths = np.zeros(n_envs), np.zeros(n_envs, np.int64)

    def add(
        self, row: int | np.integer[Any], task_rewards: npt.NDArray[Any], dones: npt.NDArray[Any]
    ) -> None:
        """
        :param row: of the replay buffer, where one transition of each environment has been stored
        :param task_rewards: the environment's own rewards, shape ``(n_envs,)``
        :param dones: ends of episodes, shape ``(n_envs,)``
        """
        size = len(self.returns)
        self.returns[row] = -np.inf
        self._returns += task_rewards
        self._lengths += 1
        for i in np.flatnonzero(dones):
            steps = np.arange(min(self._lengths[i], size))
            self.returns[(row - steps) % size, i] = self._returns[i]
            self._returns[i], self._lengths[i] = 0.0, 0

    def is_open(self, where: Where, min_task_return: float) -> npt.NDArray[np.bool_]:
        """
        :param where: which transitions
        :param min_task_return: the least task return that opens the gate
        :return: for each whether its episode has ended with such a return
        """
        is_open: npt.NDArray[np.bool_] = self.returns.take(where) >= min_task_return
        return is_open

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "is_open" in state:  # saved when the gate held decisions, up to version 0.2.0
            returns = np.where(state.pop("is_open") > 0, np.inf, -np.inf)
            state["returns"] = returns.astype(np.float32)
        self.__dict__.update(state)


def batch_device(model: BaseAlgorithm) -> th.device:
    """
    :param model: a model
    :return: where its batches are: SBX keeps its replay buffer on the CPU, whatever its device
    """
    if isinstance(model, OffPolicyAlgorithm):
        assert model.replay_buffer is not None
        return model.replay_buffer.device
    return model.device


def bind_buffer(
    model: OffPolicyAlgorithm,
    skill_space: SkillSpace,
    skill_reward: SkillReward,
    same_episodes: bool = False,
) -> SkillReplayBuffer:
    """
    Put a ``SkillReplayBuffer`` in place of the model's stock one, empty or filled; keep one that
    is there already.

    :param model: an off-policy model
    :param skill_space: where the skill sits in an observation
    :param skill_reward: where the buffer's rewards come from
    :param same_episodes: whether the environments are still in the episodes that the buffer knows
    :return: the model's replay buffer from now on
    """
    buffer = model.replay_buffer
    assert buffer is not None
    if not isinstance(buffer, SkillReplayBuffer):
        is_dict = isinstance(skill_space.env_space, spaces.Dict)
        buffer_class = SkillDictReplayBuffer if is_dict else SkillReplayBuffer
        stock, buffer = (
            buffer,
            buffer_class(
                buffer.buffer_size * buffer.n_envs,
                model.observation_space,
                model.action_space,
                buffer.device,
                model.n_envs,
                n_skills=skill_space.n_skills,
                n_stack=skill_space.n_stack,
                handle_timeout_termination=buffer.handle_timeout_termination,
            ),
        )
        _absorb(buffer, stock)
        model.replay_buffer = buffer
    buffer.skill_reward, buffer.learn = skill_reward, None
    buffer.model, buffer.start_time = model, model.start_time
    if skill_reward.min_task_return is None:
        buffer.gate = None
    else:
        buffer.gate = buffer.gate or EpisodeGate.of_buffer(buffer)
    if not skill_reward.discriminator.cross_fit:
        buffer.folds = None
    else:
        buffer.folds = buffer.folds or StretchFolds.of_buffer(buffer)
    if not same_episodes:
        buffer.restart_episodes()
    # Where SB3 itself says how many steps the buffer is to make.
    buffer.n_steps = model.replay_buffer_kwargs.get("n_steps", 1)
    buffer.gamma = model.replay_buffer_kwargs.get("gamma", model.gamma)
    return buffer


def _absorb(buffer: SkillReplayBuffer, stock: ReplayBuffer) -> None:
    """What was recorded before there was a discriminator, so with the environment's own rewards."""
    rows = slice(0, stock.size())
    obs, next_obs = (
        index_obs(array, rows) for array in (stock.observations, stock.next_observations)
    )
    env_obs, skills = buffer.skill_space.split(obs)
    assign_obs(buffer.observations, rows, env_obs)
    assign_obs(buffer.next_observations, rows, buffer.skill_space.split_newest(next_obs)[0])
    if buffer.skill_space.n_stack > 1:
        buffer.past_skills[rows], skills = skills[..., :-1], skills[..., -1]
    buffer.skills[rows] = skills
    for name in ("actions", "rewards", "dones", "timeouts"):
        getattr(buffer, name)[rows] = getattr(stock, name)[rows]
    buffer.pos, buffer.full = stock.pos, stock.full
