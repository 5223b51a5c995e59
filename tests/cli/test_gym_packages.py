"""Environments that a package registers: the commands import it, and runs remember it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest
import yaml

pytest.importorskip("rl_zoo3")

from sb3_diayn.cli import main
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.zoo import config_path, find_run
from sb3_diayn.zoo.environments import why_not_made

pytestmark = pytest.mark.slow

ID = "MyPoint-v0"
SMALL = ["--hyperparams", "learning_starts:50", "n_envs:3", "gradient_steps:1", "batch_size:16"]
SMALL += ["policy_kwargs:dict(net_arch=[8])"]
TRAIN = ["train", "--n-skills", "3", "-n", "120", "--seed", "1", "--no-progress", "--no-report"]
QUICK = ["--episodes", "1", "--device", "cpu", "--no-progress"]

# ``MyOuter-v0`` makes ``MyPoint-v0`` by its id, so that its package must be known where it is made.
PACKAGE = """
import gymnasium as gym

gym.register("MyPoint-v0", "my_points:Point", max_episode_steps=10)
gym.register("MyOuter-v0", "my_points:make_outer", max_episode_steps=10)
gym.register("my/Point-v1", "my_points:Point", max_episode_steps=10)
"""
ENVIRONMENTS = """
import gymnasium as gym
import numpy as np

class Point(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-9, 9, (2,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = np.zeros(2, np.float32)
        return self.place.copy(), {}

    def step(self, action):
        self.place = np.clip(self.place + action, -9, 9).astype(np.float32)
        return self.place.copy(), 0.0, False, False, {}

    def render(self):
        return np.zeros((32, 32, 3), np.uint8)

def make_outer(render_mode=None):
    return gym.make("MyPoint-v0", render_mode=render_mode).unwrapped
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the package, and a run of the zoo's own command in a process of its own."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "packages").mkdir()
    (folder / "packages" / "my_envs.py").write_text(PACKAGE)
    (folder / "packages" / "my_points.py").write_text(ENVIRONMENTS)
    words = ["-m", "rl_zoo3.train", "--algo", "sac", "--env", ID, "-f", str(folder / "logs")]
    words += ["--gym-packages", "my_envs", "--conf-file", str(config_path("sac")), "-n", "120"]
    few = ["n_envs:20" if word == "n_envs:3" else word for word in SMALL[1:]]
    words += ["--seed", "1", "-params", *few, "buffer_size:1000"]
    done = in_process(folder, *words)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def run(place):
    return place / "logs" / "sac" / f"{ID}_1"


@pytest.fixture
def nothing_registered():
    """As if each command were a process of its own, see also ``command``."""
    yield
    forget()


@pytest.fixture
def packages(place, nothing_registered, monkeypatch):
    """The path is set as a shell would set it."""
    monkeypatch.syspath_prepend(str(place / "packages"))
    monkeypatch.setenv("PYTHONPATH", str(place / "packages"), prepend=os.pathsep)


def forget() -> None:
    for name in [name for name in gym.registry if name.lower().startswith("my")]:
        del gym.registry[name]
    for name in ("my_envs", "my_points"):
        sys.modules.pop(name, None)


def in_process(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    paths = [str(folder / "packages"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, *words]
    return subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=600)


def command(*words: object) -> int:
    forget()
    return main([str(word) for word in words])


def test_a_command_in_a_process_of_its_own(place, run, monkeypatch):
    """Films of environments that are not MuJoCo's do not need it, either."""
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    words = ["record", str(run), "--skills", "0", "--film-steps", "3", "-o", str(place / "films")]
    done = in_process(place, "-m", "sb3_diayn", *words)
    assert done.returncode == 0, done.stderr
    assert (place / "films" / "skill_00.mp4").is_file()


@pytest.mark.usefixtures("nothing_registered")
def test_a_package_in_the_working_folder(place, tmp_path, monkeypatch, capsys):
    """The path of the console script does not know that folder, and other processes need it too."""
    monkeypatch.chdir(place / "packages")
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    words = ["--env", "my_envs:MyOuter-v0", "--vec-env", "subproc", "-f", tmp_path, *SMALL]
    assert command(*TRAIN, *words) == 0, capsys.readouterr().err
    assert (tmp_path / "sac" / "MyOuter-v0_1" / "MyOuter-v0.zip").is_file()


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    "words", [["play", "--skill", "0"], ["compare", *QUICK]], ids=lambda words: words[0]
)
def test_commands_know_what_the_run_remembers(run, capsys, words):
    """All open a run as ``play`` does, but for ``compare``."""
    assert command(words[0], run, *words[1:]) == 0, capsys.readouterr().err


@pytest.mark.usefixtures("packages", "undrawn_figures")
def test_the_page_of_a_report_names_the_packages(run, tmp_path):
    assert command("report", run, "--no-films", "-o", tmp_path, *QUICK) == 0
    page = (tmp_path / "index.html").read_text()
    assert f"rl_zoo3.enjoy --algo sac --env {ID} --gym-packages my_envs" in page
    assert "import my_envs" in page


@pytest.mark.usefixtures("packages")
def test_trainings_that_follow_remember_it_too(run, tmp_path, capsys):
    """An exported skill, a fine-tuned one and a resumed run, each opened again."""
    logs = ["-f", tmp_path, "--no-progress", "--seed", "1"]
    assert command("finetune", run, "--skill", "0", "-n", "40", *logs) == 0
    assert command("train", "--resume", run, "-n", "60", "--no-report", *logs) == 0
    assert command("export", run, "--skill", "0", "-o", tmp_path) == 0
    saved = sorted(tmp_path.rglob("args.yml"))
    assert len(saved) == 3
    for file in saved:
        args = yaml.load(file.read_text(), yaml.UnsafeLoader)
        assert args["env"] == ID and args["gym_packages"] == ["my_envs"]


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(("env_id", "as_prefix"), [("MyOuter-v0", False), ("my/Point-v1", True)])
def test_train_with_a_package_in_other_processes(tmp_path, capsys, env_id, as_prefix):
    which = ["--env", f"my_envs:{env_id}"] if as_prefix else ["--gym-packages", "my_envs"]
    which += [] if as_prefix else ["--env", env_id]
    logs = ["-f", tmp_path, "--vec-env", "subproc"]
    assert command(*TRAIN, *which, *logs, *SMALL) == 0, capsys.readouterr().err
    (folder,) = (tmp_path / "sac").iterdir()
    assert folder.name == env_id.replace("/", "-") + "_1"
    opened = find_run(folder)
    assert (opened.env_id, opened.gym_packages) == (env_id, ["my_envs"])
    assert command("evaluate", folder, *QUICK) == 0
    assert SkillEvaluation.load(folder / "evaluation.json").info["env_id"] == env_id


@pytest.mark.usefixtures("packages")
def test_a_bare_zip_names_no_package(run, tmp_path, capsys):
    shutil.copy(run / f"{ID}.zip", tmp_path / "model.zip")
    model = tmp_path / "model.zip"
    assert command("evaluate", model, *QUICK) == 2
    assert "--gym-packages PACKAGE, or --env PACKAGE:ID" in capsys.readouterr().err
    assert command("evaluate", model, "--gym-packages", "my_envs", *QUICK) == 0
    assert command("evaluate", model, "--env", f"my_envs:{ID}", *QUICK) == 0


@pytest.mark.usefixtures("packages")
def test_sweep_and_tune_with_a_package(tmp_path, capsys, monkeypatch):
    train = ["--", *SMALL, "--no-report", "--device", "cpu"]
    sweep = ["sweep", "--envs", f"my_envs:{ID}", "--seeds", "1", "-n", "120", "--n-skills", "3"]
    assert command(*sweep, "-o", tmp_path / "sweep", *train) == 0, capsys.readouterr().err
    pytest.importorskip("optuna")
    tune = ["tune", "--algo", "ppo", "--gym-packages", "my_envs", "--env", ID, "--n-trials", "1"]
    tune += ["-n", "256", "--n-skills", "3", "--n-evaluations", "1", "-f", tmp_path / "tune"]
    monkeypatch.setattr("sys.argv", ["sb3-diayn", *map(str, tune)])
    assert command(*tune, "--hyperparams", "n_envs:2", "n_steps:32", "batch_size:16") == 0
    assert "--gym-packages my_envs --conf-file" in capsys.readouterr().out


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--env", "no_such_package:MyPoint-v0"], "gym_packages='no_such_package' cannot be"),
        (["--env", ID, "--gym-packages", "../x"], "gym_packages='../x' cannot be imported"),
        (["--env", "my_envs:MyPoin-v0"], "Did you mean MyPoint-v0"),
        (["--env", "a:b:MyPoint-v0"], "expected ID, or PACKAGE:ID"),
        (["--env", ":MyPoint-v0"], "expected ID, or PACKAGE:ID"),
        (["--env", ID], "--gym-packages PACKAGE"),
    ],
)
def test_packages_that_do_not_help(tmp_path, capsys, words, message):
    assert command(*TRAIN, *words, "-f", tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error and "expected" in error and "Traceback" not in error


def test_a_way_of_rendering_that_does_not_exist(tmp_path, monkeypatch):
    """MuJoCo looks as it is imported, before anything is rendered."""
    words = ["-m", "sb3_diayn", *TRAIN, "--env", "Hopper-v5", "-f", str(tmp_path), *SMALL]
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    (tmp_path / "packages").mkdir()
    done = in_process(tmp_path, *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "MUJOCO_GL='nonsense' does not work here" in done.stderr
    assert "expected egl" in done.stderr


def test_an_environment_that_cannot_be_made(run):
    error = why_not_made(ID, {"x": 1}, TypeError("no x"))
    assert "env_kwargs={'x': 1} do not fit MyPoint-v0" in str(error)
    assert "cannot be made: KeyError" in str(why_not_made(ID, None, KeyError("x")))
