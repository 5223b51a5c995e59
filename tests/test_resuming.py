"""A training that stops at a checkpoint and goes on is the training that never stopped."""

import subprocess
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from sb3_diayn import DIAYNCallback, DIAYNCheckpointCallback, DIAYNWrapper, resume
from sb3_diayn.folders import list_checkpoints
from tests.envs import PointEnv
from tests.models import K, make_callback, small_net

STEPS, SEAM = 240, 100
OFF_POLICY = {"learning_starts": 40, "batch_size": 16, "buffer_size": 500}
ON_POLICY = {"n_steps": 24, "batch_size": 8, "n_epochs": 2}


class RaggedEnv(PointEnv):
    """Episodes of random lengths, so that several environments never end together."""

    def reset(self, **kwargs: Any) -> Any:
        result = super().reset(**kwargs)
        self.length = int(self.np_random.integers(5, 40))
        return result


def envs(env_id: str, n_envs: int, cls: Any = DummyVecEnv, **kwargs: Any) -> Any:
    def make() -> gym.Env:
        env = RaggedEnv() if env_id == "ragged" else gym.make(env_id)
        return DIAYNWrapper(env, K, **kwargs)

    return cls([make] * n_envs)


def build(cls: Any, env: Any, **kwargs: Any) -> Any:
    policy = "MlpLstmPolicy" if cls is RecurrentPPO else "MlpPolicy"
    if cls is RecurrentPPO:
        kwargs["policy_kwargs"] = {"net_arch": [8], "lstm_hidden_size": 8}
    options = {"seed": 0, "device": "cpu", "policy_kwargs": small_net()}
    return cls(policy, env, **(options | kwargs))


def learned(model: Any, callback: DIAYNCallback) -> dict[str, th.Tensor]:
    """Every parameter and every moment of an optimiser, of the model and of the discriminator."""
    states = dict(model.get_parameters())
    states["discriminator"] = callback.discriminator.state_dict()
    states["its optimiser"] = callback.trainer.optimizer.state_dict()
    if getattr(model, "log_ent_coef", None) is not None:
        states["entropy"] = {"log_ent_coef": model.log_ent_coef.detach()}
    found = {}
    for name, state in states.items():
        found |= {f"{name}.{k}": v for k, v in state.items() if isinstance(v, th.Tensor)}
        for index, moments in state.get("state", {}).items():
            found |= {f"{name}.{index}.{k}": v for k, v in moments.items()}
    return found


def differences(one: dict[str, th.Tensor], other: dict[str, th.Tensor]) -> list[str]:
    assert one.keys() == other.keys()
    return [name for name in one if not th.equal(one[name], other[name])]


def go_on(path: Any, env: Any, *further: BaseCallback, **kwargs: Any) -> tuple[Any, DIAYNCallback]:
    model, callback = resume(path, env, device="cpu"), DIAYNCallback(**kwargs)
    steps = STEPS - model.num_timesteps
    model.learn(steps, callback=[callback, *further], reset_num_timesteps=False)
    return model, callback


def noise() -> OrnsteinUhlenbeckActionNoise:
    return OrnsteinUhlenbeckActionNoise(np.zeros(2), np.ones(2))


CASES: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any]]] = {
    "SAC on MuJoCo": (SAC, lambda: envs("InvertedPendulum-v5", 1), OFF_POLICY, {}),
    "SAC on Hopper": (SAC, lambda: envs("Hopper-v5", 3, skill="balanced"), OFF_POLICY, {}),
    "SAC, ragged": (SAC, lambda: envs("ragged", 3, skill="balanced"), OFF_POLICY, {}),
    "SAC, more updates": (
        SAC,
        lambda: envs("ragged", 2, skill_duration=4),
        OFF_POLICY | {"train_freq": 3, "gradient_steps": -1},
        {"n_updates": 2, "normalize_obs": True},
    ),
    "SAC, learned p(z)": (
        SAC,
        lambda: envs("ragged", 2),
        OFF_POLICY,
        {"learn_p_z": True, "p_z_update_freq": 30},
    ),
    "SAC, gSDE": (
        SAC,
        lambda: envs("ragged", 2),
        OFF_POLICY | {"use_sde": True, "sde_sample_freq": 4, "train_freq": 8},
        {},
    ),
    "TD3, noise": (
        TD3,
        lambda: envs("ragged", 2),
        OFF_POLICY | {"action_noise": noise()},
        {},
    ),
    "TQC, VecNormalize": (
        TQC,
        lambda: VecNormalize(envs("ragged", 2), norm_reward=False),
        OFF_POLICY,
        {},
    ),
    "DQN": (DQN, lambda: envs("CartPole-v1", 2), OFF_POLICY, {}),
    "PPO": (PPO, lambda: envs("ragged", 2), ON_POLICY, {}),
    "PPO, gSDE": (PPO, lambda: envs("ragged", 2), ON_POLICY | {"use_sde": True}, {}),
    "PPO, VecNormalize": (
        PPO,
        lambda: VecNormalize(VecMonitor(envs("Hopper-v5", 2)), norm_reward=False),
        ON_POLICY,
        {},
    ),
    "RecurrentPPO": (RecurrentPPO, lambda: envs("ragged", 2), ON_POLICY, {}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_checkpoint_neither_disturbs_nor_is_seen_in_the_result(name, tmp_path):
    cls, make_env, kwargs, options = CASES[name]
    results = []
    for further in ([], [DIAYNCheckpointCallback(tmp_path, save_freq=SEAM, keep=None)]):
        model, callback = build(cls, make_env(), **kwargs), make_callback(**options)
        model.learn(STEPS, callback=[callback, *further])
        results.append(learned(model, callback))
    checkpoints = list_checkpoints(tmp_path)
    assert SEAM <= min(checkpoints) < STEPS
    again, callback = go_on(checkpoints[min(checkpoints)], make_env())
    assert callback.trainer.n_updates > 0
    assert differences(results[0], results[1]) == []
    assert differences(results[0], learned(again, callback)) == []
    assert (again.num_timesteps, again._episode_num) == (model.num_timesteps, model._episode_num)


IN_A_NEW_PROCESS = """
import sys, torch as th
th.set_num_threads(1)
from tests.test_resuming import envs, go_on, learned
if __name__ == "__main__":
    from stable_baselines3.common.vec_env import SubprocVecEnv
    env = envs("InvertedPendulum-v5", 2, SubprocVecEnv)
    th.save(learned(*go_on(sys.argv[1], env)), sys.argv[2])
    env.close()
"""


def test_a_new_process_with_environments_in_processes_of_their_own(tmp_path):
    env = envs("InvertedPendulum-v5", 2)
    model, callback = build(SAC, env, **OFF_POLICY), make_callback()
    saving = DIAYNCheckpointCallback(tmp_path / "checkpoints", save_freq=SEAM, keep=None)
    model.learn(STEPS, callback=[callback, saving])
    script, result = tmp_path / "script.py", tmp_path / "result.pt"
    script.write_text(IN_A_NEW_PROCESS)
    first = next(iter(list_checkpoints(tmp_path / "checkpoints").values()))
    subprocess.run([sys.executable, script, first, result], check=True, timeout=300)
    assert differences(learned(model, callback), th.load(result)) == []


def test_the_order_of_the_callbacks_does_not_matter(tmp_path):
    model, callback = build(SAC, envs("ragged", 2), **OFF_POLICY), make_callback()
    saving = DIAYNCheckpointCallback(tmp_path, save_freq=SEAM, keep=None)
    model.learn(STEPS, callback=[saving, callback])
    first = next(iter(list_checkpoints(tmp_path).values()))
    assert differences(learned(model, callback), learned(*go_on(first, envs("ragged", 2)))) == []
