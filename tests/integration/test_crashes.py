"""Killed, interrupted, out of disk: what was whole stays whole, and the training resumes."""

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_diayn import (
    DIAYNCallback,
    DIAYNCheckpointCallback,
    DIAYNWrapper,
    load_discriminator,
    resume,
)
from sb3_diayn.checkpoints import list_checkpoints, newest_checkpoint, save_checkpoint
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
    assert len(list(tmp_path.glob(".*.part"))) <= 2


# -- a full disk -------------------------------------------------------------------------------


def full_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


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
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_20_steps",
        "checkpoint_40_steps",
    ]
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
@pytest.mark.parametrize("limit", [1_000, 20_000, 100_000])
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
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint_20_steps",
        "checkpoint_40_steps",
    ]
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
    assert [path.name for path in disk.iterdir()] == ["checkpoint_40_steps"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert resume(disk, make_env(), device="cpu").num_timesteps == 40


# -- the command line --------------------------------------------------------------------------

TRAIN = "train --env Pendulum-v1 --n-skills 3 --no-progress --no-report --seed 1".split()
SMALL = "--hyperparams learning_starts:50 n_envs:2 gradient_steps:1".split()
SMALL += ["buffer_size:2000", "batch_size:16"]


def cli(*args: Any) -> int:
    from sb3_diayn.cli import main

    return main([str(arg) for arg in args])


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
    assert "Going on at step 200 until step 240" in capsys.readouterr().out
    again = tmp_path / "sac" / "Pendulum-v1_2" / "Pendulum-v1.zip"
    # What the run of 240 steps had, to the bit.
    newest = tmp_path / "whole"
    (run / "checkpoints" / ".x.part").rename(newest)
    mine = load_discriminator(again).state_dict()
    theirs = load_discriminator(newest / "model.zip").state_dict()
    assert all(th.equal(mine[name], theirs[name]) for name in theirs)


def test_a_full_disk_at_the_end_of_a_run(tmp_path, capsys, monkeypatch):
    pytest.importorskip("rl_zoo3")
    monkeypatch.setattr("os.fsync", full_disk)
    assert cli(*TRAIN, "-n", 60, "-f", tmp_path, *SMALL) == 2
    error = capsys.readouterr().err
    assert "error: " in error and "No space left on device" in error and "Traceback" not in error
    assert "Pendulum-v1.zip" in error
    assert not list(tmp_path.rglob("*.zip"))


@pytest.fixture
def heeds_ctrl_c():
    """What a shell runs in its background ignores Ctrl-C, and so does all that is started there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(ON_WINDOWS, reason="a console's Ctrl-C would reach the tests as well")
@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_saves(tmp_path):
    pytest.importorskip("rl_zoo3")
    words = [sys.executable, "-m", "sb3_diayn.cli", *TRAIN, "-n", "1000000", "--save-freq", "60"]
    words += ["--vec-env", "subproc", "-f", str(tmp_path), *SMALL]
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        folder = tmp_path / "sac" / "Pendulum-v1_1" / "checkpoints"
        while not list_checkpoints(folder) and process.poll() is None:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes of the group
        try:
            output, error = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130, output + error
    assert "Traceback" not in error
    run = tmp_path / "sac" / "Pendulum-v1_1"
    assert f"sb3-diayn train --resume {run}" in output
    assert load_discriminator(run / "Pendulum-v1.zip").n_skills == 3
    assert newest_checkpoint(run).parent == folder
