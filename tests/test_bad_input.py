"""What is refused, and whether the message says which argument and what was expected."""

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
from sb3_diayn.arguments import rules
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


def resume_with(make_env=counting, saved=None, **kwargs):
    """A saved training continues under other circumstances."""

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
    """Frames below each other instead of next to each other."""
    return VecFrameStack(
        DummyVecEnv([lambda: DIAYNWrapper(EchoEnv("matrix", box=True), 3)]), 2, "first"
    )


def odd_frame_stack_space(tmp_path):
    augmented = spaces.Dict(observation=MATRIX, skill=spaces.Box(0.0, 1.0, (6,)))
    SkillSpace.from_augmented(augmented, 3, 2)


def normalize_within():
    return VecFrameStack(VecNormalize(counting_vec(1), norm_reward=False), 2)


def normalize_reward():
    return VecNormalize(counting_vec(1))


def normalize_outside():
    return gym.wrappers.NormalizeObservation(counting())


def two_k():
    return DummyVecEnv([lambda: DIAYNWrapper(CountingEnv(), 5)])


def discriminator(**kwargs):
    return lambda tmp_path: Discriminator(BOX, 3, **kwargs)


# Each is refused by the constructor, before there is a model.
OPTIONS = [
    ("net_arch", "256"),
    ("net_arch", 256),
    ("net_arch", [0]),
    ("net_arch", b"16"),
    ("net_arch", {16: 16}),
    ("learning_rate", 0),
    ("learning_rate", "1e-3"),
    ("learning_rate", float("nan")),
    ("learning_rate", 10**400),
    ("batch_size", 0),
    ("batch_size", 1.5),
    ("n_updates", 0),
    ("n_updates", True),
    ("log_q_min", 1),
    ("log_q_min", float("nan")),
    ("step_cost", -0.1),
    ("reward_scale", -1),
    ("reward_scale", float("inf")),
    ("skill_reward_weight", -1),
    ("task_reward_weight", "1"),
    ("use_actions", "no"),
    ("normalize_obs", 1),
    ("subtract_log_p", None),
    ("learn_p_z", "yes"),
    ("p_z_update_freq", 0),
    ("sync_freq", 0),
    ("weight_decay", -0.1),
    ("weight_decay", None),
    ("max_grad_norm", 0),
    ("max_grad_norm", "1"),
    ("spectral_norm", 1),
    ("cross_fit", 1),
    ("n_rollouts", 0),
    ("hold", -1),
    ("hold", 1.5),
]

# What is refused, and how the message begins: with the name of the argument and its value.
ROWS = [
    # the wrapper
    (wrap(1), "n_skills=1"),
    (wrap(2.5), "n_skills=2.5"),
    (wrap(True), "n_skills=True"),
    (wrap("20"), "n_skills='20'"),
    (wrap(3, skill=-1), "skill=-1"),
    (wrap(3, skill=3), "skill=3"),
    (wrap(3, skill="3"), "skill=3"),
    (wrap(3, skill=1.0), "skill=1.0"),
    (wrap(3, skill="nonsense"), "skill='nonsense'"),
    (wrap(3, skill_duration=0), "skill_duration=0"),
    (wrap(3, skill_duration=-5), "skill_duration=-5"),
    (wrap(3, skill_duration=2.0), "skill_duration=2.0"),
    (wrap(3, skill_duration=True), "skill_duration=True"),
    (lambda _: DIAYNWrapper(counting(), 3), "env=<DIAYNWrapper"),
    (lambda _: counting().set_skill(3), "skill=3"),
    (lambda _: counting().reset(options={"skill": 3}), "skill=3"),
    (lambda _: counting().reset(options={"skill": "0"}), "skill='0'"),
    (wrap_space(spaces.Tuple([BOX])), "observation_space=Tuple"),
    (wrap_space(spaces.Dict({"a": BOX, "b": spaces.Text(3)})), "observation_space=Dict"),
    (wrap_space(spaces.Dict({"a": spaces.Dict({"b": BOX})})), "observation_space=Dict"),
    (wrap_space(spaces.Dict({})), "observation_space=Dict()"),
    (wrap_space(spaces.Discrete(4, start=1)), "observation_space=Discrete"),
    (wrap_space(spaces.Box(0.0, 1.0, ())), "observation_space=Box"),
    (wrap_space(spaces.Dict({"a": BOX, "skill": BOX})), "observation_space=Dict"),
    # the options of the callback
    *[(option(**{name: value}), f"{name}={value!r}") for name, value in OPTIONS],
    (option(min_task_return="best", task_reward_weight=1.0), "min_task_return='best'"),
    (option(min_task_return=float("inf"), task_reward_weight=1.0), "min_task_return=inf"),
    (option(min_task_return=5.0), "min_task_return=5.0"),
    (option(min_task_return=5.0, task_reward_weight=-1.0), "min_task_return=5.0"),
    # the coordinates, once the space is known
    (indices([2]), "obs_indices=[2]"),
    (indices([-3]), "obs_indices=[-3]"),
    (indices([0, 0]), "obs_indices=[0, 0]"),
    (indices([0, -2]), "obs_indices=[0, -2]"),
    (indices([]), "obs_indices=[]"),
    (indices("1:1"), "obs_indices="),
    (indices("a:b"), "obs_indices='a:b'"),
    (indices("1"), "obs_indices='1'"),
    (indices(""), "obs_indices=''"),
    (indices("0:1:0"), "obs_indices='0:1:0'"),
    (indices(1), "obs_indices=1"),
    (indices([0.5]), "obs_indices=[0.5]"),
    (discriminator(obs_indices=[2]), "obs_indices=[2]"),
    # the model and its environment
    (learn(CountingEnv), "env "),
    (learn(lambda: counting(skill=1)), "skill=1"),
    (learn(normalize_reward), "norm_reward=True"),
    (learn(normalize_reward, make_ppo), "norm_reward=True"),
    (learn(normalize_outside), "observation_space="),
    (learn(odd_frame_stack, make_dict_sac), "observation_space="),
    (odd_frame_stack_space, "observation_space="),
    (learn(normalize_within), "VecNormalize "),
    (
        learn(
            optimize_memory_usage=True,
            replay_buffer_kwargs={"handle_timeout_termination": False},
        ),
        "optimize_memory_usage=True",
    ),
    (learn(make_model=make_ars), "model=ARS"),
    (loaded_buffer_of_other_n_envs, "n_envs=2"),
    (loaded_buffer_of_another_k, "observation_space="),
    (learn(make_model=with_her), "replay_buffer_class=HerReplayBuffer"),
    (
        learn(make_model=make_ppo, callback={"min_task_return": 5.0, "task_reward_weight": 1.0}),
        "min_task_return=5.0",
    ),
    (learn(make_model=make_ppo, callback={"cross_fit": True}), "cross_fit=True"),
    (learn(callback={"n_rollouts": 2}), "n_rollouts=2"),
    (learn(gamma=1.0, callback={"absorbing": True}), "absorbing=True"),
    (learn(make_model=make_ppo, gamma=1.0, callback={"absorbing": True}), "absorbing=True"),
    # a training that continues with a saved discriminator
    (resume_with(two_k), "n_skills=5"),
    (resume_with(net_arch=[8]), "net_arch=[8]"),
    (resume_with(use_actions=True), "use_actions=True"),
    (resume_with(normalize_obs=True), "normalize_obs=True"),
    (resume_with(spectral_norm=True), "spectral_norm=True"),
    (resume_with(cross_fit=True), "cross_fit=True"),
    (resume_with(obs_indices="0:1"), "obs_indices=[0]"),
    (resume_with(saved={"obs_indices": "1:"}, obs_indices=[0]), "obs_indices=[0]"),
    (other_version, "format_version=7"),
    # presets and the loader
    (lambda _: preset("papers"), "preset='papers'"),
    (lambda _: preset(None), "preset=None"),
    (lambda path: load_state(empty_file(path)), "path="),
    (lambda path: load_discriminator(empty_file(path)), "path="),
    # numbers that are not finite
    (lambda _: stepped([np.nan]), "action=[nan]"),
    (lambda _: stepped([-np.inf]), "action=[-inf]"),
    # the buffer
    (buffer(optimize_memory_usage=True), "optimize_memory_usage=True"),
    (buffer(n_skills=1), "n_skills=1"),
    (buffer(BOX), "observation_space="),
    (buffer(SkillSpace(BOX, 3).observation_space, n_skills=5), "observation_space="),
]


@pytest.mark.filterwarnings("ignore:.*precision lowered by casting")
@pytest.mark.parametrize(("run", "beginning"), ROWS, ids=[row[1][:32] for row in ROWS])
def test_refused(run, beginning, tmp_path):
    """The rest of the sentence may change, but it says what is expected."""
    with pytest.raises(ValueError) as caught:
        run(tmp_path)
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert message.startswith(beginning) and "; expected " in message


def test_a_fixed_skill_from_the_environment_variable_is_refused_in_training(monkeypatch):
    monkeypatch.setenv("DIAYN_SKILL", "1")
    with pytest.raises(ValueError, match=r"^skill=1 .*; expected .*DIAYN_SKILL"):
        learn(lambda: DIAYNWrapper(CountingEnv(), 3))(None)


def test_a_model_without_environment_is_refused_by_sb3_first(tmp_path):
    model = make_sac(counting())
    model.learn(5, callback=make_callback())
    model.save(tmp_path / "model")
    with pytest.raises(AssertionError):
        SAC.load(tmp_path / "model", device="cpu").learn(5, callback=DIAYNCallback())


def test_a_refused_learn_leaves_the_model_as_it_was():
    model = make_sac(counting())
    with pytest.raises(ValueError, match=r"^obs_indices="):
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


@pytest.mark.slow
@pytest.mark.parametrize("name", rules(DIAYNCallback))
@settings(max_examples=60)
@given(anything)
def test_any_value_of_an_option_is_accepted_or_refused(name, value):
    """Refused by a message that names it, accepted only if it can be saved."""
    others = {"task_reward_weight": 1.0} if name == "min_task_return" else {}
    try:
        options = DIAYNCallback(**{name: value}, **others).options
    except ValueError as error:
        assert str(error).startswith(f"{name}=") and "; expected " in str(error)
    else:
        json.dumps(options, default=float)  # NumPy's scalars and fractions are numbers
