"""Uploads to the Hugging Face hub, without a network: what is uploaded loads again."""

import shutil

import gymnasium as gym
import numpy as np
import pytest
import requests
import yaml
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

pytest.importorskip("rl_zoo3")
pytest.importorskip("huggingface_hub")
pytest.importorskip("matplotlib")

from huggingface_hub import EvalResult, HfApi, ModelCard
from huggingface_hub.errors import RemoteEntryNotFoundError

from sb3_diayn import DIAYNWrapper
from sb3_diayn.cli import main
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.zoo import find_run, sharing
from tests.helpers.figures import leave_undrawn
from tests.helpers.models import make_callback, make_sac
from tests.helpers.runs import ENV, NAME, QUICK, make_run

pytestmark = pytest.mark.usefixtures("undrawn_figures")

REPO = "somebody/point-skills"
MODEL = f"sac-{NAME}.zip"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folder of a tiny run with normalised observations and arguments of the environment."""
    return make_run(tmp_path_factory.mktemp("logs"))


class Hub:
    """What has been asked of the hub, and a copy of what was uploaded."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []

    def install(self, monkeypatch):
        monkeypatch.setattr(HfApi, "whoami", lambda api: self.asked.append(("whoami", api.token)))
        monkeypatch.setattr(HfApi, "create_repo", self.create)
        monkeypatch.setattr(HfApi, "upload_folder", self.upload)
        monkeypatch.setattr(sharing, "get_token", lambda: "hf_logged_in")
        return self

    def create(self, repo_id, **options):
        self.asked.append(("create", repo_id, options))
        return f"https://huggingface.co/{repo_id}"

    def upload(self, *, repo_id, folder_path, commit_message):
        self.asked.append(("upload", repo_id, commit_message))
        shutil.copytree(folder_path, self.folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    return Hub(tmp_path / "point-skills").install(monkeypatch)


def push(run, *words):
    return main(["push", str(run), "--repo-id", REPO, *QUICK, *words])


# -- what is uploaded ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uploaded(run, tmp_path_factory):
    """A download of the run, what the hub was asked, and what the command printed."""
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        hub = Hub(tmp_path_factory.mktemp("download") / "point-skills").install(patch)
        assert push(run, "--no-films", "--private", "--commit-message", "First") == 0
    return hub


@pytest.mark.slow
def test_the_hub_is_asked_for_what_was_wanted(uploaded):
    create = ("create", REPO, {"private": True, "exist_ok": True})
    assert uploaded.asked == [("whoami", None), create, ("upload", REPO, "First")]


@pytest.mark.slow
def test_stock_sb3_loads_what_was_uploaded(uploaded, run):
    """With the statistics of VecNormalize next to it."""
    loaded = SAC.load(uploaded.folder / MODEL, device="cpu")
    original = SAC.load(run / f"{NAME}.zip", device="cpu")
    obs = np.full((1, 4), 0.5, np.float32)
    actions = [model.predict(obs, deterministic=True)[0] for model in (loaded, original)]
    assert (actions[0] == actions[1]).all()
    assert (uploaded.folder / "vec_normalize.pkl").read_bytes() == (
        run / NAME / "vecnormalize.pkl"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("place", [".", MODEL])
def test_our_commands_play_what_was_uploaded_as_the_run_itself(uploaded, run, place, capsys):
    """In episodes of 6 steps, as an argument of the environment says."""
    words = ["--skill", "1", "--device", "cpu"]
    assert main(["play", str(run), *words]) == 0
    expected = capsys.readouterr().out
    assert main(["play", str(uploaded.folder / place), *words]) == 0
    assert capsys.readouterr().out == expected
    assert expected.endswith(" 6 steps\n")


@pytest.mark.slow
def test_our_report_reads_what_was_uploaded(uploaded, tmp_path):
    words = [*QUICK, "--no-films", "-o", str(tmp_path)]
    assert main(["report", str(uploaded.folder), *words]) == 0
    assert (tmp_path / "index.html").is_file()


def zoo_reads(folder, logs, monkeypatch):
    """Let the zoo download from a folder in place of the hub."""
    from rl_zoo3 import load_from_hub

    def load(repo_id, filename):
        if not (folder / filename).is_file():
            raise requests.exceptions.HTTPError(filename)
        return str(folder / filename)

    monkeypatch.setattr(load_from_hub, "load_from_hub", load)
    name = load_from_hub.EnvironmentName(ENV)
    load_from_hub.download_from_hub("sac", name, 0, str(logs), "somebody", "point-skills")
    return logs / "sac" / f"{NAME}_1"


@pytest.mark.slow
def test_the_zoo_reads_what_was_uploaded(uploaded, run, tmp_path, monkeypatch):
    copy = zoo_reads(uploaded.folder, tmp_path / "logs", monkeypatch)
    for file in (f"{NAME}.zip", f"{NAME}/vecnormalize.pkl", f"{NAME}/config.yml", "0.monitor.csv"):
        assert (copy / file).read_bytes() == (run / file).read_bytes()
    assert find_run(copy).evaluated["vec_normalize_sha256"]
    assert yaml.safe_load((copy / NAME / "env_kwargs.yml").read_text()) == {"max_episode_steps": 6}


def test_the_zoo_takes_an_error_of_the_new_hub_for_no_answer():
    """What the documentation says of models without VecNormalize; if it fails, change that."""
    assert not issubclass(RemoteEntryNotFoundError, requests.exceptions.HTTPError)


@pytest.mark.slow
def test_the_card_has_the_evaluation_as_metrics(uploaded):
    card = ModelCard.load(uploaded.folder / "README.md")
    evaluation = SkillEvaluation.load(uploaded.folder / "evaluation.json")
    best = evaluation.task_returns.mean(axis=1).max()
    results = {result.metric_type: result for result in card.data.eval_results}
    assert isinstance(results["mean_reward"], EvalResult)
    assert results["mean_reward"].metric_value.startswith(f"{best:.2f} +/- ")
    assert results["accuracy"].metric_value == pytest.approx(evaluation.accuracy.mean(), abs=1e-3)
    assert results["accuracy"].dataset_name == ENV
    assert f"hf download {REPO} --local-dir point-skills\nsb3-diayn play point-skills" in card.text
    assert f"Model: {MODEL}" in card.text


@pytest.mark.slow
def test_no_path_of_this_machine_is_in_the_text(uploaded, run):
    for file in ("README.md", "index.html", "evaluation.json"):
        assert str(run.parent) not in (uploaded.folder / file).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_bare_zip_is_uploaded_with_its_statistics(tmp_path, hub):
    env = DummyVecEnv([lambda: DIAYNWrapper(gym.make(ENV, max_episode_steps=6), n_skills=2)])
    env = VecNormalize(env, norm_reward=False)
    model = make_sac(env)
    model.learn(25, callback=make_callback(net_arch=[4]))
    model.save(tmp_path / "bare.zip")
    env.save(str(tmp_path / "vecnormalize.pkl"))
    assert push(tmp_path / "bare.zip", "--no-films") == 0
    assert not (hub.folder / "config.yml").exists()
    assert find_run(hub.folder / MODEL).evaluate(n_episodes=1, device="cpu").n_skills == 2
    card = (hub.folder / "README.md").read_text()
    assert f"sb3-diayn play point-skills/{MODEL} --env {ENV}" in card


@pytest.mark.slow
def test_the_films_of_the_report_are_uploaded_or_new_ones(run, tmp_path, hub, monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    copy = tmp_path / "sac" / run.name
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "report")
    assert push(copy, "--film-steps", "2") == 0
    assert [file.name for file in sorted((hub.folder / "films").glob("*.mp4"))] == [
        "skill_00.mp4",
        "skill_01.mp4",
    ]
    assert (hub.folder / "replay.mp4").is_file()
    (copy / "report").mkdir()
    shutil.copy(hub.folder / "evaluation.json", copy / "report")
    shutil.copytree(hub.folder / "films", copy / "report" / "films")
    (copy / "report" / "films" / "skill_00.mp4").unlink()
    shutil.rmtree(hub.folder)
    assert push(copy) == 0  # as the report has it
    assert [file.name for file in (hub.folder / "films").glob("*.mp4")] == ["skill_01.mp4"]


@pytest.mark.slow
def test_a_dry_run_asks_nobody(run, tmp_path, hub, monkeypatch, capsys):
    monkeypatch.setattr(sharing, "get_token", lambda: None)
    copy = tmp_path / "sac" / run.name
    shutil.copytree(run, copy)
    output = copy / "hub" / "point-skills"
    assert push(copy, "--dry-run", "--no-films") == 0
    assert hub.asked == []
    printed = capsys.readouterr().out
    files = [file for file in output.rglob("*") if file.is_file()]
    assert len(files) > 10
    assert all(f"MB  {file.relative_to(output)}\n" in printed for file in files)
    assert f"Would be uploaded to {REPO}: {output}" in printed
    assert find_run(copy).stats_path == copy / NAME  # the copy of the run is not the run


# -- what goes wrong ---------------------------------------------------------------------------


def sentence(capsys, *words):
    """The sentence with which the command ends."""
    assert main(["push", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("repo_id", ["skills", "a/b/c", "me/", "me/-x", "me/my skills"])
def test_a_wrong_name_of_a_repository_is_refused_before_anything(repo_id, capsys, tmp_path):
    error = sentence(capsys, str(tmp_path), f"--repo-id={repo_id}")
    assert f"repo_id={repo_id!r} is no repository" in error and "expected user/name" in error


@pytest.mark.slow
def test_nobody_is_logged_in(run, capsys, hub, monkeypatch):
    monkeypatch.setattr(sharing, "get_token", lambda: None)
    assert "hf auth login" in sentence(capsys, str(run), "--repo-id", REPO)
    assert hub.asked == []


@pytest.mark.slow
@pytest.mark.parametrize("method", ["whoami", "create_repo", "upload_folder"])
def test_the_hub_does_not_answer(run, capsys, hub, monkeypatch, method):
    """The token is not shown, whatever a library says."""

    def fail(*args, **kwargs):
        raise RuntimeError("no route to host with\nBearer hf_secret or hf_logged_in")

    monkeypatch.setattr(HfApi, method, fail)
    words = [str(run), "--repo-id", REPO, "--token", "hf_secret", "--no-films", *QUICK]
    error = sentence(capsys, *words)
    assert f"repo_id={REPO!r} cannot be uploaded (RuntimeError: no route to host" in error
    assert "hf_secret" not in error and "hf_logged_in" not in error and "--dry-run" in error


def test_a_folder_of_someone_else_is_not_a_run(capsys, tmp_path):
    assert "does not exist" in sentence(capsys, str(tmp_path / "x"), "--repo-id", REPO)
