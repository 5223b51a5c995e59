"""Trainings that end before their time: which environment failed, signals, processes to end."""

import multiprocessing.connection
import signal
import sys
import threading
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

PACKAGE = Path(__file__).parents[1]
SECONDS_TO_END = 5  # for a process to end by itself
ENDING_SIGNALS = [
    signal.Signals[name] for name in ("SIGTERM", "SIGHUP") if name in signal.Signals.__members__
]


class RunError(RuntimeError):
    """An environment has failed."""


class TrainingError(RunError):
    """A training has failed. What there was of it is saved, if there was something to save."""


class TerminatedError(KeyboardInterrupt):
    """
    A signal has arrived that ends a process.

    :param number: of the signal
    """

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {signal.Signals(number).name}")
        self.number = number


class TerminationHandler:
    """
    Turns the first SIGTERM, which a scheduler or ``kill`` sends, or SIGHUP, which a closed terminal
    sends, into :class:`TerminatedError` within :meth:`interrupting`, and the first Ctrl-C into
    ``KeyboardInterrupt``. Elsewhere within the block it remembers the signal, which so interrupts a
    training but not what saves it. Only a further Ctrl-C abandons that::

        with TerminationHandler() as handler:
            with handler.interrupting():
                model.learn(...)
            save(model)

    At the end of the block the error is raised if a signal has arrived meanwhile. A handler of
    somebody else stays as it is (``nohup`` ignores SIGHUP), and outside of the main thread there
    are no signals.
    """

    def __init__(self) -> None:
        self._arrived: int | None = None
        self._interrupts = False
        self._replaced: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "TerminationHandler":
        if threading.current_thread() is threading.main_thread():
            usual = (signal.SIG_DFL, signal.default_int_handler)
            for each in (signal.SIGINT, *ENDING_SIGNALS):
                if signal.getsignal(each) in usual:
                    self._replaced[each] = signal.signal(each, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each, handler in self._replaced.items():
            signal.signal(each, handler)
        if self._arrived == signal.SIGINT and not isinstance(error, KeyboardInterrupt):
            raise KeyboardInterrupt from error
        if self._arrived not in (None, signal.SIGINT) and not isinstance(error, TerminatedError):
            raise TerminatedError(int(self._arrived)) from error

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """:return: a block that a signal interrupts"""
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False

    def announce(self, outcome: str) -> None:
        """:param outcome: is printed if a signal is about to end the process"""
        if self._arrived is not None:
            with suppress(OSError):  # the terminal may be gone
                print(outcome, flush=True)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        is_ctrl_c = number == signal.SIGINT
        if self._interrupts:
            self._interrupts = False
            if is_ctrl_c:
                raise KeyboardInterrupt
            self._arrived = number
            raise TerminatedError(number)
        if is_ctrl_c and self._arrived == signal.SIGINT:
            raise KeyboardInterrupt
        if is_ctrl_c:
            with suppress(OSError, RuntimeError):  # also within another print
                print("\nSaving. Press Ctrl-C again to abandon it.", file=sys.stderr, flush=True)
        self._arrived = self._arrived or number


def failed_environment(env: VecEnv, error: BaseException) -> tuple[int, str] | None:
    """
    :param env: vectorised environments
    :param error: what ended the training
    :return: index of the environment that failed, and how; None if no environment did
    """
    inner: Any = env.unwrapped
    if processes := getattr(inner, "processes", []):
        if not isinstance(error, (EOFError, OSError)):  # how a pipe without a reader shows
            return None
        multiprocessing.connection.wait([each.sentinel for each in processes], SECONDS_TO_END)
        for index, process in enumerate(processes):
            if not process.is_alive():
                return index, f"its process has ended with {_exit_words(process.exitcode)}"
        return None
    codes = {DummyVecEnv.step_wait.__code__, DummyVecEnv.reset.__code__}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code in codes and frame.f_locals["self"] is inner:
            return frame.f_locals["env_idx"], f"it raised {in_words(error)}"
    return None


def failure_in_words(
    env_id: str, env: VecEnv, error: BaseException, moment: str = ""
) -> str | None:
    """
    :param env_id: id of the environments
    :param env: vectorised environments
    :param error: what was raised
    :param moment: when it failed, for example ``" in step 3"``
    :return: which environment failed, and how; None if no environment did
    """
    found = failed_environment(env, error)
    if found is None:
        return None
    place = f"number {found[0]} of the environments 0 to {env.num_envs - 1}"
    return f"env={env_id!r} has failed{moment}, {place}: {found[1]}."


@contextmanager
def naming_failures(env_id: str, env: VecEnv) -> Iterator[None]:
    """
    :param env_id: id of the environments
    :param env: vectorised environments, which are played in the block
    :raises RunError: if one of them fails, unless its error is a sentence of this package
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        last = traceback.extract_tb(error.__traceback__)[-1].filename
        if isinstance(error, ValueError) and Path(last).is_relative_to(PACKAGE):
            raise
        reason = failure_in_words(env_id, env, error)
        if reason is None:
            raise
        raise RunError(reason) from error


def _exit_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):  # a signal without a name
        return f"signal {signal.Signals(-code).name}"
    return f"signal {-code}"


def in_words(error: BaseException) -> str:
    """
    :param error: that was raised
    :return: what it says, and the line of code that raised it
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"


@contextmanager
def closing_if_failed(make_envs: Callable[..., VecEnv]) -> Iterator[Callable[..., VecEnv]]:
    """
    :param make_envs: makes vectorised environments
    :return: the same. What it has made is closed if the block fails, also where the zoo, which
        asked for them, has not handed them out yet
    """
    made = weakref.WeakSet[VecEnv]()

    def make(*args: Any, **kwargs: Any) -> VecEnv:
        env = make_envs(*args, **kwargs)
        made.add(env)
        return env

    try:
        yield make
    except BaseException:
        for env in made:
            close_envs(env, has_failed=True)
        raise


def close_envs(env: VecEnv, *, has_failed: bool) -> None:
    """
    :param env: vectorised environments
    :param has_failed: whether the training has failed. Then nothing is waited for: a process that
        is alive may wait itself, for one that is dead
    """
    if not has_failed:
        try:
            env.close()
            return
        except Exception as error:
            warnings.warn(f"The environments could not be closed: {in_words(error)}", stacklevel=2)
    inner: Any = env.unwrapped
    processes = getattr(inner, "processes", [])
    if processes and not inner.closed:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(SECONDS_TO_END)
            process.kill()
            process.join()
        for remote in inner.remotes:
            remote.close()
        inner.closed = True
    with suppress(Exception):
        env.close()
