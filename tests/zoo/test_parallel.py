"""``--n-envs auto``, and processes of environments."""

import subprocess
import sys
import time

import gymnasium as gym
import pytest
import yaml

from sb3_diayn.cli import main
from sb3_diayn.zoo import find_run, parallel
from sb3_diayn.zoo.parallel import choose_envs, pays_off, time_step
from sb3_diayn.zoo.settings import TrainingOptions, complete
from sb3_diayn.zoo.training import train
from tests.helpers.envs import CountingEnv

WRAPPER = {"env_wrapper": [{"sb3_diayn.DIAYNWrapper": {"n_skills": 20}}]}
SMALL = {"learning_starts": 20, "batch_size": 16}


@pytest.mark.parametrize(
    ("milliseconds", "n_cores", "expected"),
    [
        (0.02, 8, False),  # 0.17 in one process; 0.17 + 0.57 / 8 = 0.24 in several
        (0.85, 2, False),  # 1.0; 0.17 + 1.4 / 2 = 0.87, which is not worth it
        (0.85, 8, True),  # 1.0; 0.17 + 1.4 / 8 = 0.35
        (10.0, 2, True),  # 10.15; 0.17 + 10.55 / 2 = 5.4
        (10.0, 1, False),
    ],
)
def test_where_processes_pay_off(milliseconds, n_cores, expected):
    assert pays_off(milliseconds, n_cores) == expected


@pytest.fixture
def machine(monkeypatch):
    def set_up(milliseconds: float, n_cores: int) -> None:
        monkeypatch.setattr(parallel, "time_step", lambda *_: milliseconds)
        monkeypatch.setattr(parallel, "available_cores", lambda: n_cores)

    return set_up


@pytest.mark.parametrize(
    ("algo", "hyperparams", "expected"),
    [
        ("sac", {"n_envs": 16, "gradient_steps": 4}, {"n_envs": 20, "gradient_steps": 5}),
        ("sac", {}, {"n_envs": 20, "gradient_steps": 20}),
        ("sac", {"n_envs": 4, "gradient_steps": -1}, {"n_envs": 20}),
        ("sac", {"n_envs": 4, "train_freq": [1, "episode"]}, {"n_envs": 20}),
        (
            "sac",
            {"n_envs": 60, "gradient_steps": 2},
            {"n_envs": 20, "gradient_steps": 2, "train_freq": 3},
        ),
        (
            "sac",
            {"n_envs": 600, "gradient_steps": 1, "train_freq": 2},
            {"n_envs": 20, "gradient_steps": 1, "train_freq": 60},
        ),
        ("ppo", {"n_envs": 8, "n_steps": 500}, {"n_envs": 20, "n_steps": 200}),
        ("ppo", {"n_envs": 8}, {"n_envs": 20}),
    ],
)
def test_as_many_updates_per_transition_as_before(algo, hyperparams, expected, machine):
    machine(milliseconds=0.02, n_cores=8)
    assert choose_envs(algo, hyperparams | WRAPPER, "Any-v0") == (expected, "dummy")


def test_a_slow_environment_gets_a_process_for_each_core(machine, capsys):
    machine(milliseconds=10.0, n_cores=8)
    assert choose_envs("ppo", WRAPPER, "Any-v0") == ({"n_envs": 8}, "subproc")
    said = "n_envs=auto: 8 environments, --vec-env subproc (one for each core; a step takes 10 ms)"
    assert said in capsys.readouterr().out
    machine(milliseconds=10.0, n_cores=64)
    assert choose_envs("ppo", WRAPPER, "Any-v0") == ({"n_envs": 20}, "subproc")
    assert choose_envs("ppo", WRAPPER, "Any-v0", vec_env="envpool") == ({"n_envs": 20}, "envpool")
    assert choose_envs("ppo", WRAPPER, "Any-v0", vec_env="dummy") == ({"n_envs": 20}, "dummy")


def test_stratified_skills_have_an_environment_each(machine):
    machine(milliseconds=10.0, n_cores=8)
    arguments = {"n_skills": 20, "skill": "stratified"}
    for key, name in [("env_wrapper", "DIAYNWrapper"), ("vec_env_wrapper", "VecDIAYNWrapper")]:
        hyperparams = {key: [{f"sb3_diayn.{name}": arguments}]}
        assert choose_envs("ppo", hyperparams, "Any-v0") == ({"n_envs": 20}, "subproc")


def test_what_is_given_is_kept(machine):
    machine(milliseconds=0.02, n_cores=2)
    given = {"n_envs": "auto", "gradient_steps": 3}
    options, hyperparams = complete(TrainingOptions(env="Pendulum-v1", hyperparams=given))
    assert options.hyperparams == {"n_envs": 10, "gradient_steps": 3}
    assert (hyperparams["n_envs"], hyperparams["gradient_steps"]) == (10, 3)
    assert complete(options)[1] == hyperparams


class WaitingEnv(CountingEnv):
    """A step waits for 10 ms, and a reset, which does not count, for longer."""

    def step(self, action):
        time.sleep(0.01)
        return super().step(action)

    def reset(self, **kwargs):
        time.sleep(0.05)
        return super().reset(**kwargs)


@pytest.mark.slow
def test_a_step_is_timed_without_resets(monkeypatch):
    monkeypatch.setattr(gym, "make", lambda *_: WaitingEnv(length=10))
    assert 10 <= time_step("Waiting-v0")


def test_an_environment_that_cannot_be_made():
    with pytest.raises(ValueError, match=r"env_kwargs=\{'nonsense': 1\} do not fit Pendulum-v1"):
        time_step("Pendulum-v1", {"nonsense": 1})


def test_an_environment_whose_own_code_fails():
    def broken():
        return 1 + "1"

    gym.register("Broken-v0", broken)
    with pytest.raises(ValueError, match=r"env='Broken-v0' cannot be made: TypeError: unsupported"):
        time_step("Broken-v0")


@pytest.mark.slow
def test_the_run_remembers_the_number(tmp_path):
    hyperparams = SMALL | {"n_envs": "auto"}
    folder = train(
        "Pendulum-v1",
        n_skills=3,
        n_timesteps=60,
        seed=0,
        device="cpu",
        log_folder=tmp_path,
        hyperparams=hyperparams,
    )
    run = find_run(folder)
    assert run.hyperparams["n_envs"] == 3
    updates = run.hyperparams["gradient_steps"] / (run.hyperparams["train_freq"] * 3)
    assert updates == pytest.approx(2 / 60)  # as the file has it
    args = yaml.unsafe_load(next(folder.glob("*/args.yml")).read_text())
    assert args["vec_env"] == "dummy" and args["hyperparams"]["n_envs"] == 3
    with pytest.raises(ValueError, match=r"n_envs='auto' cannot change .*expected its own .* 3\."):
        train(resume=folder, hyperparams={"n_envs": "auto"})


def test_the_option_takes_a_number_or_the_word(capsys):
    for text in ("many", "0", "-1"):
        with pytest.raises(SystemExit):
            main(["train", "--env", "Pendulum-v1", "--n-envs", text])
        assert f"{text!r} is not a positive integer" in capsys.readouterr().err


SCRIPT = """
import multiprocessing
from sb3_diayn.zoo.parallel import share_imports
if __name__ == "__main__":
    share_imports()
    with multiprocessing.get_context("forkserver").Pool(1) as pool:
        print(pool.apply(eval, ("'rl_zoo3' in __import__('sys').modules",)))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="nothing is shared elsewhere")
def test_processes_begin_with_what_they_would_import(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == "True\n", done.stderr
