"""How PyTorch uses the processor while a run is trained or played."""

import json

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

pytest.importorskip("rl_zoo3")

import sb3_diayn.zoo.tuning as tuning
from sb3_diayn.cli import main
from sb3_diayn.processor import efficient_torch, has_denormals
from sb3_diayn.zoo import find_run
from tests.helpers.runs import ENV, QUICK, TINY

VECTOR = spaces.Box(-1, 1, (3,))
IMAGE = spaces.Box(0, 255, (64, 64, 3), np.uint8)
FLOAT_IMAGE = spaces.Box(0, 1, (3, 64, 64))
SKILL = spaces.Box(0, 1, (5,))
OF_PYTORCH = 2


@pytest.fixture(autouse=True)
def pytorch_chooses_two(monkeypatch):
    before = th.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    th.set_num_threads(OF_PYTORCH)
    yield
    th.set_num_threads(before)


@pytest.mark.parametrize("space", [VECTOR, spaces.Dict(observation=VECTOR, skill=SKILL)])
def test_vectors_have_one_thread_within_the_block_alone(space):
    with pytest.raises(ZeroDivisionError), efficient_torch(space):
        assert th.get_num_threads() == 1
        _ = 1 / 0
    assert th.get_num_threads() == OF_PYTORCH


@pytest.mark.parametrize("space", [IMAGE, spaces.Dict(observation=FLOAT_IMAGE, skill=SKILL)])
def test_images_have_those_of_pytorch(space):
    with efficient_torch(space):
        assert th.get_num_threads() == OF_PYTORCH


@pytest.mark.parametrize("space", [VECTOR, IMAGE])
def test_a_number_that_was_chosen_stays(space, monkeypatch):
    with efficient_torch(space, 3):
        assert th.get_num_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with efficient_torch(space):
        assert th.get_num_threads() == OF_PYTORCH
    with efficient_torch(space, 3):
        assert th.get_num_threads() == 3


@pytest.mark.parametrize("had", [True, False])
def test_denormal_numbers_are_0_within_the_block_alone(had):
    th.set_flush_denormal(not had)
    try:
        with pytest.raises(ZeroDivisionError), efficient_torch(VECTOR):
            assert not has_denormals()
            _ = 1 / 0
        assert has_denormals() == had
    finally:
        th.set_flush_denormal(False)


def train(folder, *words):
    start = ["train", "--env", ENV, "--n-skills", "2", "-n", "20", *QUICK, "--no-report"]
    assert main([*start, "-f", str(folder), *TINY, *words]) == 0
    (run,) = folder.glob("sac/*_1")
    return run


@pytest.mark.slow
@pytest.mark.parametrize(("words", "expected"), [([], 1), (["--num-threads", "3"], 3)])
def test_a_training_says_how_many_it_had(tmp_path, words, expected):
    run = train(tmp_path, *words)
    assert json.loads((run / "run.json").read_text())["machine"]["threads"] == expected
    with find_run(run).open(device="cpu"):
        assert th.get_num_threads() == 1
    assert th.get_num_threads() == OF_PYTORCH


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize(("words", "expected"), [([], 1), (["--num-threads", "3"], 3)])
def test_the_trials_of_a_search_are_trainings(tmp_path, monkeypatch, words, expected):
    seen = []

    class Spy(tuning.TrialCallback):
        def _on_training_start(self):
            seen.append(th.get_num_threads())
            super()._on_training_start()

    monkeypatch.setattr(tuning, "TrialCallback", Spy)
    search = ["tune", "--env", ENV, "--n-skills", "2", "-n", "40", "--n-trials", "1", *TINY]
    search += ["--n-evaluations", "1", "-f", str(tmp_path), "--device", "cpu", *words]
    assert main(search) == 0
    assert seen == [expected]
