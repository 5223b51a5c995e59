"""A grid of runs: what there is to do, what is done already, and what goes wrong on the way."""

import io
import json
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

pytest.importorskip("rl_zoo3")
pytest.importorskip("joblib")

from joblib.externals.loky import get_reusable_executor

from sb3_diayn import __version__, cli
from sb3_diayn.cli import main, sweep
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.model_zip import load_state

ENV = "Pendulum-v1"
TINY = ["-n", "240", "--backend", "loky", "--n-jobs", "2", "--seeds", "1"]
TRAIN = ["--", "--device", "cpu", "--no-report"]
TRAIN += ["--env-kwargs", "max_episode_steps:20"]
TRAIN += ["--hyperparams", "learning_starts:100", "batch_size:16", "n_envs:3"]
GRID = ["--n-skills", "3"]
COMPLETE = [*GRID, "--param", "DIAYNCallback.obs_indices=0:2"]


def words(folder, *args):
    return ["sweep", "--envs", ENV, "-o", str(folder), *TINY, *args, *TRAIN]


def expand(folder, *args):
    return sweep.expand(cli.make_parser().parse_args(["sweep", "-o", str(folder), *args]))


# -- the grid ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_setting_with_every_seed(tmp_path):
    params = ["--param", "ent_coef=0.1,0.2", "--param", "DIAYNCallback.net_arch=[8,8],[16]"]
    args = ["--envs", ENV, "MountainCarContinuous-v0", "--n-skills", "5,10", "--seeds", "3"]
    runs = expand(tmp_path, *args, *params, "-n", "500", "--", "--device", "cpu")
    assert len(runs) == 2 * 2 * 2 * 2 * 3
    assert len({run.folder for run in runs}) == len(runs)
    last = runs[-1]
    setting = "MountainCarContinuous-v0_ppo_K10_ent_coef=0.2_DIAYNCallback.net_arch=-16-"
    assert last.folder == tmp_path / setting / "seed_2"
    options = sweep.parse_train(last.command)
    assert (options.env, options.n_skills, options.seed) == ("MountainCarContinuous-v0", 10, 2)
    assert (options.n_timesteps, options.device) == (500, "cpu")
    assert options.hyperparams == {"ent_coef": 0.2, "DIAYNCallback.net_arch": [16]}
    assert options.log_folder == str(last.folder)


@pytest.mark.parametrize(
    ("options", "algo"),
    [((), "ppo"), (("--preset", "urlb"), "ddpg"), (("--conf-file", "original-code"), "sac")],
)
def test_without_algo_a_sweep_takes_that_of_train(options, algo, tmp_path):
    car = ["--env", "MountainCarContinuous-v0", "--seeds", "1", "--", *options]
    (run,) = expand(tmp_path, *car)
    assert sweep.parse_train(run.command).algo == algo


def test_options_for_every_run_and_those_of_the_grid_add_up(tmp_path):
    train = ["--", "--hyperparams", "gamma:0.9", "learning_rate:1e-4"]
    (run,) = expand(tmp_path, "--envs", ENV, "--seeds", "1", "--param", "tau=0.01", *train)
    hyperparams = sweep.parse_train(run.command).hyperparams
    assert hyperparams == {"gamma": 0.9, "learning_rate": 1e-4, "tau": 0.01}
    (run,) = expand(tmp_path, "--envs", ENV, "--seeds", "1", "--", "-n", "300")
    assert sweep.parse_train(run.command).n_timesteps == 300


def test_values_of_a_repeated_parameter_add_up(tmp_path):
    params = ["--param", "gamma=0.9,0.99", "--param", "tau=0.01", "--param", "gamma=0.5"]
    runs = expand(tmp_path, "--env", ENV, "--seeds", "1", *params)
    found = [sweep.parse_train(run.command).hyperparams for run in runs]
    assert found == [{"gamma": gamma, "tau": 0.01} for gamma in (0.9, 0.99, 0.5)]


def test_hyperparameters_of_wrapper_and_callback(tmp_path):
    params = ["DIAYNCallback.obs_indices=0:2", "DIAYNWrapper.skill=uniform", "gamma=0.9"]
    args = [word for param in params for word in ("--param", param)]
    (run,) = expand(tmp_path, "--envs", ENV, "--seeds", "1", "--n-skills", "4", *args)
    options = sweep.settings_of(sweep.parse_train(run.command))
    _, entry = sweep.complete(sweep.TrainingOptions(**options))
    ((callback, options),) = entry["callback"][0].items()
    assert callback == "sb3_diayn.DIAYNCallback"
    assert options["obs_indices"] == "0:2" and options["net_arch"] == [128, 128]
    assert entry["env_wrapper"] == [{"sb3_diayn.DIAYNWrapper": {"n_skills": 4, "skill": "uniform"}}]
    assert entry["gamma"] == 0.9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--envs", "Pendulun-v1"], "is not registered.*Did you mean Pendulum-v1"),
        (["--envs", ENV, ENV], r"param=\[\].* name a setting twice; expected different"),
        (["--envs", ENV, "--param", "gamma=1,1"], "name a setting twice"),
        (["--envs", ENV, "--param", "gama=1"], "gama=1 is not a hyperparameter of sac"),
        (
            ["--envs", ENV, "--param", "DIAYNCallback.x=1"],
            r"DIAYNCallback\.x=1 is not an argument of",
        ),
        (["--envs", ENV, "--algo", "sac,xyz"], "algo='xyz' has no provided configuration"),
        (["--env", ENV, "--param", "gamma=0.9,0.90"], r"0.9 and .*gamma=0.90 the same; expected"),
        (["--env", ENV, "--param", "gamma=0.9", "--param", "gamma=0.9"], "name a setting twice"),
        (["--env", ENV, "--", "--seed", "7"], "seed=7 is among .*expected others.*--seeds of"),
        (["--env", ENV, "--", "-f", "x"], "log_folder='x' is among .*Use --output of sweep"),
        (["--env", ENV, "--", "--algo", "ppo"], "algo='ppo' is among .*Use --algo of sweep"),
        (["--env", ENV, "--", "--env", "A"], "env='A' is among .*Use --env of sweep"),
        (["--env", ENV, "--n-skills", "3", "--", "--n-skills", "5"], "n_skills=5 is among"),
        (["--env", ENV, "-n", "300", "--", "-n", "500"], "n_timesteps=500 is among .*Use -n of"),
        (
            ["--env", ENV, "--param", "ent_coef=0.1", "--", "--ent-coef", "0.3"],
            "ent_coef.* is also among the options after --, with 0.3; expected one",
        ),
    ],
)
def test_mistakes(tmp_path, args, message):
    with pytest.raises(ValueError, match=message):
        expand(tmp_path, *args)


@pytest.mark.parametrize("text", ["gamma", "gamma=", "=1"])
def test_malformed_parameters(tmp_path, capsys, text):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", "--envs", ENV, "--param", text])
    assert "is not of the form key=value,value" in capsys.readouterr().err


@pytest.mark.parametrize(("backend", "module"), [("ray", "ray"), ("dask", "distributed")])
def test_a_missing_backend_is_named_with_its_extra(tmp_path, capsys, monkeypatch, backend, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(words(tmp_path, "--backend", backend)) == 2
    message = f"This needs {module}. Install it: pip install 'sb3-diayn[cluster]'"
    assert message in capsys.readouterr().err


# -- real runs --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep in real processes of two settings. One fails in its run: there is no coordinate 5."""
    folder = tmp_path_factory.mktemp("sweep")
    settings = [*GRID, "--param", "DIAYNCallback.obs_indices=0:2,5:7"]
    with redirect_stdout(io.StringIO()) as stdout, redirect_stderr(io.StringIO()) as stderr:
        code = main(words(folder, *settings))
    get_reusable_executor().shutdown()  # loky keeps its workers for minutes
    return folder, SimpleNamespace(
        returncode=code, stdout=stdout.getvalue(), stderr=stderr.getvalue()
    )


def folder_of(swept, obs_indices):
    name = f"{ENV}_sac_K3_DIAYNCallback.obs_indices={obs_indices.replace(':', '-')}"
    return swept[0] / name / "seed_0"


@pytest.mark.slow
def test_a_run_is_a_folder_of_the_zoo_with_its_origin(swept):
    run = folder_of(swept, "0:2") / "sac" / f"{ENV}_1"
    assert load_state(run / f"{ENV}.zip")["n_skills"] == 3
    hyperparams = yaml.load((run / ENV / "config.yml").read_text(), Loader=yaml.UnsafeLoader)
    assert hyperparams["learning_starts"] == 100
    evaluation = SkillEvaluation.load(run / "evaluation.json")
    assert evaluation.info["num_timesteps"] == 240 and evaluation.info["env_id"] == ENV
    origin = json.loads((run / "run.json").read_text())
    assert origin["command"] == (run / ENV / "command.txt").read_text()
    options = sweep.parse_train(shlex.split(origin["command"])[1:])
    assert (options.env, options.seed, options.n_skills) == (ENV, 0, 3)
    assert origin["versions"]["sb3-diayn"] == __version__
    assert {"PyTorch", "Stable-Baselines3", "rl_zoo3", "mujoco"} <= origin["versions"].keys()
    assert origin["machine"]["device"] == "cpu" and origin["machine"]["threads"] >= 1
    assert 0 < origin["wall_time"] < 600 and 0 < origin["cpu_time"] < 600


@pytest.mark.slow
def test_a_failed_run_is_reported_with_its_output(swept):
    _, done = swept
    assert done.returncode == 2
    assert "1 of 2 runs failed; their output:" in done.stderr
    (error,) = folder_of(swept, "5:7").glob("error_*.txt")  # a mistake of the caller
    output = error.read_text()
    assert "obs_indices='5:7' does not choose coordinates" in output
    assert "Fatal" not in output  # the process ends in order
    assert str(error) in done.stderr and str(error) in done.stdout


@pytest.mark.slow
def test_the_other_runs_are_compared(swept):
    folder, done = swept
    setting = folder_of(swept, "0:2").parent.name
    assert f"{setting} seed 0: complete" in done.stdout
    rows = (folder / "comparison.csv").read_text().splitlines()
    assert len(rows) == 2 and rows[1].startswith(f"{setting} seed 0,{setting},3,240")
    assert (folder / "comparison.png").is_file()


@pytest.mark.slow
def test_complete_runs_are_not_made_again(swept, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "_start_and_wait", None)
    assert main(words(swept[0], *COMPLETE)) == 0
    assert "1 runs, of which 1 are complete" in capsys.readouterr().out


@pytest.mark.slow
def test_a_folder_with_the_run_of_another_command_is_left_alone(swept, capsys):
    assert main(words(swept[0], *COMPLETE, "-n", "250")) == 2
    message = capsys.readouterr().err
    assert "holds a run of 'sb3-diayn train" in message and "Choose another --output" in message


@pytest.mark.slow
def test_a_run_of_a_file_that_has_changed_is_left_alone(swept, capsys, monkeypatch):
    complete = sweep.complete

    def changed(options):
        options, hyperparams = complete(options)
        return options, hyperparams | {"gamma": 0.5}

    monkeypatch.setattr(sweep, "complete", changed)
    assert main(words(swept[0], *COMPLETE)) == 2
    message = capsys.readouterr().err
    assert "{'gamma': 0.99}; expected {'gamma': 0.5}" in message
    assert "Choose another --output" in message


@pytest.mark.slow
def test_a_run_ends_with_the_sweep(tmp_path):
    command = ["train", "--env", ENV, "-n", "1000000", "-f", str(tmp_path), "--no-progress"]
    child = subprocess.Popen(
        [sys.executable, *sweep.CHILD, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert child.stdin is not None
    child.stdin.close()  # as when whoever holds it is killed
    assert child.wait(timeout=120) == 1


# -- retries, with a child that only pretends -------------------------------------------------

PRETEND = """
import json, pathlib, shlex, sys
words = sys.argv[1:]
folder = pathlib.Path(words[-1])
attempt = sum(1 for _ in folder.glob("error_*.txt")) + 1
run = folder / "sac" / "Pendulum-v1_1"
assert not run.exists(), "what is left of the last attempt is in the way"
run.mkdir(parents=True)
(run / "evaluation.json").write_text("{}")
print("attempt", attempt)
if attempt < GOOD:
    sys.exit(1)
command = shlex.join(["sb3-diayn", *words])
(run / "run.json").write_text(json.dumps({"command": command}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("good", "n_errors"), [(1, 0), (2, 1), (3, 2)])
def test_two_attempts(tmp_path, monkeypatch, good, n_errors):
    monkeypatch.setattr(sweep, "CHILD", ("-c", PRETEND.replace("GOOD", str(good))))
    (run,) = expand(tmp_path, "--envs", ENV, "--seeds", "1")
    (run.folder / "sac" / f"{ENV}_1").mkdir(parents=True)  # left by a worker that was killed
    outcome = sweep._run(run, str(Path.cwd()))
    assert [error.name for error in outcome.errors] == ["error_1.txt", "error_2.txt"][:n_errors]
    assert [error.read_text() for error in outcome.errors] == ["attempt 1\n", "attempt 2\n"][
        :n_errors
    ]
    assert outcome.succeeded == (good < 3) == (run.find() is not None)


@pytest.mark.slow
def test_a_mistake_of_the_caller_is_not_tried_again(tmp_path, monkeypatch):
    child = PRETEND.replace("GOOD", "2").replace("sys.exit(1)", "sys.exit(2)")
    monkeypatch.setattr(sweep, "CHILD", ("-c", child))
    (run,) = expand(tmp_path, "--envs", ENV, "--seeds", "1")
    outcome = sweep._run(run, str(Path.cwd()))
    assert not outcome.succeeded and [error.name for error in outcome.errors] == ["error_1.txt"]


def test_what_a_lost_backend_leaves_is_started_again(tmp_path, monkeypatch, capsys):
    """Loky gives up altogether when one of its processes is killed."""
    monkeypatch.setattr(sweep, "CHILD", ("-c", PRETEND.replace("GOOD", "1")))
    args = cli.make_parser().parse_args(words(tmp_path, "--seeds", "3"))
    runs, asked = sweep.expand(args), []

    def outcomes(todo, _):
        asked.append([run.seed for run in todo])
        for run in todo:
            yield sweep._run(run, str(Path.cwd()))
            if len(asked) == 1:
                raise RuntimeError("a worker was lost")

    monkeypatch.setattr(sweep, "_outcomes", outcomes)
    assert sweep._make(runs, args) == []
    assert asked == [[0, 1, 2], [1, 2]]
    assert "is started again. RuntimeError: a worker was lost" in capsys.readouterr().out


def test_a_backend_that_gives_up_again_is_an_error(tmp_path, monkeypatch):
    def outcomes(todo, _):
        raise RuntimeError("no worker")

    args = cli.make_parser().parse_args(words(tmp_path))
    monkeypatch.setattr(sweep, "_outcomes", outcomes)
    with pytest.raises(ChildProcessError, match=r"gave up twice.*no worker"):
        sweep._make(sweep.expand(args), args)
