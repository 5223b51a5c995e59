"""
The discriminator's loss across the seam of a resumed training, and what becomes of the skills.

    python -m tests.benchmarks.seam [FOLDER]

SAC learns 5 skills of Pendulum-v1 for 8,000 steps and is saved. From there it resumes in five ways:
exactly, with the saved replay buffer; without it, making no updates until the new buffer holds
256 transitions of each skill (the default), or 1024; likewise, but with the policy learning all
the while; and unguarded. Every 100 steps the loss that the log shows is written down, and the loss
on what the old buffer holds, which is what the discriminator still knows. FOLDER gets the figure
and a JSON.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_diayn import DIAYNCallback, DIAYNWrapper, SkillReplayBuffer, evaluate_skills
from sb3_diayn.checkpoints import BUFFER_FILE, DIAYNCheckpointCallback, newest_checkpoint, resume
from tests.benchmarks.timing import command_line

ENV, K, STEPS, SEEDS, EVERY = "Pendulum-v1", 5, 8_000, 3, 100
LABELS = {
    "exact": "with the replay buffer",
    "guarded": "without it, waiting (default)",
    "guarded longer": "without it, waiting for 1024",
    "policy only": "without it, only D waits",
    "unguarded": "without it, not waiting",
}
SHOWN = ("exact", "guarded", "unguarded")


class DiscriminatorWaits(DIAYNCallback):
    """The alternative that was tried: the policy learns on while the discriminator waits."""

    def _on_rollout_end(self) -> None:
        seam, gradient_steps = self._continuation, self.model.gradient_steps
        seam.end_rollout(self.discriminator, self.options["hold"])
        self.model.gradient_steps = gradient_steps
        if not seam.holds:
            super()._on_rollout_end()


class Recorder(BaseCallback):
    """
    Writes down steps, the loss of the log and the loss on old transitions.

    :param callback: whose discriminator to look at
    :param old: what the buffer held at the seam, None before it
    """

    def __init__(self, callback: DIAYNCallback, old: Any = None) -> None:
        super().__init__()
        self.callback, self.old = callback, old
        self.rows: list[list[float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps % EVERY == 0:
            shown = self.callback.trainer.metrics().get("discriminator_loss", np.nan)
            held = np.nan
            if self.old is not None:
                with th.no_grad():
                    held = -self.callback.discriminator.log_prob(*self.old).mean().item()
            self.rows.append([self.num_timesteps, shown, held])
        return True


def make_env(seed: int, n_envs: int = 1) -> VecEnv:
    kwargs = {"n_skills": K, "skill": "balanced"}
    return make_vec_env(ENV, n_envs, seed=seed, wrapper_class=DIAYNWrapper, wrapper_kwargs=kwargs)


def begin(seed: int, folder: str) -> list[list[float]]:
    """Learn until the seam and leave a checkpoint there."""
    model = SAC(
        "MlpPolicy",
        make_env(seed),
        seed=seed,
        ent_coef=0.1,
        learning_starts=1000,
        train_freq=2,
        gradient_steps=1,
        batch_size=128,
        policy_kwargs={"net_arch": [64, 64]},
        buffer_size=2 * STEPS,
        device="cpu",
    )
    callback = DIAYNCallback(net_arch=[64, 64])
    recorder = Recorder(callback)
    checkpoints = DIAYNCheckpointCallback(folder, save_freq=STEPS)
    model.learn(STEPS, callback=[callback, recorder, checkpoints])
    return recorder.rows


def go_on(
    way: str, checkpoint: Path, seed: int, make_callback: Callable[[], DIAYNCallback]
) -> dict[str, Any]:
    """Go on from the seam for as long again."""
    model = resume(checkpoint, make_env(seed), device="cpu")
    buffer = model.replay_buffer
    assert isinstance(buffer, SkillReplayBuffer)
    old = buffer.sample_transitions(2000, np.random.default_rng(0))[:2]
    if way != "exact":
        buffer.reset()
    callback = make_callback()
    recorder = Recorder(callback, old)
    model.learn(STEPS, callback=[callback, recorder], reset_num_timesteps=False)
    evaluation = evaluate_skills(model, make_env(seed + 100, 10), n_episodes=3, deterministic=True)
    return {"rows": recorder.rows, "mutual_information": evaluation.discriminator_bound}


WAYS: dict[str, Callable[[], DIAYNCallback]] = {
    "exact": DIAYNCallback,
    "guarded": DIAYNCallback,
    "guarded longer": lambda: DIAYNCallback(hold=1024),
    "policy only": DiscriminatorWaits,
    "unguarded": lambda: DIAYNCallback(hold=0),
}


def draw(runs: list[dict[str, Any]], file: Path) -> None:
    """One panel for the loss of the log, one for the loss on old transitions; a line each seed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for index, run in enumerate(runs):
        before = np.array(run["before"])
        axes[0].plot(before[:, 0], before[:, 1], color="black", lw=0.8)
        for way, color in zip(SHOWN, ("tab:green", "tab:blue", "tab:red"), strict=True):
            rows = np.array(run[way]["rows"])
            label = None if index else LABELS[way]
            for column, axis in enumerate(axes, 1):
                axis.plot(rows[:, 0], rows[:, column], color=color, lw=0.8, label=label)
    titles = ("on the batches it learns from (the log)", "on what the old buffer holds")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="environment steps", ylim=(0, None))
        axis.locator_params(axis="x", nbins=5)
        axis.axvline(STEPS, color="gray", lw=0.8, ls=":")
    axes[0].set_ylabel("loss of the discriminator [nats]")
    axes[1].legend(fontsize=8)
    figure.savefig(file, dpi=90)


def table(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the seam costs, by seed."""
    result = []
    for way in WAYS:
        rows = [np.array(run[way]["rows"]) for run in runs]
        result.append(
            {
                "way": LABELS[way],
                "lowest loss in the log": [round(np.nanmin(r[:, 1]), 2) for r in rows],
                "highest loss on old": [round(r[:, 2].max(), 2) for r in rows],
                "final loss in the log": [round(r[-1, 1], 2) for r in rows],
                "final MI": [round(run[way]["mutual_information"], 2) for run in runs],
            }
        )
    return result


def main() -> None:
    parser = command_line()
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="default: this one")
    target: Path = parser.parse_args().folder
    th.set_num_threads(1)
    target.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory() as folder:
            run: dict[str, Any] = {"before": begin(seed, folder)}
            checkpoint = newest_checkpoint(folder)
            assert (checkpoint / BUFFER_FILE).is_file()
            for way, make_callback in WAYS.items():
                run[way] = go_on(way, checkpoint, seed, make_callback)
        runs.append(run)
        (target / "seam.json").write_text(json.dumps(runs))
        draw(runs, target / "resume_seam.png")
        for row in table(runs):
            print(row, flush=True)


if __name__ == "__main__":
    main()
