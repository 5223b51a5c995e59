import math
from dataclasses import replace

import numpy as np
import pytest

from sb3_diayn.evaluation.diagnosis import Diagnosis, diagnose
from sb3_diayn.evaluation.evaluate import evaluate_skills
from sb3_diayn.evaluation.results import SkillEvaluation
from tests.helpers.models import constant_discriminator
from tests.helpers.scripted import K, compass, frozen, ignorant, point_vec, walker

N = 10


def good(**changes) -> SkillEvaluation:
    """Ten skills that are distinct and move."""
    grid = np.ones((N, 1))
    evaluation = SkillEvaluation(
        info={"num_timesteps": 100_000, "obs_indices": list(range(N))},
        task_returns=grid,
        lengths=grid.astype(int),
        skill_returns=grid,
        log_q=np.full(N, -0.1),
        confusion=np.eye(N) * 0.9 + np.roll(np.eye(N), 1, axis=1) * 0.1,
        paths=np.zeros((N, 1, 100, 2)),
        distances=grid,
        displacements=grid,
        coverage=np.ones(N, int),
        movement=np.ones(N),
        mean_state_distances=np.ones((N, N)),
        sensitivity=0.5,
        importance=np.ones(N),
    )
    return replace(evaluation, **changes)


def kinds(evaluation: SkillEvaluation) -> list[str]:
    return [diagnosis.kind for diagnosis in diagnose(evaluation)]


def only(evaluation: SkillEvaluation) -> Diagnosis:
    (diagnosis,) = diagnose(evaluation)
    return diagnosis


def test_healthy_tells_the_number_of_distinct_skills():
    diagnosis = only(good())
    assert (diagnosis.kind, diagnosis.severity) == ("healthy", "note")
    assert f"{10 * math.exp(-0.1):.1f} of 10 skills" in diagnosis.message  # 9.0
    assert "90% of the states (10% by chance)" in diagnosis.message


# -- measured ----------------------------------------------------------------------------------


def measured(model, discriminator=None):
    discriminator = discriminator or compass()
    return evaluate_skills(model, point_vec(), n_episodes=1, discriminator=discriminator)


def test_a_walker_is_healthy():
    assert "4.0 of 4 skills" in only(measured(walker())).message


def test_a_frozen_policy_ignores_the_skill_and_is_static():
    first, second = diagnose(measured(frozen(), constant_discriminator([0.25] * K)))
    assert first.kind == "ignores_skill" and "0.000" in first.message
    assert (second.kind, second.severity, second.skills) == ("static", "warning", (0, 1, 2, 3))


def test_a_policy_that_ignores_the_skill():
    diagnosis = only(measured(ignorant()))
    assert (diagnosis.kind, diagnosis.severity) == ("ignores_skill", "warning")


# -- thresholds --------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [[[0.5, 0.5], [0.5, 0.5]], [[1, 0], [1, 0]], [[0, 1], [0, 1]]])
def test_two_skills_taken_for_each_other_are_collapsed(pattern):
    confusion = np.eye(N)
    confusion[np.ix_([2, 7], [2, 7])] = pattern
    diagnosis = only(good(confusion=confusion))
    assert (diagnosis.kind, diagnosis.skills) == ("collapsed", (2, 7))
    assert "2 = 7 (100%)" in diagnosis.message


def test_collapsed_skills_form_groups():
    confusion = np.eye(N)
    confusion[np.ix_([0, 3, 4], [0, 3, 4])] = 1 / 3
    confusion[np.ix_([8, 9], [8, 9])] = [[0.6, 0.4], [0.4, 0.6]]
    diagnosis = only(good(confusion=confusion))
    assert "0 = 3 = 4 (100%), 8 = 9 (80%)" in diagnosis.message
    assert diagnosis.skills == (0, 3, 4, 8, 9)


def test_a_group_is_linked_through_its_members():
    """0 and 2 agree with 1 in 80 % of the answers, with each other in 60 %: below the limit."""
    confusion = np.eye(N)
    confusion[:3, :3] = [[0.5, 0.4, 0.1], [0.3, 0.4, 0.3], [0.1, 0.4, 0.5]]
    diagnosis = only(good(confusion=confusion))
    assert "0 = 1 = 2 (73%)" in diagnosis.message  # (80 + 60 + 80) / 3
    assert diagnosis.skills == (0, 1, 2)


def test_a_third_of_mutual_confusion_is_no_collapse():
    confusion = np.eye(N)
    confusion[np.ix_([2, 7], [2, 7])] = [[0.66, 0.34], [0.34, 0.66]]
    assert kinds(good(confusion=confusion)) == ["healthy"]


@pytest.mark.parametrize(("n", "severity"), [(1, "note"), (4, "note"), (5, "warning")])
def test_static_skills_warn_when_they_are_half(n, severity):
    diagnosis = diagnose(good(movement=np.r_[np.full(n, 0.02), np.ones(N - n)]))[0]
    assert (diagnosis.kind, diagnosis.severity) == ("static", severity)
    assert diagnosis.skills == tuple(range(n))
    assert diagnosis.message.startswith(f"{n} of 10 skills hold a pose")
    assert "0 (0.02)" in diagnosis.message and "obs_indices" in diagnosis.advice


def test_a_note_does_not_prevent_healthy():
    assert kinds(good(movement=np.r_[0.0, np.ones(N - 1)])) == ["static", "healthy"]


def test_a_narrow_discriminator_names_its_coordinate():
    importance = np.r_[np.zeros(6), 1.85, 0.1, -0.5, 0.05]
    diagnosis = only(good(importance=importance))
    assert diagnosis.kind == "narrow_discriminator"
    assert "1 of 10 coordinates for 92%" in diagnosis.message  # 1.85 / 2
    assert "observation[6] (1.85 nats)" in diagnosis.message


@pytest.mark.parametrize(
    "changes",
    [
        {"importance": np.r_[0.7, 0.3, np.zeros(8)]},  # less than four fifths
        {"importance": np.r_[1.0, np.zeros(3)], "info": {}},  # few coordinates
        {"importance": np.r_[1.0, np.zeros(9)], "info": {"obs_indices": [0]}},  # on purpose
        {"importance": np.zeros(10)},
    ],
)
def test_not_narrow(changes):
    assert kinds(good(**changes)) == ["healthy"]


def test_few_steps_come_before_everything():
    changes = {"log_q": np.full(N, -2.0), "movement": np.zeros(N), "sensitivity": 0.0}
    evaluation = good(info={"num_timesteps": 4000}, **changes)
    assert kinds(evaluation) == ["too_early"]
    assert "after 4,000 steps" in only(evaluation).message
    assert kinds(good(info={"num_timesteps": 4000})) == ["healthy"]  # distinct all the same


def test_near_chance_is_not_called_collapsed():
    changes = {"log_q": np.full(N, -math.log(N)), "confusion": np.full((N, N), 1 / N)}
    assert kinds(good(**changes)) == ["too_early"]
    assert kinds(good(movement=np.zeros(N), **changes)) == ["too_early", "static"]


def test_a_discriminator_that_is_confidently_wrong_lags_behind():
    diagnosis = only(good(log_q=np.r_[-23.0, np.full(N - 1, -1.0)]))
    assert diagnosis.kind == "lagging_discriminator"
    assert "-3.20 nats" in diagnosis.message and "0 (-23.0 nats)" in diagnosis.message


def test_distinct_skills_are_not_ignored_however_little_their_actions_differ():
    assert kinds(good(sensitivity=0.001)) == ["healthy"]
    assert kinds(good(sensitivity=0.001, log_q=np.full(N, -2.0))) == ["ignores_skill"]
    assert kinds(good(sensitivity=float("nan"), log_q=np.full(N, -2.0))) == ["healthy"]


def test_long_lists_are_cut():
    n = 40
    evaluation = good(confusion=np.eye(n), log_q=np.full(n, -0.1), movement=np.zeros(n))
    assert diagnose(evaluation)[0].message.endswith("9 (0.00) and 30 more.")
