"""Measures what the skills of a model do, on fresh episodes."""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize
from tqdm.auto import tqdm

from sb3_diayn.arguments import check_positive, check_seed
from sb3_diayn.checks import find_bad_parameter
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation import metrics
from sb3_diayn.evaluation.coordinates import (
    check_obs_names,
    find_obs_names,
    orientation_indices,
)
from sb3_diayn.evaluation.held_out import classify_held_out
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import Trajectory, as_vec_env, play_skills, preserve_state
from sb3_diayn.extractors import SpaceExtractor, VectorExtractor
from sb3_diayn.model_zip import STATE_ATTRIBUTE, model_discriminator
from sb3_diayn.observations import Obs, flatten, index_obs, map_obs, map_spaces
from sb3_diayn.representation import Representation
from sb3_diayn.skills import SkillSpace

Array = npt.NDArray[Any]

N_PATH_POINTS = 100  # of each episode's path
N_PROBED_STATES = 256  # for the sensitivity
CELL_METRES, CELLS_PER_AXIS = 0.25, 20  # for the coverage
# For the importance, which asks the discriminator once per input.
MAX_VECTORS, MAX_OTHER_OBSERVATIONS = 5000, 500  # images are among the others


def evaluate_skills(
    model: BaseAlgorithm,
    env: Any,
    *,
    n_episodes: int = 5,
    deterministic: bool = False,
    seed: int | None = 0,
    discriminator: Discriminator | None = None,
    max_steps: int | None = None,
    baseline: bool = False,
    obs_names: Sequence[str] | None = None,
    progress_bar: bool = False,
) -> SkillEvaluation:
    """
    Play each skill on fresh episodes, as many at once as there are environments, and measure it.
    Paper: https://arxiv.org/abs/1802.06070

    .. warning::
        With ``deterministic=True`` nothing hides how the mean action depends on the skill, so even
        a policy that has learned nothing seems to have distinct skills: ten of 20 on Hopper-v5.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64).learn(64, callback=DIAYNCallback())
        >>> evaluation = evaluate_skills(model, env, n_episodes=2)
        >>> evaluation.lengths.tolist()  # steps of two episodes of each skill
        [[100, 100], [100, 100], [100, 100]]
        >>> evaluation.info["coordinates"]
        ['x_position', 'y_position']

    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip
    :param env: a ``DIAYNWrapper`` environment or vectorised ones (faster). Not the training ones
        during a ``learn``: they are reset, and the next ``learn`` begins new episodes
    :param n_episodes: episodes of each skill, E. The number of distinct skills needs two
    :param deterministic: play the mode of the policy instead of samples, which were trained
    :param seed: of environments and sampled actions; None for no fixed seed
    :param discriminator: None for the model's own
    :param max_steps: see :func:`~sb3_diayn.evaluation.trajectories.play_skills`
    :param baseline: also count the distinct skills of a policy of the same class that has learned
        nothing, played in the same way
    :param obs_names: what to call the coordinates of a vector observation in figures and
        diagnoses. None for the environment's attribute of this name, or for what is known of
        MuJoCo, Box2D and classic control
    :param progress_bar: show one
    :return: the measurements
    :raises ValueError: if ``n_episodes`` is not a positive integer, the model has no discriminator,
        one that has diverged or one that does not fit the environments, or ``obs_names`` do not fit
        its observations
    """
    check_positive("n_episodes", n_episodes, "Five show the spread.")
    seed = check_seed(seed)
    vec_env = as_vec_env(env)
    with preserve_state(model, vec_env):
        if discriminator is None:
            discriminator = model_discriminator(model)
        else:
            discriminator = copy.deepcopy(discriminator).cpu()
        _check_n_skills(vec_env, discriminator)
        _check_finite(discriminator)
        space = discriminator.observation_space
        if obs_names is None:
            obs_names = find_obs_names(vec_env, space)
        else:
            obs_names = check_obs_names(obs_names, space)
        shape = (discriminator.n_skills, n_episodes)

        def play(model: BaseAlgorithm, label: str) -> list[Trajectory]:
            skills = np.repeat(np.arange(shape[0]), n_episodes).tolist()
            options = {"deterministic": deterministic, "seed": seed, "max_steps": max_steps}
            episodes = play_skills(model, vec_env, skills, **options)  # type: ignore[arg-type]
            bar = tqdm(episodes, total=len(skills), desc=label, disable=not progress_bar)
            return sorted(bar, key=lambda trajectory: trajectory.skill)

        untrained = untrained_model(model, seed) if baseline else None
        trajectories = play(model, "Playing skills")
        evaluation = summarize(trajectories, discriminator, n_episodes)
        evaluation.upside_down = _measure_upside_down(trajectories, obs_names, shape)
        evaluation.sensitivity = policy_sensitivity(model, vec_env, trajectories, shape[0])
        if untrained is not None and "why_no_held_out" not in evaluation.info:
            features = _features(play(untrained, "Playing an untrained policy"), discriminator)
            evaluation.untrained_log_q = classify_held_out(_nested(features, shape)).log_q
    evaluation.info |= {
        "algo": type(model).__name__,
        "frozen_fraction": _frozen_fraction(model),
        "deterministic": deterministic,
        "seed": seed,
        "num_timesteps": model.num_timesteps,
        **({"obs_names": obs_names} if obs_names else {}),
    }
    return evaluation


def _frozen_fraction(model: BaseAlgorithm) -> float:
    """Of the training; 0 if the model was trained without ``DIAYNCallback``."""
    state = getattr(model, STATE_ATTRIBUTE, None)
    options = {} if state is None else dict(state.items())["options"]
    return float(options.get("frozen_fraction", 0.0))


def summarize(
    trajectories: Sequence[Trajectory], discriminator: Discriminator, n_episodes: int
) -> SkillEvaluation:
    """
    :param trajectories: ``n_episodes`` of each skill, in the order of the skills
    :param discriminator: what recognises the skills
    :param n_episodes: episodes of each skill, E
    :return: the measurements that need no policy; ``sensitivity`` is NaN
    """
    shape = (discriminator.n_skills, n_episodes)
    info, movements = _measure_movement(trajectories, shape)
    reason, held_out = _measure_distinctness(trajectories, discriminator, shape)
    return SkillEvaluation(
        info={
            "n_episodes": n_episodes,
            "normalize_obs": discriminator.normalize_obs,
            "spectral_norm": discriminator.spectral_norm,
            "cross_fit": discriminator.cross_fit,
            "objective": discriminator.objective_name,
            **input_names(discriminator),
            **info,
            **reason,
        },
        task_returns=_per_episode([t.task_rewards.sum() for t in trajectories], shape),
        lengths=_per_episode([len(t) for t in trajectories], shape).astype(int),
        sensitivity=float("nan"),
        **_measure_recognition(trajectories, discriminator, shape),
        **held_out,
        **movements,
    )


def untrained_model(model: BaseAlgorithm, seed: int | None = None) -> BaseAlgorithm:
    """
    :param model: any SB3 model
    :param seed: of the weights; None for no fixed seed
    :return: the same model with a policy that has learned nothing, to be played only
    :raises ValueError: if the policy is not PyTorch's, as with SBX
    """
    policy = model.policy
    if not any(True for _ in policy.parameters()):
        raise ValueError(
            f"baseline=True cannot build {type(policy).__name__} again; expected a policy of "
            "PyTorch. Leave it out."
        )
    untrained = copy.copy(model)
    with th.random.fork_rng(devices=[]):
        if seed is not None:
            th.manual_seed(seed)
        untrained.policy = type(policy)(**policy._get_constructor_parameters()).to(model.device)
    return untrained


def policy_sensitivity(
    model: BaseAlgorithm, env: Any, trajectories: Sequence[Trajectory], n_skills: int
) -> float:
    """
    :param model: the model with the policy
    :param env: the environments that were played, for their ``VecNormalize``
    :param trajectories: the source of the states at which the policy is asked
    :param n_skills: the number of skills, K
    :return: how much the action depends on the skill, see :class:`SkillEvaluation`
    """
    observations = _concatenate([t.observations for t in trajectories], np.concatenate)
    n_states = sum(map(len, trajectories))
    rows = np.linspace(0, n_states - 1, min(N_PROBED_STATES, n_states)).astype(int)
    space = SkillSpace.from_vec_env(env, n_skills)
    skills = np.tile(np.arange(n_skills), len(rows))
    probes = index_obs(observations, np.repeat(rows, n_skills))
    obs: Any = space.append_first(probes, skills)
    normalizer = unwrap_vec_normalize(env)
    if normalizer is not None:
        obs = normalizer.normalize_obs(obs)
    actions, _ = model.predict(obs, deterministic=True)
    actions = actions.reshape(len(rows), n_skills, -1)
    if isinstance(model.action_space, spaces.Box):
        action_range = model.action_space.high - model.action_space.low
        half_range = np.where(np.isfinite(action_range), action_range / 2, 1.0).reshape(-1)
        return float((actions.std(axis=1) / half_range).mean())
    counts = [[np.sum((row == value).all(axis=-1)) for value in row] for row in actions]
    return float(1 - np.max(counts, axis=1).mean() / n_skills)


def importance(
    obs: PyTorchObs, skills: th.Tensor, actions: th.Tensor, discriminator: Discriminator
) -> npt.NDArray[np.float64]:
    """
    The permutation importance of each input of a discriminator.

    :param obs: next observations of the environment, n of them
    :param skills: the skills that led there, shape ``(n,)``
    :param actions: see :meth:`Discriminator.forward`
    :param discriminator: what reads them
    :return: by how many nats the mean log q(z|s') falls when one input is shuffled, shape
        ``(d,)``; see :func:`input_names`
    """
    rng = np.random.default_rng(0)
    reads_vector = isinstance(discriminator.extractor, VectorExtractor)
    n_states = min(len(skills), MAX_VECTORS if reads_vector else MAX_OTHER_OBSERVATIONS)
    rows = th.as_tensor(rng.choice(len(skills), size=n_states, replace=False))
    obs, skills, actions = index_obs(obs, rows), skills[rows], actions[rows]
    order = th.as_tensor(rng.permutation(n_states))
    n_inputs = obs.shape[1] if reads_vector else len(_keys(obs))  # type: ignore[union-attr]
    falls = np.zeros(n_inputs)
    with th.no_grad():
        base = discriminator.log_prob(obs, skills, actions).mean()
        for index, shuffled in _shuffle_inputs(obs, order, discriminator):
            falls[index] = float(base - discriminator.log_prob(shuffled, skills, actions).mean())
    return falls


def input_names(discriminator: Discriminator) -> dict[str, Any]:
    """
    :param discriminator: a discriminator
    :return: what the entries of its importance stand for: for a vector ``obs_indices``, the
        coordinates that it reads; else ``parts``, the keys of the observation
    """
    if isinstance(discriminator.extractor, VectorExtractor):
        return {"obs_indices": discriminator.extractor.indices.tolist()}
    return {"parts": _keys(map_spaces(str, discriminator.observation_space))}


def _check_n_skills(env: VecEnv, discriminator: Discriminator) -> None:
    n_skills = int(env.get_attr("n_skills")[0])
    if n_skills != discriminator.n_skills:
        raise ValueError(
            f"env has n_skills={n_skills}; expected {discriminator.n_skills} as the discriminator "
            f"has. Wrap it with DIAYNWrapper(env, n_skills={discriminator.n_skills})."
        )


def _check_finite(discriminator: Discriminator) -> None:
    bad = find_bad_parameter(discriminator)
    if bad is not None:
        raise ValueError(
            f"discriminator.{bad} is not finite; expected finite numbers. Its training has "
            "diverged: evaluate an earlier checkpoint."
        )


# -- distinctness ----------------------------------------------------------------------------


def _measure_distinctness(
    trajectories: Sequence[Trajectory], discriminator: Discriminator, shape: tuple[int, int]
) -> tuple[dict[str, str], dict[str, Array]]:
    """Why there are no numbers of a held-out classifier, if there are none; and the numbers."""
    if shape[1] < 2:
        reason = "it needs at least two episodes of each skill"
        return {"why_no_held_out": reason}, {}
    try:
        read = classify_held_out(_nested(_features(trajectories, discriminator), shape))
        everything = read
        if not _reads_everything(discriminator):
            everything = classify_held_out(_nested([t.states for t in trajectories], shape))
    except ImportError as error:
        warnings.warn(f"The number of distinct skills is left out. {error}", stacklevel=4)
        return {"why_no_held_out": str(error)}, {}
    return {}, {
        "held_out_log_q": read.log_q,
        "held_out_confusion": read.confusion,
        "held_out_log_q_everything": everything.log_q,
    }


def _reads_everything(discriminator: Discriminator) -> bool:
    extractor = discriminator.extractor
    is_whole = isinstance(extractor, VectorExtractor) and extractor.reads_all
    return is_whole and discriminator.action_space is None


def _features(trajectories: Sequence[Trajectory], discriminator: Discriminator) -> list[Array]:
    """What the discriminator reads in each trajectory, before layers that it has learned."""
    extractor, features = discriminator.extractor, []
    for obs, _, actions in _batches(trajectories, discriminator):
        with th.no_grad():
            if isinstance(extractor, SpaceExtractor) and discriminator.learns_features:
                chosen = map_obs(th.Tensor.numpy, extractor.select(obs))
                read = flatten(chosen, extractor.input_space)
            else:
                read = extractor(obs).numpy()
        inputs = [read] if discriminator.action_space is None else [read, actions.numpy()]
        features.append(np.concatenate(inputs, axis=1))
    return features


# -- recognition -----------------------------------------------------------------------------


def _measure_recognition(
    trajectories: Sequence[Trajectory], discriminator: Discriminator, shape: tuple[int, int]
) -> dict[str, Array]:
    """How well the discriminator recognises the skills."""
    if isinstance(discriminator, Representation):
        return _measure_directions(trajectories, discriminator, shape)
    log_qs, guesses, confidences = _recognize(trajectories, discriminator)
    played = np.concatenate([np.full(len(t), t.skill) for t in trajectories])
    log_p = discriminator.log_p.numpy()
    returns = [(q - log_p[t.skill]).sum() for q, t in zip(log_qs, trajectories, strict=True)]
    observations, skills, actions = zip(*_batches(trajectories, discriminator), strict=True)
    return {
        "skill_returns": _per_episode(returns, shape),
        "log_q": np.array([q.mean() for q in _per_skill(log_qs, shape)]),
        "confusion": metrics.confusion_matrix(played, guesses, shape[0]),
        "reliability": metrics.reliability(confidences, guesses == played),
        "importance": importance(
            _concatenate(observations, th.cat), th.cat(skills), th.cat(actions), discriminator
        ),
    }


def _measure_directions(
    trajectories: Sequence[Trajectory], representation: Representation, shape: tuple[int, int]
) -> dict[str, Array]:
    """How far phi moves along each skill since the first step, and along which skill farthest."""
    played, guesses, returns = [], [], []
    for obs, skills, _ in _batches(trajectories, representation):
        with th.no_grad():
            progress = representation.progress(obs)
        returns.append(float(progress[-1, skills[0]]))
        guesses.append(progress[1:].argmax(dim=1).numpy())  # at first phi has not moved
        played.append(skills[1:].numpy())
    names = input_names(representation)
    n_inputs = len(names["parts"]) if "parts" in names else trajectories[0].states.shape[1]
    return {
        "skill_returns": _per_episode(returns, shape),
        "log_q": np.full(shape[0], np.nan),
        "confusion": metrics.confusion_matrix(
            np.concatenate(played), np.concatenate(guesses), shape[0]
        ),
        "importance": np.full(n_inputs, np.nan),
    }


def _recognize(
    trajectories: Sequence[Trajectory], discriminator: Discriminator
) -> tuple[list[Array], Array, Array]:
    """
    For each trajectory log q(z|s') of its skill, shape ``(T,)``; and of all states the likeliest
    skill and its probability.
    """
    log_qs, guesses, confidences = [], [], []
    with th.no_grad():
        for obs, skills, actions in _batches(trajectories, discriminator):
            log_probs = th.log_softmax(discriminator(obs, actions), dim=1)
            log_qs.append(log_probs.gather(1, skills[:, None]).squeeze(1).double().numpy())
            confidence, guess = log_probs.double().exp().max(dim=1)
            guesses.append(guess.numpy())
            confidences.append(confidence.numpy())
    return log_qs, np.concatenate(guesses), np.concatenate(confidences)


def _batches(
    trajectories: Sequence[Trajectory], discriminator: Discriminator
) -> list[tuple[PyTorchObs, th.Tensor, th.Tensor]]:
    """States, skills and scaled actions of each trajectory, as the discriminator reads them."""
    batches = []
    for t in trajectories:
        actions = discriminator.scale_action(t.actions).reshape(len(t), -1)
        skills = th.full((len(t),), t.skill)
        obs = map_obs(th.as_tensor, t.observations)
        batches.append((obs, skills, th.as_tensor(actions)))
    return batches


def _shuffle_inputs(
    obs: Any, order: th.Tensor, discriminator: Discriminator
) -> Iterator[tuple[int, Any]]:
    """The index of each input, with the observations in which it alone is shuffled."""
    extractor = discriminator.extractor
    if isinstance(extractor, VectorExtractor):
        for index in extractor.indices.tolist():
            shuffled = obs.clone()
            shuffled[:, index] = obs[order, index]
            yield index, shuffled
    elif isinstance(obs, dict):
        for index, key in enumerate(obs):
            yield index, {**obs, key: obs[key][order]}
    else:
        yield 0, obs[order]


def _keys(obs: Any) -> list[str]:
    return list(obs) if isinstance(obs, dict) else ["observation"]


# -- movement --------------------------------------------------------------------------------


def _measure_movement(
    trajectories: Sequence[Trajectory], shape: tuple[int, int]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Where the episodes lead, and the coordinates in which this is measured."""
    names, points = _coordinates(trajectories)
    cell_size = _cell_size(names, points)
    scale = np.concatenate([t.states for t in trajectories]).std(axis=0)
    states = _per_skill([t.states for t in trajectories], shape)
    means = np.stack([s.mean(axis=0) for s in states]) / np.where(scale > 0, scale, 1)
    paths = np.stack([metrics.resample(p, N_PATH_POINTS) for p in points]).astype(np.float64)
    movement = [metrics.movement(t.states, scale) for t in trajectories]
    info = {
        "coordinates": names,
        "cell_size": cell_size.tolist(),
        "total_coverage": metrics.coverage(np.concatenate(points), cell_size),
    }
    return info, {
        "paths": paths.reshape(*shape, N_PATH_POINTS, 2),
        "distances": _per_episode([metrics.path_length(p) for p in points], shape),
        "displacements": _per_episode([metrics.displacement(p) for p in points], shape),
        "coverage": np.array([metrics.coverage(p, cell_size) for p in _per_skill(points, shape)]),
        "movement": _per_episode(movement, shape).mean(axis=1),
        "mean_state_distances": np.linalg.norm(means[:, None] - means[None], axis=-1).astype(float),
    }


def _measure_upside_down(
    trajectories: Sequence[Trajectory], obs_names: Sequence[str] | None, shape: tuple[int, int]
) -> Array:
    """The share of each skill's steps with the torso upside down; NaN where that is unknown."""
    indices = orientation_indices(obs_names)
    if not indices:
        return np.full(shape[0], np.nan)
    states = _per_skill([t.states[:, indices] for t in trajectories], shape)
    return np.array([(metrics.uprightness(each) < 0).mean() for each in states])


def _coordinates(trajectories: Sequence[Trajectory]) -> tuple[list[str], list[Array]]:
    """Two coordinates to measure movement in: positions if known, else principal components."""
    known = list(trajectories[0].positions)
    if len(known) >= 2:
        names = known[:2]
        points = [np.stack([t.positions[key] for key in names], axis=1) for t in trajectories]
        return names, points
    n_features = trajectories[0].states.shape[1]
    if known:
        index = _second_coordinate(trajectories, known[0])
        points = [
            np.stack([t.positions[known[0]], t.states[:, index]], axis=1) for t in trajectories
        ]
        return [known[0], f"observation {index}"], points
    if n_features <= 2:
        names = [f"observation {index}" for index in range(2)]
        pad = 2 - n_features
        return names, [np.pad(t.states, ((0, 0), (0, pad))) for t in trajectories]
    mean, axes = metrics.principal_components(np.concatenate([t.states for t in trajectories]))
    names = ["principal component 1", "principal component 2"]
    return names, [(t.states - mean) @ axes for t in trajectories]


def _second_coordinate(trajectories: Sequence[Trajectory], key: str) -> int:
    """The first coordinate of the observation that does not repeat this position."""
    repeats = all(np.allclose(t.positions[key], t.states[:, 0], atol=1e-4) for t in trajectories)
    return int(repeats and trajectories[0].states.shape[1] > 1)


def _cell_size(names: Sequence[str], points: Sequence[Array]) -> Array:
    """A quarter of a metre for positions, else a twentieth of the range that is visited."""
    everything = np.concatenate(points)
    span = everything.max(axis=0) - everything.min(axis=0)
    relative = np.where(span > 0, span / CELLS_PER_AXIS, 1.0)
    return np.where(["position" in name for name in names], CELL_METRES, relative)


# -- arrays of episodes ----------------------------------------------------------------------


def _per_episode(values: Sequence[float], shape: tuple[int, int]) -> Array:
    return np.array(values, dtype=float).reshape(shape)


def _nested(values: Sequence[Array], shape: tuple[int, int]) -> list[Sequence[Array]]:
    """The arrays of the episodes of each skill."""
    n_skills, n_episodes = shape
    return [values[k * n_episodes : (k + 1) * n_episodes] for k in range(n_skills)]


def _per_skill(values: Sequence[Array], shape: tuple[int, int]) -> list[Array]:
    """Join the arrays of all episodes of each skill."""
    return [np.concatenate(episodes) for episodes in _nested(values, shape)]


def _concatenate(observations: Sequence[Obs], function: Callable[..., Any]) -> Obs:
    return map_obs(lambda *each: function(each), *observations)
