"""What ``train`` says: while it runs, and when it is done."""

import argparse
import contextlib
import io
import re
import shlex
import shutil
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

pytest.importorskip("rl_zoo3")

from sb3_diayn import DIAYNWrapper
from sb3_diayn.cli import main, make_parser, running, training
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.zoo import find_run
from sb3_diayn.zoo.console import flatten, print_hyperparams
from sb3_diayn.zoo.hyperparams import override
from sb3_diayn.zoo.runs import Run
from tests.evaluation.evaluations import straight_walks
from tests.helpers.models import make_callback, make_ppo, make_sac

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn_figures")]

ENV = "Pendulum-v1"
SMALL = ["--hyperparams", "learning_starts:50", "n_envs:2", "gradient_steps:1", "batch_size:16"]
SMALL += ["DIAYNWrapper.skill:balanced"]
SMALL += ["--env-kwargs", "max_episode_steps:10"]
TRAIN = ["train", "--env", ENV, "--n-skills", "3", "--device", "cpu", "--seed", "1", *SMALL]
TRAIN += ["--episodes", "1", "--no-progress", "-n", "52"]  # the last step is the first to learn


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Folder of a run without a report, and what the command printed."""
    logs = tmp_path_factory.mktemp("logs")
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main([*TRAIN, "--no-report", "-f", str(logs)]) == 0
    return logs / "sac" / f"{ENV}_1", output.getvalue()


def said(capsys, *words):
    """What a command prints, if it ends well."""
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def test_one_table_of_hyperparameters_and_no_temporary_path(trained):
    _, output = trained
    assert "OrderedDict" not in output and "Loading hyperparameters" not in output
    assert "SAC on Pendulum-v1, 52 steps, seed 1" in output
    assert re.search(r"^ *DIAYNWrapper.n_skills +3 *$", output, re.MULTILINE)
    assert re.search(r"^ *batch_size +16 *$", output, re.MULTILINE)


def test_the_zoo_speaks_where_it_is_asked_to(tmp_path, capsys):
    output = said(capsys, *TRAIN, "--no-report", "-f", tmp_path, "--verbose", 1)
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


def test_log_interval_prints_the_table(trained, tmp_path, capsys):
    """Two environments with episodes of 10 steps: four episodes in 40 steps."""
    _, without = trained
    output = said(capsys, *TRAIN, "--no-report", "-f", tmp_path, "--log-interval", 2)
    assert (without.count("| time/ "), output.count("| time/ ")) == (0, 2)


def test_the_end_names_all_places_and_three_commands(tmp_path, capsys):
    logs = tmp_path / "my logs"
    output = said(capsys, *TRAIN, "-f", logs, "--no-films", "--live")
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
    assert main([*TRAIN, "-f", str(tmp_path), "--live"]) == 2
    assert "pip install 'sb3-diayn[report]'" in capsys.readouterr().err


# -- films -------------------------------------------------------------------------------------

FILMED = [*TRAIN, "--film-steps", "3"]


def films_of(run):
    return {int(file.stem.partition("_")[2]) for file in (run / "report/films").glob("*.mp4")}


@pytest.mark.parametrize("option", [[], ["--films"], ["--no-films"]])
def test_the_best_skills_are_filmed(trained, tmp_path, capsys, monkeypatch, option):
    monkeypatch.setattr(training, "N_FILMS", 2)
    run = find_run(shutil.copytree(trained[0], tmp_path / "run"))
    evaluation = SkillEvaluation.load(run.folder / "evaluation.json")
    best_two = set(np.argsort(-evaluation.task_returns.mean(axis=1))[:2].tolist())
    training._report(run, make_parser().parse_args([*FILMED, *option]), evaluation, seed=1)
    assert (
        films_of(run.folder)
        == {"": best_two, "--films": {0, 1, 2}, "--no-films": set()}["".join(option)]
    )
    training.print_places(run)
    films = str(run.folder / "report" / "films")
    assert (films in capsys.readouterr().out) == (option != ["--no-films"])


@pytest.mark.parametrize(
    ("make_model", "n_frames", "exportable", "reset"),
    [(make_sac, 1, True, False), (make_ppo, 1, True, True), (make_sac, 2, False, False)],
)
def test_only_commands_that_work_come_next(
    tmp_path, capsys, make_model, n_frames, exportable, reset
):
    env = DummyVecEnv([lambda: DIAYNWrapper(gym.make(ENV), n_skills=3)])
    model = make_model(env if n_frames == 1 else VecFrameStack(env, n_frames))
    model.learn(5, callback=make_callback()).save(tmp_path / "model")
    training.print_next(find_run(tmp_path / "model.zip"), straight_walks(3))
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


def test_a_training_too_short_to_learn_says_so_first(trained, tmp_path, capsys):
    output = said(capsys, *TRAIN, "--no-report", "-n", 50, "-f", tmp_path)
    assert "Nothing will be learned: the training ends at step 50" in output
    _, long_enough = trained
    assert "Nothing will be learned" not in long_enough and "ends at step" not in long_enough


def say_minus(args):
    print("\N{MINUS SIGN}1 \N{SNOWMAN}")


def test_a_terminal_without_a_character_ends_no_command(monkeypatch):
    file = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="ascii"))
    assert running.run(argparse.Namespace(body="tests.cli.test_talking:say_minus")) == 0
    sys.stdout.flush()
    assert file.getvalue().split() == [b"?1", b"?"]
