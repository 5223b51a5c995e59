"""
Whether ``torch.compile`` makes an update of the discriminator cheaper on the processor.

    python -m tests.benchmarks.compiled

Nets of 256x2, K = 20, batch 256, Hopper-v5's observations, one thread. Next to ours
as it is and with its loss compiled (forward pass, backward pass and accuracy) there are the bare
torch calls of ``tests.benchmarks.overhead``. The arms take turns; processor time in microseconds
and ratios within a round. Compilation needs a C++ compiler.
"""

import statistics
import time
from functools import partial
from typing import Any

import gymnasium as gym
import torch as th

from sb3_diayn import Discriminator
from sb3_diayn.discriminator import Batch
from sb3_diayn.trainer import DiscriminatorTrainer
from tests.benchmarks.overhead import BareCalls
from tests.benchmarks.timing import ratio, report, turns

K, BATCH, UPDATES, ROUNDS = 20, 256, 30, 25


def measure(width: int) -> dict[str, Any]:
    batch = Batch(th.randn(BATCH, 11), th.randint(0, K, (BATCH,)))
    trainers = {name: make_trainer(width) for name in ("eager", "compiled")}
    discriminator: Any = trainers["compiled"].discriminator
    discriminator.loss = th.compile(discriminator.loss)
    start = time.perf_counter()
    trainers["compiled"].update(batch)
    compilation = time.perf_counter() - start

    def repeat(update: Any) -> None:
        for _ in range(UPDATES):
            update(batch)

    arms = {name: partial(repeat, trainer.update) for name, trainer in trainers.items()}
    arms["bare"] = BareCalls([width] * 2, K, UPDATES)._on_rollout_end
    seconds = turns(arms, ROUNDS, time.process_time)
    row = {"units of both layers": width, "compilation s": compilation}
    row |= {f"{name} us": statistics.median(s) / UPDATES * 1e6 for name, s in seconds.items()}
    for name in ("compiled", "bare"):
        row |= ratio(f"{name} / eager", seconds[name], seconds["eager"])
    return row


def make_trainer(width: int) -> DiscriminatorTrainer:
    space = gym.make("Hopper-v5").observation_space
    return DiscriminatorTrainer(Discriminator(space, K, net_arch=[width] * 2), 3e-4, 0)


if __name__ == "__main__":
    th.set_num_threads(1)
    report("compiled", lambda: [measure(256)])
