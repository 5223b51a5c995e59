"""Checkpoints in the course of a training."""

import warnings
from pathlib import Path

from stable_baselines3.common.callbacks import BaseCallback

from sb3_diayn.checkpoint import STATE_ATTRIBUTE
from sb3_diayn.folders import (
    AUTO_FOLDER,
    drop_old_checkpoints,
    list_checkpoints,
    run_folder,
    save_checkpoint,
)
from sb3_diayn.options import check_positive
from sb3_diayn.saving import check_writable


class DIAYNCheckpointCallback(BaseCallback):
    """
    Saves, each ``save_freq`` environment steps and at the end, all that a training needs to go on
    as if it had never stopped: see :func:`sb3_diayn.resume`. To be passed beside
    ``DIAYNCallback``. It does not disturb the training: with the same seed the parameters are
    bit-equal with and without it.

    A checkpoint is a folder that appears when it is complete. A process that is killed while
    saving leaves the older ones as they are; if the disk is full, the training goes on with a
    warning, and the next checkpoint tries again.

    .. warning::
        Unlike SB3's ``CheckpointCallback``, which counts calls, this one counts environment steps:
        do not divide ``save_freq`` by the number of environments.

    :param save_path: folder of the checkpoints of this training, and of no other; ``"auto"`` for
        the folder ``checkpoints`` within the one where an ``EvalCallback`` or
        ``CheckpointCallback`` of the same training saves, which in the zoo is the run's
    :param save_freq: environment steps between two checkpoints; each is made between two rollouts,
        the first time after so many steps
    :param save_replay_buffer: save the replay buffer too. Without it, going on begins with an empty
        one
    :param keep: how many of the newest checkpoints to keep; None for all
    :param verbose: 1 to print each checkpoint's folder, 0 for silence
    :raises ValueError: if a number is not positive; in ``learn`` if there is no discriminator to
        save, ``"auto"`` finds no folder or the folder holds later checkpoints, of another training
    :raises OSError: in ``learn``, before it begins, if the folder cannot be written
    """

    def __init__(
        self,
        save_path: str | Path,
        *,
        save_freq: int = 10_000,
        save_replay_buffer: bool = True,
        keep: int | None = 2,
        verbose: int = 0,
    ) -> None:
        super().__init__(verbose)
        self.save_path = Path(save_path)
        self.save_freq = check_positive("save_freq", save_freq)
        self.keep = None if keep is None else check_positive("keep", keep)
        self.save_replay_buffer = save_replay_buffer

    def _on_training_start(self) -> None:
        if getattr(self.model, STATE_ATTRIBUTE, None) is None:
            raise ValueError(
                f"model={type(self.model).__name__} has no discriminator to save; expected "
                "DIAYNCallback in the same learn(). Pass callback=[DIAYNCallback(), "
                "DIAYNCheckpointCallback(...)]."
            )
        if str(self.save_path) == "auto":
            self.save_path = run_folder(self.locals["callback"]) / AUTO_FOLDER
        check_writable(self.save_path)
        later = [steps for steps in list_checkpoints(self.save_path) if steps > self.num_timesteps]
        if later:
            raise ValueError(
                f"save_path={str(self.save_path)!r} holds a checkpoint of {later[-1]} steps, and "
                f"this training is at {self.num_timesteps}; expected a folder of its own. Go on "
                "from that checkpoint with resume(), or choose another folder."
            )
        self._periods = self.num_timesteps // self.save_freq

    def _on_rollout_start(self) -> None:
        periods = self.num_timesteps // self.save_freq
        if periods > self._periods:
            self._periods = periods
            self._save()

    def _on_step(self) -> bool:
        return True

    def _on_training_end(self) -> None:
        self._save()

    def _save(self) -> None:
        try:
            path = save_checkpoint(
                self.model, self.save_path, save_replay_buffer=self.save_replay_buffer
            )
            if self.keep is not None:
                drop_old_checkpoints(self.save_path, self.keep)
        except OSError as error:
            # The model is still in the memory, and worth more than this checkpoint.
            warnings.warn(
                f"The checkpoint at {self.num_timesteps} steps could not be written ({error}). "
                "Older checkpoints are whole. Make room: the next one tries again.",
                stacklevel=2,
            )
            return
        if self.verbose:
            print(f"Checkpoint saved in {path}")
