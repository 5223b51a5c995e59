"""What commands run as code of a zip and of a run's folder: the table of the documentation."""

import shutil
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from docs.tables.security import PAGE, with_tables
from sb3_diayn import DIAYNWrapper
from sb3_diayn.cli import main, make_parser
from tests.helpers.models import make_callback, make_sac
from tests.helpers.runs import CHECKPOINT, ENV, NAME, OPTIONS, make_run, swept
from tests.helpers.security import ROWS, STATISTICS, mark_pickle, mark_run, mark_zip

READS_RUN = [row for row in ROWS if row.command != "sweep"]


def of_commands(*names):
    return [row for row in READS_RUN if row.command in names]


# Every command finds a run in the same way, whatever place in its folder is named.
PLACES = [(row, ".") for row in READS_RUN]
PLACES += [(row, f"{NAME}.zip") for row in of_commands("evaluate", "imitate")]
PLACES += [(row, CHECKPOINT) for row in of_commands("evaluate", "train")]
# And opens the statistics in the same way.
ZIPS = [(row, False) for row in READS_RUN] + [(row, True) for row in of_commands("evaluate")]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of a tiny run."""
    return make_run(tmp_path_factory.mktemp("logs"))


@pytest.fixture(scope="module")
def bare_zip(request, tmp_path_factory):
    """A model outside of every run's folder, and whether it was trained under VecNormalize."""
    folder = tmp_path_factory.mktemp("bare")
    env = DummyVecEnv([lambda: DIAYNWrapper(gym.make(ENV, max_episode_steps=6), n_skills=2)])
    env = VecNormalize(env, norm_reward=False)
    model = make_sac(env if request.param else env.venv)
    model.learn(25, callback=make_callback(net_arch=[4]))
    model.save(folder / "bare.zip")
    env.save(str(folder / STATISTICS))
    return folder / "bare.zip", request.param


def words_of(row, path, folder):
    """The words of the command in a row, for a run at ``path``."""
    command, *options = row.words.split()
    words = [command, *OPTIONS[command], *(word for word in options if word == "--no-films")]
    words += ["--resume", str(path)] if command == "train" else [str(path)]
    if command == "imitate":
        np.savez(folder / "expert.npz", observations=np.zeros((4, 2)))
        words += ["--trajectory", str(folder / "expert.npz")]
        words += [] if "--no-films" in options else ["--film-steps", "2"]
    return words + (["-f", str(folder / "new")] if command in ("train", "finetune") else [])


def executed(words, folder):
    """Exit code, and the names of the files whose code has left a mark."""
    if words[0] == "record" or (words[0] == "imitate" and "--no-films" not in words):
        pytest.importorskip("imageio_ffmpeg")
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        warnings.simplefilter("ignore")
        if words[0] == "view":
            close_window_at_once(patch)
        code = main(words)
    return code, {file.name for file in (folder / "marks").iterdir()}


def close_window_at_once(patch):
    """A window that nobody sees, closed before the first step."""
    pytest.importorskip("pygame")
    pytest.importorskip("PIL")
    from sb3_diayn.evaluation import viewer

    patch.setenv("SDL_VIDEODRIVER", "dummy")
    patch.setattr(viewer, "NO_WINDOW", set())
    patch.setattr(viewer.Controls, "steps_due", lambda controls, *_: controls.press("q") or 0)


@pytest.fixture
def folder(tmp_path):
    """A folder with one for marks."""
    (tmp_path / "marks").mkdir()
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
@pytest.mark.parametrize(
    ("row", "place"), PLACES, ids=[f"{row.words} {place}" for row, place in PLACES]
)
def test_what_a_command_runs_of_a_folder(row, place, saved, folder, capsys):
    run = folder / "sac" / saved.name
    shutil.copytree(saved, run, ignore=shutil.ignore_patterns("report"))
    mark_run(run, folder / "marks")
    path = run / ("evaluation.json" if "evaluation.json" in row.words else place)
    assert executed(words_of(row, path, folder), folder) == (0, row.of_folder)


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
@pytest.mark.parametrize(
    ("row", "bare_zip"),
    ZIPS,
    ids=[f"{row.words} {'normalised' if normalised else 'plain'}" for row, normalised in ZIPS],
    indirect=["bare_zip"],
)
def test_what_a_command_runs_of_a_zip(row, bare_zip, saved, folder, capsys):
    original, is_normalised = bare_zip
    path = Path(shutil.copy(original, folder))
    mark_zip(path, folder / "marks")
    mark_pickle(Path(shutil.copy(original.with_name(STATISTICS), folder)), folder / "marks")
    if "evaluation.json" in row.words:
        path = Path(shutil.copy(saved / "evaluation.json", folder))
    code, marks = executed(words_of(row, path, folder), folder)
    if row.of_zip is None:
        assert (code, marks) == (2, set())
    else:
        expected = row.of_zip if is_normalised else row.of_zip - {STATISTICS}
        assert (code, marks) == (0, expected)


@pytest.mark.slow
def test_what_a_comparison_runs_of_a_run_whose_report_fits(saved, folder, capsys):
    run = folder / "sac" / saved.name
    shutil.copytree(saved, run)
    mark_run(run, folder / "marks")
    for name in (f"{NAME}.zip", f"{NAME}/{STATISTICS}"):  # the report is of this very model
        shutil.copy(saved / name, run / name)
    assert executed(["compare", str(run)], folder) == (0, {"config.yml", "args.yml"})


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_what_a_sweep_runs_of_a_run_that_it_finds(saved, folder, capsys):
    run, words = swept(folder / "sweep", saved)
    mark_run(run, folder / "marks")
    assert executed(words, folder) == (0, set())


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "tune"])
def test_a_file_of_hyperparameters_is_code(command, folder, capsys):
    mark = folder / "marks" / "conf"
    entry = {
        "n_timesteps": 10,
        "policy": "MlpPolicy",
        "policy_kwargs": f"[__import__('pathlib').Path({str(mark)!r}).touch(), dict()][1]",
        "env_wrapper": [{"sb3_diayn.DIAYNWrapper": {"n_skills": 2}}],
        "callback": ["sb3_diayn.DIAYNCallback"],
        "buffer_size": 100,
    }
    (folder / "sac.yml").write_text(yaml.safe_dump({ENV: entry}))
    words = [command, "--env", ENV, "--conf-file", str(folder / "sac.yml"), "-n", "10"]
    words += ["-f", str(folder / "logs"), "--device", "cpu"]
    words += ["--no-report"] if command == "train" else ["--n-trials", "1", "--space", "tau=0.1"]
    assert executed(words, folder)[1] == {"conf"}


def test_the_page_shows_this_table():
    assert PAGE.read_text(encoding="utf-8") == with_tables(), "run python -m docs.tables.security"


def test_each_command_that_runs_code_of_a_file_says_so():
    (commands,) = (a.choices for a in make_parser()._actions if isinstance(a.choices, dict))
    opens = {row.command for row in ROWS if row.of_folder}
    assert opens | {"sweep"} == {row.command for row in ROWS}
    for name, parser in commands.items():
        text = " ".join(parser.format_help().split())
        warns = "can run code" in text and PAGE.name in text
        assert warns == (name != "config"), name
        assert ("opening run can run code" in text.lower()) == (name in opens), name


def test_the_readme_links_to_the_page():
    root = PAGE.parents[2]
    for file in (root / "README.md", root / "SECURITY.md"):
        text = file.read_text(encoding="utf-8")
        assert "docs/pages/security.md" in text and "can contain code" in text
