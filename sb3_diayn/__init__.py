"""DIAYN skill discovery for stock Stable-Baselines3 models."""

from sb3_diayn import envs as tasks  # registers them
from sb3_diayn import old_names
from sb3_diayn.buffers import SkillReplayBuffer
from sb3_diayn.callbacks import DIAYNCallback
from sb3_diayn.checkpoints import DIAYNCheckpointCallback, resume
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.downstream.export import export_skill, export_vec_normalize
from sb3_diayn.downstream.finetuning import WarmUp, best_skill, rank_skills
from sb3_diayn.evaluation import SkillEvaluation, evaluate_skills
from sb3_diayn.evaluation.callback import SkillEvaluationCallback
from sb3_diayn.evaluation.dashboard import SkillDashboardCallback
from sb3_diayn.evaluation.monitoring import SkillProgressBarCallback
from sb3_diayn.gym_vec_env import GymVecEnv
from sb3_diayn.model_zip import load_discriminator
from sb3_diayn.rewards import SkillReward
from sb3_diayn.vec_env import VecDIAYNWrapper
from sb3_diayn.wrappers import DIAYNWrapper

old_names.install()

__version__ = "0.2.0"

__all__ = [
    "DIAYNCallback",
    "DIAYNCheckpointCallback",
    "DIAYNWrapper",
    "Discriminator",
    "GymVecEnv",
    "SkillDashboardCallback",
    "SkillEvaluation",
    "SkillEvaluationCallback",
    "SkillProgressBarCallback",
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
