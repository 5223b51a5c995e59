"""The runs of a sweep: which there are, where they belong, and whether they are complete."""

import argparse
import itertools
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sb3_diayn import arguments
from sb3_diayn.provenance import FILE, load_provenance
from sb3_diayn.runs import check_env_id
from sb3_diayn.zoo import read_config

EVALUATION = "evaluation.json"


@dataclass(frozen=True)
class GridRun:
    """
    One run of a sweep.

    :param setting: all but the seed, as the name of a folder
    :param seed: seed of everything
    :param folder: its own log folder, so that runs that start at once do not choose the same name
    :param command: words of the command that makes it, without ``sb3-diayn``
    """

    setting: str
    seed: int
    folder: Path
    command: tuple[str, ...]

    @property
    def name(self) -> str:
        """:return: how a person calls it"""
        return f"{self.setting} seed {self.seed}"

    def find(self) -> Path | None:
        """
        :return: the zoo's folder of the run, None if it is not complete
        :raises ValueError: if another command has made it
        """
        found = [file.parent for file in sorted(self.folder.glob(f"*/*/{FILE}"))]
        found = [folder for folder in found if (folder / EVALUATION).is_file()]
        if not found:
            return None
        made_by = (load_provenance(found[-1]) or {})["command"]
        if _options(shlex.split(made_by)[1:]) != _options(self.command):
            raise ValueError(
                f"output={str(found[-1])!r} holds a run of {made_by!r}; expected one of "
                f"{shlex.join(['sb3-diayn', *self.command])!r}. Choose another --output, or remove "
                "that folder."
            )
        return found[-1]


def _options(command: tuple[str, ...] | list[str]) -> dict[str, object]:
    """The options of ``sb3-diayn train`` that say what is learned."""
    options = vars(parse_train(command))
    elsewhere = ("log_folder", "device", "num_threads", "verbose")
    return {key: value for key, value in options.items() if key not in elsewhere}


def parse_train(command: tuple[str, ...] | list[str]) -> argparse.Namespace:
    """
    :param command: words of a command ``train``
    :return: its options
    """
    parser = argparse.ArgumentParser("sb3-diayn train")
    arguments.train(parser.add_argument)
    return parser.parse_args(list(command[1:]))


def expand(args: argparse.Namespace) -> list[GridRun]:
    """
    :param args: the options of ``sb3-diayn sweep``
    :return: every run, the seeds of a setting one after the other
    :raises ValueError: if an environment, algorithm or hyperparameter is not known, or two
        settings are the same
    """
    settings = dict(_settings(args))
    n_settings = len(args.envs) * len(args.algo) * len(args.n_skills or [None])
    for _, values in args.param:
        n_settings *= len(values)
    if len(settings) < n_settings:
        raise ValueError(
            f"param={args.param!r} and the other lists name a setting twice; expected different "
            "ones. Leave repeated values out."
        )
    for words in settings.values():
        options = parse_train(["train", *words])
        check_env_id(options.env)
        read_config(options)
    return [
        _make_run(args, setting, words, seed)
        for setting, words in settings.items()
        for seed in range(args.seeds)
    ]


def _settings(args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Name and options of each setting."""
    keys = [key for key, _ in args.param]
    axes = [args.envs, args.algo, args.n_skills or [None], *(values for _, values in args.param)]
    for env_id, algo, n_skills, *values in itertools.product(*axes):
        words = [*args.train_options, "--env", env_id, "--algo", algo, "--no-progress"]
        # Not otherwise: it would undo a -n among the options of ``train``.
        words += ["-n", str(args.total_timesteps)] if args.total_timesteps != -1 else []
        words += [] if n_skills is None else ["--n-skills", n_skills]
        pairs = list(zip(keys, values, strict=True))
        words += ["--hyperparams", *(f"{key}:{value}" for key, value in pairs)] if pairs else []
        parts = [env_id, algo, *([] if n_skills is None else [f"K{n_skills}"])]
        name = "_".join([*parts, *(f"{key}={value}" for key, value in pairs)])
        yield re.sub(r"[^\w.=+-]", "-", name), words


def _make_run(args: argparse.Namespace, setting: str, words: list[str], seed: int) -> GridRun:
    folder = Path(args.output, setting, f"seed_{seed}")
    command = ("train", *words, "--seed", str(seed), "-f", str(folder))
    return GridRun(setting, seed, folder.resolve(), command)
