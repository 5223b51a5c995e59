import json
import math
from dataclasses import fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest

from sb3_diayn.evaluation.evaluate import evaluate_skills
from sb3_diayn.evaluation.results import SINCE_FORMAT_2, SkillEvaluation
from tests.evaluation.evaluations import straight_walks
from tests.helpers.scripted import K, compass, point_vec, walker


@pytest.fixture(scope="module")
def evaluation():
    return evaluate_skills(walker(), point_vec(), n_episodes=2, discriminator=compass())


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_file_gives_the_same_bits(evaluation, tmp_path, suffix):
    evaluation.save(tmp_path / f"e{suffix}")
    loaded = SkillEvaluation.load(tmp_path / f"e{suffix}")
    for field in fields(evaluation):
        first, second = getattr(evaluation, field.name), getattr(loaded, field.name)
        if isinstance(first, np.ndarray):
            assert (first.dtype, first.shape) == (second.dtype, second.shape), field.name
            assert first.tobytes() == second.tobytes(), field.name
        else:
            assert (type(first), first) == (type(second), second), field.name
    assert [path.name for path in tmp_path.iterdir()] == [f"e{suffix}"]


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "3", "{}", '{"format_version": 2}', "é"])
@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_foreign_file_is_refused(tmp_path, content, suffix):
    file = tmp_path / f"e{suffix}"
    file.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match="is not an evaluation of format 1 or 2"):
        SkillEvaluation.load(file)


def test_a_foreign_archive_is_refused(tmp_path):
    np.savez(tmp_path / "e.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="is not an evaluation of format 1 or 2"):
        SkillEvaluation.load(tmp_path / "e.npz")


def test_another_version_is_refused(evaluation, tmp_path):
    evaluation.save(tmp_path / "e.json")
    content = json.loads((tmp_path / "e.json").read_text()) | {"format_version": 7}
    (tmp_path / "e.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"format 1 or 2 \(format 7\)"):
        SkillEvaluation.load(tmp_path / "e.json")


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_file_of_the_first_format_knows_no_held_out_classifier(evaluation, tmp_path, suffix):
    file = tmp_path / f"e{suffix}"
    evaluation.save(file)
    old = dict(np.load(file)) if suffix == ".npz" else json.loads(file.read_text())
    old = {name: value for name, value in old.items() if name not in SINCE_FORMAT_2}
    old |= {"format_version": 1}
    if suffix == ".npz":
        np.savez(file, **old)
    else:
        file.write_text(json.dumps(old))
    loaded = SkillEvaluation.load(file)
    assert np.isnan([loaded.distinct_skills, loaded.distinct_skills_everything]).all()
    assert np.isnan([loaded.distinct_skills_untrained, loaded.calibration_error]).all()
    assert loaded.held_out_confusion.shape == (K, K)
    assert loaded.mutual_information == loaded.discriminator_bound == pytest.approx(math.log(K))
    loaded.save(file)  # in the new format
    assert np.isnan(SkillEvaluation.load(file).distinct_skills)


def test_a_file_of_the_second_format_must_be_whole(evaluation, tmp_path):
    evaluation.save(tmp_path / "e.json")
    content = json.loads((tmp_path / "e.json").read_text())
    del content["held_out_log_q"]
    (tmp_path / "e.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="held_out_log_q"):
        SkillEvaluation.load(tmp_path / "e.json")


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({}, ""),
        ({"deterministic": True}, "deterministically"),
        ({"deterministic": False}, "with sampled actions"),
    ],
)
def test_how_skills_were_played(info, words):
    assert straight_walks(2, info=info).how_played == words


def test_another_ending_is_refused(evaluation, tmp_path):
    for call in (evaluation.save, SkillEvaluation.load):
        with pytest.raises(ValueError, match=r"expected \.json or \.npz"):
            call(tmp_path / "e.txt")


def test_a_missing_file_is_called_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        SkillEvaluation.load(tmp_path / "e.json")


def test_table_and_dataframe_have_a_row_per_skill(evaluation):
    table = evaluation.table()
    assert {len(column) for column in table.values()} == {K}
    assert table["distance"] == pytest.approx(np.full(K, 19), abs=1e-5)
    assert table["task_return_max"] == pytest.approx(evaluation.task_returns.max(axis=1))
    pytest.importorskip("pandas")
    frame = evaluation.to_dataframe()
    assert frame.index.name == "skill" and frame.shape == (K, len(table) - 1)


def test_repr_is_a_line(evaluation):
    evaluation = replace(evaluation, info=evaluation.info | {"algo": "SAC", "env_id": "Point-v0"})
    assert repr(evaluation) == (
        "SkillEvaluation(SAC on Point-v0, 4 skills, 2 episodes of each, 3.94 distinct skills, "
        "accuracy 100%, best task return 210 of skill 0)"
    )
    assert repr(straight_walks(3)).startswith("SkillEvaluation(3 skills, 2 episodes of each")


class Cells(HTMLParser):
    """The text of each row, cell by cell, and all text."""

    def __init__(self, text):
        super().__init__()
        self.rows, self.text, self.tags = [], "", set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])

    def handle_data(self, data):
        self.text += data
        if self.rows:
            self.rows[-1].append(data)


@pytest.mark.parametrize("n_skills", [3, 10, 11, 50])
def test_a_notebook_shows_the_best_skills(n_skills):
    returns = np.arange(n_skills)[:, None] * np.ones(2)
    evaluation = straight_walks(n_skills, task_returns=returns, info={"algo": "<b>SAC</b>"})
    page = Cells(evaluation._repr_html_())
    head, *rows = page.rows
    assert head[:2] == ["skill", "task return"]
    shown = min(n_skills, 10)
    assert [row[0] for row in rows] == [str(n_skills - 1 - place) for place in range(shown)]
    assert rows[0][1] == str(n_skills - 1)
    assert (f"and {n_skills - 10} more skills" in page.text) == (n_skills > 10)
    assert page.tags == {"p", "table", "tr", "th", "td"} and "<b>SAC</b>" in page.text


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_file_without_the_share_upside_down_does_not_know_it(evaluation, tmp_path, suffix):
    file = tmp_path / f"e{suffix}"
    evaluation.upside_down = np.linspace(0, 1, K)
    evaluation.save(file)
    loaded = SkillEvaluation.load(file)
    assert loaded.upside_down == pytest.approx(evaluation.upside_down)
    assert loaded.table()["upside_down"] is loaded.upside_down
    old = dict(np.load(file)) if suffix == ".npz" else json.loads(file.read_text())
    del old["upside_down"]
    if suffix == ".npz":
        np.savez(file, **old)
    else:
        file.write_text(json.dumps(old))
    loaded = SkillEvaluation.load(file)
    assert loaded.upside_down.shape == (K,) and np.isnan(loaded.upside_down).all()
    assert "upside_down" not in loaded.table()
