"""What skills are good for, in one place. See the modules for each."""

from sb3_diayn.export import export_skill, export_vec_normalize
from sb3_diayn.hierarchy import SkillActionEnv, SkillActionVecEnv, WaitAtEnd
from sb3_diayn.ranking import best_skill, rank_skills

__all__ = [
    "SkillActionEnv",
    "SkillActionVecEnv",
    "WaitAtEnd",
    "best_skill",
    "export_skill",
    "export_vec_normalize",
    "rank_skills",
]
