"""``VecDIAYNWrapper`` named in a file of the zoo: trained, evaluated, reported on and played."""

import sys

import pytest
import yaml

pytest.importorskip("rl_zoo3")

from sb3_diayn import VecDIAYNWrapper, evaluate_skills, load_discriminator
from sb3_diayn.cli import main
from sb3_diayn.zoo.downstream import without_skills
from sb3_diayn.zoo.finding import find_run
from tests.helpers.figures import leave_undrawn

pytestmark = pytest.mark.slow

ENV = "Pendulum-v1"
ENTRY = {
    "policy": "MlpPolicy",
    "n_timesteps": 128,
    "n_envs": 2,
    "n_steps": 32,
    "batch_size": 32,
    "n_epochs": 1,
    "normalize": {"norm_reward": False},
    "vec_env_wrapper": [{"sb3_diayn.VecDIAYNWrapper": {"n_skills": 9, "skill": "balanced"}}],
    "callback": [{"sb3_diayn.DIAYNCallback": {"net_arch": [8]}}],
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")
    config = folder / "ppo.yml"
    config.write_text(yaml.safe_dump({ENV: ENTRY}))
    options = ["--conf-file", str(config), "-f", str(folder), "--seed", "1", "--no-progress"]
    options += ["--eval-freq", "-1", "--episodes", "1", "--device", "cpu", "--n-skills", "3"]
    options += ["--hyperparams", "VecDIAYNWrapper.skill_duration:50"]
    options += ["policy_kwargs:dict(net_arch=[16])", "--film-steps", "2"]
    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        assert main(["train", "--algo", "ppo", "--env", ENV, *options]) == 0
    return folder / "ppo" / f"{ENV}_1"


def test_the_run_is_trained_and_evaluated(run):
    assert load_discriminator(run / f"{ENV}.zip").n_skills == 3
    found = find_run(run)
    assert (run / "report" / "index.html").is_file()
    assert without_skills(found.hyperparams).keys().isdisjoint({"vec_env_wrapper", "callback"})
    env = found.make_env(3)
    assert isinstance(env.venv, VecDIAYNWrapper) and env.skill_duration == 50
    evaluation = evaluate_skills(found.load_model(device="cpu"), env, n_episodes=1)
    assert evaluation.lengths.tolist() == [[200], [200], [200]]


def test_enjoy_plays_the_skill_that_the_variable_names(run, monkeypatch, capsys):
    from rl_zoo3.enjoy import enjoy

    returns = []
    for skill in ("1", "1", "2"):
        words = ["--algo", "ppo", "--env", ENV, "-f", str(run.parents[1]), "--no-render"]
        monkeypatch.setattr(sys, "argv", ["enjoy", *words, "-n", "200", "--seed", "3"])
        monkeypatch.setenv("DIAYN_SKILL", skill)
        enjoy()
        lines = capsys.readouterr().out.splitlines()
        returns.append([line for line in lines if "Episode Reward" in line])
    assert len(returns[0]) == 1
    assert returns[0] == returns[1] != returns[2]
