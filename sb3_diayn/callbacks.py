"""The callback that trains the discriminator."""

from functools import cache, partial
from typing import Annotated, Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from sb3_diayn.arguments import (
    ARCHITECTURE,
    Count,
    CountFrom0,
    Fraction,
    JsonDict,
    Layers,
    NegativeNumber,
    Number,
    NumberFrom0,
    PositiveNumber,
    Rule,
    architecture,
    check_options,
    defaults,
)
from sb3_diayn.assembly import build
from sb3_diayn.buffers import batch_device, bind_buffer
from sb3_diayn.callback_list import (
    check_eval_envs,
    check_not_nested,
    check_single,
    quiet_evaluations,
)
from sb3_diayn.checkpoints import last_good_checkpoint
from sb3_diayn.checks import (
    check_algorithm_options,
    check_buffer,
    check_draws,
    check_finite,
    check_gate,
    check_info,
    check_model,
    check_normalized,
    check_objective,
    check_read_actions,
    check_saved,
    check_seen,
    check_step,
    check_task_reward,
    find_change,
    has_even_strata,
    losses_of,
    normalizes_observations,
)
from sb3_diayn.discriminator import Batch, Discriminator
from sb3_diayn.extractors import ObsIndices, resolve_selection
from sb3_diayn.lent_options import lend
from sb3_diayn.model_zip import (
    STATE_ATTRIBUTE,
    STATE_FORMAT,
    LiveState,
    check_state,
    pack_state,
    unpack_state,
)
from sb3_diayn.observations import describe_space
from sb3_diayn.played import EpisodeReturns, SkillsSeen
from sb3_diayn.processor import leave_cores_to_sbx
from sb3_diayn.representation import OBJECTIVES
from sb3_diayn.reward_sync import attach_wrappers
from sb3_diayn.rewards import SkillReward
from sb3_diayn.rollouts import SkillRollout
from sb3_diayn.skills import SkillSpace
from sb3_diayn.trainer import DiscriminatorTrainer, State, default_batch_size
from sb3_diayn.training_state import Continuation, begin_episodes
from sb3_diayn.user_code import ExtractorClass, ObsFunction, UserCode

OBJECTIVE = Rule(lambda name: name in OBJECTIVES, " or ".join(map(repr, OBJECTIVES)))
P_Z_BATCH = 10_000
# Steps of each learn() in which the environments' wrappers are looked at.
CHECKED_STEPS = 20


class DIAYNCallback(BaseCallback):
    """
    Trains the discriminator of DIAYN together with a stock SB3 model, and rewards the model with
    it.

    ``model.learn(..., callback=DIAYNCallback())`` is all that it needs; the number of skills comes
    from the ``DIAYNWrapper`` of the environment. An off-policy model gets a
    :class:`~sb3_diayn.buffers.SkillReplayBuffer`, which computes the rewards with the present
    discriminator. For an on-policy model the discriminator does not change within a rollout.
    ``model.save`` stores the discriminator in the model's zip, and a later ``learn`` with a new
    ``DIAYNCallback()`` continues with it and with its options, see the warning below.
    Paper: https://arxiv.org/abs/1802.06070

    .. warning::
        When a training is continued, an option that is given at its default counts as not given:
        after a training with ``learning_rate=1e-2``, ``DIAYNCallback(learning_rate=3e-4)``, the
        default, continues with 1e-2. ``verbose=1`` prints which options continue.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import SAC
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper
        >>> env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
        >>> model = SAC("MlpPolicy", env, policy_kwargs={"net_arch": [16]})
        >>> callback = DIAYNCallback(net_arch=[16])
        >>> model = model.learn(150, callback=callback)
        >>> callback.discriminator.n_skills
        4

    :param net_arch: units of each hidden layer of the discriminator
    :param learning_rate: of the discriminator (Adam)
    :param weight_decay: of the discriminator (AdamW); 0 for none
    :param max_grad_norm: bound of the norm of the discriminator's gradient; None for none
    :param batch_size: transitions per update of the discriminator. None: on-policy the model's
        batch size; off-policy half of the model's batch, but 128 at least
    :param n_updates: updates of the discriminator per update of the policy
    :param n_rollouts: on-policy, rollouts that the discriminator learns from: the newest one and,
        in each epoch, as many transitions of those before, so that it does not forget the skills
        that a rollout lacks
    :param obs_indices: what the discriminator reads of the observation. Of a vector: a list of
        indices, a slice or ``"start:stop"``. Of a ``Dict``: a key, a list of keys or a mapping from
        keys to such indices. None for everything
    :param obs_function: a function that reads the observation instead. It maps a batch, a tensor or
        a dict of tensors, to features of shape ``(n, f)``. A text ``"module:function"`` names one
    :param features_extractor_class: what makes features of the observation, as a policy of SB3
        takes it: a subclass of SB3's ``BaseFeaturesExtractor``, which learns with the
        discriminator. A text ``"module.Class"`` names one. None for SB3's choice
    :param features_extractor_kwargs: further arguments of that class
    :param normalized_image: treat boxes of three dimensions as images, as SB3's option does
    :param use_actions: make the action a further input of the discriminator
    :param normalize_obs: scale the discriminator's inputs by a running mean and deviation
    :param objective: ``"diayn"``, or ``"metra"``: skills that travel far without chosen
        coordinates, see :class:`~sb3_diayn.representation.Representation`. Use ``normalize_obs``
        with it. What this class says of the discriminator then holds for METRA's phi
    :param dual_slack: of METRA, epsilon of the constraint
    :param dual_learning_rate: of METRA's dual variable (Adam); None for ``learning_rate``
    :param spectral_norm: bound how fast log q may change from state to state, see
        :class:`~sb3_diayn.discriminator.Discriminator`
    :param cross_fit: off-policy, two discriminators: each learns from half of the episodes and
        rewards the other half. Outside of the training, their average counts
    :param frozen_fraction: off-policy, fraction of each ``learn``, at its end, in which the policy
        is frozen and only the discriminator learns. It then knows the skills that the training
        ends with, not older ones. As many steps as the replay buffer holds are enough
    :param log_q_min: lower bound of log q(z|s') in rewards (nats); None for none. With -log K no
        skill gains from ending its episode early
    :param absorbing: a terminal state gives its skill reward again in each step that would follow,
        so that no skill gains or loses by ending its episode (Kostrikov et al., 2019, arXiv
        1809.02925)
    :param step_cost: what each step costs (nats). With ``absorbing`` a terminal state is rewarded
        without it, so skills hurry to the ends at which they are recognised
    :param subtract_log_p: reward log q(z|s') - log p(z), equation 3 of the paper; if False,
        log q(z|s')
    :param reward_scale: factor of the whole reward, ``reward_scale * (skill_reward_weight * skill
        reward + task_reward_weight * task reward - step_cost)``
    :param skill_reward_weight: weight of the skill reward
    :param task_reward_weight: weight of the environment's own reward
    :param min_task_return: the gate of SMERL (Kumar et al., 2020, arXiv 2010.14484): the skill
        reward counts only in episodes with at least this task return. Off-policy only, and with a
        ``task_reward_weight``
    :param learn_p_z: learn p(z) as the original code can: the softmax of the mean log q(z|s').
        Figure 4 of the paper shows how this collapses the number of skills. It needs the rule
        ``"uniform"``
    :param p_z_update_freq: environment steps between two updates of a learned p(z)
    :param sync_freq: environment steps between two updates of the discriminator that wrappers in
        other processes have. Off-policy, where it only feeds the logs
    :param hold: when an off-policy model resumes with an empty replay buffer, wait for this many
        transitions of each skill (or a full buffer) before updating; 0 disables waiting
    :param verbose: 1 to say when a saved discriminator is continued, 0 for silence
    :raises ValueError: if an option is not allowed, or in ``learn`` if the model cannot learn
        skills right (the message says why and what to do)
    """

    discriminator: Discriminator
    trainer: DiscriminatorTrainer
    skill_reward: SkillReward

    def __init__(
        self,
        *,
        net_arch: Annotated[Layers, ARCHITECTURE] = (128, 128),
        learning_rate: PositiveNumber = 3e-4,
        weight_decay: NumberFrom0 = 0.0,
        max_grad_norm: PositiveNumber | None = None,
        batch_size: Count | None = None,
        n_updates: Count = 1,
        n_rollouts: Count = 1,
        obs_indices: Annotated[ObsIndices, ARCHITECTURE] = None,
        obs_function: ObsFunction | str | None = None,
        features_extractor_class: ExtractorClass | str | None = None,
        features_extractor_kwargs: Annotated[JsonDict | None, ARCHITECTURE] = None,
        normalized_image: Annotated[bool, ARCHITECTURE] = False,
        use_actions: Annotated[bool, ARCHITECTURE] = False,
        normalize_obs: Annotated[bool, ARCHITECTURE] = False,
        objective: Annotated[str, ARCHITECTURE, OBJECTIVE] = "diayn",
        dual_slack: PositiveNumber = 1e-3,
        dual_learning_rate: PositiveNumber | None = None,
        spectral_norm: Annotated[bool, ARCHITECTURE] = False,
        cross_fit: Annotated[bool, ARCHITECTURE] = False,
        frozen_fraction: Fraction = 0.0,
        log_q_min: NegativeNumber | None = None,
        absorbing: bool = False,
        step_cost: NumberFrom0 = 0.0,
        subtract_log_p: bool = True,
        reward_scale: PositiveNumber = 1.0,
        skill_reward_weight: NumberFrom0 = 1.0,
        task_reward_weight: Number = 0.0,
        min_task_return: Number | None = None,
        learn_p_z: bool = False,
        p_z_update_freq: Count = 1000,
        sync_freq: Count = 1000,
        hold: CountFrom0 = 256,
        verbose: int = 0,
    ) -> None:
        arguments = locals()
        super().__init__(verbose)
        given = {name: arguments[name] for name in _default_options()}
        self.options = check_options(DIAYNCallback, given)
        check_task_reward(self.options)
        check_objective(self.options, _default_options())
        self._code = UserCode.load(given)
        self.options |= self._code.paths()  # a zip keeps names
        self._given = {k: v for k, v in self.options.items() if v != _default_options()[k]}
        self._live_state: LiveState | None = None
        self._is_normalized = False
        self._is_set_up = False
        self._last_p_z = self._last_sync = 0

    # -- set-up ------------------------------------------------------------------------------

    def _init_callback(self) -> None:
        check_not_nested(self)
        self.n_skills = check_model(self.model)
        check_gate(self.model, self.options["min_task_return"])
        self.skill_space = SkillSpace.from_vec_env(self.training_env, self.n_skills)
        self._begin_episodes_if_stale()
        # Asked for now: the zoo closes the environments before it saves.
        self._env_id = self.training_env.get_attr("env_id")[0]
        self._begin_continuation()
        if self.options["use_actions"]:
            check_read_actions(self.model, self.training_env)
        if self.options["learn_p_z"]:
            check_draws(self.training_env)
        same_episodes = self._continuation.same_episodes
        if isinstance(self.model, OffPolicyAlgorithm):
            self._buffer = bind_buffer(
                self.model, self.skill_space, self.skill_reward, same_episodes
            )
            check_buffer(self._buffer)
        elif isinstance(self.model, OnPolicyAlgorithm):
            self._rollout = SkillRollout(self.model, self.skill_space, self.skill_reward)
        self._join_environments()
        self._steps_to_check, self._env_steps = CHECKED_STEPS, list[int]()
        self._n_threads = leave_cores_to_sbx(self.model)
        self._is_set_up = True

    def _begin_episodes_if_stale(self) -> None:
        """
        A callback that ends a training ends it before SB3 takes up what the last step has
        returned, and others may have played in the environments since. New episodes begin then.
        """
        model, env = self.model, self.training_env
        live = getattr(model, STATE_ATTRIBUTE, None)
        is_past = (
            isinstance(live, LiveState)
            and model.num_timesteps > 0  # else SB3 has just reset the environments
            and not live.is_present(model)
        )
        # After set_env(..., force_reset=False).
        is_past = is_past or any(obs is None for obs in env.get_attr("last_obs"))
        if is_past or find_change(env, model._last_obs, self.skill_space):
            begin_episodes(model, env)
            check_seen(env, model._last_obs, self.skill_space)

    def _begin_continuation(self) -> None:
        """Take up what the model brings along: from another ``learn``, a zip or a checkpoint."""
        known = getattr(self.model, STATE_ATTRIBUTE, None)
        live = known if isinstance(known, LiveState) else None
        same_episodes = live is not None and live.is_present(self.model)
        previous = None if live is None else live.owner._continuation
        is_normalized = normalizes_observations(self.model)
        saved: State | None = None
        is_own = live is not None and live is self._live_state
        self._is_loaded = known is not None and live is None
        if is_own:
            check_normalized({"vec_normalize": self._is_normalized}, is_normalized)
        else:
            saved = dict(known.items()) if known else None
            self._is_normalized = is_normalized  # also when the model gets another environment
            self._take_over(live, saved)
        self._continuation = Continuation(self.model, saved, previous, same_episodes)
        # Copies in other processes keep their rhythm, whichever callback sends the next ones.
        if live is not None and same_episodes and (is_own or live.owner.has_copies(self.options)):
            self._shares = live.owner._shares
        else:
            self._attach_wrappers()
        self._restore_progress(self._progress() if is_own else (saved or {}).get("progress", {}))

    def _take_over(self, live: LiveState | None, saved: State | None) -> None:
        """From now on the model's discriminator is this callback's."""
        if self._live_state is not None:
            self._live_state.freeze()  # a model of before keeps the discriminator it had
        self._returns = EpisodeReturns()
        self._build(saved)
        if live is not None:
            self.trainer.past.extend(live.owner.trainer.past)
        self._live_state = LiveState(self, self._code)
        setattr(self.model, STATE_ATTRIBUTE, self._live_state)

    def _restore_progress(self, progress: dict[str, Any]) -> None:
        """What has been counted so far; with new episodes only what does not belong to them."""
        seen = progress.get("skills_seen", [])
        self._seen = SkillsSeen(self.n_skills, seen, self.model.num_timesteps)
        fraction = self.options["frozen_fraction"]
        self._continuation.plan_freeze(fraction, progress.get("frozen", []))
        if not self._continuation.same_episodes:
            progress = {}
        self._returns.start(self.model.n_envs, progress)
        self._last_p_z = progress.get("last_p_z", self.model.num_timesteps)
        self._last_sync = progress.get("last_sync", self.model.num_timesteps)

    def has_copies(self, options: dict[str, Any]) -> bool:
        """
        :param options: of another callback
        :return: whether the environments have copies that would be the same under those
        """
        return not self._shares and options == self.options

    def _join_environments(self) -> None:
        """Let the environments draw different skills at a time, also if nobody has seeded them."""
        seed = self.model.seed
        if seed is None:
            seed = int(np.random.SeedSequence().generate_state(1)[0])
        for index in range(self.training_env.num_envs):
            self.training_env.env_method("join", index, seed, indices=[index])
        if self._is_loaded:
            self.training_env.env_method("go_on", self._continuation.total_timesteps)
        if not has_even_strata(self.training_env, self.n_skills):
            self.training_env.env_method("set_skill", "balanced")

    def _on_training_start(self) -> None:
        check_not_nested(self)  # within a list, SB3 says so only now
        callback = self.locals.get("callback")
        check_single(callback, DIAYNCallback)
        check_eval_envs(callback, self.training_env)
        quiet_evaluations(callback)

    def _build(self, saved: State | None) -> None:
        space = self.skill_space.env_space
        if "obs_indices" in self._given:  # JSON knows no slice
            self._given["obs_indices"] = resolve_selection(self._given["obs_indices"], space)
        if saved is not None:
            fixed = {k: v for k, v in self._given.items() if k in architecture(DIAYNCallback)}
            check_state(saved, "the model")
            saved["options"] = _default_options() | saved["options"]  # an older version had fewer
            check_saved(saved, self.n_skills, fixed)
            check_normalized(saved, self._is_normalized)
            self._code.check(saved["options"])
        self.options = (saved["options"] if saved else _default_options()) | self._given
        check_objective(self.options, _default_options())
        check_algorithm_options(self.model, self.options)
        # Initial parameters that are about to be replaced must not move torch's random numbers.
        with th.random.fork_rng(enabled=saved is not None):
            self.discriminator, self.trainer, self.skill_reward = build(
                space,
                self.model.action_space,
                self.n_skills,
                self.options,
                self.model.seed,
                batch_device(self.model),
                self._code,
            )
        if saved is not None:
            self.trainer.restore(unpack_state(saved))
            if self.verbose:
                print(f"Continuing with a discriminator after {self.trainer.n_updates} updates")
                defaults, given = _default_options(), self._given
                kept = {
                    k: v for k, v in self.options.items() if v != defaults[k] and k not in given
                }
                if kept:
                    print("Its options: " + ", ".join(f"{k}={v!r}" for k, v in kept.items()))

    def _attach_wrappers(self) -> None:
        self._last_sync = self.model.num_timesteps
        self._shares = attach_wrappers(self.training_env, self.skill_reward)

    # -- training ----------------------------------------------------------------------------

    def _on_rollout_start(self) -> None:
        if self._continuation.begin_rollout():
            self._returns.start(self.model.n_envs, {})
            if isinstance(self.model, OffPolicyAlgorithm):
                self._buffer.restart_episodes()
        on_policy = isinstance(self.model, OnPolicyAlgorithm)
        is_due = self.model.num_timesteps - self._last_sync >= self.options["sync_freq"]
        self._check_finite(losses_of(self.logger))  # before a spoiled policy acts
        self._stop_learning()
        if isinstance(self.model, OnPolicyAlgorithm) and self.discriminator.reads_obs:
            self._rollout.begin(self.training_env)
        if self._steps_to_check:  # a checkpoint that was resumed has just played its episodes
            self._env_steps = self.training_env.get_attr("total_steps")
        if not self._shares and (on_policy or is_due):
            self._attach_wrappers()

    def _on_training_end(self) -> None:
        if self._is_set_up:  # the zoo also ends what was refused at the start
            self._stop_learning()
            self._continuation.end_training(self.options["hold"])
            th.set_num_threads(self._n_threads)
            self._seen.end_training(self.model.num_timesteps)

    def _stop_learning(self) -> None:
        """The model has trained: learn from no sample that follows, and from all before."""
        if isinstance(self.model, OffPolicyAlgorithm):
            self._buffer.learn = None
        elif isinstance(self.model, OnPolicyAlgorithm):
            self._rollout.clear()
        self.trainer.step()

    def _on_step(self) -> bool:
        infos, dones = self.locals["infos"], self.locals["dones"]
        if self._steps_to_check:
            check_not_nested(self)
            check_info(infos[0], ("skill", "task_reward", "skill_reward"))
        self._check_finite(self._returns.add(infos, dones))
        if self._steps_to_check:
            self._steps_to_check -= 1
            self._env_steps = check_step(
                self.training_env,
                self.skill_space,
                self.skill_reward,
                self.locals["new_obs"],
                self.locals["rewards"],
                dones,
                infos,
                self._env_steps,
            )
        self._seen.add(infos, self.model.num_timesteps)
        if isinstance(self.model, OnPolicyAlgorithm):
            actions = self.locals.get("clipped_actions", self.locals["actions"])  # MaskablePPO
            memory = self.locals.get("lstm_states")  # RecurrentPPO
            self._rollout.add(self.locals["new_obs"], actions, dones, infos, memory)
        elif dones.any():
            self._log()
        assert self._live_state is not None
        self._live_state.see(self.model, self.locals["new_obs"])
        return True

    def _on_rollout_end(self) -> None:
        self._continuation.end_rollout(self.discriminator, self.options["hold"])
        if isinstance(self.model, OffPolicyAlgorithm):
            self._train_off_policy(self.model)
        elif isinstance(self.model, OnPolicyAlgorithm):
            self._train_on_policy(self.model)
            self._log()

    def _train_off_policy(self, model: OffPolicyAlgorithm) -> None:
        """Learn from the batches that the model is about to draw, or from own ones."""
        batch_size: int = self.options["batch_size"] or default_batch_size(model.batch_size)
        is_frozen = self._continuation.is_frozen
        if self.options["n_updates"] == 1 and batch_size <= model.batch_size and not is_frozen:
            self._buffer.learn = partial(self.trainer.learn, (model.batch_size, batch_size))
        elif model.num_timesteps > model.learning_starts:
            gradient_steps = int(model.gradient_steps)
            if gradient_steps < 0:
                gradient_steps = self.locals["num_collected_steps"] * model.n_envs
            for _ in range(gradient_steps * self.options["n_updates"]):
                self.trainer.update(self._sample(batch_size))
        if is_frozen:
            lend(model, "gradient_steps", 0)  # until the next rollout begins
        self._update_p_z()

    def _sample(self, batch_size: int) -> Batch:
        return self._buffer.sample_transitions(batch_size, self.trainer.rng)

    def _train_on_policy(self, model: OnPolicyAlgorithm) -> None:
        """As many passes over the rollout as the model makes, in batches of its size."""
        batch = self._rollout.pop(model.device)
        batch_size = self.options["batch_size"] or getattr(model, "batch_size", None)
        n_epochs = getattr(model, "n_epochs", 1) * self.options["n_updates"]
        self.trainer.update_epochs(batch, n_epochs, batch_size)
        self._update_p_z(batch)

    def _update_p_z(self, batch: Batch | None = None) -> None:
        is_due = self.model.num_timesteps - self._last_p_z >= self.options["p_z_update_freq"]
        if self.options["learn_p_z"] and is_due and not self._continuation.holds:
            self._last_p_z = self.model.num_timesteps
            self.trainer.step()
            self.trainer.update_p_z(batch or self._sample(P_Z_BATCH))
            self._attach_wrappers()

    # -- reporting ---------------------------------------------------------------------------

    def metrics(self) -> dict[str, float]:
        """:return: what is logged under ``diayn/``, by name, as it is now"""
        seen = {"skills_seen": len(self._seen.seen)}
        return self.trainer.metrics() | seen | self._returns.means()

    def _log(self) -> None:
        metrics = self.metrics()
        self._check_finite(metrics)
        named = {f"diayn/{k}": v for k, v in metrics.items()}
        for name, value in named.items():
            self.logger.record(name, value)
        self.trainer.remember(named | {"time/total_timesteps": self._continuation.total_timesteps})

    def _check_finite(self, values: dict[str, Any]) -> None:
        find = partial(last_good_checkpoint, self.locals.get("callback"), self._code)
        check_finite(values, self.model, self.discriminator, find)

    def state(self) -> State:
        """
        :return: all that is needed to continue this training, as JSON can hold it: the format's
            version, the spaces, options, counters, random state and all learned arrays
        """
        self.trainer.step()  # of a batch that the model is through with
        return {
            "format_version": STATE_FORMAT,
            "algo": type(self.model).__name__,
            "env_id": self._env_id,
            "n_skills": self.n_skills,
            "observation_space": describe_space(self.discriminator.observation_space),
            "action_space": describe_space(self.discriminator.action_space),
            "options": self.options,
            "vec_normalize": self._is_normalized,
            "progress": self._progress(),
            **pack_state(self.trainer.state()),
        }

    def _progress(self) -> State:
        """What belongs to the episodes under way and to the steps so far, as JSON can hold it."""
        return {
            "total_timesteps": self._continuation.total_timesteps,
            "last_p_z": self._last_p_z,
            "last_sync": self._last_sync,
            "frozen": self._continuation.frozen,
            "skills_seen": sorted(self._seen.seen),
            **self._returns.state(),
        }


@cache
def _default_options() -> dict[str, Any]:
    """Each option of the callback that belongs to the training, with its default."""
    return {k: v for k, v in defaults(DIAYNCallback).items() if k != "verbose"}
