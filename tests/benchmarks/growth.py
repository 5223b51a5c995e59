"""
What grows with the transitions in the replay buffer, the number of skills K, the environments and
the runs of a sweep, and how fast.

    python -m tests.benchmarks.growth [FILE.json] [--axes transitions K environments runs]

Each row is a part of a training step, or bytes, at several sizes that take turns within one
process. The slope is the slope of a straight line through the logarithms of value and size: 0 does
not grow, 1 grows in proportion. Times are processor time on one thread; medians over rounds, and
for slopes also the tenth and ninetieth percentile. ``SB3`` is SB3's own part on the same augmented
space.

The replay buffers hold Hopper-v5's space, the nets are 256x2, the batch is 256. Environments are
gymnasium's CartPole in numpy, as in ``examples/vectorized.py``. The runs of a sweep do nothing
here: what is left is the backend with its processes, from its start to the last result. A backend
that is not installed is left out.
"""

import argparse
import copy
import mmap
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv

from examples.vectorized import SameStepCartPole
from sb3_diayn import (
    DIAYNCallback,
    DIAYNWrapper,
    Discriminator,
    GymVecEnv,
    SkillReplayBuffer,
    SkillReward,
    VecDIAYNWrapper,
)
from sb3_diayn.buffers import StretchFolds
from sb3_diayn.cli import make_parser
from sb3_diayn.cli.sweep import _backend, expand
from sb3_diayn.reward_sync import attach_wrappers
from sb3_diayn.skills import SkillSampler, SkillSpace
from sb3_diayn.trainer import DiscriminatorTrainer, default_batch_size
from tests.benchmarks.buffer import BATCH, fill
from tests.benchmarks.overhead import Case
from tests.benchmarks.timing import command_line, report, turns

TRANSITIONS = (10_000, 100_000, 1_000_000, 10_000_000)
SKILLS = (2, 10, 50, 200, 1000)
ENVIRONMENTS = (1, 4, 16, 64, 256, 1024)
RUNS = (2, 10, 100)  # a single run has no backend
K, ROUNDS, BACKEND_ROUNDS, SAC_STEPS, PPO_STEPS = 20, 7, 2, 40, 2048
Call = Callable[[], Any]


class Growth:
    """
    The rows of one axis.

    :param axis: what grows
    :param sizes: how far
    """

    def __init__(self, axis: str, sizes: tuple[int, ...]) -> None:
        self.axis, self.sizes = axis, sizes
        self.rows: list[dict[str, Any]] = []
        self._parts: dict[str, tuple[int, dict[int, Call]]] = {}

    def add(self, part: str, calls: int, make: Callable[[int], Call]) -> None:
        """
        :param part: what is timed
        :param calls: how many in a round
        :param make: for a size what to call
        """
        self._parts[part] = calls, {size: make(size) for size in self.sizes}

    def time(self, per: Callable[[int], int] = lambda size: 1, rounds: int = ROUNDS) -> None:
        """
        Time all parts.

        :param per: by what the time at a size is divided
        :param rounds: how often
        """

        def repeated(calls: int, function: Call) -> Call:
            return lambda: [function() for _ in range(calls)] and None

        functions = {
            (part, size): repeated(calls, function)
            for part, (calls, by_size) in self._parts.items()
            for size, function in by_size.items()
        }
        seconds = turns(functions, rounds, time.process_time)
        for part, (calls, _) in self._parts.items():
            us = [1e6 * np.array(seconds[part, n]) / (calls * per(n)) for n in self.sizes]
            self.record(part, "us", us)
        self._parts = {}

    def record(self, part: str, unit: str, values: list[Any]) -> None:
        """
        :param part: what was measured
        :param unit: of the values
        :param values: for each size a number, or one for each round
        """
        rounds = np.atleast_2d(np.array(values, float).T)  # one row for each round
        slopes = np.polyfit(np.log(self.sizes), np.log(rounds).T, 1)[0]
        slope = (np.quantile(slopes, [0.5, 0.1, 0.9]).round(3) + 0.0).tolist()  # no -0.0
        row = {"grows": self.axis, "part": part, "unit": unit, "sizes": list(self.sizes)}
        row |= {"medians": [float(f"{x:.4g}") for x in np.median(rounds, axis=0)]}
        row |= dict(zip(("slope", "slope, 10 %", "slope, 90 %"), slope, strict=True))
        print(row, flush=True)
        self.rows.append(row)


# -- transitions and K: the replay buffer and what reads it --------------------------------------


class Buffers:
    """A filled skill buffer, SB3's, and a discriminator."""

    def __init__(self, n_skills: int, size: int) -> None:
        env = gym.make("Hopper-v5")
        self.space = SkillSpace(env.observation_space, n_skills)
        arguments = (size, self.space.observation_space, env.action_space, "cpu")
        self.stock = ReplayBuffer(*arguments)
        self.lean = SkillReplayBuffer(*arguments, n_skills=n_skills)
        fill(self.stock, self.lean, self.space)
        self.discriminator = Discriminator(self.space.env_space, n_skills, net_arch=[256, 256])
        self.reward = self.lean.skill_reward = SkillReward(self.discriminator)
        self.trainer = DiscriminatorTrainer(self.discriminator, 3e-4, 0)

    def add(self, name: str) -> Call:
        obs = self.space.append(np.zeros((1, 11)), [1])
        row = obs, obs, np.zeros((1, 3)), np.ones(1), np.zeros(1)
        return partial(getattr(self, name).add, *row, [{"skill": 1, "task_reward": 1.0}])

    def sample(self, name: str) -> Call:
        buffer = getattr(self, name)
        return lambda: buffer.sample(BATCH) and None  # keeps no batch, as a training does not

    def learn(self) -> Call:
        """A batch with rewards, from which the discriminator learns."""
        sizes = BATCH, default_batch_size(BATCH)

        def call() -> None:
            self.lean.learn = partial(self.trainer.learn, sizes)
            self.lean.sample(BATCH)
            self.lean.learn = None

        return call

    def wrapper_reward(self) -> Call:
        reward = self.reward.of_one()
        return partial(reward, np.zeros(11, np.float32), 1, np.zeros(3))

    def bytes_of(self, name: str) -> float:
        buffer = getattr(self, name)
        arrays = [value for value in vars(buffer).values() if isinstance(value, np.ndarray)]
        return sum(array.nbytes for array in arrays) / buffer.buffer_size


def add_buffer_parts(growth: Growth, of: dict[int, Buffers]) -> None:
    growth.add("add", 500, lambda n: of[n].add("lean"))
    growth.add("SB3: add", 500, lambda n: of[n].add("stock"))
    growth.add("sample, fresh rewards", 40, lambda n: of[n].sample("lean"))
    growth.add("SB3: sample", 40, lambda n: of[n].sample("stock"))
    growth.add("sample and update of D", 20, lambda n: of[n].learn())
    for part, name in (("bytes per transition", "lean"), ("SB3: bytes per transition", "stock")):
        growth.record(part, "bytes", [of[n].bytes_of(name) for n in growth.sizes])


def measure_transitions() -> Iterator[dict[str, Any]]:
    growth = Growth("transitions", TRANSITIONS)
    of = {size: Buffers(K, size) for size in TRANSITIONS}
    add_buffer_parts(growth, of)
    with tempfile.TemporaryDirectory() as folder:
        for each in of.values():
            each.half = as_float16(each.lean)
            each.mapped = as_mapped(each.lean, Path(folder))
        growth.add("sample, float16 observations", 40, lambda n: of[n].sample("half"))
        growth.add("sample, memory-mapped, in memory", 40, lambda n: of[n].sample("mapped"))
        growth.time()
        float16 = [of[n].bytes_of("half") for n in TRANSITIONS]
        growth.record("bytes per transition, float16 observations", "bytes", float16)
        from_disk = [time_from_disk(of[n].mapped) for n in TRANSITIONS]
        growth.record("sample, memory-mapped, from disk (wall)", "us", from_disk)
    yield from growth.rows


def as_float16(buffer: SkillReplayBuffer) -> SkillReplayBuffer:
    """The idea of a smaller buffer: two bytes for each coordinate of an observation."""
    half = copy.copy(buffer)
    half.skill_reward = buffer.skill_reward
    half.observations = buffer.observations.astype(np.float16)
    half.next_observations = buffer.next_observations.astype(np.float16)
    as_tensor = half._tensor

    def widened(array: Any) -> th.Tensor:
        return as_tensor(array.astype(np.float32) if array.dtype == np.float16 else array)

    half._tensor = widened  # type: ignore[method-assign]
    return half


def as_mapped(buffer: SkillReplayBuffer, folder: Path) -> SkillReplayBuffer:
    """The idea of a buffer that is larger than the memory: observations in files."""
    mapped = copy.copy(buffer)
    mapped.skill_reward = buffer.skill_reward
    for name in ("observations", "next_observations"):
        array = getattr(buffer, name)
        file = np.memmap(folder / f"{name}_{len(array)}", array.dtype, "w+", shape=array.shape)
        file[:] = array
        setattr(mapped, name, file)
    return mapped


def time_from_disk(buffer: SkillReplayBuffer) -> list[float]:
    """Wall time in microseconds of batches of which nothing is in memory. Linux only."""
    times = []
    for _ in range(ROUNDS):
        for array in (buffer.observations, buffer.next_observations):
            array.flush()
            array._mmap.madvise(mmap.MADV_DONTNEED)
            with open(array.filename, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        buffer.sample(BATCH)
        times.append(1e6 * (time.perf_counter() - start))
    return times


def measure_skills() -> Iterator[dict[str, Any]]:
    growth = Growth("K", SKILLS)
    of = {n_skills: Buffers(n_skills, 20_000) for n_skills in SKILLS}
    add_buffer_parts(growth, of)
    growth.add("reward in the wrapper", 300, lambda n: of[n].wrapper_reward())
    growth.add("draw of a skill, balanced", 300, lambda n: SkillSampler(n, "balanced").draw)
    growth.add("draw of a skill, uniform", 300, lambda n: SkillSampler(n, "uniform").draw)
    growth.time()
    growth.add(
        "step of SAC with DIAYN", 1, lambda n: training(n, DIAYNCallback(net_arch=[256, 256]))
    )
    growth.add("SB3: step of SAC", 1, lambda n: training(n, None))
    growth.time(per=lambda n: SAC_STEPS, rounds=5)
    yield from growth.rows


def training(n_skills: int, callback: DIAYNCallback | None) -> Call:
    model = Case(n_skills=n_skills, learning_starts=100).make_model()
    if callback is None:
        model.env.env_method("set_skill_reward", None)  # on purpose, so no warning
    model.learn(200, callback=callback)
    return partial(model.learn, SAC_STEPS, callback=callback, reset_num_timesteps=False)


# -- environments --------------------------------------------------------------------------------


def measure_environments() -> Iterator[dict[str, Any]]:
    """Microseconds for each transition, but for the batch."""
    growth = Growth("environments", ENVIRONMENTS)
    growth.add("numpy simulator", 20, lambda n: stepping(simulator(n)))
    growth.add("step in VecDIAYNWrapper", 20, lambda n: stepping(with_skills(n)))
    growth.add("step in DIAYNWrapper, DummyVecEnv", 2, lambda n: stepping(dummy(n)))
    growth.add("add", 20, lambda n: adding(n, SkillReplayBuffer))
    growth.add("add, cross-fitted", 20, lambda n: adding(n, SkillReplayBuffer, cross_fit=True))
    growth.add("SB3: add", 20, lambda n: adding(n, ReplayBuffer))
    growth.time(per=lambda n: n)
    growth.add(
        "PPO with DIAYN, one epoch", 1, lambda n: on_policy(n, DIAYNCallback(net_arch=[256, 256]))
    )
    growth.add("SB3: PPO, one epoch", 1, lambda n: on_policy(n, None))
    growth.time(per=lambda n: PPO_STEPS, rounds=4)
    yield from growth.rows


def simulator(n_envs: int) -> GymVecEnv:
    return GymVecEnv(SameStepCartPole(num_envs=n_envs))


def with_skills(n_envs: int) -> Any:
    return attached(VecDIAYNWrapper(simulator(n_envs), K))


def dummy(n_envs: int) -> Any:
    return attached(DummyVecEnv([lambda: DIAYNWrapper(gym.make("CartPole-v1"), K)] * n_envs))


def attached(env: Any) -> Any:
    space = env.get_attr("skill_space")[0].env_space
    attach_wrappers(env, SkillReward(Discriminator(space, K, net_arch=[256, 256])))
    return env


def stepping(env: Any) -> Call:
    env.seed(0)
    env.reset()
    actions = np.random.default_rng(0).integers(2, size=env.num_envs)
    return lambda: env.step(actions) and None


def adding(n_envs: int, buffer_class: Any, cross_fit: bool = False) -> Call:
    space = SkillSpace(spaces.Box(-1, 1, (4,)), K)
    options = {"n_skills": K} if buffer_class is SkillReplayBuffer else {}
    arguments = 100 * n_envs, space.observation_space, spaces.Discrete(2), "cpu", n_envs
    buffer = buffer_class(*arguments, **options)
    if cross_fit:
        buffer.folds = StretchFolds.of_buffer(buffer)
    skills = np.arange(n_envs) % K
    obs = space.append(np.zeros((n_envs, 4)), skills)
    infos = [{"skill": int(skill), "task_reward": 1.0} for skill in skills]
    row = obs, obs, np.zeros((n_envs, 1)), np.ones(n_envs), np.zeros(n_envs)
    return partial(buffer.add, *row, infos)


def on_policy(n_envs: int, callback: DIAYNCallback | None) -> Call:
    env = VecDIAYNWrapper(simulator(n_envs), K)
    if callback is None:
        env.set_skill_reward(None)
    sizes = {"n_steps": PPO_STEPS // n_envs, "batch_size": BATCH, "n_epochs": 1}
    model = PPO("MlpPolicy", env, **sizes, device="cpu")
    return partial(model.learn, PPO_STEPS, callback=callback)


# -- runs of a sweep -----------------------------------------------------------------------------


def measure_runs() -> Iterator[dict[str, Any]]:
    growth = Growth("runs", RUNS)
    words = ["sweep", "--envs", "Hopper-v5", "-n", "1000", "-o", "unused", "--seeds"]
    arguments = {n: make_parser().parse_args([*words, str(n)]) for n in RUNS}
    growth.add("list of the runs", 1, lambda n: partial(expand, arguments[n]))
    growth.time()
    for backend in ("loky", "dask", "ray"):
        rounds = []
        try:
            for _ in range(BACKEND_ROUNDS):
                rounds.append([time_backend(arguments[n], backend, n) for n in RUNS])
        except ImportError as error:
            print(f"{backend} is left out: {error}", flush=True)
            continue
        wall, processor = np.moveaxis(np.array(rounds), 2, 0)
        growth.record(f"{backend} (wall)", "ms", list(wall.T))
        growth.record(f"{backend}, with its processes", "ms", list(processor.T))
    yield from growth.rows


def time_backend(args: argparse.Namespace, backend: str, n_runs: int) -> tuple[float, float]:
    """Start a backend with two workers and let it do nothing n times, in milliseconds."""
    from joblib import delayed
    from joblib.externals.loky import get_reusable_executor

    args = argparse.Namespace(**vars(args) | {"backend": backend, "n_jobs": 2, "address": None})
    start, spent = time.perf_counter(), processor_time()
    with _backend(args, n_runs) as parallel:
        list(parallel(delayed(abs)(run) for run in range(n_runs)))
        result = time.perf_counter() - start, processor_time() - spent
    get_reusable_executor().shutdown()  # the next one starts processes again
    return 1e3 * result[0], 1e3 * result[1]


def processor_time() -> float:
    """Of this process and of all that it has started and that still run."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


AXES = {
    "transitions": measure_transitions,
    "K": measure_skills,
    "environments": measure_environments,
    "runs": measure_runs,
}

if __name__ == "__main__":
    th.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # of few skills in so short a training
    parser = command_line()
    parser.add_argument("--axes", nargs="+", default=list(AXES), choices=list(AXES))
    args, sys.argv[1:] = parser.parse_known_args()
    report("growth", lambda: [row for axis in args.axes for row in AXES[axis]()])
