"""
The command ``sweep``: many runs at once, on this machine or on a cluster.

``python -m sb3_diayn.cli.sweep train ...`` is what a sweep starts for each of its runs:
``sb3-diayn train``, for as long as the sweep lives.
"""

import argparse
import io
import itertools
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sb3_diayn.cli.commands import train_options
from sb3_diayn.cli.evaluation import show_comparison
from sb3_diayn.cli.training import settings_of, training_options
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.files import check_writable, require_extra
from sb3_diayn.zoo.hyperparams import default_algo
from sb3_diayn.zoo.parallel import AUTO
from sb3_diayn.zoo.provenance import (
    PROVENANCE_FILE,
    load_plain_hyperparams,
    load_provenance,
)
from sb3_diayn.zoo.settings import TrainingOptions, complete

ATTEMPTS = 2
MISTAKE = 2  # exit code of a command, see sb3_diayn.cli.running.run
EVALUATION, LOG = "evaluation.json", "log.txt"
CHILD = ("-m", "sb3_diayn.cli.sweep")


def run_sweep(args: argparse.Namespace) -> None:
    """Run ``sb3-diayn sweep``."""
    runs = expand(args)
    check_writable(args.output)
    missing = [run for run in runs if run.find() is None]
    print(f"{len(runs)} runs, of which {len(runs) - len(missing)} are complete")
    failed = _make(missing, args)
    _compare(runs, Path(args.output))
    if failed:
        files = "".join(f"\n  {outcome.errors[-1]}" for outcome in failed)
        raise ChildProcessError(
            f"{len(failed)} of {len(runs)} runs failed; their output:{files}\n"
            "The same command tries them again."
        )


# -- the grid ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SweepRun:
    """
    One run of a sweep.

    :param setting: all but the seed, as the name of a folder
    :param seed: seed of everything
    :param folder: its own log folder, so that runs that start at once do not choose the same name
    :param command: words of the command that makes it, without ``sb3-diayn``
    :param hyperparams: that the command has now, in the zoo's format; None if they are not known,
        as where the speed of this machine chooses some of them
    """

    setting: str
    seed: int
    folder: Path
    command: tuple[str, ...]
    hyperparams: Mapping[str, Any] | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """:return: name for people"""
        return f"{self.setting} seed {self.seed}"

    def find(self) -> Path | None:
        """
        :return: the zoo's folder of the run, None if it is not complete
        :raises ValueError: if another command has made it
        """
        found = [file.parent for file in sorted(self.folder.glob(f"*/*/{PROVENANCE_FILE}"))]
        found = [folder for folder in found if (folder / EVALUATION).is_file()]
        if not found:
            return None
        made_by = (load_provenance(found[-1]) or {})["command"]
        if _made_with(made_by) != _options(self.command):
            raise ValueError(
                f"output={str(found[-1])!r} holds a run of {made_by!r}; expected one of "
                f"{shlex.join(['sb3-diayn', *self.command])!r}. Choose another --output, or remove "
                "that folder."
            )
        self._check_hyperparams(found[-1])
        return found[-1]

    def _check_hyperparams(self, folder: Path) -> None:
        """The same command has others when the configuration file has changed."""
        if self.hyperparams is None:
            return
        before, now = load_plain_hyperparams(folder), dict(self.hyperparams)
        if before is None:
            return
        changed = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
        if changed:
            had, has = ({key: each.get(key) for key in changed} for each in (before, now))
            raise ValueError(
                f"output={str(folder)!r} holds a run with {had}; expected {has}: the "
                "configuration has changed since. Choose another --output, or remove that folder."
            )


def _made_with(command: str) -> dict[str, object] | None:
    """The options in a command that a run has written down; None if there are none."""
    with suppress(ValueError, SystemExit), redirect_stderr(io.StringIO()):  # argparse exits
        return _options(shlex.split(command)[1:])
    return None


def _options(command: Sequence[str]) -> dict[str, object]:
    """The options of ``sb3-diayn train`` that say what is learned."""
    options = vars(parse_train(command))
    elsewhere = "log_folder device num_threads verbose no_progress log_interval live films"
    elsewhere += " film_seconds film_steps track wandb_project_name wandb_entity wandb_group"
    elsewhere += " wandb_tags"
    return {key: value for key, value in options.items() if key not in elsewhere.split()}


def parse_train(command: Sequence[str]) -> argparse.Namespace:
    """The options in the words of a command ``train``."""
    return train_options().parse_args(command[1:])


def expand(args: argparse.Namespace) -> list[SweepRun]:
    """All runs, the seeds of a setting one after the other. Refuses what cannot be trained."""
    _check_train_options(args)
    found = list(_settings(args))
    settings = dict(found)
    if len(settings) < len(found):
        raise ValueError(
            f"param={args.param!r} and the other lists name a setting twice; expected different "
            "ones. Leave repeated values out."
        )
    hyperparams = {}  # of all, to refuse the last setting before the first run
    named: dict[str, str] = {}
    for setting, options in settings.items():
        words = settings_of(parse_train(["train", *options]))
        asked = TrainingOptions(**{**words, "device": "auto"})  # the runs' machines have another
        known, settled = complete(asked)
        same = named.setdefault(repr((known.algo, known.env, settled)), setting)
        if same != setting:
            raise ValueError(
                f"param={args.param!r} and the other lists make {same} and {setting} the same; "
                "expected different ones. Leave repeated values out."
            )
        is_chosen_here = asked.hyperparams.get("n_envs") == AUTO
        hyperparams[setting] = None if is_chosen_here else settled
    runs = []
    for setting, options in settings.items():
        for seed in range(args.seeds):
            folder = Path(args.output, setting, f"seed_{seed}")
            command = ("train", *options, "--seed", str(seed), "-f", str(folder))
            runs.append(SweepRun(setting, seed, folder.resolve(), command, hyperparams[setting]))
    return runs


def _check_train_options(args: argparse.Namespace) -> None:
    """Refuse options of ``train`` that the sweep would replace by its own."""
    given, absent = (vars(parse_train(["train", *words])) for words in (args.train_options, ()))
    replaced = {"env": "--env", "algo": "--algo", "seed": "--seeds", "log_folder": "--output"}
    replaced["resume"] = "no --resume"
    if args.n_skills:
        replaced["n_skills"] = "--n-skills"
    if args.total_timesteps != -1:
        replaced["n_timesteps"] = "-n"
    for name, instead in replaced.items():
        if given[name] != absent[name]:
            raise ValueError(
                f"{name}={given[name]!r} is among the options after --, and the sweep gives each "
                f"run its own; expected others there. Use {instead} of sweep."
            )
    hyperparams = training_options(argparse.Namespace(**given))["hyperparams"]
    for key, values in args.param:
        if key in hyperparams:
            raise ValueError(
                f"param={f'{key}={values}'!r} is also among the options after --, with "
                f"{hyperparams[key]!r}; expected one of them. Leave one out."
            )


def _settings(args: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Name and options of each setting."""
    params: dict[str, list[str]] = {}
    for key, values in args.param:
        params.setdefault(key, []).extend(values)
    keys = list(params)
    conf_file = settings_of(parse_train(["train", *args.train_options]))["conf_file"]
    axes = [args.envs, args.algo or [None], args.n_skills or [None], *params.values()]
    for env_id, named_algo, n_skills, *values in itertools.product(*axes):
        algo = named_algo or default_algo(conf_file, env_id)
        parts = [env_id, algo]
        options = ["--no-films", *args.train_options]  # films of each run take their time
        options += ["--env", env_id, "--algo", algo, "--no-progress"]
        if args.gym_packages:
            options += ["--gym-packages", *args.gym_packages]
        if args.total_timesteps != -1:  # which would undo a -n among the options of ``train``
            options += ["-n", str(args.total_timesteps)]
        if n_skills is not None:
            parts.append(f"K{n_skills}")
            options += ["--n-skills", n_skills]
        if keys:
            pairs = list(zip(keys, values, strict=True))
            parts += [f"{key}={value}" for key, value in pairs]
            options += ["--hyperparams", *(f"{key}:{value}" for key, value in pairs)]
        yield re.sub(r"[^\w.=+-]", "-", "_".join(parts)), options


# -- running it -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """
    What became of a run.

    :param run: the run
    :param seconds: it took, all attempts together
    :param errors: what each failed attempt printed, in files
    :param succeeded: whether the last attempt made it
    """

    run: SweepRun
    seconds: float
    errors: tuple[Path, ...]
    succeeded: bool


def _make(
    missing: Sequence[SweepRun], args: argparse.Namespace, *, is_retry: bool = False
) -> list[Outcome]:
    """
    Make the missing runs; return those that failed. A cluster replaces a lost worker by itself.
    Where a backend gives up instead, as loky does, what is not complete is started once more.
    """
    todo = [run for run in missing if run.find() is None]
    try:
        return [outcome for outcome in _outcomes(todo, args) if not outcome.succeeded]
    except (ImportError, ValueError, OSError):
        raise
    except Exception as error:  # each backend has its own
        if is_retry:
            raise ChildProcessError(f"The backend gave up twice: {error!r}") from error
        print(
            f"The backend gave up; what it left is started again. {type(error).__name__}: {error}"
        )
        return _make(missing, args, is_retry=True)


def _outcomes(runs: Sequence[SweepRun], args: argparse.Namespace) -> Iterator[Outcome]:
    """Make the runs, and print a line for each that has ended."""
    if not runs:
        return
    with _backend(args, len(runs)) as parallel:
        from joblib import delayed

        outcomes: Iterable[Outcome] = parallel(delayed(_run)(run, os.getcwd()) for run in runs)
        for count, outcome in enumerate(outcomes, start=1):
            result = "complete" if outcome.succeeded else f"FAILED, see {outcome.errors[-1]}"
            retried = " at the second attempt" if outcome.succeeded and outcome.errors else ""
            line = f"{outcome.run.name}: {result}{retried} ({outcome.seconds:.0f} s)"
            print(f"[{count}/{len(runs)}] {line}", flush=True)
            yield outcome


def _run(run: SweepRun, cwd: str) -> Outcome:
    """
    Try a run, in processes of its own: a crash must not reach the next run. A mistake of the caller
    would be the same again.
    """
    start, errors = time.perf_counter(), []
    for attempt in range(1, ATTEMPTS + 1):
        log, code = _start_and_wait(run, cwd)
        if run.find() is not None:
            break
        errors.append(log.replace(log.with_name(f"error_{attempt}.txt")))
        if code == MISTAKE:
            break
    seconds = time.perf_counter() - start
    return Outcome(run, seconds, tuple(errors), succeeded=run.find() is not None)


def _start_and_wait(run: SweepRun, cwd: str) -> tuple[Path, int]:
    """Make the run in a process of its own; return the file with its output, and the exit code."""
    run.folder.mkdir(parents=True, exist_ok=True)
    for part in run.folder.iterdir():  # left by an attempt that did not reach its end
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
    command = [sys.executable, *CHILD, *run.command]
    env = os.environ | {"PYTHONIOENCODING": "utf-8"}
    with (
        open(run.folder / LOG, "w", encoding="utf-8") as log,
        subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=log, stderr=log
        ) as child,
    ):
        code = child.wait()
    return run.folder / LOG, code


def _compare(runs: Sequence[SweepRun], folder: Path) -> None:
    found = {run: run.find() for run in runs}
    complete = {run.name: (run, place) for run, place in found.items() if place is not None}
    if not complete:
        return
    show_comparison(
        {name: SkillEvaluation.load(place / EVALUATION) for name, (_, place) in complete.items()},
        folder,
        {name: run.setting for name, (run, _) in complete.items()},
    )


@contextmanager
def _backend(args: argparse.Namespace, n_runs: int) -> Iterator[Any]:
    """
    Joblib's ``Parallel``, connected. Each backend limits the threads of its workers by
    ``OMP_NUM_THREADS``, which the runs inherit.
    """
    with require_extra("zoo"):
        import joblib
    with BACKENDS[args.backend](args) as options, joblib.parallel_config(args.backend, **options):
        n_jobs = joblib.effective_n_jobs(args.n_jobs)
        if args.backend == "loky":  # fewer runs than cores leave each more threads
            n_jobs = min(n_jobs, n_runs)
        # Ray's backend cannot return results one by one; joblib's own lines tell of its progress.
        if args.backend == "ray":
            reporting: dict[str, Any] = {"return_as": "list", "verbose": 10}
        else:
            reporting = {"return_as": "generator_unordered"}
        yield joblib.Parallel(n_jobs, batch_size=1, pre_dispatch="n_jobs", **reporting)


@contextmanager
def _ray(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """
    Ray starts a lost actor again on another node, and with it the runs that it had. It gives runs
    to actors by turns, busy or not, so an actor must be able to see to more than one.
    """
    with require_extra("cluster"):
        import ray
        from ray.util.joblib import register_ray
    register_ray()
    ray.init(address=args.address, log_to_driver=False, ignore_reinit_error=True)
    # Half a core each: the other half takes in the actors of a node that is lost.
    actor = {"num_cpus": 0.5, "max_concurrency": 8, "max_restarts": -1, "max_task_retries": -1}
    try:
        yield {"ray_remote_args": actor}
    finally:
        ray.shutdown()


@contextmanager
def _dask(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    with require_extra("cluster"):
        from distributed import Client
    here = {"n_workers": None if args.n_jobs == -1 else args.n_jobs, "threads_per_worker": 1}
    with Client(args.address) if args.address else Client(**here):
        yield {}


# How each backend is connected: a context with options for joblib.
BACKENDS: dict[str, Any] = {"loky": lambda args: nullcontext({}), "ray": _ray, "dask": _dask}


# -- the process of a run ----------------------------------------------------------------------


def _end_with_parent() -> None:
    """The parent holds the other end of the pipe, which closes however the parent ends."""
    os.read(sys.stdin.fileno(), 1)  # sys.stdin has a lock that the interpreter needs to shut down
    os._exit(1)


if __name__ == "__main__":
    from sb3_diayn.cli import main

    # Ctrl-C is for the parent to answer. Otherwise half a training is saved like a whole one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The zoo writes down how the process was called. This is the command that repeats the run.
    sys.orig_argv = ["sb3-diayn", *sys.argv[1:]]
    sys.exit(main())
