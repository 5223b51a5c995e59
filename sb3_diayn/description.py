"""What a run's files tell of its training, in words for a report."""

import re
import shlex
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from sb3_diayn import __version__
from sb3_diayn.checkpoint import load_state, training_history
from sb3_diayn.runs import WRAPPER, Run, require_zoo

SNIPPET = """import gymnasium as gym
from {module} import {algo}
from sb3_diayn import DIAYNWrapper

env = DIAYNWrapper(gym.make({make}), n_skills={n_skills}, skill=SKILL)
model = {algo}.load({model!r})
obs, _ = env.reset(seed=0)
state, done = None, False
while not done:
    action, state = model.predict(obs, state, deterministic=True)
    obs, reward, terminated, truncated, info = env.step(action)
    done = terminated or truncated"""
ZOO_SNIPPET = """from sb3_diayn.runs import find_run

run = find_run({model!r})
env, model = run.make_env(), run.load_model()
env.env_method("set_skill", SKILL)
obs = env.reset()
state, done = None, False
while not done:
    action, state = model.predict(obs, state, deterministic=True)
    obs, rewards, (done,), infos = env.step(action)"""


@dataclass(frozen=True)
class Description:
    """
    What was trained and how, in words for a reader.

    :param title: name of the run
    :param algo: class of the model, for example ``SAC``
    :param env_id: id of the environment
    :param facts: what else to tell of the training, by name
    :param hyperparams: hyperparameters by name
    :param play: command that plays the run, to which ``--skill 3`` is added
    :param enjoy: the zoo's command that plays the run, None where the zoo cannot
    :param snippet: Python code that plays it, in which ``SKILL`` stands for the skill
    """

    title: str
    algo: str
    env_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    play: str = ""
    enjoy: str | None = None
    snippet: str = ""


def describe(run: Run, name: str) -> Description:
    """
    :param run: a run
    :param name: the run as the commands shall name it, for example ``logs/sac/Hopper-v5_1``
    :return: what to tell of it
    """
    is_zip = run.stats_path is None
    option = ["--env", run.env_id] if is_zip else []
    return Description(
        title=f"{run.algo} on {run.env_id}" if is_zip else run.folder.resolve().name,
        algo=run.algo,
        env_id=run.env_id,
        facts=_facts(run),
        hyperparams=run.hyperparams,
        play=shlex.join(["sb3-diayn", "play", name, *option]),
        enjoy=_enjoy(run),
        snippet=_snippet(run, name, str(run.model_path)),
    )


def describe_zip(run: Run) -> Description:
    """
    :param run: a run
    :return: what to tell of it to people elsewhere, who have its zip in their folder
    """
    name = run.model_path.name
    return replace(
        describe(run, name),
        play=shlex.join(["sb3-diayn", "play", name, "--env", run.env_id]),
        enjoy=None,
        snippet=_snippet(run, name, name),
    )


def read_history(run: Run) -> Mapping[str, Any] | None:
    """
    :param run: a run
    :return: logged values of its training by name; None for a zip of before they were kept
    """
    return training_history(load_state(run.model_path)) or None


def _facts(run: Run) -> dict[str, Any]:
    state = load_state(run.model_path)
    facts = {
        "Environment": run.env_id + (f" with {run.env_kwargs}" if run.env_kwargs else ""),
        "Algorithm": run.algo,
        "Skills": run.n_skills,
        "Model": run.model_path.name,
    }
    options = {key: value for key, value in state["options"].items() if value is not None}
    return {
        **facts,
        **_origin(run.stats_path),
        "Discriminator": ", ".join(f"{key}={value}" for key, value in options.items()),
        "Versions": f"{_versions(run.model_path)}; report by sb3-diayn {__version__}",
    }


def _origin(stats_path: Path | None) -> dict[str, Any]:
    """Command and seed, as the zoo writes them down."""
    if stats_path is None:
        return {}
    args = yaml.load((stats_path / "args.yml").read_bytes(), Loader=yaml.UnsafeLoader)
    command = stats_path / "command.txt"
    known = {}
    if command.is_file():  # written in whatever encoding that machine has
        known["Command"] = _shorten(command.read_text(encoding="utf-8", errors="replace"))
    return {"Seed": args["seed"], **known}


def _shorten(command: str) -> str:
    """Without where Python and the script happen to be installed."""
    command = re.sub(r"^\S*python\S* \S*/sb3-diayn(?= )", "sb3-diayn", command)
    return re.sub(r"^\S*/(?=python\S* )", "", command)


def _versions(model_path: Path) -> str:
    with zipfile.ZipFile(model_path) as archive:
        if "system_info.txt" not in archive.namelist():
            return ""
        lines = archive.read("system_info.txt").decode().splitlines()
    pairs = [line.removeprefix("- ").split(": ", 1) for line in lines if ": " in line]
    wanted = ("Python", "Stable-Baselines3", "PyTorch", "Gymnasium", "Numpy")
    return ", ".join(f"{name} {version}" for name, version in pairs if name in wanted)


def _enjoy(run: Run) -> str | None:
    """The zoo looks for ``<log folder>/<algo>/<env>_<number>/<env>.zip``."""
    folder = run.folder.resolve()
    found = re.fullmatch(r".*_(\d+)", folder.name)
    if run.stats_path is None or found is None or run.model_path.stem != run.stats_path.name:
        return None
    algo, logs = run.folder.parent.name, run.folder.parent.parent
    options = ["--algo", algo, "--env", run.env_id, "-f", str(logs), "--exp-id", found[1]]
    return shlex.join(["python", "-m", "rl_zoo3.enjoy", *options])


def _snippet(run: Run, name: str, model: str) -> str:
    wrappers = run.hyperparams.get("env_wrapper") or []
    names = [next(iter(each)) if isinstance(each, Mapping) else each for each in wrappers]
    if names != [WRAPPER] or run.hyperparams.get("normalize"):
        return ZOO_SNIPPET.format(model=name)
    algorithms = {cls.__name__: cls for cls in require_zoo().ALGOS.values()}
    arguments = "".join(f", {key}={value!r}" for key, value in run.env_kwargs.items())
    return SNIPPET.format(
        module=algorithms[run.algo].__module__.split(".")[0],
        algo=run.algo,
        make=f"{run.env_id!r}{arguments}",
        n_skills=run.n_skills,
        model=model,
    )
