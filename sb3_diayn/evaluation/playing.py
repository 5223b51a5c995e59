"""How a skill is played: the same way for evaluations, films, controllers and compositions."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch as th
from sb3_contrib.common.maskable.utils import get_action_masks, is_masking_supported
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_diayn.checks import check_normalized
from sb3_diayn.model_zip import STATE_ATTRIBUTE
from sb3_diayn.observations import Obs
from sb3_diayn.skills import SKILL_KEY
from sb3_diayn.trainer import State

# Statistics of VecNormalize move while they learn, and with them the one-hot that is read back.
SAME_WEIGHT = 0.01


class SkillPolicy:
    """
    The policy of a model, which plays skills as in training: with the action masks of the
    environment (MaskablePPO), a memory that is cleared where an episode or a skill begins
    (RecurrentPPO), new noise where an episode begins (gSDE), and normalised observations. It has
    ``predict`` as SB3's models do, so ``evaluate_policy`` and loops written by hand can play it in
    place of the model.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import gymnasium as gym
        >>> from sb3_contrib import RecurrentPPO
        >>> from stable_baselines3.common.evaluation import evaluate_policy
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper
        >>> from sb3_diayn.downstream import ScheduledSkills
        >>> from sb3_diayn.evaluation import SkillPolicy
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=4)
        >>> model = RecurrentPPO("MlpLstmPolicy", env, n_steps=64)
        >>> model = model.learn(64, callback=DIAYNCallback())
        >>> env = ScheduledSkills(gym.make("sb3_diayn/PointBox-v0"), 4, [(0, 50), (3, 50)])
        >>> policy = SkillPolicy(model, env)
        >>> mean, std = evaluate_policy(policy, env, n_eval_episodes=1, warn=False)

    :param model: a model trained on observations with skills; it acts and is never changed
    :param env: what is played, vectorised or not: it has the action masks
    :param vec_normalize: the statistics of a model trained under ``VecNormalize``, for observations
        that ``env`` does not normalise itself; None for the statistics of the model's own
        environment, if it has one. A zip does not hold them: a loaded model needs
        ``VecNormalize.load("vecnormalize.pkl", venv)`` here
    :raises ValueError: if the model was trained under ``VecNormalize`` and there is none, or the
        other way round
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        env: gym.Env[Any, Any] | VecEnv,
        *,
        vec_normalize: VecNormalize | None = None,
    ) -> None:
        self._model, self._env = model, env
        # Of observations that come normalised, and of observations that do not.
        self._within = unwrap_vec_normalize(env) if isinstance(env, VecEnv) else None
        self._normalizer = None
        if self._within is None:
            self._normalizer = vec_normalize or model.get_vec_normalize_env()
        state = _saved_state(model)
        _check_normalized(state, self._within or self._normalizer)
        self._n_skills = int(state["n_skills"] if state else _attribute(env, "n_skills"))
        takes_masks = "action_masks" in inspect.signature(model.predict).parameters
        self._has_masks = takes_masks and is_masking_supported(env)
        self._noise = _StateDependentNoise(model) if getattr(model, "use_sde", False) else None

    def predict(
        self,
        observation: Obs,
        state: Any = None,
        episode_start: npt.NDArray[np.bool_] | None = None,
        deterministic: bool = False,
    ) -> tuple[npt.NDArray[Any], Any]:
        """
        Same as ``predict`` of SB3's models.

        :param observation: with the skill, as ``env`` gives it; one or a batch
        :param state: what the last call returned, None at first: the memory of a recurrent policy
        :param episode_start: whether the observations are the first of their episodes
        :param deterministic: take the mode of the policy instead of a sample
        :return: actions, and the state for the next call
        """
        memory, starts = None, episode_start
        if state is not None:
            memory, starts = self._remember(observation, state, episode_start)
        obs: Any = observation
        if self._normalizer is not None:
            obs = self._normalizer.normalize_obs(observation)
        masks = {"action_masks": get_action_masks(self._env)} if self._has_masks else {}
        noise = None if deterministic else self._noise
        with nullcontext() if noise is None else noise.of(episode_start):
            actions, memory = self._model.predict(obs, memory, starts, deterministic, **masks)
        return actions, None if memory is None else (self._one_hots(observation), memory)

    def _remember(self, observation: Obs, state: Any, episode_start: Any) -> tuple[Any, Any]:
        """The memory, and where it does not count: it belongs to one skill in one episode."""
        before, memory = state
        changed = np.abs(self._one_hots(observation) - before).max(axis=-1) > SAME_WEIGHT
        return memory, changed if episode_start is None else changed | episode_start

    def _one_hots(self, observation: Obs) -> npt.NDArray[Any]:
        """The skills of the newest frames, which act, with a first axis for the batch."""
        raw: Any = observation
        if self._within is not None:
            raw = self._within.unnormalize_obs(observation)
        part = raw[SKILL_KEY] if isinstance(raw, dict) else raw
        return np.atleast_2d(np.array(part[..., -self._n_skills :]))


class _StateDependentNoise:
    """
    The noise of gSDE is a matrix. SB3 draws a new one for each rollout of a training, and
    ``predict`` of a model alone repeats the last one. This noise belongs to the episodes that are
    played; the model keeps its own.
    """

    def __init__(self, model: BaseAlgorithm) -> None:
        self._policy: Any = model.policy
        self._distribution: Any = getattr(self._policy, "actor", self._policy).action_dist
        self._matrices: tuple[th.Tensor, th.Tensor] | None = None

    @contextmanager
    def of(self, episode_start: npt.NDArray[np.bool_] | None) -> Iterator[None]:
        """:param episode_start: which episodes begin; None if nobody knows"""
        trained = self._get()
        try:
            if self._matrices is None or (episode_start is not None and episode_start.any()):
                self._policy.reset_noise(1 if episode_start is None else len(episode_start))
                self._matrices = self._get()
            self._set(self._matrices)
            yield
        finally:
            self._set(trained)

    def _get(self) -> tuple[th.Tensor, th.Tensor]:
        return self._distribution.exploration_mat, self._distribution.exploration_matrices

    def _set(self, matrices: tuple[th.Tensor, th.Tensor]) -> None:
        self._distribution.exploration_mat, self._distribution.exploration_matrices = matrices


def check_vec_normalize(model: BaseAlgorithm, vec_normalize: VecNormalize | None) -> None:
    """
    :param model: a model with skills
    :param vec_normalize: what normalises the observations that it will see, None if nothing does
    :raises ValueError: if it was trained otherwise, as far as it knows
    """
    _check_normalized(_saved_state(model), vec_normalize)


def _check_normalized(state: State, vec_normalize: VecNormalize | None) -> None:
    is_normalized = vec_normalize is not None and vec_normalize.norm_obs
    check_normalized(state, is_normalized)
    if state.get("vec_normalize") and _is_new(vec_normalize):
        raise ValueError(
            "vec_normalize has seen no observation yet; expected the statistics of the training. "
            'Use VecNormalize.load("vecnormalize.pkl", venv).'
        )


def _is_new(vec_normalize: Any) -> bool:
    rms = vec_normalize.obs_rms
    return all(each.count < 1 for each in (rms.values() if isinstance(rms, dict) else [rms]))


def _saved_state(model: BaseAlgorithm) -> State:
    """What the model knows of its skills; nothing if it was trained without ``DIAYNCallback``."""
    state = getattr(model, STATE_ATTRIBUTE, None)
    return {} if state is None else dict(state.items())


def _attribute(env: gym.Env[Any, Any] | VecEnv, name: str) -> Any:
    return env.get_attr(name)[0] if isinstance(env, VecEnv) else env.get_wrapper_attr(name)
