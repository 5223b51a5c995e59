"""Fresh episodes of skills, measured and diagnosed. Plots, films and reports are modules here."""

from sb3_diayn.evaluation.callback import SkillEvaluationCallback
from sb3_diayn.evaluation.diagnosis import Diagnosis, diagnose
from sb3_diayn.evaluation.evaluate import evaluate_skills, summarize
from sb3_diayn.evaluation.playing import SkillPolicy
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import Trajectory, play_skills

__all__ = [
    "Diagnosis",
    "SkillEvaluation",
    "SkillEvaluationCallback",
    "SkillPolicy",
    "Trajectory",
    "diagnose",
    "evaluate_skills",
    "play_skills",
    "summarize",
]
