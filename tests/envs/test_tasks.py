"""The registered tasks: rewards and ends that can be checked by hand."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

import sb3_diayn  # noqa: F401  (registers them)
from sb3_diayn.envs.point_navigation import PointNavigationEnv

POINT = ["PointBox", "PointHallway", "PointUMaze"]
MUJOCO = ["HalfCheetahHurdle", "AntWaypoints"]


def make(name, **kwargs):
    return gym.make(f"sb3_diayn/{name}-v0", **kwargs)


@pytest.mark.filterwarnings("ignore:.*(precision lowered|minimum value is -inf|maximum value is)")
@pytest.mark.parametrize("checker", [check_env, sb3_check_env])
@pytest.mark.parametrize("name", POINT + MUJOCO)
def test_the_checkers_of_gymnasium_and_sb3_pass(checker, name):
    checker(make(name).unwrapped, **({"skip_render_check": True} if name in MUJOCO else {}))


@pytest.mark.parametrize("name", POINT + MUJOCO)
def test_the_same_seed_starts_the_same_episode(name):
    env = make(name)
    first, again, other = (env.reset(seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_point_walks_a_tenth_per_step_and_stops_at_the_wall():
    env = PointNavigationEnv("box")
    start, _ = env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(np.array([1.0, -0.5], np.float32))
    np.testing.assert_allclose(obs - start, [0.1, -0.05], atol=1e-6)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["x_position"] == pytest.approx(obs[0])
    for _ in range(30):
        obs, *_ = env.step(np.array([1.0, -7.0], np.float32))
    np.testing.assert_allclose(obs, [1.0, -1.0])


def test_the_walls_of_the_corridor_hold_until_the_room():
    env = PointNavigationEnv("hallway")
    env.reset(seed=0)
    up, right = np.eye(2, dtype=np.float32)[::-1]
    for _ in range(10):
        obs, *_ = env.step(up)
    assert obs[1] == pytest.approx(0.15)
    for _ in range(25):
        obs, *_ = env.step(right)
    assert obs[0] > 0.5
    for _ in range(10):
        obs, *_ = env.step(up)
    assert obs[1] == pytest.approx(1.0)


def test_the_goal_pays_once_and_ends_the_episode():
    env = make("PointHallway")
    obs, _ = env.reset(seed=0)
    goal = np.array([0.8, 0.8], np.float32)
    rewards, terminated = [], False
    while not terminated:
        target = np.array([0.2, 0.0]) if obs[0] < 0.1 else goal
        action = np.clip((target - obs) / 0.1, -1, 1).astype(np.float32)
        obs, reward, terminated, _, info = env.step(action)
        rewards.append(reward)
    assert rewards == [0.0] * (len(rewards) - 1) + [1.0] and info["is_success"]
    assert np.linalg.norm(obs - goal) <= 0.2


def test_the_maze_takes_three_directions():
    env = make("PointUMaze")
    obs, _ = env.reset(seed=0)
    right, up, left = np.array([(1, 0), (0, 1), (-1, 0)], np.float32)
    for direction, wall in ((right, (1, -0.85)), (up, (1, 1)), (left, (-0.8, 1))):
        for _ in range(25):
            obs, reward, terminated, _, info = env.step(direction)
            if terminated:
                break
        np.testing.assert_allclose(obs[:2], wall, atol=0.06)
    assert reward == 1 and terminated and info["is_success"]


@pytest.mark.parametrize("angle", np.linspace(0, 2 * np.pi, 12, endpoint=False))
def test_no_constant_action_leads_through_the_maze(angle):
    env = make("PointUMaze")
    env.reset(seed=0)
    action = np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)])
    steps = [env.step(action) for _ in range(200)]
    assert not any(step[1] for step in steps)
    assert [step[3] for step in steps] == [False] * 199 + [True]


def test_the_velocity_is_what_the_walls_let_through():
    env = PointNavigationEnv("box", velocity=True)
    obs, _ = env.reset(seed=0)
    assert obs.shape == (4,) and (obs[2:] == 0).all()
    obs, *_ = env.step(np.array([7.0, -0.5], np.float32))
    np.testing.assert_allclose(obs[2:], [1.0, -0.5], atol=1e-5)
    for _ in range(20):
        obs, *_ = env.step(np.array([1.0, -0.1], np.float32))
    np.testing.assert_allclose(obs[2:], [0.0, -0.1], atol=1e-5)


def test_without_a_goal_a_point_has_its_time_limit_and_no_reward():
    env = make("PointHallway", goal=None)
    env.reset(seed=0)
    steps = [env.step(env.action_space.sample()) for _ in range(100)]
    assert sum(step[1] for step in steps) == 0
    assert [step[3] for step in steps] == [False] * 99 + [True]


def test_a_point_is_drawn_where_it_is():
    env = make("PointHallway", render_mode="rgb_array")
    env.reset(seed=0)
    frame = env.render()
    assert frame.shape == (220, 320, 3) and frame.dtype == np.uint8
    rows, columns = np.nonzero((frame == (200, 30, 30)).all(axis=2))
    assert rows.mean() == pytest.approx(110, abs=4)  # y = 0, in the middle
    assert columns.mean() == pytest.approx(20, abs=5)  # x = -1.9, at 10 + 10 pixels


@pytest.mark.parametrize(
    ("kwargs", "match"),
    [
        ({"layout": "maze"}, r"layout='maze' is not known; .*\['box', 'hallway', 'umaze'\]"),
        ({"goal": (2, 0)}, r"goal=\(2, 0\) is not a free point .*Move it inside"),
        ({"goal": (1, 2, 3)}, r"goal=\(1, 2, 3\) is not a free point .*expected x and y"),
    ],
)
def test_refused(kwargs, match):
    with pytest.raises(ValueError, match=match):
        PointNavigationEnv(**kwargs)


def place(env, **qpos):
    """Put the body somewhere and let one step pass without torque."""
    positions = env.unwrapped.data.qpos.copy()
    for index, value in zip((0, 1, 2), qpos.values(), strict=False):
        positions[index] = value
    env.unwrapped.set_state(positions, np.zeros(env.unwrapped.model.nv))
    return env.step(np.zeros(env.action_space.shape, np.float32))


def test_a_hurdle_pays_once_and_two_at_once_pay_two():
    env = make("HalfCheetahHurdle")
    env.reset(seed=0)
    rewards = [place(env, x=x, z=1.0)[1] for x in (1.5, 2.1, 1.5, 2.1, 8.5)]
    assert rewards == [0, 1, 0, 0, 2]
    assert place(env, x=8.5, z=1.0)[4]["hurdles_passed"] == 3
    env.reset(seed=0)
    assert place(env, x=2.1, z=1.0)[1] == 1


def test_a_hurdle_is_in_the_way():
    """A cheetah that is pushed along the ground has to go over it."""
    heights = {}
    for hurdles in ((), (1.5,)):
        env = make("HalfCheetahHurdle", hurdles=hurdles)
        env.reset(seed=0)
        path = []
        for _ in range(40):
            env.unwrapped.data.qvel[0] = 2.0  # metres per second
            env.step(np.zeros(6, np.float32))
            path.append(env.unwrapped.data.qpos[1])
        heights[hurdles] = max(path[10:])  # after it has fallen down
    assert heights[(1.5,)] > heights[()] + 0.15


def test_the_cheetah_itself_is_gymnasiums():
    ours, theirs = make("HalfCheetahHurdle"), gym.make("HalfCheetah-v5")
    assert ours.observation_space == theirs.observation_space
    observations = [env.reset(seed=0)[0] for env in (ours, theirs)]
    for _ in range(20):
        np.testing.assert_allclose(*observations, atol=1e-9)
        observations = [env.step(np.full(6, 0.2, np.float32))[0] for env in (ours, theirs)]


def test_waypoints_pay_in_order_and_the_last_ends_the_episode():
    env = make("AntWaypoints")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (107,)
    corners = [(2, -2), (2, 2), (-2, 2), (-2, 2), (-2, -2), (2, -2), (1.4, 2), (2, 2.4)]
    steps = [place(env, x=x, y=y, z=0.6) for x, y in corners]
    assert [step[1] for step in steps] == [0, 1, 1, 0, 1, 1, 0, 1]
    assert [step[2] for step in steps] == [False] * 7 + [True]
    assert steps[-1][4]["waypoints_reached"] == 5
    np.testing.assert_allclose(steps[-1][0][:2], (2, 2.4), atol=0.05)


def test_pictures_show_the_next_waypoint_brightest():
    env = make("AntWaypoints")
    env.reset(seed=0)

    def alphas():
        return pytest.approx(env.unwrapped.model.site_rgba[:, 3])

    assert alphas() == [0.8, 0.2, 0.2, 0.2, 0.2]
    place(env, x=2, y=2, z=0.6)
    assert alphas() == [0.0, 0.8, 0.2, 0.2, 0.2]
    env.reset()
    assert alphas() == [0.8, 0.2, 0.2, 0.2, 0.2]


def test_an_ant_moves_among_waypoints_as_in_its_own_environment():
    task, ant = (
        gym.make(name, exclude_current_positions_from_observation=False)
        for name in ("sb3_diayn/AntWaypoints-v0", "Ant-v5")
    )
    task.reset(seed=0)
    ant.reset(seed=0)
    rng = np.random.default_rng(0)
    for action in rng.uniform(-1, 1, (50, 8)):
        np.testing.assert_array_equal(task.step(action)[0], ant.step(action)[0])


@pytest.mark.parametrize(
    ("name", "kwargs", "attribute"),
    [
        ("HalfCheetahHurdle", {"hurdles": (1.0,)}, "_hurdles"),
        ("AntWaypoints", {"waypoints": ((1.0, 1.0),)}, "_waypoints"),
    ],
)
def test_a_copy_in_another_process_is_the_same_task(name, kwargs, attribute):
    env = make(name, **kwargs).unwrapped
    copy = pickle.loads(pickle.dumps(env))
    np.testing.assert_array_equal(getattr(copy, attribute), getattr(env, attribute))
    assert copy.observation_space == env.observation_space
