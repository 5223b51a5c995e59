"""Fakes that several tests share."""

import gymnasium as gym
import hypothesis
import pytest
import torch as th

th.set_num_threads(1)
# The same examples everywhere, and no failure because a machine is busy.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")

for name in ("CountingEnv", "PointEnv", "TwoStateEnv"):
    gym.register(f"sb3_diayn_tests/{name}-v0", entry_point=f"tests.helpers.envs:{name}")


@pytest.fixture(autouse=True)
def _no_skill_variable(monkeypatch):
    monkeypatch.delenv("DIAYN_SKILL", raising=False)
