"""DIAYN skill discovery for stock Stable-Baselines3 models."""

from sb3_diayn.buffers import SkillReplayBuffer
from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.checkpoint import load_discriminator
from sb3_diayn.discriminator import Discriminator, SkillReward
from sb3_diayn.wrappers import DIAYNWrapper

__version__ = "0.1.0"

__all__ = [
    "DIAYNCallback",
    "DIAYNWrapper",
    "Discriminator",
    "SkillReplayBuffer",
    "SkillReward",
    "load_discriminator",
]
