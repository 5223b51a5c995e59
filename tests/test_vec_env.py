import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.wrappers import TransformObservation
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnv,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_diayn import (
    DIAYNCheckpointCallback,
    DIAYNWrapper,
    Discriminator,
    SkillEvaluationCallback,
    SkillReward,
    VecDIAYNWrapper,
    evaluate_skills,
    load_discriminator,
    resume,
)
from sb3_diayn.evaluation.trajectories import as_vec_env, play_skills
from tests.helpers.envs import CountingEnv, EchoEnv, PointEnv
from tests.helpers.models import K, constant_discriminator, make_callback, make_ppo, make_sac

N_ENVS = 3


def counting(i: int) -> CountingEnv:
    return CountingEnv(length=3 + i, truncate=i == 1)


def in_a_dict(i: int) -> gym.Env:
    space = spaces.Dict(position=spaces.Box(-1e6, 1e6, (2,), np.float64), clock=spaces.Discrete(10))
    return TransformObservation(
        counting(i), lambda obs: {"position": obs / 3, "clock": np.int64(obs[0])}, space
    )


def as_index(i: int) -> gym.Env:
    return TransformObservation(counting(i), lambda obs: np.int64(obs[0]), spaces.Discrete(10))


def drawing(i: int) -> EchoEnv:
    return EchoEnv("dict", box=True, length=2 + i)


def point(i: int) -> PointEnv:
    return PointEnv(length=6 + i)


def both(make_env, n_skills=K, **kwargs) -> tuple[DummyVecEnv, VecDIAYNWrapper]:
    """The same environments with a wrapper around each and one around all."""
    numbers = range(N_ENVS)
    inside = DummyVecEnv(
        [lambda i=i: DIAYNWrapper(make_env(i), n_skills, **kwargs) for i in numbers]
    )
    for index in numbers:  # as the callback tells them at the start of a training
        inside.env_method("join", index, 0, indices=[index])
    plain = DummyVecEnv([lambda i=i: make_env(i) for i in numbers])
    return inside, VecDIAYNWrapper(plain, n_skills, **kwargs)


def around(make_env=counting, **kwargs) -> VecDIAYNWrapper:
    return both(make_env, **kwargs)[1]


def quiet(env: VecDIAYNWrapper) -> VecDIAYNWrapper:
    env.set_skill_reward(None)
    return env


def assert_same(one, other) -> None:
    """Arrays and what holds them, bit for bit; rewards to the rounding of float32."""
    assert type(one) is type(other) or isinstance(one, (dict, float, np.floating))
    if isinstance(one, dict):
        assert set(one) == set(other)
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, (float, np.floating)):
        assert one == pytest.approx(other, rel=1e-5, abs=1e-5)
    else:
        np.testing.assert_array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


def zeros(env: VecEnv) -> np.ndarray:
    return np.zeros((env.num_envs, *env.action_space.shape), np.float32)


# -- the same as DIAYNWrapper ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("skill_duration", [None, 2])
@pytest.mark.parametrize("skill", ["uniform", "balanced", "cycle", 1])
@pytest.mark.parametrize("make_env", [counting, in_a_dict, as_index])
def test_a_step_is_that_of_a_wrapper_around_each_environment(make_env, skill, skill_duration):
    envs = both(make_env, skill=skill, skill_duration=skill_duration)
    space = envs[1].skill_space
    discriminator = Discriminator(space.env_space, K, action_space=envs[0].action_space)
    rng = np.random.default_rng(0)
    for env in envs:
        env.seed(7)
        env.env_method("set_skill_reward", SkillReward(discriminator, 2.0, 1.0, 0.5))
    assert_same(*(env.reset() for env in envs))
    for _ in range(25):
        actions = rng.uniform(-1, 1, zeros(envs[0]).shape).astype(np.float32)
        (obs, rewards, dones, infos), (obs_2, rewards_2, dones_2, infos_2) = (
            env.step(actions) for env in envs
        )
        assert_same(obs, obs_2)
        assert rewards.dtype == rewards_2.dtype
        np.testing.assert_allclose(rewards, rewards_2, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(dones, dones_2)
        for info, info_2 in zip(infos, infos_2, strict=True):
            assert_same(dict(info), info_2)
        for info, info_2 in zip(envs[0].reset_infos, envs[1].reset_infos, strict=True):
            assert info["skill"] == info_2["skill"]
        assert envs[0].get_attr("skill") == envs[1].get_attr("skill")


def test_environments_that_draw_meet_the_same_observations():
    envs = both(drawing, skill="cycle")
    for env in envs:
        env.seed(7)
        env.env_method("set_skill_reward", None)
    assert_same(*(env.reset() for env in envs))
    for _ in range(10):
        assert_same(*(env.step(zeros(env))[0] for env in envs))


@pytest.mark.slow
@pytest.mark.parametrize(
    "outside",
    [
        lambda env: env,
        lambda env: VecNormalize(env, norm_reward=False),
        lambda env: VecFrameStack(env, 2),
        lambda env: VecNormalize(VecFrameStack(VecMonitor(env), 2), norm_reward=False),
    ],
    ids=["alone", "normalized", "stacked", "all"],
)
def test_a_training_off_policy_gives_the_same_parameters(outside):
    """Bit for bit: the rewards equal the buffer's."""
    learned = []
    for env in both(counting, skill_duration=2):
        model, callback = make_sac(outside(env), train_freq=1, gradient_steps=1), make_callback()
        model.learn(90, callback=callback)
        learned.append(model.policy.state_dict() | callback.discriminator.state_dict())
    assert callback.trainer.n_updates > 10 and callback._shares
    for name, value in learned[0].items():
        assert th.equal(learned[1][name], value), name


def test_a_training_on_policy_gives_the_same_parameters():
    models = []
    for env in both(counting, skill_duration=2):
        model = make_ppo(env, n_steps=8)
        model.learn(72, callback=make_callback())
        models.append(model)
    for name, value in models[0].policy.state_dict().items():
        th.testing.assert_close(models[1].policy.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_episodes_of_chosen_skills_are_the_same():
    model = make_sac(both(point)[0])
    skills = [2, 0, 1, 2, 1]
    first, second = (list(play_skills(model, env, skills, seed=3)) for env in both(point))
    for one, other in zip(first, second, strict=True):
        assert one.skill == other.skill
        np.testing.assert_array_equal(one.states, other.states)
        np.testing.assert_array_equal(one.actions, other.actions)
        np.testing.assert_allclose(one.task_rewards, other.task_rewards)  # float32 of the VecEnv


# -- a model in it ---------------------------------------------------------------------------


@pytest.mark.slow
def test_a_saved_model_goes_on_and_is_evaluated(tmp_path):
    env = around(point)
    monitor = SkillEvaluationCallback(as_vec_env(around(point)), eval_freq=60)
    model = make_sac(env)
    model.learn(60, callback=[make_callback(), monitor])
    assert monitor.history[0]["mutual_information"] > -1
    model.save(tmp_path / "model")
    assert load_discriminator(tmp_path / "model").n_skills == K
    other = type(model).load(tmp_path / "model", env=env)
    other.learn(30, callback=make_callback(), reset_num_timesteps=False)
    evaluation = evaluate_skills(other, around(point), n_episodes=2)
    assert evaluation.lengths.shape == (K, 2)
    assert set(evaluation.lengths.ravel()) <= {6, 7, 8}
    assert env.get_attr("skill_rule") == ["uniform"] * N_ENVS


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_new_episodes(tmp_path):
    callback = [make_callback(), DIAYNCheckpointCallback(tmp_path, save_freq=30)]
    make_sac(around(), seed=0).learn(60, callback=callback)
    model = resume(tmp_path, around())
    with pytest.warns(UserWarning, match=r"new episodes.*is not known \(as of VecDIAYNWrapper\)"):
        model.learn(30, callback=make_callback(), reset_num_timesteps=False)


# -- skills ----------------------------------------------------------------------------------


def test_options_choose_the_skills_of_one_reset():
    env = around(skill=0)
    env.set_options([{"skill": 2}, {}, {"height": 1.5, "skill": 1}])
    env.reset()
    assert [info["skill"] for info in env.reset_infos] == [2, 0, 1]
    assert [info["options"] for info in env.reset_infos] == [None, None, {"height": 1.5}]
    env.reset()
    assert env.get_attr("skill") == [0, 0, 0]


def test_the_rule_of_some_environments():
    env = around()
    env.env_method("set_skill", 2, indices=[0, 2])
    env.set_skill("cycle", indices=1)
    env.reset()
    assert env.get_attr("skill_rule") == [2, "cycle", 2]
    assert env.get_attr("skill", [0, 1]) == [2, 1]


def test_the_seed_decides_the_skills():
    def skills(env, seed):
        env.seed(seed)
        env.reset()
        first = env.skills.copy()
        return np.array([first, *(env.reset() is None or env.skills.copy() for _ in range(9))])

    env = around(n_skills=50)
    drawn = skills(env, 3)
    np.testing.assert_array_equal(drawn, skills(env, 3))
    np.testing.assert_array_equal(drawn, skills(around(n_skills=50), 3))
    assert (drawn != skills(env, 4)).any()
    assert (drawn[:, 0] != drawn[:, 1]).any()  # each environment has draws of its own


def test_it_takes_over_a_seed_that_the_environments_got_before():
    def skills():
        inner = DummyVecEnv([lambda: counting(0)] * N_ENVS)
        inner.seed(5)  # as make_vec_env does
        env = VecDIAYNWrapper(inner, 50)
        env.reset()
        return env.skills

    np.testing.assert_array_equal(skills(), skills())


def test_uniform_draws_follow_a_learned_p_z():
    discriminator = constant_discriminator([0.5, 0.25, 0.25])
    discriminator.log_p[:] = discriminator.log_p.new_tensor([1e-8, 1 - 2e-8, 1e-8]).log()
    env = around()
    env.set_skill_reward(SkillReward(discriminator))
    env.reset()
    assert env.get_attr("skill") == [1, 1, 1]


def test_the_environment_variable_overrides_the_rule(monkeypatch):
    monkeypatch.setenv("DIAYN_SKILL", "2")
    assert around(skill=1).get_attr("skill_rule") == [2, 2, 2]


def test_it_warns_once_without_a_discriminator():
    env = around()
    env.reset()
    with pytest.warns(UserWarning, match="VecDIAYNWrapper returns the environment's own reward"):
        _, rewards, _, infos = env.step(zeros(env))
    assert rewards.tolist() == [info["task_reward"] for info in infos] == [1.0, 1.0, 1.0]
    for other in (env, around(skill=1), quiet(around())):
        other.reset()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            other.step(zeros(other))


def test_what_it_answers_for_the_environments():
    env = around(skill_duration=4)
    assert env.env_is_wrapped(DIAYNWrapper) == [True] * 3
    assert env.env_is_wrapped(VecDIAYNWrapper, 0) == [False]  # of the environments, as ever
    assert env.get_attr("n_skills", [0, 1]) == [K, K]
    assert env.get_attr("skill_duration") == [4, 4, 4]
    assert env.get_attr("skill_space")[2] is env.skill_space
    assert env.get_attr("env_id") == [None] * 3 and env.get_attr("length") == [3, 4, 5]
    assert env.has_attr("skill_rule") and env.has_attr("length") and not env.has_attr("masks")
    outer = VecMonitor(env)
    assert outer.skills is env.skills
    outer.env_method("set_skill_reward", None)
    assert env.env_method("episode_state") == [None] * 3


# -- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VecDIAYNWrapper(around(), K), r"already has a DIAYNWrapper.*Wrap them once"),
        (lambda: VecDIAYNWrapper(VecMonitor(around()), K), "already has .*VecDIAYNWrapper"),
        (lambda: VecDIAYNWrapper(both(counting)[0], K), "already has a DIAYNWrapper"),
        (lambda: VecDIAYNWrapper(CountingEnv(), K), r"is not vectorised.*Use DIAYNWrapper"),
        (lambda: around(n_skills=1), "n_skills=1 is not a number of skills"),
        (lambda: around(skill="often"), "skill='often' is not a rule"),
        (lambda: around(skill=K), "skill=3 is not one of the skills"),
        (lambda: around(skill_duration=0), "skill_duration=0 is not a positive integer"),
        (lambda: make_sac(around(skill=1)).learn(9, make_callback()), "skill=1 is fixed"),
    ],
)
def test_a_wrong_use_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_skill_that_does_not_exist_is_refused_at_the_reset():
    env = around()
    env.set_options({"skill": 3})
    with pytest.raises(ValueError, match="skill=3 is not one of the skills"):
        env.reset()


class Unstable(CountingEnv):
    """Not finite from the third step of an episode on, or at the start of the second episode."""

    def __init__(self, at_start: bool) -> None:
        super().__init__(length=2 if at_start else 5)
        self.at_start = at_start

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return (obs * np.nan if self.at_start and self.episodes > 0 else obs), info

    def step(self, action):
        obs, *rest = super().step(action)
        return np.array([obs[0], np.inf]) if self.steps == 3 else obs, *rest


@pytest.mark.parametrize(
    ("at_start", "steps", "message"),
    [
        (False, 3, r"observation\[1\]=inf .*step 3 of the episode \(step 3 of environment 1, skil"),
        (True, 2, r"observation\[0\]=nan .*step 0 of the episode \(step 2 of environment 1, skil"),
    ],
)
def test_an_observation_that_is_not_finite_is_refused(at_start, steps, message):
    makers = [lambda: CountingEnv(length=9), lambda: Unstable(at_start)]
    env = quiet(VecDIAYNWrapper(DummyVecEnv(makers), K))
    env.reset()
    for _ in range(steps - 1):
        env.step(zeros(env))
    with pytest.raises(ValueError, match=message):
        env.step(zeros(env))


def test_an_action_that_is_not_finite_is_refused():
    env = quiet(around())
    env.reset()
    actions = zeros(env)
    actions[2] = np.nan
    with pytest.raises(
        ValueError, match=r"action=\[nan\] .*environment 2.*lower the learning_rate"
    ):
        env.step(actions)


class Simulator(VecEnv):
    """
    A ``VecEnv`` with the manners of Isaac Lab's: the constructor of SB3 is not called, there are
    no layers to ask, the seed is one for all, and ``unwrapped`` is no ``VecEnv``.
    """

    def __init__(self, says_last: bool = True) -> None:
        self.num_envs, self.says_last = 2, says_last
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.render_mode, self.count = None, 0

    unwrapped = property(lambda self: object())

    def seed(self, seed=None):
        return [seed] * 2

    def reset(self):
        self.count = 0
        return np.zeros((2, 2), np.float32)

    def step_async(self, actions):
        self.actions = actions

    def step_wait(self):
        self.count += 1
        over = self.count % 4 == 0
        reached = np.full((2, 2), self.count % 4 or 4, np.float32)
        infos = [{"terminal_observation": one if over else None} for one in reached]
        infos = infos if self.says_last else [{}, {}]
        obs = np.zeros_like(reached) if over else reached
        return obs, np.ones(2, np.float32), np.full(2, over), infos

    def get_attr(self, attr_name, indices=None):
        if attr_name != "render_mode":
            raise AttributeError(attr_name)
        return [None] * 2

    def env_is_wrapped(self, wrapper_class, indices=None):
        return [False]

    def close(self):
        pass

    def set_attr(self, attr_name, value, indices=None):
        raise NotImplementedError

    env_method = set_attr


def test_a_simulator_with_manners_of_its_own():
    env = VecDIAYNWrapper(Simulator(), 50)
    env.seed(0)
    quiet(env).reset()
    before = env.skills.copy()
    assert before[0] != before[1] and env.get_attr("env_id") == [None] * 2
    for _ in range(4):
        obs, _, dones, infos = env.step(zeros(env))
    np.testing.assert_array_equal(obs[:, :2], np.zeros((2, 2)))
    np.testing.assert_array_equal(infos[1]["terminal_env_obs"], [4, 4])
    assert infos[1]["terminal_observation"].argmax() == 0 and dones.all()
    assert infos[1]["terminal_observation"][2:].argmax() == before[1] != env.skills[1]
    model = make_ppo(env, n_steps=8)
    model.learn(32, callback=make_callback())
    assert len(evaluate_skills(model, env, n_episodes=1).lengths) == 50


def test_a_simulator_that_hides_the_last_observation_is_refused():
    env = quiet(VecDIAYNWrapper(Simulator(says_last=False), 2))
    env.reset()
    with pytest.raises(ValueError, match=r"info=.*no 'terminal_observation'.*Correct the"):
        for _ in range(4):
            env.step(zeros(env))


class SameArrayEnv(gym.Env):
    """Counts to three in an array that it returns each time."""

    observation_space = spaces.Box(-100.0, 100.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, copies: bool, dtype: type = np.float32):
        self.obs, self.copies = np.zeros(2, dtype), copies

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.obs[:] = 0
        return self._seen(), {}

    def step(self, action):
        self.obs += 1
        return self._seen(), 0.0, bool(self.obs[0] >= 3), False, {}

    def _seen(self):
        return self.obs.copy() if self.copies else self.obs


def play(env: VecDIAYNWrapper, n_steps: int) -> np.ndarray:
    """The last observation at the end of the play."""
    env.reset()
    for _ in range(n_steps):
        *_, infos = env.step(np.zeros((env.num_envs, 1), np.float32))
    return infos[0]["terminal_env_obs"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_envs", [1, 4])
def test_environments_that_write_into_what_they_have_returned(n_envs, dtype):
    env = VecDIAYNWrapper(DummyVecEnv([lambda: SameArrayEnv(False, dtype)] * n_envs), 3)
    env.set_skill_reward(SkillReward(Discriminator(SameArrayEnv.observation_space, 3)))
    with pytest.warns(UserWarning, match=r"are the very ones .*\. Return a copy of the array"):
        last = play(env, 15)
    assert last.tolist() == [0, 0]
    env = VecDIAYNWrapper(DummyVecEnv([lambda: SameArrayEnv(True, dtype)] * n_envs), 3)
    env.set_skill_reward(SkillReward(Discriminator(SameArrayEnv.observation_space, 3)))
    assert play(env, 15).tolist() == [3, 3]  # no warning, which would be an error
