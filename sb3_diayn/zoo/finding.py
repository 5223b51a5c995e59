"""Which saved model a path names, and what the zoo has written of its training."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sb3_diayn.checkpoints import CHECKPOINTS_FOLDER, MODEL_FILE, list_checkpoints
from sb3_diayn.files import reading
from sb3_diayn.model_zip import load_state
from sb3_diayn.trainer import State
from sb3_diayn.zoo.environments import find_environment, split_id
from sb3_diayn.zoo.hyperparams import CLASS_KEYS, class_entries, import_zoo
from sb3_diayn.zoo.run_files import OF_ZOO, check_log_folder, file_name, load_yaml
from sb3_diayn.zoo.runs import Run


def find_run(
    path: str | Path,
    env_id: str | None = None,
    env_kwargs: dict[str, Any] | None = None,
    gym_packages: Sequence[str] | None = None,
) -> Run:
    """
    :param path: a run's folder as the zoo writes it, a zip outside of one or inside, such as the
        best model of an evaluation, a checkpoint of the run, or its folder ``checkpoints`` for the
        newest one
    :param env_id: id of the environment, or ``package:id``; needed for a zip whose environment had
        none
    :param env_kwargs: further arguments of the environment, in addition to the training's
    :param gym_packages: packages that register environments, in addition to those that the run's
        folder names; a zip names none. They are imported when the environment is made
    :return: the run
    :raises FileNotFoundError: if there is no such run
    :raises ImportError: if a package cannot be imported
    :raises ValueError: if it holds no discriminator, or the environment of a zip is not known
    """
    path = Path(path)
    if not path.exists() and not path.with_name(path.name + ".zip").is_file():
        raise FileNotFoundError(
            f"RUN={str(path)!r} does not exist; expected a run's folder, such as "
            "logs/sac/Hopper-v5_1, or a model's zip. Look into your log folder."
        )
    if path.name == CHECKPOINTS_FOLDER and (checkpoints := list_checkpoints(path)):
        path = list(checkpoints.values())[-1]
    if (path / MODEL_FILE).is_file():
        path = path / MODEL_FILE  # the folder is a checkpoint
    folder = path if path.is_dir() else _run_folder(path)
    configs = sorted(folder.glob("*/config.yml"))
    if not configs:
        if path.is_dir():
            raise FileNotFoundError(
                f"RUN={str(path)!r} is not a run's folder, it holds no */config.yml; expected one "
                "that sb3-diayn train or rl_zoo3.train wrote. Pass a zip, or another folder."
            )
        return _bare_zip(path, env_id, env_kwargs or {}, gym_packages or ())
    stats_path = configs[0].parent
    model_path = path if path.is_file() else _newest_zip(folder, stats_path.name)
    state = load_state(model_path)
    hyperparams, args = _read_configuration(stats_path)
    env_id, packages = split_id(
        env_id or args["env"], [*args["gym_packages"], *(gym_packages or ())]
    )
    return _run_of_state(
        state,
        model_path=model_path,
        env_id=env_id,
        hyperparams=hyperparams,
        env_kwargs=args["env_kwargs"] | (env_kwargs or {}),
        gym_packages=packages,
        stats_path=stats_path,
        folder=folder,
    )


def numbered_run(log_folder: str | Path, algo: str, env_id: str, number: int = 0) -> Path:
    """
    :param log_folder: where the zoo saves runs
    :param algo: name of the algorithm as the zoo spells it
    :param env_id: id of the environment, or ``package:id``
    :param number: of the run; 0 for the latest
    :return: its folder, whether it exists or not
    """
    folder = Path(log_folder if number else check_log_folder(log_folder), algo)
    name = file_name(split_id(env_id)[0])
    latest = import_zoo().get_latest_run_id
    return folder / f"{name}_{number or latest(str(folder), name)}"


def find_checkpoints(folder: Path) -> dict[int, Path]:
    """
    :param folder: of a run
    :return: by steps, its checkpoints: folders of this package, and the zoo's zips
    """
    zips = {int(file.stem.split("_")[2]): file for file in folder.glob("rl_model_*_steps.zip")}
    return zips | dict(list_checkpoints(folder / CHECKPOINTS_FOLDER))


def _run_of_state(state: State, **kwargs: Any) -> Run:
    """A run whose zip has been read already, to see what it is."""
    run = Run(algo=state["algo"], n_skills=state["n_skills"], **kwargs)
    run.state = state
    return run


def _read_configuration(stats_path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Hyperparameters and options, of the zoo's two files."""
    zoo, config, options = import_zoo(), stats_path / "config.yml", stats_path / "args.yml"
    with reading(config, OF_ZOO):
        config.open().close()  # the zoo takes a folder for a file that is missing
        hyperparams, _ = zoo.get_saved_hyperparams(str(stats_path), test_mode=True)
        env_kwargs = dict(hyperparams.pop("env_kwargs", None) or {})
        for key in CLASS_KEYS:
            class_entries(hyperparams, key)
        _check_keys(hyperparams, "policy", "n_timesteps")
    args = load_yaml(options)
    with reading(options, OF_ZOO):
        _check_keys(args, "env", "env_kwargs", "seed")
        args["env_kwargs"] = env_kwargs | (args["env_kwargs"] or {})
        args["gym_packages"] = list(args.get("gym_packages") or ())
        split_id(args["env"])
    return hyperparams, args


def _check_keys(content: Mapping[str, Any], *keys: str) -> None:
    if missing := [key for key in keys if key not in content]:
        raise ValueError(f"it has no {' and no '.join(missing)}")


def _run_folder(file: Path) -> Path:
    """
    The folder of the run that a zip belongs to: its own, or one above it, since checkpoints and the
    best models of evaluations have folders in the run's. Its own if none is a run's.
    """
    folders = [file.parent, *file.absolute().parents[1:3]]
    return next((folder for folder in folders if any(folder.glob("*/config.yml"))), file.parent)


def _bare_zip(
    path: Path, env_id: str | None, env_kwargs: dict[str, Any], gym_packages: Sequence[str]
) -> Run:
    state = load_state(path)
    saved = state.get("env_id")
    if saved is not None and ":" in saved:
        saved = None  # what a zip names is not imported
    if not (env_id or saved):
        raise ValueError(
            f"RUN={str(path)!r} was trained on an environment without an id; expected the option "
            "--env. Register the environment and add its id."
        )
    env_id, packages = find_environment(env_id or saved or "", gym_packages)
    return _run_of_state(
        state,
        model_path=path,
        env_id=env_id,
        hyperparams={"env_wrapper": [{"sb3_diayn.DIAYNWrapper": {"n_skills": state["n_skills"]}}]},
        env_kwargs=env_kwargs,
        gym_packages=packages,
        stats_path=None,
        folder=path.parent / f"{path.stem}_report",
    )


def _newest_zip(folder: Path, env_name: str) -> Path:
    """The final model, or the last checkpoint of a run that did not reach its end."""
    final = folder / f"{env_name}.zip"
    if final.exists():
        return final
    if own := list(list_checkpoints(folder / CHECKPOINTS_FOLDER).values()):
        return own[-1] / MODEL_FILE
    if shared := sorted(folder.glob(f"*-{glob.escape(env_name)}.zip")):  # see sharing.hub_file
        return shared[0]
    checkpoints = sorted(folder.glob("rl_model_*_steps.zip"), key=lambda file: file.stat().st_mtime)
    if not checkpoints:
        raise FileNotFoundError(
            f"RUN={str(folder)!r} holds no model; expected {final.name} or a checkpoint "
            "rl_model_*_steps.zip. The training may have ended before it saved anything, or the "
            "model was left out, as of most of the provided results."
        )
    return checkpoints[-1]
