"""What all tests share: which of them run, settings, and fakes."""

import multiprocessing
import re
import sys

import gymnasium as gym
import hypothesis
import pytest
import torch as th

from tests.helpers.figures import leave_undrawn

th.set_num_threads(1)
if sys.platform == "linux":  # processes of environments start in less than a second
    multiprocessing.set_forkserver_preload(["stable_baselines3", "sb3_diayn.wrappers"])
# The same examples everywhere, and no failure because a machine is busy.
hypothesis.settings.register_profile("steady", deadline=None, derandomize=True)
hypothesis.settings.load_profile("steady")

for name in ("CountingEnv", "EchoEnv", "PointEnv", "TwoStateEnv"):
    gym.register(f"sb3_diayn_tests/{name}-v0", entry_point=f"tests.helpers.envs:{name}")


# Minutes each, or a large extra: only where ``-m`` names them. As ``-m 'not ...'`` in ``addopts``
# any other ``-m`` would switch them on.
ON_DEMAND = {"expensive", "sbx"}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests whose marker has to be asked for."""
    left_out = ON_DEMAND.difference(re.findall(r"\w+", config.option.markexpr))

    def runs(item: pytest.Item) -> bool:
        return left_out.isdisjoint(mark.name for mark in item.iter_markers())

    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    items[:] = filter(runs, items)


@pytest.fixture
def undrawn_figures(monkeypatch):
    """For tests of anything else that a report has."""
    leave_undrawn(monkeypatch)


@pytest.fixture(autouse=True)
def _no_skill_variable(monkeypatch):
    monkeypatch.delenv("DIAYN_SKILL", raising=False)
