"""Findings about a training, in words: the known ways in which skills fail."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from sb3_diayn.evaluation import metrics
from sb3_diayn.evaluation.results import SkillEvaluation
from sb3_diayn.evaluation.trajectories import POSITION_KEYS

# Below a tenth of log K the fresh states hold hardly any trace of the skill.
NEAR_CHANCE = 0.1
# From half of log K on the skills are distinct, whatever the number of steps or the sensitivity of
# the policy: small differences between actions add up over an episode.
DISTINCT = 0.5
# With less than half of the nats that a held-out classifier finds, the discriminator rewards the
# policy for something else than being distinct.
KNOWN = 0.5
# How much more confident than right a discriminator is that has memorised its episodes.
OVERCONFIDENT = 0.1
# The easiest environments (MountainCarContinuous) need some 20,000 steps. At a quarter of that,
# the discriminator has hardly seen the replay buffer.
FEW_STEPS = 5000
# One percent of the half range of the actions is less than the noise of any exploration.
INSENSITIVE = 0.01
# The answers to two equal skills agree in 100 %, to two distinct skills in 0 %. With 75 %, an
# answer names the right one of the two in at most five of eight states; a coin does in four.
EQUAL_SKILLS_AGREEMENT = 0.75
# In standard deviations of all skills' states a pose has a movement of 0, a gait or a fall about 1.
STATIC_MOVEMENT = 0.1
# One static skill among many is a skill ("stand still"). If half are, the training has not moved.
MANY_STATIC = 0.5
# With fewer coordinates there is nothing to choose from.
MIN_COORDINATES = 5
# A tenth of the coordinates carries more than four fifths of what the discriminator knows.
NARROW_COORDINATES, NARROW_SHARE = 0.1, 0.8
MAX_NAMED = 10
# An agent that stumbles is back on its feet within a tenth of its steps.
UPSIDE_DOWN = 0.1
# Where skills of the provided ppo_displacement.yml travel. Its humanoid falls.
TRAVEL_ENVS = ("Ant-v5", "HalfCheetah-v5", "Hopper-v5", "Swimmer-v5", "Walker2d-v5")


@dataclass(frozen=True)
class Diagnosis:
    """
    One finding.

    :param kind: ``"too_early"``, ``"ignores_skill"``, ``"alike"``, ``"unknown_to_discriminator"``,
        ``"uncertain"``, ``"static"``, ``"upside_down"``, ``"narrow_discriminator"`` or
        ``"healthy"``
    :param severity: ``"warning"`` or ``"note"``
    :param message: what was found, with its number
    :param advice: what to try
    :param skills: the skills concerned; empty for all of them
    """

    kind: str
    severity: str
    message: str
    advice: str
    skills: tuple[int, ...] = ()


def diagnose(evaluation: SkillEvaluation) -> list[Diagnosis]:
    """
    Look for the known ways in which skills fail: they are alike, or distinct without the
    discriminator knowing it, or distinct but static; or the torso is upside down. A finding that
    would follow from another one is left out: skills of a training that has hardly begun are not
    called alike.

    Example::

        >>> import gymnasium as gym
        >>> from stable_baselines3 import PPO
        >>> from sb3_diayn import DIAYNCallback, DIAYNWrapper, evaluate_skills
        >>> from sb3_diayn.evaluation import diagnose
        >>> env = DIAYNWrapper(gym.make("sb3_diayn/PointBox-v0"), n_skills=3)
        >>> model = PPO("MlpPolicy", env, n_steps=64).learn(64, callback=DIAYNCallback())
        >>> [finding.kind for finding in diagnose(evaluate_skills(model, env, n_episodes=1))]
        ['too_early']

    :param evaluation: an evaluation
    :return: findings, the most fundamental one first; without a warning, the last one is the note
        ``"healthy"``
    """
    if _has_few_steps(evaluation):
        return [_too_early(evaluation)]
    if _ignores_skill(evaluation):
        found = [_ignored(evaluation), *_static(evaluation)]
    elif _is_near_chance(evaluation):
        found = [_too_early(evaluation), *_static(evaluation)]
    else:
        found = [
            *_alike(evaluation),
            *_unknown_to_discriminator(evaluation),
            *_uncertain(evaluation),
            *_static(evaluation),
            *_narrow(evaluation),
        ]
    found += _upside_down(evaluation)
    if all(diagnosis.severity != "warning" for diagnosis in found):
        found.append(_healthy(evaluation))
    return found


def _information(evaluation: SkillEvaluation) -> float:
    """The larger of the known lower bounds on I(S; Z) in nats: both hold on fresh episodes."""
    return float(np.fmax(evaluation.held_out_bound, evaluation.discriminator_bound))


def _information_share(evaluation: SkillEvaluation) -> float:
    """The information as a share of log K; NaN for METRA with one episode of each skill."""
    return float(_information(evaluation) / np.log(evaluation.n_skills))


def _has_held_out(evaluation: SkillEvaluation) -> bool:
    return bool(np.isfinite(evaluation.held_out_bound))


def _has_few_steps(evaluation: SkillEvaluation) -> bool:
    steps = evaluation.info.get("num_timesteps", FEW_STEPS)
    return steps < FEW_STEPS and not _are_distinct(evaluation)


def _are_distinct(evaluation: SkillEvaluation) -> bool:
    return _information_share(evaluation) >= DISTINCT  # False where it is unknown


def _ignores_skill(evaluation: SkillEvaluation) -> bool:
    is_insensitive = evaluation.sensitivity < INSENSITIVE  # not for NaN, which is unknown
    return is_insensitive and not _are_distinct(evaluation)


def _is_near_chance(evaluation: SkillEvaluation) -> bool:
    chance = 1 / evaluation.n_skills
    excess = (evaluation.accuracy.mean() - chance) / (1 - chance)
    share = _information_share(evaluation)
    return bool(excess < NEAR_CHANCE and not share >= NEAR_CHANCE)  # it may be unknown


def _too_early(evaluation: SkillEvaluation) -> Diagnosis:
    steps = evaluation.info.get("num_timesteps")
    after = "" if steps is None else f" after {steps:,} steps"
    return Diagnosis(
        "too_early",
        "warning",
        f"Too early to tell{after}: {_distinct(evaluation)}, and {evaluation.recognizer} "
        f"recognises {_accuracy(evaluation)}.",
        f"Train longer and watch {_progress(evaluation)}. If it stays there, "
        f"try {_list(_FEWER, _FASTER, *_scaling(evaluation))}.",
    )


def _progress(evaluation: SkillEvaluation) -> str:
    if _is_metra(evaluation):
        return "diayn/skill_return, which should rise from 0"
    return "diayn/log_q_z, which should rise from -log K"


def _is_metra(evaluation: SkillEvaluation) -> bool:
    return bool(evaluation.info.get("objective") == "metra")


def _ignored(evaluation: SkillEvaluation) -> Diagnosis:
    return Diagnosis(
        "ignores_skill",
        "warning",
        f"The policy ignores the skill: at the same state its action changes by "
        f"{evaluation.sensitivity:.3f} (as a share; 0 is not at all) from skill to skill.",
        "Check that DIAYNCallback() was passed to learn(); train longer; give the skill reward "
        "more weight against the task reward or the entropy (reward_scale, skill_reward_weight, "
        "a smaller ent_coef).",
    )


def _alike(evaluation: SkillEvaluation) -> list[Diagnosis]:
    is_known = _has_held_out(evaluation)
    agreement = _agreement(evaluation.held_out_confusion if is_known else evaluation.confusion)
    groups = _connected_groups(agreement >= EQUAL_SKILLS_AGREEMENT)
    if not groups and (not is_known or _are_distinct(evaluation)):
        return []
    message = f"Skills are alike: {_distinct(evaluation)}."
    if groups:
        classifier = "a held-out classifier" if is_known else evaluation.recognizer
        shares = [agreement[np.ix_(g, g)][np.triu_indices(len(g), 1)].mean() for g in groups]
        pairs = zip(groups, shares, strict=True)
        named = [f"{' = '.join(map(str, g))} ({share:.0%})" for g, share in pairs]
        message += (
            f" Those that {classifier} takes for each other, with the share of its answers that "
            f"agree: {_enumerate(named)}."
        )
    return [
        Diagnosis(
            "alike",
            "warning",
            message,
            f"Train longer, ask for fewer skills (n_skills), or give {evaluation.recognizer} other "
            "coordinates (obs_indices).",
            tuple(sorted(skill for group in groups for skill in group)),
        )
    ]


def _unknown_to_discriminator(evaluation: SkillEvaluation) -> list[Diagnosis]:
    if not evaluation.has_probabilities:
        return []
    known, distinct = evaluation.discriminator_bound, evaluation.held_out_bound
    if _has_held_out(evaluation):
        is_unknown = known < KNOWN * distinct and _information_share(evaluation) >= NEAR_CHANCE
    else:  # what it recognises shows that the skills are distinct to some degree
        is_unknown = _information_share(evaluation) < NEAR_CHANCE
    if not is_unknown:
        return []
    worst = np.argsort(evaluation.log_q)[:3]
    named = ", ".join(f"{k} ({evaluation.log_q[k]:.1f} nats)" for k in worst)
    excess = metrics.overconfidence(evaluation.reliability)
    return [
        Diagnosis(
            "unknown_to_discriminator",
            "warning",
            "The discriminator does not know the skills of fresh episodes: "
            f"{_distinct(evaluation)}, but its own bound is {known:.2f} nats. It recognises "
            f"{_accuracy(evaluation)} and is {_confidence(evaluation, excess)}. At the bottom are "
            f"skills {named}.",
            _ignorance_advice(evaluation) if excess < OVERCONFIDENT else _memory_advice(evaluation),
            tuple(int(k) for k in worst),
        )
    ]


def _uncertain(evaluation: SkillEvaluation) -> list[Diagnosis]:
    """
    A classifier that learns from some episodes of a skill and does worse than a guess on the others
    has not seen what these do. How many such episodes there are is chance.
    """
    skills = np.flatnonzero(evaluation.held_out_log_q < -np.log(evaluation.n_skills))
    if len(skills) == 0:
        return []
    named = _enumerate([f"{k} ({evaluation.held_out_log_q[k]:.1f} nats)" for k in skills])
    return [
        Diagnosis(
            "uncertain",
            "note",
            "The number of distinct skills may be too low, and another evaluation may give another "
            f"one: {len(skills)} of {evaluation.n_skills} skills do in some episodes what they do "
            "not do in the others, so that the held-out classifier is worse than a guess: "
            f"{named}.",
            "Evaluate more episodes of each skill (n_episodes; --episodes of the commands).",
            tuple(int(k) for k in skills),
        )
    ]


_FEWER = "fewer skills (n_skills)"
_FASTER = "a higher learning_rate of the model and of DIAYNCallback (off-policy 0.001)"


def _scaling(evaluation: SkillEvaluation) -> list[str]:
    """The advice to scale the discriminator's inputs, unless the training did."""
    return [] if evaluation.info.get("normalize_obs") else ["normalize_obs: true"]


def _freezing(evaluation: SkillEvaluation) -> str:
    """The advice to freeze the policy at the end, unless the training did."""
    if evaluation.info.get("frozen_fraction"):
        return ""
    return (
        "Off-policy, let it learn the skills that the training ends with (frozen_fraction: 0.25). "
    )


def _list(*options: str) -> str:
    return " or ".join(filter(None, [", ".join(options[:-1]), options[-1]]))


def _ignorance_advice(evaluation: SkillEvaluation) -> str:
    updates, rate = "more updates (n_updates of DIAYNCallback)", "a larger learning_rate"
    options = _list(updates, rate, "a larger net_arch", *_scaling(evaluation))
    return f"{_freezing(evaluation)}Let it learn more: {options}."


def _memory_advice(evaluation: SkillEvaluation) -> str:
    advice = (
        "It knows the episodes that it was trained on, but not the next ones. "
        f"{_freezing(evaluation)}Collect more "
        "episodes of each skill per update (n_envs), shorten them (skill_duration), or train "
        "longer."
    )
    if evaluation.info.get("cross_fit"):  # what is logged is of episodes that it has not learned
        return advice
    return (
        f"{advice} Or let it reward only episodes that it has not learned (cross_fit, off-policy), "
        "or learn from older rollouts, too (n_rollouts, on-policy). diayn/log_q_z is measured on "
        "what it learns from and does not show this."
    )


def _confidence(evaluation: SkillEvaluation, excess: float) -> str:
    if np.isnan(excess):  # in old files
        return "overconfident about some"
    confidence = evaluation.accuracy.mean() + excess
    return f"{confidence:.0%} sure (calibration error {evaluation.calibration_error:.2f})"


NOT_YET = "They are not distinct yet: that comes first."


def _travel_advice(evaluation: SkillEvaluation) -> str:
    info, what = evaluation.info, "positions or velocities only (obs_indices)"
    if _hides_positions(info):
        what += " and shows them (exclude_current_positions_from_observation: false)"
    # METRA's dual variable is in the place of spectral_norm.
    options = ("normalize_obs", "spectral_norm")[: 1 + (not _is_metra(evaluation))]
    missing = [name for name in options if not info.get(name)]
    farther = f", with {' and '.join(missing)} so that longer ways earn more" if missing else ""
    advice = (
        f"Let {evaluation.recognizer} read {what}{farther}, or use shorter episodes or a "
        "skill_duration."
    )
    if info.get("env_id") in TRAVEL_ENVS and not _is_metra(evaluation):
        advice += (
            " Or train with --algo ppo --conf-file ppo_displacement, whose discriminator reads how "
            "far the agent has come in the last seconds."
        )
    return advice


def _hides_positions(info: Mapping[str, Any]) -> bool:
    """Whether the observation is MuJoCo's without the positions that ``info`` tells."""
    names, env_id = info.get("coordinates") or [""], info.get("env_id")
    if names[0] not in POSITION_KEYS or env_id not in gym.registry:
        return False
    option = "exclude_current_positions_from_observation"
    is_mujoco = str(gym.spec(env_id).entry_point).startswith("gymnasium.envs.mujoco")
    return is_mujoco and (info.get("env_kwargs") or {}).get(option, True) is not False


def _static(evaluation: SkillEvaluation) -> list[Diagnosis]:
    skills = np.flatnonzero(evaluation.movement < STATIC_MOVEMENT)
    if len(skills) == 0:
        return []
    named = _enumerate([f"{k} ({evaluation.movement[k]:.2f})" for k in skills])
    is_most = len(skills) >= MANY_STATIC * evaluation.n_skills
    are_distinct = _are_distinct(evaluation)
    return [
        Diagnosis(
            "static",
            "warning" if is_most else "note",
            f"{len(skills)} of {evaluation.n_skills} skills {'are distinct but ' * are_distinct}"
            f"hold a pose: in the second half of an episode they move less than {STATIC_MOVEMENT} "
            f"standard deviations of all states: {named}.",
            _travel_advice(evaluation) if are_distinct else NOT_YET,
            tuple(int(k) for k in skills),
        )
    ]


def _upside_down(evaluation: SkillEvaluation) -> list[Diagnosis]:
    skills = np.flatnonzero(evaluation.upside_down >= UPSIDE_DOWN)  # not for NaN, which is unknown
    if len(skills) == 0:
        return []
    named = _enumerate([f"{k} ({evaluation.upside_down[k]:.0%} of its steps)" for k in skills])
    return [
        Diagnosis(
            "upside_down",
            "warning",
            f"{len(skills)} of {evaluation.n_skills} skills have the torso upside down: {named}.",
            "Look at their films. To rule it out, end the episode when the torso turns over, "
            f"{_end_on_back(evaluation)}, and see that no skill gains by ending early.",
            tuple(int(k) for k in skills),
        )
    ]


def _end_on_back(evaluation: SkillEvaluation) -> str:
    env_id = str(evaluation.info.get("env_id"))
    if env_id.startswith("Ant-v"):  # as ppo_displacement.yml does
        return "with env_kwargs=dict(healthy_z_range=(0.35, 1.0))"
    return "in a wrapper inside DIAYNWrapper"


def _narrow(evaluation: SkillEvaluation) -> list[Diagnosis]:
    if not evaluation.has_probabilities:
        return []  # nor an importance
    # Coordinates that obs_indices leaves out were left out on purpose.
    read = np.asarray(evaluation.info.get("obs_indices", range(len(evaluation.importance))))
    importance = np.maximum(evaluation.importance[read], 0)
    n_top = max(1, int(NARROW_COORDINATES * len(read)))
    order = np.argsort(-importance, kind="stable")[:n_top]
    share = importance[order].sum() / max(importance.sum(), 1e-12)
    if len(read) < MIN_COORDINATES or share < NARROW_SHARE:
        return []
    names = evaluation.info.get("obs_names") or []
    called = {index: f", {name}" for index, name in enumerate(names)}
    parts = evaluation.info.get("parts") or [
        f"observation[{index}]{called.get(index, '')}" for index in read
    ]
    named = _enumerate([f"{parts[i]} ({importance[i]:.2f} nats)" for i in order])
    scale = "".join(f", or set {way} so that no scale dominates" for way in _scaling(evaluation))
    return [
        Diagnosis(
            "narrow_discriminator",
            "warning",
            f"The discriminator leans on {n_top} of {len(read)} coordinates for {share:.0%} of "
            f"what it knows: {named}.",
            "See whether skills that differ in these alone are what you want. If not, choose the "
            f"coordinates it reads with obs_indices{scale}.",
        )
    ]


def _healthy(evaluation: SkillEvaluation) -> Diagnosis:
    recognizer = evaluation.recognizer[0].upper() + evaluation.recognizer[1:]
    own = f", and its own bound is {evaluation.discriminator_bound:.2f} nats"
    return Diagnosis(
        "healthy",
        "note",
        f"No problem was found: {_distinct(evaluation)}. {recognizer} recognises "
        f"{_accuracy(evaluation)}{own * evaluation.has_probabilities}.",
        "Look at the films, and choose a skill to use or to fine-tune.",
    )


def _distinct(evaluation: SkillEvaluation) -> str:
    n_skills, why = evaluation.n_skills, evaluation.info.get("why_no_held_out")
    if not _has_held_out(evaluation):
        return f"the number of distinct skills is unknown ({why or 'an old evaluation'})"
    return (
        f"{evaluation.distinct_skills:.1f} of {n_skills} skills are distinct "
        f"({evaluation.held_out_bound:.2f} of {np.log(n_skills):.2f} nats)"
    )


def _accuracy(evaluation: SkillEvaluation) -> str:
    chance = 1 / evaluation.n_skills
    return f"{evaluation.accuracy.mean():.0%} of the states ({chance:.0%} by chance)"


def _agreement(confusion: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """
    The overlap of the answers to two skills: 1 minus their total variation distance. It is also 1
    if all states of both are recognised as one of them, unlike entries of the confusion matrix.
    """
    overlap: npt.NDArray[Any] = np.minimum(confusion[:, None], confusion[None]).sum(axis=-1)
    return overlap


def _connected_groups(is_linked: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Groups of at least two skills that are linked, also through others, by their first member."""
    # In a power of a matrix of truth values, skills are linked if a path of that length links them.
    reachable = np.linalg.matrix_power(is_linked, len(is_linked))
    groups = dict.fromkeys(tuple(np.flatnonzero(row).tolist()) for row in reachable)
    return [list(group) for group in groups if len(group) > 1]


def _enumerate(names: Sequence[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")
