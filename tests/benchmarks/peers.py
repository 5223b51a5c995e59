"""
Other implementations side by side: updates and steps a second, bytes per transition, and with
``--limit`` the time to 10 and 15 of 20 held-out distinct skills on Hopper-v5.

    python -m tests.benchmarks.peers [FILE.json] [--limit SECONDS] [--every STEPS]
        [--arms ARM ...] [--venvs FOLDER]

K = 20, nets of 300x2, batch 256, one environment and one update per step, one thread for PyTorch;
``provided SAC`` and ``provided PPO`` have the settings of the provided configurations. Each arm is
a process of its own, and all take turns. SBX and QDax get virtual environments in FOLDER, which
see this one's packages; what cannot be installed is left out. QDax's DIAYN is for Brax: only its
update is timed, on transitions of the same sizes.

The time to distinct skills counts learning alone, as wall time and as processor time, which does
not count other programs. Every STEPS three episodes of each skill are played, with sampled
actions, and counted as ``evaluate_skills`` counts them. An arm ends at 15 skills, or when it has
learned for SECONDS of processor time; what it has not reached is nan.
"""

import json
import math
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import psutil
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_diayn import DIAYNCallback, DIAYNWrapper
from sb3_diayn.evaluation.held_out import classify_held_out
from sb3_diayn.evaluation.metrics import mutual_information
from sb3_diayn.zoo.hyperparams import config_path, get_arguments, read_entry
from tests.benchmarks.main_py import BATCH, WIDTH, MainPy
from tests.benchmarks.timing import command_line, ratio, report

ENV, K, LEVELS, N_EPISODES = "Hopper-v5", 20, (10, 15), 3
WARM_UP, STEPS, SLICES, MEMORY = 320, 80, 5, 20_000  # 40 environments divide the first two
PACKAGES = {"sbx": "sbx-rl", "qdax": "qdax"}
NETS = [WIDTH, WIDTH]
Act = Callable[[Any, Any], Any]


# -- arms: what a process of its own does ------------------------------------------------------


class SB3Arm:
    """An algorithm of SB3 or of SBX, with ``DIAYNCallback`` or without."""

    def __init__(
        self,
        package: str,
        callback: dict[str, Any] | None,
        n_envs: int = 1,
        skill: str = "balanced",
        algo: str = "SAC",
        **options: Any,
    ) -> None:
        env = make_vec_env(partial(self._make, skill), n_envs, seed=0)
        self.normalizer = VecNormalize(env, norm_reward=False) if algo == "PPO" else None
        cls = getattr(__import__("sbx" if package == "sbx" else "stable_baselines3"), algo)
        self.model = cls("MlpPolicy", self.normalizer or env, seed=0, device="cpu", **options)
        self.callback = None if callback is None else DIAYNCallback(**callback)

    @staticmethod
    def _make(skill: str) -> gym.Env[Any, Any]:
        return DIAYNWrapper(gym.make(ENV), n_skills=K, skill=skill)

    def learn(self, n_steps: int) -> None:
        self.model.learn(n_steps, callback=self.callback, reset_num_timesteps=False)

    def counts(self) -> tuple[int, int]:
        return self.model.num_timesteps, self.model._n_updates

    def bytes_per_transition(self) -> float:
        if not isinstance(self.model, OffPolicyAlgorithm):
            return math.nan  # it keeps none
        buffer = self.model.replay_buffer
        arrays = [value for value in vars(buffer).values() if isinstance(value, np.ndarray)]
        return sum(array.nbytes for array in arrays) / (buffer.buffer_size * buffer.n_envs)

    def act(self, obs: Any, skills: Any) -> Any:
        seen = np.concatenate([obs, np.eye(K)[skills]], axis=1).astype(np.float32)
        if self.normalizer is not None:
            seen = self.normalizer.normalize_obs(seen)
        return self.model.predict(seen, deterministic=False)[0]


class MainPyArm:
    """The widespread script's algorithm."""

    def __init__(self) -> None:
        self.learner = MainPy(gym.make(ENV), K, seed=0)
        self.learn, self.act = self.learner.learn, self.learner.act

    def counts(self) -> tuple[int, int]:
        return self.learner.n_steps, self.learner.n_updates

    def bytes_per_transition(self) -> float:
        """How much the process grows with transitions that are like the stored ones."""
        process, memory = psutil.Process(), self.learner.memory
        before, copies = process.memory_info().rss, []
        for index in range(MEMORY):
            transition = memory[index % len(memory)]
            copies.append(tuple(part.clone() for part in transition))
        return (process.memory_info().rss - before) / MEMORY


class QDaxArm:
    """The update of QDax's DIAYN, on random transitions."""

    act = None

    def __init__(self) -> None:
        import jax
        from qdax.baselines.diayn import DIAYN, DiaynConfig
        from qdax.core.neuroevolution.buffers.buffer import QDTransition, ReplayBuffer

        n_obs, n_actions, nets = 11, 3, tuple(NETS)  # of Hopper-v5
        config = DiaynConfig(
            batch_size=BATCH,
            episode_length=1000,
            discount=0.99,
            critic_hidden_layer_size=nets,
            policy_hidden_layer_size=nets,
            alpha_init=0.1,
            fix_alpha=True,
            num_skills=K,
            descriptor_full_state=True,
        )
        algorithm = DIAYN(config, n_actions)
        self.state = algorithm.init(jax.random.PRNGKey(0), n_actions, n_obs, n_obs)
        dummy = QDTransition.init_dummy(n_obs + K, n_actions, n_obs)
        keys = iter(jax.random.split(jax.random.PRNGKey(1), 20))
        random = jax.tree.map(
            lambda part: jax.random.normal(next(keys), (MEMORY, *part.shape[1:])), dummy
        )
        self.buffer = ReplayBuffer.init(MEMORY, dummy).insert(random)
        self.update, self.wait = jax.jit(algorithm.update), jax.block_until_ready
        self.n_updates = 0

    def learn(self, n_steps: int) -> None:
        for _ in range(n_steps):
            self.state, self.buffer, _ = self.update(self.state, self.buffer)
        self.wait(self.state)
        self.n_updates += n_steps

    def counts(self) -> tuple[int, int]:
        return 0, self.n_updates

    def bytes_per_transition(self) -> float:
        return self.buffer.data.nbytes / MEMORY


def provided(algo: str) -> SB3Arm:
    """:return: an arm with the provided configuration"""
    entry = read_entry(config_path(algo.lower()), ENV)
    # What is not the model's: the length of the training, and what is built here.
    others = ("n_timesteps", "policy", "env_wrapper", "callback", "normalize")
    options = {name: value for name, value in entry.items() if name not in others}
    if "policy_kwargs" in options:
        options["policy_kwargs"] = eval(options["policy_kwargs"])  # a string in a file of the zoo
    # It falls until the end of a training. An arm has no end that it knows.
    options["learning_rate"] = float(options["learning_rate"].removeprefix("lin_"))
    skill = get_arguments(entry, "DIAYNWrapper")["skill"]
    callback = get_arguments(entry, "DIAYNCallback")
    return SB3Arm("sb3", callback, skill=skill, algo=algo, **options)


PLAIN = {"learning_starts": BATCH, "ent_coef": 0.1, "policy_kwargs": {"net_arch": NETS}}
OURS = {"net_arch": NETS}
ARMS: dict[str, tuple[str, Callable[[], Any]]] = {
    "main.py": ("", MainPyArm),
    "SB3": ("", partial(SB3Arm, "sb3", None, **PLAIN)),
    "SB3 + ours": ("", partial(SB3Arm, "sb3", OURS, **PLAIN)),
    "provided SAC": ("", partial(provided, "SAC")),
    "provided PPO": ("", partial(provided, "PPO")),
    "SBX": ("sbx", partial(SB3Arm, "sbx", None, **PLAIN)),
    "SBX + ours": ("sbx", partial(SB3Arm, "sbx", OURS, **PLAIN)),
    "QDax": ("qdax", QDaxArm),
}
WITHOUT_SKILLS = ("SB3", "SBX", "QDax")


def count_distinct(act: Act) -> float:
    """Three new episodes of each skill, all at a time; :return: held-out distinct skills"""
    skills = np.repeat(np.arange(K), N_EPISODES)
    env = make_vec_env(ENV, len(skills), seed=10_000)
    states: list[list[Any]] = [[] for _ in skills]
    obs, playing = env.reset(), np.ones(len(skills), bool)
    while playing.any():
        obs, _, dones, infos = env.step(act(obs, skills))
        for i in np.flatnonzero(playing):
            states[i].append(infos[i]["terminal_observation"] if dones[i] else obs[i])
        playing &= ~dones
    env.close()
    episodes = [[np.array(states[i]) for i in np.flatnonzero(skills == z)] for z in range(K)]
    return math.exp(mutual_information(classify_held_out(episodes).log_q, K))


def serve(name: str) -> None:
    """Do what the lines of the standard input say, and answer each with a line of JSON."""
    answers, sys.stdout = sys.stdout, sys.stderr
    th.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # two of the models are meant to have no callback
    arm = ARMS[name][1]()
    for line in sys.stdin:
        command, *words = line.split()
        if command == "learn":
            before, start, cpu = arm.counts(), time.perf_counter(), time.process_time()
            arm.learn(int(words[0]))
            spent = time.perf_counter() - start, time.process_time() - cpu
            answer: Any = [*spent, *np.subtract(arm.counts(), before).tolist()]
        elif command == "bytes":
            answer = arm.bytes_per_transition()
        else:
            answer = count_distinct(arm.act)
        print(json.dumps(answer), file=answers, flush=True)


# -- the comparison ----------------------------------------------------------------------------


class Process:
    """An arm in a process of its own."""

    def __init__(self, name: str, python: Path | str) -> None:
        self.name = name
        words = [str(python), "-m", "tests.benchmarks.peers", "--serve", name]
        pipe = subprocess.PIPE
        self.child = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    def ask(self, line: str) -> Any:
        assert self.child.stdin is not None and self.child.stdout is not None
        print(line, file=self.child.stdin, flush=True)
        answer = self.child.stdout.readline()
        if not answer:
            raise ValueError(f"{self.name} has ended; its error is above")
        return json.loads(answer)

    def close(self) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()


def interpreter(package: str, folder: Path) -> Path | str | None:
    """A Python that has the package, installed where it is missing; None if that fails."""
    if not package:
        return sys.executable
    place = folder / package
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        (site,) = place.glob("lib/python*/site-packages")
        ours = [path for path in sys.path if path.endswith("site-packages")]
        (site / "base.pth").write_text("\n".join(ours), encoding="utf-8")
        subprocess.run([str(python), "-m", "pip", "install", "-q", PACKAGES[package]])
    find = f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)"
    return python if subprocess.run([str(python), "-c", find]).returncode == 0 else None


def measure_rates(arms: list[Process]) -> list[dict[str, Any]]:
    slices: dict[str, list[list[float]]] = {arm.name: [] for arm in arms}
    for arm in arms:
        while arm.ask(f"learn {WARM_UP}")[3] == 0:
            pass  # it only collects yet
    for _ in range(SLICES):
        for arm in arms:
            slices[arm.name].append(arm.ask(f"learn {STEPS}"))
    rows = []
    for arm in arms:
        each = np.array(slices[arm.name])
        wall, cpu, steps, updates = each.T
        row: dict[str, Any] = {"arm": arm.name}
        for what, counts in (("updates", updates), ("steps", steps)):
            has = counts.sum() > 0
            row[f"{what}/s"] = statistics.median(counts / wall) if has else math.nan
            row[f"{what}/s of processor"] = statistics.median(counts / cpu) if has else math.nan
        if "main.py" in slices:
            theirs = np.array(slices["main.py"])
            row |= ratio("updates / main.py's", updates / cpu, theirs[:, 3] / theirs[:, 1])
        rows.append(row | {"bytes per transition": arm.ask("bytes")})
    return rows


def measure_distinct(arms: list[Process], limit: float, every: int) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of learning until each level, of each arm that learns skills."""
    waiting = [arm for arm in arms if arm.name not in WITHOUT_SKILLS]
    spent = {arm.name: np.zeros(2) for arm in waiting}
    reached: dict[str, dict[str, float]] = {name: dict(UNKNOWN) for name in spent}
    while waiting:
        for arm in waiting:
            spent[arm.name] += arm.ask(f"learn {every}")[:2]
            found, (wall, cpu) = arm.ask("distinct"), spent[arm.name].tolist()
            for level in LEVELS:
                if found >= level and math.isnan(reached[arm.name][f"s to {level} skills"]):
                    reached[arm.name] |= _times(level, wall, cpu)
            print(f"{arm.name}: {found:.1f} skills after {wall:.0f} s ({cpu:.0f} s)", flush=True)
        waiting = [
            arm
            for arm in waiting
            if spent[arm.name][1] < limit and any(map(math.isnan, reached[arm.name].values()))
        ]
    return reached


def _times(level: int, wall: float, processor: float) -> dict[str, float]:
    return {f"s to {level} skills": wall, f"processor s to {level} skills": processor}


UNKNOWN = {name: math.nan for level in LEVELS for name in _times(level, 0, 0)}


def measure(names: list[str], venvs: Path, limit: float, every: int) -> list[dict[str, Any]]:
    arms = []
    for name in names:
        python = interpreter(ARMS[name][0], venvs)
        if python is None:
            print(f"{name} is left out: {ARMS[name][0]} cannot be installed", flush=True)
        else:
            arms.append(Process(name, python))
    try:
        rows = measure_rates(arms)
        times = measure_distinct(arms, limit, every) if limit else {}
    finally:
        for arm in arms:
            arm.close()
    return [row | times.get(row["arm"], UNKNOWN) for row in rows]


if __name__ == "__main__":
    parser = command_line()
    parser.add_argument("--limit", type=float, default=0.0, help="seconds of learning; 0: none")
    parser.add_argument("--every", type=int, default=2000, help="steps between counts of skills")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--venvs", type=Path, default=Path("build/peers"))
    parser.add_argument("--serve", choices=list(ARMS), help="be an arm")
    args, rest = parser.parse_known_args()
    if args.serve:
        serve(args.serve)
    else:
        sys.argv[1:] = rest
        report("peers", lambda: measure(args.arms, args.venvs, args.limit, args.every))
