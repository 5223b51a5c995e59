"""The one way to play a skill, and episodes as they are under every wrapper."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit, TransformObservation
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
)

from sb3_diayn import DIAYNWrapper, GymVecEnv, VecDIAYNWrapper
from sb3_diayn.downstream import ScheduledSkills
from sb3_diayn.evaluation import SkillPolicy, evaluate_skills, play_skills, trajectories
from sb3_diayn.evaluation.trajectories import as_vec_env
from sb3_diayn.evaluation.video import record_skills
from sb3_diayn.observations import assign_obs
from tests.helpers.envs import ActionEnv, CountingEnv, EchoEnv, PointEnv, SameArrayEnv
from tests.helpers.models import (
    constant_discriminator,
    make_callback,
    make_ppo,
    make_sac,
    masked,
    recurrent,
)
from tests.helpers.scripted import DIRECTIONS, K, compass, walker

ENDLESS = 10**9


def play(model, env, skills, **kwargs):
    return list(play_skills(model, env, skills, **kwargs))


def untrained(env, **kwargs):
    policy = "MultiInputPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpPolicy"
    return PPO(policy, env, policy_kwargs={"net_arch": [4]}, device="cpu", seed=0, **kwargs)


# -- masks and memory ------------------------------------------------------------------------


def test_stock_tools_play_a_masked_model_without_a_forbidden_action():
    env = ScheduledSkills(ActionEnv(discrete=True), 2, [(0, 3), (1, 3)])
    model, taken = masked(DIAYNWrapper(ActionEnv(discrete=True), 2)), []
    evaluate_policy(
        SkillPolicy(model, env),
        env,
        n_eval_episodes=1,
        warn=False,
        callback=lambda local, _: taken.append(int(local["actions"][0])),
    )
    assert len(taken) == 10 and all(taken[step] == 2 for step in range(0, 10, 2))
    assert all(taken[step] != 2 for step in range(1, 10, 2))


def test_a_mask_is_asked_for_by_hand_too():
    env = DIAYNWrapper(ActionEnv(discrete=True), 2, skill=1)
    policy = SkillPolicy(masked(env), env)
    obs, _ = env.reset(seed=0)
    for step in range(4):
        action, _ = policy.predict(obs, deterministic=True)
        assert (action == 2) == (step % 2 == 0)
        obs, *_ = env.step(action)


def by_hand(model, observations, clear_at):
    """Actions of a recurrent model whose memory is cleared at the given steps."""
    actions, state = [], None
    for step, obs in enumerate(observations):
        start = np.array([step in clear_at])
        action, state = model.predict(obs, state, start, deterministic=True)
        actions.append(action)
    return np.array(actions)


def test_a_memory_belongs_to_one_skill():
    """Nine steps: skill 0 for three, a mixture for two, another one for two, skill 1 for two."""
    schedule = [(0, 3), ({0: 3, 1: 1}, 2), ({0: 1, 1: 1}, 2), (1, 2)]
    env = ScheduledSkills(PointEnv(length=9), 2, schedule)
    model = recurrent(DIAYNWrapper(PointEnv(), 2))
    policy, observations, actions, state = SkillPolicy(model, env), [], [], None
    obs, _ = env.reset(seed=0)
    for _ in range(9):
        action, state = policy.predict(obs, state, np.zeros(1, bool), deterministic=True)
        observations.append(obs)
        actions.append(action)
        obs, *_ = env.step(action)
    expected = by_hand(model, observations, {0, 3, 5, 7})
    assert np.array(actions) == pytest.approx(expected, abs=1e-6)
    assert np.abs(by_hand(model, observations, {0}) - expected).max() > 0.01


def test_a_memory_in_normalised_environments():
    """One of two environments changes its skill; the statistics learn meanwhile."""
    schedules = [[(0, 30), (1, 30)], [(1, 60)]]
    venv = DummyVecEnv([lambda s=s: ScheduledSkills(PointEnv(length=60), 2, s) for s in schedules])
    env = VecNormalize(venv)
    model = recurrent(DIAYNWrapper(PointEnv(), 2))
    starts, predict = [], model.predict
    policy = SkillPolicy(model, env)
    model.predict = lambda *args, **kwargs: starts.append(args[2]) or predict(*args, **kwargs)
    obs, state = env.reset(), None
    for _ in range(60):
        actions, state = policy.predict(obs, state, np.zeros(2, bool), deterministic=True)
        obs, *_ = env.step(actions)
    cleared = np.array(starts)
    assert np.argwhere(cleared).tolist() == [[30, 0]]


@pytest.mark.parametrize("make", [PPO, SAC])
def test_each_episode_has_its_own_noise(make):
    """gSDE: the same within an episode, whose observations are all the same here."""
    env = DIAYNWrapper(ActionEnv(), 2)
    model = make("MlpPolicy", env, use_sde=True, policy_kwargs={"net_arch": [4]}, device="cpu")
    policy = SkillPolicy(model, env)
    distribution = getattr(model.policy, "actor", model.policy).action_dist
    before = distribution.exploration_mat, distribution.exploration_matrices
    obs = np.stack([env.reset(seed=0)[0]] * 3)
    starts = [np.full(3, start) for start in (True, False, True)]
    first, second, third = (policy.predict(obs, None, start)[0] for start in starts)
    np.testing.assert_array_equal(first, second)
    assert len(np.unique([*first, *third], axis=0)) == 6
    assert distribution.exploration_mat is before[0]
    assert distribution.exploration_matrices is before[1]
    state = th.get_rng_state()
    alone = policy.predict(obs, None, starts[0], deterministic=True)[0]
    assert th.equal(th.get_rng_state(), state)
    np.testing.assert_array_equal(alone, model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("vectorised", [False, True])
def test_a_skill_is_played_for_the_whole_episode(vectorised):
    """In training environments that draw a new one every two steps."""
    if vectorised:
        env = VecDIAYNWrapper(DummyVecEnv([lambda: PointEnv(length=6)] * 2), K, skill_duration=2)
    else:
        env = DummyVecEnv([lambda: DIAYNWrapper(PointEnv(length=6), K, skill_duration=2)] * 2)
    for episode in play(walker(), env, [0, 1, 2, 3, 1], seed=0):
        assert episode.actions.tolist() == [DIRECTIONS[episode.skill].tolist()] * 6
    assert env.get_attr("skill_rule") == ["uniform"] * 2
    assert env.get_attr("skill_duration") == [2] * 2


# -- the end of an episode -------------------------------------------------------------------


class ClockEnv(EchoEnv):
    """Shows the step of the episode in a ``Dict`` or as the brightness of an image."""

    def observe(self, shown):
        if self.kind == "image":
            return np.full((36, 36, 3), 10 * self.steps, np.uint8)
        return {**super().observe(shown), "clock": np.array([self.steps], np.float32)}


def cut(env: gym.Env) -> gym.Env:
    return TimeLimit(DIAYNWrapper(env, 2), 5)


def counting_vec(n_envs: int = 2) -> DummyVecEnv:
    return DummyVecEnv([lambda: cut(CountingEnv(length=ENDLESS))] * n_envs)


def simulator() -> GymVecEnv:
    """Environments that reset themselves in the same step, as one ``VectorEnv``."""
    return GymVecEnv(
        gym.vector.SyncVectorEnv(
            [lambda: TimeLimit(CountingEnv(length=ENDLESS), 5)] * 2,
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    )


ENDS = {
    "alone": counting_vec,
    "normalized": lambda: VecNormalize(counting_vec(), clip_obs=1e6),
    "stacked": lambda: VecFrameStack(counting_vec(), 3),
    "both": lambda: VecNormalize(VecFrameStack(counting_vec(), 2), clip_obs=1e6),
    "vectorised": lambda: VecDIAYNWrapper(
        DummyVecEnv([lambda: TimeLimit(CountingEnv(length=ENDLESS), 5)] * 2), 2
    ),
    "simulator": lambda: VecDIAYNWrapper(simulator(), 2),
}


@pytest.mark.parametrize("make_env", ENDS.values(), ids=ENDS)
def test_an_episode_that_an_outer_wrapper_ends(make_env):
    """The observation is the step, so the states are 1 2 3 4 5."""
    env = make_env()
    for episode in play(untrained(env), env, [0, 1, 1], seed=0):
        assert episode.states[:, 0] == pytest.approx([1, 2, 3, 4, 5], abs=1e-3)
        assert episode.task_rewards.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("kind", ["image_dict", "image"])
def test_the_end_of_an_episode_of_images(kind):
    env = as_vec_env(cut(ClockEnv(kind, length=ENDLESS)))
    (episode,) = play(untrained(env), env, [1], seed=0)
    if kind == "image":
        assert episode.observations[:, 0, 0, 0].tolist() == [10, 20, 30, 40, 50]
    else:
        assert episode.observations["clock"].ravel().tolist() == [1, 2, 3, 4, 5]


def test_distances_include_the_last_step():
    """From 1 to 5 in steps of 1, next to the number of the episode."""
    env = counting_vec(1)
    discriminator = constant_discriminator([0.5, 0.5])
    evaluation = evaluate_skills(untrained(env), env, n_episodes=2, discriminator=discriminator)
    assert evaluation.distances.tolist() == [[4, 4], [4, 4]]
    assert evaluation.displacements.tolist() == [[4, 4], [4, 4]]


# -- wrappers that hide what a skill does ----------------------------------------------------


class ActionRepeat(gym.Wrapper):
    def step(self, action):
        for _ in range(4):
            obs, reward, terminated, truncated, info = self.env.step(action)
            if terminated or truncated:
                break
        return obs, reward, terminated, truncated, info


class Hide(gym.Wrapper):
    def step(self, action):
        *rest, _ = self.env.step(action)
        return *rest, {}


class HideAtEnd(gym.Wrapper):
    def step(self, action):
        *rest, terminated, truncated, info = self.env.step(action)
        return *rest, terminated, truncated, {} if truncated else info


class Lives(gym.Wrapper):
    """Ends an episode every three steps, as Atari's wrappers do at the loss of a life."""

    steps = 0

    def reset(self, **kwargs):
        self.obs, info = self.env.reset(**kwargs) if self.steps % 6 == 0 else (self.obs, {})
        return self.obs, info

    def step(self, action):
        self.obs, reward, _, _, info = self.env.step(action)
        self.steps += 1
        return self.obs, reward, self.steps % 3 == 0, False, info


def double(env: gym.Env) -> gym.Env:
    return TransformObservation(env, lambda obs: 2 * obs, env.observation_space)


HIDING = [
    (ActionRepeat, r"4 steps of DIAYNWrapper in one; expected one.*outside the wrapper that rep"),
    (Hide, r"no \['skill', 'task_reward'\]; .*Put DIAYNWrapper outside every wrapper that repl"),
    (HideAtEnd, r"no \['skill', 'task_reward'\]; .*outside every wrapper that replaces info"),
    (Lives, r"plays skill 0 in an episode of skill 1; expected .*begins and ends episodes"),
    (double, r"changes the observation .* expected it unchanged.*Put DIAYNWrapper outside"),
]


@pytest.mark.parametrize(("wrapper", "match"), HIDING, ids=[w.__name__ for w, _ in HIDING])
def test_a_wrapper_that_hides_what_a_skill_does_is_refused(wrapper, match):
    env = DummyVecEnv([lambda: wrapper(DIAYNWrapper(PointEnv(length=20), K))])
    with pytest.raises(ValueError, match=match):
        play(walker(), env, [0, 1], seed=0)


def test_a_film_with_a_hidden_task_reward_is_refused(tmp_path):
    env = Hide(DIAYNWrapper(PointEnv(render_mode="rgb_array"), K))
    with pytest.raises(ValueError, match=r"no \['skill', 'task_reward'\]"):
        record_skills(walker(), env, tmp_path, skills=[0])


# -- arrays and dicts that others own --------------------------------------------------------


class Simulator(VecEnvWrapper):
    """Returns the same arrays and dicts each step, and writes into the actions that it gets."""

    def reset(self):
        self.own = self.venv.reset()
        self.dones, self.infos = np.zeros(self.num_envs, bool), [{} for _ in range(self.num_envs)]
        return self.own

    def step_async(self, actions):
        self.venv.step_async(actions.copy())
        actions[:] = 0.5

    def step_wait(self):
        obs, rewards, self.dones[:], infos = self.venv.step_wait()
        assign_obs(self.own, ..., obs)
        for info, own in zip(infos, self.infos, strict=True):
            own.clear()
            own.update(info)
        return self.own, rewards, self.dones, self.infos


@pytest.mark.parametrize("kind", ["vector", "matrix", "dict"])
@pytest.mark.parametrize("where", ["environment", "simulator"])
def test_a_trajectory_has_arrays_of_its_own(kind, where):
    if where == "simulator":
        env = Simulator(DummyVecEnv([lambda: DIAYNWrapper(SameArrayEnv(kind), 2)]))
    else:
        env = DummyVecEnv([lambda: cut(SameArrayEnv(kind))])
    episodes = play(untrained(env), env, [0, 1], seed=0)
    for number, episode in enumerate(episodes, 1):
        expected = [100 * number + step for step in range(1, 6)]
        assert episode.states.reshape(5, -1)[:, 0].tolist() == expected
        assert episode.task_rewards.tolist() == expected
        assert episode.positions["x_position"].tolist() == expected
        assert (episode.actions != 0.5).all()


# -- VecNormalize ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normalized():
    """A model that was trained under ``VecNormalize``, and one that was not."""
    models = {}
    for name in ("normalised", "raw"):
        env = DummyVecEnv([lambda: DIAYNWrapper(PointEnv(length=5), K)])
        env = VecNormalize(env, norm_reward=False) if name == "normalised" else env
        models[name] = make_sac(env)
        models[name].learn(30, callback=make_callback())
    return models


def raw_env() -> DummyVecEnv:
    return DummyVecEnv([lambda: DIAYNWrapper(PointEnv(length=5, render_mode="rgb_array"), K)])


FORGOTTEN = r"VecNormalize is missing: the model was trained on observations that it norm"
NEW = r"vec_normalize has seen no observation yet; expected the statistics of the training"
NEEDLESS = r"VecNormalize normalises observations, and the model was trained on raw ones; expected"
PLAYERS = {
    "evaluate": lambda model, env, _: evaluate_skills(model, env, n_episodes=1),
    "play": lambda model, env, _: play(model, env, [0]),
    "film": lambda model, env, folder: record_skills(model, env, folder, skills=[0], max_steps=2),
}


@pytest.mark.slow
@pytest.mark.parametrize("player", PLAYERS.values(), ids=PLAYERS)
def test_a_model_and_its_vec_normalize_belong_together(player, normalized, tmp_path):
    model = normalized["normalised"]
    with pytest.raises(ValueError, match=FORGOTTEN):
        player(model, raw_env(), tmp_path)
    with pytest.raises(ValueError, match=NEW):
        player(model, VecNormalize(raw_env(), training=False), tmp_path)
    with pytest.raises(ValueError, match=NEEDLESS):
        player(normalized["raw"], VecNormalize(raw_env()), tmp_path)
    right = VecNormalize(raw_env(), training=False)
    right.obs_rms = model.get_vec_normalize_env().obs_rms
    player(model, right, tmp_path)
    player(normalized["raw"], raw_env(), tmp_path)


def test_a_zip_remembers_that_it_was_normalised(normalized, tmp_path):
    normalized["normalised"].save(tmp_path / "model")
    loaded = SAC.load(tmp_path / "model", device="cpu")
    with pytest.raises(ValueError, match=FORGOTTEN):
        evaluate_skills(loaded, raw_env(), n_episodes=1)
    with pytest.raises(ValueError, match=FORGOTTEN):
        SkillPolicy(loaded, ScheduledSkills(PointEnv(), K, [(0, 1)]))
    loaded.diayn_state["vec_normalize"] = None  # as in zips of before
    evaluate_skills(loaded, raw_env(), n_episodes=1)


def test_another_environment_does_not_change_how_a_model_was_trained(tmp_path):
    model, callback = make_sac(VecNormalize(raw_env(), norm_reward=False)), make_callback()
    model.learn(30, callback=callback)
    model.set_env(raw_env())
    model.save(tmp_path / "model")
    for each in (model, SAC.load(tmp_path / "model", device="cpu")):
        with pytest.raises(ValueError, match=FORGOTTEN):
            evaluate_skills(each, raw_env(), n_episodes=1)
    with pytest.raises(ValueError, match=FORGOTTEN):
        model.learn(30, callback=callback)


def test_raw_observations_are_normalised_by_hand(normalized):
    model = normalized["normalised"]
    statistics = model.get_vec_normalize_env()
    env = ScheduledSkills(PointEnv(), K, [(1, 5)])
    obs, _ = env.reset(seed=0)
    expected, _ = model.predict(statistics.normalize_obs(obs), deterministic=True)
    for policy in (SkillPolicy(model, env), SkillPolicy(model, env, vec_normalize=statistics)):
        assert policy.predict(obs, deterministic=True)[0] == pytest.approx(expected)
    venv = VecNormalize(DummyVecEnv([lambda: env]), training=False)
    venv.obs_rms = statistics.obs_rms
    venv.seed(0)
    assert SkillPolicy(model, venv).predict(venv.reset(), deterministic=True)[0][
        0
    ] == pytest.approx(expected)


# -- the environments of the training --------------------------------------------------------


@pytest.mark.parametrize("make", [make_sac, make_ppo])
def test_the_next_learn_begins_new_episodes_after_an_evaluation_in_its_environment(make):
    """Episodes of 5 steps are cut after 12 steps of training: the third is begun again."""
    env = DIAYNWrapper(CountingEnv(), 3)
    model = make(env, **({"n_steps": 12, "batch_size": 4} if make is make_ppo else {}))
    callback = make_callback()
    model.learn(12, callback=callback)
    evaluate_skills(model, model.get_env(), n_episodes=1)
    seen = []
    callback.on_step = lambda on_step=callback.on_step: (
        seen.append(float(model._last_obs[0, 0])) or on_step()
    )
    model.learn(12, callback=callback, reset_num_timesteps=False)
    assert seen[:6] == [0, 1, 2, 3, 4, 0]


# -- episodes without end --------------------------------------------------------------------


def test_episodes_without_end_are_cut_with_one_warning(monkeypatch):
    monkeypatch.setattr(trajectories, "DEFAULT_MAX_STEPS", 30)
    env = DummyVecEnv([lambda: DIAYNWrapper(PointEnv(length=ENDLESS), K)] * 3)
    with pytest.warns(UserWarning, match=r"max_steps=None: .*within 30 steps.*TimeLimit") as found:
        evaluation = evaluate_skills(walker(), env, n_episodes=2, discriminator=compass())
    assert len(found) == 1
    assert evaluation.lengths.tolist() == [[30, 30]] * K
    assert evaluation.distances == pytest.approx(np.full((K, 2), 29), abs=1e-3)


@pytest.mark.parametrize("n_envs", [1, 2, 3])
def test_episodes_with_and_without_end(n_envs):
    """Environment 0 never ends, the others do: each entry is played once, from its start."""
    env = DummyVecEnv([lambda: DIAYNWrapper(CountingEnv(), K)] * n_envs)
    env.envs[0].unwrapped.length = ENDLESS
    skills = [3, 0, 0, 1, 2, 2, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # who names max_steps needs no warning
        episodes = play(untrained(env), env, skills, max_steps=12, seed=0)
    assert sorted(episode.skill for episode in episodes) == sorted(skills)
    for episode in episodes:
        assert len(episode) in (5, 12)
        assert episode.states[:, 0].tolist() == list(range(1, len(episode) + 1))
    assert {len(episode) for episode in episodes} == ({12} if n_envs == 1 else {5, 12})


def test_a_time_limit_of_the_environment_may_be_longer(monkeypatch):
    monkeypatch.setattr(trajectories, "DEFAULT_MAX_STEPS", 10)
    env = DummyVecEnv([lambda: DIAYNWrapper(gym.make("Pendulum-v1", max_episode_steps=25), 2)])
    model = untrained(env)
    assert len(play(model, env, [0])[0]) == 25
    # Its ``spec`` still has the limit.
    env = DummyVecEnv([lambda: DIAYNWrapper(gym.make("Pendulum-v1").unwrapped, 2)])
    with pytest.warns(UserWarning, match=r"max_steps=None: .* within 10 steps"):
        assert len(play(model, env, [0])[0]) == 10


def test_max_steps_is_a_number_of_steps():
    env = DummyVecEnv([lambda: DIAYNWrapper(PointEnv(), K)])
    with pytest.raises(ValueError, match=r"max_steps=0 is not a positive integer"):
        play(walker(), env, [0], max_steps=0)
