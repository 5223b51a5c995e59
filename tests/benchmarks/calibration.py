"""
What makes a discriminator know fresh episodes? Discriminators with different settings learn again
from the replay buffers of trained runs, and judge the same fresh episodes of their policies.

    python -m tests.benchmarks.calibration RUN... [-o FILE.json] [--updates N] [--episodes N]

A RUN is the folder of an off-policy run with ``--save-replay-buffer``. ``in the zip`` is the
discriminator that learned with the policy; all others learn for N updates, from a fixed replay
buffer. The command prints the accuracy on fresh states with sampled actions, the discriminator's
own bound as skills, the calibration error, and the accuracy on the replay buffer.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from scipy.optimize import minimize_scalar
from stable_baselines3.common.save_util import load_from_pkl
from torch.nn import functional as F

from sb3_diayn.discriminator import Batch, Discriminator, FoldRows
from sb3_diayn.evaluation.metrics import calibration_error, mutual_information, reliability
from sb3_diayn.evaluation.trajectories import play_skills
from sb3_diayn.observations import take_rows
from sb3_diayn.trainer import DiscriminatorTrainer
from sb3_diayn.zoo import find_run
from tests.benchmarks.timing import command_line

BATCH, LEARNING_RATE, LARGE = 256, 1e-3, 8192
NETS = {"net_arch": [128, 128], "cross_fit": True}
Numbers = dict[str, float]


class Smoothed(Discriminator):
    """With label smoothing (Szegedy et al., 2016, arXiv 1512.00567) of 0.1."""

    def fold_loss(self, batch: Batch, fold_rows: FoldRows) -> th.Tensor:
        logits, skills = self._read(batch, fold_rows)
        losses = F.cross_entropy(logits, skills, reduction="none", label_smoothing=0.1)
        return losses @ th.as_tensor(fold_rows.weights().ravel())


class Tempered:
    """
    A discriminator whose logits are divided by the temperature that fits the other fold best.

    :param discriminator: a cross-fitted one
    :param batch: transitions
    """

    def __init__(self, discriminator: Discriminator, batch: Batch) -> None:
        self.discriminator = discriminator
        with th.no_grad():
            logits, skills = discriminator._read(batch, FoldRows.of(batch.folds).swapped())
        loss = lambda t: F.cross_entropy(logits / np.exp(t), skills).item()  # noqa: E731
        self.temperature = float(np.exp(minimize_scalar(loss, bounds=(-3, 3)).x))

    def __call__(self, obs: th.Tensor) -> th.Tensor:
        return self.discriminator(obs) / self.temperature


class Study:
    """
    A trained policy, its replay buffer, and fresh episodes.

    :param folder: of the run
    :param n_updates: of each discriminator
    :param n_episodes: of each skill
    """

    def __init__(self, folder: str, n_updates: int, n_episodes: int) -> None:
        self.run, self.n_updates = find_run(folder), n_updates
        self.buffer = load_from_pkl(Path(self.run.folder, "replay_buffer.pkl"))
        skills = list(range(self.run.n_skills)) * n_episodes
        with self.run.open(self.run.n_skills, seed=1000, device="cpu") as (model, env):
            played = list(play_skills(model, env, skills, deterministic=False, seed=1000))
        self.fresh = th.as_tensor(np.concatenate([t.states for t in played]))
        self.skills = th.as_tensor(np.repeat([t.skill for t in played], [len(t) for t in played]))

    def sample(self, size: int, rng: np.random.Generator, newest: float = 1.0) -> Batch:
        """
        :param size: number of transitions
        :param rng: where the draws come from
        :param newest: which share of the buffer they come from
        :return: transitions
        """
        buffer, filled = self.buffer, self.buffer.size()
        rows = (buffer.pos - 1 - rng.integers(int(newest * filled), size=size)) % filled
        where = buffer._where(rows, rng.integers(buffer.n_envs, size=size))
        return buffer._transitions(where, take_rows(buffer.next_observations, where))

    def train(
        self, discriminator: Discriminator, newest: float = 1.0, **options: Any
    ) -> Discriminator:
        """
        :param discriminator: untrained
        :param newest: see :meth:`sample`
        :param options: of its trainer
        :return: it, trained
        """
        trainer = DiscriminatorTrainer(discriminator, LEARNING_RATE, seed=0, **options)
        for _ in range(self.n_updates):
            batch = self.sample(BATCH, trainer.rng, newest)
            trainer.update(batch if discriminator.cross_fit else Batch(*batch[:2]))
        return discriminator

    def make(self, cls: type[Discriminator] = Discriminator, **options: Any) -> Discriminator:
        """
        :param cls: what to make
        :param options: that differ from the provided ones
        :return: an untrained discriminator
        """
        th.manual_seed(0)
        saved = self.run.load_discriminator()
        return cls(saved.observation_space, saved.n_skills, **NETS | options)

    def judge(self, discriminator: Callable[[th.Tensor], th.Tensor]) -> Numbers:
        """
        :param discriminator: maps states to logits
        :return: what it knows
        """
        replayed = self.sample(LARGE, np.random.default_rng(1))
        with th.no_grad():
            log_q = th.log_softmax(discriminator(self.fresh), dim=1)
            known = discriminator(replayed.next_obs).argmax(dim=1) == replayed.skills
        confidence, guess = log_q.double().exp().max(dim=1)
        hits = (guess == self.skills).numpy()
        of_skill = log_q.gather(1, self.skills[:, None]).squeeze(1).double().numpy()
        skills = self.skills.numpy()
        means = np.array([of_skill[skills == z].mean() for z in range(self.run.n_skills)])
        accuracy = np.mean([hits[skills == z].mean() for z in range(self.run.n_skills)])
        return {
            "accuracy": float(accuracy),
            "bound": float(np.exp(mutual_information(means, self.run.n_skills))),
            "lowest log q": float(means.min()),
            "calibration error": calibration_error(reliability(confidence.numpy(), hits)),
            "replayed": known.double().mean().item(),
        }

    def arms(self) -> dict[str, Numbers]:
        """:return: what each setting leads to"""
        base = self.train(self.make())
        batch = self.sample(LARGE, np.random.default_rng(2))
        smooth = {"spectral_norm": True, "normalize_obs": True}
        found = {
            "in the zip": self.run.load_discriminator(),
            "cross-fitted, 128x2": base,
            "temperature": Tempered(base, batch),
            "label smoothing 0.1": self.train(self.make(Smoothed)),
            "weight decay 0.1": self.train(self.make(), weight_decay=0.1),
            "weight decay 1": self.train(self.make(), weight_decay=1.0),
            "spectral_norm, normalize_obs": self.train(self.make(**smooth)),
            "normalize_obs": self.train(self.make(normalize_obs=True)),
            "32x2": self.train(self.make(net_arch=[32, 32])),
            "512x2": self.train(self.make(net_arch=[512, 512])),
            "newest third": self.train(self.make(), newest=1 / 3),
            "newest tenth": self.train(self.make(), newest=1 / 10),
            "one discriminator": self.train(self.make(cross_fit=False)),
        }
        return {name: self.judge(discriminator) for name, discriminator in found.items()}


def main() -> None:
    """Measure all runs, print a table, write a JSON."""
    parser = command_line()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("-o", "--output", default="benchmark_calibration.json")
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--episodes", type=int, default=3)
    args = parser.parse_args()
    found = [Study(run, args.updates, args.episodes).arms() for run in args.runs]
    for arm, numbers in found[0].items():
        of_runs = (", ".join(f"{run[arm][name]:.3g}" for run in found) for name in numbers)
        print(f"{arm:30s}" + "".join(f"{text:>28}" for text in of_runs))
    print(f"{'':30s}" + "".join(f"{name:>28}" for name in next(iter(found[0].values()))))
    Path(args.output).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
