import copy
import math
import sys

import numpy as np
import pytest
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_diayn import DIAYNWrapper, Discriminator
from sb3_diayn.evaluation.evaluate import evaluate_skills, summarize, untrained_model
from sb3_diayn.evaluation.trajectories import Trajectory, play_skills
from sb3_diayn.model_zip import model_discriminator
from tests.helpers.envs import CountingEnv, PointEnv
from tests.helpers.models import constant_discriminator, make_callback, make_dqn, make_ppo, make_sac
from tests.helpers.scripted import (
    DIRECTIONS,
    K,
    compass,
    frozen,
    ignorant,
    point_vec,
    scripted,
    walker,
)


def evaluate(model, env=None, **kwargs):
    options = {"discriminator": compass(), "n_episodes": 1}
    return evaluate_skills(model, env or point_vec(), **(options | kwargs))


# -- numbers checked by hand -------------------------------------------------------------------


def test_a_walker_in_every_direction():
    """20 steps at speed 1: 19 between first and last record, a cell of 0.25 m for each."""
    e = evaluate(walker(), n_episodes=8)
    assert np.array_equal(e.confusion, np.eye(K))
    assert e.discriminator_bound == e.mutual_information == pytest.approx(math.log(K), abs=1e-6)
    assert e.recognized_skills == pytest.approx(K, abs=1e-5)
    assert e.calibration_error == pytest.approx(0, abs=1e-6)
    assert e.distinct_skills == pytest.approx(K, abs=0.02)
    assert np.array_equal(e.held_out_log_q, e.held_out_log_q_everything)
    assert e.skill_returns == pytest.approx(np.full((K, 8), 20 * math.log(K)), abs=1e-4)
    assert np.array_equal(e.lengths, np.full((K, 8), 20))
    assert e.distances == pytest.approx(np.full((K, 8), 19), abs=1e-5)
    assert e.displacements == pytest.approx(e.distances)
    assert e.info["coordinates"] == ["x_position", "y_position"]
    assert e.info["cell_size"] == [0.25, 0.25]
    assert e.task_returns[0] == pytest.approx([210] * 8, abs=1)  # 1 + 2 + ... + 20
    assert e.task_returns[2] == pytest.approx([-210] * 8, abs=1)
    assert e.sensitivity == pytest.approx(math.sqrt(0.5))  # of 1, 0, -1, 0
    assert e.paths.shape == (K, 8, 100, 2)
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
    flat = constant_discriminator([0.25] * K)
    e = evaluate(frozen(), discriminator=flat, n_episodes=2)
    assert e.accuracy.mean() == 1 / K  # the first skill is guessed for all states
    assert e.calibration_error == pytest.approx(0, abs=1e-6)  # it knows that it guesses
    assert e.distinct_skills == pytest.approx(1, abs=0.05)
    assert e.mutual_information == pytest.approx(0, abs=1e-6)
    assert e.skill_returns == pytest.approx(np.zeros((K, 2)), abs=1e-5)
    assert e.movement == pytest.approx(np.zeros(K), abs=1e-6)
    assert np.abs(e.displacements).max() == 0
    assert e.coverage.max() <= 2  # a cell of each episode
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


@pytest.mark.slow
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


# -- distinct skills ---------------------------------------------------------------------------


@pytest.mark.slow
def test_two_pairs_of_twins_are_two_skills():
    twins = scripted(lambda obs, skills: DIRECTIONS[skills // 2])
    e = evaluate(twins, n_episodes=6)
    assert e.distinct_skills == pytest.approx(K / 2, abs=0.1)
    assert e.held_out_confusion[:2, :2].sum() == pytest.approx(2, abs=0.1)


@pytest.mark.slow
def test_a_discriminator_that_knows_nothing_of_distinct_skills():
    e = evaluate(walker(), discriminator=constant_discriminator([0.25] * K), n_episodes=8)
    assert e.distinct_skills == pytest.approx(K, abs=0.02)
    assert e.recognized_skills == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_what_the_discriminator_does_not_read_counts_for_everything_only():
    reads_x = Discriminator(PointEnv().observation_space, K, net_arch=(), obs_indices=[0])
    e = evaluate(walker(), discriminator=reads_x, n_episodes=6)
    # Left and right are known, up and down are a pair: log K - log 2 / 2.
    assert 2.2 < e.distinct_skills < 2 * math.sqrt(2) + 0.05
    assert e.distinct_skills_everything == pytest.approx(K, abs=0.02)


@pytest.mark.slow
def test_actions_that_the_discriminator_reads_count():
    """Each skill pushes in a direction of its own, but only the first coordinate is seen."""
    point = PointEnv()
    reads_actions = Discriminator(
        point.observation_space, K, net_arch=(), obs_indices=[0], action_space=point.action_space
    )
    e = evaluate(walker(), discriminator=reads_actions, n_episodes=2)
    assert e.distinct_skills == pytest.approx(K, abs=0.02)


def test_one_episode_of_each_skill_tells_no_number():
    e = evaluate(walker(), n_episodes=1, baseline=True)
    assert np.isnan([e.distinct_skills, e.distinct_skills_untrained]).all()
    assert "two episodes" in e.info["why_no_held_out"]
    assert e.recognized_skills == pytest.approx(K, abs=1e-5)


def test_without_scikit_learn_all_else_is_measured(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.warns(UserWarning, match=r"left out.*pip install 'sb3-diayn\[report\]'"):
        e = evaluate(walker(), n_episodes=2)
    assert np.isnan(e.distinct_skills) and "sb3-diayn[report]" in e.info["why_no_held_out"]
    assert e.recognized_skills == pytest.approx(K, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("deterministic", [False, True])
def test_an_untrained_policy_is_distinct_only_without_its_noise(deterministic):
    """Its mean actions differ by far less than its noise, which the mode leaves out."""
    model = make_sac(point_vec())
    e = evaluate(model, n_episodes=8, baseline=True, deterministic=deterministic, seed=1)
    assert (e.distinct_skills_untrained > 2) == deterministic
    assert e.distinct_skills == pytest.approx(e.distinct_skills_untrained, abs=0.6)


def test_an_untrained_model_is_another_policy_of_the_same_class():
    model = make_sac(point_vec())
    trained = [p.clone() for p in model.policy.parameters()]
    first, second, third = (untrained_model(model, seed) for seed in (1, 1, 2))
    assert type(first.policy) is type(model.policy) and first.policy is not model.policy
    weights = [next(m.policy.actor.parameters()) for m in (first, second, third, model)]
    assert th.equal(weights[0], weights[1])
    assert not th.equal(weights[0], weights[2]) and not th.equal(weights[0], weights[3])
    assert all(map(th.equal, trained, model.policy.parameters()))


def test_a_policy_that_cannot_be_built_again_is_refused_before_it_is_played(monkeypatch):
    """As SBX's, which has no parameters of PyTorch."""
    model, env = walker(), point_vec()
    monkeypatch.setattr(model.policy, "parameters", lambda: iter(()))
    with pytest.raises(ValueError, match=r"baseline=True cannot build .*; expected a policy"):
        evaluate_skills(model, env, discriminator=compass(), baseline=True)
    assert env.get_attr("total_steps") == [0]


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


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers():
    model = make_ppo(point_vec())
    first, second = (evaluate(model, n_episodes=2, seed=4) for _ in range(2))
    assert np.array_equal(first.task_returns, second.task_returns)
    assert first.distinct_skills == second.distinct_skills
    other = evaluate(model, n_episodes=2, seed=5)
    assert not np.array_equal(first.task_returns, other.task_returns)


def test_random_actions_follow_the_seed_and_leave_the_generator_alone():
    """DQN draws them from NumPy's generator and from the model's action space."""
    env = DummyVecEnv([lambda: DIAYNWrapper(CountingEnv(discrete=True), K)])
    model = make_dqn(env)
    model.exploration_rate = 0.5
    model.action_space.seed(3)
    expected = copy.deepcopy(model.action_space)
    np.random.seed(1)
    uniform = constant_discriminator([0.25] * K)
    runs = [
        [t.actions.tolist() for t in play_skills(model, env, [0, 1], deterministic=False, seed=s)]
        for s in (7, 7, 8)
    ]
    assert runs[0] == runs[1] != runs[2]
    evaluate(model, env, discriminator=uniform, n_episodes=2)
    assert [model.action_space.sample() for _ in range(9)] == [expected.sample() for _ in range(9)]
    np_draw = np.random.rand()
    np.random.seed(1)
    assert np_draw == np.random.rand()


@pytest.mark.slow
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


def test_a_discriminator_that_has_diverged_is_refused():
    discriminator = constant_discriminator([0.25] * K)
    discriminator.net[-1].bias.data[1] = math.nan
    with pytest.raises(ValueError, match=r"discriminator\.net\.0\.bias\[1\]=nan .*expected finite"):
        evaluate_skills(walker(), point_vec(), discriminator=discriminator)


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


def test_steps_with_the_torso_upside_down():
    """The first coordinate is t, 0, -t and 0, here a pitch: upside down where cos t < 0."""
    share = np.mean([math.cos(t) < 0 for t in range(1, 21)])
    evaluation = evaluate(walker(), n_episodes=2, obs_names=["rooty angle", "height"])
    one_step = pytest.approx([share, 0, share, 0], abs=0.05)  # starts vary
    assert evaluation.upside_down == one_step
    assert 0.4 < share < 0.6
    assert np.isnan(evaluate(walker()).upside_down).all()
