"""
DIAYN skill discovery for stock Stable-Baselines3 models.

Public names are imported when they are first used, so that ``sb3-diayn --help`` does not wait for
PyTorch.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sb3_diayn import envs as tasks  # registers them
from sb3_diayn import old_names

if TYPE_CHECKING:
    from sb3_diayn.buffers import SkillReplayBuffer
    from sb3_diayn.callbacks import DIAYNCallback
    from sb3_diayn.checkpoints import DIAYNCheckpointCallback, resume
    from sb3_diayn.discriminator import Discriminator
    from sb3_diayn.displacement import DisplacementObservation
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
    "DisplacementObservation",
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

if not TYPE_CHECKING:  # a type checker would take any name for one of this package
    _MODULES = {
        "DIAYNCallback": "callbacks",
        "DIAYNCheckpointCallback": "checkpoints",
        "DIAYNWrapper": "wrappers",
        "Discriminator": "discriminator",
        "DisplacementObservation": "displacement",
        "GymVecEnv": "gym_vec_env",
        "SkillDashboardCallback": "evaluation.dashboard",
        "SkillEvaluation": "evaluation",
        "SkillEvaluationCallback": "evaluation.callback",
        "SkillProgressBarCallback": "evaluation.monitoring",
        "SkillReplayBuffer": "buffers",
        "SkillReward": "rewards",
        "VecDIAYNWrapper": "vec_env",
        "WarmUp": "downstream.finetuning",
        "best_skill": "downstream.finetuning",
        "evaluate_skills": "evaluation",
        "export_skill": "downstream.export",
        "export_vec_normalize": "downstream.export",
        "load_discriminator": "model_zip",
        "rank_skills": "downstream.finetuning",
        "resume": "checkpoints",
    }

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        elif find_spec(f"{__name__}.{name}"):
            found = import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
