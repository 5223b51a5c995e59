import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from examples.vectorized import SameStepCartPole
from sb3_diayn import DIAYNWrapper, GymVecEnv, VecDIAYNWrapper, evaluate_skills
from tests.helpers.envs import CountingEnv, EchoEnv, PointEnv
from tests.helpers.models import make_callback, make_ppo

SAME, DISABLED, NEXT = AutoresetMode.SAME_STEP, AutoresetMode.DISABLED, AutoresetMode.NEXT_STEP
N_ENVS = 3


def counting(i: int) -> gym.Env:
    return CountingEnv(length=2 + i, truncate=i == 1)


def echo(i: int) -> gym.Env:
    return EchoEnv("dict", box=True, length=2 + i)


def point(i: int) -> gym.Env:
    return PointEnv(length=4, render_mode="rgb_array")


def makers(make_env):
    return [lambda i=i: make_env(i) for i in range(N_ENVS)]


def adapted(make_env=counting, mode=SAME) -> GymVecEnv:
    return GymVecEnv(SyncVectorEnv(makers(make_env), autoreset_mode=mode))


def assert_equal(one, other) -> None:
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key in one:
            assert_equal(one[key], other[key])
    else:
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("mode", [SAME, DISABLED])
@pytest.mark.parametrize("make_env", [counting, echo, point])
def test_it_steps_as_dummy_vec_env_does(make_env, mode):
    rng = np.random.default_rng(0)
    envs = DummyVecEnv(makers(make_env)), adapted(make_env, mode)
    for env in envs:
        env.seed(3)
    assert_equal(*(env.reset() for env in envs))
    for _ in range(12):
        actions = rng.uniform(-1, 1, (N_ENVS, *envs[0].action_space.shape)).astype(np.float32)
        (obs, rewards, dones, infos), (obs_2, rewards_2, dones_2, infos_2) = (
            env.step(actions) for env in envs
        )
        assert_equal(obs, obs_2)
        assert_equal(rewards, rewards_2)
        assert rewards.dtype == rewards_2.dtype and dones.dtype == dones_2.dtype
        assert_equal(dones, dones_2)
        for i in range(N_ENVS):
            assert_equal(infos[i], infos_2[i])
            if mode == SAME:  # with a mask the environments get {} instead of None for options
                assert_equal(envs[0].reset_infos[i], envs[1].reset_infos[i])


def test_options_go_on_to_the_environments_once():
    env = adapted()
    env.set_options({"height": 2})
    env.reset()
    assert [info["options"] for info in env.reset_infos] == [{"height": 2}] * 3
    env.reset()
    assert env.reset_infos == [{"options": None}] * 3
    env.set_options([{"height": 2}, {}, {}])
    with pytest.raises(ValueError, match=r"options=.*differ between.*Pass a single dict"):
        env.reset()


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (lambda: SyncVectorEnv(makers(counting), autoreset_mode=NEXT), "=AutoresetMode.NEXT_STEP"),
        (lambda: gym.make_vec("CartPole-v1", num_envs=2), "a step late; expected .*SAME_STEP"),
        (lambda: CountingEnv(), r"is not a VectorEnv.*DIAYNWrapper\(env\)"),
    ],
)
def test_what_cannot_be_adapted_is_refused(env, message):
    with pytest.raises(ValueError, match=message):
        GymVecEnv(env())


@pytest.mark.parametrize("vectorize", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize(
    "wrap", [DIAYNWrapper, lambda env: TimeLimit(DIAYNWrapper(env, 3), 7)], ids=["bare", "inside"]
)
def test_skills_within_a_vector_env_are_refused_with_the_way_out(vectorize, wrap):
    env = vectorize([lambda: wrap(PointEnv())] * 2, autoreset_mode=SAME)
    with pytest.raises(ValueError, match=r"VecDIAYNWrapper\(GymVecEnv\(env\), n_skills=20\)"):
        GymVecEnv(env)
    env.close()


def test_what_it_answers():
    env = GymVecEnv(SyncVectorEnv([lambda: Monitor(point(0))] * 2, autoreset_mode=SAME))
    env.reset()
    assert env.env_is_wrapped(Monitor) == [True, True] and env.render_mode == "rgb_array"
    assert env.get_attr("length", [1]) == [4] and env.has_attr("speed")
    assert env.env_method("get_total_steps") == [0, 0]
    assert env.env_method("render", indices=[1])[0].shape == env.get_images()[0].shape
    assert not env.has_attr("no_such_thing")
    with pytest.raises(NotImplementedError, match=r"for environments \[0\]"):
        env.env_method("get_total_steps", indices=[0])
    with pytest.raises(NotImplementedError, match="length cannot be set"):
        env.set_attr("length", 2)
    env.close()


def test_cartpole_in_numpy_obeys_gymnasium_step_by_step():
    """The example's class: the dynamics and ends are gymnasium's, the start is one step sooner."""
    env, single = SameStepCartPole(num_envs=4, max_episode_steps=12), gym.make("CartPole-v1")
    state, _ = env.reset(seed=0)
    single.reset()
    rng, ends = np.random.default_rng(0), 0
    for _ in range(60):
        actions = rng.integers(2, size=4)
        single.unwrapped.state, single.unwrapped.steps_beyond_terminated = state[1], None
        expected, *_ = single.unwrapped.step(actions[1])
        state, rewards, terminated, truncated, info = env.step(actions)
        over = terminated | truncated
        reached = np.stack(info["final_obs"])[1] if over[1] else state[1]
        np.testing.assert_allclose(reached, expected, rtol=1e-4, atol=1e-5)
        assert (np.abs(state[over]) <= 0.05).all() and (rewards == 1).all()
        ends += over.sum()
    assert ends >= 4 * 60 // 12


@pytest.mark.slow
def test_skills_in_a_simulator_of_gymnasium():
    env = VecDIAYNWrapper(GymVecEnv(SameStepCartPole(num_envs=4)), 3, skill="balanced")
    assert env.get_attr("env_id", [0]) == ["CartPole-v1"]
    model, callback = make_ppo(env), make_callback()
    model.learn(200, callback=callback)
    assert callback.trainer.n_updates > 0
    evaluation = evaluate_skills(model, env, n_episodes=2)
    assert evaluation.lengths.shape == (3, 2) and (evaluation.lengths >= 8).all()
