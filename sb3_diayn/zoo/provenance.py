"""Where a run comes from: command, versions, machine and time; and the same in words."""

import json
import os
import platform
import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch as th
import yaml
from stable_baselines3.common.utils import get_device

from sb3_diayn import __version__
from sb3_diayn.evaluation.pages import without_folders
from sb3_diayn.evaluation.report import Description
from sb3_diayn.files import reading, replacing
from sb3_diayn.model_zip import read_member
from sb3_diayn.zoo.hyperparams import class_entries
from sb3_diayn.zoo.runs import SYSTEM_INFO, Run, installed_versions

PROVENANCE_FILE = "run.json"


def save_provenance(
    folder: Path, command: str, wall_time: float, cpu_time: float, device: str, n_threads: int
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
    :param n_threads: PyTorch threads of the training
    """
    content = {
        "command": command,
        "wall_time": round(wall_time, 1),
        "cpu_time": round(cpu_time, 1),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": installed_versions(),
        "machine": _machine(device, n_threads),
    }
    with replacing(folder / PROVENANCE_FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_provenance(folder: Path) -> dict[str, Any] | None:
    """
    :param folder: of a run
    :return: ``command``, ``wall_time`` and ``cpu_time`` of the training in seconds, ``finished``,
        ``versions`` and ``machine``; None for a run that is not complete
    """
    file = folder / PROVENANCE_FILE
    if not file.exists():
        return None
    with reading(file, "what sb3-diayn train wrote"):
        content = json.loads(file.read_text(encoding="utf-8"))
        return {**content, "command": str(content["command"])}


class _PlainLoader(yaml.SafeLoader):
    """Reads the zoo's ``OrderedDict`` of plain values, and refuses all that would run code."""


def _ordered_dict(loader: Any, node: Any) -> dict[str, Any]:
    return dict(loader.construct_sequence(node, deep=True)[0])


_PlainLoader.add_constructor(
    "tag:yaml.org,2002:python/object/apply:collections.OrderedDict", _ordered_dict
)


def load_plain_hyperparams(folder: Path) -> dict[str, Any] | None:
    """
    The hyperparameters of a run, read without running code, unlike ``Run.hyperparams``.

    :param folder: the run's
    :return: in the zoo's format; None if there are none, or more than plain values
    """
    for file in folder.glob("*/config.yml"):
        with suppress(yaml.YAMLError, ValueError, TypeError, IndexError):
            return dict(yaml.load(file.read_bytes(), Loader=_PlainLoader))
    return None


def _machine(device: str, n_threads: int) -> dict[str, Any]:
    used = get_device(device)
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": n_threads,
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


SNIPPET = """import gymnasium as gym
from {module} import {algo}
from sb3_diayn import DIAYNWrapper
from sb3_diayn.evaluation import SkillPolicy

env = DIAYNWrapper(gym.make({make}), n_skills={n_skills}, skill=SKILL)
policy = SkillPolicy({algo}.load({model!r}), env)
obs, _ = env.reset(seed=0)
state, done = None, False
while not done:
    action, state = policy.predict(obs, state, deterministic=True)
    obs, reward, terminated, truncated, info = env.step(action)
    done = terminated or truncated"""


ZOO_SNIPPET = """from sb3_diayn.evaluation import SkillPolicy
from sb3_diayn.zoo import find_run

with find_run({arguments}).open() as (model, env):
    policy = SkillPolicy(model, env)
    env.env_method("set_skill", SKILL)
    obs, state, done = env.reset(), None, False
    while not done:
        action, state = policy.predict(obs, state, deterministic=True)
        obs, rewards, (done,), infos = env.step(action)"""


def describe(run: Run, name: str) -> Description:
    """
    :param run: a run
    :param name: the run as commands name it, for example ``logs/sac/Hopper-v5_1``
    :return: what to tell of it
    """
    is_zip = run.stats_path is None
    option = env_options(run) if is_zip else []
    base, name = _base(run), shown_path(run, name)
    return Description(
        title=f"{run.algo} on {run.env_id}" if is_zip else run.folder.resolve().name,
        algo=run.algo,
        env_id=run.env_id,
        facts=_shown(_facts(run)),
        hyperparams=_shown(run.hyperparams),
        play=shlex.join(["sb3-diayn", "play", name, *option]),
        enjoy=_enjoy(run, base),
        snippet=snippet(run, name, shown_path(run, run.model_path)),
        place=Path(name).parts[0],
    )


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, without folders of this machine in those that name a file."""
    texts = {key: without_folders(str(value)) for key, value in values.items()}
    return {key: texts[key] if texts[key] != str(old) else old for key, old in values.items()}


def shown_path(run: Run, path: str | Path) -> str:
    """
    :param run: a run
    :param path: its folder, or a file in it
    :return: the path as a page shows it, which others may read: from the working folder if it is
        inside, else from the folder that holds the log folder
    """
    with suppress(ValueError):
        return str(_absolute(path).relative_to(_base(run)))
    return Path(path).name if Path(path).is_absolute() else str(path)


def _base(run: Run) -> Path:
    """The folder from which a page names the files of a run."""
    folder = _absolute(run.model_path.parent if run.stats_path is None else run.folder)
    if Path.cwd() in (folder if run.stats_path is None else folder.parent, *folder.parents):
        return Path.cwd()
    return folder if run.stats_path is None else folder.parents[min(2, len(folder.parents) - 1)]


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # unlike resolve() it keeps the names of links


def describe_zip(run: Run) -> Description:
    """
    :param run: a run
    :return: what to tell of it to people elsewhere, who have its zip in their folder
    """
    name = run.model_path.name
    return replace(
        describe(run, name),
        play=shlex.join(["sb3-diayn", "play", name, *env_options(run)]),
        enjoy=None,
        snippet=snippet(run, name, name),
        place=name,
    )


def env_options(run: Run) -> list[str]:
    """
    :param run: a run
    :return: the options that name its environment, for commands that do not know the run
    """
    packages = ["--gym-packages", *run.gym_packages] if run.gym_packages else []
    return ["--env", run.env_id, *packages]


def _facts(run: Run) -> dict[str, Any]:
    facts = {
        "Environment": run.env_id + (f" with {run.env_kwargs}" if run.env_kwargs else ""),
        "Algorithm": run.algo,
        "Skills": run.n_skills,
        "Model": run.model_path.name,
    }
    options = {key: value for key, value in run.state["options"].items() if value is not None}
    return {
        **facts,
        **_origin(run),
        "Discriminator": ", ".join(f"{key}={value}" for key, value in options.items()),
        "Versions": f"{_model_versions(run.model_path)}; report by sb3-diayn {__version__}",
    }


def _origin(run: Run) -> dict[str, Any]:
    """Seed and command, as the zoo writes them down."""
    if run.stats_path is None:
        return {}
    facts = {"Seed": run.saved_options["seed"]}
    command = run.stats_path / "command.txt"
    if command.is_file():  # written in whatever encoding that machine has
        facts["Command"] = _shorten(command.read_text(encoding="utf-8", errors="replace"))
    return facts


def _shorten(command: str) -> str:
    """Without where Python and the script happen to be installed."""
    command = re.sub(r"^\S*python\S* \S*/sb3-diayn(?= )", "sb3-diayn", command)
    return re.sub(r"^\S*/(?=python\S* )", "", command)


def _model_versions(model_path: Path) -> str:
    with reading(model_path, "the zip that model.save() writes"):
        try:
            lines = read_member(model_path, "system_info.txt").decode().splitlines()
        except KeyError:  # SB3 writes it, others need not
            return ""
    pairs = [line.removeprefix("- ").split(": ", 1) for line in lines if ": " in line]
    return ", ".join(f"{name} {version}" for name, version in pairs if name in SYSTEM_INFO)


def _enjoy(run: Run, base: Path) -> str | None:
    """The zoo looks for ``<log folder>/<algo>/<env>_<number>/<env>.zip``."""
    folder = run.folder.resolve()
    found = re.fullmatch(r".*_(\d+)", folder.name)
    if run.stats_path is None or found is None or run.model_path.stem != run.stats_path.name:
        return None
    return enjoy_command(run, os.path.relpath(folder.parents[1], base.resolve()))


def enjoy_command(run: Run, logs: str | None = None) -> str:
    """
    :param run: in a folder of the zoo
    :param logs: the log folder, as the command shall have it; None for where it is
    :return: the zoo's command that plays the run
    """
    algo, number = run.folder.parent.name, run.folder.name.rpartition("_")[2]
    options = ["--algo", algo, *env_options(run), "-f", logs or str(run.folder.parents[1])]
    options += ["--exp-id", number]
    return shlex.join(["python", "-m", "rl_zoo3.enjoy", *options])


def _arguments(run: Run, name: str) -> str:
    """The arguments of ``find_run`` that find the run again: a folder knows its environment."""
    if run.stats_path is not None:
        return repr(name)
    given = {"env_kwargs": run.env_kwargs, "gym_packages": list(run.gym_packages)}
    options = [f"{key}={value!r}" for key, value in given.items() if value]
    return ", ".join([repr(name), repr(run.env_id), *options])


def snippet(run: Run, name: str, model: str) -> str:
    """
    :param run: a run
    :param name: the run as ``find_run`` shall find it
    :param model: its zip as ``load`` shall find it
    :return: Python code that plays it, with ``SKILL`` in place of the skill, and
        without folders of this machine
    """
    wrappers = [path for path, _ in class_entries(run.hyperparams, "env_wrapper")]
    is_normalized = run.hyperparams.get("normalize") or run.state.get("vec_normalize")
    if wrappers != ["sb3_diayn.DIAYNWrapper"] or is_normalized:
        return without_folders(ZOO_SNIPPET.format(arguments=_arguments(run, name)))
    arguments = "".join(f", {key}={value!r}" for key, value in run.env_kwargs.items())
    imports = "".join(f"import {package}\n" for package in run.gym_packages)
    code = SNIPPET.format(
        module=run.model_class.__module__.split(".")[0],
        algo=run.algo,
        make=f"{run.env_id!r}{arguments}",
        n_skills=run.n_skills,
        model=model,
    )
    return imports + without_folders(code)
