"""A tiny run of the zoo, for tests of what commands read of a run."""

import builtins
from pathlib import Path

import pytest

from sb3_diayn.cli import main

ENV, NAME = "sb3_diayn/PointBox-v0", "sb3_diayn-PointBox-v0"
QUICK = ["--episodes", "1", "--device", "cpu", "--no-progress"]
TINY = [
    *("--hyperparams", "learning_starts:10", "n_envs:1", "batch_size:8", "buffer_size:100"),
    *("policy_kwargs:dict(net_arch=[4])", "DIAYNCallback.net_arch:[4]"),
    "normalize:{norm_obs: true, norm_reward: false}",
    *("--env-kwargs", "max_episode_steps:6"),
]


def make_run(logs: Path) -> Path:
    """A run with a checkpoint, a report and normalised observations."""
    words = ["train", "--env", ENV, "--n-skills", "2", "-n", "60", "--seed", "1", *QUICK, *TINY]
    words += ["-f", str(logs), "--save-freq", "60", "--save-replay-buffer", "--no-report"]
    run = logs / "sac" / f"{NAME}_1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "print", lambda *_, **__: None)
        assert main(words) == 0
        assert main(["report", str(run), *QUICK, "--no-films"]) == 0
    return run
