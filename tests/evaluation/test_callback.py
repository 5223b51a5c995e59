import json
import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnvWrapper,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_diayn import DIAYNWrapper, VecDIAYNWrapper, load_discriminator
from sb3_diayn.evaluation.callback import SkillEvaluationCallback
from sb3_diayn.evaluation.copies import copy_statistics, normalize_like
from sb3_diayn.evaluation.evaluate import evaluate_skills
from tests.helpers.envs import EchoEnv, PointEnv
from tests.helpers.models import make_callback, make_dqn, make_ppo, make_sac
from tests.helpers.scripted import K, point_env, point_vec

ID = "sb3_diayn_tests/PointEnv-v0"
NAMES = {
    "held_out_bound",
    "discriminator_bound",
    "mutual_information",
    "calibration_error",
    "distinct_skills",
    "accuracy",
    "task_return_mean",
    "task_return_best",
    "coverage",
    "sensitivity",
}


def training_env(n_envs: int = 1, **kwargs):
    """As the zoo makes it: Monitor within, DIAYNWrapper outside."""
    return make_vec_env(
        ID,
        n_envs,
        seed=0,
        wrapper_class=DIAYNWrapper,
        wrapper_kwargs={"n_skills": K},
        env_kwargs={"length": 5} | kwargs,
    )


def learn(model, callback, steps=60, others=()):
    return model.learn(steps, callback=[make_callback(), callback, *others])


def parameters(model):
    return [value.clone() for value in model.policy.state_dict().values()]


# -- the training is not disturbed -------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_sac, make_ppo])
@pytest.mark.parametrize("normalize", [False, True])
def test_the_same_parameters_with_and_without(make, normalize):
    def run(*callbacks):
        env = training_env(2)
        env = VecNormalize(env, norm_reward=False) if normalize else env
        model = make(env)
        model.learn(96, callback=[make_callback(), *callbacks])
        return parameters(model), np.random.rand(), th.rand(1)

    plain, watched = run(), run(SkillEvaluationCallback(eval_freq=20, deterministic=False))
    assert all(th.equal(a, b) for a, b in zip(plain[0], watched[0], strict=True))
    assert plain[1:] == watched[1:]


@pytest.mark.slow
def test_no_warning_of_a_missing_discriminator():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learn(make_sac(training_env()), SkillEvaluationCallback(point_env(), eval_freq=20))


# -- when and what -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_envs", "eval_freq", "expected"),
    [(1, 20, [20, 40, 60]), (2, 20, [20, 40, 60]), (4, 10, [12, 20, 32, 40, 52, 60]), (1, 70, [])],
)
def test_it_counts_environment_steps(n_envs, eval_freq, expected):
    callback = SkillEvaluationCallback(eval_freq=eval_freq)
    learn(make_sac(training_env(n_envs)), callback)
    assert [row["num_timesteps"] for row in callback.history] == expected


@pytest.mark.slow
def test_it_goes_on_counting_in_a_second_learn():
    model, callback = make_sac(training_env()), SkillEvaluationCallback(eval_freq=40)
    learn(model, callback)
    model.learn(60, callback=[make_callback(), callback], reset_num_timesteps=False)
    assert [row["num_timesteps"] for row in callback.history] == [40, 80, 120]


@pytest.mark.slow
def test_the_history_is_what_evaluate_skills_says():
    model, callback = make_sac(training_env()), SkillEvaluationCallback(eval_freq=60, n_episodes=2)
    learn(model, callback)
    (row,) = callback.history
    assert row.keys() == NAMES | {"num_timesteps"}
    last = callback.last_evaluation
    assert last.lengths.tolist() == [[5, 5]] * K  # its environment has the training's arguments
    assert row["task_return_best"] == last.task_returns.mean(axis=1).max()
    assert row["coverage"] == last.info["total_coverage"]
    again = evaluate_skills(model, training_env(8), n_episodes=2)
    assert again.lengths.tolist() == last.lengths.tolist()


@pytest.mark.slow
def test_stopping_at_a_mutual_information():
    callback = SkillEvaluationCallback(eval_freq=20, stop_at_mutual_information=-100)
    assert learn(make_sac(training_env()), callback).num_timesteps == 20
    callback = SkillEvaluationCallback(eval_freq=20, stop_at_mutual_information=100)
    assert learn(make_sac(training_env()), callback).num_timesteps == 60


@pytest.mark.slow
def test_stopping_at_a_number_of_distinct_skills():
    callback = SkillEvaluationCallback(eval_freq=20, stop_at_distinct_skills=0.5)
    assert learn(make_sac(training_env()), callback).num_timesteps == 20
    callback = SkillEvaluationCallback(eval_freq=20, stop_at_distinct_skills=K + 1)
    assert learn(make_sac(training_env()), callback).num_timesteps == 60
    with pytest.raises(ValueError, match=r"n_episodes=1.*expected at least 2"):
        SkillEvaluationCallback(n_episodes=1, stop_at_distinct_skills=3)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("stop_at_distinct_skills", "12", "a positive number or None"),
        ("stop_at_mutual_information", np.inf, "a finite number or None"),
        ("deterministic", "no", "True or False"),
        ("save_best", 1, "True or False"),
        ("seed", 0.5, "an integer from 0 to 4294967295"),
        ("max_steps", 0, "a positive integer or None"),
    ],
)
def test_wrong_options(name, value, expected):
    with pytest.raises(ValueError, match=rf"{name}={value!r} is not allowed; expected {expected}"):
        SkillEvaluationCallback(**{name: value})


@pytest.mark.slow
def test_one_episode_tells_no_number_of_distinct_skills(tmp_path, capsys):
    callback = SkillEvaluationCallback(
        eval_freq=30, n_episodes=1, save_path=tmp_path, verbose=1, stop_at_mutual_information=100
    )
    assert learn(make_sac(training_env()), callback).num_timesteps == 60
    assert all(np.isnan(row["distinct_skills"]) for row in callback.history)
    assert "n/a distinct" in capsys.readouterr().out
    best = max(callback.history, key=lambda row: row["discriminator_bound"])
    assert SAC.load(tmp_path / "best_model", device="cpu").num_timesteps == best["num_timesteps"]


@pytest.mark.slow
def test_every_format_of_the_logger(tmp_path, capsys):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    model = make_sac(training_env())
    formats = ["stdout", "log", "csv", "json", "tensorboard"]
    model.set_logger(configure(str(tmp_path), formats))
    learn(model, SkillEvaluationCallback(eval_freq=30, verbose=1))
    model.logger.close()
    assert "Skills after 30 steps" in capsys.readouterr().out
    header = (tmp_path / "progress.csv").read_text().splitlines()[0]
    rows = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    named = {f"diayn_eval/{name}" for name in NAMES}
    assert named <= set(header.split(","))
    assert sum(named <= row.keys() for row in rows) == 2
    assert not any("diayn_eval/task_returns" in row for row in rows)
    events = accumulator.EventAccumulator(str(tmp_path), {"histograms": 0}).Reload()
    assert named <= set(events.Tags()["scalars"])
    histograms = events.Histograms("diayn_eval/task_returns")
    assert [(h.step, h.histogram_value.num) for h in histograms] == [(30, K), (60, K)]


# -- environments ------------------------------------------------------------------------------


@pytest.mark.slow
def test_vec_normalize_shares_the_statistics_of_the_training():
    env = VecNormalize(training_env(2), norm_reward=False, clip_obs=7.0)
    callback = SkillEvaluationCallback(point_vec(2), eval_freq=60)
    learn(make_sac(env), callback)
    normalizer = callback._env
    assert isinstance(normalizer, VecNormalize) and normalizer.clip_obs == 7.0
    assert np.array_equal(normalizer.obs_rms.mean, env.obs_rms.mean)
    assert normalizer.obs_rms is not env.obs_rms and env.training


def test_copies_normalise_the_same_parts_of_a_dict():
    """A Discrete cannot be normalised, so that a training has to choose."""
    envs = [DummyVecEnv([lambda: DIAYNWrapper(EchoEnv("dict"), K)]) for _ in range(2)]
    env = VecNormalize(envs[0], norm_reward=False, norm_obs_keys=["noise"])
    env.reset()
    copies = normalize_like(envs[1], env)
    copy_statistics(copies, env)
    assert copies.norm_obs_keys == ["noise"]
    assert copies.reset()["position"].tolist() == [[0, 0]]


class Own(VecEnvWrapper):
    """A wrapper of somebody else."""

    def reset(self):
        return self.venv.reset()

    def step_wait(self):
        return self.venv.step_wait()


def dicts():
    return DummyVecEnv([lambda: gym.make("sb3_diayn_tests/EchoEnv-v0", kind="dict")] * 2)


def images():
    return DummyVecEnv([lambda: gym.make("sb3_diayn_tests/EchoEnv-v0", kind="image")] * 2)


WRAPPED = {
    "stack": lambda: VecFrameStack(training_env(2), 3),
    "skills around a stack": lambda: VecDIAYNWrapper(VecFrameStack(make_vec_env(ID, 2), 3), K),
    "statistics around a stack": lambda: VecNormalize(
        VecFrameStack(training_env(2), 3), norm_reward=False
    ),
    "part of a dict": lambda: VecDIAYNWrapper(VecExtractDictObs(dicts(), "noise"), K),
    "own": lambda: Own(training_env(2)),
    "image": lambda: VecDIAYNWrapper(VecFrameStack(images(), 2), K),
    "image, channels in order": lambda: VecDIAYNWrapper(VecFrameStack(images(), 2, "first"), K),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrapped", WRAPPED)
def test_copies_have_the_vectorised_wrappers_of_the_training(wrapped):
    env, callback = WRAPPED[wrapped](), SkillEvaluationCallback(eval_freq=20, max_steps=5)
    policy = "MultiInputPolicy" if "image" in wrapped else "MlpPolicy"
    model = PPO(policy, env, n_steps=20, batch_size=20, n_epochs=1, seed=0, device="cpu")
    learn(model, callback, steps=40)
    assert len(callback.history) > 0


def test_an_unknown_wrapper_within_the_skills_is_refused_at_the_start():
    callback = SkillEvaluationCallback(eval_freq=1_000_000)
    with pytest.raises(ValueError, match=r"the training has Own within VecDIAYN.*Pass eval_env="):
        learn(make_ppo(VecDIAYNWrapper(Own(make_vec_env(ID, 2)), K)), callback)


class Still(VecEnvWrapper):
    """Does nothing, whatever the policy says."""

    def reset(self):
        return self.venv.reset()

    def step_async(self, actions):
        self.venv.step_async(0 * actions)

    def step_wait(self):
        return self.venv.step_wait()


def test_a_wrapper_that_may_change_actions_is_refused_at_the_start():
    callback = SkillEvaluationCallback(eval_freq=1_000_000)
    with pytest.raises(ValueError, match=r"has Still outside the skills, which may.*eval_env="):
        learn(make_ppo(Still(training_env())), callback)


def test_other_spaces_are_refused_at_the_start():
    callback = SkillEvaluationCallback(point_vec(2), eval_freq=1_000_000)
    with pytest.raises(ValueError, match="wrappers, as VecFrameStack"):
        learn(make_ppo(VecFrameStack(training_env(2), 3)), callback)


def test_vec_normalize_only_in_the_evaluation_is_refused():
    callback = SkillEvaluationCallback(VecNormalize(point_vec()))
    with pytest.raises(ValueError, match="has VecNormalize; expected none"):
        learn(make_sac(training_env()), callback)


@pytest.mark.slow
def test_a_training_in_other_processes():
    spec = gym.spec(ID)  # the other processes have not registered it
    env = SubprocVecEnv([lambda: DIAYNWrapper(gym.make(spec, length=5), K)] * 2)
    try:
        callback = SkillEvaluationCallback(eval_freq=24)
        learn(make_ppo(env, n_steps=12), callback, steps=24)
    finally:
        env.close()
    assert (callback.last_evaluation.lengths == 5).all()


@pytest.mark.slow
def test_wrappers_of_gymnasium_are_rebuilt():
    def make():
        env = gym.wrappers.TransformReward(gym.make(ID, length=5), lambda reward: -7.0)
        return DIAYNWrapper(gym.wrappers.TimeLimit(env, 3), K)

    callback = SkillEvaluationCallback(eval_freq=60)
    learn(make_sac(DummyVecEnv([make])), callback)
    assert (callback.last_evaluation.task_returns == -21).all()


def test_an_environment_that_cannot_be_rebuilt_is_refused():
    with pytest.raises(ValueError, match=r"has no spec.*Pass eval_env="):
        learn(make_sac(point_env()), SkillEvaluationCallback())
    env = DIAYNWrapper(Unrecorded(gym.make(ID)), K)
    with pytest.raises(ValueError, match=r"wrapper Unrecorded does not.*Pass eval_env="):
        learn(make_sac(env), SkillEvaluationCallback())


class Unrecorded(gym.Wrapper):
    pass


def test_a_training_without_discriminator_is_refused():
    with pytest.raises(ValueError, match=r"has no discriminator; expected.*DIAYNCallback"):
        make_sac(training_env()).learn(10, callback=SkillEvaluationCallback())


@pytest.mark.slow
def test_discrete_actions():
    env = DummyVecEnv([lambda: DIAYNWrapper(gym.make("CartPole-v1"), K)])
    callback = SkillEvaluationCallback(eval_freq=30)
    learn(make_dqn(env), callback)
    assert 0 <= callback.history[-1]["sensitivity"] <= 0.5  # of two actions


# -- files -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_history_and_best_model_are_saved(tmp_path):
    env = VecNormalize(training_env(), norm_reward=False)
    model, callback = make_sac(env), SkillEvaluationCallback(eval_freq=20, save_path=tmp_path / "a")
    learn(model, callback)
    files = {path.name for path in (tmp_path / "a").iterdir()}
    assert files == {"evaluations.json", "best_model.zip", "vecnormalize.pkl"}
    assert json.loads((tmp_path / "a" / "evaluations.json").read_text()) == callback.history
    best = max(callback.history, key=lambda row: row["held_out_bound"])
    saved = SAC.load(tmp_path / "a" / "best_model", device="cpu")
    assert saved.num_timesteps == best["num_timesteps"]
    assert load_discriminator(tmp_path / "a" / "best_model").n_skills == K


@pytest.mark.slow
def test_a_resumed_training_continues_what_was_saved(tmp_path):
    def evaluating():
        return SkillEvaluationCallback(eval_freq=20, save_path=tmp_path)

    def history():
        return json.loads((tmp_path / "evaluations.json").read_text())

    model = make_sac(training_env())
    learn(model, evaluating(), steps=60)
    rows = history()
    rows[-1]["held_out_bound"] = 10.0  # after the checkpoint from which the training is resumed
    (tmp_path / "evaluations.json").write_text(json.dumps(rows))
    (tmp_path / "best_model.zip").write_bytes(b"the best")

    model.num_timesteps = 45
    callback = evaluating()
    model.learn(40, callback=[make_callback(), callback], reset_num_timesteps=False)
    assert [row["num_timesteps"] for row in history()] == [20, 40, 60, 80]
    assert history()[:2] == rows[:2] and history() == callback.history
    assert (tmp_path / "best_model.zip").read_bytes() == b"the best"

    learn(model, evaluating(), steps=20)  # from step 0
    assert [row["num_timesteps"] for row in history()] == [20]
    assert (tmp_path / "best_model.zip").read_bytes() != b"the best"


@pytest.mark.slow
def test_damaged_evaluations_are_refused(tmp_path):
    model = make_sac(training_env())
    learn(model, SkillEvaluationCallback(eval_freq=20, save_path=tmp_path), steps=20)
    (tmp_path / "evaluations.json").write_text("[")
    with pytest.raises(ValueError, match=r"evaluations.json' cannot be read .*Remove the file"):
        model.learn(
            20,
            callback=[make_callback(), SkillEvaluationCallback(save_path=tmp_path)],
            reset_num_timesteps=False,
        )


@pytest.mark.slow
def test_the_best_model_can_be_left_out(tmp_path):
    callback = SkillEvaluationCallback(eval_freq=20, save_path=str(tmp_path), save_best=False)
    learn(make_sac(training_env()), callback)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluations.json"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["evaluation", "checkpoint"])
def test_auto_saves_within_the_folder_of_the_zoo(tmp_path, kind):
    others = {
        "evaluation": lambda: EvalCallback(
            training_env(), best_model_save_path=str(tmp_path), eval_freq=1000, verbose=0
        ),
        "checkpoint": lambda: CheckpointCallback(1000, str(tmp_path)),
    }
    callback = SkillEvaluationCallback(eval_freq=60, save_path="auto")
    learn(make_sac(training_env()), callback, others=[others[kind]()])
    assert (tmp_path / "skills" / "best_model.zip").is_file()


def test_auto_without_a_folder_is_refused():
    with pytest.raises(ValueError, match="save_path='auto' finds no folder"):
        learn(make_sac(training_env()), SkillEvaluationCallback(save_path="auto"))


@pytest.mark.parametrize("name", ["eval_freq", "n_episodes", "n_envs"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "3"])
def test_a_number_that_is_not_positive_is_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        SkillEvaluationCallback(PointEnv(), **{name: value})


# -- the environment of the training ---------------------------------------------------------


@pytest.mark.parametrize(
    "outside",
    [lambda env: env, VecMonitor, lambda env: VecNormalize(env, norm_reward=False)],
    ids=["alone", "VecMonitor", "VecNormalize"],
)
def test_the_environment_of_the_training_is_refused(outside):
    """Vectorised or not, whatever is around it."""
    single = DIAYNWrapper(PointEnv(length=5), K)
    env = outside(DummyVecEnv([lambda: single]))
    model = make_sac(env)
    for eval_env in (single, env):
        callbacks = [make_callback(), SkillEvaluationCallback(eval_env, eval_freq=20)]
        with pytest.raises(ValueError, match=r"evaluates in the environment of the training"):
            model.learn(30, callback=callbacks)
    model.learn(20, callback=make_callback())
    with pytest.raises(
        ValueError, match=r"SkillEvaluationCallback\(eval_env\) evaluates in the env"
    ):
        model.learn(30, callback=SkillEvaluationCallback(env, eval_freq=20))  # without the other


@pytest.mark.slow
def test_episodes_without_end_are_cut():
    evaluating = SkillEvaluationCallback(
        DIAYNWrapper(PointEnv(length=10**9), K), eval_freq=30, max_steps=7
    )
    learn(make_sac(training_env()), evaluating, steps=40)
    assert evaluating.last_evaluation.lengths.tolist() == [[7, 7]] * K
    with pytest.raises(ValueError, match=r"max_steps=0 is not allowed; expected a positive"):
        SkillEvaluationCallback(max_steps=0)
