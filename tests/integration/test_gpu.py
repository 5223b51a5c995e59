"""What only a GPU can show; the discriminator is where the model is."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import PPO, SAC

from tests.helpers.models import counting_vec, make_callback

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize(
    ("cls", "options"),
    [(SAC, {"learning_starts": 20, "batch_size": 16}), (PPO, {"n_steps": 24, "batch_size": 8})],
)
def test_wrappers_pay_with_a_copy_on_the_cpu(cls, options):
    env = counting_vec()
    model = cls(
        "MlpPolicy", env, device="cuda", seed=0, policy_kwargs={"net_arch": [16]}, **options
    )
    callback = make_callback(sync_freq=10)
    model.learn(96, callback=callback)
    assert callback.discriminator.log_p.is_cuda
    for reward in env.get_attr("_skill_reward"):
        assert not reward.discriminator.log_p.is_cuda
    callback._attach_wrappers()
    obs = np.ones(callback.discriminator.observation_space.shape, np.float32)
    paid = env.get_attr("_reward_of_one")[0](obs, 1, 0)
    assert paid == pytest.approx(callback.skill_reward.single(obs, 1, 0), abs=1e-4)
