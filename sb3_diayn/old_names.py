"""
Modules of version 0.1.0 under their old names.

Scripts that import them and pickles that name them (a saved replay buffer does) keep working. An
old module forwards to the modules that its content has moved to.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

PACKAGE = "sb3_diayn"
NEW_NAMES: dict[str, tuple[str, ...]] = {
    "arrays": ("model_zip",),
    "attachment": ("buffers", "reward_sync", "callbacks"),
    "checkpoint": ("model_zip", "trainer"),
    "checkpointing": ("checkpoints",),
    "commands": ("cli.evaluation",),
    "comparison": ("evaluation.comparison",),
    "compatibility": ("checks",),
    "composition": ("downstream.composition",),
    "console": ("cli.evaluation",),
    "description": ("zoo.provenance", "evaluation.report"),
    "diagnosis": ("evaluation.diagnosis",),
    "downstream_commands": ("cli.downstream",),
    "drawing": ("skills", "wrappers"),
    "episodes": ("wrappers",),
    "export": ("downstream.export", "model_zip"),
    "extraction": ("extractors",),
    "finetuning": ("zoo.downstream",),
    "finite": ("wrappers",),
    "folders": ("checkpoints",),
    "folding": ("downstream.export",),
    "gating": ("buffers",),
    "grid": ("cli.sweep",),
    "guards": ("checks", "checkpoints"),
    "hierarchy": ("downstream.hierarchy",),
    "hyperparams": ("zoo.hyperparams",),
    "imitation": ("downstream.imitation", "cli.downstream"),
    "importance": ("evaluation.evaluate",),
    "indices": ("extractors",),
    "learning": ("zoo.training", "zoo.settings"),
    "locomotion": ("envs.locomotion",),
    "metrics": ("evaluation.metrics",),
    "monitoring": ("evaluation.callback",),
    "navigation": ("envs.point_navigation",),
    "nesting": ("checks",),
    "options": ("checks",),
    "playing": ("zoo.runs", "zoo.finding"),
    "plotting": ("evaluation.plotting",),
    "presets": ("zoo.hyperparams",),
    "provenance": ("zoo.provenance",),
    "ranking": ("downstream.finetuning",),
    "rendering": ("evaluation.video",),
    "report": ("evaluation.report",),
    "results": ("evaluation.results",),
    "resuming": ("checkpoints",),
    "retrieval": ("downstream.imitation",),
    "returns": ("played",),
    "runs": ("zoo.runs", "zoo.finding"),
    "saving": ("files",),
    "seam": ("training_state",),
    "search_space": ("zoo.tuning",),
    "states": ("observations",),
    "sweep": ("cli.sweep",),
    "tasks": ("envs",),
    "trajectories": ("evaluation.trajectories",),
    "tuning": ("zoo.tuning",),
    "vec_wrapper": ("vec_env",),
    "video": ("evaluation.video",),
    "warmup": ("downstream.finetuning",),
    "zoo_export": ("zoo.downstream",),
}
# Classes and functions that have another name today.
RENAMED = {
    "Seam": "Continuation",
    "GridRun": "SweepRun",
    "SkillDraw": "SkillSampler",
    "follow": "track_body",
    "known_evaluation": "cached_evaluation",
    "learned_part": "default_batch_size",
    "like_space": "as_channels_first",
    "map_parts": "map_obs",
    "put_parts": "assign_obs",
    "readings": "input_names",
    "real_keys": "float_keys",
    "take_parts": "index_obs",
    "unchanged": "preserve_state",
}


class _Forwarder(ModuleType):
    """An old module: each attribute is looked up where it has moved to."""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("__"):
            for new_name in NEW_NAMES[self.__name__.removeprefix(f"{PACKAGE}.")]:
                module = importlib.import_module(f"{PACKAGE}.{new_name}")
                if hasattr(module, RENAMED.get(name, name)):
                    return getattr(module, RENAMED.get(name, name))
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Finder(MetaPathFinder, Loader):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        package, _, name = fullname.partition(".")
        is_old = package == PACKAGE and name in NEW_NAMES
        return ModuleSpec(fullname, self) if is_old else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Forwarder(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        name = module.__name__.removeprefix(f"{PACKAGE}.")
        if name == "tasks":  # a name that stays, for the package itself
            sys.modules[module.__name__] = importlib.import_module(f"{PACKAGE}.envs")
            return
        now = " or ".join(f"{PACKAGE}.{new_name}" for new_name in NEW_NAMES[name])
        warnings.warn(
            f"{module.__name__} is now {now}; the old name will go.",
            DeprecationWarning,
            stacklevel=2,
        )


def install() -> None:
    """Let Python find the old modules, after all others."""
    sys.meta_path.append(_Finder())
