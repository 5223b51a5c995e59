"""The first steps of a model that already acts well."""

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm


class WarmUp(BaseCallback):
    """
    Lets an off-policy model spend its first ``learning_starts`` steps with its own policy instead
    of random actions, and learn from them only afterwards. So the replay buffer holds what the
    policy can do before an update makes it forget; for critics that start afresh that is all that
    they know of the task. DQN's epsilon is left as it is. On-policy models need none of it.
    """

    def _on_training_start(self) -> None:
        self._postponed: tuple[int, int] | None = None
        model = self.model
        if isinstance(model, OffPolicyAlgorithm):
            self._postponed = model.learning_starts, model.gradient_steps
            model.learning_starts = model.gradient_steps = 0

    def _on_step(self) -> bool:
        if self._postponed is not None and self.num_timesteps >= self._postponed[0]:
            self._on_training_end()
        return True

    def _on_training_end(self) -> None:
        if self._postponed is not None:
            assert isinstance(self.model, OffPolicyAlgorithm)
            self.model.learning_starts, self.model.gradient_steps = self._postponed
            self._postponed = None
