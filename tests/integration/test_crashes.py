"""Killed, interrupted, out of disk: what was whole stays whole, and the training resumes."""

import errno
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_diayn import (
    DIAYNCallback,
    DIAYNCheckpointCallback,
    DIAYNWrapper,
    SkillEvaluationCallback,
    load_discriminator,
    resume,
)
from sb3_diayn.checkpoints import (
    list_checkpoints,
    lock_folder,
    newest_checkpoint,
    save_checkpoint,
)
from sb3_diayn.files import replacing
from tests.helpers.envs import PointEnv
from tests.helpers.models import K, make_callback, make_sac

pytestmark = pytest.mark.slow

# A copy of this process where the system can make one: it need not import everything again.
METHODS = multiprocessing.get_all_start_methods()
PROCESSES = multiprocessing.get_context("fork" if "fork" in METHODS else "spawn")
ON_WINDOWS = sys.platform == "win32"


def make_env() -> DIAYNWrapper:
    return DIAYNWrapper(PointEnv(), K)


def train_for_ever(folder: Path) -> None:
    th.set_num_threads(1)
    if list_checkpoints(folder):
        model, callback = resume(folder, make_env(), device="cpu"), DIAYNCallback()
    else:
        model, callback = make_sac(make_env()), make_callback()
    saving = DIAYNCheckpointCallback(folder, save_freq=5, keep=2)
    model.learn(10**9, callback=[callback, saving], reset_num_timesteps=False)


def kill_and_go_on(folder: Path, n_kills: int) -> list[int]:
    """Steps of the newest checkpoint after each kill, -1 while there is none."""
    rng, steps = np.random.default_rng(0), []
    while len(steps) < n_kills:
        child = PROCESSES.Process(target=train_for_ever, args=(folder,))
        child.start()
        known = max(list_checkpoints(folder), default=-1)
        while max(list_checkpoints(folder), default=-1) == known and child.is_alive():
            time.sleep(0.01)  # until it trains
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        child.join()
        assert child.exitcode != 0
        steps.append(max(list_checkpoints(folder)))
        model = resume(folder, make_env(), device="cpu")
        assert model.num_timesteps == steps[-1]
        model.learn(3, callback=DIAYNCallback(), reset_num_timesteps=False)
        assert model.num_timesteps == steps[-1] + 3
    return steps


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("n_kills", [5, pytest.param(20, marks=pytest.mark.expensive)])
def test_kill_at_random_moments_of_training_and_saving(tmp_path, n_kills):
    steps = kill_and_go_on(tmp_path, n_kills)
    assert (np.diff(steps) > 0).all()
    assert len(list(tmp_path.glob("checkpoint_*"))) <= 3
    assert len(list(tmp_path.glob(".*.part"))) <= 2  # of the last one that was killed
    model = resume(tmp_path, make_env(), device="cpu")
    learn(model, tmp_path, 20)
    assert not list(tmp_path.glob(".*.part"))


# -- a full disk -------------------------------------------------------------------------------


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def said_of(caught: list[warnings.WarningMessage]) -> list[str]:
    return [str(warning.message) for warning in caught if warning.category is UserWarning]


def learn(model: Any, folder: Path, steps: int, reset: bool = False) -> None:
    saving = DIAYNCheckpointCallback(folder, save_freq=20, keep=2)
    callback = [make_callback(), saving]
    model.learn(steps, callback=callback, reset_num_timesteps=reset)


@pytest.mark.parametrize("writer", ["torch.save", "pickle.dump", "os.fsync"])
def test_a_full_disk_costs_one_checkpoint(tmp_path, monkeypatch, writer):
    model = make_sac(make_env())
    learn(model, tmp_path, 40)
    with monkeypatch.context() as patch, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        patch.setattr(writer, full_disk)
        learn(model, tmp_path, 25)
    said = said_of(caught)
    assert len(said) == 2 and model.num_timesteps == 65
    assert "at 60 steps could not be written ([Errno 28] No space left on device" in said[0]
    assert list(list_checkpoints(tmp_path)) == [20, 40]
    assert files_in(tmp_path) == [".lock", "checkpoint_20_steps", "checkpoint_40_steps"]
    learn(model, tmp_path, 20)
    assert list(list_checkpoints(tmp_path)) == [80, 85]
    assert resume(tmp_path, make_env(), device="cpu").num_timesteps == 85


def learn_with_a_limit(model: Any, folder: Path, limit: int, sender: Any) -> None:
    """In a process of its own: no file may grow beyond ``limit`` bytes."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # or the process ends at the first byte beyond
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learn(model, folder, 25)
    sender.send((said_of(caught), model.num_timesteps))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif("fork" not in METHODS, reason="the limit is of POSIX systems")
@pytest.mark.parametrize(
    "limit",
    [1_000, 20_000, 100_000]
    + [pytest.param(n, marks=pytest.mark.expensive) for n in range(2_000, 100_000, 7_000)],
)
def test_a_system_that_writes_no_more(tmp_path, limit):
    """In the first bytes, within the model's zip, or within the replay buffer."""
    model = make_sac(make_env(), buffer_size=5000)
    learn(model, tmp_path, 40)
    sizes = {file.name: file.stat().st_size for file in tmp_path.glob("checkpoint_40_steps/*")}
    assert 20_000 < sizes["model.zip"] < 100_000 < sizes["replay_buffer.pkl"]
    receiver, sender = PROCESSES.Pipe(duplex=False)
    child = PROCESSES.Process(target=learn_with_a_limit, args=(model, tmp_path, limit, sender))
    child.start()
    said, steps = receiver.recv()
    child.join()
    assert steps == 65 and len(said) == 2
    assert "at 60 steps could not be written ([Errno 27] File too large" in said[0]
    assert files_in(tmp_path) == [".lock", "checkpoint_20_steps", "checkpoint_40_steps"]
    assert resume(tmp_path, make_env(), device="cpu").num_timesteps == 40


@pytest.fixture
def small_disk(tmp_path):
    """Makes a file system of so many bytes, where one may: as root, in most containers."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: int) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("no file system may be mounted here")
        return folder

    yield make
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("file", ["model.zip", "training_state.pt"])
def test_a_disk_that_is_full(tmp_path, small_disk, file):
    """Room for one checkpoint and half of that file of the next one."""
    model = make_sac(make_env())
    model.learn(20, callback=make_callback())
    whole = save_checkpoint(model, tmp_path, save_replay_buffer=False)
    sizes = {file.name: file.stat().st_size for file in whole.iterdir()}
    room = sum(sizes.values()) + sizes[file] // 2 + 20_000
    room += sizes["model.zip"] if file == "training_state.pt" else 0
    disk = small_disk(room)
    saving = DIAYNCheckpointCallback(disk, save_freq=20, save_replay_buffer=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(45, callback=[DIAYNCallback(), saving], reset_num_timesteps=False)
    said = said_of(caught)
    assert model.num_timesteps == 65 and said
    assert all("[Errno 28] No space left on device" in each for each in said)
    assert files_in(disk) == [".lock", "checkpoint_40_steps"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert resume(disk, make_env(), device="cpu").num_timesteps == 40


class ReadOnlyFrom(BaseCallback):
    """
    Covers a folder with a read-only file system in a step of the training. The folder itself
    cannot become read-only while its lock is open.
    """

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__()
        self.folder, self.step = folder, step

    def _on_step(self) -> bool:
        if self.num_timesteps == self.step:
            words = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(self.folder)]
            subprocess.run(words, check=True)
        return True


@pytest.mark.parametrize(
    "step", [41, *(pytest.param(n, marks=pytest.mark.expensive) for n in (22, 39, 40, 59, 60))]
)
def test_a_folder_that_becomes_read_only(small_disk, step):
    disk = small_disk(10_000_000)
    model = make_sac(make_env())
    saving = DIAYNCheckpointCallback(disk, save_freq=20, keep=5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.learn(65, callback=[make_callback(), ReadOnlyFrom(disk, step), saving])
    said = said_of(caught)
    assert model.num_timesteps == 65
    assert said and all("Read-only file system" in each for each in said)
    with pytest.raises(OSError, match="Read-only file system"):  # before another training
        learn(make_sac(make_env()), disk, 25)
    subprocess.run(["umount", str(disk)], check=True)
    whole = [20 * n for n in range(1, 4) if 20 * n < step]
    assert list(list_checkpoints(disk)) == whole
    assert resume(disk, make_env(), device="cpu").num_timesteps == max(whole)


# -- the command line --------------------------------------------------------------------------

TRAIN = "train --env Pendulum-v1 --n-skills 3 --no-progress --no-report --seed 1".split()
SMALL = "--hyperparams learning_starts:50 n_envs:2 gradient_steps:1".split()
SMALL += ["buffer_size:2000", "batch_size:16", "DIAYNWrapper.skill:balanced"]
SMALL += ["policy_kwargs:dict(net_arch=[16])", "DIAYNCallback.net_arch:[16]"]


def cli(*args: Any) -> int:
    from sb3_diayn.cli import main

    return main([str(arg) for arg in args])


def test_ctrl_c_in_the_evaluation_tells_what_is_saved(tmp_path, capsys, monkeypatch):
    training = pytest.importorskip("sb3_diayn.cli.training")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training, "evaluate_run", interrupt)
        assert cli(*TRAIN, "-n", 80, "-f", tmp_path, *SMALL) == 130
    run = tmp_path / "sac" / "Pendulum-v1_1"
    said = capsys.readouterr().out
    assert f"The run is trained and saved in {run}" in said
    assert f"  sb3-diayn report {run}" in said
    # As many steps again as it was asked for, not as many as the configuration has.
    assert cli("train", "--resume", run, "--no-progress", "--no-report", "-f", tmp_path) == 0
    assert "Resuming at step 80, until step 160" in capsys.readouterr().out


def test_a_run_that_was_killed_goes_on_from_its_newest_checkpoint(tmp_path, capsys):
    pytest.importorskip("rl_zoo3")
    saving = ["--save-freq", 100, "--save-replay-buffer", "-f", tmp_path]
    assert cli(*TRAIN, "-n", 240, *saving, *SMALL) == 0
    run = tmp_path / "sac" / "Pendulum-v1_1"
    assert list(list_checkpoints(run / "checkpoints")) == [200, 240]
    (run / "Pendulum-v1.zip").unlink()  # as if it had been killed
    (run / "checkpoints" / "checkpoint_240_steps").rename(run / "checkpoints" / ".x.part")
    capsys.readouterr()
    assert cli("train", "--resume", run, "--no-progress", "--no-report", "-f", tmp_path) == 0
    assert "Resuming at step 200, until step 240" in capsys.readouterr().out
    again = tmp_path / "sac" / "Pendulum-v1_2" / "Pendulum-v1.zip"
    # What the run of 240 steps had, to the bit.
    newest = tmp_path / "whole"
    (run / "checkpoints" / ".x.part").rename(newest)
    mine = load_discriminator(again).state_dict()
    theirs = load_discriminator(newest / "model.zip").state_dict()
    assert all(th.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.filterwarnings("ignore:The checkpoint at 60 steps could not be written")
def test_a_full_disk_at_the_end_of_a_run(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rl_zoo3")
    monkeypatch.setattr("os.fsync", full_disk)
    assert cli(*TRAIN, "-n", 60, "-f", tmp_path, *SMALL) == 2
    error = capsys.readouterr().err
    assert "error: " in error and "No space left on device" in error and "Traceback" not in error
    assert "Pendulum-v1.zip" in error
    assert not list(tmp_path.rglob("*.zip"))


def make_manager(folder: Path, model: Any) -> Any:
    """What ``save`` reads of the zoo's manager."""
    (folder / "Point").mkdir()
    return SimpleNamespace(
        save_path=str(folder),
        params_path=str(folder / "Point"),
        env_name="Point",
        save_replay_buffer=True,
    )


SAVED = ["Point.zip", "vecnormalize.pkl", "replay_buffer.pkl"]  # the most precious first


@pytest.mark.parametrize("failing", SAVED)
def test_each_file_of_a_run_is_saved_on_its_own(tmp_path, monkeypatch, failing):
    pytest.importorskip("rl_zoo3")
    from sb3_diayn.zoo import saving

    model = make_sac(VecNormalize(DummyVecEnv([make_env]), norm_reward=False))
    model.learn(20, callback=make_callback())
    order, replacing = [], saving.replacing

    def replace(file: Path) -> Any:
        order.append(file.name)
        if file.name == failing:
            full_disk()
        return replacing(file)

    monkeypatch.setattr(saving, "replacing", replace)
    rest = [name for name in SAVED if name != failing]
    with pytest.raises(OSError, match=re.escape(failing)) as caught:
        saving.save(make_manager(tmp_path, model), model)
    assert order == SAVED
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == sorted(rest)
    assert f"there is now: {', '.join(rest)}" in str(caught.value)


def test_a_disk_with_room_for_the_model_alone(small_disk):
    pytest.importorskip("rl_zoo3")
    from sb3_diayn.zoo import saving

    model = make_sac(make_env(), buffer_size=50_000)
    model.learn(20, callback=make_callback())
    disk = small_disk(1_000_000)
    with pytest.raises(OSError, match=r"replay_buffer.pkl \(.*No space left"):
        saving.save(make_manager(disk, model), model)
    assert load_discriminator(disk / "Point.zip").n_skills == K
    assert files_in(disk) == ["Point", "Point.zip"]


def make_read_only(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)


def test_a_read_only_folder_is_refused_before_the_training(small_disk, capsys):
    pytest.importorskip("rl_zoo3")
    disk = small_disk(1_000_000)
    make_read_only(disk)
    assert cli(*TRAIN, "-n", 100, "-f", disk, *SMALL) == 2
    error = capsys.readouterr().err
    assert "Read-only file system" in error and str(disk) in error and "Traceback" not in error


def test_a_run_in_a_read_only_folder(tmp_path, small_disk, capsys):
    """It can be evaluated into another folder, and a command that cannot write says so."""
    pytest.importorskip("rl_zoo3")
    disk = small_disk(10_000_000)
    assert cli(*TRAIN, "-n", 100, "-f", disk, *SMALL) == 0
    make_read_only(disk)
    run = disk / "sac" / "Pendulum-v1_1"
    output = tmp_path / "evaluation.json"
    assert cli("evaluate", run, "--episodes", 2, "-o", output) == 0 and output.is_file()
    for command in ("evaluate", "report"):
        capsys.readouterr()
        assert cli(command, run, "--episodes", 2) == 2
        error = capsys.readouterr().err
        assert "Read-only file system" in error and str(run) in error and "Traceback" not in error


# -- environments that fail --------------------------------------------------------------------

FAILS_AT = 30  # in this step of the environment


class FailingEnv(PointEnv):
    """
    Fails in one of two environments, which it knows by the seed.

    :param how: "raise", "value" (a sentence of its own), "leave", "exit", "kill", or "spoil", which
        returns a reward of NaN
    :param index: which of the two
    :param in_reset: fail in the first reset
    :param step: in which step to fail, else
    """

    def __init__(
        self, how: str = "raise", index: int = 0, in_reset: bool = False, step: int = FAILS_AT
    ) -> None:
        super().__init__(length=10)
        self.how, self.index, self.in_reset, self.step_to_fail = how, index, in_reset, step
        self.n_steps, self.own_index = 0, 0

    def reset(self, **kwargs: Any) -> Any:
        if kwargs.get("seed") is not None:
            self.own_index = kwargs["seed"] % 2
        if self.in_reset and self.own_index == self.index:
            raise KeyError("no such level")
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        self.n_steps += 1
        if self.own_index == self.index and self.n_steps == self.step_to_fail:
            if self.how == "exit":
                os._exit(9)
            if self.how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.how == "leave":
                sys.exit(0)
            if self.how == "value":
                raise ValueError("a wall is missing")
            if self.how == "spoil":
                obs, _, *rest = super().step(action)
                return obs, np.nan, *rest
            raise RuntimeError("the simulator broke")
        return super().step(action)


FAILING = "sb3_diayn_tests/Failing-v0"
gym.register(FAILING, "tests.integration.test_crashes:FailingEnv")
FAILING_TRAIN = ["train", "--env", FAILING, "--n-skills", 3, "--no-progress", "--no-report"]
FAILING_TRAIN += ["--seed", 2, "-n", 200, "--device", "cpu"]
TINY = ["--hyperparams", "learning_starts:20", "n_envs:2", "gradient_steps:1", "batch_size:16"]
TINY += ["policy_kwargs:dict(net_arch=[16])", "DIAYNCallback.net_arch:[16]"]
TINY += ["DIAYNWrapper.skill:balanced"]

ENDS = {
    "exit": "its process has ended with exit code 9",
    "kill": "its process has ended with signal SIGKILL",
    "raise": "its process has ended with exit code 1",
}


def fail(folder: Path, capfd: Any, *words: Any) -> tuple[Path, str]:
    """The run's folder, and what the command says."""
    assert cli(*FAILING_TRAIN, "-f", folder, *words, *TINY) == 1
    assert not multiprocessing.active_children()
    return folder / "sac" / "sb3_diayn_tests-Failing-v0_1", capfd.readouterr().err


@pytest.mark.parametrize(("how", "index"), [*((how, 0) for how in ENDS), ("exit", 1)])
def test_an_environment_that_fails_in_a_process_of_its_own(tmp_path, capfd, how, index):
    pytest.importorskip("rl_zoo3")
    if ON_WINDOWS and how == "kill":
        pytest.skip("Windows has no such signal")
    kwargs = ["--env-kwargs", f"how:{how}", f"index:{index}", "--vec-env", "subproc"]
    run, error = fail(tmp_path, capfd, *kwargs)
    assert f"in step 30, number {index} of the environments 0 to 1: {ENDS[how]}" in error
    assert f"The training was at step 58.\nRun saved in {run}, unfinished" in error
    assert load_discriminator(run / f"{run.name[:-2]}.zip").n_skills == 3
    assert not (run / "run.json").exists()


def test_an_environment_that_raises(tmp_path, capfd):
    pytest.importorskip("rl_zoo3")
    run, error = fail(tmp_path, capfd, "--env-kwargs", "index:1")
    assert "number 1 of the environments 0 to 1: it raised RuntimeError: the sim" in error
    assert "test_crashes.py, line" in error and "Traceback (" not in error
    assert "the simulator broke" in (run / "traceback.txt").read_text()
    resume = ["train", "--resume", run, "--no-progress", "--no-report", "-f", tmp_path]
    assert cli(*resume, "--env-kwargs", "step:-1") == 0
    said = capfd.readouterr().out
    assert "Resuming at step 58, until step 200" in said
    assert "not exactly: there is no training_state.pt" in said and "replay_buffer.pkl" in said


def test_an_environment_that_fails_before_anything_is_learned(tmp_path, capfd):
    pytest.importorskip("rl_zoo3")
    run, error = fail(tmp_path, capfd, "--env-kwargs", "in_reset:true", "index:1")
    assert "in step 1, number 1 of the environments 0 to 1: it raised KeyError" in error
    assert "Nothing was learned yet." in error and not list(run.rglob("*.zip"))


def test_an_environment_that_fails_in_an_evaluation(tmp_path, capfd):
    pytest.importorskip("rl_zoo3")
    run, error = fail(tmp_path, capfd, "--eval-freq", 20)
    assert "has failed in an evaluation, number 0 of the environments 0 to 0: it raised" in error
    assert list(run.glob("*.zip"))


def test_an_environment_that_fails_in_an_evaluation_of_skills(tmp_path):
    pytest.importorskip("rl_zoo3")
    from sb3_diayn.zoo.training import train

    evaluating = SkillEvaluationCallback(eval_freq=20, n_envs=1)
    options = {"n_skills": 3, "seed": 2, "n_timesteps": 200, "device": "cpu"}
    tiny = {"learning_starts": 20, "n_envs": 2, "gradient_steps": 1, "batch_size": 16}
    tiny |= {"DIAYNWrapper.skill": "balanced"}
    with pytest.raises(RuntimeError, match=r"has failed in an evaluation, number 0 .*: it raised"):
        train(FAILING, log_folder=tmp_path, hyperparams=tiny, callbacks=[evaluating], **options)


def test_an_environment_that_fails_after_the_training(tmp_path, capfd):
    """In the evaluation at its end, and in the commands that play the run."""
    pytest.importorskip("rl_zoo3")
    words = [*FAILING_TRAIN, "-f", tmp_path, "-n", 12, "--episodes", 5, *TINY]
    assert cli(*words, "--env-kwargs", "step:8") == 1
    error = capfd.readouterr().err
    run = tmp_path / "sac" / "sb3_diayn_tests-Failing-v0_1"
    assert "has failed, number 0 of the environments 0 to 14: it raised RuntimeError" in error
    assert f"The run is trained and saved in {run}" in error
    for command in ("play", "evaluate"):
        words = [command, run, "--env-kwargs", "step:5", "--device", "cpu"]
        assert cli(*words) == 1
        error = capfd.readouterr().err
        assert "the simulator broke" in error and "Traceback" not in error


@pytest.mark.parametrize(("how", "said"), [("value", "a wall is missing"), ("leave", "SystemExit")])
def test_an_environment_that_fails_after_the_training_in_other_ways(tmp_path, capfd, how, said):
    pytest.importorskip("rl_zoo3")
    words = [*FAILING_TRAIN, "-f", tmp_path, "-n", 12, "--episodes", 5, *TINY]
    assert cli(*words, "--env-kwargs", "step:8", f"how:{how}") == 1
    error = capfd.readouterr().err
    assert f"env='{FAILING}' has failed, number 0 of the environments 0 to 14" in error
    assert said in error and "The run is trained and saved in" in error


def test_a_task_whose_reward_is_not_finite(tmp_path, capfd):
    """Without skills neither wrapper nor callback looks at it."""
    pytest.importorskip("rl_zoo3")
    words = [*FAILING_TRAIN, "-f", tmp_path, *TINY, "--env-kwargs", "step:-1"]
    assert cli(*words) == 0
    run = tmp_path / "sac" / "sb3_diayn_tests-Failing-v0_1"
    words = ["finetune", run, "--skill", 0, "-n", 200, "-f", tmp_path, "--seed", 2]
    words += ["--device", "cpu", "--no-progress", "--episodes", 1]
    assert cli(*words, "--env-kwargs", "how:spoil", "step:30") == 1
    error = capfd.readouterr().err
    assert "reward=nan of environment 0 after 60 steps; expected finite numbers" in error
    tuned = tmp_path / "sac" / "sb3_diayn_tests-Failing-v0_2"
    assert f"Run saved in {tuned}, unfinished" in error and "SAC.load(" in error


def test_a_model_that_has_diverged_in_its_last_update(tmp_path):
    pytest.importorskip("rl_zoo3")
    from sb3_diayn.zoo.saving import check_not_diverged

    model = make_sac(make_env())
    with th.no_grad():
        next(model.actor.parameters()).fill_(np.nan)
    manager = SimpleNamespace(save_path=tmp_path, callbacks=[])
    with pytest.raises(ValueError, match=r"policy\.actor.*=nan at the end of the training"):
        check_not_diverged(manager, model)


def test_a_search_whose_environment_fails_in_a_process_of_its_own(tmp_path, capfd, monkeypatch):
    """It does not wait for the processes that are alive."""
    pytest.importorskip("optuna")
    pytest.importorskip("rl_zoo3")
    monkeypatch.setattr("sys.argv", ["sb3-diayn", "tune"])
    words = ["tune", "--algo", "ppo", "--env", FAILING, "--n-trials", 1, "-n", 256, "-f", tmp_path]
    words += ["--n-skills", 3, "--vec-env", "subproc", "--env-kwargs", "how:exit", "index:1"]
    words += ["--seed", 2]
    assert cli(*words, "--hyperparams", "n_envs:2", "n_steps:64", "batch_size:16") == 1
    assert "number 1 of the environments 0 to 1: its process has ended" in capfd.readouterr().err
    assert not multiprocessing.active_children()


class FailingCallback(BaseCallback):
    def _on_step(self) -> bool:
        if self.num_timesteps >= 60:
            raise LookupError("my callback broke")
        return True


def test_anything_else_that_fails(tmp_path, capfd):
    pytest.importorskip("rl_zoo3")
    callbacks = "[sb3_diayn.DIAYNCallback, tests.integration.test_crashes.FailingCallback]"
    config = tmp_path / "own.yml"
    config.write_text(f"default: {{n_timesteps: 200, policy: MlpPolicy, callback: {callbacks}}}")
    words = ["--conf-file", config, "--env-kwargs", "step:-1", "--save-freq", -1]
    run, error = fail(tmp_path, capfd, *words)
    assert "The training has failed: LookupError: my callback broke (" in error
    assert list(run.glob("*.zip")) and not (run / "checkpoints").exists()


# -- two writers -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("n_writers", [1, pytest.param(6, marks=pytest.mark.expensive)])
def test_a_second_training_in_the_same_folder_is_refused(tmp_path, n_writers):
    """One of the writers trains, and the rest end at once, as this process does."""
    children = [
        PROCESSES.Process(target=train_for_ever, args=(tmp_path,)) for _ in range(n_writers)
    ]
    for child in children:
        child.start()
    while sum(child.is_alive() for child in children) > 1 or not list_checkpoints(tmp_path):
        time.sleep(0.01)
    with pytest.raises(ValueError, match=r"is in use by another training; expected a folder"):
        learn(make_sac(make_env()), tmp_path, 20)
    (living,) = [child for child in children if child.is_alive()]
    living.kill()
    living.join()
    model = resume(tmp_path, make_env(), device="cpu")
    model.learn(
        3,
        callback=[DIAYNCallback(), DIAYNCheckpointCallback(tmp_path)],
        reset_num_timesteps=False,
    )
    assert not list(tmp_path.glob(".*.part"))


def test_a_second_training_in_another_thread_is_refused(tmp_path):
    lock = lock_folder(tmp_path)
    assert lock_folder(tmp_path) is lock  # of this thread: its learn() may have failed
    refused = []

    def learn_elsewhere() -> None:
        try:
            learn(make_sac(make_env()), tmp_path, 20)
        except ValueError as error:
            refused.append(str(error))

    thread = threading.Thread(target=learn_elsewhere)
    thread.start()
    thread.join()
    assert len(refused) == 1 and "in use" in refused[0] and not list_checkpoints(tmp_path)
    learn(make_sac(make_env()), tmp_path, 20)
    assert list(list_checkpoints(tmp_path)) == [20]


def test_a_training_that_failed_does_not_keep_its_folder(tmp_path):
    model = make_sac(make_env())
    failing = [make_callback(), DIAYNCheckpointCallback(tmp_path, save_freq=20), FailingCallback()]
    with pytest.raises(LookupError):
        model.learn(100, callback=failing)
    learn(resume(tmp_path, make_env(), device="cpu"), tmp_path, 20)
    assert list(list_checkpoints(tmp_path)) == [40, 60]


def test_leftovers_of_killed_processes_are_removed_and_live_ones_are_not(tmp_path):
    for name in (".checkpoint_5_steps.part", ".checkpoint_9_steps.0a1b2c3d.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.zip").write_bytes(b"half")
    learn(make_sac(make_env()), tmp_path, 20)
    assert files_in(tmp_path) == [".lock", "checkpoint_20_steps"]
    old, new, other = (tmp_path / f".{name}.part.zip" for name in ("a.1234", "a.5678", "b.1234"))
    for file in (old, new, other):
        file.write_bytes(b"half")
        if file != new:
            os.utime(file, (0, 0))
    with replacing(tmp_path / "a.zip") as temporary:
        temporary.write_bytes(b"whole")
    assert not old.exists() and new.exists() and other.exists()


def test_two_writers_of_one_file(tmp_path):
    with replacing(tmp_path / "a.zip") as one:
        one.write_bytes(b"one")
        with replacing(tmp_path / "a.zip") as other:
            other.write_bytes(b"other")
        assert (tmp_path / "a.zip").read_bytes() == b"other" and one.read_bytes() == b"one"
    assert (tmp_path / "a.zip").read_bytes() == b"one" and len(list(tmp_path.iterdir())) == 1


# -- signals -----------------------------------------------------------------------------------


@pytest.fixture
def heeds_ctrl_c():
    """What a shell runs in its background ignores Ctrl-C, and so does all that is started there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def heeds_sighup():
    """What ``nohup`` runs ignores that its terminal is closed, and so does all that it starts."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def interrupted(log_folder, return_code, interrupt):
    """A training in another process that has been interrupted after its first checkpoint."""
    pytest.importorskip("rl_zoo3")
    words = [sys.executable, "-m", "sb3_diayn.cli", *TRAIN, "-n", "1000000", "--save-freq", "60"]
    words += ["--vec-env", "subproc", "-f", str(log_folder), *SMALL]
    run = log_folder / "sac" / "Pendulum-v1_1"
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        while not list_checkpoints(run / "checkpoints") and process.poll() is None:
            time.sleep(0.05)
        interrupt(process.pid)
        try:
            output, error = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == return_code, output + error
    assert f"sb3-diayn train --resume {run}" in output and "Traceback" not in error
    assert load_discriminator(run / "Pendulum-v1.zip").n_skills == 3
    return run


@pytest.mark.skipif(ON_WINDOWS, reason="a console's Ctrl-C would reach the tests as well")
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_saves(tmp_path):
    # As a terminal does: to all processes of the group.
    run = interrupted(tmp_path, 130, lambda pid: os.killpg(pid, signal.SIGINT))
    assert newest_checkpoint(run).parent == run / "checkpoints"


@pytest.mark.skipif(ON_WINDOWS, reason="Windows ends a process without a word")
@pytest.mark.parametrize("to_all", [True, False])
def test_sigterm_saves(tmp_path, to_all):
    """To the training alone, as ``kill`` sends it, or to all processes, as schedulers do."""
    kill = os.killpg if to_all else os.kill
    run = interrupted(tmp_path, 143, lambda pid: kill(pid, signal.SIGTERM))
    assert not (run / "run.json").exists()


@pytest.mark.skipif(ON_WINDOWS, reason="Windows has no such signal")
@pytest.mark.usefixtures("heeds_sighup")
def test_a_terminal_that_is_closed_saves(tmp_path):
    """Its processes get SIGHUP, and what they print fails."""
    pytest.importorskip("rl_zoo3")
    terminal, inner = os.openpty()
    words = [sys.executable, "-m", "sb3_diayn.cli", *TRAIN, "-n", "1000000", "--save-freq", "60"]
    words += ["--vec-env", "subproc", "-f", str(tmp_path), *SMALL]
    streams = {name: inner for name in ("stdin", "stdout", "stderr")}
    run = tmp_path / "sac" / "Pendulum-v1_1"
    with subprocess.Popen(words, **streams, start_new_session=True) as process:
        os.close(inner)
        while not list_checkpoints(run / "checkpoints") and process.poll() is None:
            time.sleep(0.05)
        os.close(terminal)
        os.killpg(process.pid, signal.SIGHUP)
        try:
            assert process.wait(timeout=120) == 129
        finally:
            process.kill()
    assert load_discriminator(run / "Pendulum-v1.zip").n_skills == 3
    assert not (run / "run.json").exists()


def test_sigterm_while_the_run_is_saved():
    """The first one within the block interrupts, and none does outside of it."""
    pytest.importorskip("rl_zoo3")
    from sb3_diayn.zoo.failures import TerminatedError, TerminationHandler

    saved, before = [], signal.getsignal(signal.SIGTERM)
    with pytest.raises(TerminatedError), TerminationHandler() as handler:
        with handler.interrupting():
            pass
        signal.raise_signal(signal.SIGTERM)
        saved.append("a run")
    with pytest.raises(TerminatedError), TerminationHandler() as handler:
        try:
            with handler.interrupting():
                signal.raise_signal(signal.SIGTERM)
                saved.append("never")
        finally:
            signal.raise_signal(signal.SIGTERM)
            saved.append("another")
    assert saved == ["a run", "another"]
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_while_the_run_is_saved(capsys):
    """One is remembered, and only another one abandons what is being saved."""
    pytest.importorskip("rl_zoo3")
    from sb3_diayn.zoo.failures import TerminationHandler

    saved = []
    with pytest.raises(KeyboardInterrupt), TerminationHandler() as handler:
        with handler.interrupting():
            pass
        signal.raise_signal(signal.SIGINT)
        saved.append("a run")
        handler.announce("It is saved.")
    said = capsys.readouterr()
    assert "Press Ctrl-C again to abandon it" in said.err and said.out == "It is saved.\n"
    with pytest.raises(KeyboardInterrupt), TerminationHandler() as handler:
        try:
            with handler.interrupting():
                signal.raise_signal(signal.SIGINT)
                saved.append("never")
        finally:
            signal.raise_signal(signal.SIGINT)
            saved.append("another")
            signal.raise_signal(signal.SIGINT)
            saved.append("never")
    assert saved == ["a run", "another"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
