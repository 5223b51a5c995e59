"""Runs of the RL Zoo: training them, opening them, exporting their skills."""

from sb3_diayn.zoo.downstream import export_run, finetune
from sb3_diayn.zoo.finding import find_run
from sb3_diayn.zoo.hyperparams import config_path, override, preset, read_config
from sb3_diayn.zoo.runs import Run
from sb3_diayn.zoo.settings import TrainingOptions
from sb3_diayn.zoo.training import train

__all__ = [
    "Run",
    "TrainingOptions",
    "config_path",
    "export_run",
    "find_run",
    "finetune",
    "override",
    "preset",
    "read_config",
    "train",
]
