"""Small models that several tests share."""

from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_diayn import DIAYNCallback, DIAYNWrapper, Discriminator
from sb3_diayn.observations import map_obs
from tests.helpers.envs import CountingEnv

K = 3


def small_net() -> dict[str, Any]:
    return {"net_arch": [16]}  # a new one each time: SAC adds its own keys


def counting(skill: Any = "cycle", skill_duration: int | None = None, **kwargs: Any) -> gym.Env:
    """A ``CountingEnv`` in which episode e has skill e modulo 3 (with the rule ``cycle``)."""
    return DIAYNWrapper(CountingEnv(**kwargs), K, skill=skill, skill_duration=skill_duration)


def counting_vec(n_envs: int = 2, **kwargs: Any) -> DummyVecEnv:
    """Environment i counts its episodes from i, so that each episode e has skill e modulo 3."""
    env = DummyVecEnv([lambda i=i: counting(first_episode=i, **kwargs) for i in range(n_envs)])
    for index in range(n_envs):
        env.env_method("join", index, 0, indices=[index])
    return env


def make_sac(env: Any, **kwargs: Any) -> SAC:
    options = {"learning_starts": 20, "batch_size": 16, "buffer_size": 1000, "seed": 0}
    return SAC("MlpPolicy", env, policy_kwargs=small_net(), device="cpu", **(options | kwargs))


def make_dqn(env: Any, **kwargs: Any) -> DQN:
    options = {"learning_starts": 20, "batch_size": 16, "buffer_size": 1000, "seed": 0}
    return DQN("MlpPolicy", env, policy_kwargs=small_net(), device="cpu", **(options | kwargs))


def make_ppo(env: Any, **kwargs: Any) -> PPO:
    options = {"n_steps": 24, "batch_size": 8, "n_epochs": 2, "seed": 0}
    return PPO("MlpPolicy", env, policy_kwargs=small_net(), device="cpu", **(options | kwargs))


def masked(env: Any) -> MaskablePPO:
    """A model of ``ActionEnv`` that wants the action that is forbidden after every odd step."""
    model = MaskablePPO("MlpPolicy", env, policy_kwargs=small_net(), device="cpu", seed=0)
    model.policy.action_net.bias.data[2] = 10.0
    return model


def recurrent(env: Any, lstm: Any = None, **kwargs: Any) -> RecurrentPPO:
    """A model in whose actions its memory is seen."""
    options = {"lstm_hidden_size": 8, **small_net(), **(lstm or {})}
    model = RecurrentPPO(
        "MlpLstmPolicy", env, policy_kwargs=options, device="cpu", seed=0, **kwargs
    )
    for parameter in model.policy.parameters():
        parameter.data *= 3.0
    return model


def make_callback(**kwargs: Any) -> DIAYNCallback:
    return DIAYNCallback(**({"net_arch": [16]} | kwargs))


def constant_discriminator(probabilities: list[float], n_features: int = 2) -> Discriminator:
    """A discriminator that answers the same probabilities whatever it sees."""
    space = gym.spaces.Box(-1.0, 1.0, (n_features,), np.float32)
    discriminator = Discriminator(space, len(probabilities), net_arch=())
    with th.no_grad():
        discriminator.net[-1].weight.zero_()
        discriminator.net[-1].bias.copy_(th.tensor(probabilities).log())
    return discriminator


def split_nets(discriminator: Discriminator, **options: Any) -> list[Discriminator]:
    """
    The two nets of a cross-fitted discriminator as two plain ones.

    ``options`` are the ones that it was made with.
    """
    nets = []
    for fold in (0, 1):
        net = Discriminator(discriminator.observation_space, discriminator.n_skills, **options)
        state = {}
        for name, value in discriminator.state_dict().items():
            if name.startswith("net.") and ".norms." not in name:
                state[name] = value[fold].T.clone() if value.ndim == 3 else value[fold].clone()
            elif f".norms.{fold}." in name:
                state[name.replace(f".norms.{fold}", "")] = value.clone()
            elif name.startswith("second_extractor.") and fold:
                state[name.removeprefix("second_")] = value.clone()
            elif name in net.state_dict() and name not in state and "norms" not in name:
                state[name] = value.clone()
        net.load_state_dict(state)
        nets.append(net)
    return nets


def held_out_log_q(nets: list[Discriminator], batch: Any) -> np.ndarray:
    """log q(z|s') of each transition by the plain net of the other fold, one after the other."""
    values = []
    for row in range(len(batch.skills)):
        one = batch.take(slice(row, row + 1))
        values.append(log_q(nets[1 - int(one.folds[0])], one.next_obs, one.skills, one.actions)[0])
    return np.array(values)


def log_q(discriminator: Discriminator, obs: Any, skills: Any, actions: Any = None) -> np.ndarray:
    """log q(z|s') by NumPy from the logits, in float64."""
    with th.no_grad():
        logits = discriminator(map_obs(th.as_tensor, obs), actions).double().numpy()
    logits -= logits.max(axis=1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return log_probs[np.arange(len(logits)), np.asarray(skills)]


class Recorder(BaseCallback):
    """Copies what a model collects. First in a list, it sees it before anybody changes it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        names = ("rewards", "new_obs", "dones")
        step = {name: np.copy(self.locals[name]) for name in names}
        self.steps.append(step | {"infos": [dict(info) for info in self.locals["infos"]]})
        return True
