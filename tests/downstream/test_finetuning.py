"""The first steps of a model that already acts well are its own, and nothing is learned yet."""

import numpy as np
import pytest
from stable_baselines3 import DDPG
from stable_baselines3.common.callbacks import BaseCallback

from sb3_diayn import WarmUp
from tests.helpers.envs import CountingEnv
from tests.helpers.models import make_ppo, make_sac, small_net


class Updates(BaseCallback):
    """How many updates a model has made before each of its steps."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def _on_step(self) -> bool:
        self.counts.append(self.model._n_updates)
        return True


def make_ddpg(**kwargs) -> DDPG:
    options = {"batch_size": 8, "buffer_size": 300, "seed": 0, "device": "cpu"} | kwargs
    return DDPG("MlpPolicy", CountingEnv(), policy_kwargs=small_net(), **options)


@pytest.mark.parametrize("warm", [False, True])
def test_the_first_actions_are_those_of_the_policy(warm):
    model = make_ddpg(learning_starts=20)
    obs = np.array([[step, 0.0] for step in range(5)])
    expected = model.predict(obs, deterministic=True)[0]
    model.learn(10, callback=WarmUp() if warm else None)
    actions = model.replay_buffer.actions[:5, 0]
    assert np.allclose(model.policy.unscale_action(actions), expected, atol=1e-6) == warm


def test_updates_begin_after_the_warm_up():
    model, updates = make_ddpg(learning_starts=20), Updates()
    model.learn(30, callback=[updates, WarmUp()])
    assert updates.counts == [0] * 20 + list(range(10))  # seen before the update of their step
    assert (model.learning_starts, model.gradient_steps) == (20, 1)


def test_a_training_that_ends_earlier_leaves_the_model_as_it_was():
    model = make_ddpg(learning_starts=20, gradient_steps=3)
    model.learn(7, callback=WarmUp())
    assert (model.learning_starts, model.gradient_steps) == (20, 3)
    model.learn(22, callback=WarmUp())
    assert model._n_updates == 2 * 3


@pytest.mark.slow
def test_without_learning_starts_updates_begin_at_once():
    model = make_sac(CountingEnv(), learning_starts=0)
    model.learn(5, callback=WarmUp())
    assert model._n_updates == 5


def test_on_policy_models_are_left_alone():
    model = make_ppo(CountingEnv())
    model.learn(24, callback=WarmUp())
    assert model._n_updates == 2
