"""The report: its files, its links, what it says, and that half of it never replaces a whole."""

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("jinja2")
pytest.importorskip("seaborn")

from sb3_diayn.evaluation import report
from sb3_diayn.evaluation.report import Description, headlines, number, write_report
from sb3_diayn.evaluation.results import SINCE_FORMAT_2, SkillEvaluation
from tests.evaluation.evaluations import straight_walks
from tests.helpers.figures import leave_undrawn

K = 3
EVIL = "<script>alert(1)</script>"
ABOUT = Description(
    title=f"Run {EVIL}",
    algo="SAC",
    env_id="Point-v0",
    facts={"Seed": 7, "Command": f"train {EVIL}"},
    hyperparams={"ent_coef": f"'{EVIL}'"},
    play="sb3-diayn play logs/sac/Point-v0_1",
    enjoy="python -m rl_zoo3.enjoy --algo sac",
    snippet='print("a" < "b", SKILL)',
)


class Page(HTMLParser):
    """Tags, links and the text of each table row."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.rows, self.scripts, self.text = [], [], 0, 0, ""
        self.ids, self.skills = set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)
        values = dict(attrs)
        self.links += [values[key] for key in ("href", "src", "poster") if key in values]
        self.rows += tag == "tr" and "tbody" in self.open
        self.scripts += tag == "script"
        self.ids.add(values.get("id"))
        if "data-skill" in values:
            self.skills.append((tag, int(values["data-skill"])))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def evaluation():
    """Skill k walks to (1, k), returns 10 k, and is recognised with certainty."""
    returns = np.zeros((K, 2)) + 10 * np.arange(K)[:, None]
    info = {"n_episodes": 2, "num_timesteps": 50_000}
    return straight_walks(K, info=info, task_returns=returns)


def make_films(folder):
    """Real films, if only of four frames."""
    from sb3_diayn.evaluation.video import write_film

    folder.mkdir()
    films = {}
    for skill in range(K):
        films[skill] = folder / f"skill_{skill:02d}.mp4"
        with write_film(films[skill], (32, 32, 3), 10) as add:
            for step in range(4):
                add(np.full((32, 32, 3), 60 * skill + step, np.uint8))
    return films


def no_films(folder):
    raise OSError(f"no EGL {EVIL}")


def write(folder, evaluation, drawn=False, **kwargs):
    """The page of a report. One test looks at its figures."""
    with pytest.MonkeyPatch.context() as patch:
        if not drawn:
            leave_undrawn(patch)
        page = write_report(folder, evaluation, description=ABOUT, **kwargs)
    return Page(page.read_text())


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_all_that_is_linked_is_there_and_nothing_is_elsewhere(tmp_path, evaluation):
    pytest.importorskip("imageio_ffmpeg")
    page = write(tmp_path, evaluation, drawn=True, films=make_films, card=ABOUT)
    assert page.open == []
    assert page.rows == K
    assert {f"films/skill_0{k}.mp4" for k in range(K)} <= set(page.links)
    linked = {link for link in page.links if not link.startswith("#")}
    for link in linked:
        assert not re.match(r"\w+:|//|/", link), link
        assert (tmp_path / link).stat().st_size > 0
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.ids
    expected = {"index.html", "report.md", "README.md", "evaluation.json", "replay.mp4"}
    assert files(tmp_path) == expected | linked
    for text in (tmp_path / "index.html", tmp_path / "report.md"):
        assert "http" not in text.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("n_skills", [3, 12])
def test_each_skill_is_a_path_and_a_row_and_among_many_a_picture(tmp_path, n_skills):
    evaluation = straight_walks(n_skills, info={"n_episodes": 2})
    page = write(tmp_path, evaluation)
    skills = list(range(n_skills))
    assert sorted(skill for tag, skill in page.skills if tag == "use") == sorted(2 * skills)
    assert [skill for tag, skill in page.skills if tag == "tr"] == skills
    pictures = [skill for tag, skill in page.skills if tag == "li"]
    assert pictures == (skills if n_skills > 10 else [])
    assert page.open == [] and {f"path-{skill}" for skill in skills} <= page.ids


@pytest.mark.slow
def test_the_page_names_coordinates_and_no_folders(tmp_path, evaluation):
    def fail(folder):
        raise OSError(28, "No space left", f"{folder}/skill_00.mp4")

    evaluation.info |= {"coordinates": ["observation 0", "observation 1"]}
    evaluation.info |= {"obs_names": ["height", "speed"]}
    page = write(tmp_path, evaluation, films=fail, card=ABOUT)
    assert "height and speed" in page.text and "observation 0" not in page.text
    assert "No space left: 'skill_00.mp4'" in page.text
    for name in ("index.html", "report.md", "README.md"):
        assert str(tmp_path) not in (tmp_path / name).read_text()


@pytest.mark.slow
def test_what_users_name_is_escaped(tmp_path, evaluation):
    page = write(tmp_path, evaluation, films=no_films)
    assert page.scripts == 1  # the page's own
    assert page.text.count(EVIL) == 5  # title twice, command, hyperparameter, reason
    assert 'print("a" < "b", 2)' in page.text


@pytest.mark.slow
def test_without_films_the_page_says_why(tmp_path, evaluation):
    page = write(tmp_path, evaluation, films=no_films)
    assert "Films could not be made: no EGL" in page.text
    assert "Films were left out." in write(tmp_path, evaluation).text
    assert "Ask later." in write(tmp_path, evaluation, why_no_films="Ask later.").text
    assert not any(link.endswith(".mp4") for link in page.links)


@pytest.mark.slow
def test_films_of_an_older_report_go(tmp_path, evaluation):
    pytest.importorskip("imageio_ffmpeg")
    write(tmp_path, evaluation, films=make_films)
    (tmp_path / "films" / "mine.mp4").write_text("kept")
    write(tmp_path, evaluation)
    assert [file for file in files(tmp_path) if "films" in file] == ["films/mine.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["save_figures", "render", "diagnose", "model_card"])
def test_an_interrupted_report_leaves_the_old_one(tmp_path, evaluation, monkeypatch, step):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    write(tmp_path, evaluation, card=ABOUT)
    before = {file: (tmp_path / file).read_bytes() for file in files(tmp_path)}
    monkeypatch.setattr(report, step, fail)
    evaluation.task_returns += 1
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, evaluation, card=ABOUT)
    assert {file: (tmp_path / file).read_bytes() for file in files(tmp_path)} == before
    assert not list(tmp_path.glob(".report-*"))


@pytest.mark.slow
def test_the_page_goes_last(tmp_path, evaluation, monkeypatch):
    moved, replace = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, to: moved.append(to) or replace(self, to))
    write(tmp_path, evaluation)
    assert moved[-1] == tmp_path / "index.html"


@pytest.mark.slow
def test_the_evaluation_is_kept(tmp_path, evaluation):
    write(tmp_path, evaluation)
    loaded = SkillEvaluation.load(tmp_path / "evaluation.json")
    np.testing.assert_array_equal(loaded.task_returns, evaluation.task_returns)
    assert json.loads((tmp_path / "evaluation.json").read_text())["info"] == evaluation.info


def test_headlines(evaluation):
    assert headlines(evaluation) == {
        "Distinct skills": ("3 of 3", "held-out classifier, 1.1 of 1.10 nats"),
        "Known to D": ("3 of 3", "the discriminator's own bound, 1.1 of 1.10 nats"),
        "Accuracy": ("100%", "guessing: 33%"),
        "Calibration error": ("0", "0 is perfect"),
        "Best task return": ("20", "skill 2"),
        "Median task return": ("10", "over skills"),
        "Coverage": ("77 cells", "x position and y position"),
    }
    evaluation.log_q -= 5
    assert headlines(evaluation)["Known to D"][0] == "< 1 of 3"
    assert headlines(evaluation)["Distinct skills"][0] == "3 of 3"


def test_headlines_of_what_differs_and_of_the_baseline(evaluation):
    evaluation.held_out_log_q_everything -= np.log(2)
    evaluation.untrained_log_q[:] = -np.log(3)
    remark = headlines(evaluation)["Distinct skills"][1]
    assert remark.endswith("nats; 1.5 with the whole observation; untrained: 1.0")


@pytest.mark.slow
@pytest.mark.parametrize("info", [{}, {"why_no_held_out": "it needs two episodes"}])
def test_no_other_number_takes_the_place_of_an_unknown_one(tmp_path, evaluation, info):
    evaluation.info |= info
    for name in SINCE_FORMAT_2:
        getattr(evaluation, name)[:] = np.nan
    reason = info.get("why_no_held_out", "an evaluation of version 0.1.0")
    assert headlines(evaluation)["Distinct skills"] == ("n/a", reason)
    assert headlines(evaluation)["Calibration error"][0] == "n/a"
    page = write(tmp_path, evaluation, card=ABOUT)
    assert "reliability.png" not in page.links
    _, head, body = (tmp_path / "README.md").read_text().split("---\n", 2)
    assert "distinct_skills" not in head and f"| **n/a** | {reason} |" in body


@pytest.mark.slow
@pytest.mark.parametrize(
    ("info", "words"),
    [({"deterministic": False}, "with sampled actions"), ({"deterministic": True}, "ministically")],
)
def test_the_page_says_how_skills_were_played(tmp_path, evaluation, info, words):
    evaluation.info |= info
    assert words in write(tmp_path, evaluation).text
    assert words in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.5, "1234"), (-12.345, "\N{MINUS SIGN}12.3"), (0.0, "0"), (float("nan"), "n/a")],
)
def test_number(value, text):
    assert number(value) == text


@pytest.mark.slow
def test_training_is_drawn_where_something_was_logged(tmp_path, evaluation):
    names = ("time/total_timesteps", "diayn/log_q_z", "diayn/accuracy")
    history = {name: np.array([np.nan, 1.0, 2.0]) for name in names}
    assert "training.png" in write(tmp_path / "a", evaluation, history=history).links
    nothing = {name: np.array([np.nan]) for name in names}
    assert "training.png" not in write(tmp_path / "b", evaluation, history=nothing).links
    empty = {name: np.array([]) for name in names}
    assert "training.png" not in write(tmp_path / "c", evaluation, history=empty).links


@pytest.mark.slow
def test_card(tmp_path, evaluation):
    write(tmp_path, evaluation, card=ABOUT)
    text = (tmp_path / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    metadata = yaml.safe_load(head)
    assert metadata["library_name"] == "stable-baselines3"
    assert {"Point-v0", "reinforcement-learning", "diayn"} <= set(metadata["tags"])
    assert body.strip() == (tmp_path / "report.md").read_text().strip()
    for link in re.findall(r"\]\(([^)]*)\)", body):
        assert (tmp_path / link).is_file()
    assert body.count("\n| 0 |") == body.count("\n| 2 |") == 1


@pytest.mark.slow
def test_a_card_without_the_hub_library_names_the_extra(tmp_path, evaluation, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3-diayn\[report\]'"):
        write(tmp_path, evaluation, card=ABOUT)
    assert files(tmp_path) == set()
    write(tmp_path, evaluation)  # only the card needs it


@pytest.mark.slow
def test_card_is_what_the_hub_reads(tmp_path, evaluation):
    hub = pytest.importorskip("huggingface_hub")
    write(tmp_path, evaluation, card=ABOUT)
    data = hub.ModelCard.load(tmp_path / "README.md").data
    assert data.model_name == "SAC"
    assert data.library_name == "stable-baselines3"
    results = {result.metric_type: result for result in data.eval_results}
    assert results["mean_reward"].metric_value == "20.00 +/- 0.00"
    assert results["distinct_skills"].metric_value == 3.0
    assert {result.dataset_name for result in data.eval_results} == {"Point-v0"}


@pytest.mark.slow
def test_the_share_of_steps_upside_down_is_shown_where_it_is_known(tmp_path, evaluation):
    write(tmp_path / "unknown", evaluation)
    evaluation.upside_down = np.array([0.0, 0.25, 0.97])
    write(tmp_path / "known", evaluation)
    for file in ("report.md", "index.html"):
        unknown, known = ((tmp_path / f / file).read_text() for f in ("unknown", "known"))
        assert "upside" not in unknown and "upside down" in known
        assert "2 of 3 skills have the torso upside down: 1 (25%" in known
    text = (tmp_path / "known" / "report.md").read_text().replace(r"\|", "")
    table = [line for line in text.splitlines() if line.startswith("| ") or line.startswith("|-")]
    rows = [row for row in table if row.count("|") > 8]
    assert len(rows) == 2 + K and len({row.count("|") for row in rows}) == 1
    assert [row.rsplit("|", 2)[1].strip() for row in rows[2:]] == ["0 %", "25 %", "97 %"]
