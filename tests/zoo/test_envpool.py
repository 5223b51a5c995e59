"""EnvPool's simulators in the zoo."""

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec

pytest.importorskip("rl_zoo3")
pytest.importorskip("envpool")

from sb3_diayn import SkillEvaluationCallback
from sb3_diayn.zoo.environments import of_envpool
from sb3_diayn.zoo.finding import find_run
from sb3_diayn.zoo.hyperparams import get_arguments, vectorize_skills
from sb3_diayn.zoo.settings import TrainingOptions, complete
from sb3_diayn.zoo.training import train

SMALL = {"n_envs": 3, "n_steps": 20, "batch_size": 20, "n_epochs": 1}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")
@pytest.mark.parametrize(
    ("algo", "hyperparams"),
    [("ppo", SMALL), ("sac", {"n_envs": 3, "learning_starts": 60, "batch_size": 16})],
)
def test_a_run_in_envpool_is_a_run_as_any_other(tmp_path, algo, hyperparams):
    options = {"algo": algo, "n_skills": 3, "seed": 1, "device": "cpu", "log_folder": tmp_path}
    options["hyperparams"] = hyperparams
    folder = train("Hopper-v5", vec_env="envpool", n_timesteps=120, **options)
    run = find_run(folder)
    assert run.env_id == "Hopper-v5" and "env_wrapper" not in run.hyperparams
    expected = {"n_skills": 3, "skill": "stratified"}
    assert get_arguments(run.hyperparams, "VecDIAYNWrapper") == expected
    monitored = run.load_model().ep_info_buffer
    assert monitored and all(episode["l"] > 1 for episode in monitored)
    evaluation = run.evaluate(n_episodes=2, device="cpu")  # in gymnasium's environment
    assert evaluation.lengths.shape == (3, 2)
    assert complete(TrainingOptions(), run)[0].vec_env == "envpool"  # when it is resumed
    assert complete(TrainingOptions(vec_env="dummy"), run)[0].vec_env == "dummy"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")
def test_skills_are_evaluated_during_a_training_in_envpool(tmp_path):
    evaluating = SkillEvaluationCallback(eval_freq=60, n_envs=3, max_steps=5)
    options = {"algo": "ppo", "n_skills": 3, "seed": 1, "device": "cpu", "log_folder": tmp_path}
    options |= {"vec_env": "envpool", "n_timesteps": 60, "hyperparams": SMALL}
    train("Hopper-v5", callbacks=[evaluating], **options)
    assert [row["num_timesteps"] for row in evaluating.history] == [60]


def test_observations_have_the_bounds_of_gymnasium():
    """EnvPool's own have a lower bound of 1e-38, with which a run could not be evaluated."""
    env = of_envpool("BipedalWalker-v3", None, 0)([None])
    expected = gym.make("BipedalWalker-v3").observation_space
    assert env.observation_space == expected
    env.close()


@pytest.mark.parametrize(
    "env_kwargs", [{"max_episode_steps": 7}, {"frame_skip": 2}, {"post_constraint": False}]
)
def test_arguments_reach_the_copies_or_are_envpools_alone(env_kwargs):
    env = of_envpool("Hopper-v5", env_kwargs, 0)([None])
    spec = env.get_attr("spec")[0]
    if "max_episode_steps" in env_kwargs:
        assert spec.max_episode_steps == 7
    elif "frame_skip" in env_kwargs:
        assert spec.kwargs["frame_skip"] == 2
    else:
        assert not isinstance(spec, EnvSpec)
    env.close()


def test_arguments_of_the_file_reach_the_simulators():
    """EnvPool makes its environments by itself, and knows of no file."""
    options = {"algo": "ppo", "conf_file": "ppo_travel", "vec_env": "envpool"}
    found = [
        complete(TrainingOptions(env="HalfCheetah-v5", env_kwargs=given, **options))[0].env_kwargs
        for given in (None, {"max_episode_steps": 7})
    ]
    assert found == [{"max_episode_steps": 200}, {"max_episode_steps": 7}]
    env = of_envpool("HalfCheetah-v5", found[0], 0)([None])
    assert env.get_attr("spec")[0].max_episode_steps == 200
    env.close()


def test_what_envpool_does_not_have(tmp_path):
    with pytest.raises(ValueError, match=r"env='sb3_diayn/PointBox-v0' is not in EnvPool"):
        train("sb3_diayn/PointBox-v0", algo="ppo", vec_env="envpool", log_folder=tmp_path)


def test_skills_move_to_the_wrapper_of_all_environments():
    hyperparams = {
        "n_envs": 2,
        "env_wrapper": [{"sb3_diayn.DIAYNWrapper": {"n_skills": 5}}],
        "vec_env_wrapper": ["package.Outer"],
    }
    assert vectorize_skills(hyperparams) == {
        "n_envs": 2,
        "vec_env_wrapper": [
            {"sb3_diayn.VecDIAYNWrapper": {"n_skills": 5}},
            {"package.Outer": {}},
        ],
    }
    assert vectorize_skills({"n_envs": 2}) == {"n_envs": 2}


def test_wrappers_of_single_environments_are_refused():
    hyperparams = {"env_wrapper": ["sb3_diayn.DIAYNWrapper", "package.Inner"]}
    with pytest.raises(ValueError, match=r"env_wrapper='package.Inner' wraps single"):
        vectorize_skills(hyperparams)
