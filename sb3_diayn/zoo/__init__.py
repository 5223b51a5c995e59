"""Runs of the RL Zoo: training them, opening them, exporting their skills."""

from sb3_diayn.zoo.downstream import export_run
from sb3_diayn.zoo.hyperparams import config_path, override, read_config
from sb3_diayn.zoo.runs import Run, find_run
from sb3_diayn.zoo.training import train

__all__ = [
    "Run",
    "config_path",
    "export_run",
    "find_run",
    "override",
    "read_config",
    "train",
]
