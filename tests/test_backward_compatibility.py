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


# 0.1.0 drew the skills from the environment's generator: its episodes may not come back.
@pytest.mark.filterwarnings("ignore:The training .* with new episodes:UserWarning")
def test_a_checkpoint_resumes_with_all_that_it_had_learned():
    env, callback = MADE.make_sac_env(), DIAYNCallback()
    model = resume(CHECKPOINT, env, device="cpu")
    saved = SAC.load(CHECKPOINT / "model.zip", device="cpu")
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    th.testing.assert_close(before, saved.policy.state_dict(), atol=0, rtol=0)
    assert model.num_timesteps == MADE.AT
    assert model.replay_buffer.size() == MADE.AT // 2  # two environments

    model.learn(MADE.STEPS - MADE.AT, callback=callback, reset_num_timesteps=False)
    assert model.num_timesteps == MADE.STEPS
    # One update of each for two steps, since 30: (60 - 30) / 2 until the checkpoint, 20 since then.
    assert saved._n_updates == saved.diayn_state["counters"]["n_updates"] == 15
    assert callback.trainer.n_updates == model._n_updates == 15 + 20
    # Observations that VecNormalize has seen: of 100 steps, of two resets, of two more if any.
    assert round(env.obs_rms.count) in (102, 104)
    assert callback.options["net_arch"] == [8]
    assert any((before[name] != now).any() for name, now in model.policy.state_dict().items())


def test_a_replay_buffer_keeps_its_transitions_and_its_gate():
    model = load("sac")
    model.load_replay_buffer(CHECKPOINT / "replay_buffer.pkl")
    buffer = model.replay_buffer
    assert type(buffer) is SkillReplayBuffer and type(buffer.gate) is EpisodeGate
    assert buffer.size() == MADE.AT // 2  # two environments
    assert 0 < np.count_nonzero(buffer.gate.is_open(np.arange(MADE.AT), 0.0)) < MADE.AT
    model.learn(10, callback=DIAYNCallback(), reset_num_timesteps=False)
    assert model.replay_buffer is buffer
    assert buffer.size() == (MADE.AT + 10) // 2
