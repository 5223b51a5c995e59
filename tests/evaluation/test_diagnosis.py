import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from sb3_diayn.evaluation.diagnosis import TRAVEL_ENVS, Diagnosis, diagnose
from sb3_diayn.evaluation.evaluate import evaluate_skills
from sb3_diayn.evaluation.results import SkillEvaluation
from tests.helpers.models import constant_discriminator
from tests.helpers.scripted import (
    DIRECTIONS,
    K,
    compass,
    frozen,
    ignorant,
    point_vec,
    scripted,
    walker,
)

N = 10
SURE = np.array([[0.0, 0, 0]] * 9 + [[1.0, 0.95, 0.9]])  # in 95 %, and right in 90 %


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
        held_out_log_q=np.full(N, -0.2),
        held_out_confusion=np.eye(N),
        reliability=SURE,
    )
    return replace(evaluation, **changes)


def unknown(**changes) -> SkillEvaluation:
    """The same without a held-out classifier."""
    nan = {"held_out_log_q": np.full(N, np.nan), "held_out_confusion": np.full((N, N), np.nan)}
    return good(**(nan | changes))


def kinds(evaluation: SkillEvaluation) -> list[str]:
    return [diagnosis.kind for diagnosis in diagnose(evaluation)]


def only(evaluation: SkillEvaluation) -> Diagnosis:
    (diagnosis,) = diagnose(evaluation)
    return diagnosis


def test_healthy_tells_the_number_of_distinct_skills():
    diagnosis = only(good())
    assert (diagnosis.kind, diagnosis.severity) == ("healthy", "note")
    assert f"{10 * math.exp(-0.2):.1f} of 10 skills are distinct" in diagnosis.message  # 8.2
    assert f"own bound is {math.log(10) - 0.1:.2f} nats" in diagnosis.message
    assert "90% of the states (10% by chance)" in diagnosis.message


def test_one_episode_of_each_skill_with_metra():
    """No bound on what distinguishes skills is known, only what phi recognises."""

    def metra(n_steps, confusion):
        info = good().info | {"objective": "metra", "num_timesteps": n_steps}
        return unknown(info=info, log_q=np.full(N, np.nan), confusion=confusion)

    assert kinds(metra(64, np.eye(N))) == ["too_early"]
    assert kinds(metra(100_000, np.full((N, N), 1 / N))) == ["too_early"]
    assert "number of distinct skills is unknown" in only(metra(100_000, np.eye(N))).message


# -- measured ----------------------------------------------------------------------------------


def measured(model, discriminator=None):
    discriminator = discriminator or compass()
    return evaluate_skills(model, point_vec(), n_episodes=3, discriminator=discriminator)


@pytest.mark.slow
def test_a_walker_is_healthy():
    assert "4.0 of 4 skills" in only(measured(walker())).message


@pytest.mark.slow
def test_a_walker_whose_discriminator_has_learned_nothing():
    finding, *others = diagnose(measured(walker(), constant_discriminator([0.25] * K)))
    assert finding.kind == "unknown_to_discriminator" and not others
    assert "4.0 of 4 skills are distinct" in finding.message
    assert "Let it learn more" in finding.advice  # it is as unsure as it is wrong


@pytest.mark.slow
def test_twins_are_alike_even_if_the_discriminator_is_sure():
    twins = scripted(lambda obs, skills: DIRECTIONS[skills // 2])
    finding = diagnose(measured(twins))[0]
    assert (finding.kind, finding.skills) == ("alike", (0, 1, 2, 3))
    assert "0 = 1" in finding.message and "2 = 3" in finding.message


@pytest.mark.slow
def test_a_frozen_policy_ignores_the_skill_and_is_static():
    first, second = diagnose(measured(frozen(), constant_discriminator([0.25] * K)))
    assert first.kind == "ignores_skill" and "0.000" in first.message
    assert (second.kind, second.severity, second.skills) == ("static", "warning", (0, 1, 2, 3))
    assert "distinct" not in second.message and "obs_indices" not in second.advice


@pytest.mark.slow
def test_a_policy_that_ignores_the_skill():
    diagnosis = only(measured(ignorant()))
    assert (diagnosis.kind, diagnosis.severity) == ("ignores_skill", "warning")


# -- thresholds --------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [[[0.5, 0.5], [0.5, 0.5]], [[1, 0], [1, 0]], [[0, 1], [0, 1]]])
def test_two_skills_taken_for_each_other_are_alike(pattern):
    confusion = np.eye(N)
    confusion[np.ix_([2, 7], [2, 7])] = pattern
    diagnosis = only(good(held_out_confusion=confusion))
    assert (diagnosis.kind, diagnosis.skills) == ("alike", (2, 7))
    assert "2 = 7 (100%)" in diagnosis.message


def test_skills_that_are_alike_form_groups():
    confusion = np.eye(N)
    confusion[np.ix_([0, 3, 4], [0, 3, 4])] = 1 / 3
    confusion[np.ix_([8, 9], [8, 9])] = [[0.6, 0.4], [0.4, 0.6]]
    diagnosis = only(good(held_out_confusion=confusion))
    assert "0 = 3 = 4 (100%), 8 = 9 (80%)" in diagnosis.message
    assert diagnosis.skills == (0, 3, 4, 8, 9)


def test_a_group_is_linked_through_its_members():
    """0 and 2 agree with 1 in 80 % of the answers, with each other in 60 %: below the limit."""
    confusion = np.eye(N)
    confusion[:3, :3] = [[0.5, 0.4, 0.1], [0.3, 0.4, 0.3], [0.1, 0.4, 0.5]]
    diagnosis = only(good(held_out_confusion=confusion))
    assert "0 = 1 = 2 (73%)" in diagnosis.message  # (80 + 60 + 80) / 3
    assert diagnosis.skills == (0, 1, 2)


def test_a_third_of_mutual_confusion_is_not_alike():
    confusion = np.eye(N)
    confusion[np.ix_([2, 7], [2, 7])] = [[0.66, 0.34], [0.34, 0.66]]
    assert kinds(good(held_out_confusion=confusion)) == ["healthy"]


@pytest.mark.parametrize(("n", "severity"), [(1, "note"), (4, "note"), (5, "warning")])
def test_static_skills_warn_when_they_are_half(n, severity):
    diagnosis = diagnose(good(movement=np.r_[np.full(n, 0.02), np.ones(N - n)]))[0]
    assert (diagnosis.kind, diagnosis.severity) == ("static", severity)
    assert diagnosis.skills == tuple(range(n))
    assert diagnosis.message.startswith(f"{n} of 10 skills are distinct but hold a pose")
    assert "0 (0.02)" in diagnosis.message and "obs_indices" in diagnosis.advice


def test_a_note_does_not_prevent_healthy():
    assert kinds(good(movement=np.r_[0.0, np.ones(N - 1)])) == ["static", "healthy"]


# -- advice where it applies -------------------------------------------------------------------

SIDEWAYS = {"coordinates": ["x_position", "observation 0"], "env_id": "Hopper-v5"}


def advice(evaluation, kind):
    (finding,) = [each for each in diagnose(evaluation) if each.kind == kind]
    return finding.advice


def statues(**info):
    """Distinct skills of which each holds a pose."""
    return good(movement=np.zeros(N), info=good().info | info)


@pytest.mark.parametrize("env_id", [*TRAVEL_ENVS, "Humanoid-v5", "Pendulum-v1", None])
def test_a_provided_file_is_recommended_where_it_lets_skills_travel(env_id):
    file = Path(__file__).parents[2] / "zoo_configs" / "ppo_displacement.yml"
    assert set(TRAVEL_ENVS) <= set(yaml.safe_load(file.read_text()))
    is_recommended = file.stem in advice(statues(env_id=env_id), "static")
    assert is_recommended == (env_id in TRAVEL_ENVS)


@pytest.mark.parametrize(
    ("info", "applies"),
    [
        (SIDEWAYS, True),
        (SIDEWAYS | {"env_kwargs": {"exclude_current_positions_from_observation": False}}, False),
        (SIDEWAYS | {"env_id": "sb3_diayn/PointBox-v0"}, False),
        (SIDEWAYS | {"env_id": "Nobody-v7"}, False),
        ({"coordinates": ["observation 0", "observation 1"], "env_id": "Reacher-v5"}, False),
    ],
)
def test_positions_are_to_be_shown_where_mujoco_hides_them(info, applies):
    option = "exclude_current_positions_from_observation"
    assert (option in advice(statues(**info), "static")) == applies


CASES = {
    "too_early": dict(info={"num_timesteps": 10}, log_q=np.full(N, -3.0)),
    "static": dict(movement=np.zeros(N)),
    "unknown_to_discriminator": dict(log_q=np.full(N, -4.0), reliability=np.full((10, 3), 0.1)),
    "narrow_discriminator": dict(importance=np.eye(N)[0]),
}


@pytest.mark.parametrize("kind", CASES)
def test_what_the_training_has_is_not_recommended(kind):
    changes = dict(CASES[kind])
    info = good().info | changes.pop("info", {})
    if kind == "too_early":
        changes["held_out_log_q"] = np.full(N, -math.log(N))
    without = advice(good(info=info, **changes), kind)
    has = {"normalize_obs": True, "spectral_norm": True}
    with_it = advice(good(info=info | has, **changes), kind)
    assert "normalize_obs" in without and "normalize_obs" not in with_it
    assert "spectral_norm" not in with_it
    for text in (without, with_it):
        assert text[0].isupper() and text.endswith(".") and ", ." not in text and "  " not in text


def test_skills_whose_episodes_differ_make_the_number_uncertain():
    log_q = np.full(N, -0.1)
    log_q[[2, 5]] = -7.7, -2.4  # a guess has -2.3
    finding, last = diagnose(good(held_out_log_q=log_q))
    assert (finding.kind, finding.severity, finding.skills) == ("uncertain", "note", (2, 5))
    assert "2 (-7.7 nats), 5 (-2.4 nats)" in finding.message
    assert "--episodes" in finding.advice
    assert last.kind == "healthy"
    log_q[[2, 5]] = -2.2
    assert kinds(good(held_out_log_q=log_q)) == ["healthy"]
    assert "uncertain" not in kinds(unknown())


def test_a_narrow_discriminator_says_what_its_coordinate_is_called():
    info = good().info | {"obs_names": [f"name {index}" for index in range(N)]}
    evaluation = good(info=info, importance=np.eye(N)[7])
    (finding,) = [each for each in diagnose(evaluation) if each.kind == "narrow_discriminator"]
    assert "observation[7], name 7 (1.00 nats)" in finding.message


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
    changes["held_out_log_q"] = np.full(N, -2.0)
    evaluation = good(info={"num_timesteps": 4000}, **changes)
    assert kinds(evaluation) == ["too_early"]
    assert "after 4,000 steps" in only(evaluation).message
    assert kinds(good(info={"num_timesteps": 4000})) == ["healthy"]  # distinct all the same


def test_near_chance_is_not_called_alike():
    changes = {"log_q": np.full(N, -math.log(N)), "confusion": np.full((N, N), 1 / N)}
    changes |= {f"held_out_{name}": value for name, value in changes.items()}
    assert kinds(good(**changes)) == ["too_early"]
    assert kinds(good(movement=np.zeros(N), **changes)) == ["too_early", "static"]


def test_a_discriminator_that_does_not_know_the_skills():
    """Its own bound is less than half of log 10 - 0.2 = 2.1 nats."""
    wrong, known = np.r_[-23.0, np.full(N - 1, -1.0)], np.full(N, -math.log(N) + 1.1)
    diagnosis = only(good(log_q=wrong))
    assert diagnosis.kind == "unknown_to_discriminator"
    assert "8.2 of 10 skills are distinct" in diagnosis.message
    assert f"own bound is {math.log(N) - 3.2:.2f} nats" in diagnosis.message  # -0.90
    assert "95% sure (calibration error 0.05)" in diagnosis.message
    assert "0 (-23.0 nats)" in diagnosis.message
    assert kinds(good(log_q=known)) == ["healthy"]


@pytest.mark.parametrize(("confidence", "words"), [(0.95, "memor"), (1.0, "trained on")])
def test_advice_for_a_discriminator_depends_on_how_sure_it_is(confidence, words):
    """Five or ten points surer than right."""
    reliability = np.array([[0.0, 0, 0]] * 9 + [[1.0, confidence, 0.89]])
    diagnosis = only(good(log_q=np.full(N, -2.0), reliability=reliability))
    assert ("trained on" in diagnosis.advice) == (words == "trained on")
    assert ("Let it learn more" in diagnosis.advice) == (words != "trained on")


def test_cross_fitting_is_advised_to_those_who_have_it_not():
    changes = {
        "log_q": np.full(N, -2.0),
        "reliability": np.array([[0, 0, 0]] * 9 + [[1.0, 1.0, 0.8]]),
    }
    without = only(good(**changes)).advice
    with_it = only(good(info=good().info | {"cross_fit": True}, **changes)).advice
    assert "cross_fit" in without and "log_q_z" in without
    assert "trained on" in with_it and "cross_fit" not in with_it and "log_q_z" not in with_it


@pytest.mark.parametrize("confidence", [0.89, 1.0])
def test_freezing_is_advised_to_those_who_have_it_not(confidence):
    reliability = np.array([[0.0, 0, 0]] * 9 + [[1.0, confidence, 0.89]])
    changes = {"log_q": np.full(N, -2.0), "reliability": reliability}
    frozen = good().info | {"frozen_fraction": 0.25}
    assert "frozen_fraction" in only(good(**changes)).advice
    assert "frozen_fraction" not in only(good(info=frozen, **changes)).advice


def test_skills_that_overlap_without_a_pair_are_alike():
    """exp(1) of 10 skills, and each answer is given to three of them."""
    log_q = np.full(N, 1 - math.log(N))
    confusion = sum(np.roll(np.eye(N), shift, axis=1) for shift in range(3)) / 3
    changes = {"log_q": log_q, "held_out_log_q": log_q, "held_out_confusion": confusion}
    diagnosis = only(good(**changes))
    assert (diagnosis.kind, diagnosis.skills) == ("alike", ())
    assert "2.7 of 10 skills are distinct (1.00 of 2.30 nats)" in diagnosis.message


def test_without_a_held_out_classifier_the_discriminator_is_all_there_is():
    healthy = only(unknown())
    assert healthy.kind == "healthy"
    assert "unknown (an old evaluation)" in healthy.message
    assert "unknown (too few)" in only(unknown(info={"why_no_held_out": "too few"})).message
    wrong = only(unknown(log_q=np.full(N, -3.0), reliability=np.full((10, 3), np.nan)))
    assert wrong.kind == "unknown_to_discriminator" and "nan" not in wrong.message
    confusion = np.eye(N)
    confusion[np.ix_([2, 7], [2, 7])] = 0.5
    alike = only(unknown(confusion=confusion))
    assert (alike.kind, alike.skills) == ("alike", (2, 7))
    assert "the discriminator takes for each other" in alike.message


def test_distinct_skills_are_not_ignored_however_little_their_actions_differ():
    assert kinds(good(sensitivity=0.001)) == ["healthy"]
    few = {"log_q": np.full(N, -2.0), "held_out_log_q": np.full(N, -2.0)}
    assert kinds(good(sensitivity=0.001, **few)) == ["ignores_skill"]
    assert kinds(good(sensitivity=float("nan"), **few)) == ["alike"]


def test_long_lists_are_cut():
    n = 40
    few = {"confusion": np.eye(n), "log_q": np.full(n, -0.1)}
    held_out = {f"held_out_{name}": value for name, value in few.items()}
    evaluation = good(**few, **held_out, movement=np.zeros(n))
    assert diagnose(evaluation)[0].message.endswith("9 (0.00) and 30 more.")


def test_skills_on_their_back_are_named():
    shares = np.zeros(N)
    shares[[3, 7]] = 0.97, 0.1
    (finding,) = diagnose(good(upside_down=shares))
    assert (finding.kind, finding.severity, finding.skills) == ("upside_down", "warning", (3, 7))
    assert "2 of 10 skills" in finding.message
    assert "3 (97% of its steps)" in finding.message
    assert "in a wrapper" in finding.advice
    (ant,) = diagnose(good(upside_down=shares, info=good().info | {"env_id": "Ant-v5"}))
    assert "healthy_z_range" in ant.advice


@pytest.mark.parametrize("shares", [np.full(N, 0.09), np.full(N, np.nan)])
def test_a_stumble_or_an_unknown_orientation_is_no_finding(shares):
    assert kinds(good(upside_down=shares)) == ["healthy"]
