"""The figures: what they draw, counted and read back from matplotlib's artists."""

import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch as th
from gymnasium import spaces
from matplotlib.collections import LineCollection

pytest.importorskip("seaborn")

from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation import plotting
from tests.evaluation.evaluations import straight_walks

SIZES = [2, 5, 20, 50]
PLANE = ["x_position", "y_position"]
OBSERVATIONS = ["observation 0", "observation 1"]
PROGRESS = {
    "time/total_timesteps": [100, 200, 300],
    "diayn/log_q_z": [np.nan, -1.2, -0.4],
    "diayn/accuracy": [np.nan, 0.25, 0.75],
}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def ax():
    return plt.figure(layout="constrained").subplots()


def make_evaluation(n_skills, *, n_episodes=3, coordinates=PLANE):
    """Skill k walks straight from 0 to (1, k) and returns -k."""
    returns = np.zeros((n_skills, n_episodes)) - np.arange(n_skills)[:, None]
    info = {"coordinates": coordinates}
    return straight_walks(n_skills, n_episodes=n_episodes, info=info, task_returns=returns)


def make_discriminator(n_skills=2, **kwargs):
    """Skill 1 where the first coordinate is above 0.5, else skill 0, and it is sure of it."""
    n_features = kwargs.pop("n_features", 2)
    space = spaces.Box(-1.0, 1.0, (n_features,))
    discriminator = Discriminator(space, n_skills, net_arch=(), **kwargs)
    with th.no_grad():
        for parameter in discriminator.parameters():
            parameter.zero_()
        if n_skills == 2:
            discriminator.net[0].weight[1, 0] = 1000.0
            discriminator.net[0].bias[1] = -500.0
    return discriminator


def draw(name, n_skills, ax=None):
    if name == "plot_training":
        return plotting.plot_training(PROGRESS, n_skills=n_skills, ax=ax)
    arguments = [make_evaluation(n_skills)]
    if name == "plot_discriminator_regions":
        arguments.insert(0, make_discriminator(n_skills))
    return getattr(plotting, name)(*arguments, ax=ax)


def _color(n_skills, skill):
    return plotting.selected_colors(make_evaluation(n_skills))[skill]


PLOTS = [name for name in plotting.__all__ if name.startswith("plot_")]


@pytest.mark.slow
@pytest.mark.parametrize("n_skills", SIZES)
@pytest.mark.parametrize("name", PLOTS)
def test_draws_on_given_axes_and_opens_no_figure(name, n_skills, ax):
    before = plt.get_fignums()
    assert draw(name, n_skills, ax) is ax
    ax.figure.canvas.draw()
    assert plt.get_fignums() == before
    assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title()


@pytest.mark.slow
@pytest.mark.parametrize("name", PLOTS)
def test_makes_one_figure_without_axes(name):
    ax = draw(name, 5)
    assert plt.get_fignums() == [ax.figure.number]


@pytest.mark.parametrize("n_skills", SIZES)
def test_skill_colors_differ(n_skills):
    colors = plotting.skill_colors(n_skills)
    assert colors.shape == (n_skills, 3)
    assert len(np.unique(colors, axis=0)) == n_skills
    assert colors.min() >= 0 and colors.max() <= 1


def test_many_skill_colors_grow_lighter():
    lightness = plotting.skill_colors(50) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) > 0).all()


def spread_out(n_skills):
    """Skill k is at place k of a line, and skill 3 has the best return."""
    places = np.arange(n_skills, dtype=float)
    return straight_walks(
        n_skills,
        mean_state_distances=np.abs(places[:, None] - places),
        task_returns=-np.abs(places - 3)[:, None] * np.ones(2),
    )


def test_up_to_ten_skills_all_have_a_colour():
    evaluation = spread_out(10)
    assert plotting.select_skills(evaluation) == list(range(10))
    np.testing.assert_array_equal(plotting.selected_colors(evaluation), plotting.skill_colors(10))


def test_of_more_skills_the_best_and_those_that_differ_most_have_a_colour():
    evaluation = spread_out(100)
    selected = plotting.select_skills(evaluation)
    # The best, then the farthest end, the middle between the two, and halves of halves.
    assert {3, 99, 51, 27, 75} <= set(selected) and len(selected) == 9
    assert np.diff(selected).min() >= 10
    colors = plotting.selected_colors(evaluation)
    assert len(np.unique(colors, axis=0)) == 10
    assert len(np.unique(colors[np.delete(np.arange(100), selected)], axis=0)) == 1


def test_colours_of_skills_that_cannot_be_compared():
    evaluation = spread_out(12)
    evaluation.mean_state_distances[:] = np.nan
    selected = plotting.select_skills(evaluation)
    assert 3 in selected and len(set(selected)) == 9


def test_coordinates_have_the_names_of_the_observation(ax):
    evaluation = make_evaluation(3, coordinates=OBSERVATIONS)
    evaluation.info["obs_names"] = ["position", "velocity"]
    plotting.plot_trajectories(evaluation, ax=ax)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("position", "velocity")


def test_training_lines(ax):
    plotting.plot_training(PROGRESS, n_skills=4, ax=ax)
    log_q, bound, baseline = ax.get_lines()
    np.testing.assert_array_equal(log_q.get_xydata(), [[200, -1.2], [300, -0.4]])
    assert set(bound.get_ydata()) == {0}
    np.testing.assert_allclose(baseline.get_ydata(), -np.log(4))
    assert baseline.get_linestyle() == "--"
    np.testing.assert_allclose(ax.get_ylim(), [-1.05 * np.log(4), 0.05 * np.log(4)])
    (twin,) = (other for other in ax.figure.axes if other is not ax)
    np.testing.assert_array_equal(twin.get_lines()[0].get_xydata(), [[200, 0.25], [300, 0.75]])
    assert ax.get_xlabel() == "time steps"
    assert "[nats]" in ax.get_ylabel() and "share" in twin.get_ylabel()
    assert len(ax.get_legend().get_texts()) == 4


def test_training_reads_csv_files_and_empty_strings(tmp_path, ax):
    file = tmp_path / "progress.csv"
    pd.DataFrame(PROGRESS).to_csv(file, index=False)
    as_text = pd.read_csv(file, dtype=str, keep_default_na=False)
    for progress in (pd.read_csv(file), as_text, as_text.to_dict("list")):
        plotting.plot_training(progress, n_skills=4, ax=ax)
        np.testing.assert_array_equal(ax.get_lines()[-3].get_ydata(), [-1.2, -0.4])


@pytest.mark.parametrize("column", PROGRESS)
def test_training_refuses_a_log_without_entries(column):
    for progress in (
        {name: values for name, values in PROGRESS.items() if name != column},
        PROGRESS | {column: [np.nan] * 3},
    ):
        with pytest.raises(ValueError, match=r"^progress=.* has no row with all of"):
            plotting.plot_training(progress, n_skills=4)
    assert plt.get_fignums() == []


@pytest.mark.slow
@pytest.mark.parametrize("n_episodes", [1, 3])
@pytest.mark.parametrize("n_skills", SIZES)
def test_task_returns_sorted(n_skills, n_episodes, ax):
    plotting.plot_task_returns(make_evaluation(n_skills, n_episodes=n_episodes), ax=ax)
    assert len(ax.patches) == n_skills
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == [str(skill) for skill in reversed(range(n_skills))]
    points = ax.collections[0].get_offsets()
    assert len(points) == n_skills * n_episodes
    np.testing.assert_array_equal(points[:n_episodes, 1], 1 - n_skills)
    np.testing.assert_allclose(points[:n_episodes, 0].mean(), 0, atol=1e-12)
    np.testing.assert_allclose(ax.collections[0].get_facecolors()[-1][:3], _color(n_skills, 0))
    assert "task return" in ax.get_ylabel()


@pytest.mark.parametrize("n_skills", SIZES)
def test_trajectories_have_a_collection_per_skill(n_skills, ax):
    plotting.plot_trajectories(make_evaluation(n_skills), ax=ax)
    lines = [artist for artist in ax.collections if isinstance(artist, LineCollection)]
    assert [len(line.get_segments()) for line in lines] == [3] * n_skills
    for skill, line in enumerate(lines):
        np.testing.assert_array_equal(line.get_segments()[0][-1], [1, skill])
        np.testing.assert_allclose(line.get_color()[0][:3], _color(n_skills, skill))
    np.testing.assert_array_equal(ax.collections[-1].get_offsets(), np.zeros((3 * n_skills, 2)))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x position [m]", "y position [m]")
    assert ax.get_ylim()[1] > n_skills - 1


@pytest.mark.parametrize(("n_skills", "has_legend"), [(2, True), (20, True), (21, False)])
def test_regions_have_a_legend_for_few_and_a_colour_bar_for_many(n_skills, has_legend, ax):
    draw("plot_discriminator_regions", n_skills, ax)
    assert (ax.get_legend() is not None) == has_legend
    assert len(ax.figure.axes) == (1 if has_legend else 2)
    if not has_legend:
        bar = ax.figure.axes[1]
        assert bar.get_ylabel() == "skill"
        assert bar.get_ylim() == (-0.5, n_skills - 0.5)


@pytest.mark.parametrize(("n_skills", "n_entries"), [(2, 2), (10, 10), (11, 10), (50, 10)])
def test_the_legend_of_paths_names_nine_of_many_skills_and_the_others(n_skills, n_entries, ax):
    draw("plot_trajectories", n_skills, ax)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert len(texts) == n_entries
    assert (texts[-1] == "other skills") == (n_skills > 10)


def test_regions_of_many_skills_have_numbers(ax):
    draw("plot_discriminator_regions", 11, ax)
    assert [text.get_text() for text in ax.texts] == ["0"]  # this one guesses the first


@pytest.mark.parametrize(
    ("coordinates", "aspect", "ylabel"),
    [
        (PLANE, 1.0, "y position [m]"),
        (["x_position", "z_distance_from_origin"], "auto", "z distance from origin [m]"),
        (OBSERVATIONS, "auto", "observation 1"),
    ],
)
def test_aspect_is_equal_in_the_plane_only(coordinates, aspect, ylabel, ax):
    plotting.plot_trajectories(make_evaluation(3, coordinates=coordinates), ax=ax)
    assert ax.get_aspect() == aspect
    assert ax.get_ylabel() == ylabel


@pytest.mark.slow
@pytest.mark.parametrize(("n_skills", "n_numbers"), [(2, 4), (10, 100), (11, 0), (50, 0)])
def test_confusion_numbers_and_ticks(n_skills, n_numbers, ax):
    plotting.plot_confusion(make_evaluation(n_skills), ax=ax)
    assert len(ax.texts) == n_numbers
    np.testing.assert_array_equal(
        np.reshape(ax.collections[0].get_array(), (n_skills, n_skills)), np.eye(n_skills)
    )
    assert len(ax.get_xticks()) == len(ax.get_yticks()) <= 10
    assert "1.00" in ax.get_title()
    assert "share" in ax.figure.axes[1].get_ylabel()


def test_reliability_leaves_out_empty_bins(ax):
    evaluation = make_evaluation(2)
    evaluation.reliability[5] = [0.4, 0.55, 0.5]
    evaluation.reliability[9] = [0.6, 0.95, 0.75]
    plotting.plot_reliability(evaluation, ax=ax)
    diagonal, line = ax.get_lines()
    np.testing.assert_array_equal(diagonal.get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_array_equal(line.get_xydata(), [[0.55, 0.5], [0.95, 0.75]])
    assert [bar.get_height() for bar in ax.patches] == [0, 0, 0, 0, 0, 0.4, 0, 0, 0, 0.6]
    assert "0.14" in ax.get_title()  # 0.4 * 0.05 + 0.6 * 0.2


def test_reliability_of_an_old_evaluation_is_refused():
    evaluation = make_evaluation(2)
    evaluation.reliability[:] = np.nan
    with pytest.raises(ValueError, match="reliability is unknown; expected"):
        plotting.plot_reliability(evaluation)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("n_skills", SIZES)
def test_coverage_bars(n_skills, ax):
    plotting.plot_coverage(make_evaluation(n_skills), ax=ax)
    assert [bar.get_height() for bar in ax.patches] == list(range(1, n_skills + 1))
    assert "77 cells" in ax.get_title()
    assert ax.get_ylabel() == "visited cells of 0.25 m x 0.25 m"
    assert len(ax.get_xticks()) <= 10


def test_coverage_in_no_unit(ax):
    plotting.plot_coverage(make_evaluation(2, coordinates=OBSERVATIONS), ax=ax)
    assert ax.get_ylabel() == "visited cells of 0.25 x 0.25"


@pytest.mark.parametrize("coordinates", [PLANE, OBSERVATIONS])
def test_regions_show_the_likeliest_skill(coordinates, ax):
    evaluation = make_evaluation(2, coordinates=coordinates)
    plotting.plot_discriminator_regions(make_discriminator(), evaluation, ax=ax)
    (image,) = ax.images
    # Five per cent more than the paths, which run from (0, 0) to (1, 1).
    np.testing.assert_allclose(image.get_extent(), [-0.05, 1.05, -0.05, 1.05])
    pixels = image.get_array()
    np.testing.assert_allclose(pixels[0, 0], [*_color(2, 0), 1.0])
    np.testing.assert_allclose(pixels[-1, 0], [*_color(2, 0), 1.0])
    np.testing.assert_allclose(pixels[0, -1], [*_color(2, 1), 1.0])


def test_regions_are_pale_for_a_guess(ax):
    discriminator = make_discriminator(5)
    plotting.plot_discriminator_regions(discriminator, make_evaluation(5), ax=ax)
    np.testing.assert_allclose(ax.images[0].get_array()[..., 3], 0.2, atol=1e-6)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["skill 0"]


def test_regions_of_a_coordinate_that_stands_still(ax):
    evaluation = make_evaluation(2)
    evaluation.paths[..., 1] = 3.0
    plotting.plot_discriminator_regions(make_discriminator(), evaluation, ax=ax)
    np.testing.assert_allclose(ax.images[0].get_extent(), [-0.05, 1.05, 2.5, 3.5])


@pytest.mark.parametrize(
    ("options", "coordinates"),
    [
        ({"n_features": 3}, PLANE),
        ({"action_space": spaces.Box(-1.0, 1.0, (1,))}, PLANE),
        ({}, ["x_position", "observation 0"]),
    ],
)
def test_regions_refuse_what_is_no_plane(options, coordinates):
    evaluation = make_evaluation(2, coordinates=coordinates)
    with pytest.raises(ValueError, match="no regions in a plane; expected"):
        plotting.plot_discriminator_regions(make_discriminator(**options), evaluation)
    assert plt.get_fignums() == []


def test_regions_refuse_another_number_of_skills():
    with pytest.raises(ValueError, match="n_skills=2 does not fit the evaluation; expected 3"):
        plotting.plot_discriminator_regions(make_discriminator(), make_evaluation(3))


@pytest.mark.slow
def test_package_does_not_import_plotting():
    code = "import sys, sb3_diayn; print('sb3_diayn.evaluation.plotting' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
