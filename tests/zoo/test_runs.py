"""What a run knows of itself: which evaluations are of it, and how it was normalised."""

import json
import os
import shutil
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml

pytest.importorskip("rl_zoo3")

from sb3_diayn.checkpoints import list_checkpoints
from sb3_diayn.cli import main
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.zoo import find_run, train
from sb3_diayn.zoo.downstream import export_run
from sb3_diayn.zoo.runs import Run
from sb3_diayn.zoo.settings import TrainingOptions, complete
from tests.helpers.figures import leave_undrawn

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undrawn_figures")]

ENV, K = "Pendulum-v1", 3
OTHER_ENV = "sb3_diayn_tests/LongPendulum-v1"
gym.register(OTHER_ENV, "gymnasium.envs.classic_control:PendulumEnv", max_episode_steps=201)
QUICK = ["--device", "cpu", "--no-progress"]
SMALL = {"learning_starts": 50, "n_envs": 2, "gradient_steps": 1, "batch_size": 16}
SMALL |= {"policy_kwargs": "dict(net_arch=[16])"}
SMALL |= {"DIAYNWrapper.skill": "balanced"}
OPTIONS = {"n_skills": K, "n_timesteps": 240, "seed": 1, "save_freq": 200, "device": "cpu"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run with two checkpoints and a report, of seed 0 and one episode of each skill."""
    folder = train(ENV, log_folder=tmp_path_factory.mktemp("logs"), hyperparams=SMALL, **OPTIONS)
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        assert main(["report", str(folder), "--no-films", "--episodes", "1", *QUICK]) == 0
    return folder


@pytest.fixture
def measured(monkeypatch) -> list[Run]:
    """The runs that were played, which is replaced by what their report has."""
    played: list[Run] = []

    def evaluate(run: Run, **options: object) -> SkillEvaluation:
        played.append(run)
        return SkillEvaluation.load(run.folder / "report" / "evaluation.json")

    monkeypatch.setattr(Run, "evaluate", evaluate)
    return played


@pytest.mark.filterwarnings("ignore:.*on the closed environment should be allowed")
def test_environments_that_cannot_be_closed(run, monkeypatch):
    def close(self):
        raise RuntimeError("no simulator")

    monkeypatch.setattr("gymnasium.envs.classic_control.PendulumEnv.close", close)
    with pytest.warns(UserWarning, match=r"could not be closed: RuntimeError: no simulator"):
        evaluation = find_run(run).evaluate(n_episodes=1, device="cpu")
    assert evaluation.n_skills == K


def test_an_evaluation_knows_what_it_is_of(run):
    info = SkillEvaluation.load(run / "report" / "evaluation.json").info
    assert info["env_id"] == ENV and info["env_kwargs"] == {} and info["seed"] == 0
    assert len(info["model_sha256"]) == 64 and info["vec_normalize_sha256"] is None
    assert info["versions"]["Gymnasium"] == gym.__version__ and "sb3-diayn" in info["versions"]


@pytest.mark.parametrize("command", ["compare", "export"])
@pytest.mark.parametrize(
    ("words", "is_used"),
    [
        ([], True),
        (["--seed", "0", "--episodes", "1"], True),
        (["--seed", "3"], False),
        (["--episodes", "2"], False),
        (["--env", OTHER_ENV], False),
    ],
)
def test_a_report_is_used_for_what_it_is_of(run, tmp_path, measured, command, words, is_used):
    assert main([command, str(run), "-o", str(tmp_path), *words, *QUICK]) == 0
    assert len(measured) == (0 if is_used else 1)


def test_a_checkpoint_is_another_model(run, measured):
    checkpoint = list_checkpoints(run / "checkpoints")[200]
    assert main(["compare", str(run), str(checkpoint), *QUICK]) == 0
    assert [each.model_path.parent for each in measured] == [checkpoint]


def test_a_run_that_is_named_twice_is_compared_once(run, tmp_path, measured):
    again = str(run / ".." / run.name)
    assert main(["compare", str(run), again, "-o", str(tmp_path), *QUICK]) == 0
    assert len((tmp_path / "comparison.csv").read_text().splitlines()) == 2


def test_a_film_leaves_the_display_as_it_was(run, tmp_path, monkeypatch):
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    monkeypatch.setenv("SDL_AUDIODRIVER", "disk")
    films = find_run(run).film(tmp_path, skills=[0], max_steps=5, device="cpu")
    assert films[0].is_file()
    assert "SDL_VIDEODRIVER" not in os.environ and os.environ["SDL_AUDIODRIVER"] == "disk"


def test_a_folder_of_checkpoints_is_its_newest_one(run):
    newest = list(list_checkpoints(run / "checkpoints").values())[-1]
    found = find_run(run / "checkpoints")
    assert found.model_path.parent == newest and found.folder == run


def test_finetune_does_not_start_from_the_report_of_another_seed(run, tmp_path, measured, capsys):
    words = ["finetune", str(run), "-n", "4", "-f", str(tmp_path), *QUICK]
    assert main([*words, "--seed", "0"]) == 0 and not measured
    assert main([*words, "--seed", "5"]) == 0 and len(measured) == 1


@pytest.fixture
def copy(run, tmp_path) -> Path:
    folder = tmp_path / "sac" / run.name
    shutil.copytree(run, folder)
    return folder


def test_content_counts_and_not_the_time(copy, measured, monkeypatch):
    model = copy / f"{ENV}.zip"
    os.utime(model)  # as a download does
    assert main(["compare", str(copy), *QUICK]) == 0 and not measured
    older = list_checkpoints(copy / "checkpoints")[200] / "model.zip"
    shutil.copy(older, model)
    os.utime(model, (0, 0))
    assert main(["compare", str(copy), *QUICK]) == 0 and len(measured) == 1


def test_another_version_measures_again(copy, measured, monkeypatch):
    monkeypatch.setattr("sb3_diayn.zoo.runs.installed_versions", lambda: {"Gymnasium": "0.1"})
    assert main(["compare", str(copy), *QUICK]) == 0 and len(measured) == 1


def fewer_skills(content: dict) -> None:
    for name, value in content.items():
        if isinstance(value, list) and name not in ("importance", "reliability"):
            content[name] = (
                [row[:2] if len(row) == K else row for row in value[:2]]
                if (isinstance(value[0], list) and name not in ("task_returns",))
                else value[:2]
            )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (fewer_skills, "n_skills=2; expected 3"),
        (lambda c: c.update(log_q=c["log_q"][:2]), "shape"),
        (lambda c: c.update(task_returns=c["log_q"]), "task_returns has the shape (3,)"),
        (lambda c: c.update(confusion=[[1.0]]), "confusion has the shape (1, 1)"),
        (lambda c: c.update(coverage=["a", "b", "c"]), "coverage has the shape (3,) of <U1"),
        (lambda c: c.pop("movement"), "KeyError: 'movement'"),
        (lambda c: c.update(info=[]), "info is not a dict"),
        (lambda c: c.update(task_returns=[[1], [2, 3], [4]]), "ValueError"),
    ],
    ids=["K", "log_q", "dimensions", "confusion", "words", "missing", "info", "ragged"],
)
def test_an_evaluation_that_cannot_be_is_refused(copy, capsys, change, message):
    file = copy / "report" / "evaluation.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    assert main(["compare", str(copy), *QUICK]) == 2
    error = capsys.readouterr().err
    assert message in error and str(file) in error and "Traceback" not in error


# -- VecNormalize ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normalized(tmp_path_factory) -> Path:
    """A run with VecNormalize, whose statistics matter: they are far from mean 0."""
    hyperparams = SMALL | {"normalize": "{'norm_obs': True, 'norm_reward': False}"}
    logs = tmp_path_factory.mktemp("normalized")
    return train(ENV, log_folder=logs, hyperparams=hyperparams, **OPTIONS)


@pytest.fixture
def bare(normalized, tmp_path) -> Path:
    return Path(shutil.copy(normalized / f"{ENV}.zip", tmp_path / "bare.zip"))


@pytest.mark.parametrize("command", ["evaluate", "play", "export", "record"])
def test_a_zip_without_its_statistics_is_refused(bare, capsys, command):
    assert main([command, str(bare), "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert "VecNormalize" in error and "expected vecnormalize.pkl next to the zip" in error


@pytest.mark.parametrize("place", [".", ENV])
def test_a_zip_with_its_statistics_next_to_it_plays_as_the_run(normalized, bare, place):
    (bare.parent / place).mkdir(exist_ok=True)
    shutil.copy(normalized / ENV / "vecnormalize.pkl", bare.parent / place)
    mine, theirs = (find_run(path).evaluate(n_episodes=1) for path in (bare, normalized))
    np.testing.assert_array_equal(mine.task_returns, theirs.task_returns)
    assert mine.info["vec_normalize_sha256"] == theirs.info["vec_normalize_sha256"] is not None
    exported = export_run(find_run(bare), 0, bare.parent / "skills")
    config = yaml.safe_load((exported.stats_path / "config.yml").read_text())
    assert config["normalize"] and (exported.stats_path / "vecnormalize.pkl").is_file()


def test_a_checkpoint_has_its_own_statistics(normalized):
    """Models of 200 and of 240 steps differ as much as the skills."""
    checkpoint = list_checkpoints(normalized / "checkpoints")[200]
    hashes = {find_run(p).evaluated["vec_normalize_sha256"] for p in (normalized, checkpoint)}
    assert len(hashes) == 2 and None not in hashes


def test_a_folder_that_says_otherwise_is_refused(normalized, tmp_path):
    folder = tmp_path / "sac" / normalized.name
    shutil.copytree(normalized, folder)
    config = folder / ENV / "config.yml"
    config.write_text(config.read_text().replace("- normalize", "- frame_stack_"))
    with pytest.raises(ValueError, match="VecNormalize is missing"):
        with find_run(folder).open():
            pass


def test_statistics_of_others_are_not_for_a_model_without(run, normalized, tmp_path):
    model = Path(shutil.copy(run / f"{ENV}.zip", tmp_path))
    shutil.copy(normalized / ENV / "vecnormalize.pkl", tmp_path)
    mine, theirs = (find_run(path).evaluate(n_episodes=1) for path in (model, run))
    np.testing.assert_array_equal(mine.task_returns, theirs.task_returns)
    old = find_run(model)
    del old.state["vec_normalize"]  # as version 0.1.0 wrote it
    with pytest.warns(UserWarning, match=r"does not say whether.*vecnormalize.pkl is not used"):
        old.make_env().close()


# -- export ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_skill_that_is_not_finite_is_not_exported(run, tmp_path, monkeypatch, value):
    load = Run.load_model

    def spoiled(self: Run, **kwargs: object):
        model = load(self, **kwargs)
        with th.no_grad():
            model.policy.actor.mu.bias[0] = value
        return model

    monkeypatch.setattr(Run, "load_model", spoiled)
    with pytest.raises(ValueError, match=rf"policy.actor.mu.bias\[0\]={value} is not finite"):
        export_run(find_run(run), 0, tmp_path)
    assert not list(tmp_path.rglob("*.zip"))


# -- the best models of evaluations ------------------------------------------------------------

BEST = """
Pendulum-v1:
  policy: MlpPolicy
  n_timesteps: 300
  n_envs: 2
  learning_starts: 50
  normalize: "{'norm_obs': True, 'norm_reward': False}"
  policy_kwargs: "dict(net_arch=[16])"
  env_kwargs: {g: 2.0, max_episode_steps: 41}
  env_wrapper:
    - sb3_diayn.DIAYNWrapper: {n_skills: 3}
  callback:
    - sb3_diayn.DIAYNCallback: {net_arch: [16]}
    - sb3_diayn.SkillEvaluationCallback: {eval_freq: 100, save_path: auto}
"""


@pytest.fixture(scope="module")
def best(tmp_path_factory) -> Path:
    """The best model of a run with statistics and arguments of its environment."""
    folder = tmp_path_factory.mktemp("best")
    (folder / "best.yml").write_text(BEST)
    run = train(ENV, conf_file=folder / "best.yml", seed=0, log_folder=folder, device="cpu")
    return run / "skills" / "best_model.zip"


def test_the_best_model_plays_as_its_run(best):
    found, run = find_run(best), find_run(best.parents[1])
    assert found.model_path == best and found.folder == run.folder
    assert found.env_kwargs == run.env_kwargs == {"g": 2.0, "max_episode_steps": 41}
    assert found.hyperparams == run.hyperparams
    assert found.statistics_file == best.parent / "vecnormalize.pkl" != run.statistics_file
    assert (found.evaluate(n_episodes=1, device="cpu").lengths == 41).all()


def test_the_best_model_is_not_resumed_with_new_statistics(best, tmp_path):
    with pytest.raises(ValueError, match="no statistics of VecNormalize where a training in Pend"):
        train(resume=best, n_timesteps=20, log_folder=tmp_path, device="cpu")
    place = best.parent / ENV
    place.mkdir()
    shutil.copy(best.parent / "vecnormalize.pkl", place)
    with pytest.raises(ValueError, match=f"in {OTHER_ENV} looks for them.*without --env"):
        train(OTHER_ENV, resume=best.parents[1], log_folder=tmp_path, device="cpu")
    again = find_run(train(resume=best, n_timesteps=20, log_folder=tmp_path, device="cpu"))
    assert again.env_kwargs["g"] == 2.0
    shutil.rmtree(place)


@pytest.mark.parametrize("kept", [False, True])
def test_a_resumed_run_saves_its_replay_buffer_if_it_did(run, monkeypatch, kept):
    resumed = find_run(run)
    monkeypatch.setitem(resumed.saved_options, "save_replay_buffer", kept)
    assert complete(TrainingOptions(), resumed)[0].save_replay_buffer is kept
