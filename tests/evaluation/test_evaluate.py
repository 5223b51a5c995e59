import math

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_diayn import DIAYNWrapper
from sb3_diayn.evaluation.evaluate import evaluate_skills, summarize
from sb3_diayn.evaluation.trajectories import Trajectory
from sb3_diayn.model_zip import model_discriminator
from tests.helpers.envs import CountingEnv, PointEnv
from tests.helpers.models import constant_discriminator, make_callback, make_dqn, make_ppo, make_sac
from tests.helpers.scripted import K, compass, frozen, ignorant, point_vec, walker


def evaluate(model, env=None, **kwargs):
    options = {"discriminator": compass(), "n_episodes": 1}
    return evaluate_skills(model, env or point_vec(), **(options | kwargs))


# -- numbers checked by hand -------------------------------------------------------------------


def test_a_walker_in_every_direction():
    """20 steps at speed 1: 19 between first and last record, a cell of 0.25 m for each."""
    e = evaluate(walker(), n_episodes=2)
    assert np.array_equal(e.confusion, np.eye(K))
    assert e.mutual_information == pytest.approx(math.log(K), abs=1e-6)
    assert e.distinct_skills == pytest.approx(K, abs=1e-5)
    assert e.skill_returns == pytest.approx(np.full((K, 2), 20 * math.log(K)), abs=1e-4)
    assert np.array_equal(e.lengths, np.full((K, 2), 20))
    assert e.distances == pytest.approx(np.full((K, 2), 19), abs=1e-5)
    assert e.displacements == pytest.approx(e.distances)
    assert e.info["coordinates"] == ["x_position", "y_position"]
    assert e.info["cell_size"] == [0.25, 0.25]
    assert e.task_returns[0] == pytest.approx([210, 210], abs=1)  # 1 + 2 + ... + 20
    assert e.task_returns[2] == pytest.approx([-210, -210], abs=1)
    assert e.sensitivity == pytest.approx(math.sqrt(0.5))  # of 1, 0, -1, 0
    assert e.paths.shape == (K, 2, 100, 2)
    assert e.paths[1, 0, -1] == pytest.approx([0, 20], abs=0.1)


@pytest.mark.parametrize(("offset", "second"), [(0.0, "observation 1"), (5.0, "observation 0")])
def test_a_position_that_the_observation_repeats_is_not_drawn_against_itself(offset, second):
    x, y = np.arange(10.0), np.ones(10)
    states = np.stack([x + offset, y], axis=1).astype(np.float32)
    episodes = [
        Trajectory(z, states, np.zeros((10, 2), np.float32), np.zeros(10), {"x_position": x})
        for z in range(K)
    ]
    e = summarize(episodes, constant_discriminator([0.25] * K), 1)
    assert e.info["coordinates"] == ["x_position", second]
    assert e.paths[0, 0, -1].tolist() == [9, 1 if offset == 0 else 9 + offset]


def test_coverage_is_one_cell_per_step():
    e = evaluate(walker())
    assert e.coverage.tolist() == [20] * K
    assert e.info["total_coverage"] == 20 * K


def test_distances_between_mean_states():
    """The means are 10.5 from the origin, opposite ones 21 apart along one axis."""
    e = evaluate(walker())
    along = np.concatenate([np.arange(1, 21), -np.arange(1, 21), np.zeros(40)]).std()
    assert e.mean_state_distances[0, 2] == pytest.approx(21 / along, rel=0.01)
    assert e.mean_state_distances[0, 1] == pytest.approx(10.5 * math.sqrt(2) / along, rel=0.01)


def test_a_frozen_policy():
    e = evaluate(frozen(), discriminator=constant_discriminator([0.25] * K))
    assert e.accuracy.mean() == 1 / K  # the first skill is guessed for all states
    assert e.mutual_information == pytest.approx(0, abs=1e-6)
    assert e.skill_returns == pytest.approx(np.zeros((K, 1)), abs=1e-5)
    assert e.movement == pytest.approx(np.zeros(K), abs=1e-6)
    assert np.abs(e.displacements).max() == 0
    assert e.coverage.tolist() == [1] * K
    assert (e.sensitivity, e.importance.tolist()) == (0, [0, 0])


def test_a_policy_that_ignores_the_skill():
    e = evaluate(ignorant())
    assert e.sensitivity == 0
    assert e.accuracy.tolist() == [1, 0, 0, 0]
    assert e.movement.min() > 0.1


def test_importance_finds_the_only_coordinate_that_is_read():
    discriminator = compass(sharpness=1.0)
    with th.no_grad():
        discriminator.net[-1].weight[:, 1] = 0
    importance = evaluate(walker(), discriminator=discriminator).importance
    assert importance[0] > 1 and importance[1] == 0


def test_sensitivity_of_discrete_actions_is_a_share():
    """Skill k takes action k modulo 3: two of four skills agree, the others do not."""
    env = DummyVecEnv([lambda: DIAYNWrapper(CountingEnv(discrete=True), K)])
    model = make_dqn(env)

    def predict(obs, state=None, episode_start=None, deterministic=False):
        return obs[:, 2:].argmax(axis=1) % 3, state

    model.predict = predict
    e = evaluate(model, env, discriminator=constant_discriminator([0.25] * K))
    assert e.sensitivity == 0.5


# -- any number and kind of environments -------------------------------------------------------


@pytest.mark.parametrize("n_envs", [3, 8, 11])
def test_several_environments_measure_the_same(monkeypatch, n_envs):
    monkeypatch.setattr(PointEnv, "reset", still_start)
    one, several = (evaluate(walker(), point_vec(n), n_episodes=2) for n in (1, n_envs))
    for name, expected in one.table().items():
        assert several.table()[name] == pytest.approx(expected, abs=1e-6), name


def still_start(self, *, seed=None, options=None):
    self.position, self.steps = np.zeros(2), 0
    return self.position.copy(), self._info()


def test_under_vec_normalize_the_discriminator_reads_raw_states():
    env = VecNormalize(point_vec(2), norm_reward=False)
    model = make_ppo(env)
    model.learn(48, callback=make_callback())
    before = env.obs_rms.mean.copy(), env.obs_rms.count, env.ret_rms.count
    e = evaluate_skills(model, env, n_episodes=1)
    assert np.array_equal(env.obs_rms.mean, before[0])
    assert (env.obs_rms.count, env.ret_rms.count) == before[1:]
    assert env.training
    assert (e.lengths == 20).all()


def test_a_recurrent_policy():
    env = point_vec(2)
    options = {"net_arch": [8], "lstm_hidden_size": 8}
    model = RecurrentPPO("MlpLstmPolicy", env, policy_kwargs=options, device="cpu", n_steps=8)
    e = evaluate(model, env)
    assert np.isfinite(e.sensitivity) and (e.lengths == 20).all()


# -- nothing is changed ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [True, False])
def test_model_and_random_states_are_as_found(deterministic):
    model = make_sac(point_vec())
    model.learn(60, callback=make_callback())
    env = DummyVecEnv([lambda: DIAYNWrapper(PointEnv(), K, skill="balanced")])
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    for is_training in (True, False):
        model.policy.set_training_mode(is_training)
        np.random.seed(1), th.manual_seed(1)
        expected = np.random.rand(), th.rand(1)
        np.random.seed(1), th.manual_seed(1)
        evaluate_skills(model, env, n_episodes=1, deterministic=deterministic)
        assert (np.random.rand(), th.rand(1)) == expected
        assert model.policy.training == is_training
    after = model.policy.state_dict()
    assert all(th.equal(value, after[name]) for name, value in before.items())
    assert env.get_attr("skill_rule") == ["balanced"]


def test_the_same_seed_gives_the_same_numbers():
    model = make_ppo(point_vec())
    first, second = (evaluate(model, deterministic=False, seed=4) for _ in range(2))
    assert np.array_equal(first.task_returns, second.task_returns)
    other = evaluate(model, deterministic=False, seed=5)
    assert not np.array_equal(first.task_returns, other.task_returns)


def test_the_discriminator_comes_from_the_zip(tmp_path):
    model = make_sac(point_vec())
    callback = make_callback()
    model.learn(60, callback=callback)
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model", device="cpu")
    parameters = callback.discriminator.state_dict()
    for name, value in model_discriminator(loaded).state_dict().items():
        assert th.equal(value, parameters[name])
    e, same = (evaluate_skills(m, point_vec(), n_episodes=1) for m in (model, loaded))
    assert np.array_equal(e.log_q, same.log_q)
    assert e.info["num_timesteps"] == 60 and e.info["algo"] == "SAC"


# -- refused -----------------------------------------------------------------------------------


def test_a_model_without_discriminator_is_refused():
    with pytest.raises(ValueError, match=r"PPO has no discriminator; expected.*DIAYNCallback"):
        evaluate_skills(walker(), point_vec())


def test_another_environment_is_refused():
    with pytest.raises(ValueError, match="the model was trained on"):
        evaluate(walker(), DIAYNWrapper(CountingEnv(), K))
    with pytest.raises(ValueError, match="has no DIAYNWrapper"):
        evaluate(walker(), PointEnv())


@pytest.mark.parametrize("n_skills", [K - 1, K + 1])
def test_another_number_of_skills_is_refused(n_skills):
    with pytest.raises(ValueError, match=rf"n_skills={n_skills}; expected {K}"):
        evaluate(walker(), DIAYNWrapper(PointEnv(), n_skills))


@pytest.mark.parametrize("n_episodes", [0, -1, 1.5, "2"])
def test_a_wrong_number_of_episodes_is_refused(n_episodes):
    with pytest.raises(ValueError, match="n_episodes="):
        evaluate(walker(), n_episodes=n_episodes)
