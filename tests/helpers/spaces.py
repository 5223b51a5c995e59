"""Models on ``EchoEnv``: one row for each observation space that is supported."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gymnasium import spaces
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecFrameStack,
    VecNormalize,
    VecTransposeImage,
)

from sb3_diayn import DIAYNWrapper
from tests.helpers.envs import EchoEnv

N_SKILLS = 3
OFF_POLICY = {
    "learning_starts": 60,
    "batch_size": 32,
    "buffer_size": 1000,
    "train_freq": (4, "step"),
}
CONVOLUTIONS = {"learning_rate": 1e-3, "n_updates": 2}


def stack(env: VecEnv) -> VecEnv:
    return VecFrameStack(env, 2)


def normalize(env: VecEnv) -> VecEnv:
    return VecNormalize(env, norm_reward=False, clip_obs=0.5)


def normalize_keys(env: VecEnv) -> VecEnv:
    return VecNormalize(env, norm_reward=False, clip_obs=0.5, norm_obs_keys=["position", "noise"])


def normalize_next_to_image(env: VecEnv) -> VecEnv:
    env = VecTransposeImage(env)
    return VecNormalize(env, norm_reward=False, clip_obs=0.5, norm_obs_keys=["clock"])


@dataclass(frozen=True)
class Row:
    """
    :param kind: of ``EchoEnv``
    :param algo: class of the model
    :param outside: what is put around the vectorised environments
    :param steps: enough to distinguish the skills
    :param options: of ``DIAYNCallback``
    """

    kind: str
    algo: type[BaseAlgorithm]
    outside: Callable[[VecEnv], VecEnv] = lambda env: env
    steps: int = 480
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        extra = "" if self.outside.__name__ == "<lambda>" else f"-{self.outside.__name__}"
        return f"{self.kind}-{self.algo.__name__}{extra}"

    def make_env(self, n_envs: int = 4, **kwargs: Any) -> VecEnv:
        def make() -> DIAYNWrapper:
            env = EchoEnv(self.kind, box=self.algo is SAC, **kwargs)
            return DIAYNWrapper(env, N_SKILLS, skill="cycle")

        return self.outside(DummyVecEnv([make] * n_envs))

    def make_model(self, env: VecEnv | None = None, **kwargs: Any) -> BaseAlgorithm:
        env = env or self.make_env()
        is_dict = isinstance(env.observation_space, spaces.Dict)
        net: dict[str, Any] = {"net_arch": [32]}
        if is_dict:
            net["features_extractor_kwargs"] = {"cnn_output_dim": 16}
        options: dict[str, Any] = {
            "policy_kwargs": net,
            "learning_rate": 3e-3 if self.options == CONVOLUTIONS else 5e-3,
            "gamma": 0.0,
            "device": "cpu",
            "seed": 0,
        }
        if self.algo is PPO:
            options |= {
                "n_steps": 15,
                "batch_size": 30,
                "n_epochs": 6 if self.options == CONVOLUTIONS else 4,
            }
        else:
            options |= OFF_POLICY | {"gradient_steps": 4}
        if self.algo is SAC:
            options |= {"ent_coef": 0.02}
        if self.algo is DQN:
            options |= {"target_update_interval": 50, "exploration_fraction": 0.4}
        policy = "MultiInputPolicy" if is_dict else "MlpPolicy"
        return self.algo(policy, env, **(options | kwargs))  # type: ignore[call-arg]


ROWS = [
    Row("matrix", SAC),
    Row("discrete", DQN),
    Row("discrete", PPO),
    Row("multi_discrete", DQN),
    Row("multi_binary", PPO),
    Row("dict", SAC, steps=3200),
    Row("goal", SAC),
    Row("image", DQN, steps=400),
    Row("image_first", PPO, steps=600, options=CONVOLUTIONS),
    Row("image_dict", DQN, normalize_next_to_image, 400, {"obs_indices": "camera"}),
    Row("vector", SAC, stack),
    Row("image", DQN, stack, steps=400),
    Row("dict", SAC, normalize_keys, 1600),
    Row("vector", PPO, lambda env: VecNormalize(stack(env), norm_reward=False)),
]
