"""Every observation space: what the policy sees, what the discriminator reads, what it learns."""

import json
import multiprocessing
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import given
from hypothesis import strategies as st
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecFrameStack,
    unwrap_vec_normalize,
)
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_diayn import DIAYNCallback, DIAYNWrapper, Discriminator, SkillReward, load_discriminator
from sb3_diayn.evaluation.evaluate import evaluate_skills
from sb3_diayn.evaluation.trajectories import as_vec_env
from sb3_diayn.observations import describe_space, index_obs, map_obs, rebuild_space
from sb3_diayn.skills import SkillSpace
from sb3_diayn.user_code import check_code
from tests.helpers.envs import EchoEnv
from tests.helpers.models import K, counting, log_q, make_callback, make_sac
from tests.helpers.spaces import N_SKILLS, ROWS, Row

KINDS = list(EchoEnv.SPACES)
CHANCE = 1 / N_SKILLS


def assert_equal(left, right):
    map_obs(np.testing.assert_array_equal, left, right)


def samples(space: SkillSpace, n: int, seed: int):
    """A batch of what the environment may return, as the model's environments pass it on."""
    space.env_space.seed(seed)
    each = [space.env_space.sample() for _ in range(n)]
    return map_obs(lambda *parts: np.stack(parts), *each)


# -- what the policy sees --------------------------------------------------------------------


@pytest.mark.slow
@given(st.sampled_from(KINDS), st.integers(2, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_split_undoes_append(kind, n_skills, n, seed):
    space = SkillSpace(EchoEnv.SPACES[kind], n_skills)
    env_obs = samples(space, n, seed)
    skills = np.random.default_rng(seed).integers(n_skills, size=n)
    again, found = space.split(space.append(env_obs, skills))
    assert_equal(again, env_obs)
    np.testing.assert_array_equal(found, skills)
    one = space.append(index_obs(env_obs, 0), skills[0])
    assert space.observation_space.contains(one)
    again, found = space.split(one)
    assert_equal(again, index_obs(env_obs, 0))
    assert found == skills[0]


@pytest.mark.slow
@given(
    st.sampled_from(["vector", "matrix", "image_first", "image_dict", "goal"]),
    st.integers(2, 5),
    st.integers(2, 4),
    st.integers(0, 10**6),
)
def test_stacked_frames(kind, n_skills, n_stack, seed):
    """Against SB3's own ``VecFrameStack``; a frame of before the episode has skill -1."""
    space = SkillSpace(EchoEnv.SPACES[kind], n_skills)
    stacked = SkillSpace.from_augmented(
        SkillSpace(EchoEnv.SPACES[kind], n_skills, n_stack).observation_space, n_skills, n_stack
    )
    assert stacked.env_space == space.env_space
    frames = samples(space, n_stack, seed)
    skills = np.random.default_rng(seed).integers(n_skills, size=n_stack)
    sb3 = StackedObservations(1, n_stack, space.observation_space)
    assert sb3.stacked_observation_space == stacked.observation_space
    augmented = [
        map_obs(lambda p: p[None], space.append(index_obs(frames, i), skills[i]))
        for i in range(n_stack)
    ]
    seen = map_obs(np.copy, sb3.reset(augmented[0]))
    expected = [-1] * (n_stack - 1) + [skills[0]]
    np.testing.assert_array_equal(stacked.split(seen)[1], [expected])
    assert_equal(stacked.append_first(index_obs(frames, [0]), skills[:1]), seen)
    for i in range(1, n_stack):
        before = stacked.split(seen)
        seen = map_obs(np.copy, sb3.update(augmented[i], np.array([False]), [{}])[0])
        env_obs, found = stacked.split(seen)
        newest, skill = stacked.split_newest(seen)
        assert_equal(newest, index_obs(frames, [i]))
        np.testing.assert_array_equal(skill, skills[[i]])
        np.testing.assert_array_equal(found, [[*before[1][0][1:], skills[i]]])
        assert_equal(env_obs, stacked.push(before[0], newest))
        assert_equal(stacked.append(env_obs, found), seen)


@pytest.mark.parametrize("kind", KINDS)
def test_the_space_comes_back_from_the_augmented_one_and_from_words(kind):
    space = SkillSpace(EchoEnv.SPACES[kind], N_SKILLS)
    again = SkillSpace.from_augmented(space.observation_space, N_SKILLS)
    assert again.env_space == space.env_space
    assert again.observation_space == space.observation_space
    words = json.loads(json.dumps(describe_space(space.env_space)))
    assert rebuild_space(words) == space.env_space


def test_a_dict_of_one_observation_counts_as_what_it_holds():
    image = EchoEnv.SPACES["image"]
    assert SkillSpace(spaces.Dict(observation=image), 3).env_space == image
    vector = spaces.Dict(observation=spaces.Box(0.0, 1.0, (2,)))
    space = SkillSpace(vector, 3)
    assert space.env_space == vector
    assert SkillSpace.from_augmented(space.observation_space, 3).env_space == vector


@pytest.mark.filterwarnings("ignore::UserWarning")  # of small or infinite boxes, and of wrapping
@pytest.mark.parametrize("checker", [check_env, sb3_check_env])
@pytest.mark.parametrize("kind", KINDS)
def test_the_checkers_of_gymnasium_and_sb3_pass(checker, kind):
    inner = EchoEnv(kind)
    env = DIAYNWrapper(inner, N_SKILLS, skill="cycle")
    env.set_skill_reward(None)
    checker(env)
    assert inner.observation_space is EchoEnv.SPACES[kind]


def test_a_part_that_is_not_finite_is_refused():
    class Unstable(EchoEnv):
        def observe(self, shown):
            obs = super().observe(shown)
            obs["position"][1] = np.nan if self.steps == 2 else 0
            return obs

    env = DIAYNWrapper(Unstable("dict"), 3, skill=2)
    env.reset()
    env.step(0)
    with pytest.raises(
        ValueError, match=r"observation\['position'\]\[1\]=nan is not finite at step 2"
    ):
        env.step(0)


# -- learning, saving, loading ---------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_of_the_table(row, tmp_path):
    model = row.make_model()
    options = {"net_arch": [32], "learning_rate": 5e-3} | row.options
    callback = DIAYNCallback(**options)
    model.learn(row.steps, callback=callback)
    env = row.make_env()
    normalizer = model.get_vec_normalize_env()
    if normalizer is not None:
        unwrap_vec_normalize(env).obs_rms = normalizer.obs_rms
    evaluation = evaluate_skills(model, env, n_episodes=1, deterministic=True)
    assert evaluation.accuracy.mean() > 1.8 * CHANCE
    trained, space = callback.discriminator, callback.skill_space
    if hasattr(model, "replay_buffer"):
        check_fresh_rewards(model, callback)
    model.save(tmp_path / "model")
    loaded = load_discriminator(tmp_path / "model.zip")
    obs = map_obs(th.as_tensor, samples(SkillSpace(space.env_space, N_SKILLS), 30, 0))
    skills = th.arange(30) % N_SKILLS
    assert th.equal(loaded.reward(obs, skills), trained.reward(obs, skills))
    seen = row.make_env().reset()
    again = row.algo.load(tmp_path / "model.zip", device="cpu")
    np.testing.assert_array_equal(
        again.predict(seen, deterministic=True)[0], model.predict(seen, deterministic=True)[0]
    )


def check_fresh_rewards(model, callback):
    """What a batch pays is what the present discriminator says of it."""
    normalizer, space = model.get_vec_normalize_env(), callback.skill_space
    batch = model.replay_buffer.sample(50, env=None)
    as_arrays = map_obs(lambda part: part.numpy(), batch.next_observations)
    newest, skills = space.split_newest(as_arrays)
    expected = log_q(callback.discriminator, map_obs(th.as_tensor, newest), skills)
    np.testing.assert_allclose(batch.rewards[:, 0], expected + np.log(N_SKILLS), atol=1e-5)
    again = callback.discriminator.reward(map_obs(th.as_tensor, newest), th.as_tensor(skills))
    np.testing.assert_allclose(batch.rewards[:, 0], again, atol=1e-6)
    assert len(set(batch.rewards[:, 0].tolist())) > 3
    if normalizer is not None:  # which the discriminator does not see
        before = np.random.get_state()
        normalized = model.replay_buffer.sample(50, env=normalizer)
        np.random.set_state(before)
        raw = model.replay_buffer.sample(50)
        th.testing.assert_close(normalized.rewards, raw.rewards, rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_wrapper_pays_what_the_discriminator_says(kind):
    """One observation as the environment gives it, or a batch with its channels first."""
    env = DummyVecEnv([lambda: DIAYNWrapper(EchoEnv(kind), N_SKILLS, skill=1)])
    env = as_vec_env(env)
    space = SkillSpace.from_vec_env(env, N_SKILLS)
    th.manual_seed(0)
    reward = SkillReward(Discriminator(space.env_space, N_SKILLS, net_arch=[16]))
    env.env_method("set_skill_reward", reward)
    env.reset()
    for _ in range(5):
        obs, paid, dones, infos = env.step(np.array([2]))
        seen = infos[0]["terminal_observation"] if dones[0] else index_obs(obs, 0)
        env_obs, skill = space.split(seen)
        batch = map_obs(lambda part: th.as_tensor(np.asarray(part)[None]), env_obs)
        expected = reward.discriminator.reward(batch, th.as_tensor([int(skill)]))
        assert paid[0] == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.slow
def test_images_are_stored_once_as_bytes_and_skills_as_numbers():
    model = Row("image", DQN).make_model()
    model.learn(40, callback=make_callback())
    buffer = model.replay_buffer
    assert buffer.observations.dtype == np.uint8
    assert buffer.observations.shape == (250, 4, 3, 36, 36)
    stacked = Row("image", DQN, lambda env: VecFrameStack(env, 4)).make_model()
    stacked.learn(40, callback=make_callback())
    assert stacked.replay_buffer.observations.shape == (250, 4, 12, 36, 36)
    assert stacked.replay_buffer.next_observations.shape == (250, 4, 3, 36, 36)


@pytest.mark.slow
def test_other_processes():
    def make():
        return DIAYNWrapper(EchoEnv("dict", box=True), N_SKILLS)

    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"  # quick
    env = SubprocVecEnv([make] * 2, start_method=method)
    try:
        model = Row("dict", SAC).make_model(env)
        callback = make_callback(obs_indices=["position"])
        model.learn(100, callback=callback)
        assert callback.trainer.n_updates > 0
        check_fresh_rewards(model, callback)
    finally:
        env.close()


WITHOUT_PACKAGE = """
import json, sys
sys.modules["sb3_diayn"] = None  # any import of it now raises ModuleNotFoundError
from stable_baselines3 import DQN
import numpy as np
model = DQN.load(sys.argv[1], device="cpu")
obs = {"observation": np.arange(4), "skill": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]}
print(json.dumps(model.predict(obs, deterministic=True)[0].tolist()))
"""


@pytest.mark.slow
def test_a_process_without_this_package_plays_the_model(tmp_path):
    model = Row("discrete", DQN).make_model()
    model.learn(80, callback=make_callback())
    model.save(tmp_path / "model.zip")
    command = [sys.executable, "-c", WITHOUT_PACKAGE, tmp_path / "model.zip"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    obs = {"observation": np.arange(4), "skill": np.eye(3, dtype=np.float32)[[0, 1, 2, 0]]}
    assert json.loads(run.stdout) == model.predict(obs, deterministic=True)[0].tolist()


# -- frame stacking, at the borders of episodes ----------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_stack", [2, 3])
@pytest.mark.parametrize("skill_duration", [None, 2])
def test_stacks_at_the_borders_of_episodes(skill_duration, n_stack):
    """CountingEnv: the observation is (step, episode), skills 0, 1, 2 in turn."""
    env = DummyVecEnv([lambda: counting(skill_duration=skill_duration)])
    model = make_sac(VecFrameStack(env, n_stack), learning_starts=10_000)
    model.learn(60, callback=make_callback())
    batch = model.replay_buffer.sample(300)
    frames, next_frames = (
        obs.numpy().reshape(300, n_stack, 2 + K)
        for obs in (batch.observations, batch.next_observations)
    )
    duration = skill_duration or 5
    per_episode = -(-5 // duration)
    for before, after in zip(frames, next_frames, strict=True):
        step, episode = int(before[-1, 0]), int(before[-1, 1])

        def skill_at(step, episode=episode):
            return (episode * per_episode + step // duration) % K

        def frame(i, skill, episode=episode):
            return np.r_[i, episode, np.eye(K)[skill]] if i >= 0 else np.zeros(2 + K)

        acting = skill_at(step)
        shown = [frame(i, skill_at(i)) for i in range(step - n_stack + 1, step + 1)]
        np.testing.assert_array_equal(before, shown)
        np.testing.assert_array_equal(after, [*shown[1:], frame(step + 1, acting)])


def test_what_a_stock_buffer_of_stacks_recorded_is_kept():
    model = make_sac(VecFrameStack(DummyVecEnv([counting]), 2), learning_starts=10_000)
    with pytest.warns(UserWarning, match="no discriminator is attached"):
        model.learn(30)
    stock = model.replay_buffer
    expected = stock.observations[:30, 0].copy(), stock.next_observations[:30, 0].copy()
    model.learn(5, callback=make_callback(), reset_num_timesteps=False)
    ours, rows = model.replay_buffer, np.arange(30)
    batch = ours._get_samples(rows)
    np.testing.assert_array_equal(batch.observations, expected[0])
    np.testing.assert_array_equal(batch.next_observations, expected[1])


# -- what the discriminator reads ------------------------------------------------------------

DICT = SkillSpace(EchoEnv.SPACES["dict"], N_SKILLS)


def position(obs):
    return obs["position"]


def first_half(obs):
    return obs[:, :2]


def wrong_shape(obs):
    return obs["position"].mean()


@pytest.mark.parametrize(
    ("chosen", "read"),
    [
        ("position", {"position": [0, 1]}),
        (["clock", "noise"], {"clock": [0], "noise": [0, 1, 2]}),
        ({"position": [1], "noise": "0:2"}, {"position": [1], "noise": [0, 1]}),
        ({"noise": slice(-1, None), "clock": None}, {"noise": [2], "clock": [0]}),
    ],
)
def test_keys_and_coordinates(chosen, read):
    """What is not chosen has no influence, and all that is chosen has."""
    discriminator = Discriminator(DICT.env_space, 3, net_arch=[16], obs_indices=chosen)
    obs = map_obs(th.as_tensor, samples(DICT, 20, 0))
    before = discriminator(obs)
    for key, part in obs.items():
        for index in range(1 if part.ndim == 1 else part.shape[1]):
            changed = part.clone()
            column = changed if part.ndim == 1 else changed[:, index]
            column.copy_((column + 1) % 100 if part.ndim == 1 else column + 1)
            same = th.equal(discriminator({**obs, key: changed}), before)
            assert same == (index not in read.get(key, []))


@pytest.mark.slow
@pytest.mark.parametrize("given_as", [position, "tests.integration.test_spaces:position"])
def test_a_function_of_ones_own(given_as, tmp_path):
    row = Row("dict", SAC)
    model, callback = row.make_model(), make_callback(obs_function=given_as)
    model.learn(100, callback=callback)
    check_fresh_rewards(model, callback)
    assert callback.discriminator.net[0].in_features == 2
    evaluation = evaluate_skills(model, row.make_env(), n_episodes=1)
    assert evaluation.info["parts"] == ["clock", "noise", "position"]
    assert evaluation.importance[:2].tolist() == [0, 0]
    model.save(tmp_path / "model.zip")
    with pytest.raises(
        ValueError, match=r"obs_function=None is not what .*expected tests.*Pass that"
    ):
        load_discriminator(tmp_path / "model.zip")
    loaded = load_discriminator(tmp_path / "model.zip", obs_function=position)
    obs, skills = map_obs(th.as_tensor, samples(DICT, 9, 0)), th.arange(9) % 3
    assert th.equal(loaded.reward(obs, skills), callback.discriminator.reward(obs, skills))
    again = SAC.load(tmp_path / "model.zip", env=row.make_env(), device="cpu")
    with pytest.raises(ValueError, match="obs_function=None is not what the saved"):
        again.learn(5, callback=DIAYNCallback())
    again.learn(5, callback=DIAYNCallback(obs_function=given_as))


@pytest.mark.parametrize(
    ("module", "saved", "is_it"),
    [
        ("mine", "mine:read", True),
        ("another", "mine:read", False),
        ("mine", "mine:another", False),
        ("mine.deeper", "mine:read", False),
        ("mine", "__main__:read", True),  # a script that was run then, and is imported now
        ("__main__", "mine:read", True),
        ("__main__", "mine:another", False),
        ("mine", None, False),
    ],
)
def test_a_function_is_known_by_its_module_and_its_name(module, saved, is_it):
    def read(obs): ...

    read.__module__, read.__qualname__ = module, "read"
    with nullcontext() if is_it else pytest.raises(ValueError, match="is not what the saved"):
        check_code("obs_function", read, saved)


def test_a_function_of_the_same_name_elsewhere_is_refused(tmp_path):
    model = Row("dict", SAC).make_model()
    model.learn(5, callback=make_callback(obs_function=position))
    model.save(tmp_path / "model.zip")

    def another(obs):
        return position(obs)

    another.__qualname__, another.__module__ = "position", "tests.elsewhere"
    with pytest.raises(ValueError, match=r"expected tests\.integration\.test_spaces:position"):
        load_discriminator(tmp_path / "model.zip", obs_function=another)


def test_loading_imports_nothing_that_a_file_names(tmp_path, monkeypatch):
    model = Row("dict", SAC).make_model()
    callback = make_callback(obs_function=position)
    model.learn(5, callback=callback)
    monkeypatch.setitem(callback.options, "obs_function", "sb3_diayn_no_such_module:run")
    model.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match="expected sb3_diayn_no_such_module:run"):
        load_discriminator(tmp_path / "model.zip")


def test_a_function_reads_a_vector_too():
    space = spaces.Box(-1.0, 1.0, (4,))
    discriminator = Discriminator(space, 3, obs_function=first_half, normalize_obs=True)
    obs = th.randn(50, 4)
    discriminator.update_normalizer(obs)
    np.testing.assert_allclose(discriminator.obs_mean, obs[:, :2].mean(dim=0), atol=1e-3)
    assert SkillReward(discriminator).single(np.zeros(4, np.float32), 1, 0) == pytest.approx(
        discriminator.reward(th.zeros(1, 4), th.tensor([1])).item(), abs=1e-6
    )


def test_real_numbers_as_images():
    space = spaces.Box(0.0, 1.0, (3, 36, 36), np.float32)
    flat = Discriminator(space, 3, net_arch=())
    images = Discriminator(space, 3, net_arch=(), normalized_image=True)
    assert flat.net[0].in_features == 3 * 36 * 36
    assert images.net[0].in_features == 512  # of NatureCNN
    obs = th.rand(2, 3, 36, 36)
    assert flat(obs).shape == images(obs).shape == (2, 3)


IMAGE = EchoEnv.SPACES["image_first"]
SMALL = spaces.Dict(image=spaces.Box(0, 255, (3, 7, 7), np.uint8))
KEYS = r"obs_indices={} does not choose keys .*the keys being \['clock', 'noise', 'position'\]"
REFUSED = [
    ((DICT.env_space, {"obs_indices": "0:2"}), KEYS.format("'0:2'")),
    ((DICT.env_space, {"obs_indices": [0]}), KEYS.format(r"\[0\]")),
    ((DICT.env_space, {"obs_indices": ["position", "speed"]}), KEYS.format(r"\['pos.*")),
    ((DICT.env_space, {"obs_indices": {}}), KEYS.format(r"\{\}")),
    ((DICT.env_space, {"obs_indices": 3}), KEYS.format("3")),
    ((DICT.env_space, {"obs_indices": {"position": [2]}}), "obs_indices=.*length 2; expected"),
    ((DICT.env_space, {"obs_indices": {"clock": [0]}}), r"chooses coordinates, but Discrete"),
    ((IMAGE, {"obs_indices": [0]}), r"obs_indices=\[0\] chooses coordinates, but Box.*Leave it"),
    (
        (IMAGE, {"normalize_obs": True}),
        r"normalize_obs=True .*convolutions.*expected False\. Leave",
    ),
    ((SMALL, {}), r"too small for SB3's NatureCNN .*expected at least 36 .*obs_function"),
    (
        (DICT.env_space, {"obs_function": position, "obs_indices": "clock"}),
        r"obs_indices='clock' chooses what obs_function=.* would read; expected one of the two",
    ),
    (
        (DICT.env_space, {"obs_function": wrong_shape}),
        r"obs_function=.*turns 2 observations into \(\); expected a tensor of shape \(2, number",
    ),
]


@pytest.mark.parametrize(("arguments", "match"), REFUSED, ids=[m[:30] for _, m in REFUSED])
def test_what_a_discriminator_cannot_read(arguments, match):
    space, options = arguments
    with pytest.raises(ValueError, match=match):
        Discriminator(space, 3, **options)


@pytest.mark.parametrize(
    ("function", "match"),
    [
        (lambda obs: obs, r"obs_function=.*cannot be found again by its name; expected a function"),
        ("no_such_module:f", r"obs_function='no_such_module:f' is not there .*'module:function'"),
        (
            "tests.integration.test_spaces:nothing",
            r"obs_function='tests.integration.test_spaces:nothing' is not there",
        ),
        ("position", r"obs_function='position' is not there .*expected a function or"),
    ],
)
def test_functions_that_cannot_be_named(function, match):
    with pytest.raises(ValueError, match=match):
        DIAYNCallback(obs_function=function)
