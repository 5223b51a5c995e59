"""Skills as runs of the zoo: exported, played by its own command, and learned on from."""

import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import yaml
from stable_baselines3 import SAC

pytest.importorskip("rl_zoo3")

from sb3_diayn.cli import main
from sb3_diayn.model_zip import load_state
from sb3_diayn.zoo.downstream import finetune, without_skills
from sb3_diayn.zoo.finding import find_run

ENV = "Pendulum-v1"
K = 3
SMALL = ["learning_starts:100", "n_envs:2", "gradient_steps:1", "buffer_size:1000"]
SMALL += ["policy_kwargs:dict(net_arch=[16])"]
SMALL += ["normalize:{norm_reward: false}", "batch_size:16", "DIAYNWrapper.skill:balanced"]
QUICK = ["--episodes", "1", "--device", "cpu", "--no-progress"]
TUNE = ["-n", "120", "--seed", "3", *QUICK]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with normalised observations, the harder case."""
    logs = tmp_path_factory.mktemp("logs")
    args = ["--env", ENV, "--n-skills", str(K), "-n", "240", "-f", str(logs), "--seed", "1"]
    assert main(["train", *args, "--no-report", "--hyperparams", *SMALL, *QUICK]) == 0
    return logs / "sac" / f"{ENV}_1"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("skills")
    assert main(["export", str(run), "--skill", "all", "-o", str(folder), *QUICK]) == 0
    return folder


def statistics(run):
    return pickle.loads((run / ENV / "vecnormalize.pkl").read_bytes()).obs_rms


@pytest.mark.slow
def test_each_skill_is_a_run_of_the_zoo(run, exported, capsys):
    for skill in range(K):
        folder = exported / "sac" / f"{ENV}_{skill + 1}"
        config = (folder / ENV / "config.yml").read_text()
        assert "diayn" not in config and "learning_starts: 100" in config
        assert yaml.unsafe_load((folder / ENV / "args.yml").read_text())["skill"] == skill
        assert statistics(folder).mean.tolist() == statistics(run).mean[:3].tolist()
        model = SAC.load(folder / f"{ENV}.zip", device="cpu")
        assert model.observation_space.shape == (3,) and model.buffer_size == 1000
    assert {path.name for path in (exported / "sac").iterdir()} == {f"{ENV}_{i}" for i in (1, 2, 3)}


@pytest.mark.slow
def test_an_exported_run_acts_as_the_skill(run, exported):
    source = find_run(run)
    env = source.make_env(seed=5)
    env.env_method("set_skill", 2)
    model = source.load_model(device="cpu")
    skill = SAC.load(exported / "sac" / f"{ENV}_3" / f"{ENV}.zip", device="cpu")
    plain = SAC.load(exported / "sac" / f"{ENV}_1" / f"{ENV}.zip", device="cpu")
    obs, differs = env.reset(), False
    for _ in range(20):
        action = model.predict(obs, deterministic=True)[0]
        assert np.abs(skill.predict(obs[:, :3], deterministic=True)[0] - action).max() <= 1e-6
        differs |= np.abs(plain.predict(obs[:, :3], deterministic=True)[0] - action).max() > 1e-4
        obs, *_ = env.step(action)
    assert differs
    env.close()


@pytest.mark.slow
def test_enjoy_plays_it_where_this_package_is_missing(run, exported, tmp_path):
    """The zoo's own command, in a process where any import of this package fails."""
    blocker = tmp_path / "site" / "sb3_diayn.py"
    blocker.parent.mkdir()
    blocker.write_text("raise ModuleNotFoundError('sb3_diayn is not installed here')")
    words = [sys.executable, "-m", "rl_zoo3.enjoy", "--algo", "sac", "--env", ENV]
    words += ["-f", str(exported), "--exp-id", "2", "--no-render", "-n", "200"]
    env = os.environ | {"PYTHONPATH": str(blocker.parent), "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run(words, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Episode Reward: -" in done.stdout
    assert "Loading running average" in done.stdout


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_finetune(run, tmp_path, capsys):
    args = ["--skill", "1", "-f", str(tmp_path), "--eval-freq", "60", *TUNE]
    assert main(["finetune", str(run), *args]) == 0
    folder = tmp_path / "sac" / f"{ENV}_1"
    output = capsys.readouterr().out
    assert f"Run saved in {folder}" in output
    before, after = re.findall(
        r"^Task return (\w+): -?[\d.]+ \+- 0.0, 1 episodes with deterministic actions$",
        output,
        re.M,
    )
    assert (before, after) == ("before", "after")
    (command,) = re.findall(r"^Play it: (.*)$", output, re.M)
    expected = ["--algo", "sac", "--env", ENV, "-f", str(tmp_path), "--exp-id", "1"]
    assert shlex.split(command) == ["python", "-m", "rl_zoo3.enjoy", *expected]
    config = (folder / ENV / "config.yml").read_text()
    assert "diayn" not in config
    assert dict(yaml.unsafe_load(config))["learning_starts"] == 100
    saved = yaml.unsafe_load((folder / ENV / "args.yml").read_text())
    assert (saved["skill"], saved["reset_critics"], saved["seed"]) == (1, False, 3)
    assert np.load(folder / "evaluations.npz")["timesteps"].tolist() == [60, 120]
    # The statistics continue from the skills' 120 steps, and a reset of two environments.
    assert statistics(folder).mean.shape == (3,)
    assert statistics(folder).count == pytest.approx(statistics(run).count + 122)
    model = SAC.load(folder / f"{ENV}.zip", device="cpu")
    before = SAC.load(run / f"{ENV}.zip", device="cpu")
    assert model._n_updates - before._n_updates == 10  # (120 - 100) / 2: a warm-up, then updates
    assert model.num_timesteps == 120 and not hasattr(model, "diayn_state")


@pytest.mark.slow
def test_finetune_goes_on_from_the_weights_of_the_skill(run, exported, tmp_path):
    """With a learning rate of nearly nothing, the policy stays, and reset critics differ."""
    still = ["--hyperparams", "learning_rate:0.0000000001"]
    for flags in ([], ["--reset-critics"]):
        args = ["--skill", "1", "-f", str(tmp_path / "tuned"), *TUNE, *flags, *still]
        assert main(["finetune", str(run), *args]) == 0
    paths = [exported / "sac" / f"{ENV}_2", *sorted((tmp_path / "tuned" / "sac").iterdir())]
    states = [SAC.load(path / f"{ENV}.zip", device="cpu").policy.state_dict() for path in paths]
    for name in [name for name in states[0] if not name.startswith("critic_target")]:
        value = states[0][name]
        assert value.allclose(states[1][name], atol=1e-5)
        same = value.allclose(states[2][name], atol=1e-5)
        assert same == name.startswith("actor.")


@pytest.mark.slow
def test_the_best_skill_is_measured(run, tmp_path, capsys):
    assert main(["export", str(run), "-o", str(tmp_path), *QUICK]) == 0
    output = capsys.readouterr().out
    assert "has the best task return: -" in output
    best = int(output.split("Skill ")[1].split()[0])
    saved = tmp_path / "sac" / f"{ENV}_1" / ENV / "args.yml"
    assert yaml.unsafe_load(saved.read_text())["skill"] == best


@pytest.mark.slow
def test_a_bare_zip(run, tmp_path):
    zipped = tmp_path / "model.zip"
    zipped.write_bytes((run / f"{ENV}.zip").read_bytes())
    shutil.copy(run / ENV / "vecnormalize.pkl", tmp_path)
    assert load_state(zipped)["env_id"] == ENV
    # Next to it, what has normalised its observations: without, it is refused.
    (tmp_path / "vecnormalize.pkl").write_bytes((run / ENV / "vecnormalize.pkl").read_bytes())
    assert main(["export", str(zipped), "--skill", "1", "-o", str(tmp_path), *QUICK]) == 0
    assert main(["finetune", str(zipped), "--skill", "1", "-f", str(tmp_path), *TUNE]) == 0
    assert SAC.load(tmp_path / "sac" / f"{ENV}_2" / f"{ENV}.zip").num_timesteps == 120
    for number in (1, 2):
        assert statistics(tmp_path / "sac" / f"{ENV}_{number}").mean.shape == (3,)


def test_what_knows_of_skills_is_left_out():
    wrapper, ours = {"sb3_diayn.DIAYNWrapper": {"n_skills": 5}}, "sb3_diayn.DIAYNCallback"
    other = {"gymnasium.wrappers.TimeAwareObservation": {}}
    config = {"env_wrapper": [other, wrapper], "callback": ours, "gamma": 0.9}
    assert without_skills(config) == {"env_wrapper": [other], "gamma": 0.9}
    assert config["callback"] == ours
    displacement = {"sb3_diayn.DisplacementObservation": {"indices": [0]}}
    assert without_skills({"env_wrapper": [displacement, wrapper]}) == {
        "env_wrapper": [displacement]
    }
    assert without_skills({"env_wrapper": "a.B"}) == {"env_wrapper": ["a.B"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("env", "CartPole-v1", "is not the run's; expected '"),
        ("algo", "ppo", "is not the run's; expected 'sac'"),
        ("n_skills", 7, "is for a training of skills"),
        ("conf_file", "ppo", "is for a training of skills"),
        ("keep_checkpoints", 3, "is for a training of skills"),
        ("live", True, "is for a training of skills"),
        ("vec_env", "subprocess", "is not allowed; expected 'dummy', 'subproc' or 'envpool'"),
    ],
)
def test_options_of_another_training(run, tmp_path, name, value, message):
    with pytest.raises(ValueError, match=rf"^{name}={value!r} {message}"):
        finetune(find_run(run), 0, log_folder=tmp_path, **{name: value})
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["export", "--skill", "3"], "skill=3 is not one of the skills; expected an integer"),
        (["export", "--skill", "worst"], "'worst' is not a list of skills; expected indices"),
        (["finetune", "--skill", "0,1"], "skill='0,1' names 2 skills; expected one to start from"),
        (["finetune", "--skill", "0", "--hyperparams", "n_envs:auto"], "n_envs='auto' is for a tr"),
        (["finetune", "--skill", "0", "--hyperparams", "lr:1"], "lr=1 is not a hyperparameter"),
        (["export", "-o", "FILE"], "lies in, a file; expected a folder"),
    ],
)
def test_mistakes(run, tmp_path, capsys, args, message):
    (tmp_path / "FILE").write_text("")
    args = [str(tmp_path / "FILE") if arg == "FILE" else arg for arg in args]
    folder = ["-f", str(tmp_path)] if args[0] == "finetune" else []
    assert main([args[0], str(run), *args[1:], *folder]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("sac/*/*.zip"))
