import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from examples.vectorized import SameStepCartPole
from sb3_diayn import DIAYNWrapper, GymVecEnv, VecDIAYNWrapper, evaluate_skills
from tests.helpers.envs import CountingEnv, EchoEnv, PointEnv
from tests.helpers.models import make_callback, make_ppo, make_sac

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


@pytest.mark.parametrize("mode", [SAME, DISABLED, NEXT])
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


@pytest.mark.slow
def test_processes_of_their_own_reset_at_once_too():
    envs = (
        adapted(mode=SAME),
        GymVecEnv(AsyncVectorEnv(makers(counting), autoreset_mode=NEXT)),
    )
    assert_equal(*(env.reset() for env in envs))
    for _ in range(9):
        results = [env.step(np.zeros((N_ENVS, 1), np.float32)) for env in envs]
        for one, other in zip(*(result[:3] for result in results), strict=True):
            assert_equal(one, other)
        for info, other_info in zip(*(result[3] for result in results), strict=True):
            assert_equal(info.get("terminal_observation"), other_info.get("terminal_observation"))
    for env in envs:
        env.close()


class ResetsAll(SyncVectorEnv):
    """Has no regard for the mask."""

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed)


def test_a_reset_of_all_episodes_is_noticed():
    env = GymVecEnv(ResetsAll(makers(counting), autoreset_mode=DISABLED))
    env.reset()
    with pytest.raises(ValueError, match="has changed observations outside of the mask"):
        for _ in range(2):
            env.step(np.zeros((N_ENVS, 1), np.float32))


# -- EnvPool -----------------------------------------------------------------------------------


def make_pool(task="Hopper-v5", seed=5, **kwargs):
    envpool = pytest.importorskip("envpool")
    return envpool.make_gymnasium(task, num_envs=N_ENVS, seed=seed, num_threads=1, **kwargs)


def record_of(pool, n_steps, actions):
    """
    An independent record of EnvPool's own stream, with resets in the next step: for each
    environment its transitions, without the steps that reset it.
    """
    obs, _ = pool.reset()
    is_over = np.zeros(N_ENVS, bool)
    counts = np.zeros(N_ENVS, int)
    transitions = [[] for _ in range(N_ENVS)]
    for _ in range(n_steps):
        chosen = np.stack([actions[i, counts[i]] for i in range(N_ENVS)])
        next_obs, rewards, terminated, truncated, _ = pool.step(chosen)
        for i in np.flatnonzero(~is_over):
            ends = (bool(terminated[i]), bool(truncated[i]))
            transitions[i].append((obs[i].copy(), next_obs[i].copy(), rewards[i], *ends))
            counts[i] += 1
        obs, is_over = next_obs.copy(), terminated | truncated
    return transitions


of_envpool = pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")


@pytest.mark.slow
@of_envpool
@pytest.mark.parametrize("task", ["Hopper-v5", "CartPole-v1", "MountainCarContinuous-v0"])
def test_envpool_gives_the_transitions_of_its_own_stream(task):
    kwargs = {"max_episode_steps": 9}
    pool = make_pool(task, **kwargs)
    space = pool.single_action_space
    space.seed(0)
    actions = np.array([[space.sample() for _ in range(60)] for _ in range(N_ENVS)])
    records = record_of(pool, 60, actions)
    env = GymVecEnv(make_pool(task, **kwargs))
    obs, n_ends = env.reset(), 0
    for step in range(50):
        env.step_async(actions[:, step])
        next_obs, rewards, dones, infos = env.step_wait()
        for i in range(N_ENVS):
            if step >= len(records[i]):
                continue
            before, after, reward, terminated, truncated = records[i][step]
            np.testing.assert_array_equal(obs[i], before)
            reached = infos[i]["terminal_observation"] if dones[i] else next_obs[i]
            np.testing.assert_array_equal(reached, after)
            assert rewards[i] == np.float32(reward) and dones[i] == (terminated or truncated)
            assert infos[i]["TimeLimit.truncated"] == (truncated and not terminated)
            n_ends += dones[i]
        obs = next_obs
    assert n_ends >= 9
    env.close()


def check_ends(buffer):
    """Ends of episodes have the last observation and the old skill, and the next ones begin."""
    n_ends = 0
    for row, column in zip(*np.nonzero(buffer.dones[: buffer.pos - 1]), strict=True):
        last, first = buffer.next_observations[row, column], buffer.observations[row + 1, column]
        assert first[0] == pytest.approx(1.25, abs=0.006)  # the height that Hopper begins at
        assert np.abs(last - first).max() > 0.01
        n_ends += 1
    assert n_ends > 10


@pytest.mark.slow
@of_envpool
@pytest.mark.parametrize("make_model", [make_sac, make_ppo])
def test_skills_in_envpool(make_model):
    env = VecDIAYNWrapper(GymVecEnv(make_pool(max_episode_steps=10)), 3, skill="balanced")
    assert env.reset().shape == (N_ENVS, 14) and env.get_attr("env_id", [0]) == [None]
    model, callback = make_model(env), make_callback()
    model.learn(300, callback=callback)
    assert callback.trainer.n_updates > 0
    if make_model is make_sac:  # ends carry the old skill and the last observation
        check_ends(model.replay_buffer)
    evaluation = evaluate_skills(model, env, n_episodes=2)
    assert evaluation.lengths.shape == (3, 2) and (evaluation.lengths <= 10).all()
    env.close()


@of_envpool
def test_what_of_envpool_is_refused():
    with pytest.raises(ValueError, match=r"batch_size=2 of EnvPool with num_envs=3; expected 3"):
        GymVecEnv(make_pool("CartPole-v1", batch_size=2))
    wrapped = RecordEpisodeStatistics(make_pool("CartPole-v1"))
    with pytest.raises(ValueError, match="wraps EnvPool"):
        GymVecEnv(wrapped)


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
        (
            lambda: gym.make_vec("CartPole-v1", num_envs=2),  # its reset resets all of them
            "=AutoresetMode.NEXT_STEP.* a step late.*CartPoleVectorEnv cannot.*SAME_STEP",
        ),
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


def test_statistics_of_episodes_are_where_sb3_looks_for_them():
    vector_env = SyncVectorEnv(makers(counting), autoreset_mode=SAME)
    env = GymVecEnv(RecordEpisodeStatistics(vector_env))
    env.reset()
    lengths = {i: [] for i in range(N_ENVS)}
    for _ in range(12):
        for index, info in enumerate(env.step(np.zeros((N_ENVS, 1), np.float32))[3]):
            lengths[index] += [info["episode"]["l"]] if "episode" in info else []
    assert lengths == {0: [2] * 6, 1: [3] * 4, 2: [4] * 3}


@pytest.mark.parametrize("mode", [DISABLED, NEXT])
def test_statistics_that_resets_would_spoil_are_refused(mode):
    vector_env = RecordEpisodeStatistics(SyncVectorEnv(makers(counting), autoreset_mode=mode))
    with pytest.raises(ValueError, match=r"has RecordEpisodeStatistics.*SB3's VecMonitor"):
        GymVecEnv(vector_env)


def test_a_simulator_that_does_not_give_the_last_observation():
    simulator = SameStepCartPole(num_envs=2, max_episode_steps=1)
    step = simulator.step
    simulator.step = lambda actions: (*step(actions)[:4], {})
    env = GymVecEnv(simulator)
    env.reset()
    with pytest.raises(ValueError, match=r"info=\[\] has no 'final_obs' .*; expected the last"):
        env.step(np.zeros(2, int))


def test_what_it_answers():
    env = GymVecEnv(SyncVectorEnv([lambda: Monitor(point(0))] * 2, autoreset_mode=SAME))
    env.reset()
    assert env.env_is_wrapped(Monitor) == [True, True] and env.render_mode == "rgb_array"
    assert env.get_attr("length", [1]) == [4] and env.has_attr("speed")
    assert env.env_method("get_total_steps") == [0, 0]
    assert env.env_method("render", indices=[1])[0].shape == env.get_images()[0].shape
    assert not env.has_attr("no_such_thing")
    assert env.has_attr("set_wrapper_attr")  # which cannot be called without arguments
    with pytest.raises(NotImplementedError, match=r"for environments \[0\]"):
        env.env_method("get_total_steps", indices=[0])
    with pytest.raises(NotImplementedError, match="length cannot be set"):
        env.set_attr("length", 2)
    env.close()


@pytest.mark.slow
def test_a_question_ends_no_process():
    env = GymVecEnv(AsyncVectorEnv(makers(counting), autoreset_mode=NEXT))
    assert env.get_attr("length") == [2, 3, 4] and not env.has_attr("no_such_thing")
    with pytest.raises(AttributeError, match="no_such_thing"):
        env.get_attr("no_such_thing")
    assert env.reset().shape == (N_ENVS, *env.observation_space.shape)
    env.close()


@pytest.mark.slow
def test_skills_in_processes_of_gymnasium_are_evaluated():
    env = VecDIAYNWrapper(GymVecEnv(AsyncVectorEnv(makers(point), autoreset_mode=SAME)), 3)
    model = make_ppo(env)
    model.learn(1, callback=make_callback())
    assert evaluate_skills(model, env, n_episodes=1).lengths.tolist() == [[4]] * 3
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
