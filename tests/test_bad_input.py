"""What is refused, and whether the message says which argument, what is wrong and what to do."""

import json

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from sb3_contrib import ARS
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack, VecNormalize
from stable_baselines3.her.her_replay_buffer import HerReplayBuffer

from sb3_diayn import (
    DIAYNCallback,
    DIAYNWrapper,
    Discriminator,
    SkillReplayBuffer,
    load_discriminator,
)
from sb3_diayn.checks import RULES
from sb3_diayn.model_zip import load_state
from sb3_diayn.skills import SkillSpace
from sb3_diayn.zoo import preset
from tests.helpers.envs import CountingEnv, EchoEnv
from tests.helpers.models import counting, counting_vec, make_callback, make_ppo, make_sac

BOX = spaces.Box(-1.0, 1.0, (2,))
MATRIX = spaces.Box(0.0, 1.0, (2, 3))


class SpaceEnv(CountingEnv):
    def __init__(self, space: gym.Space) -> None:
        super().__init__()
        self.observation_space = space


def wrap(*args, **kwargs):
    return lambda tmp_path: DIAYNWrapper(CountingEnv(), *args, **kwargs)


def wrap_space(space):
    return lambda tmp_path: DIAYNWrapper(SpaceEnv(space), 3)


def option(**kwargs):
    """Refused by the constructor, before there is a model."""
    return lambda tmp_path: DIAYNCallback(**kwargs)


def learn(make_env=counting, make_model=make_sac, callback=None, **kwargs):
    """Refused by ``learn``, before the first step."""

    def run(tmp_path):
        model = make_model(make_env(), **kwargs)
        try:
            model.learn(10, callback=make_callback(**(callback or {})))
        finally:
            assert model.num_timesteps == 0

    return run


def indices(obs_indices):
    return learn(callback={"obs_indices": obs_indices})


def go_on(make_env=counting, saved=None, **kwargs):
    """A model that has learned goes on under other circumstances."""

    def run(tmp_path):
        model = make_sac(counting())
        model.learn(5, callback=make_callback(**(saved or {})))
        model.save(tmp_path / "model")
        other = make_sac(make_env())
        other.diayn_state = load_state(tmp_path / "model")
        other.learn(5, callback=DIAYNCallback(**kwargs))

    return run


def other_version(tmp_path):
    model = make_sac(counting())
    model.diayn_state = {"format_version": 7}
    model.learn(5, callback=make_callback())


def loaded_buffer_of_other_n_envs(tmp_path):
    model = make_sac(counting())
    model.learn(5, callback=make_callback())
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = make_sac(counting_vec(2))
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    other.learn(5, callback=make_callback())


def loaded_buffer_of_another_k(tmp_path):
    model = make_sac(two_k())
    model.learn(5, callback=make_callback())
    other = make_sac(counting())
    other.replay_buffer = model.replay_buffer
    other.learn(5, callback=make_callback())


def with_her(env):
    """SB3 itself refuses to build HER on such a space, but a zip can bring the class along."""
    model = make_sac(env)
    model.replay_buffer_class = HerReplayBuffer
    return model


def buffer(space=None, **kwargs):
    space = SkillSpace(BOX, 3).observation_space if space is None else space
    return lambda tmp_path: SkillReplayBuffer(10, space, BOX, "cpu", **({"n_skills": 3} | kwargs))


def make_dict_sac(env, **kwargs):
    return SAC("MultiInputPolicy", env, buffer_size=100, device="cpu", **kwargs)


def empty_file(folder):
    (folder / "model.zip").touch()
    return folder / "model.zip"


def stepped(action):
    env = counting()
    env.reset(seed=0)
    env.step(np.array(action))


def make_ars(env):
    return ARS("LinearPolicy", env, device="cpu")


def odd_frame_stack():
    """Frames below each other instead of beside."""
    return VecFrameStack(
        DummyVecEnv([lambda: DIAYNWrapper(EchoEnv("matrix", box=True), 3)]), 2, "first"
    )


def normalize_within():
    return learn(lambda: VecFrameStack(VecNormalize(counting_vec(1), norm_reward=False), 2))


def normalize_reward():
    return VecNormalize(counting_vec(1))


def normalize_outside():
    return gym.wrappers.NormalizeObservation(counting())


def two_k():
    return DummyVecEnv([lambda: DIAYNWrapper(CountingEnv(), 5)])


def discriminator(**kwargs):
    return lambda tmp_path: Discriminator(BOX, 3, **kwargs)


N_SKILLS = r"n_skills={} is not a number of skills; expected an integer of at least 2\..*pass n_sk"
SKILL = r"skill={} is not one of the skills; expected an integer from 0 to 2\..*choose one of"
SPACE = r"observation_space=.* is not supported; expected a Box, a Discrete .*Flatten it first"
INDICES = r"obs_indices={} does not choose .*expected different indices from -2 to 1.*Leave it out"
SLICE = r"obs_indices={} is not a slice; expected 'start:stop'.*Write for example '0:2'"
RANGE = r"{} is out of range; expected {}\. See the parameters of DIAYNCallback"
POSITIVE = "a positive number"
COUNT = "a positive integer"
AT_LEAST_0 = "a number of at least 0"
DURATION = r"skill_duration={} is not a number of steps; expected a positive integer\. Leave it out"
SAVED = r"{} does not match the saved discriminator; expected {}\. Leave it out .*new model"
NO_TASK = r"min_task_return=5\.0 pays .*task_reward_weight={} makes none good.*Add task_reward_w"
MEMORY = r"optimize_memory_usage=True .*expected False\..*buffer.*is the smaller one"

ROWS = [
    # the wrapper
    (wrap(1), N_SKILLS.format("1")),
    (wrap(2.5), N_SKILLS.format(r"2\.5")),
    (wrap(True), N_SKILLS.format("True")),
    (wrap("20"), N_SKILLS.format("'20'")),
    (wrap(3, skill=-1), SKILL.format("-1")),
    (wrap(3, skill=3), SKILL.format("3")),
    (wrap(3, skill="3"), SKILL.format("3")),
    (wrap(3, skill=1.0), SKILL.format(r"1\.0")),
    (
        wrap(3, skill="nonsense"),
        r"skill='nonsense' is not a rule .*expected an index or one of .*'balanced'.*DIAYN_SKILL",
    ),
    (wrap(3, skill_duration=0), DURATION.format("0")),
    (wrap(3, skill_duration=-5), DURATION.format("-5")),
    (wrap(3, skill_duration=2.0), DURATION.format(r"2\.0")),
    (wrap(3, skill_duration=True), DURATION.format("True")),
    (lambda _: DIAYNWrapper(counting(), 3), r"env=.* already has a DIAYNWrapper; .*Wrap it once"),
    (lambda _: counting().set_skill(3), SKILL.format("3")),
    (lambda _: counting().reset(options={"skill": 3}), SKILL.format("3")),
    (lambda _: counting().reset(options={"skill": "0"}), SKILL.format("'0'")),
    (wrap_space(spaces.Tuple([BOX])), SPACE),
    (wrap_space(spaces.Dict({"a": BOX, "b": spaces.Text(3)})), SPACE),
    (wrap_space(spaces.Dict({"a": spaces.Dict({"b": BOX})})), SPACE),
    (wrap_space(spaces.Dict({})), SPACE),
    (wrap_space(spaces.Discrete(4, start=1)), SPACE),
    (wrap_space(spaces.Box(0.0, 1.0, ())), SPACE),
    (
        wrap_space(spaces.Dict({"a": BOX, "skill": BOX})),
        r"observation_space=.* already has a key 'skill'; expected it to be free.*Rename the key",
    ),
    # the options of the callback
    (option(net_arch="256"), RANGE.format("net_arch='256'", "a list of positive integers")),
    (option(net_arch=256), RANGE.format("net_arch=256", "a list of positive integers")),
    (option(net_arch=[0]), RANGE.format(r"net_arch=\[0\]", "a list of positive integers")),
    (option(learning_rate=0), RANGE.format("learning_rate=0", POSITIVE)),
    (option(learning_rate="1e-3"), RANGE.format("learning_rate='1e-3'", POSITIVE)),
    (option(learning_rate=float("nan")), RANGE.format("learning_rate=nan", POSITIVE)),
    (option(batch_size=0), RANGE.format("batch_size=0", f"{COUNT} or None")),
    (option(batch_size=1.5), RANGE.format(r"batch_size=1\.5", f"{COUNT} or None")),
    (option(n_updates=0), RANGE.format("n_updates=0", COUNT)),
    (option(n_updates=True), RANGE.format("n_updates=True", COUNT)),
    (option(log_q_min=1), RANGE.format("log_q_min=1", "a negative number or None")),
    (option(reward_scale=-1), RANGE.format("reward_scale=-1", POSITIVE)),
    (option(reward_scale=float("inf")), RANGE.format("reward_scale=inf", POSITIVE)),
    (option(skill_reward_weight=-1), RANGE.format("skill_reward_weight=-1", AT_LEAST_0)),
    (option(task_reward_weight="1"), RANGE.format("task_reward_weight='1'", "a finite number")),
    (option(use_actions="no"), RANGE.format("use_actions='no'", "True or False")),
    (option(normalize_obs=1), RANGE.format("normalize_obs=1", "True or False")),
    (option(subtract_log_p=None), RANGE.format("subtract_log_p=None", "True or False")),
    (option(learn_p_z="yes"), RANGE.format("learn_p_z='yes'", "True or False")),
    (option(p_z_update_freq=0), RANGE.format("p_z_update_freq=0", COUNT)),
    (option(sync_freq=0), RANGE.format("sync_freq=0", COUNT)),
    (option(net_arch=b"16"), RANGE.format("net_arch=b'16'", "a list of positive integers")),
    (option(net_arch={16: 16}), RANGE.format(".*", "a list of positive integers")),
    (option(learning_rate=10**400), RANGE.format("learning_rate=1000.*", POSITIVE)),
    (option(weight_decay=-0.1), RANGE.format(r"weight_decay=-0\.1", AT_LEAST_0)),
    (option(weight_decay=None), RANGE.format("weight_decay=None", AT_LEAST_0)),
    (option(max_grad_norm=0), RANGE.format("max_grad_norm=0", f"{POSITIVE} or None")),
    (option(max_grad_norm="1"), RANGE.format("max_grad_norm='1'", f"{POSITIVE} or None")),
    (option(spectral_norm=1), RANGE.format("spectral_norm=1", "True or False")),
    (option(log_q_min=float("nan")), RANGE.format("log_q_min=nan", "a negative number or None")),
    (
        option(min_task_return="best", task_reward_weight=1.0),
        RANGE.format("min_task_return='best'", "a finite number or None"),
    ),
    (
        option(min_task_return=float("inf"), task_reward_weight=1.0),
        RANGE.format("min_task_return=inf", "a finite number or None"),
    ),
    (option(min_task_return=5.0), NO_TASK.format("0.0")),
    (option(min_task_return=5.0, task_reward_weight=-1.0), NO_TASK.format("-1.0")),
    (option(hold=-1), RANGE.format("hold=-1", "an integer of at least 0")),
    (option(hold=1.5), RANGE.format(r"hold=1\.5", "an integer of at least 0")),
    # the coordinates, once the space is known
    (indices([2]), INDICES.format(r"\[2\]")),
    (indices([-3]), INDICES.format(r"\[-3\]")),
    (indices([0, 0]), INDICES.format(r"\[0, 0\]")),
    (indices([0, -2]), INDICES.format(r"\[0, -2\]")),
    (indices([]), INDICES.format(r"\[\]")),
    (indices("1:1"), "obs_indices=.*Leave it out"),
    (indices("a:b"), SLICE.format("'a:b'")),
    (indices("1"), SLICE.format("'1'")),
    (indices(""), SLICE.format("''")),
    (indices("0:1:0"), "obs_indices='0:1:0' is not a slice"),
    (indices(1), "obs_indices=1 .*expected"),
    (indices([0.5]), r"obs_indices=\[0\.5\] .*expected"),
    (discriminator(obs_indices=[2]), INDICES.format(r"\[2\]")),
    # the model and its environment
    (learn(CountingEnv), r"env has no DIAYNWrapper; expected one .*DIAYNWrapper\(env, n_skills=20"),
    (
        learn(lambda: counting(skill=1)),
        r"skill=1 is fixed in a training environment; expected 'uniform'.*unset.*DIAYN_SKILL",
    ),
    (learn(normalize_reward), r"norm_reward=True .*expected False\. Use VecNormalize\(env, norm_r"),
    (
        learn(normalize_reward, make_ppo),
        r"norm_reward=True .*expected False\. Use VecNormalize\(env, norm_r",
    ),
    (
        learn(normalize_outside),
        r"observation_space=.*one-hot of n_skills=3 .*outside every wrapper",
    ),
    (
        learn(odd_frame_stack, make_dict_sac),
        r"(?s)observation_space=.*not that of the DIAYNWrapper.*expected.* outside every wrapper",
    ),
    (
        lambda _: SkillSpace.from_augmented(
            spaces.Dict(observation=MATRIX, skill=spaces.Box(0.0, 1.0, (6,))), 3, 2
        ),
        r"(?s)observation_space=.*not that of 2 stacked frames; expected .*without channels_order",
    ),
    (
        normalize_within(),
        r"VecNormalize is within VecFrameStack; expected it outside.*VecNormalize\(VecFrameStack\(",
    ),
    (
        learn(
            optimize_memory_usage=True,
            replay_buffer_kwargs={"handle_timeout_termination": False},
        ),
        MEMORY,
    ),
    (learn(make_model=make_ars), r"model=ARS .*expected an off-policy or on-policy .*Use SAC"),
    (
        loaded_buffer_of_other_n_envs,
        r"n_envs=2 does not match the loaded replay buffer; expected 1\. Use as many",
    ),
    (
        loaded_buffer_of_another_k,
        r"(?s)observation_space=.*does not match the loaded replay buffer; expected .*n_skills of",
    ),
    (
        learn(make_model=with_her),
        r"replay_buffer_class=HerReplayBuffer .*expected SB3's own buffer.*Leave replay_buffer",
    ),
    (
        learn(make_model=make_ppo, callback={"min_task_return": 5.0, "task_reward_weight": 1.0}),
        r"min_task_return=5\.0 needs rewards that wait .*PPO is rewarded before.*Use SAC, or leave",
    ),
    # going on with a saved discriminator
    (
        go_on(two_k),
        r"n_skills=5 of the environment does not match .*expected 3\. Use DIAYNWrapper\(env, n_",
    ),
    (go_on(net_arch=[8]), SAVED.format(r"net_arch=\[8\]", r"\[16\]")),
    (go_on(use_actions=True), SAVED.format("use_actions=True", "False")),
    (go_on(normalize_obs=True), SAVED.format("normalize_obs=True", "False")),
    (go_on(spectral_norm=True), SAVED.format("spectral_norm=True", "False")),
    (go_on(obs_indices="0:1"), SAVED.format(r"obs_indices=\[0\]", "None")),
    (
        go_on(saved={"obs_indices": "1:"}, obs_indices=[0]),
        SAVED.format(r"obs_indices=\[0\]", r"\[1\]"),
    ),
    (other_version, r"format_version=7 in the model is unknown .*expected 1\. Install the version"),
    # presets and the loader
    (lambda _: preset("papers"), r"preset='papers' is not known; expected one of .*Leave it out"),
    (lambda _: preset(None), r"preset=None is not known; expected one of .*'urlb'.*Leave it out"),
    (lambda path: load_state(empty_file(path)), r"is not a model saved by SB3.*Use another check"),
    (
        lambda path: load_discriminator(empty_file(path)),
        r"is not a model saved by SB3.*Use another",
    ),
    # numbers that are not finite
    (lambda _: stepped([np.nan]), r"action=\[nan\] is not finite at step 0 .*policy has diverged"),
    (lambda _: stepped([-np.inf]), r"action=\[-inf\] is not finite at step 0 .*policy has diver"),
    # the buffer
    (buffer(optimize_memory_usage=True), MEMORY),
    (buffer(n_skills=1), N_SKILLS.format("1")),
    (
        buffer(BOX),
        r"observation_space=.*does not end with the one-hot of n_skills=3 .*Wrap the environment",
    ),
    (
        buffer(SkillSpace(BOX, 3).observation_space, n_skills=5),
        r"does not end with the one-hot of n_skills=5 .*use the number of skills that the model",
    ),
]


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
@pytest.mark.parametrize(("run", "match"), ROWS, ids=[match[:32] for _, match in ROWS])
def test_refused(run, match, tmp_path):
    with pytest.raises(ValueError, match=match) as caught:
        run(tmp_path)
    assert type(caught.value) is ValueError


def test_a_fixed_skill_from_the_environment_variable_is_refused_in_training(monkeypatch):
    monkeypatch.setenv("DIAYN_SKILL", "1")
    with pytest.raises(ValueError, match=r"skill=1 is fixed .*unset the variable DIAYN_SKILL"):
        learn(lambda: DIAYNWrapper(CountingEnv(), 3))(None)


def test_a_model_without_environment_is_refused_by_sb3_first(tmp_path):
    model = make_sac(counting())
    model.learn(5, callback=make_callback())
    model.save(tmp_path / "model")
    with pytest.raises(AssertionError):
        SAC.load(tmp_path / "model", device="cpu").learn(5, callback=DIAYNCallback())


def test_a_refused_learn_leaves_the_model_as_it_was():
    model = make_sac(counting())
    with pytest.raises(ValueError, match="obs_indices"):
        model.learn(5, callback=make_callback(obs_indices=[7]))
    assert not hasattr(model, "diayn_state")
    callback = make_callback()
    model.learn(25, callback=callback)
    assert callback.trainer.n_updates == 5


anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=3),
    st.binary(max_size=3),
    st.complex_numbers(),
    st.fractions(),
    st.lists(st.integers(-1, 3) | st.text(max_size=1), max_size=3),
    st.dictionaries(st.integers(0, 3), st.none(), max_size=2),
    st.sampled_from([10**400, np.float32(1), np.zeros(2), object(), int, lambda: 1, slice(1)]),
)


@pytest.mark.parametrize("name", RULES)
@settings(max_examples=60)
@given(anything)
def test_any_value_of_an_option_is_accepted_or_refused(name, value):
    """Refused by a message that names it, accepted only if it can be saved."""
    others = {"task_reward_weight": 1.0} if name == "min_task_return" else {}
    try:
        options = DIAYNCallback(**{name: value}, **others).options
    except ValueError as error:
        assert str(error).startswith(f"{name}=") and "expected" in str(error)
    else:
        json.dumps(options, default=float)  # NumPy's scalars and fractions are numbers
