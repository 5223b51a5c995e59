"""What a model and a set of options must be like, said early and clearly."""

from collections.abc import Callable
from numbers import Real
from typing import Any

from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_diayn.checkpoint import State, check_state
from sb3_diayn.skills import SkillSpace
from sb3_diayn.wrappers import DIAYNWrapper


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
    _check_observation(model, env, n_skills)
    if isinstance(model, OffPolicyAlgorithm):
        _check_off_policy(model)
    return n_skills


def _check_observation(model: BaseAlgorithm, env: VecEnv, n_skills: int) -> None:
    space = SkillSpace.from_augmented(model.observation_space, n_skills)
    if space.env_space.shape != env.get_attr("skill_space")[0].env_space.shape:
        raise ValueError(
            f"observation_space={model.observation_space} is not that of the DIAYNWrapper; "
            "expected it unchanged. Put DIAYNWrapper outside every wrapper that changes the "
            "observation, as the outermost of them; "
            "VecFrameStack and its like are not supported."
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
    for rule in env.get_attr("skill_rule"):
        if isinstance(rule, int):
            raise ValueError(
                f"skill={rule} is fixed in a training environment; expected 'uniform', 'balanced' "
                "or 'cycle', since one skill alone cannot be told apart. Leave skill out, and "
                "unset the variable DIAYN_SKILL."
            )
    return int(env.get_attr("n_skills")[0])


def _check_off_policy(model: OffPolicyAlgorithm) -> None:
    if model.replay_buffer_class is not None and issubclass(
        model.replay_buffer_class, HerReplayBuffer
    ):
        raise ValueError(
            "replay_buffer_class=HerReplayBuffer relabels goals with task rewards; expected SB3's "
            "own buffer, which the callback replaces. Leave replay_buffer_class out."
        )
    if model.optimize_memory_usage:
        raise ValueError(
            "optimize_memory_usage=True takes next observations from rows of another skill; "
            "expected False. Leave it out: the buffer of this package is the smaller one."
        )
    n_steps = getattr(model, "n_steps", 1)
    if n_steps > 1:
        raise ValueError(
            f"n_steps={n_steps} is not supported, since each of the n rewards would have to be "
            "recomputed; expected 1. Leave n_steps out."
        )
    buffer = model.replay_buffer
    if buffer is not None and buffer.observation_space != model.observation_space:
        raise ValueError(
            f"observation_space={model.observation_space} does not match the loaded replay buffer; "
            f"expected {buffer.observation_space}. Use the environment and the n_skills of then."
        )
    if buffer is not None and buffer.n_envs != model.n_envs:
        raise ValueError(
            f"n_envs={model.n_envs} does not match the loaded replay buffer; expected "
            f"{buffer.n_envs}. Use as many environments as when the buffer was saved."
        )


# What cannot change once a discriminator exists.
ARCHITECTURE = ("net_arch", "obs_indices", "use_actions", "normalize_obs")
_POSITIVE_INTEGER = "a positive integer"
_POSITIVE = "a positive number"
_FLAG = "True or False"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < 1e30


RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "net_arch": (
        lambda v: not isinstance(v, str) and all(map(_is_count, v)),
        "a list of positive integers",
    ),
    "learning_rate": (lambda v: _is_number(v) and v > 0, _POSITIVE),
    "batch_size": (lambda v: v is None or _is_count(v), f"{_POSITIVE_INTEGER} or None"),
    "n_updates": (_is_count, _POSITIVE_INTEGER),
    "use_actions": (_is_flag, _FLAG),
    "normalize_obs": (_is_flag, _FLAG),
    "subtract_log_p": (_is_flag, _FLAG),
    "learn_p_z": (_is_flag, _FLAG),
    "log_q_min": (lambda v: v is None or (_is_number(v) and v < 0), "a negative number or None"),
    "reward_scale": (lambda v: _is_number(v) and v > 0, _POSITIVE),
    "skill_reward_weight": (lambda v: _is_number(v) and v >= 0, "a number of at least 0"),
    "task_reward_weight": (_is_number, "a finite number"),
    "p_z_update_freq": (_is_count, _POSITIVE_INTEGER),
    "sync_freq": (_is_count, _POSITIVE_INTEGER),
}


def check_options(options: dict[str, Any]) -> None:
    """
    :param options: the options of ``DIAYNCallback``
    :raises ValueError: if one is out of range
    """
    for name, (is_right, rule) in RULES.items():
        try:
            right = is_right(options[name])
        except TypeError:
            right = False
        if not right:
            raise ValueError(
                f"{name}={options[name]!r} is out of range; expected {rule}. "
                "See the parameters of DIAYNCallback."
            )


def check_saved(saved: State, n_skills: int, given: dict[str, Any]) -> None:
    """
    :param saved: the state that a model brings along
    :param n_skills: the number of skills of the environment
    :param given: options of ``DIAYNCallback`` other than its defaults
    :raises ValueError: if they describe another discriminator than the saved one
    """
    check_state(saved, "the model")
    if saved["n_skills"] != n_skills:
        raise ValueError(
            f"n_skills={n_skills} of the environment does not match the saved model; expected "
            f"{saved['n_skills']}. Use DIAYNWrapper(env, n_skills={saved['n_skills']})."
        )
    for name in ARCHITECTURE:
        if name in given and given[name] != saved["options"][name]:
            raise ValueError(
                f"{name}={given[name]!r} does not match the saved discriminator; expected "
                f"{saved['options'][name]!r}. Leave it out to go on with the saved one, or train "
                "a new model."
            )


def quiet_evaluations(callback: Any) -> None:
    """
    Tell the environments of evaluation callbacks that they are meant to return the task reward,
    so that they do not warn of a missing discriminator.

    :param callback: the callback of a ``learn``, often a ``CallbackList``
    """
    children = [*getattr(callback, "callbacks", []), getattr(callback, "callback", None)]
    for child in children:
        if child is not None:
            quiet_evaluations(child)
    eval_env = getattr(callback, "eval_env", None)
    if isinstance(eval_env, VecEnv) and all(eval_env.env_is_wrapped(DIAYNWrapper)):
        eval_env.env_method("set_skill_reward", None)
