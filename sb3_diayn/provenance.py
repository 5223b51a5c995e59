"""Where a run comes from: the command, the versions, the machine and the time it took."""

import json
import os
import platform
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.utils import get_device, get_system_info

from sb3_diayn import __version__
from sb3_diayn.saving import replacing

FILE = "run.json"
# Beside those that SB3's own list has.
LIBRARIES = ("sb3-contrib", "sbx-rl", "rl_zoo3", "mujoco", "box2d")


def save_provenance(
    folder: Path, command: str, wall_time: float, cpu_time: float, device: str
) -> None:
    """
    Write ``run.json`` into a run's folder. It is written last and at once, so a run that has it is
    complete.

    :param folder: the run's
    :param command: that made the run
    :param wall_time: of the training, in seconds
    :param cpu_time: of the training, in seconds of one core: what the others of a shared machine
        do not stretch. Environments in processes of their own do not count
    :param device: option of that name, for example ``auto``
    """
    content = {
        "command": command,
        "wall_time": round(wall_time, 1),
        "cpu_time": round(cpu_time, 1),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": _versions(),
        "machine": _machine(device),
    }
    with replacing(folder / FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_provenance(folder: Path) -> dict[str, Any] | None:
    """
    :param folder: of a run
    :return: ``command``, ``wall_time`` and ``cpu_time`` of the training in seconds, ``finished``,
        ``versions`` and ``machine``; None for a run that is not complete
    """
    file = folder / FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else None


def _versions() -> dict[str, str]:
    system, _ = get_system_info(print_info=False)
    names = ("Python", "Stable-Baselines3", "PyTorch", "Gymnasium", "Numpy")
    return {"sb3-diayn": __version__, **{n: system[n] for n in names}, **dict(_installed())}


def _installed() -> Iterator[tuple[str, str]]:
    for name in LIBRARIES:
        try:
            yield name, metadata.version(name)
        except metadata.PackageNotFoundError:
            continue


def _machine(device: str) -> dict[str, Any]:
    used = get_device(device)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": th.get_num_threads(),
        "device": th.cuda.get_device_name(used) if used.type == "cuda" else used.type,
    }


def _processor() -> str:
    """The model of the CPU, which ``platform`` does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
