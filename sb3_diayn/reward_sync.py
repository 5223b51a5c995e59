"""How the wrappers of the environments get the reward of the present discriminator."""

import copy
import pickle
from dataclasses import replace

from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, is_vecenv_wrapped
from torch import nn
from torch.nn.utils import parametrize

from sb3_diayn.discriminator import Discriminator, FoldLinear
from sb3_diayn.rewards import SkillReward
from sb3_diayn.vec_env import VecDIAYNWrapper


def attach_wrappers(env: VecEnv, skill_reward: SkillReward) -> bool:
    """
    Share the discriminator with ``DIAYNWrapper`` of this process, send a copy to other processes.
    Of one on a GPU it is always a copy, on the CPU: each step would otherwise wait for the device.

    :param env: the training environment
    :param skill_reward: where the wrappers' rewards come from
    :return: whether the wrappers will see every change of the discriminator
    """
    discriminator = skill_reward.discriminator
    is_here = isinstance(env.unwrapped, DummyVecEnv) or is_vecenv_wrapped(env, VecDIAYNWrapper)
    shares = is_here and discriminator.log_p.device.type == "cpu"
    if not shares:
        skill_reward = replace(skill_reward, discriminator=_copy_to_send(discriminator))
    if is_here:
        env.env_method("set_skill_reward", skill_reward)
    else:
        env.env_method("load_skill_reward", pickle.dumps(skill_reward))
    return shares


def _copy_to_send(discriminator: Discriminator) -> Discriminator:
    """On the CPU, with spectral norms moved into the weights: torch pickles no parametrizations."""
    copied = copy.deepcopy(discriminator).cpu()
    for index, layer in enumerate(copied.net):
        # Not remove_parametrizations: the copy shares its class with the original.
        if parametrize.is_parametrized(layer):
            copied.net[index] = _plain_layer(layer)
    return copied


def _plain_layer(layer: nn.Module) -> nn.Module:
    """A linear layer, or one of both folds, with its spectral norm moved into the weights."""
    if isinstance(layer, FoldLinear):
        return FoldLinear(layer.weight.detach(), layer.bias.detach())
    assert isinstance(layer, nn.Linear)
    plain = nn.Linear(layer.in_features, layer.out_features)
    plain.load_state_dict({"weight": layer.weight, "bias": layer.bias})
    return plain
