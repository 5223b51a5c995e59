"""Evaluations whose numbers are known."""

from dataclasses import replace
from typing import Any

import numpy as np

from sb3_diayn.evaluation.results import SkillEvaluation


def straight_walks(n_skills: int, *, n_episodes: int = 2, **changes: Any) -> SkillEvaluation:
    """Skill k walks straight from 0 to (1, k), visits k + 1 cells and is always recognised."""
    skills = np.arange(n_skills)
    ends = np.stack([np.ones(n_skills), skills], axis=1)
    paths = np.linspace(0, 1, 100)[:, None] * ends[:, None, None]
    grid = np.zeros((n_skills, n_episodes))
    evaluation = SkillEvaluation(
        info={
            "coordinates": ["x_position", "y_position"],
            "cell_size": [0.25, 0.25],
            "total_coverage": 77,
        },
        task_returns=grid,
        lengths=grid + 100,
        skill_returns=grid,
        log_q=np.zeros(n_skills),
        confusion=np.eye(n_skills),
        paths=np.repeat(paths, n_episodes, axis=1),
        distances=grid,
        displacements=grid,
        coverage=skills + 1,
        movement=np.ones(n_skills),
        mean_state_distances=np.zeros((n_skills, n_skills)),
        sensitivity=0.5,
        importance=np.zeros(2),
        held_out_log_q=np.zeros(n_skills),
        held_out_confusion=np.eye(n_skills),
        held_out_log_q_everything=np.zeros(n_skills),
        reliability=np.array([[0.0] * 3] * 9 + [[1.0] * 3]),
    )
    info = evaluation.info | changes.pop("info", {})
    return replace(evaluation, info=info, **changes)
