"""DIAYN skill discovery for stock Stable-Baselines3 models."""

from sb3_diayn import tasks  # registers them
from sb3_diayn.buffers import SkillReplayBuffer
from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.checkpoint import load_discriminator
from sb3_diayn.checkpointing import DIAYNCheckpointCallback
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation import SkillEvaluation, evaluate_skills
from sb3_diayn.export import export_skill, export_vec_normalize
from sb3_diayn.gym_vec_env import GymVecEnv
from sb3_diayn.monitoring import SkillEvaluationCallback
from sb3_diayn.ranking import best_skill, rank_skills
from sb3_diayn.resuming import resume
from sb3_diayn.rewards import SkillReward
from sb3_diayn.vec_wrapper import VecDIAYNWrapper
from sb3_diayn.warmup import WarmUp
from sb3_diayn.wrappers import DIAYNWrapper

__version__ = "0.1.0"

__all__ = [
    "DIAYNCallback",
    "DIAYNCheckpointCallback",
    "DIAYNWrapper",
    "Discriminator",
    "GymVecEnv",
    "SkillEvaluation",
    "SkillEvaluationCallback",
    "SkillReplayBuffer",
    "SkillReward",
    "VecDIAYNWrapper",
    "WarmUp",
    "best_skill",
    "evaluate_skills",
    "export_skill",
    "export_vec_normalize",
    "load_discriminator",
    "rank_skills",
    "resume",
    "tasks",
]
