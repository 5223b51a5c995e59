"""
The zoo's own commands on runs of this package: each once as a real process, then in this one, which
need not import everything again.
"""

import io
import json
import os
import runpy
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rl_zoo3")

import sb3_diayn.zoo
from sb3_diayn import load_discriminator
from sb3_diayn.model_zip import load_state
from sb3_diayn.zoo import config_path, find_run

ENV = "Pendulum-v1"
SMALL = "learning_starts:100 n_envs:2 gradient_steps:1 buffer_size:1000 batch_size:16".split()
SMALL += ["policy_kwargs:dict(net_arch=[16])"]


def zoo(command: str, folder: Path, *args: str, **variables: str) -> str:
    words = [sys.executable, "-m", f"rl_zoo3.{command}", "-f", str(folder), *args]
    env = os.environ | {"MPLBACKEND": "Agg", "SDL_VIDEODRIVER": "dummy"} | variables
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def zoo_here(command: str, folder: Path, *args: str, **variables: str) -> str:
    with (
        pytest.MonkeyPatch.context() as patch,
        io.StringIO() as output,
        redirect_stdout(output),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        patch.setattr(sys, "argv", [f"rl_zoo3.{command}", "-f", str(folder), *args])
        for name, value in ({"MPLBACKEND": "Agg"} | variables).items():
            patch.setenv(name, value)
        runpy.run_module(f"rl_zoo3.{command}", run_name="__main__")
        return output.getvalue()


def train(folder: Path, *args: str, run: Callable[..., str] = zoo_here) -> str:
    config = ["--algo", "sac", "--env", ENV, "--conf-file", str(config_path("sac"))]
    return run("train", folder, *config, "--seed", "1", *args, "-params", *SMALL)


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """A run with every way of saving, in other processes; the output is kept next to it."""
    folder = tmp_path_factory.mktemp("logs")
    saving = "--save-freq 200 --save-replay-buffer --eval-freq 200 --eval-episodes 1".split()
    output = train(folder, "-n", "420", "--vec-env", "subproc", *saving, run=zoo)
    (folder / "output.txt").write_text(output)
    return folder


@pytest.mark.slow
def test_train_takes_keywords(tmp_path):
    small = {"learning_starts": 50, "gradient_steps": 1, "batch_size": 16, "buffer_size": 1000}
    small |= {"n_envs": 4, "DIAYNWrapper.skill": "balanced"}
    options = {"n_timesteps": 100, "log_folder": tmp_path, "hyperparams": small, "device": "cpu"}
    run = find_run(sb3_diayn.zoo.train(ENV, n_skills=3, seed=1, **options))
    assert run.folder == tmp_path / "sac" / f"{ENV}_1"
    assert (run.n_skills, run.state["progress"]["total_timesteps"]) == (3, 100)
    saved = {"algo": "sac", "env": ENV, "seed": 1, "env_kwargs": None, "n_timesteps": 100}
    assert saved.items() <= run.saved_options.items()
    assert run.saved_options["log_folder"] == str(tmp_path)  # plain values, which any YAML reads
    with run.open(2, device="cpu") as (model, env):
        assert (type(model).__name__, env.num_envs) == ("SAC", 2)
    again = sb3_diayn.zoo.train(resume=run.folder, **options)  # with a random seed
    assert find_run(again).state["progress"]["total_timesteps"] == 200
    assert isinstance(find_run(again).saved_options["seed"], int)


def test_an_option_of_train_that_is_not_known():
    with pytest.raises(TypeError, match="unexpected keyword argument 'n_steps'"):
        sb3_diayn.zoo.train(ENV, n_steps=3)


@pytest.mark.slow
def test_train_saves_the_discriminator_everywhere(logs):
    run = logs / "sac" / f"{ENV}_1"
    for name in (ENV, "best_model", "rl_model_200_steps", "rl_model_400_steps"):
        assert load_discriminator(run / f"{name}.zip").n_skills == 10
    assert load_state(run / f"{ENV}.zip")["counters"]["n_updates"] == 160  # (420 - 100) / 2


@pytest.mark.slow
def test_evaluation_environment_does_not_warn(logs):
    assert "no discriminator is attached" not in (logs / "output.txt").read_text()


@pytest.mark.slow
def test_enjoy_plays_the_skill_that_the_variable_names(logs):
    args = ["--algo", "sac", "--env", ENV, "--no-render", "-n", "200"]
    returns = []
    for skill, run in (("3", zoo), ("3", zoo_here), ("4", zoo_here)):
        output = run("enjoy", logs, *args, DIAYN_SKILL=skill)
        returns.append([line for line in output.splitlines() if "Episode Reward" in line])
    assert len(returns[0]) == 1
    assert returns[0] == returns[1] != returns[2]


@pytest.mark.slow
def test_record_video(logs):
    zoo("record_video", logs, "--algo", "sac", "--env", ENV, "-n", "20", DIAYN_SKILL="3")
    films = list((logs / "sac" / f"{ENV}_1" / "videos").glob("*.mp4"))
    assert len(films) == 1 and films[0].stat().st_size > 1000


@pytest.mark.slow
def test_plot_train(logs):
    zoo_here("plots.plot_train", logs, "-a", "sac", "-e", ENV, "-w", "1")


@pytest.mark.slow
def test_train_again_goes_on_with_discriminator_and_buffer(logs):
    run = logs / "sac" / f"{ENV}_1"
    output = train(logs, "-n", "200", "--eval-freq", "-1", "-i", str(run / f"{ENV}.zip"))
    assert "Loading replay buffer" in output
    state = load_state(logs / "sac" / f"{ENV}_2" / f"{ENV}.zip")
    assert state["counters"]["n_updates"] == 160 + 100  # without a second warm-up
    assert state["progress"]["total_timesteps"] == 420 + 200
    with zipfile.ZipFile(logs / "sac" / f"{ENV}_2" / f"{ENV}.zip") as archive:
        assert json.loads(archive.read("data"))["num_timesteps"] == 200  # the zoo's counter


@pytest.mark.slow
def test_optimize_hyperparameters(logs):
    args = "-n 200 -optimize --n-trials 2 --sampler random --pruner none --n-evaluations 1".split()
    args += ["--eval-episodes", "1", "--storage", str(logs / "study.log"), "--study-name", "s"]
    assert "Number of finished trials:  2" in train(logs, *args, "--no-optim-plots")


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sac", "ppo_travel", "ppo_displacement", "ppo_metra", "ppo"])
def test_every_configuration_builds(algo):
    import gymnasium as gym
    from rl_zoo3.utils import get_callback_list, get_wrapper_class

    for env_id, entry in yaml.safe_load(config_path(algo).read_text()).items():
        wrapper = get_wrapper_class(entry)
        (callback,) = get_callback_list(entry)
        assert type(callback).__name__ == "DIAYNCallback"
        if env_id == "default" or env_id.endswith("-v4"):
            continue  # gymnasium warns that -v4 is out of date; the entry is the one of -v5
        env = wrapper(gym.make(env_id, **entry.get("env_kwargs", {})))
        expected = {"BipedalWalker-v3": 50, "MountainCarContinuous-v0": 20}
        expected |= {"Reacher-v5": 2, "HalfCheetah-v5": 20 if algo in ("sac", "ppo") else 5}
        expected |= {"Ant-v5": 10 if algo == "ppo_displacement" else 5}
        expected |= {"Hopper-v5": 5 if algo == "ppo_displacement" else 20}
        assert env.unwrapped.spec.id == env_id
        assert env.get_wrapper_attr("n_skills") == expected.get(env_id, env.n_skills)
        env.close()


@pytest.mark.slow
def test_a_configuration_can_judge_the_best_model_by_its_skills(tmp_path):
    entry = yaml.safe_load(config_path("sac").read_text())[ENV]
    monitor = {"eval_freq": 200, "save_path": "auto", "n_envs": 5}
    entry["callback"] = [entry["callback"][0], {"sb3_diayn.SkillEvaluationCallback": monitor}]
    config = tmp_path / "sac.yml"
    config.write_text(yaml.safe_dump({ENV: entry}))
    args = ["--algo", "sac", "--env", ENV, "--conf-file", str(config), "--eval-freq", "200"]
    zoo_here("train", tmp_path, *args, "--eval-episodes", "1", "-n", "400", "-params", *SMALL)
    folder = tmp_path / "sac" / f"{ENV}_1" / "skills"
    assert load_discriminator(folder / "best_model.zip").n_skills == 10
    assert len(json.loads((folder / "evaluations.json").read_text())) == 2
