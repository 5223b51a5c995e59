"""Rollouts of on-policy models: what the discriminator learns from, and where skills end."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from sb3_contrib.common.recurrent.buffers import RecurrentDictRolloutBuffer, RecurrentRolloutBuffer
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn.discriminator import Batch
from sb3_diayn.observations import (
    Obs,
    as_channels_first,
    assign_obs,
    copy_obs,
    index_obs,
    map_obs,
)
from sb3_diayn.rewards import SkillReward, warn_of_unattended_learning
from sb3_diayn.skills import SkillSpace

Indices = npt.NDArray[np.int64]


class SkillRollout:
    """
    What a rollout of an on-policy model holds for the discriminator: the environment's next
    observations, skills and actions, which SB3 does not keep.

    Where a skill ends before its episode, the model's advantages must not run into the next skill.
    SB3 has the means for the end of an episode at a time limit: it adds the value of the last
    observation to the reward, and marks the next step as a start (GitHub issue #633 of SB3). The
    same is done here for the end of a skill, within the model's rollout buffer: ``dones`` and
    ``infos``, which other callbacks read, stay as they are. A recurrent policy begins each skill
    with an empty memory, as :class:`~sb3_diayn.evaluation.playing.SkillPolicy` plays it.

    :param model: an on-policy model within a ``learn``, whose rollout buffer is watched. A later
        ``learn`` without the callback brings a warning, and has its own advantages
    :param skill_space: where the skill sits in an observation
    :param skill_reward: the model's rewards; its discriminator will learn from the rollout
    """

    def __init__(
        self, model: OnPolicyAlgorithm, skill_space: SkillSpace, skill_reward: SkillReward
    ) -> None:
        self.model, self.buffer = model, model.rollout_buffer
        self.skill_space = skill_space
        self.skill_reward = skill_reward
        self.vec_normalize = model.get_vec_normalize_env()
        self.clear()
        self._detach()
        self._start_time = model.start_time
        self._compute = self.buffer.compute_returns_and_advantage
        vars(self.buffer)["compute_returns_and_advantage"] = self._compute_within_skills

    def _detach(self) -> None:
        """Leave the model's rollout buffer as it was."""
        vars(self.buffer).pop("compute_returns_and_advantage", None)

    def clear(self) -> None:
        """Forget what a rollout that was interrupted has left."""
        self._steps: list[tuple[Obs, npt.NDArray[Any], npt.NDArray[Any]]] = []
        self._obs: list[Obs] = []  # before each step, where the objective reads them
        # Row of the buffer, environments, and the values that belong to the rewards there.
        self._ends: list[tuple[int, Indices, npt.NDArray[np.float32]]] = []
        self._corrections: list[tuple[int, int, np.float32]] = []
        self._absorbed: list[tuple[int, int, float]] = []  # row, environment, later reward

    def begin(self, env: VecEnv) -> None:
        """:param env: the environments, whose last observations are those before the first step"""
        space = SkillSpace(self.skill_space.env_space, self.skill_space.n_skills)
        last = [as_channels_first(o, space.observation_space) for o in env.get_attr("last_obs")]
        self._before = space.env_obs(map_obs(lambda *rows: np.stack(rows), *last))

    def add(
        self,
        new_obs: Obs,
        actions: npt.NDArray[Any],
        dones: npt.NDArray[np.bool_],
        infos: list[dict[str, Any]],
        memory: Any = None,
    ) -> None:
        """
        Store one step of each environment, before the model stores it in its buffer.

        :param new_obs: next observations as the model sees them, shape ``(n_envs, d + K)``
        :param actions: actions as the environments took them
        :param dones: ends of episodes, shape ``(n_envs,)``
        :param infos: from ``DIAYNWrapper``
        :param memory: ``lstm_states`` of a recurrent policy after the step, with which it will act
            in the next one; cleared in place where a skill has ended
        """
        if self.vec_normalize is not None:
            new_obs = self.vec_normalize.get_original_obs()
        env_obs, new_skills = self.skill_space.split_newest(new_obs)
        if self.skill_reward.discriminator.reads_obs:
            self._obs.append(self._before)
            self._before = copy_obs(env_obs)  # after a reset, where an episode has ended
        env_obs, skills = copy_obs(env_obs), np.array([info["skill"] for info in infos])
        for index in np.flatnonzero(dones).tolist():
            last = self.skill_space.terminal_env_obs(infos[index], self.vec_normalize)
            assign_obs(env_obs, index, last)
            self._correct(index, infos[index], skills[index], memory)
            if self.skill_reward.absorbing and not infos[index].get("TimeLimit.truncated"):
                self._absorb(index, infos[index])
        ended = np.flatnonzero(~dones & (new_skills != skills))
        if len(ended):
            last_obs = self._with_skills(index_obs(new_obs, ended), skills[ended])
            values = _state_values(self.model, last_obs, memory, ended)
            self._ends.append((self.buffer.pos, ended, values))
            if memory is not None:
                for part in (*memory.pi, *memory.vf):
                    part[:, ended] = 0.0
        actions = self.skill_reward.discriminator.scale_action(actions).reshape(len(infos), -1)
        self._steps.append((env_obs, skills, actions))

    def _correct(self, index: int, info: dict[str, Any], skill: int, memory: Any) -> None:
        """
        A wrapper outside may cut an episode in the very step in which its skill ends. SB3 then
        takes the value of the last observation with the next skill; the value with the old skill is
        right.
        """
        seen: Any = info.get("terminal_observation")
        if not info.get("TimeLimit.truncated") or seen is None:
            return
        raw = seen if self.vec_normalize is None else self.vec_normalize.unnormalize_obs(seen)
        if self.skill_space.split_newest(raw)[1] == skill:
            return
        rows, envs = map_obs(lambda part: np.asarray(part)[None], raw), np.array([index])
        right = _state_values(self.model, self._with_skills(rows, np.array([skill])), memory, envs)
        wrong = _state_values(
            self.model, map_obs(lambda part: np.asarray(part)[None], seen), memory, envs
        )
        self._corrections.append((self.buffer.pos, index, (right - wrong)[0]))

    def _absorb(self, index: int, info: dict[str, Any]) -> None:
        """The reward of the terminal state in the steps that would follow."""
        reward = self.skill_reward.later(info["skill_reward"], self.model.gamma)
        self._absorbed.append((self.buffer.pos, index, reward))

    def _with_skills(self, obs: Obs, skills: npt.NDArray[Any]) -> Obs:
        """What the model would have seen, had the skills not ended."""
        env_obs, seen = self.skill_space.split(obs)
        if self.skill_space.n_stack > 1:  # the older frames keep theirs
            skills = np.column_stack([seen[:, :-1], skills])
        last_obs = self.skill_space.append(env_obs, skills)
        if self.vec_normalize is not None:
            last_obs = self.vec_normalize.normalize_obs(last_obs)
        return last_obs

    def _compute_within_skills(self, last_values: th.Tensor, dones: npt.NDArray[np.bool_]) -> None:
        """Stands for the buffer's ``compute_returns_and_advantage``."""
        if self.model.start_time != self._start_time:
            self._detach()
            self._compute(last_values, dones)
            warn_of_unattended_learning()
            return
        buffer, starts = self.buffer, self.buffer.episode_starts
        buffer.episode_starts = starts.copy()
        for row, envs, values in self._ends:
            buffer.rewards[row, envs] += np.float32(self.model.gamma) * values
            if row + 1 < buffer.buffer_size:
                buffer.episode_starts[row + 1, envs] = 1.0
            else:
                dones = dones.copy()
                dones[envs] = True
        for row, env, difference in self._corrections:
            buffer.rewards[row, env] += np.float32(self.model.gamma) * difference
        for row, env, reward in self._absorbed:
            buffer.rewards[row, env] += np.float32(reward)
        self._compute(last_values, dones)
        # Where a recurrent policy has begun with an empty memory, its updates must do so too.
        if not isinstance(buffer, RecurrentRolloutBuffer | RecurrentDictRolloutBuffer):
            buffer.episode_starts = starts

    def pop(self, device: th.device) -> Batch:
        """
        Empty the rollout.

        :param device: where the tensors go
        :return: its transitions
        """
        next_obs, skills, actions = zip(*self._steps, strict=True)
        obs = self._obs
        self.clear()

        def to_tensor(*steps: npt.NDArray[Any]) -> th.Tensor:
            return th.as_tensor(np.concatenate(steps), device=device)

        before = map_obs(to_tensor, *obs) if obs else None
        return Batch(
            map_obs(to_tensor, *next_obs), to_tensor(*skills), to_tensor(*actions), obs=before
        )


def _state_values(
    model: OnPolicyAlgorithm, obs: Obs, memory: Any, envs: Indices
) -> npt.NDArray[np.float32]:
    """The values of observations in some of the environments, as the model itself computes them."""
    policy: Any = model.policy
    if not hasattr(policy, "predict_values"):  # SBX
        values = model.vf.apply(policy.vf_state.params, policy.prepare_obs(obs)[0])  # type: ignore[attr-defined]
        return np.array(values, np.float32).reshape(-1)
    tensors = policy.obs_to_tensor(obs)[0]
    with th.no_grad():
        if memory is None:
            values = policy.predict_values(tensors)
        else:
            own = tuple(part[:, envs].contiguous() for part in memory.vf)
            values = policy.predict_values(tensors, own, th.zeros(len(envs), device=model.device))
    on_cpu: npt.NDArray[np.float32] = values.flatten().cpu().numpy()
    return on_cpu
