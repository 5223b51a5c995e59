"""The gallery names every environment, its files are there, and it is small."""

import re

import numpy as np
import pytest

pytest.importorskip("pandas")  # of the extra report
pytest.importorskip("scipy")

from docs.tables.gallery import (
    ENVIRONMENTS,
    MEDIA,
    PAGE,
    SEED,
    TASKS,
    choose_skills,
    exhibits,
    read_drawn,
    with_sections,
)
from docs.tables.reference_tables import REFERENCES
from tests.evaluation.evaluations import straight_walks

TEXT = PAGE.read_text(encoding="utf-8")
NAMED = {PAGE.parent / path for path in re.findall(r'(?:\]\(|src="\.\./)(images/[^)"]+)', TEXT)}


def test_the_page_is_up_to_date():
    assert with_sections() == TEXT, "run python -m docs.tables.gallery"


def test_every_environment_has_a_section():
    headings = re.findall("^## (.+)$", TEXT, re.MULTILINE)
    assert headings == [env_id.removeprefix("sb3_diayn/") for env_id in ENVIRONMENTS]
    assert len(TASKS) == 5
    assert set(ENVIRONMENTS) == {*SEED, *REFERENCES, *TASKS}


def test_every_file_is_there_and_shown():
    assert sorted(MEDIA.iterdir()) == sorted(NAMED)


def test_films_and_figures_show_the_runs_that_are_there():
    shown = [exhibit for env_id in ENVIRONMENTS for exhibit in exhibits(env_id)]
    old = [each.env_id for each in shown if read_drawn().get(each.name) != each.digest]
    assert not old, f"run python -m docs.tables.gallery {' '.join(old)}"


def test_the_gallery_is_small():
    assert 0 < sum(file.stat().st_size for file in NAMED) < 20e6


def test_runs_with_a_model_are_shown_or_else_the_first_without(tmp_path):
    for name in ("sac/Hopper-v5_1", "ppo/Hopper-v5_1", "sac/Hopper-v5_2", "sac/HopperOther-v5_1"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").touch()
    (without,) = exhibits("Hopper-v5", tmp_path)
    assert without.run == tmp_path / "ppo" / "Hopper-v5_1" and without.film is None
    (tmp_path / "sac" / "Hopper-v5_2" / "Hopper-v5.zip").touch()
    (tmp_path / "ppo" / "Hopper-v5_1" / "Hopper-v5.zip").touch()
    runs = [exhibit.run for exhibit in exhibits("Hopper-v5", tmp_path)]
    assert runs == [tmp_path / "ppo" / "Hopper-v5_1", tmp_path / "sac" / "Hopper-v5_2"]
    assert exhibits("Ant-v5", tmp_path) == []


def test_the_best_the_most_travelled_and_the_most_different_skills_are_chosen():
    places = np.array([0.0, 1.0, 5.0, 9.0, 4.0])  # of the mean states, on a line
    evaluation = straight_walks(
        5,
        task_returns=np.array([[3.0, 5.0], [1, 1], [0, 0], [0, 1], [0, 0]]),
        displacements=np.array([[0.0, 0.0], [2, 4], [1, 1], [1, 1], [5, 0]]),
        mean_state_distances=np.abs(places[:, None] - places),
    )
    assert list(choose_skills(evaluation, 4).items()) == [
        (0, "best return"),  # 4 on average
        (1, "most travelled"),  # 3 on average
        (3, "most different"),  # 8 away from the nearest of them
        (2, "most different"),  # 4 away, where skill 4 is 3 away
    ]
    assert set(choose_skills(evaluation, 9)) == set(range(5))


def test_one_skill_can_be_the_best_and_the_most_travelled():
    evaluation = straight_walks(
        2, task_returns=np.array([[0.0], [1]]), displacements=np.array([[0.0], [1]]), n_episodes=1
    )
    assert choose_skills(evaluation) == {1: "best return, most travelled", 0: "most different"}


def test_no_skill_is_the_best_where_there_is_no_reward():
    assert choose_skills(straight_walks(2)) == {0: "most travelled", 1: "most different"}
