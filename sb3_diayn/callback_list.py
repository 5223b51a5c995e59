"""The callbacks of a ``learn``: which of them SB3 calls, and what they must not do."""

from collections.abc import Iterator
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn.wrappers import DIAYNWrapper


def callbacks_in(callback: Any) -> Iterator[BaseCallback]:
    """
    Those that SB3 calls: what a user's own callback merely refers to is left out.

    :param callback: the callback of a ``learn``, often a ``CallbackList``, or None
    :return: it and all callbacks that it calls
    """
    if callback is None:
        return
    yield callback
    if isinstance(callback, CallbackList):
        for child in callback.callbacks:
            yield from callbacks_in(child)
    elif isinstance(callback, EventCallback):
        yield from callbacks_in(callback.callback)
        yield from callbacks_in(getattr(callback, "callback_on_new_best", None))


def check_not_nested(callback: BaseCallback) -> None:
    """
    :param callback: of this package
    :raises ValueError: if another callback decides when it is called: it would miss rollouts
    """
    if isinstance(callback.parent, EventCallback):
        name, parent = type(callback).__name__, type(callback.parent).__name__
        raise ValueError(
            f"callback={parent}({name}()) calls {name} from time to time only; expected it "
            f"outside. Pass callback=[{name}(), {parent}(...)]."
        )


def check_single(callback: Any, kind: type[BaseCallback]) -> None:
    """
    :param callback: of a ``learn``, with all that is inside of it
    :param kind: a class of which it may have one
    :raises ValueError: if it has more
    """
    n_found = sum(isinstance(each, kind) for each in callbacks_in(callback))
    if n_found > 1:
        raise ValueError(
            f"callback has {kind.__name__} {n_found} times; expected once: a model has one "
            "discriminator. Leave the others out; a configuration file may have one, too."
        )


def check_eval_envs(callback: Any, training_env: VecEnv) -> None:
    """
    :param callback: the callback of a ``learn``, often a ``CallbackList``
    :param training_env: the environments of the training
    :raises ValueError: if a callback evaluates in these
    """
    for each in callbacks_in(callback):
        for name in ("eval_env", "given_env"):
            env = getattr(each, name, None)
            if env is not None and shares_environments(env, training_env):
                raise ValueError(
                    f"{type(each).__name__}(eval_env) evaluates in the environment of the "
                    "training, which it would reset; expected another one. Make one for it."
                )


def shares_environments(env: Any, training_env: VecEnv) -> bool:
    """
    :param env: an environment, vectorised or not
    :param training_env: vectorised environments
    :return: whether the two have an environment in common
    """
    return bool({id(each) for each in _single(env)} & {id(each) for each in _single(training_env)})


def _single(env: Any) -> list[Any]:
    inner = env.unwrapped
    envs = [each.unwrapped for each in inner.envs] if isinstance(inner, DummyVecEnv) else []
    return [inner, *envs]


def quiet_evaluations(callback: Any) -> None:
    """
    Tell the environments of evaluation callbacks that they are meant to return the task reward,
    so that they do not warn of a missing discriminator.

    :param callback: the callback of a ``learn``, often a ``CallbackList``
    """
    for each in callbacks_in(callback):
        eval_env = getattr(each, "eval_env", None)
        if isinstance(eval_env, VecEnv) and all(eval_env.env_is_wrapped(DIAYNWrapper)):
            eval_env.env_method("set_skill_reward", None)
