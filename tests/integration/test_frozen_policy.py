"""At the end of a training the policy is frozen and the discriminator alone learns."""

import numpy as np
import pytest
import torch as th
from sb3_contrib import TQC
from stable_baselines3 import DDPG, SAC
from stable_baselines3.common.callbacks import BaseCallback

from sb3_diayn.model_zip import load_state
from tests.helpers.models import counting_vec, make_callback, make_ppo, small_net

N_STEPS, FRACTION = 80, 0.25
FIRST = 60  # the last step with an update of the policy


class Progress(BaseCallback):
    """What has been learned after each step of both environments."""

    def __init__(self):
        super().__init__()
        self.rows = {}

    def _on_step(self):
        parameters = [p.detach().flatten() for p in self.model.policy.parameters()]
        self.rows[self.num_timesteps] = th.cat(parameters).numpy().copy(), self.model._n_updates
        assert self.model.gradient_steps == 2  # also in a zip that is saved now
        return True


def trained(model, **options):
    callback, progress = make_callback(**({"frozen_fraction": FRACTION} | options)), Progress()
    model.learn(N_STEPS, callback=[callback, progress])
    return progress.rows, callback


def make(cls):
    options = {"learning_starts": 20, "batch_size": 16, "gradient_steps": 2, "seed": 0}
    options |= {"policy_kwargs": small_net(), "device": "cpu", "buffer_size": 1000}
    return cls("MlpPolicy", counting_vec(), **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"cross_fit": True},
        {"n_updates": 2},
        {"batch_size": 64},
        {"objective": "metra"},
    ],
    ids=str,
)
def test_the_policy_stands_still_and_the_discriminator_learns_as_often_as_before(options):
    model = make(SAC)
    rows, callback = trained(model, **options)
    n_updates = options.get("n_updates", 1)
    policies = {step: row[0] for step, row in rows.items()}
    assert not np.array_equal(policies[FIRST], policies[FIRST + 2])  # what step 60 has brought
    assert np.array_equal(policies[FIRST + 2], policies[N_STEPS])
    assert model._n_updates == rows[FIRST + 2][1] == FIRST - 20
    assert callback.trainer.n_updates == n_updates * (N_STEPS - 20)
    assert model.gradient_steps == 2


@pytest.mark.parametrize("cls", [TQC, DDPG])
def test_other_algorithms(cls):
    model = make(cls)
    rows, callback = trained(model)
    assert np.array_equal(rows[FIRST + 2][0], rows[N_STEPS][0])
    assert callback.trainer.n_updates == N_STEPS - 20


def test_without_the_option_all_steps_count():
    model = make(SAC)
    trained(model, frozen_fraction=0.0)
    assert model._n_updates == N_STEPS - 20


def test_a_further_training_has_an_end_of_its_own():
    model = make(SAC)
    _, callback = trained(model)
    model.learn(40, callback=callback, reset_num_timesteps=False)
    assert model._n_updates == (FIRST - 20) + 30
    assert callback._continuation.frozen == [110, 120]


def test_a_zip_of_the_frozen_end_is_that_of_any_training(tmp_path):
    model = make(SAC)
    trained(model)
    model.save(tmp_path / "model")
    assert load_state(tmp_path / "model.zip")["options"]["frozen_fraction"] == FRACTION
    assert SAC.load(tmp_path / "model", device="cpu").gradient_steps == 2


def test_it_needs_a_replay_buffer():
    message = r"frozen_fraction=0\.25 is for off-policy models, and PPO is on-policy; expected 0"
    with pytest.raises(ValueError, match=message):
        make_ppo(counting_vec()).learn(10, callback=make_callback(frozen_fraction=FRACTION))
