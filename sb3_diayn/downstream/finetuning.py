"""Learning a task from a skill: which one to start from, and how to warm up."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import Trajectory

RewardFunction = Callable[[Trajectory], npt.ArrayLike]


def task_reward(trajectory: Trajectory) -> npt.ArrayLike:
    """
    :param trajectory: an episode
    :return: the environment's own rewards, shape ``(T,)``
    """
    return trajectory.task_rewards


def rank_skills(
    episodes: SkillEvaluation | Iterable[Trajectory],
    reward_function: RewardFunction = task_reward,
) -> list[tuple[int, float]]:
    """
    :param episodes: an evaluation, ranked by the environment's own reward, or trajectories, as
        :func:`~sb3_diayn.evaluation.trajectories.play_skills` makes them
    :param reward_function: what to judge trajectories by: it gets one and returns its rewards,
        shape ``(T,)``, or their sum
    :return: each skill with its mean return, best first
    :raises ValueError: if there are no trajectories, a return is not finite, or an evaluation,
        which has no states, comes with a reward function
    """
    if isinstance(episodes, SkillEvaluation):
        if reward_function is not task_reward:
            raise ValueError(
                f"reward_function={reward_function!r} cannot judge an evaluation, which keeps no "
                "states; expected trajectories. Pass play_skills(model, env, skills) instead."
            )
        returns = dict(enumerate(episodes.task_returns.mean(axis=1)))
    else:
        found: dict[int, list[float]] = {}
        for trajectory in episodes:
            found.setdefault(trajectory.skill, []).append(np.sum(reward_function(trajectory)))
        returns = {skill: np.mean(each) for skill, each in sorted(found.items())}
    if not returns or not np.isfinite(list(returns.values())).all():
        raise ValueError(
            f"returns={returns} rank no skills; expected a finite one for at least one skill. "
            "Play the skills, and look at the reward function."
        )
    ranked = sorted(returns.items(), key=lambda item: -item[1])
    return [(skill, float(value)) for skill, value in ranked]


def best_skill(
    episodes: SkillEvaluation | Iterable[Trajectory],
    reward_function: RewardFunction = task_reward,
) -> int:
    """
    :param episodes: see :func:`rank_skills`
    :param reward_function: see :func:`rank_skills`
    :return: the skill with the largest mean return; the first of several
    :raises ValueError: see :func:`rank_skills`
    """
    return rank_skills(episodes, reward_function)[0][0]


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
