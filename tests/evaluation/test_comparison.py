"""Runs side by side, with numbers that can be checked by hand."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest

pytest.importorskip("scipy")

from sb3_diayn.evaluation.comparison import (
    METRICS,
    SHORT,
    compare,
    plot_comparison,
    summarize_groups,
    write_comparison,
)
from tests.evaluation.evaluations import straight_walks


def make_evaluation(best, n_skills=4, algo="SAC"):
    """Skill k returns ``best`` - k, and every skill is recognised."""
    return straight_walks(
        n_skills,
        info={"env_id": "Point-v0", "algo": algo, "num_timesteps": 100, "total_coverage": 12},
        task_returns=np.full((n_skills, 2), best) - np.arange(n_skills)[:, None],
        movement=np.full(n_skills, 0.5),
    )


@pytest.fixture
def frame():
    seeds = {f"seed {seed}": make_evaluation(10.0 * seed) for seed in range(1, 6)}
    return compare(seeds | {"other": make_evaluation(0.0, algo="TQC")})


def test_one_row_per_run(frame):
    row = frame.loc["seed 2"]
    assert row["group"] == "Point-v0 SAC K=4"
    assert (row["n_skills"], row["steps"], row["coverage"]) == (4, 100, 12)
    assert row["distinct_skills"] == row["recognized_skills"] == pytest.approx(4)
    assert (row["accuracy"], row["calibration_error"]) == (1, 0)
    assert (row["best_task_return"], row["median_task_return"]) == (20, 18.5)
    assert row["movement"] == 0.5


def test_mean_and_interval_over_the_runs_of_a_group(frame):
    summary = summarize_groups(frame)
    row = summary.loc[("Point-v0 SAC K=4", "best_task_return")]
    assert (row["runs"], row["mean"]) == (5, 30)
    # Of five resampled runs the mean has a standard error of 14.1 / sqrt(5) = 6.3.
    assert 16 <= row["low"] <= 20 and 40 <= row["high"] <= 44
    same = summary.loc[("Point-v0 SAC K=4", "accuracy")]
    assert same["low"] == same["mean"] == same["high"] == 1


def test_a_single_run_has_no_interval(frame):
    row = summarize_groups(frame).loc[("Point-v0 TQC K=4", "best_task_return")]
    assert (row["runs"], row["mean"]) == (1, 0)
    assert np.isnan([row["low"], row["high"]]).all()


@pytest.mark.slow
def test_what_is_unknown_of_one_run_is_unknown_of_its_group():
    old = make_evaluation(1.0)
    old.held_out_log_q[:] = np.nan
    frame = compare({"old": old, "new": make_evaluation(1.0)})
    summary = summarize_groups(frame)
    assert np.isnan(frame.loc["old", "distinct_skills"])
    unknown = summary.loc[("Point-v0 SAC K=4", "distinct_skills")]
    assert np.isnan(unknown[["mean", "low", "high"]].to_numpy(float)).all()
    assert summary.loc[("Point-v0 SAC K=4", "recognized_skills"), "mean"] == pytest.approx(4)
    plot_comparison(frame).flat[0].figure.canvas.draw()
    plt.close("all")


def test_the_interval_is_reproducible(frame):
    assert summarize_groups(frame).equals(summarize_groups(frame))


def test_groups_can_be_named():
    runs = {"a": make_evaluation(1.0), "b": make_evaluation(3.0, n_skills=2)}
    frame = compare(runs, groups={"a": "mine", "b": "mine"})
    assert summarize_groups(frame).loc[("mine", "best_task_return"), "mean"] == 2


def test_bad_input():
    with pytest.raises(ValueError, match=r"evaluations=\{\} is empty"):
        compare({})
    with pytest.raises(ValueError, match=r"does not name \['b'\]"):
        compare({"a": make_evaluation(1.0), "b": make_evaluation(1.0)}, groups={"a": "mine"})


def test_plot(frame):
    axes = plot_comparison(frame)
    assert axes.size == len(METRICS)
    ax = axes.flat[list(METRICS).index("best_task_return")]
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], [10, 20, 30, 40, 50, 0])
    labels = [label.get_text() for label in axes.flat[0].get_yticklabels()]
    assert labels == ["Point-v0 SAC K=4", "Point-v0 TQC K=4"]
    plt.close("all")


def films_of(folder, skills):
    """Files that stand for films, each with its skill as content."""
    folder.mkdir()
    films = {skill: folder / f"skill_{skill:02d}.mp4" for skill in skills}
    for skill, film in films.items():
        film.write_text(str(skill))
        film.with_suffix(".jpg").write_text(f"poster {skill}")
    return films


@pytest.mark.slow
def test_the_page_shows_the_best_films_of_each_run(tmp_path):
    evil = "<script>alert(1)</script>"
    runs = {"a": make_evaluation(10.0), evil: make_evaluation(5.0), "c": make_evaluation(0.0, 2)}
    films = {"a": films_of(tmp_path / "films", [3, 1, 2, 0])}  # skill k returns 10 - k
    folder = tmp_path / "page"
    page = write_comparison(folder, runs, films=films).read_text()
    assert {file.name: file.read_text() for file in (folder / "films").iterdir()} == {
        f"run_0_skill_0{skill}.{kind}": f"{word}{skill}"
        for skill in range(3)
        for kind, word in {"mp4": "", "jpg": "poster "}.items()
    }
    assert page.index("skill_00.mp4") < page.index("skill_01.mp4") < page.index("skill_02.mp4")
    assert "skill 0, return 10" in page and page.count("No films:") == 2
    assert evil not in page and page.count("&lt;script&gt;alert(1)") >= 3
    assert "Point-v0 SAC K=4, 2 runs" in page and "K=2, 1 runs" not in page
    assert page.count('class="paths"') == 3
    assert (folder / "comparison.png").is_file()
    assert len((folder / "comparison.csv").read_text().splitlines()) == 4
    assert plt.get_fignums() == []


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_runs_of_an_environment_have_the_same_scales(tmp_path):
    """Skill 1 walks to (1, 1): it is smaller next to a run whose skills go farther."""
    ids = {}
    for name, n_skills in {"alone": 2, "next to it": 9}.items():
        runs = {"a": make_evaluation(1.0, 2), "b": make_evaluation(1.0, n_skills)}
        page = write_comparison(tmp_path / name, runs).read_text()
        ids[name] = page.partition('<path id="run-0-1" d="')[2].partition('"')[0]
    assert ids["alone"] and ids["alone"] != ids["next to it"]


def test_each_metric_has_a_heading(frame):
    assert set(METRICS) < set(SHORT) == set(frame.columns) - {"group"}
