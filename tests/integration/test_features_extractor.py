"""A features extractor of one's own in front of the discriminator."""

import copy
import pickle

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_diayn import (
    DIAYNCallback,
    DIAYNCheckpointCallback,
    DIAYNWrapper,
    Discriminator,
    SkillReward,
    evaluate_skills,
    load_discriminator,
    resume,
)
from sb3_diayn.checkpoints import last_good_checkpoint
from sb3_diayn.discriminator import Batch
from sb3_diayn.model_zip import build_discriminator, load_state, model_discriminator
from sb3_diayn.reward_sync import attach_wrappers
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.helpers.envs import EchoEnv, PointEnv
from tests.helpers.extractors import (
    CannotRead,
    First,
    ImageAndSkill,
    LearnedLinear,
    NeedsContent,
    SmallCNN,
    WrongWidth,
)
from tests.helpers.models import K, make_callback, make_sac
from tests.helpers.spaces import OFF_POLICY

BOX = spaces.Box(-1.0, 1.0, (4,), np.float32)
WORDS = "tests.helpers.extractors"


class TinyImageEnv(EchoEnv):
    """Images of six pixels by six, which ``NatureCNN`` cannot read."""

    def __init__(self) -> None:
        super().__init__("image")
        self.observation_space = spaces.Box(0, 255, (6, 6, 3), np.uint8)

    def observe(self, shown):
        return super().observe(shown)[::6, ::6]


def tiny_images(n_envs: int = 4) -> DummyVecEnv:
    return DummyVecEnv([lambda: DIAYNWrapper(TinyImageEnv(), K, skill="cycle")] * n_envs)


def reading_vectors(**options):
    """A SAC model of ``PointEnv`` that has learned with an extractor, and its callback."""
    model = make_sac(DIAYNWrapper(PointEnv(), K, skill="cycle"))
    callback = make_callback(**options)
    return model.learn(60, callback=callback), callback


@pytest.mark.slow
def test_images_that_are_too_small_for_nature_cnn(tmp_path):
    model = DQN(
        "MultiInputPolicy",
        tiny_images(),
        policy_kwargs={"net_arch": [32], "features_extractor_class": ImageAndSkill},
        learning_rate=5e-3,
        gamma=0.0,
        target_update_interval=50,
        exploration_fraction=0.4,
        device="cpu",
        seed=0,
        **OFF_POLICY | {"gradient_steps": 4},
    )
    options = {
        "features_extractor_class": SmallCNN,
        "features_extractor_kwargs": {"features_dim": 12},
    }
    callback = make_callback(learning_rate=5e-3, **options)
    model.learn(800, callback=callback)
    trained = callback.discriminator
    assert trained.net[0].in_features == 12
    evaluation = evaluate_skills(model, tiny_images(1), n_episodes=2, deterministic=True)
    assert evaluation.accuracy.mean() > 0.9  # chance is 1/3
    model.save(tmp_path / "model")
    loaded = load_discriminator(tmp_path / "model.zip", features_extractor_class=SmallCNN)
    obs, skills = th.randint(0, 256, (9, 3, 6, 6), dtype=th.uint8), th.arange(9) % K
    assert th.equal(loaded.reward(obs, skills), trained.reward(obs, skills))
    again = DQN.load(tmp_path / "model.zip", env=tiny_images(), device="cpu")
    again.learn(4, callback=DIAYNCallback(features_extractor_class=SmallCNN))
    assert th.equal(model_discriminator(again).reward(obs, skills), loaded.reward(obs, skills))


def test_the_extractor_learns_with_the_discriminator():
    model, callback = reading_vectors(features_extractor_class=LearnedLinear)
    layer = callback.discriminator.extractor.extractor.layer
    th.manual_seed(0)
    before = layer.weight.clone()
    callback.trainer.update(Batch(th.randn(64, 2), th.arange(64) % K))
    assert not th.equal(before, layer.weight)
    batch = model.replay_buffer.sample(30)  # rewards of the present discriminator
    skills = batch.next_observations[:, 2:].argmax(dim=1)
    expected = callback.discriminator.reward(batch.next_observations[:, :2], skills)
    th.testing.assert_close(batch.rewards[:, 0], expected, atol=1e-6, rtol=0)


def test_a_class_by_its_name_and_its_arguments():
    given = {"features_extractor_class": f"{WORDS}.First", "features_extractor_kwargs": {"n": 2}}
    callback = DIAYNCallback(**given)
    assert callback.options["features_extractor_class"] == f"{WORDS}:First"
    callback = DIAYNCallback(features_extractor_class=f"{WORDS}:First")
    assert callback.options["features_extractor_class"] == f"{WORDS}:First"


def test_it_reads_what_obs_indices_choose():
    options = {"features_extractor_class": First, "features_extractor_kwargs": {"n": 2}}
    discriminator = Discriminator(BOX, 3, net_arch=[8], obs_indices=[3, 1, 0], **options)
    obs = th.randn(20, 4)
    before = discriminator(obs)
    for index in range(4):
        changed = obs.clone()
        changed[:, index] += 1
        assert th.equal(discriminator(changed), before) == (index in (0, 2))


def test_arguments_without_a_class_go_to_the_choice_of_sb3():
    image = spaces.Box(0, 255, (3, 36, 36), np.uint8)
    options = {"features_extractor_kwargs": {"features_dim": 7}}
    assert Discriminator(image, 3, net_arch=(), **options).net[0].in_features == 7


def test_a_copy_for_other_processes_pays_the_same():
    model, callback = reading_vectors(features_extractor_class=LearnedLinear)
    reward = callback.skill_reward
    sent = pickle.loads(pickle.dumps(SkillReward(copy.deepcopy(reward.discriminator))))
    obs = np.float32([[0.3, -2.0]])
    assert sent.single(obs[0], 1, 0) == pytest.approx(reward.single(obs[0], 1, 0), abs=1e-6)
    attach_wrappers(model.get_env(), reward)
    model.get_env().reset()
    _, paid, _, infos = model.get_env().step(np.zeros((1, 2)))
    assert paid[0] == pytest.approx(infos[0]["skill_reward"], abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("cross_fit", [False, True])
def test_a_training_continues_exactly(tmp_path, cross_fit):
    options = {"features_extractor_class": LearnedLinear, "cross_fit": cross_fit}

    def learn(n_steps, *callbacks):
        model = make_sac(DIAYNWrapper(PointEnv(), K, skill="cycle"))
        return model.learn(n_steps, callback=[make_callback(**options), *callbacks])

    whole = learn(80)
    learn(40, DIAYNCheckpointCallback(tmp_path, save_freq=40, save_replay_buffer=True))
    env = DIAYNWrapper(PointEnv(), K, skill="cycle")
    half = resume(tmp_path, env, device="cpu")
    callback = make_callback(**options)
    half.learn(40, callback=callback, reset_num_timesteps=False)
    expected = model_discriminator(whole).state_dict()
    for name, tensor in model_discriminator(half).state_dict().items():
        assert th.equal(tensor, expected[name]), name
    checkpoints = DIAYNCheckpointCallback(tmp_path)
    assert last_good_checkpoint(checkpoints) is None  # it cannot be read without the class
    code = half.diayn_state.code
    assert last_good_checkpoint(checkpoints, code) == tmp_path / "checkpoint_40_steps" / "model.zip"
    if cross_fit:
        assert "second_extractor.extractor.layer.weight" in expected
        first, second = (
            expected[f"{name}.extractor.layer.weight"] for name in ("extractor", "second_extractor")
        )
        assert not th.equal(first, second)


def test_a_zip_asks_for_its_class_and_has_its_arguments(tmp_path):
    given = {"features_extractor_class": First, "features_extractor_kwargs": {"n": 2}}
    model, _ = reading_vectors(**given)
    model.save(tmp_path / "model")
    path = tmp_path / "model.zip"
    for wrong in (None, LearnedLinear):
        with pytest.raises(
            ValueError, match=rf"features_extractor_class=.*expected {WORDS}:First\. Pass that c"
        ):
            load_discriminator(path, features_extractor_class=wrong)
    loaded = load_discriminator(path, features_extractor_class=First)
    assert loaded.net[0].in_features == 2
    again = SAC.load(path, env=DIAYNWrapper(PointEnv(), K), device="cpu")
    with pytest.raises(ValueError, match=r"features_extractor_kwargs=\{'n': 1\} does not match"):
        again.learn(5, callback=DIAYNCallback(**given | {"features_extractor_kwargs": {"n": 1}}))
    again.learn(5, callback=DIAYNCallback(features_extractor_class=First))


def test_a_class_that_computes_as_it_is_built_can_be_loaded(tmp_path):
    model, callback = reading_vectors(features_extractor_class=NeedsContent)
    model.save(tmp_path / "model")
    loaded = load_discriminator(tmp_path / "model.zip", features_extractor_class=NeedsContent)
    obs, skills = th.randn(9, 2), th.arange(9) % K
    trained = callback.discriminator
    assert th.equal(loaded.reward(obs, skills), trained.reward(obs, skills))


def test_arguments_in_a_zip_take_no_memory_that_it_does_not_hold(tmp_path):
    model, _ = reading_vectors(features_extractor_class=LearnedLinear)
    model.save(tmp_path / "model")
    state = load_state(tmp_path / "model.zip")
    state["options"]["features_extractor_kwargs"] = {"features_dim": 10**13}
    code = model.diayn_state.code
    with pytest.raises(ValueError, match="the arrays do not fit the architecture"):
        build_discriminator(state, code)


def test_a_spectral_norm_needs_an_extractor_without_parameters():
    with pytest.raises(ValueError, match=r"spectral_norm=True bounds .*LearnedLinear could"):
        Discriminator(BOX, 3, spectral_norm=True, features_extractor_class=LearnedLinear)
    discriminator = Discriminator(BOX, 3, spectral_norm=True, features_extractor_class=First)
    for layer in discriminator.net[::2]:
        assert th.linalg.matrix_norm(layer.weight, ord=2).item() == pytest.approx(1, abs=0.1)


def test_only_features_that_do_not_change_are_normalised():
    with pytest.raises(ValueError, match=r"normalize_obs=True .*learned layers.*expected False"):
        Discriminator(BOX, 3, normalize_obs=True, features_extractor_class=LearnedLinear)
    discriminator = Discriminator(BOX, 3, normalize_obs=True, features_extractor_class=First)
    discriminator.update_normalizer(th.full((50, 4), 2.0))
    assert discriminator.obs_mean.tolist() == pytest.approx([2.0], abs=1e-3)


REFUSED = [
    (
        {"features_extractor_class": NatureCNN},
        r"NatureCNN cannot be built for Box.*AssertionError.*expected a class that takes",
    ),
    (
        {"features_extractor_class": First, "features_extractor_kwargs": {"m": 1}},
        r"First cannot be built for Box.*kwargs=\{'m': 1\} \(TypeError.*Correct one",
    ),
    (
        {"features_extractor_class": WrongWidth, "features_extractor_kwargs": {"n": 2}},
        r"WrongWidth turns 2 observations into \(2, 1\); expected a tensor of shape \(2, 2\)",
    ),
    (
        {"features_extractor_class": CannotRead},
        r"CannotRead cannot read Box.*RuntimeError: no such layer.*Correct forward",
    ),
    (
        {"features_extractor_class": First, "normalized_image": True},
        r"normalized_image=True is for SB3's choice .*expected False",
    ),
    (
        {"features_extractor_class": First, "obs_function": lambda obs: obs},
        r"obs_function=.* takes the place .*expected no features_extractor_class",
    ),
    (
        {"features_extractor_kwargs": {"n": 2}},
        r"features_extractor_kwargs=\{'n': 2\} do not fit FlattenExtractor.*Correct them",
    ),
]


@pytest.mark.parametrize(("options", "match"), REFUSED, ids=[match[:20] for _, match in REFUSED])
def test_what_cannot_be_an_extractor(options, match):
    with pytest.raises(ValueError, match=match):
        Discriminator(BOX, 3, **options)


def test_what_a_callback_refuses_at_once():
    class Local(First): ...

    for given, match in [
        (Local, r"features_extractor_class=.*Local.* cannot be found again .*expected a class"),
        (th.nn.Linear, r"features_extractor_class=.*Linear.* is no features extractor; expected"),
        (First(BOX), r"features_extractor_class=First.* is no features extractor; expected"),
        ("no.such.Class", r"features_extractor_class='no.such.Class' is not there .*a class or"),
        (f"{WORDS}.th", r"features_extractor_class='.*th' is no features extractor; expected"),
    ]:
        with pytest.raises(ValueError, match=match):
            DIAYNCallback(features_extractor_class=given)
    for kwargs in ({"activation": th.nn.ReLU}, {1: 2}, [1], "n"):
        with pytest.raises(ValueError, match=r"features_extractor_kwargs=.*that JSON can hold"):
            DIAYNCallback(features_extractor_class=First, features_extractor_kwargs=kwargs)


@pytest.mark.parametrize("cross_fit", [False, True])
def test_the_bound_of_the_gradient_holds_for_learned_features_too(monkeypatch, cross_fit):
    discriminator = Discriminator(
        BOX, K, net_arch=[8], features_extractor_class=LearnedLinear, cross_fit=cross_fit
    )
    trainer = DiscriminatorTrainer(discriminator, 1e-3, 0, max_grad_norm=0.01)
    batch = Batch(th.randn(64, 4), th.arange(64) % K, folds=np.arange(64, dtype=np.uint8) // 32)
    trainer.backward(batch, 64)
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    monkeypatch.setattr(trainer.optimizer, "zero_grad", lambda **_: None)
    before = [p.grad.clone() for p in discriminator.parameters()]
    trainer.step()
    norms = [p.grad.norm() for p in discriminator.parameters()]
    n_nets = 1 + cross_fit  # each has a bound of its own
    assert th.stack(norms).norm() == pytest.approx(0.01 * n_nets**0.5, rel=1e-4)
    if not cross_fit:  # one factor for all
        factors = [
            (p.grad / g)[g != 0] for p, g in zip(discriminator.parameters(), before, strict=True)
        ]
        assert th.cat(factors).std() < 1e-4 * th.cat(factors).mean()
