"""Versions of what a result depends on."""

from contextlib import suppress
from importlib import metadata

from stable_baselines3.common.utils import get_system_info

from sb3_diayn import __version__

SYSTEM_INFO = ("Python", "Stable-Baselines3", "PyTorch", "Gymnasium", "Numpy")  # SB3's names
LIBRARIES = ("sb3-contrib", "sbx-rl", "rl_zoo3", "mujoco", "box2d")


def installed_versions() -> dict[str, str]:
    """:return: versions of this package and of what a result depends on, by name"""
    system, _ = get_system_info(print_info=False)
    versions = {"sb3-diayn": __version__, **{name: system[name] for name in SYSTEM_INFO}}
    for name in LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions
