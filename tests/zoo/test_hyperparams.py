"""A file of hyperparameters that is wrong: what the command says, and never a traceback."""

import copy
import math
import warnings

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("rl_zoo3")

from sb3_diayn import DIAYNCallback
from sb3_diayn.cli import main
from sb3_diayn.zoo.hyperparams import (
    PPO_BY_DEFAULT,
    config_path,
    default_algo,
    get_arguments,
    override,
    read_config,
    read_entry,
    set_argument,
)
from tests.helpers.envs import CountingEnv
from tests.helpers.models import make_sac

ENV = "Pendulum-v1"
WRAPPER, CALLBACK = "sb3_diayn.DIAYNWrapper", "sb3_diayn.DIAYNCallback"
RIGHT = {
    "n_timesteps": 40,
    "policy": "MlpPolicy",
    "learning_rate": "lin_0.001",
    "learning_starts": 20,
    "batch_size": 8,
    "buffer_size": 200,
    "train_freq": [1, "step"],
    "policy_kwargs": "dict(net_arch=[8])",
    "env_wrapper": [{WRAPPER: {"n_skills": 3}}],
    "callback": [CALLBACK],
}


def write(folder, content):
    file = folder / "sac.yml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return file


def read(file, **options):
    return read_config("sac", ENV, conf_file=file, **options)


def test_a_right_file_is_read_as_it_is(tmp_path):
    assert read(write(tmp_path, {ENV: RIGHT})) == RIGHT
    assert read(write(tmp_path, {"default": RIGHT | {"callback": CALLBACK}}))["batch_size"] == 8


def test_a_file_may_hold_any_letter(tmp_path):
    content = f"# größer, 大\n{yaml.safe_dump({ENV: RIGHT})}"
    assert read(write(tmp_path, content)) == RIGHT


FILES = [
    ("a: [1,", r"conf_file=.* cannot be read .*expected YAML like the file that `sb3-diayn c"),
    ("a:\n\t- b", "cannot be read"),
    ("\0", "cannot be read"),
    *((text, f"env='{ENV}' is not in .*expected an entry .*Add one") for text in ("", "5", "- 1")),
    *(({ENV: entry}, "with hyperparameters below. Add one") for entry in (None, {}, [1], "x")),
]


@pytest.mark.parametrize(("content", "match"), FILES)
def test_files_that_are_none(tmp_path, content, match):
    with pytest.raises(ValueError, match=f"(?s){match}"):
        read(write(tmp_path, content))


NO_VALUE = "={} has the wrong type; expected {}.* Correct it"
TOO_SMALL = "={} is too small; expected at least 1. Raise it"
NO_CLASS = "={} names no class; expected package.Class, or .*Write it like the provided files"
VALUES = [
    ("learnig_rate", 1.0, "=1.0 is not a hyperparameter of sac; expected one of .*Leave it out"),
    (5, 1, "=1 is not a hyperparameter"),
    ("n_timesteps", "many", NO_VALUE.format("'many'", "float")),
    ("n_timesteps", None, NO_VALUE.format("None", "float")),
    ("n_timesteps", -4, TOO_SMALL.format("-4")),
    ("n_envs", 1.5, NO_VALUE.format("1.5", "int")),
    ("n_envs", 0, TOO_SMALL.format("0")),
    ("learning_rate", "fast", NO_VALUE.format("'fast'", "float.*lin_NUMBER")),
    ("learning_rate", "1e-4", ".*YAML takes 1e-4 for a word: write 0.0001 with a point"),
    ("learning_rate", None, NO_VALUE.format("None", "float.*lin_NUMBER")),
    ("batch_size", 2.5, NO_VALUE.format("2.5", "int")),
    ("batch_size", True, NO_VALUE.format("True", "int")),
    ("batch_size", 0, TOO_SMALL.format("0")),
    ("buffer_size", -5, TOO_SMALL.format("-5")),
    ("learning_starts", "x", NO_VALUE.format("'x'", "int")),
    ("gradient_steps", "x", NO_VALUE.format("'x'", "int")),
    ("train_freq", 0, TOO_SMALL.format("0")),
    ("train_freq", "x", NO_VALUE.format("'x'", r"int.*tuple\[int, str\]")),
    ("target_update_interval", 0, TOO_SMALL.format("0")),
    ("gamma", "x", NO_VALUE.format("'x'", "float")),
    ("tau", None, NO_VALUE.format("None", "float")),
    ("ent_coef", [1], NO_VALUE.format(r"\[1\]", "(str.*float|float.*str)")),
    ("use_sde", "no", NO_VALUE.format("'no'", "bool")),
    ("policy", 5, NO_VALUE.format("5", "str.*SACPolicy")),
    ("policy_kwargs", 5, NO_VALUE.format("5", ".*dict")),
    ("callback", None, "=None is missing; expected .*DIAYNCallback.* in the file. Add it"),
    ("callback", 5, NO_CLASS.format("5")),
    ("callback", [5], NO_CLASS.format("5")),
    ("callback", [{CALLBACK: None}], NO_CLASS.format(".*")),
    ("callback", [{CALLBACK: {}, "hold": 1}], NO_CLASS.format(".*")),
    ("callback", [{5: {}}], NO_CLASS.format(".*")),
    ("env_wrapper", {WRAPPER: [3]}, NO_CLASS.format(".*")),
    ("env_wrapper", "x", NO_CLASS.format("'x'")),
    ("env_wrapper", "a..b", NO_CLASS.format("'a..b'")),
    ("vec_env_wrapper", 5, NO_CLASS.format("5")),
]


@pytest.mark.parametrize(("name", "value", "match"), VALUES)
def test_values_that_are_none(tmp_path, name, value, match):
    with pytest.raises(ValueError, match=f"(?s)^{name}{match}"):
        read(write(tmp_path, {ENV: RIGHT | {name: value}}))


def test_values_on_the_command_line_are_looked_at_too(tmp_path):
    with pytest.raises(ValueError, match=r"^batch_size=-1 is too small"):
        read(write(tmp_path, {ENV: RIGHT}), hyperparams={"batch_size": -1})


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
flat = st.lists(scalars, max_size=3) | st.dictionaries(st.text(max_size=4), scalars, max_size=3)
nested = st.lists(flat, max_size=2) | st.dictionaries(st.text(max_size=4), flat, max_size=2)
anything = scalars | flat | nested


@pytest.mark.slow
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([*RIGHT, "n_envs", "ent_coef", "normalize", "noise_type"]), anything)
def test_any_value_of_any_name_is_taken_or_refused(tmp_path, name, value):
    entry = copy.deepcopy(RIGHT) | {name: value}
    try:
        assert read(write(tmp_path, {ENV: entry})).keys() == entry.keys()
    except ValueError as error:
        assert "expected" in str(error)


# What only the zoo or SB3 can tell, when they build something.
BUILT = [
    ({"policy_kwargs": "dict(net_arch="}, "SyntaxError"),
    ({"policy_kwargs": "dict(net_arc=[8])"}, "unexpected keyword argument 'net_arc'"),
    ({"replay_buffer_class": "Nope"}, "NameError: name 'Nope' is not defined"),
    ({"buffer_size": 10**15}, "cannot train on Pendulum-v1: "),
    ({"noise_type": "pink", "noise_std": 0.1}, 'Unknown noise type "pink"'),
    ({"env_kwargs": {"nope": 1}}, "unexpected keyword argument 'nope'"),
    ({"callback": ["sb3_diayn.Nope"]}, "no attribute 'Nope'"),
    ({"callback": ["nopackage.Nope"]}, "callback='nopackage.Nope' cannot be imported"),
    ({"env_wrapper": "sb3_diayn.Nope"}, "env_wrapper='sb3_diayn.Nope' cannot be imported"),
    ({"callback": [{CALLBACK: {"nope": 2}}]}, "unexpected keyword argument 'nope'"),
    ({"callback": [{CALLBACK: {"n_updates": "x"}}]}, "n_updates='x' is not allowed"),
    ({"env_wrapper": [{WRAPPER: {"n_skills": "x"}}]}, "n_skills='x' is not a number of skills"),
    # refused in ``learn``, after which the zoo tells its callbacks that the training has ended
    ({"env_wrapper": None}, "env has no DIAYNWrapper"),
    ({"normalize": True}, "norm_reward=True"),
    ({"callback": [{CALLBACK: {"obs_indices": "9:20"}}]}, "does not choose coordinates"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("change", "expected"), BUILT)
def test_what_cannot_be_built(tmp_path, capsys, change, expected):
    file = write(tmp_path, {ENV: RIGHT | change})
    args = ["--seed", "1", "--device", "cpu", "-f", str(tmp_path), "--no-progress", "--no-report"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert main(["train", "--env", ENV, "--conf-file", str(file), *args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and expected in error


def test_the_place_of_an_error_is_shown_to_those_who_ask(tmp_path, capsys):
    file = write(tmp_path, {ENV: RIGHT | {"policy_kwargs": "nope"}})
    args = ["train", "--env", ENV, "--conf-file", str(file), "-f", str(tmp_path), "--verbose", "1"]
    assert main(args) == 2
    error = capsys.readouterr().err
    assert "Traceback" in error and "error: sac cannot train" in error


def test_the_end_of_a_training_that_never_began():
    """The zoo calls this after a refusal, whose message must not be lost."""
    model, callback = make_sac(CountingEnv()), DIAYNCallback()
    with pytest.raises(ValueError, match="env has no DIAYNWrapper"):
        model.learn(5, callback=callback)
    callback.on_training_end()


def test_none_takes_the_place_of_a_value():
    entry = {"callback": [{"sb3_diayn.DIAYNCallback": {"log_q_min": -3.0, "net_arch": [8]}}]}
    changed = override("sac", entry, {"DIAYNCallback.log_q_min": None})
    assert changed["callback"] == [
        {"sb3_diayn.DIAYNCallback": {"log_q_min": None, "net_arch": [8]}}
    ]


def test_without_file_and_algorithm_the_environment_chooses_it():
    assert default_algo(None, "MountainCarContinuous-v0") == "ppo"
    assert default_algo(None, "package:MountainCarContinuous-v0") == "ppo"
    assert default_algo(None, "Hopper-v5") == "sac"
    assert default_algo(None, "Own-v0") == "sac"
    assert default_algo("original-code", "MountainCarContinuous-v0") == "sac"
    assert default_algo("ppo_metra", "HalfCheetah-v5") == "ppo"
    assert default_algo(config_path("ppo_travel"), "HalfCheetah-v5") == "ppo"


@pytest.mark.parametrize(("algo", "conf_file"), [("sac", "ppo_travel"), ("ppo", "paper")])
def test_a_file_of_another_kind_of_algorithm_is_refused(algo, conf_file):
    with pytest.raises(
        ValueError, match=r"has hyperparameters of (ppo|sac), not of .*Leave --algo"
    ):
        read_config(algo, "HalfCheetah-v5", conf_file=conf_file)


def test_a_name_of_no_provided_file():
    with pytest.raises(
        ValueError, match=r"conf_file='ppo_travl' is not .* Did you mean ppo_travel"
    ):
        read_config("ppo", "HalfCheetah-v5", conf_file="ppo_travl")
    for env_id in PPO_BY_DEFAULT:
        assert read_entry(config_path("ppo"), env_id)["n_envs"] % 20 == 0


@pytest.mark.parametrize(
    ("n_skills", "n_envs", "updates", "train_freq"),
    [(20, 60, 2, 1), (50, 150, 5, 1), (10, 30, 1, 1), (5, 15, 1, 2), (7, 21, 7, 10), (2, 6, 1, 5)],
)
def test_what_depends_on_the_number_of_skills_follows_it(n_skills, n_envs, updates, train_freq):
    """There are 30 steps per update, whatever K is."""
    entry = read_config("sac", "Hopper-v5", n_skills=n_skills)
    assert (entry["n_envs"], entry["gradient_steps"]) == (n_envs, updates)
    assert entry.get("train_freq", 1) == train_freq
    bound = get_arguments(entry, "DIAYNCallback")["log_q_min"]
    assert bound == pytest.approx(-math.log(n_skills), abs=0.05)


@pytest.mark.parametrize(
    ("n_skills", "n_envs"), [(20, 40), (50, 100), (100, 200), (10, 40), (7, 42), (5, 40), (2, 40)]
)
def test_rollouts_keep_their_size_if_each_skill_has_two_environments(n_skills, n_envs):
    assert read_config("ppo", "Hopper-v5", n_skills=n_skills)["n_envs"] == n_envs


def test_a_rollout_of_one_environment_for_each_skill(tmp_path):
    wrapper = {WRAPPER: {"n_skills": 20, "skill": "stratified"}}
    entry = {"n_envs": 20, "n_timesteps": 40, "env_wrapper": [wrapper], "callback": [CALLBACK]}
    file = write(tmp_path, {ENV: entry | {"policy": "MlpPolicy"}})
    assert read_config("ppo", ENV, conf_file=file, n_skills=50)["n_envs"] == 50


@pytest.mark.parametrize("given", [{"gradient_steps": 1}, {"train_freq": 1}])
def test_updates_that_are_given_are_not_scaled(given):
    entry = read_config("sac", "Hopper-v5", n_skills=5, hyperparams=given)
    assert {"gradient_steps": 2, "train_freq": 1} | given == {
        name: entry.get(name, 1) for name in ("gradient_steps", "train_freq")
    }


@pytest.mark.parametrize("n_skills", [1, 0, -3])
def test_a_number_of_skills_that_is_none(n_skills):
    with pytest.raises(ValueError, match=rf"n_skills={n_skills} is not a number of skills; exp"):
        read_config("sac", "Hopper-v5", n_skills=n_skills)


def test_stratified_skills_without_a_number_of_environments(tmp_path):
    wrapper = {WRAPPER: {"n_skills": 20, "skill": "stratified"}}
    file = write(tmp_path, {ENV: RIGHT | {"env_wrapper": [wrapper]}})
    assert read(file, n_skills=10)["n_envs"] == 10


def test_another_bound_or_rule_does_not_follow_the_number_of_skills(tmp_path):
    entry = read_entry(config_path("sac"), "Hopper-v5")
    entry = set_argument(entry, "DIAYNCallback", "log_q_min", -6.0)
    entry = set_argument(entry, "DIAYNWrapper", "skill", "balanced")
    file = tmp_path / "own.yml"
    file.write_text(yaml.safe_dump({"Hopper-v5": entry}))
    entry = read_config("sac", "Hopper-v5", conf_file=file, n_skills=50)
    assert (entry["n_envs"], entry["gradient_steps"]) == (60, 2)
    assert get_arguments(entry, "DIAYNCallback")["log_q_min"] == -6.0


def test_tqc_has_the_configurations_of_sac():
    assert config_path("tqc") == config_path("sac")
    assert read_entry(config_path("tqc"), "Hopper-v5")["n_envs"] == 60
