"""One skill as a model of its own, which needs neither this package nor a skill to be told."""

import io
import pickle
from collections import OrderedDict
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

from sb3_diayn.model_zip import STATE_ATTRIBUTE, model_n_skills
from sb3_diayn.observations import describe_space
from sb3_diayn.skills import SKILL_KEY, SkillSpace, check_skill

Parameters = dict[str, th.Tensor]


# What a model remembers of environments with skills. Optimisers are left behind as well: their
# moments are averages of gradients of another objective, over all skills.
FORGOTTEN = (
    STATE_ATTRIBUTE,
    "_last_obs",
    "_last_original_obs",
    "_last_episode_starts",
    "ep_info_buffer",
    "ep_success_buffer",
)


# Parameters of value functions beside a policy, by the beginning of their names.
CRITICS = ("critic.", "critic_target.", "mlp_extractor.value_net.", "value_net.", "lstm_critic.")


def export_skill(
    model: BaseAlgorithm,
    skill: int,
    *,
    env: GymEnv | None = None,
    vec_normalize: VecNormalize | None = None,
    reset_critics: bool = False,
) -> BaseAlgorithm:
    """
    Make a plain SB3 model of one skill. It reads the environment's own observation and acts, up
    to float rounding, as ``model`` does with that skill; so do its critics value. The one-hot has
    become a part of the first layers' biases. Hyperparameters stay, optimisers start afresh.

    ``export_skill(model, 3).save("skill_3")`` writes a zip that loads and goes on learning where
    this package is not installed.

    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip
    :param skill: index of the skill
    :param env: environment without skills to go on learning in, vectorised or not; the model gets
        its observation space. None for a model without environment, whose observation space is
        that of the registered environment where the two agree, else float32
    :param vec_normalize: the ``VecNormalize`` that ``model`` was trained with, None for the one
        that it still has. The exported model expects that of :func:`export_vec_normalize`
    :param reset_critics: leave the critics as they are initialised, instead of those of the skill
    :return: the exported model
    :raises ValueError: if the model has no skills or its policy cannot be folded
    """
    n_skills = model_n_skills(model)
    skill = check_skill(skill, n_skills)
    space = _foldable_space(model, n_skills)
    venv = None if env is None else type(model)._wrap_env(env, verbose=0)
    features = _skill_features(model, space, vec_normalize or model.get_vec_normalize_env())
    exported = _rebuild(model, _task_space(model, space, venv), venv)
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
    :param vec_normalize: what the skills were trained with
    :param venv: environments without skills to put the same statistics around, less those of the
        one-hot
    :return: what models of :func:`export_skill` expect
    :raises ValueError: if the two differ by more than the skill
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


def _task_space(model: BaseAlgorithm, space: SkillSpace, venv: VecEnv | None) -> spaces.Space[Any]:
    """Not only float32: SB3 compares spaces with their dtype when a model gets an environment."""
    if venv is not None:
        return _check_fits(venv.observation_space, space)
    env_id = dict(getattr(model, STATE_ATTRIBUTE).items())["env_id"]
    if env_id not in gym.registry:
        return space.env_space
    try:
        registered = gym.make(env_id).observation_space
    except (gym.error.Error, ImportError, TypeError):  # of another version, or without arguments
        return space.env_space
    try:
        return _check_fits(registered, space)
    except ValueError:
        return space.env_space


def _check_fits(env_space: spaces.Space[Any], space: SkillSpace) -> spaces.Space[Any]:
    """The same space but for the dtype."""
    try:
        fits = SkillSpace(env_space, space.n_skills).env_space == space.env_space
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"env has the observation space {env_space}; expected {space.env_space}, of any dtype. "
            "Pass the environment that the skills were learned in, without DIAYNWrapper."
        )
    if isinstance(env_space, spaces.Dict):  # extractors go by the order of the keys
        assert isinstance(space.env_space, spaces.Dict)
        return spaces.Dict(OrderedDict((key, env_space[key]) for key in space.env_space))
    return env_space


def _foldable_space(model: BaseAlgorithm, n_skills: int) -> SkillSpace:
    space = SkillSpace.from_augmented(model.observation_space, n_skills)
    known = dict(getattr(model, STATE_ATTRIBUTE).items())["observation_space"]
    is_plain = space.is_vector or isinstance(space.env_space, spaces.Dict)
    if not is_plain or known != describe_space(space.env_space):
        raise ValueError(
            f"observation_space={model.observation_space} holds the skill in a way that cannot be "
            "folded; expected that of a DIAYNWrapper around a one-dimensional Box or a Dict, "
            "without stacked frames. Let a Dict hold the observation."
        )
    return space


def _rebuild(
    model: BaseAlgorithm, observation_space: spaces.Space[Any], venv: VecEnv | None
) -> BaseAlgorithm:
    """As ``BaseAlgorithm.load`` does it, for another observation space and without parameters."""
    buffer = io.BytesIO()
    model.save(buffer, exclude=FORGOTTEN)
    buffer.seek(0)
    data, _, variables = load_from_zip_file(
        buffer, device=model.device, custom_objects={"observation_space": observation_space}
    )
    assert data is not None
    if venv is not None:
        data["n_envs"] = venv.num_envs
        if isinstance(data.get("action_noise"), VectorizedActionNoise):  # of as many as before
            data["action_noise"] = data["action_noise"].base_noise
    exported = type(model)(
        policy=data["policy_class"],
        env=None,
        device=model.device,
        _init_setup_model=False,  # type: ignore[call-arg]
    )
    exported.__dict__.update(data)
    exported._setup_model()
    for name, variable in (variables or {}).items():  # SAC's entropy coefficient
        recursive_setattr(exported, f"{name}.data", variable.data)
    return exported


def _skill_features(
    model: BaseAlgorithm, space: SkillSpace, vec_normalize: VecNormalize | None
) -> th.Tensor:
    """What the layers after the features extractor read of each skill, shape ``(K, features)``."""
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
    """The features that differ between skills, provided that nothing else of them does."""
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
    kept = {k: v for k, v in parameters.items() if not k.startswith(CRITICS)}
    if len(kept) == len(parameters):
        raise ValueError(
            f"reset_critics=True leaves nothing of {algorithm}, whose policy is its critic; "
            "expected False. Leave it out."
        )
    return kept


def fold_inputs(
    policy: nn.Module, smaller: nn.Module, columns: slice, constant: th.Tensor
) -> Parameters:
    """
    Wherever a layer of ``policy`` reads the features, W x + b with some of x constant is
    W' x' + (b + W" x"). So the smaller network computes the same from the features that remain.

    :param policy: network that reads all features
    :param smaller: the same network, built for the features that remain
    :param columns: which features are constant
    :param constant: what they are, float64, shape ``(n_columns,)``
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
    """Replace the parameter ``name``, and the bias that belongs to it."""
    layer_name, _, parameter = name.rpartition(".")
    layer, weight = policy.get_submodule(layer_name), parameters[name]
    biases = {(nn.Linear, "weight"): "bias", (nn.LSTM, "weight_ih_l0"): "bias_ih_l0"}
    bias = f"{layer_name}.{biases.get((type(layer), parameter))}"
    if bias in parameters:
        read = _normalized(policy, layer_name, weight.shape[1], columns, constant)
        moved = parameters[bias].double() + weight[:, columns].double() @ read
        parameters[bias] = moved.to(weight.dtype)
    elif not isinstance(layer, BatchRenorm):
        raise ValueError(
            f"policy has a parameter {name!r} that depends on the skill and belongs to {layer}, "
            "which has no bias to move it to; expected linear layers after the features "
            "extractor. Use MlpPolicy or MultiInputPolicy with hidden layers."
        )
    remain = th.ones(weight.shape[-1], dtype=th.bool, device=weight.device)
    remain[columns] = False
    parameters[name] = weight[..., remain]


def _normalized(
    policy: nn.Module, layer_name: str, n_inputs: int, columns: slice, constant: th.Tensor
) -> th.Tensor:
    """What arrives at the layer: CrossQ normalises its inputs, each on its own."""
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
