"""A discriminator, what trains it and the reward that is made of it, from the options."""

from typing import Any

import torch as th
from gymnasium import spaces

from sb3_diayn.arguments import arguments_for
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.representation import objective_class
from sb3_diayn.rewards import SkillReward
from sb3_diayn.trainer import DiscriminatorTrainer
from sb3_diayn.user_code import NO_CODE, UserCode


def build(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    n_skills: int,
    options: dict[str, Any],
    seed: int | None,
    device: th.device,
    code: UserCode = NO_CODE,
) -> tuple[Discriminator, DiscriminatorTrainer, SkillReward]:
    """
    :param observation_space: of the environment, without the skill
    :param action_space: of the environment
    :param n_skills: the number of skills, K
    :param options: of ``DIAYNCallback``
    :param seed: of the draws of batches; None for a random one
    :param device: where the discriminator is
    :param code: what the discriminator reads through
    :return: a new discriminator, its trainer, and the reward that is made of it
    """
    space = action_space if options["use_actions"] else None
    kind = objective_class(options)
    own = arguments_for(kind, options) | code._asdict()
    discriminator = kind(observation_space, n_skills, action_space=space, **own).to(device)
    trainer = DiscriminatorTrainer(
        discriminator, seed=seed, **arguments_for(DiscriminatorTrainer, options)
    )
    skill_reward = SkillReward(
        discriminator,
        options["reward_scale"],
        options["skill_reward_weight"],
        options["task_reward_weight"],
        options["min_task_return"],
        options["absorbing"],
        options["step_cost"],
    )
    return discriminator, trainer, skill_reward
