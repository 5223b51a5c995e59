"""Learning a task from a skill: which skill to start from, and how to warm up."""

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import Trajectory
from sb3_diayn.lent_options import LENT, lend, take_back

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
    Rank skills by their mean return, to fine-tune the best one (section 4.2.1 of Eysenbach et al.,
    2019).
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import numpy as np
        >>> from sb3_diayn import rank_skills
        >>> from sb3_diayn.evaluation import Trajectory
        >>> states, actions = np.zeros((2, 3)), np.zeros((2, 1))
        >>> trajectories = [
        ...     Trajectory(0, states, actions, task_rewards=np.array([1.0, 1.0])),
        ...     Trajectory(1, states, actions, task_rewards=np.array([2.0, 3.0])),
        ... ]
        >>> rank_skills(trajectories)
        [(1, 5.0), (0, 2.0)]

    :param episodes: an evaluation, which is ranked by the environment's own reward, or
        trajectories from :func:`~sb3_diayn.evaluation.trajectories.play_skills`
    :param reward_function: gets a trajectory and returns its rewards, shape ``(T,)``, or their sum
    :return: each skill with its mean return, best first
    :raises ValueError: if there are no trajectories, a return is not finite, or a reward function
        comes with an evaluation, which has no states
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
            f"returns={returns} rank no skills; expected at least one skill, and finite returns. "
            "Check the trajectories and the reward function."
        )
    ranked = sorted(returns.items(), key=lambda item: -item[1])
    return [(skill, float(value)) for skill, value in ranked]


def best_skill(
    episodes: SkillEvaluation | Iterable[Trajectory],
    reward_function: RewardFunction = task_reward,
) -> int:
    """
    Choose the skill that is best at a task, for example to fine-tune it.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, best_skill, evaluate_skills
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64).learn(64, callback=DIAYNCallback())
        >>> best_skill(evaluate_skills(model, env, n_episodes=1)) in range(3)
        True

    :param episodes: see :func:`rank_skills`
    :param reward_function: see :func:`rank_skills`
    :return: the skill with the largest mean return; of several, the first
    :raises ValueError: see :func:`rank_skills`
    """
    return rank_skills(episodes, reward_function)[0][0]


class WarmUp(BaseCallback):
    """
    For the ``learn`` of an exported skill: an off-policy model acts with its own policy in its
    first ``learning_starts`` steps, not at random, and does not learn in them. So the replay
    buffer holds what the policy can do before the first update changes it, and reset critics
    learn from it. DQN's epsilon stays as it is. On-policy models are left alone.

    Example::

        >>> from stable_baselines3 import SAC
        >>> from sb3_diayn import WarmUp
        >>> model = SAC("MlpPolicy", "Pendulum-v1", learning_starts=50)  # or an exported skill
        >>> model = model.learn(60, callback=WarmUp())
        >>> model._n_updates
        10
    """

    def _on_training_start(self) -> None:
        self._last_step: int | None = None
        model = self.model
        if isinstance(model, OffPolicyAlgorithm):
            take_back(model)  # from a ``learn`` that has failed
            self._last_step = model.learning_starts
            for name in LENT:
                lend(model, name, 0)

    def _on_step(self) -> bool:
        if self._last_step is not None and self.num_timesteps >= self._last_step:
            self._on_training_end()
        return True

    def _on_training_end(self) -> None:
        if self._last_step is not None:
            assert isinstance(self.model, OffPolicyAlgorithm)
            take_back(self.model)
            self._last_step = None
