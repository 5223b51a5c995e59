"""Trainings in Weights & Biases, as the zoo's ``--track``. They need the extra ``track``."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sb3_diayn import __version__
from sb3_diayn.files import brief, require_extra
from sb3_diayn.zoo.console import flatten
from sb3_diayn.zoo.finding import find_run
from sb3_diayn.zoo.settings import TrainingOptions, complete, seeded

TENSORBOARD_FOLDER = "runs"  # as the zoo has it


@contextmanager
def tracking(
    settings: Mapping[str, Any],
    *,
    resume: str | Path | None = None,
    project: str = "sb3",
    entity: str | None = None,
    group: str | None = None,
    tags: Sequence[str] = (),
) -> Iterator[dict[str, Any]]:
    """
    Open a run of Weights & Biases, which takes up what is logged for TensorBoard until the end of
    the block::

        with tracking({"env": "Pendulum-v1", "n_skills": 5}) as settings:
            folder = train(**settings)

    :param settings: fields of :class:`~sb3_diayn.zoo.settings.TrainingOptions`
    :param resume: the run that the training continues
    :param project: of Weights & Biases
    :param entity: user or team there; None for the user's default
    :param group: of runs there; None for none
    :param tags: of the run, to which the version of this package is added
    :return: the same settings, with a seed and a folder for TensorBoard
    :raises ImportError: if the extra ``track`` is missing
    :raises ValueError: if a setting is wrong, nobody is logged in, or Weights & Biases does not
        answer
    """
    with require_extra("track"):
        import tensorboard  # noqa: F401
        import wandb
    resumed = None if resume is None else find_run(resume)
    options, hyperparams = complete(TrainingOptions(**settings), resumed)
    options = seeded(options)
    chosen = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    name = f"{options.env}__{options.algo}__{options.seed}__{int(time.time())}".replace("/", "-")
    try:
        run = wandb.init(
            name=name,
            project=project,
            entity=entity,
            group=group,
            tags=[*tags, f"sb3-diayn-v{__version__}"],
            config=chosen | {"hyperparams": flatten(hyperparams)},
            sync_tensorboard=True,
        )
    except (wandb.Error, OSError) as error:
        raise ValueError(
            f"track=True cannot open a run of Weights & Biases ({brief(error)}); expected somebody "
            "who is logged in. Use wandb login, or set WANDB_MODE=offline."
        ) from error
    exit_code = 1
    try:
        folder = options.tensorboard_log or str(Path(TENSORBOARD_FOLDER, name))
        yield {**settings, "seed": options.seed, "tensorboard_log": folder}
        exit_code = 0
    finally:
        run.finish(exit_code=exit_code)
