"""The seam between a training and the one that goes on from it."""

from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule

from sb3_diayn.buffers import SkillReplayBuffer
from sb3_diayn.checkpoint import TRAINING, State
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.training_state import restore_training


class Seam:
    """
    What a model that brings a discriminator along needs in order to go on without a scar:

    - no second warm-up with random actions, and DQN's epsilon falls from where it was;
    - if it comes from a checkpoint, the random states and all the rest of that moment;
    - off-policy with an empty replay buffer, no updates until that holds enough of every skill. A
      discriminator that sees few skills learns to answer those whatever it reads: its loss falls
      towards 0, rewards soar, and all comes back only as the other skills return.

    :param model: about to learn
    :param saved: the state that the model brought along, None for a new discriminator
    :param previous: the seam of the ``learn`` before, with the same model and discriminator
    """

    def __init__(
        self, model: BaseAlgorithm, saved: State | None, previous: "Seam | None" = None
    ) -> None:
        self.model = model
        progress = {} if saved is None else saved.get("progress", {})
        known = progress.get("total_timesteps", 0)
        self._total: int = known if previous is None else previous._total
        self.steps_before: int = max(0, self._total - model.num_timesteps)
        self._training: State | None = None if saved is None else saved.get(TRAINING)
        goes_on = self._training is not None and self.steps_before == 0
        self.progress: State = progress if goes_on else {}
        self.holds: bool = previous is not None and previous.holds
        if isinstance(model, OffPolicyAlgorithm):
            assert model.replay_buffer is not None
            self.holds |= saved is not None and model.replay_buffer.size() == 0
            self._options: dict[str, Any] = {
                "learning_starts": model.learning_starts,
                "gradient_steps": model.gradient_steps,
            }
            model.learning_starts = max(0, model.learning_starts - self.steps_before)
            if self.steps_before:
                self._explore_on(model)

    def _explore_on(self, model: OffPolicyAlgorithm) -> None:
        """DQN's epsilon falls anew in each ``learn``: from where it was, then, not from 1."""
        known = vars(model)
        if "exploration_schedule" in known:
            self._options["exploration_schedule"] = known["exploration_schedule"]
            names = ("exploration_rate", "exploration_final_eps", "exploration_fraction")
            known["exploration_schedule"] = LinearSchedule(*(known[name] for name in names))

    @property
    def total_timesteps(self) -> int:
        """:return: environment steps of this training and of those that it goes on from"""
        return self.steps_before + self.model.num_timesteps

    def begin_rollout(self) -> None:
        """Put back the state of the checkpoint, once, and end a pause."""
        if self._training is not None:
            state, self._training = self._training, None
            restore_training(self.model, state)
        if isinstance(self.model, OffPolicyAlgorithm):
            self.model.gradient_steps = self._options["gradient_steps"]

    def end_rollout(self, discriminator: Discriminator, hold: int) -> None:
        """
        Before the model trains: let it make no update while its buffer has too few of a skill.

        :param discriminator: the model's
        :param hold: transitions of each skill to wait for; fewer of one that is drawn less often
        """
        self._total = self.total_timesteps  # a later ``learn`` resets the model's counter
        if self.holds:
            assert isinstance(self.model, OffPolicyAlgorithm)
            buffer = self.model.replay_buffer
            assert isinstance(buffer, SkillReplayBuffer)
            p = discriminator.log_p.exp().cpu().numpy()
            counts = np.bincount(buffer.skills[: buffer.size()].ravel(), minlength=len(p))
            enough = counts >= np.round(hold * np.minimum(1, len(p) * p))
            self.holds = not (buffer.full or enough.all())
            # Set for the moment: a model that is saved within a rollout has its own value.
            self.model.gradient_steps = 0 if self.holds else self._options["gradient_steps"]

    def end_training(self) -> None:
        """Leave the model's options as they were."""
        if isinstance(self.model, OffPolicyAlgorithm):
            vars(self.model).update(self._options)
