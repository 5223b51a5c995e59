"""Environments and wrappers that do what others do not, each from a report of this ecosystem."""

import itertools
import random
import warnings

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as check_env_of_gymnasium
from gymnasium.wrappers import FlattenObservation, TimeLimit
from scipy.stats import chisquare
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_diayn import DIAYNCallback, DIAYNCheckpointCallback, DIAYNWrapper, VecDIAYNWrapper
from sb3_diayn.skills import SkillSampler
from tests.helpers.envs import CountingEnv, EchoEnv, PointEnv, SameArrayEnv, StepEnv
from tests.helpers.models import make_callback, make_ppo, make_sac
from tests.helpers.orders import REFUSED, WORKS, inner, vec

K = 5


# -- skills come from a generator of the wrapper's own ---------------------------------------


class SameStart(gym.Wrapper):
    """Begins each episode with the same seed, as Minigrid's ReseedWrapper does."""

    def reset(self, *, seed=None, options=None):
        return self.env.reset(seed=7, options=options)


class OtherGenerator(PointEnv):
    """An environment whose random numbers come from elsewhere."""

    def __init__(self, generator):
        super().__init__(length=4)
        self.generator = generator

    @property
    def np_random(self):
        return self.generator

    def reset(self, *, seed=None):  # without options, which SB3 accepts
        self.steps, self.position = 0, np.zeros(2)
        return self.position, {}


def drawn(env: gym.Env, n: int, **kwargs) -> list[int]:
    return [env.reset(**kwargs)[1]["skill"] for _ in range(n)]


def is_uniform(skills: list[int], n_skills: int = K) -> bool:
    return chisquare(np.bincount(skills, minlength=n_skills)).pvalue > 0.001


@pytest.mark.slow
def test_an_environment_that_reseeds_itself_plays_all_skills():
    env = DIAYNWrapper(SameStart(gym.make("Pendulum-v1")), n_skills=K)
    env.reset(seed=0)
    skills = drawn(env, 2000)
    assert is_uniform(skills)
    assert is_uniform([K * a + b for a, b in itertools.pairwise(skills)], K * K)


@pytest.mark.slow
@pytest.mark.parametrize(
    "generator", [np.random.RandomState(0), random.Random(0), np.random.default_rng(0), object()]
)
def test_any_generator_of_the_environment_does(generator):
    env = DIAYNWrapper(OtherGenerator(generator), n_skills=K)
    env.reset(seed=3)
    first = drawn(env, 1000)
    env.reset(seed=3)
    assert drawn(env, 1000) == first and is_uniform(first)
    env.reset(seed=4)
    assert drawn(env, 1000) != first
    assert (env.episode_state() is None) == (type(generator) is object)


@pytest.mark.slow
def test_skills_do_not_depend_on_the_numbers_of_the_environment():
    """Both generators have the same seed, of 4,000 environments: their first numbers differ."""
    pairs = []
    for seed in range(4000):
        env_number = np.random.default_rng(seed).integers(K)
        sampler = SkillSampler(K, "uniform")
        sampler.seed(seed)
        pairs.append(K * env_number + sampler.draw())
    assert is_uniform(pairs, K * K)


@pytest.mark.slow
@pytest.mark.parametrize("n_envs", [1, 20])
@pytest.mark.parametrize("rule", ["uniform", "balanced", "cycle"])
def test_counts_of_ten_thousand_draws(rule, n_envs):
    samplers = [SkillSampler(K, rule, index) for index in range(n_envs)]
    for index, sampler in enumerate(samplers):
        sampler.seed(10 + index)
    draws = np.array([[s.draw() for s in samplers] for _ in range(10_000 // n_envs)])
    counts = np.bincount(draws.ravel(), minlength=K)
    if rule == "uniform":
        assert chisquare(counts).pvalue > 0.001
    else:
        assert (counts == 10_000 / K).all()
        assert all(len(set(rows)) == K for rows in draws[:, 0].reshape(-1, K))  # its rounds
    if rule == "balanced":  # two draws within a round tell nothing else
        assert is_uniform(draws[::K, 0].tolist()) and (draws[:-K] != draws[K:]).any()


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["balanced", "cycle", "stratified"])
@pytest.mark.parametrize("cls", [DummyVecEnv, SubprocVecEnv])
def test_environments_play_different_skills_at_a_time(rule, cls):
    def make():
        return DIAYNWrapper(CountingEnv(), n_skills=6, skill=rule)

    env = cls([make] * 6)
    played = []

    class Watch(BaseCallback):
        def _on_step(self):
            played.append([info["skill"] for info in self.locals["infos"]])
            return True

    model = PPO("MlpPolicy", env, n_steps=10, batch_size=30, policy_kwargs={"net_arch": [4]})
    model.learn(600, callback=[DIAYNCallback(net_arch=[4]), Watch()])
    env.close()
    # Nobody has seeded anything: the first episode of 5 steps is over before they have joined.
    assert all(len(set(skills)) == 6 for skills in played[5:])


@pytest.mark.slow
def test_stratified_skills_have_the_same_number_of_steps():
    """However long their episodes are, and whichever skill an environment plays."""

    def make(length):
        return lambda: DIAYNWrapper(CountingEnv(length), n_skills=3, skill="stratified")

    env = DummyVecEnv([make(length) for length in (2, 3, 5, 7, 11, 13)])
    options = {"learning_starts": 30, "batch_size": 16, "policy_kwargs": {"net_arch": [4]}}
    model = SAC("MlpPolicy", env, seed=4, **options)
    model.learn(240, callback=DIAYNCallback(net_arch=[4]))
    skills = model.replay_buffer.skills[: model.replay_buffer.size()]
    assert np.bincount(skills.ravel()).tolist() == [80, 80, 80]


@pytest.mark.parametrize("n_envs", [1, 4])
@pytest.mark.parametrize("is_vectorized", [False, True])
def test_stratified_skills_need_an_environment_each(n_envs, is_vectorized):
    """With others the skills are drawn as with "balanced", and a warning says so."""

    def make():
        return (
            CountingEnv() if is_vectorized else DIAYNWrapper(CountingEnv(), 3, skill="stratified")
        )

    env = DummyVecEnv([make] * n_envs)
    if is_vectorized:
        env = VecDIAYNWrapper(env, 3, skill="stratified")
    model = make_sac(env)
    with pytest.warns(UserWarning, match=rf"skill='stratified' with n_envs={n_envs} .*multiple"):
        model.learn(200, callback=make_callback())
    assert env.get_attr("skill_rule") == ["balanced"] * n_envs
    assert set(model.replay_buffer.skills[: model.replay_buffer.size()].ravel()) == {0, 1, 2}


def test_stratified_skills_need_seeds_that_differ():
    """With one and the same seed, all environments would play one and the same skill for ever."""

    def make():
        env = DIAYNWrapper(CountingEnv(), 3, skill="stratified")
        env.reset(seed=5)
        return env

    model = make_sac(DummyVecEnv([make] * 3), seed=None)
    with pytest.warns(UserWarning, match=r"gives a skill 0 to 3 environments; .*consecutive seeds"):
        model.learn(60, callback=make_callback())
    assert set(model.replay_buffer.skills[:20].ravel()) == {0, 1, 2}


@pytest.mark.slow
def test_a_seed_of_the_model_is_enough():
    """Also where the environment ignores it."""

    def skills(seed):
        model = make_sac(DIAYNWrapper(OtherGenerator(object()), n_skills=K), seed=seed)
        model.learn(60, callback=make_callback())
        return model.replay_buffer.skills[:60].ravel().tolist()

    assert skills(1) == skills(1) != skills(2)


def test_a_wrapper_outside_that_fixes_the_seed():
    env = SameStart(DIAYNWrapper(PointEnv(length=5), n_skills=K))
    with pytest.warns(UserWarning, match=r"seed=7 came with 3 resets.*inside DIAYNWrapper"):
        make_sac(env).learn(40, callback=make_callback())


# -- N calls of learn are one ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("is_new", [False, True], ids=["one callback", "new callbacks"])
def test_an_episode_that_spans_calls_counts_once(is_new):
    model = make_sac(DIAYNWrapper(StepEnv(), n_skills=K), learning_starts=5000)
    callback = make_callback(min_task_return=90, task_reward_weight=1.0)
    for _ in range(14):
        if is_new:
            callback = make_callback(min_task_return=90, task_reward_weight=1.0)
        model.learn(60, callback=callback, reset_num_timesteps=False)
    assert callback._returns.means()["task_return"] == 100
    gate = model.replay_buffer.gate.is_open(np.arange(840), 90)
    assert gate[:800].all() and not gate[800:].any()


# -- the end of an episode -------------------------------------------------------------------


class Number(StepEnv):
    """The observation is the step of the episode; only who wraps it ends it."""

    def step(self, action):
        obs, reward, *_, info = super().step(action)
        return obs, reward, False, False, info


class Record(BaseCallback):
    """
    Keeps what others have in common with this package's callback, as it is afterwards.

    :param read: what to keep of each step, from SB3's local variables
    """

    def __init__(self, read):
        super().__init__()
        self.read, self.rows = read, []

    def _on_step(self):
        self.rows.append(self.read(self.locals))
        return True


def cut_by_five(n_skills: int = 2, **kwargs) -> gym.Env:
    return TimeLimit(DIAYNWrapper(Number(), n_skills=n_skills, **kwargs), 5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "outside",
    [
        lambda env: env,
        lambda env: VecNormalize(env, norm_reward=False),
        lambda env: VecFrameStack(env, 3),
        lambda env: VecNormalize(VecFrameStack(env, 2), norm_reward=False),
    ],
    ids=["alone", "normalized", "stacked", "both"],
)
def test_an_outer_time_limit(outside):
    """Observations are 1 2 3 4 5, on-policy and off-policy: 5 ends an episode of one kind only."""
    callback = make_callback()
    record = Record(lambda _: callback._rollout._steps[-1][0].item())
    model = make_ppo(outside(DummyVecEnv([cut_by_five])), n_steps=20, batch_size=10)
    model.learn(20, callback=[callback, record])
    assert record.rows == pytest.approx([1, 2, 3, 4, 5] * 4, abs=1e-4)

    model = make_sac(outside(DummyVecEnv([cut_by_five])), learning_starts=100)
    model.learn(20, callback=make_callback())
    reached = model.replay_buffer.next_observations[:20].ravel()
    assert reached == pytest.approx([1, 2, 3, 4, 5] * 4, abs=1e-4)
    assert not model.replay_buffer.sample(50).dones.any()  # a time limit: no terminal state


def test_an_outer_time_limit_around_a_vectorised_wrapper():
    env = VecDIAYNWrapper(DummyVecEnv([lambda: TimeLimit(Number(), 5)]), n_skills=2)
    callback = make_callback()
    record = Record(lambda _: callback._rollout._steps[-1][0].item())
    make_ppo(env, n_steps=20, batch_size=10).learn(20, callback=[callback, record])
    assert record.rows == [1, 2, 3, 4, 5] * 4


def test_a_skill_that_ends_where_an_outer_time_limit_does():
    """The value of the last observation is for the skill that was played."""
    env = DummyVecEnv([lambda: cut_by_five(skill="cycle", skill_duration=5)])
    model = make_ppo(env, n_steps=5, batch_size=5, gamma=0.5, n_epochs=1)
    callback = make_callback()
    values = []

    class Watch(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_start(self):
            obs = np.array([[5, 1, 0], [5, 0, 1]], np.float32)
            tensor = self.model.policy.obs_to_tensor(obs)[0]
            values.append(self.model.policy.predict_values(tensor).detach().flatten().numpy())

        def _on_rollout_end(self):
            buffer = self.model.rollout_buffer
            skill = int(buffer.observations[-1, 0, 1:].argmax())
            skill_reward = callback.skill_reward.single(np.array([5.0], np.float32), skill, 0)
            expected = skill_reward + 0.5 * values[-1][skill]
            assert buffer.rewards[-1, 0] == pytest.approx(expected, abs=1e-5)

    # The watch comes first: the discriminator has not learned from the rollout yet.
    model.learn(40, callback=[Watch(), callback])


def test_a_vec_env_that_does_not_say_how_an_episode_ended():
    class Silent(DummyVecEnv):
        def step_wait(self):
            obs, rewards, dones, infos = super().step_wait()
            return obs, rewards, dones, [{**i, "terminal_observation": None} for i in infos]

    model = make_ppo(Silent([cut_by_five]), n_steps=20, batch_size=10)
    with pytest.raises(ValueError, match=r"info=.*no 'terminal_observation'.*Correct the VecEnv"):
        model.learn(20, callback=make_callback())


# -- arrays and dicts that others own --------------------------------------------------------


class Successful(StepEnv):
    """Ends each episode with ``is_success``."""

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return (
            obs,
            reward,
            terminated,
            truncated,
            info | ({"is_success": True} if truncated else {}),
        )


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, -1], ids=["after ours", "before ours"])
def test_skills_that_end_do_not_end_episodes_of_others(order):
    env = make_vec_env(
        Successful, 1, wrapper_class=DIAYNWrapper, wrapper_kwargs={"skill_duration": 10}
    )
    stop = StopTrainingOnMaxEpisodes(max_episodes=10)
    ends = Record(lambda locals_: (bool(locals_["dones"][0]), sorted(locals_["infos"][0])))
    model = make_ppo(env, n_steps=100, batch_size=50)
    model.learn(3000, callback=[make_callback(), ends, stop][::order], log_interval=1)
    assert model.num_timesteps == 1000
    assert sum(done for done, _ in ends.rows) == 10
    assert all(("terminal_observation" in keys) == done for done, keys in ends.rows)
    assert model.logger.name_to_value.get("rollout/success_rate", 1.0) == 1.0
    assert np.mean(model.ep_success_buffer) == 1.0


EXPECTED = [100 * episode + step for episode in range(1, 5) for step in range(1, 6)]


class Simulator(DummyVecEnv):
    """Returns the same arrays each step, as a simulator may whose memory is on another device."""

    def step_wait(self):
        obs, rewards, dones, infos = super().step_wait()
        self.own = getattr(self, "own", obs)
        for key, part in obs.items() if isinstance(obs, dict) else [(..., obs)]:
            (self.own[key] if isinstance(obs, dict) else self.own)[:] = part
        self.actions[:] = 0.5
        return self.own, rewards, dones, infos


class Copied(SameArrayEnv):
    def step(self, action):
        obs, *rest = super().step(action.copy())
        return ({"n": obs["n"].copy()} if isinstance(obs, dict) else obs.copy()), *rest


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vector", "matrix", "dict"])
@pytest.mark.parametrize("is_simulator", [False, True])
def test_an_environment_that_returns_the_same_array_each_time(kind, is_simulator):
    policy = "MultiInputPolicy" if kind != "vector" else "MlpPolicy"

    def make(cls, **kwargs):
        if is_simulator:
            env = VecDIAYNWrapper(Simulator([lambda: Copied(kind)]), n_skills=2)
        else:
            env = DummyVecEnv([lambda: DIAYNWrapper(SameArrayEnv(kind), n_skills=2)])
        net = {"net_arch": [4]}
        return cls(policy, env, policy_kwargs=net, device="cpu", seed=0, **kwargs)

    model = make(SAC, learning_starts=100, buffer_size=50)
    model.learn(20, callback=make_callback(use_actions=True))
    buffer = model.replay_buffer
    reached = buffer.next_observations["n"] if kind == "dict" else buffer.next_observations
    assert reached[:20].reshape(20, -1)[:, 0].tolist() == EXPECTED
    assert (buffer.actions[:20] != 0.5).all()  # the model's actions, not the environment's

    callback = make_callback(use_actions=True)
    record = Record(lambda _: map_first(callback._rollout._steps[-1][0]))
    model = make(PPO, n_steps=20, batch_size=10)
    model.learn(20, callback=[callback, record])
    assert record.rows == EXPECTED
    assert (model.rollout_buffer.actions != 0.5).all()


def map_first(obs) -> float:
    return float(np.ravel(obs["n"] if isinstance(obs, dict) else obs)[0])


def test_dicts_of_an_environment_stay_as_they_are():
    env = SameArrayEnv()
    info = dict(env.info)
    wrapped = DIAYNWrapper(env, n_skills=2)
    wrapped.set_skill_reward(None)
    options = {"skill": 1, "hard": [1]}
    wrapped.reset(seed=0)
    wrapped.env.reset = lambda **kwargs: (env.obs, env.info)
    wrapped.reset(options=options)
    wrapped.step(np.zeros(1, np.float32))
    assert env.info == info and options == {"skill": 1, "hard": [1]}


# -- orders of wrappers ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_sac, make_ppo])
@pytest.mark.parametrize("order", WORKS)
def test_an_order_of_wrappers_that_works(order, make):
    model = make(WORKS[order][0]())
    model.learn(48, callback=make_callback())
    assert model.num_timesteps == 48


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_sac, make_ppo])
@pytest.mark.parametrize("order", REFUSED)
def test_an_order_of_wrappers_that_is_refused(order, make):
    make_env, message, _ = REFUSED[order]
    with pytest.raises(ValueError, match=message):
        make(make_env()).learn(48, callback=make_callback())


def test_actions_that_are_rescaled_outside_are_not_those_that_the_discriminator_reads():
    env = gym.wrappers.RescaleAction(inner(), np.float32(-0.5), np.float32(0.5))
    with pytest.raises(ValueError, match=r"use_actions=True.*expected the same.*Put DIAYNWrapper"):
        make_sac(vec(env)).learn(48, callback=make_callback(use_actions=True))


# -- companions ------------------------------------------------------------------------------


def test_an_evaluation_in_the_environment_of_the_training():
    env = DIAYNWrapper(StepEnv(), 3)
    with pytest.raises(ValueError, match=r"EvalCallback\(eval_env\) evaluates in .*another one"):
        make_sac(env).learn(30, callback=[make_callback(), EvalCallback(env, eval_freq=10)])
    venv = VecMonitor(vec(DIAYNWrapper(StepEnv(), 3)))
    with pytest.raises(ValueError, match=r"EvalCallback\(eval_env\) evaluates in .*another one"):
        make_sac(venv).learn(30, callback=[make_callback(), EvalCallback(venv, eval_freq=10)])


@pytest.mark.slow
def test_an_evaluation_in_another_environment():
    evaluation = EvalCallback(DIAYNWrapper(StepEnv(), 3), eval_freq=50, n_eval_episodes=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is not wrapped with a ``Monitor``")
        make_sac(DIAYNWrapper(StepEnv(), 3)).learn(60, callback=[make_callback(), evaluation])
    assert evaluation.last_mean_reward == 100


EVENTS = {
    "EveryNTimesteps": lambda callback: EveryNTimesteps(50, callback),
    "EvalCallback": lambda callback: EvalCallback(
        DIAYNWrapper(StepEnv(), 3), eval_freq=10**6, callback_after_eval=callback, warn=False
    ),
}


@pytest.mark.parametrize("make", [DIAYNCallback, lambda: DIAYNCheckpointCallback("checkpoints")])
@pytest.mark.parametrize("event", EVENTS)
@pytest.mark.parametrize("listed", [False, True])
def test_a_callback_that_is_called_from_time_to_time_only(
    make, event, listed, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    callback = make()
    name = type(callback).__name__
    nested = EVENTS[event](CallbackList([callback]) if listed else callback)
    with pytest.raises(ValueError, match=rf"callback={event}\({name}.*expected it outside"):
        make_sac(DIAYNWrapper(StepEnv(), 3)).learn(
            100, callback=[*([] if name == "DIAYNCallback" else [make_callback()]), nested]
        )


class FromTheTenth(gym.ObservationWrapper):
    """Hides the environment's own part of the observation, but for the first steps."""

    n_steps = 0

    def observation(self, obs):
        self.n_steps += 1
        return obs if self.n_steps < 10 else obs * np.float32(obs == 1)


@pytest.mark.parametrize("make", [make_sac, make_ppo])
def test_a_wrapper_outside_that_changes_later_observations(make):
    with pytest.raises(ValueError, match=r"changes the observation .* expected it unchanged"):
        make(FromTheTenth(DIAYNWrapper(StepEnv(), 3))).learn(100, callback=make_callback())


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting:UserWarning")
def test_a_dict_that_is_flattened_outside():
    env = FlattenObservation(DIAYNWrapper(EchoEnv("dict", box=True), 3))
    with pytest.raises(ValueError, match=r"differs from the DIAYNWrapper's.*expected it unchanged"):
        make_sac(env).learn(100, callback=make_callback())


@pytest.mark.parametrize("make", [make_sac, make_ppo])
@pytest.mark.parametrize("twice", ["the same", "another", "nested"])
def test_a_second_callback_is_refused(make, twice):
    """Two of them would get in each other's way, and neither would learn."""
    callback = make_callback()
    second = {
        "the same": callback,
        "another": make_callback(),
        "nested": CallbackList([make_callback()]),
    }
    with pytest.raises(ValueError, match="has DIAYNCallback 2 times; expected once"):
        make(DIAYNWrapper(StepEnv(), 3)).learn(100, callback=[callback, second[twice]])


@pytest.mark.parametrize("make", [make_sac, make_ppo])
def test_an_own_callback_may_refer_to_it(make):
    class Watcher(BaseCallback):
        def __init__(self, callback):
            super().__init__()
            self.callback = self.other = callback

        def _on_step(self):
            return True

    callback = make_callback()
    make(DIAYNWrapper(StepEnv(), 3)).learn(100, callback=[callback, Watcher(callback)])
    assert callback.trainer.n_updates > 0


class SeesThePresent(BaseCallback):
    def _on_training_start(self):
        normalizer = self.model.get_vec_normalize_env()
        seen = raw = self.model._last_obs
        if normalizer is not None:
            raw = normalizer.get_original_obs()
            np.testing.assert_array_equal(normalizer.normalize_obs(raw), seen)
        np.testing.assert_array_equal(raw, self.training_env.get_attr("last_obs"))

    def _on_step(self):
        return True


@pytest.mark.parametrize("make", [make_sac, make_ppo])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("played", [False, True])
def test_a_training_that_was_stopped_within_a_step_continues(make, normalize, played):
    """SB3 does not take up what the last step has returned, nor what others have played."""
    env = vec(DIAYNWrapper(Monitor(StepEnv(7)), 3))
    model = make(VecNormalize(env, norm_reward=False) if normalize else env)
    callback = make_callback()
    stop = [] if played else [StopTrainingOnMaxEpisodes(3)]
    model.learn(50, callback=[callback, *stop])
    if played:
        model.env.step(np.zeros((1, 1)))
    n_steps = model.num_timesteps
    model.learn(50, callback=[callback, SeesThePresent()], reset_num_timesteps=False)
    assert model.num_timesteps >= n_steps + 50


def test_an_own_replay_buffer_is_not_replaced_silently():
    from stable_baselines3.common.buffers import ReplayBuffer

    class Own(ReplayBuffer):
        pass

    model = make_sac(DIAYNWrapper(StepEnv(), 3), replay_buffer_class=Own)
    with pytest.raises(ValueError, match=r"replay_buffer_class=Own would be replaced.*Leave"):
        model.learn(30, callback=make_callback())


@pytest.mark.slow
def test_a_training_that_continues_without_its_vec_normalize(tmp_path):
    env = VecNormalize(vec(DIAYNWrapper(StepEnv(), 3)), norm_reward=False)
    model = make_sac(env)
    model.learn(40, callback=make_callback())
    model.save(tmp_path / "model")
    loaded = SAC.load(tmp_path / "model", env=vec(DIAYNWrapper(StepEnv(), 3)))
    with pytest.raises(ValueError, match=r"VecNormalize is missing: .*trained on observations"):
        loaded.learn(40, callback=make_callback())
    plain = make_sac(vec(DIAYNWrapper(StepEnv(), 3)))
    plain.learn(40, callback=make_callback())
    plain.save(tmp_path / "plain")
    loaded = SAC.load(tmp_path / "plain", env=env)
    with pytest.raises(ValueError, match=r"VecNormalize normalises .*trained on raw ones"):
        loaded.learn(40, callback=make_callback())


# -- few skills seen -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("make", [make_sac, make_ppo])
def test_a_training_without_ends_says_that_it_has_seen_few_skills(make):
    model = make(DIAYNWrapper(Number(), n_skills=K))
    with pytest.warns(UserWarning, match=r"Only 1 of 5 skills have occurred .*skill_duration"):
        model.learn(1008, callback=make_callback(), log_interval=1)


def test_skills_seen_are_logged_and_remembered():
    model = make_ppo(
        DIAYNWrapper(CountingEnv(), n_skills=K, skill="cycle"), n_steps=12, batch_size=12
    )
    seen = []
    for _ in range(3):
        model.learn(12, callback=make_callback(), reset_num_timesteps=False, log_interval=None)
        seen.append(model.logger.name_to_value["diayn/skills_seen"])
    assert seen == [3, 5, 5]  # episodes of 5 steps: 12 steps are in the third


# -- checkers and small things ---------------------------------------------------------------


@pytest.mark.parametrize("env_id", ["Pendulum-v1", "CartPole-v1"])
def test_the_checkers(env_id):
    env = DIAYNWrapper(gym.make(env_id).unwrapped, n_skills=3)
    env.set_skill_reward(None)
    with warnings.catch_warnings():  # of the environments' own spaces, and of being wrapped
        warnings.filterwarnings(
            "ignore", message=".*(symmetric and normalized|unwrapped|infinity).*"
        )
        check_env(env)
        check_env_of_gymnasium(env, skip_render_check=True)


def test_the_spec_makes_the_same_environment_again():
    env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=3, skill="cycle", skill_duration=7)
    again = gym.make(env.spec)
    assert isinstance(again, DIAYNWrapper)
    assert (again.n_skills, again.skill_rule, again.skill_duration) == (3, "cycle", 7)


@pytest.mark.parametrize("text", ["3 ", " 3", "3\r"])
def test_the_variable_may_have_spaces(text, monkeypatch):
    """As ``set DIAYN_SKILL=3 & python ...`` of cmd.exe leaves them."""
    monkeypatch.setenv("DIAYN_SKILL", text)
    assert DIAYNWrapper(StepEnv(), 5).skill_rule == 3


def test_an_action_without_a_choice():
    class Fixed(StepEnv):
        action_space = spaces.Box(np.array([-1, 2.0]), np.array([1, 2.0]), dtype=np.float64)

    with pytest.raises(ValueError, match=r"no choice at \[1\], where low equals high; expected"):
        make_sac(DIAYNWrapper(Fixed(), 3)).learn(30, callback=make_callback())


@pytest.mark.parametrize("reward", [np.ones(1), None, "1.0.0"])
def test_a_reward_that_is_no_number(reward):
    class Wrong(StepEnv):
        def step(self, action):
            obs, _, *rest = super().step(action)
            return obs, reward, *rest

    env = DIAYNWrapper(Wrong(), 3)
    env.set_skill_reward(None)
    env.reset()
    with pytest.raises(ValueError, match=r"reward=.* at step .* is no number; expected a float"):
        env.step(np.zeros(1, np.float32))


BOX = spaces.Box(-1, 1, (2,))
PARTS = spaces.Dict({"a": BOX, "n": spaces.Discrete(4)})


@pytest.mark.parametrize(
    ("space", "obs", "message"),
    [
        (spaces.Discrete(4), 4, r"observation is 4 at step .*Discrete\(4\)"),
        (spaces.Discrete(4), 1.5, r"observation is 1.5 at step .*Discrete\(4\)"),
        (spaces.MultiDiscrete([2, 3]), np.array([0, 3]), r"observation is \[0 3\] at step"),
        (BOX, np.array(["a", "b"]), "observation has the type <U1 at step .* expected float32"),
        (BOX, np.array([None, 1.0]), "observation has the type object at step"),
        (PARTS, {"a": BOX.low}, r"keys \['a'\] at step .* expected \['a', 'n'\]"),
        (PARTS, {"a": BOX.low, "n": 9}, r"observation\['n'\] is 9 at step"),
        (PARTS, BOX.low, "observation is of the type ndarray at step .* expected a dict"),
    ],
)
@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_observation_that_is_not_of_its_space(space, obs, message, where):
    class Wrong(StepEnv):
        observation_space = space

        def reset(self, **kwargs):
            super().reset(**kwargs)
            return (obs if where == "reset" else space.sample()), {}

        def step(self, action):
            return obs, *super().step(action)[1:]

    env = DIAYNWrapper(Wrong(), 3)
    env.set_skill_reward(None)
    with pytest.raises(ValueError, match=message):
        env.reset()
        env.step(np.zeros(1, np.float32))


def test_further_keys_are_left_out():
    """SB3 does not read them either."""

    class More(StepEnv):
        observation_space = PARTS

        def reset(self, **kwargs):
            super().reset(**kwargs)
            return {**PARTS.sample(), "more": 0}, {}

        def step(self, action):
            return {**PARTS.sample(), "more": 0}, *super().step(action)[1:]

    env = DIAYNWrapper(More(), 3)
    env.set_skill_reward(None)
    assert set(env.reset()[0]) == {"a", "n", "skill"}
    assert env.observation_space.contains(env.step(np.zeros(1, np.float32))[0])


@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_info_that_is_no_dict(where):
    class Wrong(StepEnv):
        def reset(self, **kwargs):
            return super().reset(**kwargs)[0], None if where == "reset" else {}

        def step(self, action):
            return *super().step(action)[:4], None

    env = DIAYNWrapper(Wrong(), 3)
    env.set_skill_reward(None)
    with pytest.raises(ValueError, match=r"info=None at step .* is no dict; expected one"):
        env.reset()
        env.step(np.zeros(1, np.float32))


@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_observation_of_another_shape(where):
    class Wrong(StepEnv):
        def reset(self, **kwargs):
            obs, info = super().reset(**kwargs)
            return (obs[None] if where == "reset" else obs), info

        def step(self, action):
            obs, *rest = super().step(action)
            return obs[None], *rest

    env = DIAYNWrapper(Wrong(), 3)
    env.set_skill_reward(None)
    with pytest.raises(ValueError, match=r"observation has the shape \(1, 1\) at step .*\(1,\)"):
        env.reset()
        env.step(np.zeros(1, np.float32))
