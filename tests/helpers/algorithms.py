"""
What is supported. The tests run each row; ``docs/tables/algorithms.py`` makes the table of the
documentation from them.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium import Env
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import NormalActionNoise

from sb3_diayn import DIAYNWrapper
from tests.helpers.envs import ActionEnv

K = 2

OFF_POLICY = {
    "learning_starts": 40,
    "batch_size": 32,
    "buffer_size": 500,
    "gradient_steps": 2,
    "learning_rate": 1e-2,
    "gamma": 0.0,
}
SOFT = OFF_POLICY | {"ent_coef": 0.02}
VALUES = OFF_POLICY | {
    "train_freq": 1,
    "target_update_interval": 20,
    "exploration_fraction": 0.5,
}
NOISE = {"action_noise": NormalActionNoise(np.zeros(1), np.full(1, 0.5))}
STEPWISE = {"n_steps": 2, "learning_rate": 5e-3, "gamma": 0.0}
TRUST_REGION = {
    "n_steps": 20,
    "batch_size": 20,
    "target_kl": 0.1,
    "learning_rate": 1e-2,
    "gamma": 0.0,
}
CLIPPED = {"n_steps": 20, "batch_size": 20, "n_epochs": 5, "learning_rate": 3e-2, "gamma": 0.0}
# Compiling is most of what SBX does here: one shape of batch, one gradient step.
COMPILED = {"train_freq": 1, "gradient_steps": 1}


@dataclass(frozen=True)
class Row:
    """
    A combination that works.

    :param path: of the class
    :param actions: name of the action space
    :param variants: options that are tested too, one at a time
    :param remark: for the reader of the table
    :param options: for a quick test
    :param policy: alias of the policy
    :param policy_kwargs: for a quick test
    """

    path: str
    actions: str
    options: dict[str, Any]
    variants: Sequence[str] = ()
    remark: str = ""
    policy: str = "MlpPolicy"
    policy_kwargs: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.path}-{self.actions}"

    @property
    def is_sbx(self) -> bool:
        return self.path.startswith("sbx")

    @property
    def algorithm(self) -> type[BaseAlgorithm]:
        module, name = self.path.rsplit(".", 1)
        return getattr(importlib.import_module(module), name)

    def make_env(self) -> Env:
        return DIAYNWrapper(ActionEnv(self.actions == "Discrete"), K, skill="balanced")

    def make_model(self, env: Any, seed: int = 0, **options: Any) -> BaseAlgorithm:
        return self.algorithm(
            self.policy,
            env,
            policy_kwargs={"net_arch": [32], **self.policy_kwargs},
            device="cpu",
            seed=seed,
            **(self.options | options),
        )


@dataclass(frozen=True)
class Refusal:
    """
    A combination that cannot work.

    :param name: for the reader of the table
    :param path: of the class
    :param reason: for the reader of the table
    """

    name: str
    path: str
    reason: str


@dataclass(frozen=True)
class Gap:
    """
    What a library itself cannot do: its model cannot be made, with skills or without.

    :param path: of the class
    :param kinds: observations of ``EchoEnv`` with which it fails
    :param policy: alias of the policy
    :param error: what the library says
    :param observations: for the reader of the table
    :param instead: for the reader of the table
    :param options: of the model
    """

    path: str
    kinds: Sequence[str]
    policy: str
    error: str
    observations: str
    instead: str
    options: dict[str, Any] = field(default_factory=dict)


N_STEPS, SDE = "n_steps=3", "use_sde=True"
VARIANTS: dict[str, dict[str, Any]] = {
    N_STEPS: {"n_steps": 3},
    SDE: {"use_sde": True, "sde_sample_freq": 1},
}

ROWS = [
    Row("stable_baselines3.SAC", "Box", SOFT, (N_STEPS, SDE)),
    Row("stable_baselines3.TD3", "Box", OFF_POLICY | NOISE, (N_STEPS,)),
    Row("stable_baselines3.DDPG", "Box", OFF_POLICY | NOISE, (N_STEPS,)),
    Row("stable_baselines3.DQN", "Discrete", VALUES, (N_STEPS,)),
    Row("stable_baselines3.PPO", "Box", CLIPPED, (SDE,)),
    Row("stable_baselines3.PPO", "Discrete", CLIPPED),
    Row("stable_baselines3.A2C", "Box", STEPWISE, (SDE,)),
    Row("stable_baselines3.A2C", "Discrete", STEPWISE),
    Row("sb3_contrib.TQC", "Box", SOFT, (N_STEPS, SDE)),
    Row("sb3_contrib.CrossQ", "Box", SOFT | {"policy_delay": 1}, (N_STEPS,)),
    Row(
        "sb3_contrib.QRDQN",
        "Discrete",
        VALUES,
        (N_STEPS,),
        policy_kwargs={"n_quantiles": 10},
    ),
    Row("sb3_contrib.TRPO", "Box", TRUST_REGION, (SDE,)),
    Row("sb3_contrib.TRPO", "Discrete", TRUST_REGION),
    Row(
        "sb3_contrib.RecurrentPPO",
        "Box",
        CLIPPED,
        (SDE,),
        policy="MlpLstmPolicy",
        policy_kwargs={"lstm_hidden_size": 16},
    ),
    Row(
        "sb3_contrib.MaskablePPO",
        "Discrete",
        CLIPPED,
        remark="the environment has `action_masks()`",
    ),
    Row("sbx.SAC", "Box", SOFT | COMPILED, (N_STEPS,), '`ent_coef` a float or `"auto"`'),
    Row("sbx.TQC", "Box", SOFT | COMPILED, (N_STEPS,), "the same"),
    Row("sbx.CrossQ", "Box", SOFT | COMPILED | {"policy_delay": 1}, (N_STEPS,), "the same"),
    Row("sbx.PPO", "Box", CLIPPED),
    Row("sbx.PPO", "Discrete", CLIPPED | {"n_epochs": 10, "learning_rate": 1e-2}),
]

REFUSALS = [
    Refusal("ARS", "sb3_contrib.ARS", "it collects no transitions, only returns of episodes"),
    Refusal(
        "HER",
        "stable_baselines3.HerReplayBuffer",
        "it relabels goals with task rewards; DIAYN's reward comes from the discriminator",
    ),
]

DICTS = ("matrix", "image", "image_first", "discrete", "multi_discrete", "multi_binary")
DICTS += ("dict", "image_dict", "goal")
FLATTEN = "`gymnasium.wrappers.FlattenObservation` inside of `DIAYNWrapper`"
GAPS = [
    Gap(
        "sb3_contrib.CrossQ",
        DICTS,
        "MultiInputPolicy",
        "Policy MultiInputPolicy unknown",
        "all but vectors: it has no `MultiInputPolicy`",
        f"{FLATTEN}, or SAC, TQC",
    ),
    Gap(
        "sb3_contrib.RecurrentPPO",
        ("multi_discrete",),
        "MultiInputLstmPolicy",
        "input_size should be of type int",
        "`MultiDiscrete`, also as a part of a `Dict`",
        f"{FLATTEN}, or PPO",
    ),
    *(
        Gap(
            f"{path}(n_steps=3)",
            DICTS,
            "MultiInputPolicy",
            "N-step returns are not supported for Dict observation spaces",
            "all but vectors: SB3 has n-step returns for those only",
            f"{FLATTEN}, or `n_steps=1`",
            {"n_steps": 3},
        )
        for path in (
            *(f"stable_baselines3.{name}" for name in ("SAC", "TD3", "DDPG", "DQN")),
            *("sb3_contrib.TQC", "sb3_contrib.QRDQN"),
        )
    ),
]
