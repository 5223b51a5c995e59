"""A tiny run of the zoo, for tests of what commands read of a run."""

import builtins
import json
import shutil
from pathlib import Path

import pytest
import yaml

from sb3_diayn.cli import main
from sb3_diayn.zoo.hyperparams import read_config
from tests.helpers.figures import leave_undrawn

ENV, NAME = "sb3_diayn/PointBox-v0", "sb3_diayn-PointBox-v0"
QUICK = ["--episodes", "1", "--device", "cpu", "--no-progress"]
CHECKPOINT = "checkpoints/checkpoint_60_steps"
# Options with which a command is quick, by the command.
OPTIONS = {
    "play": ["--skill", "0", "--device", "cpu"],
    "view": ["--device", "cpu"],
    "evaluate": QUICK,
    "report": [*QUICK, "--no-films", "--model-card"],
    "plot": QUICK,
    "record": ["--skills", "0", "--film-steps", "2", "--device", "cpu"],
    "compare": QUICK,
    "push": [*QUICK, "--repo-id", "somebody/skills", "--dry-run", "--no-films"],
    "export": QUICK,
    "imitate": ["--device", "cpu"],
    "finetune": [*QUICK, "-n", "8"],
    "train": [*QUICK, "--no-report", "-n", "8"],
}
TINY = [
    *("--hyperparams", "learning_starts:10", "n_envs:1", "batch_size:8", "buffer_size:100"),
    "DIAYNWrapper.skill:balanced",
    *("policy_kwargs:dict(net_arch=[4])", "DIAYNCallback.net_arch:[4]"),
    "normalize:{norm_obs: true, norm_reward: false}",
    *("--env-kwargs", "max_episode_steps:6"),
]


def make_run(logs: Path) -> Path:
    """A run with a checkpoint, a report without drawings and normalised observations."""
    words = ["train", "--env", ENV, "--n-skills", "2", "-n", "60", "--seed", "1", *QUICK, *TINY]
    words += ["-f", str(logs), "--save-freq", "60", "--save-replay-buffer", "--no-report"]
    run = logs / "sac" / f"{NAME}_1"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "print", lambda *_, **__: None)
        leave_undrawn(patch)
        assert main(words) == 0
        assert main(["report", str(run), *QUICK, "--no-films"]) == 0
    return run


def swept(folder: Path, saved: Path) -> tuple[Path, list[str]]:
    """A run in the folder of a sweep, and the words of that sweep, which finds it complete."""
    sweep = ["sweep", "--envs", ENV, "--n-skills", "2", "-n", "60", "--seeds", "1"]
    run = folder / f"{ENV.replace('/', '-')}_sac_K2" / "seed_0" / "sac" / saved.name
    shutil.copytree(saved, run)
    command = ["train", "--env", ENV, "--algo", "sac", "--no-progress", "-n", "60"]
    made_by = " ".join(["sb3-diayn", *command, "--n-skills", "2", "--seed", "0"])
    content = json.loads((run / "run.json").read_text()) | {"command": made_by}
    (run / "run.json").write_text(json.dumps(content))
    (config,) = run.glob("*/config.yml")
    config.write_text(yaml.safe_dump(read_config("sac", ENV, n_skills=2)))
    return run, [*sweep, "-o", str(folder)]
