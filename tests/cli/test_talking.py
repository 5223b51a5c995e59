"""What ``train`` says: while it runs, and when it is done."""

import re
import shlex
import sys

import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv

pytest.importorskip("rl_zoo3")

from sb3_diayn.cli import main, make_parser
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.zoo.console import flatten, print_hyperparams
from sb3_diayn.zoo.hyperparams import override
from sb3_diayn.zoo.runs import Run

pytestmark = pytest.mark.slow

ENV = "Pendulum-v1"
SMALL = ["--hyperparams", "learning_starts:50", "n_envs:2", "gradient_steps:1", "batch_size:16"]
SMALL += ["DIAYNWrapper.skill:balanced"]
TRAIN = ["train", "--env", ENV, "--n-skills", "3", "--device", "cpu", "--seed", "1", *SMALL]
QUICK = ["--episodes", "1", "--no-progress", "--no-report"]


def said(capsys, *words):
    """What a command prints, if it ends well."""
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_one_table_of_hyperparameters_and_no_temporary_path(tmp_path, capsys):
    output = said(capsys, *TRAIN, *QUICK, "-n", 100, "-f", tmp_path / "logs")
    assert "OrderedDict" not in output and "Loading hyperparameters" not in output
    assert "SAC on Pendulum-v1, 100 steps, seed 1" in output
    assert re.search(r"^ *DIAYNWrapper.n_skills +3 *$", output, re.MULTILINE)
    assert re.search(r"^ *batch_size +16 *$", output, re.MULTILINE)


def test_the_zoo_speaks_where_it_is_asked_to(tmp_path, capsys):
    output = said(capsys, *TRAIN, *QUICK, "-n", 60, "-f", tmp_path, "--verbose", 1)
    assert "Loading hyperparameters from" in output


def test_names_in_the_table_are_those_that_the_option_takes():
    entry = {"callback": ["sb3_diayn.DIAYNCallback"], "n_timesteps": 5, "gamma": 0.9}
    chosen = {"DIAYNCallback.n_updates": 2, "DIAYNWrapper.n_skills": 4, "batch_size": 32}
    flat = flatten(override("sac", entry, chosen))
    assert flat == {"gamma": 0.9, **chosen}
    assert flatten(entry) == {"gamma": 0.9, "DIAYNCallback": ""}


def test_brackets_in_hyperparameters_are_no_markup(capsys):
    print_hyperparams("[bold]x", {"net_arch": "[red]128[/red]"})
    output = capsys.readouterr().out
    assert "[bold]x" in output and "[red]128[/red]" in output


@pytest.mark.parametrize(("interval", "n_tables"), [([], 0), (["--log-interval", "2"], 2)])
def test_log_interval_prints_the_table(tmp_path, capsys, interval, n_tables):
    """Two environments with episodes of 200 steps: four episodes in 800 steps."""
    output = said(capsys, *TRAIN, *QUICK, "-n", 810, "-f", tmp_path, *interval)
    assert output.count("| time/ ") == n_tables


def test_the_end_names_all_places_and_three_commands(tmp_path, capsys):
    logs = tmp_path / "my logs"
    output = said(capsys, *TRAIN, "--episodes", 1, "-n", 100, "-f", logs, "--no-films", "--live")
    run = logs / "sac" / f"{ENV}_1"
    places = {re.split(" {2,}", line.strip())[-1] for line in output.splitlines()}
    for place in (f"{ENV}.zip", "evaluation.json", "report/index.html", "live.html"):
        assert any(each.endswith(str(run / place)) for each in places)
        assert (run / place).exists()
    commands = re.findall(r"^  (sb3-diayn .*)$", output, re.MULTILINE)
    assert len(commands) == 3
    parser = make_parser()
    for command in commands:
        words = shlex.split(command, comments=True)
        assert parser.parse_args(words[1:]).run == str(run)
    best = shlex.split(commands[0])[4]
    assert re.search(rf"Best task return: .* \(skill {best}\)", output)


def test_the_live_page_of_a_training_that_fails_is_at_rest(tmp_path):
    """It does not promise to renew itself."""
    from tests.integration import test_crashes

    words = [*test_crashes.FAILING_TRAIN, "-f", tmp_path, *test_crashes.TINY, "--live"]
    assert main([str(word) for word in words]) == 1
    (page,) = tmp_path.rglob("live.html")
    text = page.read_text()
    assert "ended at" in text and "http-equiv" not in text


def test_live_without_the_extra_names_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main([str(word) for word in (*TRAIN, "-n", 60, "-f", tmp_path, "--live")]) == 2
    assert "pip install 'sb3-diayn[report]'" in capsys.readouterr().err


# -- films -------------------------------------------------------------------------------------

FILMED = [*TRAIN, "--episodes", "1", "--no-progress", "-n", "100", "--film-steps", "3"]


def films_of(run):
    return {int(file.stem.partition("_")[2]) for file in (run / "report/films").glob("*.mp4")}


@pytest.mark.parametrize("option", [[], ["--films"], ["--no-films"]])
def test_the_best_skills_are_filmed(tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr("sb3_diayn.cli.training.N_FILMS", 2)
    output = said(capsys, *FILMED, "-f", tmp_path, *option)
    run = tmp_path / "sac" / f"{ENV}_1"
    returns = SkillEvaluation.load(run / "evaluation.json").task_returns.mean(axis=1)
    best_two = set(np.argsort(-returns)[:2].tolist())
    assert (
        films_of(run) == {"": best_two, "--films": {0, 1, 2}, "--no-films": set()}["".join(option)]
    )
    assert (str(run / "report" / "films") in output) == (option != ["--no-films"])


@pytest.mark.parametrize(
    ("train", "exportable", "reset"),
    [
        (["--algo", "sac", "-n", "150", "--hyperparams", "learning_starts:100"], True, False),
        (["--algo", "ppo", "-n", "120"], True, True),
        (["--algo", "sac", "-n", "120", "--hyperparams", "frame_stack:2"], False, False),
    ],
)
def test_only_commands_that_work_come_next(tmp_path, capsys, train, exportable, reset):
    small = ["n_envs:3", "batch_size:20"] + (["n_steps:20"] if "ppo" in train else [])
    if "--hyperparams" not in train:
        train = [*train, "--hyperparams"]
    words = ["train", "--env", ENV, "--n-skills", "3", "--no-report", "-f", str(tmp_path)]
    assert main([*words, *train, *small]) == 0
    output = capsys.readouterr().out
    assert "sb3-diayn view" in output
    assert ("sb3-diayn export" in output) == ("sb3-diayn finetune" in output) == exportable
    assert ("--reset-critics" in output) == reset


def test_a_machine_that_cannot_render(tmp_path, capsys, monkeypatch):
    """One line says so, and all the rest is there."""

    def render(env):
        raise RuntimeError("no display\nand no EGL")

    monkeypatch.setattr(PendulumEnv, "render", render)
    output = said(capsys, *FILMED, "-f", tmp_path)
    run = tmp_path / "sac" / f"{ENV}_1"
    (line,) = [line for line in output.splitlines() if line.startswith("Films are left out")]
    assert "no display" in line
    assert (run / "report" / "index.html").is_file() and (run / "run.json").is_file()
    assert "no display" in (run / "report" / "index.html").read_text()
    assert "Next:" in output


def test_ctrl_c_while_films_are_made_costs_the_report_alone(tmp_path, capsys, monkeypatch):
    def film(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(Run, "film", film)
    assert main([str(word) for word in (*FILMED, "-f", tmp_path)]) == 130
    run = tmp_path / "sac" / f"{ENV}_1"
    for name in (f"{ENV}.zip", "evaluation.json", "run.json"):
        assert (run / name).is_file()


# -- advice ------------------------------------------------------------------------------------


# The zoo has made environments by then, and does not close them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_algorithm_for_the_actions_is_named(tmp_path, capsys):
    logs = ["-f", str(tmp_path), "--n-skills", "2", "-n", "50"]
    assert main(["train", "--env", "CartPole-v1", *logs]) == 2
    assert "Choose another algorithm: --algo ppo." in capsys.readouterr().err


def test_a_training_too_short_to_learn_says_so_first(tmp_path, capsys):
    for n_timesteps, is_said in ((50, True), (52, False)):
        output = said(capsys, *TRAIN, *QUICK, "-n", n_timesteps, "-f", tmp_path)
        assert ("Nothing will be learned" in output) == is_said
    assert "ends at step 50" not in output
