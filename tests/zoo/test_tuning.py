"""The zoo's search for hyperparameters, judged by the skills."""

import math
import subprocess
import sys
from contextlib import nullcontext

import pandas as pd
import pytest
import yaml

pytest.importorskip("rl_zoo3")

import optuna
from optuna.trial import TrialState
from stable_baselines3 import SAC

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.cli import main
from sb3_diayn.zoo.hyperparams import override
from sb3_diayn.zoo.tuning import TrialCallback, check_space, sample
from tests.helpers.envs import CountingEnv
from tests.helpers.models import counting, make_sac

# The zoo asks Optuna for a sampler that is still experimental.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

ENV = "Pendulum-v1"
K = 3
ALGORITHMS = ["sac", "tqc", "td3", "ddpg", "dqn", "qrdqn", "ppo", "a2c", "trpo", "ppo_lstm"]


def words(folder, n_trials):
    args = ["tune", "--env", ENV, "--n-skills", str(K), "-n", "240", "--n-evaluations", "2"]
    args += ["--storage", f"sqlite:///{(folder / 'x.db').as_posix()}", "--study-name", "s"]
    args += ["-f", str(folder), "--device", "cpu", "--n-trials", str(n_trials), "--n-envs", "4"]
    args += ["--env-kwargs", "g:9.8"]
    return [*args, "--hyperparams", "learning_starts:200", "train_freq:4"]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two trials of this process, and one of another that joins the study."""
    folder = tmp_path_factory.mktemp("study")
    assert main(words(folder, 2)) == 0
    command = [sys.executable, "-m", "sb3_diayn.cli", *words(folder, 1)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    storage = f"sqlite:///{(folder / 'x.db').as_posix()}"
    return optuna.load_study(study_name="s", storage=storage), folder, done.stdout


@pytest.mark.slow
def test_two_processes_share_a_study(study):
    assert [trial.number for trial in study[0].trials] == [0, 1, 2]
    assert study[0].direction == optuna.study.StudyDirection.MAXIMIZE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--n-skills", "5"], "'n_skills': 5"),
        (["-n", "480"], "{'n_timesteps': 480}"),
        (["--episodes", "3"], "{'n_episodes': 3}"),
        (["--hyperparams", "gamma:0.9"], "'pinned'"),
    ],
)
def test_a_study_of_other_trainings_is_not_joined(study, capsys, option, named):
    known, folder, _ = study
    assert main([*words(folder, 1), *option]) == 2
    message = capsys.readouterr().err
    assert "study_name='s' holds trials with" in message and named in message
    assert "Choose another --study-name" in message
    assert len(known.trials) == 3


@pytest.mark.slow
def test_a_trial_is_worth_the_held_out_bound_of_its_last_evaluation(study):
    complete = [trial for trial in study[0].trials if trial.state == TrialState.COMPLETE]
    assert complete
    for trial in complete:
        assert list(trial.intermediate_values) == [1, 2]
        assert trial.value == trial.intermediate_values[2] <= math.log(K)
        measured = trial.user_attrs
        assert measured["held_out_bound"] == trial.value
        assert measured["discriminator_bound"] != trial.value
        assert (
            measured["task_return_mean"] <= measured["task_return_best"] < 0 < measured["coverage"]
        )


@pytest.mark.slow
def test_the_best_hyperparameters_are_a_configuration(study):
    best, folder, output = study
    file = folder / "sac" / "s_best.yml"
    assert f"--conf-file {file}" in output
    entry = yaml.safe_load(file.read_text())[ENV]
    assert entry["env_kwargs"] == {"g": 9.8}  # or it would be trained in another environment
    assert entry["learning_rate"] == best.best_trial.params["learning_rate"]
    assert entry["ent_coef"] == best.best_trial.params["ent_coef"]
    assert (entry["n_envs"], entry["learning_starts"], entry["train_freq"]) == (4, 200, 4)
    assert entry["env_wrapper"] == [
        {"sb3_diayn.DIAYNWrapper": {"n_skills": K, "skill": "balanced"}}
    ]
    ((_, options),) = entry["callback"][0].items()
    assert options["learning_rate"] == best.best_trial.params["discriminator_learning_rate"]


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_what_is_sampled_fits_into_a_configuration(algo):
    trial = optuna.create_study().ask()
    sampled = sample(trial, algo, 2, {"gamma": 0.5})
    entry = override(algo, {}, sampled)
    assert yaml.safe_load(yaml.safe_dump(entry)) == entry
    assert entry["gamma"] == 0.5
    assert eval(entry["policy_kwargs"], {"nn": __import__("torch").nn})["net_arch"]
    again = sample(optuna.trial.FixedTrial(trial.params), algo, 2, {"gamma": 0.5})
    assert again == sampled


def test_updates_follow_the_environments():
    params = {"n_envs": 8, "train_freq": 2, "updates_per_step": 0.25, "net_arch": "small"}
    params |= {"one_minus_gamma": 0.01, "batch_size_pow": 8, "learning_rate": 1e-3, "tau": 0.005}
    params |= {"ent_coef": 0.1, "discriminator_learning_rate": 1e-3}
    params |= {"discriminator_net_arch": "small", "discriminator_normalize_obs": False}
    sampled = sample(optuna.trial.FixedTrial(params), "sac", 1, {})
    assert sampled["gradient_steps"] == 4  # a quarter of 2 x 8 steps


def test_a_space_narrows_the_search():
    space = {"n_envs": (8, 20), "batch_size_pow": (6, 8), "tau": (0.01,), "net_arch": ("small",)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        study.tell(trial := study.ask(), len(sample(trial, "sac", 1, {}, space)))
    asked = pd.DataFrame([trial.params for trial in study.trials])
    assert set(asked["n_envs"]) == {8, 20} and set(asked["net_arch"]) == {"small"}
    assert set(asked["batch_size_pow"]) == {6, 7, 8} and set(asked["tau"]) == {0.01}
    assert asked["learning_rate"].min() < 1e-4 and asked["discriminator_net_arch"].nunique() == 3


def test_what_is_pinned_is_not_asked_for():
    """So that the sampler does not learn from numbers without effect."""
    pinned = {"gamma": 0.9, "batch_size": 64, "learning_rate": "lin_1e-3", "train_freq": 4}
    pinned |= {"policy_kwargs": "dict(net_arch=[8])", "DIAYNCallback.net_arch": [8], "n_envs": 2}
    trial = optuna.create_study().ask()
    sampled = sample(trial, "sac", 1, pinned, {"updates_per_step": (0.5,)})
    assert set(trial.params) == {
        *("tau", "ent_coef", "updates_per_step"),
        *("discriminator_learning_rate", "discriminator_normalize_obs"),
    }
    assert sampled["gradient_steps"] == 4  # half of the pinned 4 x 2 steps
    assert {name: sampled[name] for name in pinned} == pinned


@pytest.mark.slow
@pytest.mark.parametrize("algo", ALGORITHMS)
def test_all_that_is_searched_can_be_narrowed_to_what_it_was(algo):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):  # among them the ends of small ranges
        trial = study.ask()
        sample(trial, algo, 2, {})
        space = {name: [value] for name, value in trial.params.items()}
        check_space(algo, {}, space)
        again = optuna.create_study().ask()
        sample(again, algo, 2, {}, space)
        assert again.params == trial.params


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (["gammma=0.9"], "space='gammma' is not searched here; expected one of"),
        (["n_envs=8"], "space='n_envs' is not searched here"),  # the command line pins it
        (["tau=0.1,0.2,0.3"], "expected one positive number, or the two ends"),
        (["learning_rate=-1e-3,1e-3"], "expected one positive number, or the two ends"),
        (["batch_size_pow=6.5,8"], "expected one positive integer, or the two ends"),
        (
            ["net_arch=tiny"],
            "does not fit: 'tiny' not in ('small', 'medium', 'big')",
        ),
        (["updates_per_step=0"], "expected positive numbers"),
        (
            ["top_quantiles_to_drop_per_net=-1", "--algo", "tqc"],
            "expected one non-negative integer, or the two ends",
        ),
        (
            ["discriminator_normalize_obs=2"],
            "does not fit: '2' not in (False, True)",
        ),
        (["tau"], "'tau' is not of the form key=value,value"),
    ],
)
def test_a_space_that_does_not_fit(space, message, tmp_path, capsys):
    with pytest.raises(SystemExit) if "form" in message else nullcontext():
        assert main([*words(tmp_path, 1), "--space", *space]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_pruned_trial_ends():
    class Trial:
        def __init__(self):
            self.reports, self.attributes = [], {}

        def set_user_attr(self, name, value):
            self.attributes[name] = value

        def report(self, value, step):
            self.reports.append((value, step))

        def should_prune(self):
            return len(self.reports) == 2

    trial = Trial()
    env = DIAYNWrapper(CountingEnv(), 3)
    callback = TrialCallback(trial, eval_env=env, eval_freq=10)
    model = make_sac(counting())
    model.learn(100, callback=[DIAYNCallback(net_arch=(8,)), callback])
    assert model.num_timesteps == 20 and callback.is_pruned
    assert [step for _, step in trial.reports] == [1, 2]
    assert trial.reports[1][0] == callback.last_evaluation.held_out_bound
    assert trial.attributes == callback.history[-1]


def test_one_episode_is_too_few_for_a_trial(tmp_path, capsys):
    assert main([*words(tmp_path, 1), "--episodes", "1"]) == 2
    assert "n_episodes=1 leaves no episode" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_algorithm_without_a_search_space(tmp_path, capsys):
    assert main(["tune", "--env", ENV, "--algo", "crossq", "-f", str(tmp_path)]) == 2
    assert "algo='crossq' cannot be searched; expected one of" in capsys.readouterr().err


@pytest.mark.parametrize("interrupt", [True, False])
def test_a_study_without_a_complete_trial(tmp_path, monkeypatch, capsys, interrupt):
    """Ctrl-C in the first trial, which the zoo catches, or a trial that is pruned."""

    def learn(*args, **kwargs):
        raise KeyboardInterrupt if interrupt else ValueError("not finite")

    monkeypatch.setattr(SAC, "learn", learn)
    assert main(words(tmp_path, 1)) == (130 if interrupt else 2)
    out, err = capsys.readouterr()
    if interrupt:
        assert "x.db. The same command continues it." in out and "Interrupted." in err
    else:
        assert "study_name='s' has no complete trial" in err
        assert "The last one failed with: not finite" in err
    assert not list(tmp_path.glob("*_best.yml"))
