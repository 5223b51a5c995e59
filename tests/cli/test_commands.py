"""The command line, in this process where that is possible."""

import builtins
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import yaml
from stable_baselines3 import SAC

pytest.importorskip("rl_zoo3")

from sb3_diayn import DIAYNWrapper, __version__, model_zip
from sb3_diayn.cli import evaluation as commands
from sb3_diayn.cli import main
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.zoo.finding import find_run
from sb3_diayn.zoo.hyperparams import config_path
from sb3_diayn.zoo.provenance import describe
from sb3_diayn.zoo.runs import Run

ENV = "Pendulum-v1"
K = 3
SMALL = ["--hyperparams", "learning_starts:100", "n_envs:2", "gradient_steps:1", "batch_size:16"]
SMALL += ["policy_kwargs:dict(net_arch=[16])", "DIAYNCallback.net_arch:[16]"]
SMALL += ["DIAYNWrapper.skill:balanced"]
TRAIN = ["train", "--env", ENV, "--n-skills", str(K), "-n", "240", "--no-progress", *SMALL]
QUICK = ["--episodes", "1", "--device", "cpu"]
SHORT = ["--env-kwargs", "max_episode_steps:10"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a tiny run with a report, and what the command printed."""
    logs = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(
            builtins, "print", lambda *words, **_: printed.append(" ".join(map(str, words)))
        )
        args = ["--seed", "1", "-f", str(logs), "--films", "--film-steps", "8", *QUICK]
        args += ["-n", "840", "--log-interval", "2"]  # long enough for two lines of the log
        assert main([*TRAIN, *args]) == 0
    return logs / "sac" / f"{ENV}_1", "\n".join(printed)


@pytest.fixture
def run(trained):
    return trained[0]


def error_of(capsys, *args):
    """What a mistake says; there is no traceback, since ``main`` returns."""
    assert main([str(arg) for arg in args]) == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_train_ends_with_report_and_place(trained):
    run, printed = trained
    assert f"Run saved in {run}" in printed
    assert f"{run / 'report' / 'index.html'}" in printed
    assert "Too early to tell after 840 steps" in printed
    assert {file.suffix for file in (run / "report").rglob("*.*")} >= {".html", ".mp4", ".png"}
    assert (run / "report" / "training.png").is_file()
    assert find_run(run).n_skills == K


@pytest.mark.slow
def test_train_prints_a_table_of_skills(tmp_path, capsys):
    args = ["--seed", "1", "-f", str(tmp_path), "--no-report", "-n", "120"]
    assert main([*TRAIN, *SHORT, *args]) == 0
    output = capsys.readouterr().out
    assert "recognised" in output
    assert not (tmp_path / "sac" / f"{ENV}_1" / "report").exists()


@pytest.mark.slow
@pytest.mark.parametrize("save_freq", [-1, 60])
def test_the_path_auto_is_within_the_folder_of_the_run(tmp_path, save_freq):
    entry = yaml.safe_load(config_path("sac").read_text(encoding="utf-8"))[ENV]
    evaluating = {"eval_freq": 120, "n_envs": 2, "save_path": "auto"}
    entry["callback"].append({"sb3_diayn.SkillEvaluationCallback": evaluating})
    config = tmp_path / "sac.yml"
    config.write_text(yaml.safe_dump({ENV: entry}), encoding="utf-8")
    args = ["--conf-file", str(config), "--save-freq", str(save_freq), "--no-report"]
    assert main([*TRAIN, *SHORT, *args, "-f", str(tmp_path)]) == 0
    assert (tmp_path / "sac" / f"{ENV}_1" / "skills" / "evaluations.json").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_train_without_the_extra_says_what_is_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    args = ["--seed", "1", "-f", str(tmp_path), "-n", "120", *QUICK]
    assert main([*TRAIN, *SHORT, *args]) == 0  # without films, which nobody would see
    output = capsys.readouterr().out
    assert not list(tmp_path.rglob("*.mp4"))
    assert "The report is left out: This needs jinja2" in output
    assert "pip install 'sb3-diayn[report]'" in output
    assert "recognised" in output


@pytest.mark.slow
def test_report_of_a_run(run, tmp_path, capsys):
    args = [*QUICK, "--no-films", "--model-card", "-o", str(tmp_path)]
    assert main(["report", str(run), *args]) == 0
    output = capsys.readouterr().out
    assert "Too early to tell" in output
    assert f"Report: {tmp_path / 'index.html'}" in output
    page = (tmp_path / "index.html").read_text()
    logs = run.parent.parent.name
    assert f"sb3-diayn play {logs}/sac/{run.name}" in page
    assert f"rl_zoo3.enjoy --algo sac --env {ENV} -f {logs} --exp-id 1" in page
    for file in tmp_path.glob("*.*"):  # those of text, and pictures
        assert str(run.parent).encode() not in file.read_bytes()
    card = (tmp_path / "README.md").read_text()
    assert f"sb3-diayn play {ENV}.zip" in card and f"SAC.load('{ENV}.zip')" in card
    metadata = yaml.safe_load(card.split("---\n")[1])
    assert metadata["model-index"][0]["results"][0]["dataset"]["name"] == ENV


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_a_report_reads_the_zip_once(run, tmp_path, monkeypatch):
    """SB3 reads it, too, to load the model; what is counted is our own reader."""
    read, check_state = [], model_zip.check_state
    monkeypatch.setattr(
        model_zip, "check_state", lambda *args: read.append(args) or check_state(*args)
    )
    args = [*QUICK, "--no-films", "--model-card", "-o", str(tmp_path)]
    assert main(["report", str(run), *args]) == 0
    assert len(read) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_report_of_a_bare_zip(run, tmp_path, capsys):
    model = tmp_path / "model.zip"
    model.write_bytes((run / f"{ENV}.zip").read_bytes())
    assert main(["report", str(model), "--no-films", *QUICK]) == 0
    page = tmp_path / "model_report" / "report" / "index.html"
    assert f"sb3-diayn play {model.name} --env {ENV}" in page.read_text()
    assert "rl_zoo3.enjoy" not in page.read_text()


@pytest.mark.slow
def test_other_arguments_of_the_environment(run, tmp_path, capsys):
    """For example longer episodes than in the training, also of a bare zip."""
    bare = tmp_path / "model.zip"
    bare.write_bytes((run / f"{ENV}.zip").read_bytes())
    for path in (run, bare):
        assert main(["play", str(path), "--skill", "0", "--env-kwargs", "max_episode_steps:7"]) == 0
        assert capsys.readouterr().out.endswith(" 7 steps\n")
    error = error_of(capsys, "play", run, "--env-kwargs", "gravity:3")
    assert "env_kwargs={'gravity': 3} do not fit" in error and "expected arguments" in error


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_report_films_the_chosen_skills(run, tmp_path):
    args = ["--skills", "0,2", "--film-steps", "4", "-o", str(tmp_path)]
    assert main(["report", str(run), *args, *QUICK]) == 0
    names = {file.name for file in (tmp_path / "films").glob("*.mp4")}
    assert names == {"skill_00.mp4", "skill_02.mp4"}


@pytest.mark.slow
def test_description(run):
    about = describe(find_run(run), str(run))
    assert about.title == f"{ENV}_1"
    assert about.facts["Seed"] == 1
    assert "Stable-Baselines3" in about.facts["Versions"]
    assert about.hyperparams["learning_starts"] == 100


def read_angle(obs):
    return obs[:, :2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("obs_function", "tests.cli.test_commands:read_angle"),
        ("features_extractor_class", "tests.helpers.extractors:First"),
    ],
)
def test_a_discriminator_that_reads_through_code_of_ones_own(option, place, tmp_path, capsys):
    """A run's folder says which, and is code to the zoo anyway; a zip alone imports nothing."""
    function = ["--hyperparams", f"DIAYNCallback.{option}:{place.replace(':', '.')}"]
    logs = ["--seed", "1", "-f", str(tmp_path / "logs")]
    assert main([*TRAIN, *SHORT, *function, *logs, "--no-report", *QUICK]) == 0
    (run,) = (tmp_path / "logs").glob("sac/*")
    assert main(["evaluate", str(run), *QUICK]) == 0
    extractor = find_run(run).load_discriminator().extractor
    name = "function" if option == "obs_function" else "extractor"
    assert place.split(":")[1] in str(getattr(extractor, name))
    shutil.copy(run / f"{ENV}.zip", tmp_path / "alone.zip")
    assert main(["evaluate", str(tmp_path / "alone.zip"), *QUICK]) == 2
    assert f"expected {place}. Pass that" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("None", None),
        ("null", None),
        ("1e-4", 1e-4),
        ("[0, 1]", [0, 1]),
        ("auto", "auto"),
        ("2:4", "2:4"),
    ],
)
def test_values_are_written_as_in_python_or_in_yaml(monkeypatch, word, value):
    seen = {}

    def stop(**options):
        seen.update(options["hyperparams"])
        raise ValueError("seen enough")

    monkeypatch.setattr("sb3_diayn.cli.training.train", stop)
    assert main(["train", "--env", ENV, "--hyperparams", f"DIAYNCallback.log_q_min:{word}"]) == 2
    assert seen == {"DIAYNCallback.log_q_min": value}


@pytest.mark.slow
@pytest.mark.parametrize("normalize", [False, True])
def test_the_snippet_runs(run, normalize, monkeypatch):
    monkeypatch.chdir(run.parents[2])
    opened = find_run(run)
    if normalize:  # the longer way, which restores every wrapper
        opened.hyperparams["normalize"] = True
    snippet = describe(opened, str(run)).snippet
    assert ("find_run" in snippet) == normalize
    names = {}
    exec(snippet.replace("SKILL", "2"), names)
    assert names["done"]
    assert names["env"].get_attr("skill")[0] == 2 if normalize else names["env"].skill == 2


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_evaluate_and_plot_its_file(run, tmp_path, capsys):
    for name in ("e.json", "e.npz"):
        assert main(["evaluate", str(run), "-o", str(tmp_path / name), *QUICK]) == 0
        evaluation = SkillEvaluation.load(tmp_path / name)
        assert evaluation.n_skills == K and evaluation.info["env_id"] == ENV
    assert "recognised" in capsys.readouterr().out
    assert main(["plot", str(tmp_path / "e.npz"), "-o", str(tmp_path / "figures")]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert {Path(line) for line in printed} == set((tmp_path / "figures").iterdir())


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_plot_a_run(run, tmp_path):
    assert main(["plot", str(run), "-o", str(tmp_path), *QUICK]) == 0
    assert (tmp_path / "training.png").is_file() and (tmp_path / "confusion.png").is_file()


@pytest.mark.slow
def test_record(run, tmp_path, capsys):
    args = ["--skills", "0,2", "-o", str(tmp_path), "--format", "gif", "--grid"]
    assert main(["record", str(run), "--film-steps", "4", *args]) == 0
    assert {f.name for f in tmp_path.iterdir()} == {
        "skill_00.gif",
        "skill_02.gif",
        "all_skills.gif",
    }
    assert str(tmp_path / "all_skills.gif") in capsys.readouterr().out


@pytest.mark.slow
def test_play(run, capsys):
    assert main(["play", str(run), "--skill", "1", "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.startswith("skill   1") for line in lines)


def played(capsys, *words):
    """The lines of ``play``, without returns that depend on the model."""
    assert main(["play", *map(str, words), "--env-kwargs", "max_episode_steps:3"]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_play_the_best_skill(run, capsys):
    assert main(["play", str(run), "--skill", "best"]) == 0
    said, line = capsys.readouterr().out.splitlines()
    best = SkillEvaluation.load(run / "report" / "evaluation.json").task_returns.mean(axis=1)
    assert said.startswith(f"Skill {best.argmax()} has the best task return")
    assert line.startswith(f"skill {best.argmax():3d}")


@pytest.mark.slow
def test_play_finds_runs_as_enjoy_does(run, tmp_path, capsys):
    logs = tmp_path / "logs"
    for number in (1, 2):
        folder = logs / "sac" / f"{ENV}_{number}"
        shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    (logs / "sac" / f"{ENV}_2" / f"{ENV}.zip").unlink()  # so that the two can be distinguished
    words = ["--env", ENV, "-f", logs, "--skill", "0"]
    assert len(played(capsys, *words, "--exp-id", 1)) == 1
    assert "holds no model" in error_of(capsys, "play", *words)  # the latest
    assert f"{ENV}_7' does not exist" in error_of(capsys, "play", *words, "--exp-id", 7)
    assert "expected RUN, or --env" in error_of(capsys, "play", "-f", logs)


@pytest.mark.slow
def test_play_models_on_the_way(run, tmp_path, capsys, monkeypatch):
    opened, find_run = [], commands.find_run
    monkeypatch.setattr(
        commands, "find_run", lambda path, *args: opened.append(path) or find_run(path, *args)
    )
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("checkpoints"))
    model = folder / f"{ENV}.zip"
    for place in ("best_model.zip", "rl_model_40_steps.zip", "checkpoints/checkpoint_60_steps"):
        (folder / place).parent.mkdir(exist_ok=True)
        if not place.endswith(".zip"):
            (folder / place).mkdir()
            place += "/model.zip"
        shutil.copy(model, folder / place)
    for option, place in {
        ("--load-best",): "best_model.zip",
        ("--load-checkpoint", "40"): "rl_model_40_steps.zip",
        ("--load-last-checkpoint",): "checkpoints/checkpoint_60_steps",
    }.items():
        assert len(played(capsys, folder, "--skill", "1", *option)) == 1
        assert opened[-1] == folder / place
    error = error_of(capsys, "play", folder, "--load-checkpoint", 50)
    assert "load_checkpoint=50" in error and "expected one of [40, 60]" in error
    (folder / "best_model.zip").unlink()
    assert "--eval-freq" in error_of(capsys, "play", folder, "--load-best")
    shutil.rmtree(folder / "checkpoints")
    (folder / "rl_model_40_steps.zip").unlink()
    assert "has no checkpoint" in error_of(capsys, "play", folder, "--load-last-checkpoint")


@pytest.mark.slow
def test_play_off_screen_writes_films(run, capsys):
    args = ["--skill", "1", "--render", "rgb_array", "--film-steps", "4"]
    assert main(["play", str(run), *args]) == 0
    film = run / "videos" / "skill_01.mp4"
    assert str(film) in capsys.readouterr().out
    assert film.stat().st_size > 0


@pytest.mark.slow
def test_view_opens_what_play_plays(run, tmp_path, capsys, monkeypatch):
    pytest.importorskip("pygame")
    viewed = []
    monkeypatch.setattr("sb3_diayn.evaluation.viewer.require_display", lambda: None)
    monkeypatch.setattr(Run, "view", lambda run, **options: viewed.append((run, options)))
    shutil.copy(run / f"{ENV}.zip", tmp_path / "best_model.zip")
    words = [str(run), "--skill", "2,0", "--seed", "5", "--stochastic", "--device", "cpu"]
    assert main(["view", *words]) == 0
    opened, options = viewed.pop()
    assert opened.folder == run
    expected = {"skill": 2, "second": 0, "seed": 5, "deterministic": False, "device": "cpu"}
    assert options == expected
    assert main(["view", "--env", ENV, "-f", str(run.parent.parent), "--exp-id", "1"]) == 0
    opened, options = viewed.pop()
    assert opened.folder == run and (options["skill"], options["second"]) == (0, None)
    assert "--eval-freq" in error_of(capsys, "view", run, "--load-best")


def test_view_without_a_display_names_the_report(capsys, monkeypatch):
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    error = error_of(capsys, "view", "any/run")
    assert error.startswith("error: There is no display") and error.count("\n") == 1
    assert "sb3-diayn report RUN" in error


@pytest.mark.slow
def test_an_environment_without_a_picture_cannot_be_viewed(run, capsys, monkeypatch):
    pytest.importorskip("pygame")
    from sb3_diayn.evaluation import video, viewer

    def fail(env):
        raise video.RenderingError("env does not render.")

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(viewer, "NO_WINDOW", set())
    monkeypatch.setattr(viewer, "require_rendering", fail)
    error = error_of(capsys, "view", run)
    assert error == f"error: env does not render. (RUN='{run}')\n"


@pytest.mark.slow
def test_view_shows_a_run(run, monkeypatch):
    """Classic control, in a window that nobody sees."""
    pytest.importorskip("pygame")
    from sb3_diayn.evaluation import viewer

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setattr(viewer, "NO_WINDOW", set())
    shown, draw = [], viewer._draw_frame
    monkeypatch.setattr(
        viewer, "_draw_frame", lambda screen, frame: shown.append(frame) or draw(screen, frame)
    )
    events = [["."], ["."], [], ["q"]]
    monkeypatch.setattr(viewer, "_keys", lambda: events.pop(0))
    assert main(["view", str(run), "--device", "cpu"]) == 0
    first, second, third, *_ = shown
    assert (first != second).any() and (second == third).all()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_compare_reads_reports_and_plays_the_others(run, tmp_path, capsys, monkeypatch):
    measured, evaluate = [], Run.evaluate
    monkeypatch.setattr(
        Run, "evaluate", lambda run, **options: measured.append(run) or evaluate(run, **options)
    )
    model = tmp_path / "model.zip"
    model.write_bytes((run / f"{ENV}.zip").read_bytes())
    output = tmp_path / "comparison"
    assert main(["compare", str(run), str(model), "-o", str(output), *QUICK]) == 0
    assert [each.model_path for each in measured] == [model]
    assert f"{ENV} SAC K={K}: mean over runs" in capsys.readouterr().out
    assert len((output / "comparison.csv").read_text().splitlines()) == 3
    assert (output / "comparison.png").is_file()


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_compare_writes_a_page_with_the_films_of_reports(run, tmp_path):
    model = tmp_path / "model.zip"
    model.write_bytes((run / f"{ENV}.zip").read_bytes())
    assert main(["compare", str(run), str(model), "-o", str(tmp_path / "page"), *QUICK]) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    films = {file.name for file in (tmp_path / "page" / "films").glob("*.mp4")}
    assert films == {f"run_0_skill_0{skill}.mp4" for skill in range(K)}
    assert all(f'src="films/{film}"' in page for film in films)
    assert page.count("No films:") == 1  # of the bare zip
    assert str(run.parent) not in page and "http" not in page
    assert main(["compare", str(run), "-o", str(tmp_path / "page"), *QUICK]) == 0


@pytest.fixture
def only_evaluations(run, tmp_path, monkeypatch):
    """Folders of the run without its model, of which nothing can be played."""
    monkeypatch.setattr(Run, "evaluate", lambda *_, **__: pytest.fail("it is played"))
    folders = [tmp_path / "runs" / name for name in ("a", "b")]
    for folder in folders:
        ignored = shutil.ignore_patterns("*.zip", "checkpoints", "videos")
        shutil.copytree(run, folder, ignore=ignored)
    return folders


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures")
def test_compare_takes_evaluations_of_runs_without_a_model(only_evaluations, tmp_path, capsys):
    a, b = only_evaluations
    shutil.rmtree(b / "report")  # what train has written itself is left
    file = shutil.copy(b / "evaluation.json", tmp_path / "runs" / "c.json")
    assert main(["compare", str(a), str(b), str(file), "-o", str(tmp_path / "page")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("has no model: its evaluation is taken as it is") == 2
    rows = (tmp_path / "page" / "comparison.csv").read_text().splitlines()[1:]
    assert [row.partition(",")[0] for row in rows] == ["a", "b", "c.json"]
    assert len({row.partition(",")[2] for row in rows}) == 1
    films = list((tmp_path / "page" / "films").glob("*.mp4"))
    assert len(films) == K and all(film.name.startswith("run_0") for film in films)


@pytest.mark.slow
@pytest.mark.parametrize("option", [["--episodes", "7"], ["--seed", "99"], ["--deterministic"]])
def test_compare_takes_no_evaluation_with_other_settings(only_evaluations, capsys, option):
    folder, _ = only_evaluations
    for path in (folder, folder / "evaluation.json"):
        assert "has other settings than the options" in error_of(capsys, "compare", path, *option)


@pytest.mark.slow
def test_compare_plays_nothing_whose_evaluation_is_there(run, tmp_path, monkeypatch, capsys):
    """Also that of a training without a report."""
    monkeypatch.setattr(Run, "evaluate", lambda *_, **__: pytest.fail("it is played"))
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("report", "checkpoints"))
    assert main(["compare", str(folder)]) == 0
    assert "has no model" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["logs/sac/A_1", "logs/sac/A_2"], ["A_1", "A_2"]),
        (["/x/logs/sac/A_1", "/x/logs/ppo/A_1"], ["sac/A_1", "ppo/A_1"]),
        (["/x/logs/sac/A_1"], ["A_1"]),
        (["a/run", "a/run/best_model.zip"], ["run", "run/best_model.zip"]),
        (["model.zip", "other.zip"], ["model.zip", "other.zip"]),
        (["logs/A_1", "logs/A_1"], ["A_1"]),
    ],
)
def test_compare_names_runs_without_what_they_share(paths, names):
    paths, names = ([str(Path(each)) for each in texts] for texts in (paths, names))
    assert list(commands.short_names(paths)) == names
    assert set(commands.short_names(paths).values()) == set(paths)


@pytest.mark.slow
def test_names_of_coordinates(run, tmp_path, capsys):
    file = tmp_path / "e.json"
    words = ["evaluate", str(run), "-o", str(file), *QUICK]
    assert main(words) == 0
    names = SkillEvaluation.load(file).info["obs_names"]
    assert names == ["cos(angle)", "sin(angle)", "angular velocity"]
    assert main([*words, "--obs-names", "x,y,speed"]) == 0
    assert SkillEvaluation.load(file).info["obs_names"] == ["x", "y", "speed"]
    assert "obs_names=['x'] does not fit" in error_of(capsys, *words, "--obs-names", "x")


@pytest.mark.parametrize(
    ("text", "skills"), [(None, [0, 1, 2]), ("all", [0, 1, 2]), ("2,0-1,2", [2, 0, 1])]
)
def test_parse_skills(text, skills):
    assert commands.parse_skills(text, K) == skills


@pytest.mark.parametrize("text", ["x", "", "1,", "-1", "3", "0-3", "1.5"])
def test_texts_that_name_no_skills_are_refused(text):
    with pytest.raises(ValueError, match=r"^skill=.*; expected"):
        commands.parse_skills(text, K)


def test_a_reversed_range_of_skills_is_refused():
    with pytest.raises(ValueError, match=r"range 2-1, which holds no skill.*Write 1-2\."):
        commands.parse_skills("0,2-1", K)


def test_ctrl_c_while_a_command_is_imported(capsys, monkeypatch):
    def interrupted(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sb3_diayn.cli.resolve_name", interrupted)
    assert main(["config", "sac"]) == 130
    assert capsys.readouterr().err == "Interrupted.\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["record", "report", "play"])
def test_bad_skills(run, capsys, command):
    option = "--skill" if command == "play" else "--skills"
    assert "skill=3 is" in error_of(capsys, command, run, f"{option}=3")


@pytest.mark.parametrize("command", ["evaluate", "compare"])
@pytest.mark.slow
class TestMistakes:
    """Every command opens a run as ``evaluate`` does, but for ``compare``."""

    def test_missing_run(self, tmp_path, capsys, command):
        assert "does not exist" in error_of(capsys, command, tmp_path / "none")

    def test_folder_that_is_no_run(self, tmp_path, capsys, command):
        assert "is not a run's folder" in error_of(capsys, command, tmp_path)

    def test_run_without_model(self, run, tmp_path, capsys, command):
        folder = tmp_path / "run" / ENV
        folder.mkdir(parents=True)
        for file in (run / ENV).glob("*.yml"):
            (folder / file.name).write_bytes(file.read_bytes())
        assert "holds no model" in error_of(capsys, command, tmp_path / "run")

    def test_zip_without_discriminator(self, tmp_path, capsys, command):
        env = DIAYNWrapper(gym.make(ENV), n_skills=K)
        SAC("MlpPolicy", env, buffer_size=10).save(tmp_path / "model")
        message = error_of(capsys, command, tmp_path / "model.zip", "--env", ENV)
        assert "holds no discriminator" in message

    def test_unknown_environment(self, run, tmp_path, capsys, command):
        model = tmp_path / "model.zip"
        model.write_bytes((run / f"{ENV}.zip").read_bytes())
        message = error_of(capsys, command, model, "--env", "Pendulun-v1")
        assert "Did you mean Pendulum-v1" in message

    @pytest.mark.parametrize("env_id", ["MountainCarContinuous-v0", "CartPole-v1"])
    def test_environment_that_does_not_fit(self, run, tmp_path, capsys, command, env_id):
        model = tmp_path / "model.zip"
        model.write_bytes((run / f"{ENV}.zip").read_bytes())
        message = error_of(capsys, command, model, "--env", env_id)
        assert "expected the same" in message


@pytest.mark.slow
@pytest.mark.parametrize("command", ["report", "evaluate", "plot", "record", "compare"])
def test_unwritable_output(run, tmp_path, capsys, command):
    (tmp_path / "file").write_text("in the way")
    message = error_of(capsys, command, run, "-o", tmp_path / "file" / "e.json")
    assert message.startswith("error: ") and "file" in message


@pytest.mark.slow
@pytest.mark.parametrize("name", ["config.yml", "args.yml"])
@pytest.mark.parametrize("text", ["", "5", "a: [1,"])
def test_run_with_a_damaged_file(run, tmp_path, capsys, name, text):
    folder = tmp_path / "run"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("report", "videos"))
    (folder / ENV / name).write_text(text)
    message = error_of(capsys, "evaluate", folder)
    assert str(folder / ENV / name) in message and "expected what the zoo wrote" in message


@pytest.mark.slow
def test_mistakes_of_train(run, tmp_path, capsys):
    logs = ["-f", str(tmp_path)]
    assert "Did you mean" in error_of(capsys, "train", "--env", "Pendulun-v1", *logs)
    wrong_k = ["--resume", run, "--n-skills", K + 1, "--algo", "sac", *logs]
    assert "does not match the run" in error_of(capsys, "train", "--env", ENV, *wrong_k)
    other = ["--resume", run, *logs]
    message = error_of(capsys, "train", *other, "--algo", "ppo")
    assert "algo='ppo' does not match the run that is resumed; expected sac" in message
    message = error_of(capsys, "train", *other, "--conf-file", "seed")
    assert "conf_file='seed' does not match" in message and "Leave --conf-file out" in message
    for pair, own in [
        ("policy_kwargs:dict(net_arch=[8])", "expected its own, "),
        ("n_steps:3", "expected its own, 1"),
        ("use_sde:True", "expected its own, False"),
        ("ent_coef:auto", "expected its own, "),
    ]:
        name, _, value = pair.partition(":")
        message = error_of(capsys, "train", *other, "--hyperparams", pair)
        assert f"{name}=" in message and value.strip("'") in message and own in message
        assert "the model was built with it. Leave it out" in message
    space = ["--resume", run, "--env", "MountainCarContinuous-v0", *logs]
    message = error_of(capsys, "train", *space)
    assert "env='MountainCarContinuous-v0' does not fit the run" in message
    assert "Leave --env out" in message
    tensorboard = ["--resume", run, "-tb", run / "run.json", *logs]
    assert "is, or lies in, a file" in error_of(capsys, "train", *tensorboard)
    preset = ["--resume", run, "--preset", "paper", *logs]
    assert "cannot change a run that is resumed" in error_of(capsys, "train", *preset)


@pytest.mark.parametrize(
    ("option", "value", "name"),
    [
        ("-n", 0, "n_timesteps"),
        ("-n", -5, "n_timesteps"),
        ("--eval-freq", 0, "eval_freq"),
        ("--save-freq", -2, "save_freq"),
        ("--log-interval", 0, "log_interval"),
        ("--num-threads", 0, "num_threads"),
        ("--seed", -1, "seed"),
    ],
)
def test_numbers_of_train_that_mean_nothing(tmp_path, capsys, option, value, name):
    args = ["train", "--env", ENV, "-f", tmp_path / "logs", option, value]
    assert f"{name}={value} is not allowed; expected" in error_of(capsys, *args)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("value", ["abc", "-1", "auto_x", "nan"])
def test_entropy_coefficients_that_are_none(capsys, value):
    with pytest.raises(SystemExit):
        main(["train", "--env", ENV, f"--ent-coef={value}"])
    assert f"{value!r} is neither a number of at least 0 nor auto" in capsys.readouterr().err


@pytest.mark.slow
def test_output_without_known_ending(run, tmp_path, capsys):
    assert ".json or .npz" in error_of(capsys, "evaluate", run, "-o", tmp_path / "e.txt")


@pytest.mark.slow
def test_missing_libraries_are_named_with_their_extra(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    message = error_of(capsys, "report", run, "--no-films", "-o", tmp_path, *QUICK)
    assert "This needs jinja2. Install it: pip install 'sb3-diayn[report]'" in message


@pytest.mark.slow
def test_a_missing_zoo_is_named_with_its_extra(run, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    for args in (["play", run], ["train", "--env", ENV], ["tune", "--env", ENV]):
        assert "This needs rl_zoo3. Install it: pip install 'sb3-diayn[zoo]'" in error_of(
            capsys, *args
        )


@pytest.mark.parametrize("count", ["0", "-1", "x"])
def test_counts_are_positive(capsys, count):
    with pytest.raises(SystemExit, match="2"):
        main(["report", "any/run", f"--episodes={count}"])
    assert "is not a positive integer" in capsys.readouterr().err


def test_config_prints_a_file(capsys):
    assert main(["config", "sac"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert "no provided configuration" in error_of(capsys, "config", "none")


@pytest.mark.slow
@pytest.mark.parametrize("module", ["sb3_diayn", "sb3_diayn.cli"])
def test_the_module_is_a_command(module):
    words = [sys.executable, "-m", module, "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == f"sb3-diayn {__version__}"
