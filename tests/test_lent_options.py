"""What counts as another value for a while is saved as it is, whoever saves it and whenever."""

import copy
import io
import json
import pickle

import pytest
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import data_to_json

from sb3_diayn import WarmUp, export_skill
from sb3_diayn.lent_options import LentOption, lend, take_back
from tests.helpers.envs import CountingEnv
from tests.helpers.models import counting, make_callback, make_sac

OPTIONS = {"gradient_steps": 2, "learning_starts": 20}


class SaveEverywhere(BaseCallback):
    """Saves the model in every hook, and may press Ctrl-C."""

    def __init__(self, interrupted_at: int | None = None) -> None:
        super().__init__()
        self.zips: dict[str, io.BytesIO] = {}
        self.interrupted_at = interrupted_at

    def _save(self, hook: str) -> None:
        file = self.zips.setdefault(f"{hook} {self.model.num_timesteps}", io.BytesIO())
        self.model.save(file)

    def _on_training_start(self) -> None:
        self._save("training start")

    def _on_rollout_start(self) -> None:
        self._save("rollout start")

    def _on_step(self) -> bool:
        self._save("step")
        if self.num_timesteps == self.interrupted_at:
            raise KeyboardInterrupt
        return True

    def _on_rollout_end(self) -> None:
        self._save("rollout end")

    def _on_training_end(self) -> None:
        self._save("training end")


def frozen():
    return make_sac(counting(), **OPTIONS), make_callback(frozen_fraction=0.5), 24


def waiting():
    """A model whose replay buffer is empty, so that it makes no updates at first."""
    model, file = make_sac(counting(), **OPTIONS), io.BytesIO()
    model.learn(24, callback=make_callback()).save(file)
    file.seek(0)
    return SAC.load(file, env=counting(), device="cpu"), make_callback(hold=2), 8


def warming_up():
    model = make_sac(counting(), **OPTIONS).learn(21, callback=make_callback())
    return export_skill(model, 0, env=CountingEnv()), WarmUp(), 24


KINDS = [frozen, waiting, warming_up]


@pytest.mark.slow
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_zip_has_the_options_of_before(kind, is_first):
    model, callback, n_steps = kind()
    saving = SaveEverywhere()
    callbacks = [saving, callback] if is_first else [callback, saving]
    model.learn(n_steps, callback=callbacks)
    assert len(saving.zips) > 3 * n_steps
    assert vars(model).items() >= OPTIONS.items()
    for moment, file in saving.zips.items():
        file.seek(0)
        found = SAC.load(file, device="cpu", buffer_size=1)
        assert {name: getattr(found, name) for name in OPTIONS} == OPTIONS, moment
        assert type(found.gradient_steps) is int and type(found.learning_starts) is int


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This learn.. has no DIAYNCallback")
@pytest.mark.parametrize("again", [None, "own"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_learns_on_after_ctrl_c(kind, again):
    model, callback, n_steps = kind()
    with pytest.raises(KeyboardInterrupt):
        model.learn(n_steps, callback=[callback, SaveEverywhere(interrupted_at=n_steps - 3)])
    n_updates = model._n_updates
    model.learn(60, callback=callback if again else None)
    assert model._n_updates - n_updates >= 20
    assert {name: getattr(model, name) for name in OPTIONS} == OPTIONS


def test_it_counts_as_the_value_within_its_learn():
    model = make_sac(counting(), gradient_steps=-1)
    lend(model, "gradient_steps", 0)
    lent = model.gradient_steps
    assert isinstance(lent, LentOption)
    assert lent == 0 and lent >= 0 and not lent > 0 and lent < 1 and 16 * lent == 0
    assert list(range(lent)) == [] and hash(lent) == hash(0) and str(lent) == "0"
    assert copy.deepcopy(lent) == pickle.loads(pickle.dumps(lent)) == -1
    assert '":type:"' in data_to_json({"gradient_steps": lent})  # pickled, not written as 0
    lend(model, "gradient_steps", 3)
    assert model.gradient_steps == 3
    model.start_time += 1  # the next learn()
    assert model.gradient_steps == -1 and model.gradient_steps < 0
    take_back(model, "learning_starts")
    assert isinstance(model.gradient_steps, LentOption)
    take_back(model)
    assert type(model.gradient_steps) is int and json.dumps(model.gradient_steps) == "-1"
