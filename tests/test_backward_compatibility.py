"""What version 0.1.0 saved loads, plays, resumes and learns: see ``tests/data/0.1.0/make.py``."""

import importlib.metadata
import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch as th
from packaging.version import Version
from stable_baselines3 import PPO, SAC

from sb3_diayn import DIAYNCallback, evaluate_skills, load_discriminator, resume
from sb3_diayn.buffers import EpisodeGate, SkillReplayBuffer

DATA = Path(__file__).parent / "data" / "0.1.0"
CHECKPOINT = DATA / "checkpoints" / "checkpoint_60_steps"
MADE = SimpleNamespace(**runpy.run_path(str(DATA / "make.py")))
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))
MODELS = {"sac": (SAC, MADE.make_sac_env), "ppo": (PPO, MADE.make_ppo_env)}
OLDER = [
    f"{name} {importlib.metadata.version(name)} < {version}"
    for name, version in EXPECTED["versions"].items()
    if Version(importlib.metadata.version(name)).release < Version(version).release
]

pytestmark = [
    pytest.mark.skipif(bool(OLDER), reason=f"pickled by newer versions: {', '.join(OLDER)}"),
    pytest.mark.filterwarnings("ignore:sb3_diayn.* is now:DeprecationWarning"),
]


def zip_of(name):
    return DATA / f"{name}.zip"


def load(name):
    cls, make_env = MODELS[name]
    return cls.load(zip_of(name), env=make_env(), device="cpu")


@pytest.mark.parametrize("name", MODELS)
def test_the_policy_acts_as_it_did(name):
    expected = EXPECTED[name]
    actions, _ = load(name).predict(np.array(expected["observations"]), deterministic=True)
    np.testing.assert_allclose(actions, expected["actions"], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_the_discriminator_rewards_as_it_did(name):
    discriminator = load_discriminator(zip_of(name))
    assert discriminator.n_skills == MADE.N_SKILLS
    rewards = discriminator.reward(th.tensor(EXPECTED[name]["states"]), th.tensor([0, 1]))
    np.testing.assert_allclose(rewards, EXPECTED[name]["rewards"], atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_plays_its_skills_and_learns(name):
    model = load(name)
    evaluation = evaluate_skills(model, MODELS[name][1](), n_episodes=1)
    assert evaluation.lengths.shape == (MADE.N_SKILLS, 1)
    callback = DIAYNCallback()
    model.learn(50, callback=callback, reset_num_timesteps=False)
    assert model.num_timesteps == MADE.STEPS + 50
    assert callback.options["net_arch"] == [8]  # of the zip


def test_a_checkpoint_resumes_as_version_0_1_0_would_have():
    """Up to rounding: another processor may add in another order."""
    model, callback = resume(CHECKPOINT, MADE.make_sac_env(), device="cpu"), DIAYNCallback()
    before = {key: value.clone() for key, value in model.policy.state_dict().items()}
    assert model.num_timesteps == MADE.AT
    model.learn(MADE.STEPS - MADE.AT, callback=callback, reset_num_timesteps=False)
    after = model.policy.state_dict()
    assert max((after[key] - before[key]).abs().max() for key in after) > 1e-3
    th.testing.assert_close(after, load("sac").policy.state_dict(), atol=1e-4, rtol=0)
    saved = load_discriminator(zip_of("sac")).state_dict()
    th.testing.assert_close(callback.discriminator.state_dict(), saved, atol=1e-4, rtol=0)


def test_a_replay_buffer_keeps_its_transitions_and_its_gate():
    model = load("sac")
    model.load_replay_buffer(CHECKPOINT / "replay_buffer.pkl")
    buffer = model.replay_buffer
    assert type(buffer) is SkillReplayBuffer and type(buffer.gate) is EpisodeGate
    assert buffer.size() == MADE.AT // 2  # two environments
    assert 0 < buffer.gate.is_open[: buffer.size()].sum() < MADE.AT
    model.learn(10, callback=DIAYNCallback(), reset_num_timesteps=False)
    assert model.replay_buffer is buffer
    assert buffer.size() == (MADE.AT + 10) // 2
