"""Uses of trained skills: export, fine-tuning, hierarchies, compositions, imitation."""

from sb3_diayn.downstream.composition import ScheduledSkills, mix_skills
from sb3_diayn.downstream.export import export_skill, export_vec_normalize
from sb3_diayn.downstream.finetuning import WarmUp, best_skill, rank_skills
from sb3_diayn.downstream.hierarchy import SkillActionEnv, SkillActionVecEnv, WaitAtEnd
from sb3_diayn.downstream.imitation import (
    Demonstration,
    SkillInference,
    infer_skill,
    load_demonstration,
)

__all__ = [
    "Demonstration",
    "ScheduledSkills",
    "SkillActionEnv",
    "SkillActionVecEnv",
    "SkillInference",
    "WaitAtEnd",
    "WarmUp",
    "best_skill",
    "export_skill",
    "export_vec_normalize",
    "infer_skill",
    "load_demonstration",
    "mix_skills",
    "rank_skills",
]
