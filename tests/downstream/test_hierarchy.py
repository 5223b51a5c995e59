"""Environments whose action is a skill."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import FilterObservation, TimeLimit, TransformObservation
from sb3_contrib import MaskablePPO
from sb3_contrib.common.maskable.utils import get_action_masks
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecMonitor,
    VecNormalize,
)

from sb3_diayn import DIAYNWrapper
from sb3_diayn.downstream.hierarchy import SkillActionEnv, SkillActionVecEnv, WaitAtEnd
from tests.helpers.envs import (
    ActionEnv,
    CountingEnv,
    EchoEnv,
    NoOptionsEnv,
    PointEnv,
    SameArrayEnv,
)
from tests.helpers.models import K as COUNTING_K
from tests.helpers.models import (
    counting,
    make_callback,
    make_dqn,
    make_sac,
    masked,
    recurrent,
    small_net,
)
from tests.helpers.scripted import DIRECTIONS, K, scripted, walker

EAST, NORTH, WEST, _ = range(K)


def with_skills(model, n_skills=K):
    """What a scripted model lacks to look as if trained with the callback."""
    model.diayn_state = {"n_skills": n_skills}
    return model


def walking(**kwargs):
    return SkillActionEnv(PointEnv(**kwargs), with_skills(walker()), steps_per_skill=3)


def counting_env(model=None, **kwargs):
    """Skills of a CountingEnv do nothing: rewards are 1, 2, 3, ... whatever is chosen."""
    length = kwargs.pop("length", 5)
    truncate = kwargs.pop("truncate", False)
    env = CountingEnv(length=length, truncate=truncate)
    return SkillActionEnv(env, model or counting_model(), **({"steps_per_skill": 3} | kwargs))


def counting_model():
    return with_skills(make_sac(counting()), COUNTING_K)


def counting_venv(lengths, truncate=False, **kwargs):
    def make(length):
        return lambda: WaitAtEnd(CountingEnv(length=length, truncate=truncate))

    venv = DummyVecEnv([make(length) for length in lengths])
    return SkillActionVecEnv(venv, counting_model(), **({"steps_per_skill": 3} | kwargs))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("checker", [check_env, sb3_check_env])
def test_the_checkers_of_gymnasium_and_sb3_pass(checker):
    checker(walking())


def test_a_skill_runs_k_steps():
    env = walking(length=20)
    start, _ = env.reset(seed=0)
    obs, reward, terminated, truncated, info = env.step(NORTH)
    np.testing.assert_allclose(obs - start, [0, 3])
    assert reward == pytest.approx(3 * start[0]) and not terminated and not truncated
    assert (info["skill"], info["primitive_steps"]) == (NORTH, 3)
    obs, reward, *_ = env.step(np.array(EAST))  # what predict() returns
    np.testing.assert_allclose(obs - start, [3, 3])
    assert reward == pytest.approx(3 * start[0] + 1 + 2 + 3)


@pytest.mark.parametrize("truncate", [False, True])
def test_an_end_stops_the_skill(truncate):
    env = counting_env(truncate=truncate)
    env.reset()
    assert env.step(0)[1] == 1 + 2 + 3
    obs, reward, terminated, truncated, info = env.step(1)
    np.testing.assert_array_equal(obs, [5, 0])
    assert reward == 4 + 5 and (terminated, truncated) == (not truncate, truncate)
    assert info["primitive_steps"] == 2


def with_goal():
    """A PointEnv that also observes a goal, first."""
    space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float64)
    return TransformObservation(PointEnv(), lambda obs: np.append(7.0, obs), space)


def test_a_controller_may_see_more_than_its_skills():
    """The skills walk along the first coordinate that they see: the second one of this."""
    seen = []

    def script(obs, skills):
        seen.extend(obs)
        return DIRECTIONS[skills]

    env = SkillActionEnv(with_goal(), with_skills(scripted(script)), obs_indices="1:")
    obs, _ = env.reset(seed=0)
    assert obs.shape == (3,)
    assert env.step(EAST)[0][:2] == pytest.approx([7, 10], abs=0.1)
    assert seen[0] == pytest.approx(obs[1:])
    assert seen[-1] == pytest.approx([9, 0], abs=0.1)

    venv = make_vec_env(with_goal, 2, wrapper_class=WaitAtEnd)
    venv = SkillActionVecEnv(venv, with_skills(walker()), obs_indices=[1, 2])
    assert venv.reset().shape == (2, 3)
    assert venv.step(np.array([EAST, WEST]))[0][:, 1] == pytest.approx([10, -10], abs=0.1)


def test_a_controller_of_dicts_may_see_more_than_its_skills():
    env = EchoEnv("goal", box=True)
    seen = DIAYNWrapper(FilterObservation(env, ["observation"]), K)
    model = with_skills(SAC("MultiInputPolicy", seen, buffer_size=10, device="cpu"))
    env = SkillActionEnv(env, model, obs_indices=["observation"])
    obs, _ = env.reset(seed=0)
    assert set(obs) == {"observation", "achieved_goal", "desired_goal"}
    assert set(env.step(0)[0]) == set(obs)


def test_rewards_within_a_skill_are_discounted_on_request():
    env = counting_env(gamma=0.5, length=7)
    env.reset()
    *_, info = first = env.step(0)
    assert first[1] == pytest.approx(1 + 2 / 2 + 3 / 4) and info["task_reward"] == 6
    # With gamma**k for the controller, the two are the discounted return of the environment.
    returns = [first[1], env.step(0)[1], env.step(0)[1]]
    total = sum(0.5 ** (3 * index) * reward for index, reward in enumerate(returns))
    assert total == pytest.approx(sum(0.5**step * (step + 1) for step in range(7)))


def test_the_inner_environment_keeps_its_spaces():
    inner = PointEnv()
    env = SkillActionEnv(inner, with_skills(walker()))
    assert env.action_space == gym.spaces.Discrete(K)
    assert env.observation_space == inner.observation_space
    assert inner.action_space == PointEnv().action_space


@pytest.mark.slow
def test_the_model_may_be_new_or_loaded_and_is_not_changed(tmp_path):
    model = make_sac(DIAYNWrapper(PointEnv(), K))
    model.learn(25, callback=make_callback())
    model.save(tmp_path / "model")
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    paths = []
    for skills in (model, SAC.load(tmp_path / "model", device="cpu")):
        env = SkillActionEnv(PointEnv(), skills, steps_per_skill=2)
        env.reset(seed=0)
        paths.append([env.step(skill)[0] for skill in range(K)])
    np.testing.assert_array_equal(*paths)
    assert model.num_timesteps == 25
    assert all((before[name] == value).all() for name, value in model.policy.state_dict().items())


# -- vectorised ------------------------------------------------------------------------------


def test_vectorised_is_the_same_as_one_by_one():
    lengths, rng = (5, 7, 20), np.random.default_rng(0)
    venv = counting_venv(lengths, truncate=True)
    single = [TimeLimit(counting_env(length=length, truncate=True), 50) for length in lengths]
    observations = venv.reset()
    expected = [env.reset()[0] for env in single]
    for _ in range(12):
        np.testing.assert_array_equal(observations, expected)
        skills = rng.integers(COUNTING_K, size=len(lengths))
        observations, rewards, dones, infos = venv.step(skills)
        expected = []
        for index, env in enumerate(single):
            obs, reward, terminated, truncated, info = env.step(skills[index])
            assert rewards[index] == reward and dones[index] == (terminated or truncated)
            names = ("skill", "primitive_steps", "task_reward")
            assert [infos[index][name] for name in names] == [info[name] for name in names]
            if dones[index]:
                np.testing.assert_array_equal(infos[index]["terminal_observation"], obs)
                obs, _ = env.reset()
            expected.append(obs)


def test_vectorised_rewards_are_discounted_on_request():
    venv = counting_venv((5, 20), gamma=0.5)
    venv.reset()
    _, rewards, _, infos = venv.step([0, 0])
    np.testing.assert_allclose(rewards, [1 + 2 / 2 + 3 / 4] * 2)
    assert [info["task_reward"] for info in infos] == [6, 6]
    _, rewards, dones, infos = venv.step([0, 0])
    np.testing.assert_allclose(rewards, [4 + 5 / 2, 4 + 5 / 2 + 6 / 4])
    assert [info["task_reward"] for info in infos] == [9, 15] and dones.tolist() == [True, False]


@pytest.mark.parametrize("n_envs", [0, 2])  # 0: a single one, not vectorised
@pytest.mark.parametrize("kind", ["discrete", "image", "image_dict"])
def test_dicts_and_images_reach_the_skills(kind, n_envs):
    task = EchoEnv(kind, box=True)
    model = with_skills(
        SAC("MultiInputPolicy", DIAYNWrapper(task), buffer_size=10, device="cpu"), 20
    )
    seen, predict = [], model.predict
    model.predict = lambda obs, *args: seen.append(obs) or predict(obs, *args)
    if n_envs:
        venv = DummyVecEnv([lambda: WaitAtEnd(EchoEnv(kind, box=True))] * n_envs)
        env = SkillActionVecEnv(venv, model, steps_per_skill=3)
    else:
        env = SkillActionEnv(task, model, steps_per_skill=3)
    assert env.observation_space == task.observation_space
    env.reset()
    env.step([2] * n_envs if n_envs else 2)
    assert len(seen) == 3
    for obs in seen:
        assert len(obs["skill"]) == (n_envs or 1) and (obs["skill"][:, 2] == 1).all()
        row = {key: part[-1] for key, part in obs.items()}
        assert DIAYNWrapper(task).observation_space.contains(row)  # SB3 transposes in predict


@pytest.mark.parametrize("truncate", [False, True])
def test_an_early_end_waits_for_the_others_and_is_reported_as_sb3_expects(truncate):
    venv = counting_venv((2, 20), truncate)
    venv.reset()
    obs, rewards, dones, infos = venv.step([0, 0])
    np.testing.assert_array_equal(rewards, [1 + 2, 1 + 2 + 3])
    np.testing.assert_array_equal(dones, [True, False])
    np.testing.assert_array_equal(obs, [[0, 1], [3, 0]])  # the next episode has no step yet
    np.testing.assert_array_equal(infos[0]["terminal_observation"], [2, 0])
    assert infos[0]["TimeLimit.truncated"] is truncate
    assert [info["primitive_steps"] for info in infos] == [2, 3]


def test_all_but_the_masks_is_asked_of_the_environments():
    venv = counting_venv((5, 20))
    assert venv.has_attr("action_masks") and venv.has_attr("length")
    assert not venv.has_attr("no_such_attribute")
    assert venv.env_method("get_wrapper_attr", "length") == [5, 20]
    assert venv.env_method("get_wrapper_attr", "length", indices=[1]) == [20]


def test_a_skill_takes_one_step_until_told_otherwise():
    env = WaitAtEnd(CountingEnv())
    env.reset()
    infos = [env.step(np.zeros(1))[-1] for _ in range(2)]
    assert [info["primitive_steps"] for info in infos] == [1, 1]


def test_waiting_steps_nothing():
    venv = counting_venv((2, 20))
    venv.reset()
    venv.step([0, 0])
    assert [env.unwrapped.episodes for env in venv.unwrapped.envs] == [1, 0]
    assert [env.unwrapped.steps for env in venv.unwrapped.envs] == [0, 3]


def test_the_policy_runs_once_per_step_for_all_environments():
    model, batches = with_skills(walker()), []
    act = model.predict

    def predict(obs, *args, **kwargs):
        batches.append(obs.shape)
        return act(obs, *args, **kwargs)

    model.predict = predict
    venv = SkillActionVecEnv(make_vec_env(PointEnv, 4, wrapper_class=WaitAtEnd), model)
    venv.reset()
    venv.step([0, 1, 2, 3])
    assert batches == [(4, 2 + K)] * 10


def test_each_environment_plays_its_own_skill():
    venv = make_vec_env(PointEnv, K, seed=0, wrapper_class=WaitAtEnd)
    env = SkillActionVecEnv(venv, with_skills(walker()), steps_per_skill=4)
    start = env.reset()
    obs, *_ = env.step(np.arange(K))
    np.testing.assert_allclose(obs - start, 4 * DIRECTIONS, atol=1e-6)


def test_episode_statistics_count_steps_inside_and_decisions_outside():
    model = with_skills(walker())
    venv = make_vec_env(lambda: PointEnv(length=7), 1, wrapper_class=WaitAtEnd)  # adds a Monitor
    inside = SkillActionVecEnv(venv, model, steps_per_skill=3)
    plain = DummyVecEnv([lambda: WaitAtEnd(PointEnv(length=7))])
    outside = VecMonitor(SkillActionVecEnv(plain, model, steps_per_skill=3))
    for env, length in ((inside, 7), (outside, 3)):
        env.reset()
        infos = [env.step([EAST])[3][0] for _ in range(3)]
        assert infos[-1]["episode"]["l"] == length


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of fork, in a process with threads
def test_environments_in_other_processes_do_the_same():
    results = []
    for vec_env_cls in (DummyVecEnv, SubprocVecEnv):
        venv = make_vec_env(
            PointEnv,
            1,
            seed=0,
            wrapper_class=WaitAtEnd,
            vec_env_cls=vec_env_cls,
            env_kwargs={"length": 5},
        )
        env = SkillActionVecEnv(venv, with_skills(walker()), steps_per_skill=3)
        env.reset()
        results.append([env.step([WEST])[:3] for _ in range(3)])
        env.close()
    for ours, theirs in zip(*results, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)  # SubprocVecEnv's rewards are float64


# -- what SB3 makes of it --------------------------------------------------------------------


@pytest.mark.slow
def test_skills_of_a_normalised_model_see_normalised_observations(tmp_path):
    def make():
        return DummyVecEnv([lambda: DIAYNWrapper(PointEnv(), K)])

    normalized = VecNormalize(make(), norm_reward=False)
    model = make_sac(normalized)
    model.learn(40, callback=make_callback())
    normalized.save(tmp_path / "vecnormalize.pkl")
    model.save(tmp_path / "model")
    loaded = SAC.load(tmp_path / "model", device="cpu")
    statistics = VecNormalize.load(str(tmp_path / "vecnormalize.pkl"), make())
    ends = []
    for skills, vec_normalize in ((model, None), (loaded, statistics)):
        env = SkillActionEnv(PointEnv(), skills, vec_normalize=vec_normalize)
        env.reset(seed=0)
        ends.append(env.step(1)[0])
    np.testing.assert_array_equal(ends[0], ends[1])
    venv = make_vec_env(PointEnv, 2, wrapper_class=WaitAtEnd)
    forgotten = r"VecNormalize is missing: the model was trained on observations that it"
    for cls, env in ((SkillActionEnv, PointEnv()), (SkillActionVecEnv, venv)):
        with pytest.raises(ValueError, match=forgotten):
            cls(env, loaded)
    raw = make_sac(make())
    raw.learn(25, callback=make_callback())
    with pytest.raises(
        ValueError, match=r"VecNormalize normalises observations, and the model was tr"
    ):
        SkillActionEnv(PointEnv(), raw, vec_normalize=statistics)


@pytest.mark.slow
@pytest.mark.parametrize("algo", [PPO, DQN])
def test_stock_algorithms_learn_which_skill_pays(algo):
    """Task reward is x: the skill that walks east is the best from everywhere."""
    options: dict[str, Any] = {"n_steps": 16, "batch_size": 64}
    if algo is DQN:
        options = {"learning_starts": 50, "target_update_interval": 50, "gradient_steps": 4}
    venv = make_vec_env(PointEnv, 4, seed=0, wrapper_class=WaitAtEnd)
    env = SkillActionVecEnv(venv, with_skills(walker()), steps_per_skill=5)
    model = algo(
        "MlpPolicy",
        env,
        gamma=0.5,
        learning_rate=3e-3,
        policy_kwargs=small_net(),
        seed=0,
        device="cpu",
        **options,
    )
    model.learn(1000)
    start = env.reset()
    actions, _ = model.predict(start, deterministic=True)
    np.testing.assert_array_equal(actions, [EAST] * 4)


def test_a_recurrent_policy_remembers_within_an_episode_and_forgets_after():
    starts, memories = [], []
    model = with_skills(scripted(lambda obs, skills: DIRECTIONS[skills]))

    def predict(obs, state=None, episode_start=None, deterministic=False):
        starts.append(bool(episode_start[0]))
        memories.append(state)
        return np.zeros((1, 2), np.float32), (state or 0) + 1

    model.predict = predict
    venv = DummyVecEnv([lambda: WaitAtEnd(PointEnv(length=4))])
    for env in (SkillActionEnv(PointEnv(length=4), model, steps_per_skill=2),):
        env.reset()
        env.step(0), env.step(0), env.reset(), env.step(0)
    assert starts == [True, False, False, False, True, False]
    assert memories == [None, 1, 2, 3, None, 1]
    starts.clear()
    env = SkillActionVecEnv(venv, model, steps_per_skill=2)
    env.reset()
    for _ in range(3):
        env.step([0])
    assert starts == [True, False, False, False, True, False]


# -- masks and memory ------------------------------------------------------------------------


class Watched(ActionEnv):
    """Remembers the actions that it got, and whether one was forbidden."""

    def __init__(self, **kwargs):
        super().__init__(discrete=True, **kwargs)
        self.taken, self.n_forbidden = [], 0

    def step(self, action):
        self.taken.append(int(action))
        self.n_forbidden += not self.action_masks()[action]
        return super().step(action)


def masked_skills():
    return with_skills(masked(DIAYNWrapper(ActionEnv(discrete=True), 2)), 2)


def test_skills_keep_to_the_masks():
    """The policy wants action 2, which is forbidden after every odd step."""
    env = SkillActionEnv(Watched(length=24), masked_skills(), steps_per_skill=4)
    env.reset(seed=0)
    for skill in (0, 1, 1, 0, 1, 0):
        env.step(skill)
    inner = env.unwrapped
    assert len(inner.taken) == 24 and inner.n_forbidden == 0
    assert inner.taken[::2] == [2] * 12


def test_skills_of_many_environments_keep_to_the_masks_of_each():
    """Episodes of 5 and of 20 steps: the first environment is ahead by an odd number of steps."""
    venv = DummyVecEnv([lambda n=n: WaitAtEnd(Watched(length=n)) for n in (5, 20)])
    env = SkillActionVecEnv(venv, masked_skills(), steps_per_skill=3)
    env.reset()
    for _ in range(6):
        env.step([0, 1])
    for inner in (each.unwrapped for each in venv.envs):
        assert inner.n_forbidden == 0 and inner.taken.count(2) >= len(inner.taken) // 2


def test_a_masked_controller_may_choose_each_skill():
    """The masks of the environment are about its own actions."""
    env = SkillActionEnv(Watched(), masked_skills(), steps_per_skill=4)
    assert env.action_masks().dtype == bool and env.action_masks().tolist() == [True, True]
    controller = MaskablePPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu")
    controller.learn(8)
    venv = DummyVecEnv([lambda: WaitAtEnd(Watched())] * 2)
    env = SkillActionVecEnv(venv, masked_skills(), steps_per_skill=4)
    assert get_action_masks(env).tolist() == [[True, True]] * 2
    assert get_action_masks(env).dtype == bool
    MaskablePPO("MlpPolicy", env, n_steps=4, batch_size=8, device="cpu").learn(8)


def test_a_recurrent_skill_does_not_remember_the_skill_before():
    """Skill 0 twice, then skill 1: the memory is cleared where the second one begins."""
    model = with_skills(recurrent(DIAYNWrapper(PointEnv(), 2)), 2)

    def walk(env, clear_at):
        obs, _ = env.reset(seed=0)
        state, path = None, []
        for step in range(9):
            seen = np.concatenate([obs, np.eye(2)[step // 6]]).astype(np.float32)
            start = np.array([step in clear_at])
            action, state = model.predict(seen, state, start, deterministic=True)
            obs, *_ = env.step(action)
            path.append(obs)
        return np.array(path[2::3])

    expected = walk(PointEnv(), {0, 6})
    env = SkillActionEnv(PointEnv(), model, steps_per_skill=3)
    env.reset(seed=0)
    assert np.array([env.step(skill)[0] for skill in (0, 0, 1)]) == pytest.approx(
        expected, abs=1e-5
    )
    assert np.abs(walk(PointEnv(), {0})[-1] - expected[-1]).max() > 0.01

    venv = make_vec_env(PointEnv, 2, seed=0, wrapper_class=WaitAtEnd)
    env = SkillActionVecEnv(venv, model, steps_per_skill=3)
    env.reset()
    path = [env.step([skill, 1])[0][0] for skill in (0, 0, 1)]
    assert np.array(path) == pytest.approx(expected, abs=1e-5)


# -- arrays and dicts that others own --------------------------------------------------------


def same_array_model(kind):
    env = DIAYNWrapper(SameArrayEnv(kind), 2)
    policy = "MlpPolicy" if kind == "vector" else "MultiInputPolicy"
    return with_skills(PPO(policy, env, policy_kwargs=small_net(), device="cpu", seed=0), 2)


def first(obs):
    return float(np.ravel(obs["n"] if isinstance(obs, dict) else obs)[0])


@pytest.mark.parametrize("kind", ["vector", "matrix", "dict"])
@pytest.mark.parametrize("vectorised", [False, True])
def test_an_environment_that_returns_the_same_array_each_time(kind, vectorised):
    """Episodes of 5 steps end in 105, 205, 305, whatever the next reset writes where."""
    model = same_array_model(kind)
    if vectorised:
        venv = DummyVecEnv([lambda: WaitAtEnd(SameArrayEnv(kind))])
        env = SkillActionVecEnv(venv, model, steps_per_skill=3)
    else:
        env = DummyVecEnv([lambda: SkillActionEnv(SameArrayEnv(kind), model, steps_per_skill=3)])
    env.reset()
    for episode in (1, 2, 3):
        env.step(np.array([0]))
        *_, infos = env.step(np.array([1]))
        assert first(infos[0]["terminal_observation"]) == 100 * episode + 5
        assert infos[0]["x_position"] == 100 * episode + 5


@pytest.mark.slow
def test_observations_are_the_controllers_own():
    env = SkillActionEnv(SameArrayEnv(), same_array_model("vector"), steps_per_skill=2)
    obs, _ = env.reset()
    later, *_ = env.step(0)
    assert (obs, later) == (100, 102)
    obs[:], later[:] = -1, -1  # nor does the policy see what a controller writes
    seen, predict = [], env._skills._model.predict
    env._skills._model.predict = lambda obs, *args: seen.append(obs[0, 0]) or predict(obs, *args)
    env.step(0)
    assert seen == [102, 103]


def test_infos_of_the_environments_stay_as_they_are():
    class Own(DummyVecEnv):
        def step_wait(self):
            *rest, self.infos = super().step_wait()
            return *rest, self.infos

    venv = Own([lambda: WaitAtEnd(CountingEnv())] * 2)
    env = SkillActionVecEnv(venv, counting_model(), steps_per_skill=3)
    env.reset()
    *_, infos = env.step([0, 1])
    assert all("skill" in info for info in infos)
    assert not any("skill" in info for info in venv.infos)


# -- what is registered, and what takes no options -------------------------------------------


def test_environments_that_take_no_options():
    model = with_skills(walker())
    for env in (SkillActionEnv(NoOptionsEnv(), model), WaitAtEnd(NoOptionsEnv())):
        obs, _ = env.reset(seed=0)
        assert obs.shape == (2,)
    env = SkillActionVecEnv(make_vec_env(NoOptionsEnv, 2, wrapper_class=WaitAtEnd), model)
    assert env.reset().shape == (2, 2)


class KeepOptions(PointEnv):
    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return obs, info | {"options": options}


def test_options_reach_the_environment_as_they_are():
    options = {"skill": "of the environment", "hard": 1}
    for env in (SkillActionEnv(KeepOptions(), with_skills(walker())), WaitAtEnd(KeepOptions())):
        assert env.reset(options=options)[1]["options"] == options


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_registered_environment_passes_the_checkers_and_is_made_again():
    def make():
        return gym.make("sb3_diayn/PointBox-v0", max_episode_steps=20)

    model = make_sac(DIAYNWrapper(make(), 3))
    model.learn(25, callback=make_callback())
    for env in (SkillActionEnv(make(), model, steps_per_skill=3, gamma=0.5), WaitAtEnd(make())):
        check_env(env, skip_render_check=True)
        sb3_check_env(env)
        assert type(gym.make(env.spec)) is type(env)
    env = SkillActionEnv(make(), model, steps_per_skill=3, gamma=0.5, deterministic=False)
    again = gym.make(TimeLimit(env, 50).spec)  # a wrapper outside copies the spec
    assert again.get_wrapper_attr("steps_per_skill") == 3
    assert again.get_wrapper_attr("gamma") == 0.5
    assert again.get_wrapper_attr("_skills")._model is model
    assert again.get_wrapper_attr("_skills")._deterministic is False


# -- what is refused -------------------------------------------------------------------------


def refused(**kwargs):
    return lambda: SkillActionEnv(PointEnv(), with_skills(walker()), **kwargs)


STEPS = r"steps_per_skill={} is not a positive integer; expected .* at least 1\. The paper used 10"
GAMMA = r"gamma={} is not a discount; expected a number above 0 and at most 1\. Leave it out"
PLAIN = r"venv=.* cannot run skills in parallel; expected plain .*wrapper_class=WaitAtEnd.*outside"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "match"),
    [
        (refused(steps_per_skill=0), STEPS.format("0")),
        (refused(steps_per_skill=2.0), STEPS.format(r"2\.0")),
        (refused(steps_per_skill=True), STEPS.format("True")),
        (refused(gamma=0), GAMMA.format("0")),
        (refused(gamma=1.1), GAMMA.format(r"1\.1")),
        (refused(gamma="1"), GAMMA.format("'1'")),
        (
            lambda: SkillActionEnv(PointEnv(), walker()),
            r"model=PPO has no discriminator; expected a model trained with DIAYNCallback",
        ),
        (
            lambda: SkillActionEnv(CountingEnv(), with_skills(walker())),
            r"does not fit the model, whose observation_space is .*Make the environment that",
        ),
        (refused(obs_indices="2:"), r"obs_indices='2:' does not choose coordinates"),
        (refused(obs_indices=[0]), r"env=.* does not fit the model.*their part with obs_indices"),
        (
            lambda: SkillActionEnv(DIAYNWrapper(PointEnv(), K), with_skills(walker())),
            r"does not fit the model, .*expected an environment without DIAYNWrapper",
        ),
        (
            lambda: SkillActionEnv(
                CountingEnv(discrete=True), with_skills(make_sac(counting()), COUNTING_K)
            ),
            r"does not fit the model, whose action_space is .*Discrete\(3\)",
        ),
        (lambda: SkillActionVecEnv(make_vec_env(PointEnv, 2), with_skills(walker())), PLAIN),
        (
            lambda: SkillActionVecEnv(
                VecNormalize(make_vec_env(PointEnv, 2, wrapper_class=WaitAtEnd)),
                with_skills(walker()),
            ),
            PLAIN,
        ),
    ],
)
def test_refused(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_skill_that_does_not_exist_is_refused():
    env = walking()
    env.reset()
    with pytest.raises(ValueError, match=r"skill=4 is not one of the skills; expected .* 0 to 3"):
        env.step(4)
    venv = counting_venv((5,))
    venv.reset()
    with pytest.raises(ValueError, match=r"skill=-1 is not one of the skills"):
        venv.step([-1])


def test_monitor_inside_of_one_environment_counts_its_steps():
    env = SkillActionEnv(Monitor(PointEnv(length=7)), with_skills(walker()), steps_per_skill=3)
    env.reset()
    infos = [env.step(EAST)[4] for _ in range(3)]
    assert infos[-1]["episode"]["l"] == 7


def test_dqn_runs_on_a_single_environment():
    make_dqn(walking()).learn(30)
