"""What is refused, early and with a remedy."""

import math
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from gymnasium.utils.env_checker import data_equivalence
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import (
    DictReplayBuffer,
    NStepReplayBuffer,
    ReplayBuffer,
)
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecFrameStack,
    VecTransposeImage,
    is_vecenv_wrapped,
    unwrap_vec_normalize,
)
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer
from torch import nn

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.observations import Obs, as_channels_first, index_obs, map_obs, map_spaces
from sb3_diayn.rewards import SkillReward
from sb3_diayn.skills import SKILL_RULES, SkillSpace
from sb3_diayn.wrappers import DIAYNWrapper

# SB3 chooses one of these itself; the callback replaces it.
STOCK_BUFFERS = (ReplayBuffer, DictReplayBuffer, NStepReplayBuffer)


def check_task_reward(options: Mapping[str, Any]) -> None:
    """
    :param options: of ``DIAYNCallback``
    :raises ValueError: if a task return is asked for, and no task reward
    """
    if options["min_task_return"] is not None and options["task_reward_weight"] <= 0:
        raise ValueError(
            f"min_task_return={options['min_task_return']!r} limits the skill reward to episodes "
            "with a high task return, but "
            f"task_reward_weight={options['task_reward_weight']!r} does not reward the task; "
            "expected a positive task_reward_weight. Add task_reward_weight=1."
        )


# Options that mean nothing to METRA, and why.
NOT_OF_METRA = {
    "use_actions": "phi reads observations alone",
    "spectral_norm": "a dual variable bounds how far phi moves in a step",
    "cross_fit": "the reward is a distance, not a probability that could be learned by heart",
    "log_q_min": "its reward has no log q(z|s')",
    "absorbing": "an absorbing state does not move phi",
    "subtract_log_p": "its reward has no log p(z)",
    "learn_p_z": "its skills are drawn uniformly",
}
OF_METRA = ("dual_slack", "dual_learning_rate")


def check_objective(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """
    :param options: of ``DIAYNCallback``
    :param defaults: their defaults
    :raises ValueError: if one has no meaning for the objective
    """
    is_metra = options["objective"] == "metra"
    names = NOT_OF_METRA if is_metra else dict.fromkeys(OF_METRA, "it has no constraint")
    for name, reason in names.items():
        if options[name] != defaults[name]:
            raise ValueError(
                f"{name}={options[name]!r} has no meaning with "
                f"objective={options['objective']!r}: {reason}; expected {defaults[name]!r}. "
                "Leave it out."
            )


def check_saved(saved: dict[str, Any], n_skills: int, given: dict[str, Any]) -> None:
    """
    :param saved: the state that a model brings along
    :param n_skills: the number of skills of the environment
    :param given: options of ``DIAYNCallback`` that are its discriminator's architecture, those at
        their defaults aside
    :raises ValueError: if they describe another discriminator than the saved one
    """
    if saved["n_skills"] != n_skills:
        raise ValueError(
            f"n_skills={n_skills} of the environment does not match the saved model; expected "
            f"{saved['n_skills']}. Use DIAYNWrapper(env, n_skills={saved['n_skills']})."
        )
    for name in given:
        if given[name] != saved["options"].get(name):
            raise ValueError(
                f"{name}={given[name]!r} does not match the saved discriminator; expected "
                f"{saved['options'].get(name)!r}. Leave it out to continue with the saved one, or "
                "train a new model."
            )


def check_model(model: BaseAlgorithm) -> int:
    """
    :param model: a model with its training environment
    :return: the number of skills of the environment
    :raises ValueError: if the model cannot learn skills right
    """
    if not isinstance(model, (OffPolicyAlgorithm, OnPolicyAlgorithm)):
        raise ValueError(
            f"model={type(model).__name__} collects no transitions that a discriminator could "
            "learn from; expected an off-policy or on-policy algorithm. Use SAC, TQC or PPO."
        )
    env = model.get_env()
    assert env is not None
    n_skills = check_env(env)
    vec_normalize = model.get_vec_normalize_env()
    if vec_normalize is not None and vec_normalize.norm_reward:
        raise ValueError(
            "norm_reward=True scales rewards by the spread of other rewards; expected False. Use "
            "VecNormalize(env, norm_reward=False), or normalize: {norm_reward: false} in the zoo."
        )
    _check_actions(model.action_space)
    _check_observation(model, env, n_skills)
    if isinstance(model, OffPolicyAlgorithm):
        _check_off_policy(model)
    return n_skills


def check_gate(model: BaseAlgorithm, min_task_return: float | None) -> None:
    """
    :param model: a model
    :param min_task_return: the option of ``DIAYNCallback``
    :raises ValueError: if the model is rewarded before an episode's return is known
    """
    if min_task_return is not None and not isinstance(model, OffPolicyAlgorithm):
        raise ValueError(
            f"min_task_return={min_task_return} needs rewards that wait for the end of an "
            f"episode, and {type(model).__name__} is rewarded before; expected an off-policy "
            "algorithm. Use SAC, or leave min_task_return out."
        )


def check_algorithm_options(model: BaseAlgorithm, options: Mapping[str, Any]) -> None:
    """
    :param model: a model
    :param options: of ``DIAYNCallback``
    :raises ValueError: if one is for the other kind of algorithm, or does not fit the model's
    """
    name = type(model).__name__
    if options["absorbing"] and model.gamma == 1:  # type: ignore[attr-defined]
        raise ValueError(
            f"absorbing=True counts a terminal state 1 / (1 - gamma) times, and {name} has "
            "gamma=1; expected gamma below 1. Lower gamma, or leave absorbing out."
        )
    if options["cross_fit"] and isinstance(model, OnPolicyAlgorithm):
        raise ValueError(
            f"cross_fit=True needs a replay buffer, which {name} does not have; expected False. "
            "Leave it out: an on-policy model's discriminator rewards a rollout before it learns "
            "from it, so no reward is for an episode that it has learned."
        )
    if options["frozen_fraction"] and isinstance(model, OnPolicyAlgorithm):
        raise ValueError(
            f"frozen_fraction={options['frozen_fraction']} is for off-policy models, and {name} "
            "is on-policy; expected 0. Leave it out, and let the policy's learning rate fall to 0: "
            "the discriminator then knows the skills at the end."
        )
    if options["n_rollouts"] > 1 and isinstance(model, OffPolicyAlgorithm):
        raise ValueError(
            f"n_rollouts={options['n_rollouts']} is for on-policy models, and {name} has a replay "
            "buffer; expected 1. Leave it out."
        )


def _check_actions(space: spaces.Space[Any]) -> None:
    """SB3 divides by ``high - low``."""
    if isinstance(space, spaces.Box) and (space.low == space.high).any():
        index = np.argwhere(space.low == space.high)[0].tolist()
        raise ValueError(
            f"action_space={space} leaves no choice at {index}, where low equals high; expected "
            "low below high. Leave this action out, for example with "
            "gymnasium.wrappers.TransformAction."
        )


def check_read_actions(model: BaseAlgorithm, env: VecEnv) -> None:
    """
    :param model: a model whose discriminator reads actions
    :param env: its environments
    :raises ValueError: if a wrapper outside of ``DIAYNWrapper`` changes actions
    """
    for space in env.get_attr("env_action_space"):
        if space != model.action_space:
            raise ValueError(
                f"use_actions=True reads actions of {model.action_space}, and DIAYNWrapper gets "
                f"actions of {space}; expected the same. Put DIAYNWrapper outside the wrapper that "
                "changes actions."
            )


def check_draws(env: VecEnv) -> None:
    """
    :param env: the environments of a model whose p(z) is learned
    :raises ValueError: if they do not draw skills from p(z)
    """
    for rule in env.get_attr("skill_rule"):
        if rule != "uniform":
            raise ValueError(
                f"learn_p_z=True needs skills that are drawn from p(z), and skill={rule!r} draws "
                "each equally often; expected skill='uniform'. Change it, or leave learn_p_z out."
            )


def _check_observation(model: BaseAlgorithm, env: VecEnv, n_skills: int) -> None:
    space = SkillSpace.from_vec_env(env, n_skills)
    if not _is_of(space.env_space, env.get_attr("skill_space")[0].env_space):
        raise ValueError(
            f"observation_space={model.observation_space} differs from the DIAYNWrapper's; "
            "expected it unchanged. Put DIAYNWrapper outside every wrapper that changes the "
            "observation, as the outermost of them, and leave images out of VecNormalize with "
            "norm_obs_keys."
        )
    _check_order(model, env)


def _is_of(space: spaces.Space[Any], own: spaces.Space[Any]) -> bool:
    """Whether it is the environment's own, but for where images have their channels."""
    parts, owns = map_spaces(lambda part: part, space), map_spaces(lambda part: part, own)
    if isinstance(parts, dict) and isinstance(owns, dict):
        return parts.keys() == owns.keys() and all(_is_of(parts[key], owns[key]) for key in parts)
    if type(space) is not type(own):
        return False
    shape: Any = own.shape
    shapes = (shape, shape[-1:] + shape[:-1])
    return space.dtype == own.dtype and space.shape in shapes


def _check_order(model: BaseAlgorithm, env: VecEnv) -> None:
    """What ``VecNormalize`` remembers for a replay buffer has to be what the model sees."""
    normalizer = model.get_vec_normalize_env()
    for wrapper in (VecFrameStack, VecTransposeImage):
        outside = is_vecenv_wrapped(env, wrapper)
        if normalizer is not None and outside and not is_vecenv_wrapped(normalizer, wrapper):
            raise ValueError(
                f"VecNormalize is within {wrapper.__name__}; expected it outside, since what it "
                "read would be stored in another layout than the model's. Use "
                f"VecNormalize({wrapper.__name__}(env))."
            )


def check_env(env: VecEnv) -> int:
    """
    :param env: a vectorised environment to train in
    :return: its number of skills
    :raises ValueError: if it has no ``DIAYNWrapper`` or one that plays a fixed skill
    """
    if not all(env.env_is_wrapped(DIAYNWrapper)):
        raise ValueError(
            "env has no DIAYNWrapper; expected one around each environment. Build the model on "
            "DIAYNWrapper(env, n_skills=20), or name it as env_wrapper in a zoo configuration."
        )
    n_skills = int(env.get_attr("n_skills")[0])
    for rule in env.get_attr("skill_rule"):
        if isinstance(rule, int):
            raise ValueError(
                f"skill={rule} is fixed in a training environment; expected one of {SKILL_RULES}, "
                "since one skill alone cannot be distinguished. Leave skill out, and unset the "
                "variable DIAYN_SKILL."
            )
    return n_skills


def has_even_strata(env: VecEnv, n_skills: int) -> bool:
    """
    :param env: a vectorised environment to train in
    :param n_skills: its number of skills
    :return: whether each skill has as many environments as every other one, where the rule is
        ``"stratified"``; if not, a warning says so
    """
    if "stratified" not in env.get_attr("skill_rule"):
        return True
    counts = np.bincount(env.get_attr("stratum"), minlength=n_skills)
    if counts.min() == counts.max():
        return True
    warnings.warn(
        f"skill='stratified' with n_envs={env.num_envs} gives a skill {counts.min()} to "
        f"{counts.max()} environments; expected the same number for each of "
        f"n_skills={n_skills} skills. Skills are drawn as with skill='balanced'. Take a "
        "multiple of n_skills environments, with consecutive seeds as after env.seed(0).",
        stacklevel=2,
    )
    return False


def _check_off_policy(model: OffPolicyAlgorithm) -> None:
    if model.replay_buffer_class is not None and issubclass(
        model.replay_buffer_class, HerReplayBuffer
    ):
        raise ValueError(
            "replay_buffer_class=HerReplayBuffer relabels goals with task rewards; expected SB3's "
            "own buffer, which the callback replaces. Leave replay_buffer_class out."
        )
    if model.replay_buffer_class not in (None, *STOCK_BUFFERS):
        raise ValueError(
            f"replay_buffer_class={model.replay_buffer_class.__name__} would be replaced by the "
            "buffer of this package; expected SB3's own. Leave replay_buffer_class out."
        )
    if model.optimize_memory_usage:
        raise ValueError(
            "optimize_memory_usage=True takes next observations from rows of another skill; "
            "expected False. Leave it out: the buffer of this package is the smaller one."
        )
    buffer = model.replay_buffer
    if buffer is not None and buffer.observation_space != model.observation_space:
        raise ValueError(
            f"observation_space={model.observation_space} does not match the loaded replay buffer; "
            f"expected {buffer.observation_space}. Use that environment and n_skills."
        )
    if buffer is not None and buffer.n_envs != model.n_envs:
        raise ValueError(
            f"n_envs={model.n_envs} does not match the loaded replay buffer; expected "
            f"{buffer.n_envs}. Use as many environments as when the buffer was saved."
        )


def find_change(env: VecEnv, obs: Any, space: SkillSpace) -> tuple[Obs, Obs] | None:
    """
    :param env: vectorised environments
    :param obs: what they are said to have returned last
    :param space: where the skill sits in an observation
    :return: the first observation that ``DIAYNWrapper`` gave, and what it has become in ``obs``;
        None if they are all the same
    """
    normalizer = unwrap_vec_normalize(env)
    seen = obs if normalizer is None else normalizer.get_original_obs()
    env_obs, skills = space.split_newest(seen)
    own = SkillSpace(space.env_space, space.n_skills)
    for index, given in enumerate(env.get_attr("last_obs")):
        expected, skill = own.split(as_channels_first(given, own.observation_space))
        found = index_obs(env_obs, index)
        if skills[index] != skill or not data_equivalence(_plain(found), _plain(expected)):
            return expected, found
    return None


def check_seen(env: VecEnv, obs: Any, space: SkillSpace) -> None:
    """
    :param env: vectorised environments
    :param obs: what they have returned last
    :param space: where the skill sits in an observation
    :raises ValueError: if that is not what ``DIAYNWrapper`` gives
    """
    change = find_change(env, obs, space)
    if change is not None:
        expected, found = change
        raise ValueError(
            f"env={env} changes the observation {expected} of DIAYNWrapper to {found}; "
            "expected it unchanged. Put DIAYNWrapper outside every wrapper that changes "
            "observations."
        )


def _plain(obs: Obs) -> Any:
    return map_obs(lambda part: np.asarray(part).reshape(-1).tolist(), obs)


def check_step(
    env: VecEnv,
    space: SkillSpace,
    skill_reward: SkillReward,
    obs: Any,
    rewards: npt.NDArray[Any],
    dones: npt.NDArray[np.bool_],
    infos: list[dict[str, Any]],
    steps_before: list[int],
) -> list[int]:
    """
    :param env: the training environments, after a step
    :param space: where the skill sits in an observation
    :param skill_reward: what the wrappers return
    :param obs: that the step has led to
    :param rewards: of the step
    :param dones: of the step
    :param infos: of the step
    :param steps_before: what this function returned after the step before
    :return: steps of each ``DIAYNWrapper`` so far
    :raises ValueError: if a wrapper outside of ``DIAYNWrapper`` repeats actions, or changes
        observations or rewards
    """
    steps = check_repeats(env, dones, steps_before)
    check_seen(env, obs, space)
    own = [skill_reward.mix(info["skill_reward"], info["task_reward"]) for info in infos]
    if not np.allclose(rewards, own, rtol=1e-3, atol=1e-4):
        raise ValueError(
            f"env={env} changes the rewards {own} of DIAYNWrapper to {rewards.tolist()}; expected "
            "them unchanged. Put DIAYNWrapper outside every wrapper that changes rewards, and use "
            "reward_scale of DIAYNCallback to scale them."
        )
    return steps


def check_info(info: dict[str, Any], names: tuple[str, ...] = ("skill", "task_reward")) -> None:
    """
    :param info: of a step
    :param names: what ``DIAYNWrapper`` writes there
    :raises ValueError: if a wrapper outside of ``DIAYNWrapper`` has replaced it
    """
    missing = [name for name in names if name not in info]
    if missing:
        training = ", and use its environment for this training alone" * ("skill_reward" in names)
        raise ValueError(
            f"info={sorted(info)} has no {missing}; expected what DIAYNWrapper writes there. "
            f"Put DIAYNWrapper outside every wrapper that replaces info{training}."
        )


def check_repeats(env: VecEnv, dones: npt.NDArray[np.bool_], steps_before: list[int]) -> list[int]:
    """
    :param env: environments with skills, after a step
    :param dones: of the step
    :param steps_before: what this function returned after the step before; nothing at first
    :return: steps of each ``DIAYNWrapper`` so far
    :raises ValueError: if a wrapper outside of ``DIAYNWrapper`` repeats actions
    """
    steps: list[int] = env.get_attr("total_steps")
    for index, (before, now) in enumerate(zip(steps_before, steps, strict=False)):
        if now - before > 1 and not dones[index]:
            raise ValueError(
                f"env={env} makes {now - before} steps of DIAYNWrapper in one; expected one. Put "
                "DIAYNWrapper outside the wrapper that repeats actions."
            )
    return steps


def normalizes_observations(model: BaseAlgorithm) -> bool:
    """
    :param model: a model with its environment
    :return: whether ``VecNormalize`` normalises what it sees
    """
    normalizer = model.get_vec_normalize_env()
    return normalizer is not None and normalizer.norm_obs


def check_normalized(saved: Mapping[str, Any], is_normalized: bool) -> None:
    """
    :param saved: the state that a model brings along; version 0.1.0 did not record it
    :param is_normalized: whether ``VecNormalize`` normalises the observations that it will see
    :raises ValueError: if it was trained otherwise
    """
    expected = saved.get("vec_normalize")
    if expected in (None, is_normalized):
        return
    if expected:
        raise ValueError(
            "VecNormalize is missing: the model was trained on observations that it normalised; "
            "expected the same statistics. Wrap the environments in "
            'VecNormalize.load("vecnormalize.pkl", venv), or pass it where a function takes '
            "vec_normalize."
        )
    raise ValueError(
        "VecNormalize normalises observations, and the model was trained on raw ones; expected "
        "none, or one with norm_obs=False. Leave it out."
    )


ADVICE = {
    "env": "Look at the environment: an unstable simulation or a division by zero is the usual "
    "cause.",
    "discriminator": "Give DIAYNCallback a lower learning_rate, or a max_grad_norm such as 1.",
    "policy": "Give the model a lower learning_rate, or DIAYNCallback a lower bound log_q_min.",
}


OWNERS = {
    "task_reward": "env",
    "skill_reward": "discriminator",
    "discriminator_loss": "discriminator",
}


def losses_of(logger: Logger) -> dict[str, float]:
    """
    :param logger: of a model, where other callbacks write what they like
    :return: the losses that the model itself has logged since the last dump, by name
    """
    values = logger.name_to_value.items()
    losses = {k: v for k, v in values if k.startswith("train/") and "loss" in k}
    return {k: float(v) for k, v in losses.items() if hasattr(v, "__float__") and np.ndim(v) == 0}


def check_finite(
    values: Mapping[str, float],
    model: BaseAlgorithm,
    discriminator: Discriminator,
    last_good_checkpoint: Callable[[], Path | None],
) -> None:
    """
    Stop a training whose numbers are not finite any more. The values are those that are on the CPU
    anyway; only when one of them is bad, tensors are searched for the cause.

    :param values: losses and rewards by name
    :param model: the model that is trained
    :param discriminator: its discriminator
    :param last_good_checkpoint: finds what to go back to
    :raises ValueError: if one is NaN or infinite
    """
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if not bad:
        return
    owner = OWNERS.get(bad[0], "policy")
    place = f"{bad[0]}={values[bad[0]]}"
    if owner != "env":  # a discriminator spoils the rewards, and so the policy: in this order
        for module_name, module in (("discriminator", discriminator), ("policy", model.policy)):
            found = find_bad_parameter(module)
            if found is not None:
                place, owner = f"{module_name}.{found}", module_name
                break
    good = last_good_checkpoint()
    rest = "No good checkpoint is known" if good is None else f"The last good checkpoint is {good}"
    raise ValueError(
        f"{place} is not finite at step {model.num_timesteps} (noticed in {', '.join(bad)}); "
        f"expected finite numbers. {ADVICE[owner]} {rest}."
    )


def find_bad_parameter(module: nn.Module) -> str | None:
    """
    :param module: a network
    :return: its first number that is not finite, as ``net.0.weight[3, 1]=nan``; None if there is
        none
    """
    for name, tensor in module.state_dict().items():
        bad = (~th.isfinite(tensor)).nonzero().tolist()
        if bad:
            return f"{name}{bad[0] or ''}={tensor[tuple(bad[0])].item()}"
    return None


def check_buffer(buffer: ReplayBuffer) -> None:
    """
    ``DIAYNWrapper`` lets no bad number into a replay buffer, but one that was filled before or
    loaded has not been seen by it.

    :param buffer: a replay buffer
    :raises ValueError: if a stored number is NaN or infinite
    """
    for name in ("observations", "next_observations", "actions", "rewards"):
        stored: Any = getattr(buffer, name)
        for key, array in stored.items() if isinstance(stored, dict) else [(None, stored)]:
            if not np.issubdtype(array.dtype, np.floating):
                continue  # images: many bytes, and finite by their nature
            bad = np.argwhere(~np.isfinite(array[: buffer.size()]))
            if len(bad):
                row, env, *column = bad[0].tolist()
                part = name if key is None else f"{name}[{key!r}]"
                raise ValueError(
                    f"replay_buffer.{part}[{row}, {env}]{column or ''}={array[tuple(bad[0])]} is "
                    f"not finite; expected finite numbers. {ADVICE['env']} Begin with an empty "
                    "replay buffer."
                )
