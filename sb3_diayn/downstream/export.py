"""
Exports one skill as a plain SB3 model, which needs neither this package nor a skill to be given.

The one-hot of a single skill is constant. So it can be folded into the biases of the layers that
read it: the smaller network computes the same from the observation alone.
"""

import io
import pickle
from collections import OrderedDict
from contextlib import closing, suppress
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from sb3_contrib.common.torch_layers import BatchRenorm
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import GymEnv
from stable_baselines3.common.vec_env import VecEnv, VecNormalize
from torch import nn

from sb3_diayn.checks import find_bad_parameter
from sb3_diayn.evaluation.playing import check_vec_normalize
from sb3_diayn.model_zip import STATE_ATTRIBUTE, skill_state
from sb3_diayn.observations import describe_space
from sb3_diayn.skills import SKILL_KEY, SkillSpace, check_skill

Parameters = dict[str, th.Tensor]

# Attributes that belong to the training with skills. Optimisers are not exported either: their
# moments are averages of gradients of another objective, over all skills.
NOT_EXPORTED = (
    STATE_ATTRIBUTE,
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "ep_info_buffer",
    "ep_success_buffer",
)

# Prefixes of the parameters that belong to value functions.
CRITIC_PREFIXES = (
    "critic.",
    "critic_target.",
    "mlp_extractor.value_net.",
    "value_net.",
    "lstm_critic.",
)


def export_skill(
    model: BaseAlgorithm,
    skill: int,
    *,
    env: GymEnv | None = None,
    vec_normalize: VecNormalize | None = None,
    reset_critics: bool = False,
) -> BaseAlgorithm:
    """
    Make a plain SB3 model of one skill. It reads the environment's own observation. Its actions
    and the values of its critics equal, up to float rounding, what ``model`` gives for that skill.
    The one-hot has become a part of the biases of the first layers. Hyperparameters stay,
    optimisers start afresh. The saved model loads and learns where this package is not installed.
    Paper: https://arxiv.org/abs/1802.06070

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, export_skill
        >>> env = DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)
        >>> model = PPO("MlpPolicy", env, n_steps=64).learn(64, callback=DIAYNCallback())
        >>> exported = export_skill(model, 3, env=gym.make("Pendulum-v1"))
        >>> exported.observation_space.shape, model.observation_space.shape
        ((3,), (7,))
        >>> exported.save("skill_3")
        >>> exported = exported.learn(64)  # on the task, from the skill

    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip
    :param skill: index of the skill
    :param env: environment without skills to continue learning in, vectorised or not; the model
        gets its observation space. None for a model without an environment: it gets the
        observation space of the registered environment if the two agree, else float32
    :param vec_normalize: the ``VecNormalize`` that ``model`` was trained with; None for the one
        of its environment. The exported model expects the result of :func:`export_vec_normalize`
    :param reset_critics: initialise the critics, instead of exporting the critics of the skill
    :return: the exported model
    :raises ValueError: if the model has no discriminator, a parameter is not finite, there is no
        such skill, ``env`` does not fit, the model was trained under ``VecNormalize`` and there is
        none, or the one-hot cannot be folded into the policy
    """
    state = skill_state(model)
    skill = check_skill(skill, state["n_skills"])
    space = foldable_space(model)
    _check_finite(model)
    venv = None if env is None else type(model)._wrap_env(env, verbose=0)
    vec_normalize = vec_normalize or model.get_vec_normalize_env()
    check_vec_normalize(model, vec_normalize)
    features = _skill_features(model, space, vec_normalize)
    exported = _rebuild(model, _task_space(state, space, venv), venv)
    columns = _skill_columns(features, exported.policy)
    constant = features[skill, columns].double()
    parameters = fold_inputs(model.policy, exported.policy, columns, constant)
    if reset_critics:
        parameters = _without_critics(parameters, type(model).__name__)
    exported.policy.load_state_dict(parameters, strict=not reset_critics)
    if exported.use_sde:
        exported.policy.reset_noise()  # type: ignore[operator]
    if venv is not None:
        exported.set_env(venv)
    return exported


def export_vec_normalize(vec_normalize: VecNormalize, venv: VecEnv) -> VecNormalize:
    """
    Carry the statistics of ``VecNormalize`` over to environments without skills.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
        >>> from sb3_diayn import DIAYNWrapper, export_vec_normalize
        >>> skills = DummyVecEnv([lambda: DIAYNWrapper(gym.make("Pendulum-v1"), n_skills=4)])
        >>> trained = VecNormalize(skills, norm_reward=False)
        >>> plain = DummyVecEnv([lambda: gym.make("Pendulum-v1")])
        >>> trained.obs_rms.mean.shape, export_vec_normalize(trained, plain).obs_rms.mean.shape
        ((7,), (3,))

    :param vec_normalize: what the skills were trained with
    :param venv: environments without skills, to be normalised
    :return: the same statistics without the one-hot, around ``venv``: what models of
        :func:`export_skill` expect
    :raises ValueError: if the two observation spaces differ by more than the skill
    """
    augmented = vec_normalize.observation_space
    space = SkillSpace.from_augmented(augmented, _one_hot_size(augmented, venv.observation_space))
    _check_fits(venv.observation_space, space)
    exported: VecNormalize = pickle.loads(pickle.dumps(vec_normalize))
    exported.observation_space = venv.observation_space
    rms: Any = exported.obs_rms if exported.norm_obs else None
    if isinstance(rms, dict):
        rms.pop(SKILL_KEY, None)
        exported.norm_obs_keys = list(rms)
        exported.obs_spaces = venv.observation_space.spaces  # type: ignore[attr-defined]
    elif rms is not None:
        rms.mean, rms.var = rms.mean[: -space.n_skills], rms.var[: -space.n_skills]
    exported.set_venv(venv)
    return exported


def _one_hot_size(augmented: spaces.Space[Any], env_space: spaces.Space[Any]) -> int:
    if isinstance(augmented, spaces.Dict):
        return sum(augmented[SKILL_KEY].shape or ()) if SKILL_KEY in augmented.spaces else 0
    return int(np.prod(augmented.shape or 0) - np.prod(env_space.shape or 0))


def _task_space(state: dict[str, Any], space: SkillSpace, venv: VecEnv | None) -> spaces.Space[Any]:
    """With the environment's own dtype, which SB3 compares too when a model gets an environment."""
    if venv is not None:
        return _check_fits(venv.observation_space, space)
    if state["env_id"] not in gym.registry:
        return space.env_space
    try:
        with closing(gym.make(state["env_id"])) as env:
            return _check_fits(env.observation_space, space)
    except (gym.error.Error, ImportError, TypeError, ValueError):
        return space.env_space  # another version of the environment, or one that needs arguments


def _check_fits(env_space: spaces.Space[Any], space: SkillSpace) -> spaces.Space[Any]:
    """The same space, of whatever dtype, with the keys of a ``Dict`` in the order of training."""
    try:
        fits = SkillSpace(env_space, space.n_skills).env_space == space.env_space
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"env has the observation space {env_space}; expected {space.env_space}, of any dtype. "
            "Pass the environment that the skills were learned in, without DIAYNWrapper."
        )
    if isinstance(env_space, spaces.Dict):  # extractors concatenate in the order of the keys
        assert isinstance(space.env_space, spaces.Dict)
        return spaces.Dict(OrderedDict((key, env_space[key]) for key in space.env_space))
    return env_space


def foldable_space(model: BaseAlgorithm) -> SkillSpace:
    """
    :param model: a model trained with ``DIAYNCallback``
    :return: its observation space, whose one-hot :func:`export_skill` can fold into the policy
    :raises ValueError: if it cannot
    """
    state = skill_state(model)
    with suppress(ValueError):  # stacked frames have a one-hot each
        space = SkillSpace.from_augmented(model.observation_space, state["n_skills"])
        is_plain = space.is_vector or isinstance(space.env_space, spaces.Dict)
        if is_plain and state["observation_space"] == describe_space(space.env_space):
            return space
    raise ValueError(
        f"observation_space={model.observation_space} holds the skill in a way that cannot be "
        "folded; expected DIAYNWrapper around a one-dimensional Box or a Dict, without stacked "
        "frames. Put other observations into a Dict before the training."
    )


def _check_finite(model: BaseAlgorithm) -> None:
    if bad := find_bad_parameter(model.policy):
        raise ValueError(
            f"policy.{bad} is not finite; expected finite numbers. The training has diverged: "
            "export a skill of an earlier checkpoint."
        )


def _rebuild(
    model: BaseAlgorithm, observation_space: spaces.Space[Any], venv: VecEnv | None
) -> BaseAlgorithm:
    """Like ``BaseAlgorithm.load``, for another observation space and without parameters."""
    buffer = io.BytesIO()
    model.save(buffer, exclude=NOT_EXPORTED)
    buffer.seek(0)
    data, _, variables = load_from_zip_file(
        buffer, device=model.device, custom_objects={"observation_space": observation_space}
    )
    assert data is not None
    if venv is not None:
        data["n_envs"] = venv.num_envs
        if isinstance(data.get("action_noise"), VectorizedActionNoise):
            # It is made for the old number of environments; SB3 vectorises it again.
            data["action_noise"] = data["action_noise"].base_noise
    exported = type(model)(
        policy=data["policy_class"],
        env=None,
        device=model.device,
        _init_setup_model=False,  # type: ignore[call-arg]
    )
    exported.__dict__.update(data)
    exported._setup_model()
    for name, variable in (variables or {}).items():  # such as SAC's entropy coefficient
        recursive_setattr(exported, f"{name}.data", variable.data)
    return exported


def _skill_features(
    model: BaseAlgorithm, space: SkillSpace, vec_normalize: VecNormalize | None
) -> th.Tensor:
    """The output of the features extractor for each skill, shape ``(K, features)``."""
    zeros = create_empty_array(space.env_space, space.n_skills, np.zeros)
    obs: Any = space.append(zeros, np.arange(space.n_skills))
    if vec_normalize is not None:
        obs = vec_normalize.normalize_obs(obs)
    policy = model.policy
    inputs: Any = preprocess_obs(
        policy.obs_to_tensor(obs)[0],
        policy.observation_space,
        normalize_images=policy.normalize_images,
    )
    with th.no_grad():
        features: th.Tensor = _features_extractor(policy)(inputs)
    return features


def _features_extractor(policy: BasePolicy) -> BaseFeaturesExtractor:
    for module in policy.modules():
        if isinstance(module, BaseFeaturesExtractor):
            return module
    raise ValueError(
        f"policy={type(policy).__name__} has no features extractor of SB3; expected MlpPolicy or "
        "MultiInputPolicy of Stable-Baselines3 or its contrib package. Policies of other "
        "frameworks cannot be exported."
    )


def _skill_columns(features: th.Tensor, smaller: BasePolicy) -> slice:
    """
    The features that are the one-hot. Only these K may differ from skill to skill: then every
    other feature depends on the observation alone.
    """
    differing = ((features - features[0]).abs() > 1e-4).any(dim=0).nonzero().flatten().tolist()
    columns = slice(differing[0], differing[-1] + 1) if differing else slice(0)
    n_skills, n_features = features.shape
    remaining = _features_extractor(smaller).features_dim
    if len(differing) != n_skills or remaining != n_features - n_skills:
        raise ValueError(
            f"features_extractor_class={smaller.features_extractor_class.__name__} mixes the "
            "skill with the observation; expected FlattenExtractor or CombinedExtractor. Train "
            "the skills with MlpPolicy or MultiInputPolicy and their own extractors."
        )
    return columns


def _without_critics(parameters: Parameters, algorithm: str) -> Parameters:
    kept = {k: v for k, v in parameters.items() if not k.startswith(CRITIC_PREFIXES)}
    if len(kept) == len(parameters):
        raise ValueError(
            f"reset_critics=True leaves nothing of {algorithm}, whose policy is its critic; "
            "expected False."
        )
    return kept


def fold_inputs(
    policy: nn.Module, smaller: nn.Module, columns: slice, constant: th.Tensor
) -> Parameters:
    """
    A layer that reads the features computes W x + b. If a part c of the features x is constant,
    this is W_r x_r + (b + W_c c) with the remaining features x_r. So the smaller network computes
    the same with the bias b + W_c c.

    :param policy: network that reads all features
    :param smaller: the same network, built for the features that remain
    :param columns: which features are constant
    :param constant: their values, float64, shape ``(n_columns,)``
    :return: parameters for ``smaller``, by name
    :raises ValueError: if a layer other than a linear one, an LSTM or a batch renormalisation
        reads the features
    """
    parameters = {name: value.clone() for name, value in policy.state_dict().items()}
    for name, expected in smaller.state_dict().items():
        if parameters[name].shape != expected.shape:
            _fold(policy, name, parameters, columns, constant)
    return parameters


def _fold(
    policy: nn.Module, name: str, parameters: Parameters, columns: slice, constant: th.Tensor
) -> None:
    """Replace the parameter ``name`` and the bias of its layer."""
    layer_name, _, parameter = name.rpartition(".")
    layer, weight = policy.get_submodule(layer_name), parameters[name]
    biases = {(nn.Linear, "weight"): "bias", (nn.LSTM, "weight_ih_l0"): "bias_ih_l0"}
    bias = f"{layer_name}.{biases.get((type(layer), parameter))}"
    if bias in parameters:
        inputs = _constant_inputs(policy, layer_name, weight.shape[1], columns, constant)
        folded = parameters[bias].double() + weight[:, columns].double() @ inputs
        parameters[bias] = folded.to(weight.dtype)
    elif not isinstance(layer, BatchRenorm):
        raise ValueError(
            f"policy has a parameter {name!r} that depends on the skill and belongs to "
            f"{type(layer).__name__}, which has no bias to fold it into; expected linear layers "
            "after the features extractor. Use MlpPolicy or MultiInputPolicy with hidden layers."
        )
    remain = th.ones(weight.shape[-1], dtype=th.bool, device=weight.device)
    remain[columns] = False
    parameters[name] = weight[..., remain]


def _constant_inputs(
    policy: nn.Module, layer_name: str, n_inputs: int, columns: slice, constant: th.Tensor
) -> th.Tensor:
    """The constants as the layer reads them: CrossQ normalises each of its inputs first."""
    parent_name, _, index = layer_name.rpartition(".")
    parent = policy.get_submodule(parent_name)
    before = parent[int(index) - 1] if isinstance(parent, nn.Sequential) and int(index) else None
    if not isinstance(before, BatchRenorm):
        return constant
    inputs = constant.new_zeros(1, n_inputs)
    inputs[:, columns] = constant
    return _in_evaluation_mode(before, inputs)[0, columns]


def _in_evaluation_mode(layer: nn.Module, inputs: th.Tensor) -> th.Tensor:
    was_training = layer.training
    layer.train(False)
    try:
        with th.no_grad():
            outputs: th.Tensor = layer(inputs)
    finally:
        layer.train(was_training)
    return outputs
