"""N calls of ``learn`` without a reset are one call, in all that is learned and logged."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import QRDQN, TQC, RecurrentPPO
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from tests.helpers.models import small_net

pytestmark = pytest.mark.slow

K, CALLS, STEPS = 4, 3, 60
OFF_POLICY = {"learning_starts": 50, "train_freq": 2, "batch_size": 16, "buffer_size": 500}
ON_POLICY = {"n_steps": 20, "batch_size": 20, "n_epochs": 2}


class Log(BaseCallback):
    """Keeps what ours has put into the log by the end of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        logged = self.logger.name_to_value.items()
        self.rows.append({name: v for name, v in logged if name.startswith("diayn/")})
        return True


def learn(
    cls: Any, env_id: str, n_calls: int, is_new: bool, vec_env: Any = DummyVecEnv, **options: Any
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """``n_calls`` calls of together ``CALLS * STEPS`` steps, and all that came of them."""
    n_envs, normalize = options.pop("n_envs", 1), options.pop("normalize", False)
    wrapper, ours = options.pop("wrapper", {}), options.pop("callback", {})

    def make() -> gym.Env:
        return DIAYNWrapper(gym.make(env_id, max_episode_steps=33), K, **wrapper)

    env = vec_env([make] * n_envs)
    if normalize:
        env = VecNormalize(env, norm_reward=False)
    recurrent = {"net_arch": [8], "lstm_hidden_size": 8}
    model = cls(
        "MlpLstmPolicy" if cls is RecurrentPPO else "MlpPolicy",
        env,
        policy_kwargs=recurrent if cls is RecurrentPPO else small_net(),
        seed=0,
        device="cpu",
        **options,
    )
    callback, log = DIAYNCallback(net_arch=[16], **ours), Log()
    for _ in range(n_calls):
        if is_new:
            callback = DIAYNCallback(net_arch=[16], **ours)
        steps = CALLS * STEPS // n_calls
        model.learn(steps, callback=[callback, log], reset_num_timesteps=False, log_interval=10**9)
    env.close()
    learned = {f"policy.{k}": v for k, v in model.policy.state_dict().items()}
    learned |= {f"discriminator.{k}": v for k, v in callback.discriminator.state_dict().items()}
    learned["history"] = np.array(callback.trainer.history)
    learned["progress"] = callback.state()["progress"]
    if callback.options["min_task_return"] is not None:
        learned["gate"] = model.replay_buffer.gate.returns
    if callback.options["cross_fit"]:
        learned["folds"] = model.replay_buffer.folds.of
    return learned, log.rows


CASES = {
    "SAC": (SAC, "Pendulum-v1", OFF_POLICY),
    "SAC, hold and gate": (
        SAC,
        "Pendulum-v1",
        OFF_POLICY | {"callback": {"min_task_return": -250.0, "task_reward_weight": 1.0}},
    ),
    "SAC, learned p(z)": (
        SAC,
        "Pendulum-v1",
        OFF_POLICY | {"callback": {"learn_p_z": True, "p_z_update_freq": 35}},
    ),
    "SAC, cross-fitted": (
        SAC,
        "Pendulum-v1",
        OFF_POLICY
        | {"n_envs": 2, "callback": {"cross_fit": True}, "wrapper": {"skill_duration": 7}},
    ),
    "PPO, three rollouts": (PPO, "CartPole-v1", ON_POLICY | {"callback": {"n_rollouts": 3}}),
    "SAC, n_steps": (SAC, "Pendulum-v1", OFF_POLICY | {"n_steps": 3}),
    "SAC, skill_duration": (
        SAC,
        "Pendulum-v1",
        OFF_POLICY | {"wrapper": {"skill_duration": 7, "skill": "balanced"}},
    ),
    "SAC, normalised, 3 environments, own batches": (
        SAC,
        "Pendulum-v1",
        OFF_POLICY | {"n_envs": 3, "normalize": True, "callback": {"n_updates": 2}},
    ),
    "SAC, other processes": (
        SAC,
        "Pendulum-v1",
        OFF_POLICY | {"n_envs": 2, "vec_env": SubprocVecEnv, "callback": {"sync_freq": 50}},
    ),
    "TQC": (TQC, "Pendulum-v1", OFF_POLICY),
    "DQN": (DQN, "CartPole-v1", OFF_POLICY | {"exploration_fraction": 1e-9}),
    "QR-DQN": (QRDQN, "CartPole-v1", OFF_POLICY | {"exploration_fraction": 1e-9}),
    "PPO": (PPO, "CartPole-v1", ON_POLICY),
    "PPO, skill_duration, 3 environments": (
        PPO,
        "Pendulum-v1",
        ON_POLICY | {"n_envs": 3, "wrapper": {"skill_duration": 7}},
    ),
    "PPO, learned p(z)": (
        PPO,
        "CartPole-v1",
        ON_POLICY | {"callback": {"learn_p_z": True, "p_z_update_freq": 35}},
    ),
    "A2C": (A2C, "Pendulum-v1", {"n_steps": 10}),
    "RecurrentPPO": (RecurrentPPO, "Pendulum-v1", ON_POLICY | {"wrapper": {"skill_duration": 9}}),
}


def assert_equal(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_equal(one[key], other[key])
    elif isinstance(one, th.Tensor):
        assert th.equal(one, other)
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", CASES)
def test_calls_of_learn_are_one(case):
    cls, env_id, options = CASES[case]
    once, log_of_one = learn(cls, env_id, 1, False, **options)
    for is_new in (False, True):  # one callback, and a new one for each call
        often, log_of_many = learn(cls, env_id, CALLS, is_new, **options)
        for name, value in once.items():
            assert_equal(value, often[name])
        # SB3 empties the log at the end of a call, so some rows of the many calls lack an entry.
        for row, other in zip(log_of_one, log_of_many, strict=True):
            assert other == {name: row[name] for name in other}


def test_environments_that_nobody_has_reset():
    """``set_env`` without a reset leaves the model without an observation."""
    model = PPO("MlpPolicy", DIAYNWrapper(gym.make("Pendulum-v1"), 3), n_steps=16, batch_size=16)
    callback = DIAYNCallback(net_arch=[8])
    model.learn(16, callback=callback)
    model.set_env(DIAYNWrapper(gym.make("Pendulum-v1"), 3), force_reset=False)
    model.learn(16, callback=callback, reset_num_timesteps=False)
    assert model.num_timesteps == 32
