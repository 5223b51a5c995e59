"""What the command line refuses before anything begins."""

from pathlib import Path

import pytest

pytest.importorskip("rl_zoo3")

from sb3_diayn.cli import main

ENV = ["--env", "Pendulum-v1"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-f", "logs[1]"], r"log_folder='logs[1]' is a pattern to the RL Zoo, which finds no run"),
        (["--device", "nonsense"], "device='nonsense' is not on this machine; expected 'auto'"),
        (["--device", "cuda:99"], "device='cuda:99' is not on this machine; expected 'auto'"),
        (["--preset", "paper", "--conf-file", "sac"], "are two configurations; expected one"),
        (["--conf-file", "."], "conf_file='.' is a folder; expected a YAML file"),
        (
            ["--seed", str(2**32)],
            "seed=4294967296 is not allowed; expected an integer from 0 to 42",
        ),
        (["--hyperparams", "gamma:1.5"], "gamma=1.5 is not a fraction; expected a number from"),
        (["--hyperparams", "frame_stack:0"], "frame_stack=0 is too small; expected at least 1"),
    ],
)
def test_a_training_that_cannot_be(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *ENV, *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.zip"))


@pytest.mark.slow
def test_observations_that_cannot_be_scaled(tmp_path, capsys):
    words = ["--algo", "ppo", "--env", "FrozenLake-v1", "--n-skills", "2", "-f", str(tmp_path)]
    assert main(["train", *words, "-n", "100"]) == 2
    assert "Use --hyperparams normalize:False, and policy:Multi" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.csv"))  # no folder of a run is left


def test_a_window_without_a_display(monkeypatch, tmp_path, capsys):
    pytest.importorskip("pygame")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    run = Path(__file__).parents[2] / "zoo_configs" / "results" / "sac" / "Pendulum-v1_1"
    assert main(["play", str(run), "--skill", "0", "--render", "human"]) == 2
    assert "There is no display for a window" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "run", "--seed", "-1"], "'-1' is not an integer from 0 to 4294967295"),
        (["sweep", *ENV, "--n-jobs", "0"], "--n-jobs: '0' is not a positive integer"),
    ],
)
def test_words_that_no_command_takes(capsys, words, message):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert message in capsys.readouterr().err


def test_play_takes_one_run(capsys):
    assert main(["play", "logs/sac/Hopper-v5_1", "--exp-id", "7"]) == 2
    assert "exp_id=7 and run='logs/sac/Hopper-v5_1' name two runs" in capsys.readouterr().err


def test_a_device_is_no_damaged_file(tmp_path, capsys):
    (tmp_path / "model.zip").write_bytes(b"")
    words = ["evaluate", str(tmp_path / "model.zip"), *ENV, "--device", "nonsense"]
    assert main(words) == 2
    assert "device='nonsense' is not on this machine" in capsys.readouterr().err
