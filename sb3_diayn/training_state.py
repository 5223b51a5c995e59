"""
Continuing a training as if it had never stopped.

A model's zip holds parameters, optimisers, counters and the discriminator. What else a training
consists of is gathered here, between two rollouts, and put back before the first rollout of the
process that continues.
"""

import random
import warnings
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_diayn.buffers import SkillReplayBuffer
from sb3_diayn.discriminator import Batch, Discriminator
from sb3_diayn.lent_options import lend, take_back
from sb3_diayn.model_zip import STATE_ATTRIBUTE, TRAINING
from sb3_diayn.trainer import State

# Format 1, of version 0.1.0, differs in the episodes: they cannot be continued, all else can.
TRAINING_STATE_FORMAT = 2
READABLE_FORMATS = (1, 2)
# What the layers of vectorised environments keep from step to step.
LAYERS: dict[type[VecEnvWrapper], tuple[str, ...]] = {
    VecNormalize: ("obs_rms", "ret_rms", "returns"),
    VecFrameStack: ("stacked_obs",),
    VecMonitor: ("episode_returns", "episode_lengths", "episode_count"),
}
ELAPSED = "_elapsed_steps"  # of gymnasium's TimeLimit
LOGGER = ("name_to_value", "name_to_count", "name_to_excluded")
NOISE = ("exploration_mat", "exploration_matrices")


def training_state(model: BaseAlgorithm) -> State:
    """
    :param model: a model between two rollouts
    :return: all that is needed to continue exactly and is not in the model's zip: random states,
        the episodes that are under way, the last observations, statistics of ``VecNormalize``,
        action noise and half-made log lines
    """
    env = _env(model)
    state = {
        "format_version": TRAINING_STATE_FORMAT,
        "algorithm": type(model),
        "random": _random_states(model),
        "episodes": env.env_method("episode_state"),
        "rewards": _monitored_rewards(env),
        "elapsed": _elapsed_steps(env),
        "layers": [(type(layer).__name__, _kept(layer)) for layer in layers_of(env)],
        "last": {k: v for k, v in vars(model).items() if k.startswith("_last_")},
        "noise": {k: v.detach() for k, v in vars(_distribution(model)).items() if k in NOISE},
        "logger": {name: dict(getattr(model.logger, name)) for name in LOGGER},
    }
    if isinstance(model, OffPolicyAlgorithm):
        state["action_noise"] = model.action_noise
    else:
        state["rollouts"] = [tuple(rollout) for rollout in _past_rollouts(model)]
    return state


def restore_training(model: BaseAlgorithm, state: State) -> bool:
    """
    Put back what :func:`training_state` gathered. If the episodes do not come back as they were,
    all environments are reset instead, with a warning: the training then continues with new
    episodes.

    :param model: the same model, loaded, at the start of its first rollout
    :param state: from :func:`training_state`
    :return: whether the training continues exactly
    """
    env = _env(model)
    exact = _restore_episodes(env, state["episodes"])
    for layer, (_, kept) in zip(layers_of(env), state["layers"], strict=True):
        vars(layer).update(kept)
    if exact:
        vars(model).update(state["last"])
        for rewards, saved in zip(_monitored_rewards(env), state["rewards"], strict=True):
            rewards[:] = saved
        elapsed = state.get("elapsed", []) if _elapsed_steps(env) else []  # older files have none
        for index, steps in enumerate(elapsed):
            env.env_method("set_wrapper_attr", ELAPSED, steps, indices=index)
    else:
        begin_episodes(model, env)
    vars(_distribution(model)).update(state["noise"])
    for name in LOGGER:
        getattr(model.logger, name).update(state["logger"][name])
    if isinstance(model, OffPolicyAlgorithm) and model.action_noise is not None:
        # In place: the rollout that is about to start holds on to this object.
        vars(model.action_noise).update(vars(state["action_noise"]))
    if not isinstance(model, OffPolicyAlgorithm):
        _past_rollouts(model).extend(Batch(*rollout) for rollout in state.get("rollouts", []))
    _restore_random_states(model, state["random"])
    return exact


def _restore_episodes(env: VecEnv, episodes: list[State | None]) -> bool:
    if None in episodes:
        reason = (
            "the checkpoint was made within a rollout, the actions of an episode took more than "
            "8 MB and were not kept, or the state of the environment's random numbers is not known "
            "(as of VecDIAYNWrapper)"
        )
    else:
        reason = "an environment did not come back to the same observation and random state"
        came_back = [
            env.env_method("restore_episode", episode, indices=index)[0]
            for index, episode in enumerate(episodes)
        ]
        if all(came_back):
            return True
    warnings.warn(
        f"The training resumes with new episodes, not within the checkpoint's: {reason}. "
        "That does no harm, but the result differs from an uninterrupted training's.",
        stacklevel=2,
    )
    return False


def begin_episodes(model: BaseAlgorithm, env: VecEnv) -> None:
    """
    As SB3 does before a first ``learn``.

    :param model: a model
    :param env: its environments, which are reset
    """
    model._last_obs = env.reset()  # type: ignore[assignment]
    model._last_episode_starts = np.ones(env.num_envs, bool)
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        model._last_original_obs = normalizer.get_original_obs()


def _random_states(model: BaseAlgorithm) -> State:
    on_gpu = model.device.type == "cuda"
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": th.get_rng_state(),
        "cuda": th.cuda.get_rng_state_all() if on_gpu else None,
        "action_space": model.action_space,  # it draws the actions of the warm-up
    }


def _restore_random_states(model: BaseAlgorithm, state: State) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    th.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and model.device.type == "cuda":
        th.cuda.set_rng_state_all([one.cpu() for one in state["cuda"]])
    model.action_space = state["action_space"]


def _env(model: BaseAlgorithm) -> VecEnv:
    env = model.get_env()
    assert env is not None
    return env


def layers_of(env: VecEnv) -> Iterator[VecEnvWrapper]:
    """
    :param env: a vectorised environment
    :return: the wrappers around the innermost one, from the outside
    """
    while isinstance(env, VecEnvWrapper):
        yield env
        env = env.venv


def _kept(layer: VecEnvWrapper) -> State:
    names = [name for cls, names in LAYERS.items() if isinstance(layer, cls) for name in names]
    return {name: vars(layer)[name] for name in names if name in vars(layer)}


def _monitored_rewards(env: VecEnv) -> list[list[float]]:
    """
    What a ``Monitor`` outside of ``DIAYNWrapper`` has counted of its episode, for the logs. SB3
    puts one there by itself, in this process; one inside counts again as the episode is replayed.
    """
    return env.get_attr("rewards") if all(env.env_is_wrapped(Monitor)) else []


def _elapsed_steps(env: VecEnv) -> list[int]:
    """
    What a ``TimeLimit`` outside of ``DIAYNWrapper`` has counted of its episode. One inside counts
    again as the episode is replayed.
    """
    return env.get_attr(ELAPSED) if env.has_attr(ELAPSED) else []


def _past_rollouts(model: BaseAlgorithm) -> deque[Batch]:
    """What the discriminator of an on-policy model learns from with ``n_rollouts`` above 1."""
    past: deque[Batch] = getattr(model, STATE_ATTRIBUTE).owner.trainer.past
    return past


def _distribution(model: BaseAlgorithm) -> Any:
    """Where gSDE keeps the noise of a rollout, drawn before callbacks hear of the rollout."""
    return getattr(
        getattr(model.policy, "actor", None) or model.policy, "action_dist", model.policy
    )


class Continuation:
    """
    What a model that brings a discriminator along needs in order to continue its training:

    - no second warm-up with random actions, and DQN's epsilon falls from where it was;
    - the episodes that are under way, if nobody has reset the environments since;
    - if it comes from a checkpoint, the random states and all the rest of that moment;
    - off-policy with an empty replay buffer, no updates until that holds enough of every skill. A
      discriminator that sees few skills learns to answer those whatever it reads: its loss falls
      towards 0, rewards soar, and all comes back only as the other skills return.

    :param model: about to learn
    :param saved: the state that the model brought along, None for a new discriminator
    :param previous: of the ``learn`` before, with the same model in this process
    :param same_episodes: whether the environments are still in the episodes of that ``learn``
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        saved: State | None,
        previous: "Continuation | None" = None,
        same_episodes: bool = False,
    ) -> None:
        self.model, self.same_episodes = model, same_episodes
        progress = {} if saved is None else saved.get("progress", {})
        known = progress.get("total_timesteps", 0)
        self._total: int = known if previous is None else previous._total
        self.steps_before: int = max(0, self._total - model.num_timesteps)
        self._training: State | None = None if saved is None else saved.get(TRAINING)
        if self._training is not None and self.steps_before == 0:
            self.same_episodes = True  # once they are played again
        self.holds: bool = previous is not None and previous.holds
        self.frozen: list[int] = [] if previous is None else previous.frozen
        if isinstance(model, OffPolicyAlgorithm):
            assert model.replay_buffer is not None
            self.holds |= saved is not None and model.replay_buffer.size() == 0
            take_back(model)  # from a ``learn`` that has failed
            self._schedule: Any = None
            if self.steps_before:
                lend(model, "learning_starts", max(0, model.learning_starts - self.steps_before))
                self._explore_on(model)

    def _explore_on(self, model: OffPolicyAlgorithm) -> None:
        """DQN's epsilon falls in each ``learn``: here from where it was, not from 1 again."""
        known = vars(model)
        if "exploration_schedule" in known:
            self._schedule = known["exploration_schedule"]
            names = ("exploration_rate", "exploration_final_eps", "exploration_fraction")
            known["exploration_schedule"] = LinearSchedule(*(known[name] for name in names))

    @property
    def total_timesteps(self) -> int:
        """:return: environment steps of this training and of those that it continues"""
        return self.steps_before + self.model.num_timesteps

    def plan_freeze(self, fraction: float, known: list[int]) -> None:
        """
        :param fraction: of the ``learn`` that begins, at its end, in which the policy is frozen
        :param known: what :attr:`frozen` was when the training stopped. It stays so if the
            training resumes until the same step
        """
        n_steps = int(self.model._total_timesteps) - self.model.num_timesteps
        last = self.total_timesteps + n_steps
        first = last - round(fraction * n_steps)
        self.frozen = known if known[1:] == [last] and fraction else [first, last]

    @property
    def is_frozen(self) -> bool:
        """:return: whether the policy no longer learns, since the training is about to end"""
        first, last = self.frozen
        return first < self.total_timesteps and first < last

    def begin_rollout(self) -> bool:
        """
        Put back the state of the checkpoint, once, and end a pause.

        :return: whether that began new episodes in place of the checkpoint's
        """
        if isinstance(self.model, OffPolicyAlgorithm):
            take_back(self.model, "gradient_steps")
        if self._training is None:
            return False
        state, self._training = self._training, None
        return not restore_training(self.model, state)

    def end_rollout(self, discriminator: Discriminator, hold: int) -> None:
        """
        Before the model trains: let it make no update while its buffer has too few of a skill.

        :param discriminator: the model's
        :param hold: transitions of each skill to wait for; fewer of one that is drawn less often
        """
        self._total = self.total_timesteps  # a later ``learn`` resets the model's counter
        if self.holds:
            assert isinstance(self.model, OffPolicyAlgorithm)
            buffer = self.model.replay_buffer
            assert isinstance(buffer, SkillReplayBuffer)
            p = discriminator.log_p.exp().cpu().numpy()
            counts = np.bincount(buffer.skills[: buffer.size()].ravel(), minlength=len(p))
            enough = counts >= np.round(hold * np.minimum(1, len(p) * p))
            self.holds = not (buffer.full or enough.all())
            if self.holds:
                lend(self.model, "gradient_steps", 0)

    def end_training(self, hold: int) -> None:
        """
        Leave the model's options as they were, and say so if it has learned nothing.

        :param hold: see :meth:`end_rollout`
        """
        if self.holds:
            warnings.warn(
                "The model came without its replay buffer, and made no update in this learn(): the "
                f"new one does not hold {hold} transitions of each skill yet. Train longer, save "
                "the buffer with the model, or use DIAYNCallback(hold=0).",
                stacklevel=2,
            )
        if isinstance(self.model, OffPolicyAlgorithm):
            take_back(self.model)
            if self._schedule is not None:
                vars(self.model)["exploration_schedule"] = self._schedule
