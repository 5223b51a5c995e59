"""Two nets, each of which rewards the half of the episodes that it does not learn from."""

import copy
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_diayn import (
    DIAYNCallback,
    DIAYNWrapper,
    Discriminator,
    evaluate_skills,
    export_skill,
    load_discriminator,
)
from sb3_diayn.buffers import StretchFolds
from sb3_diayn.discriminator import Batch
from sb3_diayn.model_zip import STATE_ATTRIBUTE
from sb3_diayn.observations import map_obs
from tests.helpers.envs import CountingEnv, EchoEnv
from tests.helpers.extractors import LearnedLinear
from tests.helpers.models import (
    K,
    counting,
    counting_vec,
    held_out_log_q,
    make_callback,
    make_sac,
    small_net,
    split_nets,
)


def trained(env: Any, n_steps: int = 60, cls: Any = SAC, **options: Any) -> tuple[Any, Any]:
    """A model that has learned with a cross-fitted discriminator, and its callback."""
    of_model = options.pop("model", {})
    callback = make_callback(cross_fit=True, **options)
    policy = of_model.pop("policy", "MlpPolicy")
    settings = {"learning_starts": 20, "batch_size": 16, "buffer_size": 200, "seed": 0}
    model = cls(policy, env, policy_kwargs=small_net(), device="cpu", **(settings | of_model))
    return model.learn(n_steps, callback=callback), callback


def stored(model: Any) -> Batch:
    """All that a buffer of one environment holds."""
    buffer, n = model.replay_buffer, model.replay_buffer.size()
    return Batch(
        map_obs(lambda part: th.as_tensor(part[:n, 0]), buffer.next_observations),
        th.as_tensor(buffer.skills[:n, 0]).long(),
        th.as_tensor(buffer.actions[:n, 0]),
        buffer.folds.of[:n, 0],
    )


def by_hand(model: Any, discriminator: Discriminator, **architecture: Any) -> np.ndarray:
    """The skill reward of each stored transition, by the plain net of the other fold."""
    batch = stored(model)
    nets = split_nets(discriminator, **({"net_arch": [16]} | architecture))
    log_p = discriminator.log_p.numpy()[batch.skills]
    knows = discriminator.has_learned.numpy()[1 - batch.folds, batch.skills]
    return np.where(knows, held_out_log_q(nets, batch) - log_p, 0.0)


def first_coordinate(obs: th.Tensor) -> th.Tensor:
    """A function that a discriminator reads through."""
    return obs[:, :1]


BOX_ACTION = CountingEnv().action_space
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "normalised inputs": ({"normalize_obs": True}, {"normalize_obs": True}),
    "spectral norm": ({"spectral_norm": True}, {"spectral_norm": True}),
    "actions": ({"use_actions": True}, {"action_space": BOX_ACTION}),
    "coordinates": ({"obs_indices": [1]}, {"obs_indices": [1]}),
    "a function": ({"obs_function": first_coordinate}, {"obs_function": first_coordinate}),
    "an extractor": (
        {"features_extractor_class": LearnedLinear},
        {"features_extractor_class": LearnedLinear},
    ),
    "own batches": ({"n_updates": 2}, {}),
    "whole batches": ({"batch_size": 16}, {}),
    "learned p(z)": ({"learn_p_z": True, "p_z_update_freq": 15}, {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_reward_is_that_of_the_net_that_has_not_learned_from_the_episode(case):
    options, architecture = CASES[case]
    skill = "uniform" if options.get("learn_p_z") else "cycle"
    model, callback = trained(counting(skill=skill), **options)
    assert callback.trainer.n_updates >= 40
    rewards = model.replay_buffer._get_samples(np.arange(60)).rewards.flatten()
    expected = by_hand(model, callback.discriminator, **architecture)
    np.testing.assert_allclose(rewards, expected, atol=1e-6)
    own = [1 - fold for fold in stored(model).folds]
    wrong = callback.discriminator.reward(*stored(model)[:3], np.array(own, np.uint8))
    assert np.abs(wrong.numpy() - expected).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dict", "image", "image_dict", "discrete"])
def test_other_spaces(kind):
    """With images each net has convolutions of its own."""
    env = DIAYNWrapper(EchoEnv(kind), K, skill="cycle")
    model = {"policy": "MultiInputPolicy", "learning_starts": 40}
    model, callback = trained(env, 50, DQN, model=model)
    discriminator = callback.discriminator
    assert discriminator.learns_features == ("image" in kind)
    n = model.replay_buffer.size()
    rewards = model.replay_buffer._get_samples(np.arange(n)).rewards.flatten()
    np.testing.assert_allclose(rewards, by_hand(model, discriminator), atol=1e-5)
    batch = stored(model)
    first, second = split_nets(discriminator, net_arch=[16])
    mean = (first(batch.next_obs) + second(batch.next_obs)) / 2
    th.testing.assert_close(discriminator(batch.next_obs), mean, atol=1e-5, rtol=1e-5)
    if discriminator.learns_features:
        parameters = zip(first.extractor.parameters(), second.extractor.parameters(), strict=True)
        assert not any(th.allclose(one, other) for one, other in parameters)


@pytest.mark.slow
def test_returns_of_several_steps():
    """Steps 1 to 5 of an episode: the return sums up to three rewards."""
    model, callback = trained(counting(), model={"n_steps": 3, "gamma": 0.9})
    rewards = by_hand(model, callback.discriminator)
    returns = [
        sum(0.9**k * rewards[row + k] for k in range(min(3, 5 - row % 5))) for row in range(60)
    ]
    samples = model.replay_buffer._get_samples(np.arange(60))
    np.testing.assert_allclose(samples.rewards.flatten(), returns, atol=1e-5)


@pytest.mark.slow
def test_the_gate_of_smerl():
    """``CountingEnv`` pays 15 in each episode; the last one, of 4 steps, has not ended."""
    options = {"task_reward_weight": 2.0, "min_task_return": 15.0, "skill_reward_weight": 0.5}
    model, callback = trained(counting(), 64, **options)
    samples = model.replay_buffer._get_samples(np.arange(64))
    gate = np.arange(64) < 60
    task = 1 + np.arange(64) % 5
    expected = 2 * task + 0.5 * gate * by_hand(model, callback.discriminator)
    np.testing.assert_allclose(samples.rewards.flatten(), expected, atol=1e-5)


@pytest.mark.slow
def test_raw_observations_under_vec_normalize():
    env = VecNormalize(counting_vec(1), norm_reward=False, clip_obs=0.5)
    model, callback = trained(env)
    rewards = model.replay_buffer._get_samples(np.arange(60), env).rewards.flatten()
    np.testing.assert_allclose(rewards, by_hand(model, callback.discriminator), atol=1e-6)


class Learned(BaseCallback):
    """Keeps the batches of a training with their rewards and the nets of that moment."""

    def __init__(self, callback: DIAYNCallback) -> None:
        super().__init__()
        self.callback, self.batches = callback, []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        learn = self.model.replay_buffer.learn

        def spy(batch: Batch) -> th.Tensor:
            log_q = learn(batch)
            nets = split_nets(self.callback.discriminator, net_arch=[16])
            self.batches.append((batch, log_q, nets))
            return log_q

        self.model.replay_buffer.learn = spy


@pytest.mark.slow
def test_what_a_policy_learns_from_is_held_out():
    """In the one pass of a batch, while the model trains."""
    callback = make_callback(cross_fit=True)
    learned = Learned(callback)
    make_sac(counting_vec(2), learning_starts=60).learn(100, callback=[callback, learned])
    assert len(learned.batches) >= 20
    for batch, log_q, nets in learned.batches[5:]:
        np.testing.assert_allclose(log_q, held_out_log_q(nets, batch), atol=1e-5)


# -- folds -----------------------------------------------------------------------------------


def test_folds_by_hand():
    """Two environments, two skills; the stretches of a skill alternate."""
    folds = StretchFolds(6, 2, 2)
    skills = np.array([[0, 0], [0, 0], [0, 1], [1, 1], [1, 1], [0, 0]])
    dones = np.array([[0, 0], [1, 0], [0, 0], [0, 1], [0, 0], [0, 0]])
    for row in range(6):
        folds.add(row, skills[row], dones[row])
    # Skill 0 begins in environment 0 (fold 0), in 1 (fold 1), in 0 again after an end (fold 0), and
    # in both at the end (folds 1 and 0). Skill 1 begins in 1 (0), in 0 (1), in 1 after an end (0).
    np.testing.assert_array_equal(folds.of.T, [[0, 0, 0, 1, 1, 1], [1, 1, 0, 0, 0, 0]])


def check_folds(model: Any, n_kept: int | None = None) -> None:
    """Each stretch of a ``CountingEnv`` is in one fold, and each skill's are in both alike."""
    buffer, folds = model.replay_buffer, {}
    for row in range(buffer.size()):
        for env in range(buffer.n_envs):
            episode = buffer.next_observations[row, env][1]
            skill = buffer.skills[row, env]
            stretch = (skill, env, episode)
            folds.setdefault(stretch, set()).add(int(buffer.folds.of[row, env]))
    assert all(len(found) == 1 for found in folds.values())
    for skill in range(K):
        of_skill = [next(iter(found)) for stretch, found in folds.items() if stretch[0] == skill]
        assert len(of_skill) > 3 and abs(len(of_skill) - 2 * sum(of_skill)) <= 2


@pytest.mark.parametrize("skill_duration", [None, 2])
@pytest.mark.parametrize("buffer_size", [1000, 90])
@pytest.mark.parametrize(
    "vec_env",
    [
        lambda n_envs, **kwargs: counting_vec(n_envs, **kwargs),
        pytest.param(
            lambda n_envs, **kwargs: SubprocVecEnv([lambda: counting(**kwargs)] * n_envs),
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize("n_envs", [1, 3])
def test_a_stretch_is_in_one_fold_and_folds_are_balanced(
    n_envs, vec_env, buffer_size, skill_duration
):
    env = vec_env(n_envs, skill_duration=skill_duration)
    model = make_sac(env, learning_starts=10_000, buffer_size=buffer_size)
    model.learn(150, callback=make_callback(cross_fit=True))
    env.close()
    check_folds(model)


@pytest.mark.slow
def test_one_byte_per_transition():
    model, _ = trained(counting())
    folds = model.replay_buffer.folds
    arrays = [a for a in vars(folds).values() if isinstance(a, np.ndarray) and a.size >= 200]
    assert [a.nbytes for a in arrays] == [200]
    assert make_sac(counting()).learn(5, callback=make_callback()).replay_buffer.folds is None


@pytest.mark.parametrize("buffer_size", [1000, 90])
def test_folds_of_what_a_stock_buffer_recorded(buffer_size):
    model = make_sac(counting_vec(2), learning_starts=10_000, buffer_size=buffer_size)
    with pytest.warns(UserWarning, match="no discriminator is attached"):
        model.learn(120)
    model.learn(20, callback=make_callback(cross_fit=True), reset_num_timesteps=False)
    check_folds(model)


def test_folds_of_a_buffer_whose_skill_is_always_the_same():
    """Ends of episodes alone begin its stretches."""
    model = make_sac(counting(), learning_starts=10_000)
    model.learn(15, callback=make_callback())
    model.replay_buffer.skills[:] = 1
    folds = StretchFolds.of_buffer(model.replay_buffer)
    np.testing.assert_array_equal(folds.of[:15, 0], [0] * 5 + [1] * 5 + [0] * 5)


@pytest.mark.parametrize("buffer_size", [1000, 90])
def test_a_buffer_that_was_saved_before_there_were_folds(tmp_path, buffer_size):
    model = make_sac(counting(), learning_starts=10_000, buffer_size=buffer_size)
    model.learn(120, callback=make_callback())
    vars(model.replay_buffer).pop("folds")
    model.save_replay_buffer(tmp_path / "buffer.pkl")
    other = make_sac(counting(), learning_starts=10_000, buffer_size=buffer_size)
    other.load_replay_buffer(tmp_path / "buffer.pkl")
    other.learn(3, callback=make_callback(cross_fit=True))
    check_folds(other)


def test_other_episodes_are_other_stretches():
    """A later ``learn`` resets the environments: the same skill then begins a new stretch."""
    model, callback = make_sac(counting(skill="uniform")), make_callback(cross_fit=True)
    for _ in range(8):
        model.learn(3, callback=callback)
    check = model.replay_buffer.folds.of[:24, 0].reshape(8, 3)
    assert (check == check[:, :1]).all()
    skills = model.replay_buffer.skills[:24:3, 0]
    for skill in range(K):
        of_skill = check[skills == skill, 0]
        np.testing.assert_array_equal(of_skill, np.arange(len(of_skill)) % 2)


@pytest.mark.slow
def test_one_endless_episode_pays_nothing():
    """One fold stays empty, so no net can tell without having learned from that very episode."""
    callback = make_callback(cross_fit=True)
    model = make_sac(counting(length=10**9), learning_starts=580)
    with pytest.warns(UserWarning, match="Only 1 of 3 skills have occurred"):
        model.learn(620, callback=callback)
    assert callback.trainer.n_updates > 30
    assert (model.replay_buffer.folds.of == 0).all()
    assert (model.replay_buffer.sample(100).rewards == 0).all()


# -- the zip ---------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    model, callback = trained(counting(skill="balanced"))
    model.save(tmp_path / "model")
    return callback, tmp_path / "model.zip"


@pytest.mark.slow
def test_a_zip_has_both_nets(saved):
    callback, path = saved
    obs, skills = th.randn(20, 2), th.arange(20) % K
    folds = (np.arange(20) % 2).astype(np.uint8)
    loaded = load_discriminator(path)
    for given in ({}, {"folds": folds}):
        expected = callback.discriminator.reward(obs, skills, **given)
        assert th.equal(loaded.reward(obs, skills, **given), expected)
    assert not th.equal(loaded.reward(obs, skills, folds=folds), loaded.reward(obs, skills))


@pytest.mark.slow
def test_the_average_plays_and_is_evaluated_and_exported(saved):
    model = SAC.load(saved[1], device="cpu")
    average = load_discriminator(saved[1])
    result, expected = (
        evaluate_skills(model, counting_vec(1), n_episodes=1, discriminator=discriminator)
        for discriminator in (None, average)
    )
    np.testing.assert_array_equal(result.log_q, expected.log_q)
    assert export_skill(model, 1).observation_space.shape == (2,)


@pytest.mark.slow
def test_a_zip_continues_cross_fitted(saved):
    callback, path = saved
    model = SAC.load(path, env=counting(skill="balanced"), device="cpu")
    again = DIAYNCallback(hold=0)
    model.learn(30, callback=again)
    assert again.discriminator.cross_fit and again.options["cross_fit"]
    assert again.trainer.n_updates > callback.trainer.n_updates


@pytest.mark.slow
def test_a_zip_of_before_continues_as_it_was(tmp_path):
    """A version that knew no cross-fitting has saved no such option."""
    model, callback = make_sac(counting()), make_callback()
    model.learn(40, callback=callback)
    state = dict(getattr(model, STATE_ATTRIBUTE).items())
    del state["options"]["cross_fit"], state["options"]["n_rollouts"]
    for options, error in (({}, None), ({"cross_fit": True}, "expected False. Leave it out")):
        setattr(model, STATE_ATTRIBUTE, copy.deepcopy(state))
        again = DIAYNCallback(**options)
        if error is None:
            model.learn(20, callback=again)
            assert not again.discriminator.cross_fit
        else:
            with pytest.raises(ValueError, match=rf"cross_fit=True .*{error}"):
                model.learn(20, callback=again)
