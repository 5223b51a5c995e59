"""Where the skill sits in an observation, and how skills are drawn."""

import os
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import create_empty_array
from stable_baselines3.common.vec_env import (
    VecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecNormalize,
)

from sb3_diayn.arguments import check_positive
from sb3_diayn.observations import (
    FloatArray,
    Obs,
    along,
    as_channels_first,
    as_float32,
    cast,
    index_obs,
    is_supported,
    is_vector,
    map_obs,
    map_spaces,
    merge_frames,
    split_frames,
    stack_axis,
    stacked,
    unstacked,
)

SkillArray = npt.NDArray[np.integer[Any]]

SKILL_KEY, OBSERVATION_KEY = "skill", "observation"


def check_n_skills(n_skills: Any) -> int:
    """
    :param n_skills: the number of skills, K
    :return: the same number as an ``int``
    :raises ValueError: if it is not an integer of at least 2
    """
    if isinstance(n_skills, bool) or not isinstance(n_skills, Integral) or int(n_skills) < 2:
        raise ValueError(
            f"n_skills={n_skills!r} is not a number of skills; expected an integer of at least 2. "
            "A single skill leaves nothing to distinguish: pass n_skills=2 or more."
        )
    return int(n_skills)


def check_skill(skill: Any, n_skills: int) -> int:
    """
    :param skill: index of a skill
    :param n_skills: the number of skills, K
    :return: the same index as an ``int``
    :raises ValueError: if it is not an integer between 0 and ``n_skills - 1``
    """
    if isinstance(skill, np.ndarray) and skill.shape == ():  # what predict() of a model returns
        skill = skill[()]
    is_integer = isinstance(skill, Integral) and not isinstance(skill, bool)
    if not is_integer or not 0 <= int(skill) < n_skills:
        raise ValueError(
            f"skill={skill!r} is not one of the skills; expected an integer from 0 to "
            f"{n_skills - 1}. Skills are counted from 0: choose one of those {n_skills}."
        )
    return int(skill)


class SkillSpace:
    """
    The observation space that a policy conditioned on a skill sees.

    ========================== ============================================================
    the environment's own      the policy's
    ========================== ============================================================
    ``Box`` of one dimension   one ``Box``, float32: the observation, then the skill's one-hot
    ``Dict``                   the same ``Dict`` with one more key, ``"skill"``
    any other that SB3 knows   ``Dict(observation=..., skill=...)``
    ========================== ============================================================

    Worked example, an observation of 2 numbers and 3 skills: ``append([0.5, -1], 1)`` is
    ``[0.5, -1, 0, 1, 0]`` and ``split`` of that is ``([0.5, -1], 1)``.

    ``VecFrameStack`` outside puts k of these after each other, each with the skill of its step.
    ``split`` then gives k frames and k skills, -1 for a frame of before the episode.

    :param env_space: observation space of the environment
    :param n_skills: the number of skills, K
    :param n_stack: frames of a ``VecFrameStack`` outside, k
    :raises ValueError: if SB3 has no extractor for the space, it already has a key ``"skill"``, or
        K is not at least 2
    """

    def __init__(self, env_space: spaces.Space[Any], n_skills: int, n_stack: int = 1) -> None:
        self.n_skills, self.n_stack = check_n_skills(n_skills), n_stack
        self.env_space = as_float32(_check_env_space(env_space))
        self.is_vector = is_vector(self.env_space)
        # One more row, of zeros: the one-hot of skill -1, which a frame of no episode has.
        self._one_hots = np.eye(self.n_skills + 1, self.n_skills, dtype=np.float32)
        self.observation_space = self.stack_space = self.env_space
        self.observation_space = self._augmented_space()
        self._axes = map_spaces(stack_axis, self.env_space)
        if n_stack > 1:
            self.stack_space = stacked(self.env_space, n_stack)
            self.observation_space = stacked(self.observation_space, n_stack)

    def _augmented_space(self) -> spaces.Space[Any]:
        one_hot = spaces.Box(0.0, 1.0, (self.n_skills,), np.float32)
        if self.is_vector:
            low, high = self.env_space.low, self.env_space.high  # type: ignore[attr-defined]
            low, high = np.concatenate([low, one_hot.low]), np.concatenate([high, one_hot.high])
            return spaces.Box(low, high, dtype=np.float32)
        if isinstance(self.env_space, spaces.Dict):
            return spaces.Dict({**self.env_space.spaces, SKILL_KEY: one_hot})
        return spaces.Dict({OBSERVATION_KEY: self.env_space, SKILL_KEY: one_hot})

    @classmethod
    def from_augmented(
        cls, observation_space: spaces.Space[Any], n_skills: int, n_stack: int = 1
    ) -> "SkillSpace":
        """
        The same object, starting from the space that a model was built on.

        :param observation_space: the augmented space
        :param n_skills: the number of skills, K
        :param n_stack: frames of a ``VecFrameStack`` outside, k
        :raises ValueError: if the space has no one-hot of K skills where it belongs
        """
        n_skills = check_n_skills(n_skills)
        env_space = None
        if n_stack == 1 or isinstance(observation_space, (spaces.Box, spaces.Dict)):
            env_space = _without_skill(unstacked(observation_space, n_stack), n_skills)
        if env_space is None:
            raise ValueError(
                f"observation_space={observation_space} does not end with the one-hot of "
                f"n_skills={n_skills} skills; expected the space of a DIAYNWrapper. "
                "Wrap the environment with DIAYNWrapper, outside every wrapper that changes the "
                "observation, and use the number of skills that the model was trained with."
            )
        skill_space = cls(env_space, n_skills, n_stack)
        if n_stack > 1 and skill_space.observation_space != observation_space:
            raise ValueError(
                f"observation_space={observation_space} does not hold {n_stack} stacked frames; "
                f"expected {skill_space.observation_space}. Use VecFrameStack around the "
                "vectorised environments, without channels_order."
            )
        return skill_space

    @classmethod
    def from_vec_env(cls, env: VecEnv, n_skills: int) -> "SkillSpace":
        """
        :param env: vectorised environments, with a ``VecFrameStack`` or without
        :param n_skills: the number of skills, K
        :raises ValueError: see :meth:`from_augmented`
        """
        n_stack, layer = 1, env
        # Frames that are stacked within VecDIAYNWrapper are the environment's own.
        while isinstance(layer, VecEnvWrapper) and "skill_space" not in vars(layer):
            if isinstance(layer, VecFrameStack):
                n_stack = layer.stacked_obs.n_stack
            layer = layer.venv
        return cls.from_augmented(env.observation_space, n_skills, n_stack)

    def append(self, env_obs: Obs, skill: npt.ArrayLike) -> Obs:
        """
        :param env_obs: observations of the environment, one or a batch: arrays whose shape ends
            with ``stack_space``, which without ``VecFrameStack`` is ``env_space``
        :param skill: index of a skill, a scalar or shape ``(n,)``; with k frames ``(n, k)``
        :return: what the policy sees: for vectors float32, shape ``(d + K,)`` or ``(n, d + K)``
        """
        return self.append_weights(env_obs, self.one_hot(skill))

    def one_hot(self, skill: npt.ArrayLike) -> FloatArray:
        """
        :param skill: indices of skills, any shape; -1 for none
        :return: their one-hots, float32, with one more axis, of K
        """
        return self._one_hots.take(np.asarray(skill), axis=0)

    def append_weights(self, env_obs: Obs, weights: npt.NDArray[Any]) -> Obs:
        """
        :param env_obs: see :meth:`append`
        :param weights: what stands in the place of the one-hot, shape ``(K,)`` or ``(n, K)``; with
            k frames ``(n, k, K)``
        :return: what the policy sees
        """
        if self.n_stack > 1:
            return self._append_to_stack(env_obs, weights)
        if self.is_vector:
            return np.concatenate([env_obs, weights], axis=-1, dtype=np.float32)
        parts = env_obs if isinstance(env_obs, dict) else {OBSERVATION_KEY: env_obs}
        return {**{key: cast(part) for key, part in parts.items()}, SKILL_KEY: weights}

    def _append_to_stack(self, env_obs: Obs, weights: npt.NDArray[Any]) -> Obs:
        if self.is_vector:
            frames = env_obs.reshape(*weights.shape[:-1], -1)
            return merge_frames(np.concatenate([frames, weights], axis=-1, dtype=np.float32))
        parts = env_obs if isinstance(env_obs, dict) else {OBSERVATION_KEY: env_obs}
        return {**parts, SKILL_KEY: merge_frames(weights)}

    def append_first(self, env_obs: Obs, skill: npt.ArrayLike) -> Obs:
        """
        :param env_obs: a batch of observations of the environment
        :param skill: indices of skills, shape ``(n,)``
        :return: what the policy sees if they are the first of their episodes
        """
        if self.n_stack == 1:
            return self.append(env_obs, skill)
        skills = np.asarray(skill)
        stack = index_obs(create_empty_array(self.stack_space, 1, np.zeros), [0] * len(skills))
        blank = np.full((len(skills), self.n_stack - 1), -1)
        return self.append(self.push(stack, env_obs), np.column_stack([blank, skills]))

    def split(self, observation: Obs) -> tuple[Obs, SkillArray]:
        """
        Undo :meth:`append`.

        :param observation: what the policy sees, one or a batch
        :return: observations of the environment, and the index of the skill, shape ``()`` or
            ``(n,)``; with k frames ``(k,)`` or ``(n, k)``
        """
        if not self.is_vector:
            parts = {key: part for key, part in observation.items() if key != SKILL_KEY}
            is_dict = isinstance(self.env_space, spaces.Dict)
            return parts if is_dict else parts[OBSERVATION_KEY], self._skills(
                split_frames(observation[SKILL_KEY], self.n_stack)
            )
        frames = split_frames(observation, self.n_stack) if self.n_stack > 1 else observation
        env_obs = frames[..., : -self.n_skills].astype(np.float32, copy=False)
        one_hots = frames[..., -self.n_skills :]
        if self.n_stack == 1:
            return env_obs, one_hots.argmax(axis=-1)
        return merge_frames(env_obs), self._skills(one_hots)

    def env_obs(self, observation: Obs) -> Obs:
        """
        :param observation: what the policy sees, one or a batch
        :return: the first half of :meth:`split`, in less time
        """
        if self.is_vector and self.n_stack == 1:
            return observation[..., : -self.n_skills]
        return self.split(observation)[0]

    def _skills(self, one_hots: npt.NDArray[Any]) -> SkillArray:
        skills: SkillArray = one_hots.argmax(axis=-1)
        return skills if self.n_stack == 1 else np.where(one_hots.any(axis=-1), skills, -1)

    def split_newest(self, observation: Obs) -> tuple[Obs, SkillArray]:
        """
        :param observation: what the policy sees, one or a batch
        :return: as :meth:`split`; of k frames the newest one and its skill alone
        """
        env_obs, skills = self.split(observation)
        if self.n_stack == 1:
            return env_obs, skills
        return self.newest_frame(env_obs), skills[..., -1]

    def newest_frame(self, env_obs: Obs) -> Obs:
        """
        :param env_obs: from :meth:`split`, k frames
        :return: the newest of them; without ``VecFrameStack`` the same
        """
        if self.n_stack == 1:
            return env_obs

        def newest(part: Any, axis: int) -> Any:
            return part[along(axis, slice(-(part.shape[axis] // self.n_stack), None))]

        return map_obs(newest, env_obs, self._axes)

    def terminal_env_obs(self, info: dict[str, Any], vec_normalize: VecNormalize | None) -> Obs:
        """
        The environment's observation in which an episode has ended.

        :param info: of the last step of an episode
        :param vec_normalize: what normalises the model's observations, if something does
        :return: the observation, raw. Where a wrapper outside of ``DIAYNWrapper`` has ended the
            episode, ``VecNormalize`` has clipped it before
        :raises ValueError: if ``info`` does not hold it
        """
        if "terminal_env_obs" in info:
            return as_channels_first(info["terminal_env_obs"], self.env_space)
        last: Any = info.get("terminal_observation")
        if last is None:
            raise missing_last_obs(info)
        if vec_normalize is not None:
            last = vec_normalize.unnormalize_obs(last)
        return self.split_newest(last)[0]

    def push(self, env_obs: Obs, frame: Obs) -> Obs:
        """
        :param env_obs: from :meth:`split`, k frames
        :param frame: the frame that comes next
        :return: the newest k - 1 frames, then that one; without ``VecFrameStack`` the frame
        """
        if self.n_stack == 1:
            return frame

        def push_part(part: Any, new: Any, axis: int) -> Any:
            kept = part[along(axis, slice(new.shape[axis], None))]
            return np.concatenate([kept, new], axis=axis)

        return map_obs(push_part, env_obs, frame, self._axes)


def _check_env_space(space: spaces.Space[Any]) -> spaces.Space[Any]:
    parts = space.spaces if isinstance(space, spaces.Dict) else {OBSERVATION_KEY: space}
    if SKILL_KEY in parts:
        raise ValueError(
            f"observation_space={space} already has a key {SKILL_KEY!r}; expected it to be free "
            "for the skill. Rename the key in the environment."
        )
    if not parts or not all(map(is_supported, parts.values())):
        raise ValueError(
            f"observation_space={space} is not supported; expected a Box, a Discrete or "
            "MultiDiscrete that starts at 0, a MultiBinary, or a Dict of these. Flatten it first, "
            "for example with gymnasium.wrappers.FlattenObservation(env), or leave keys out with "
            "FilterObservation."
        )
    # From Dict(observation=..., skill=...) nobody could tell whether the environment's own space
    # was a Dict: one with this key alone counts as what it holds. Vectors cannot be mistaken.
    if list(parts) == [OBSERVATION_KEY] and not is_vector(parts[OBSERVATION_KEY]):
        return parts[OBSERVATION_KEY]
    return space


def _without_skill(space: spaces.Space[Any], n_skills: int) -> spaces.Space[Any] | None:
    """The environment's own space, or None if there is no one-hot where it belongs."""
    if isinstance(space, spaces.Box) and len(space.shape) == 1:
        is_one_hot = _is_one_hot(space.low[-n_skills:], space.high[-n_skills:], n_skills)
        if not is_one_hot or len(space.low) == n_skills:
            return None
        return spaces.Box(space.low[:-n_skills], space.high[:-n_skills])
    if not isinstance(space, spaces.Dict):
        return None
    parts = dict(space.spaces)
    skill = parts.pop(SKILL_KEY, None)
    if not isinstance(skill, spaces.Box) or not _is_one_hot(skill.low, skill.high, n_skills):
        return None
    return spaces.Dict(parts) if parts else None


def _is_one_hot(low: npt.NDArray[Any], high: npt.NDArray[Any], n_skills: int) -> bool:
    return low.shape == (n_skills,) and not low.any() and bool((high == 1).all())


def missing_last_obs(info: dict[str, Any]) -> ValueError:
    """
    :param info: of the last step of an episode
    :return: an error that says what it lacks
    """
    return ValueError(
        f"info={sorted(info)} has no 'terminal_observation' at the end of an episode; expected the "
        "last observation, as SB3 asks of a VecEnv, since the one returned belongs to the next "
        "episode. Correct the VecEnv."
    )


SKILL_VARIABLE = "DIAYN_SKILL"
SKILL_RULES = ("uniform", "balanced", "cycle", "stratified")
# Environments whose seeds have the same multiple of this shuffle in the same way.
SHUFFLE_GROUP = 2**16
# What a stream of random numbers is for: streams of one seed must differ.
UNIFORM, BALANCED = 1, 2


class SkillSampler:
    """
    Draws the skills of one environment, from a generator of its own.

    ``"balanced"`` and ``"cycle"`` go through rounds in which each skill occurs once. Environments
    with consecutive seeds, which ``VecEnv.seed`` hands out, shuffle their rounds in the same way
    and begin at consecutive places. So K environments that begin an episode together play K
    different skills, also in different processes. With ``"stratified"`` each environment always
    plays the same skill, and consecutive ones different skills. Each skill then has the same share
    of the *steps*, however long its episodes are.

    Worked example, 3 skills and the shuffled rounds (2, 0, 1), (1, 2, 0): the environment with seed
    0 draws 2, 0, 1, 1, 2, 0, and that with seed 1 draws 0, 1, 2, 2, 0, 1. ``"stratified"`` gives
    0, 0, 0 and 1, 1, 1.

    :param n_skills: the number of skills, K
    :param skill: the standing rule, see :class:`~sb3_diayn.wrappers.DIAYNWrapper`; the environment
        variable ``DIAYN_SKILL`` overrides it
    :param index: of the environment in its training, where ``"cycle"`` begins
    :raises ValueError: if ``skill`` is neither a rule nor one of the skills
    """

    def __init__(self, n_skills: int, skill: int | str, index: int = 0) -> None:
        self.n_skills, self.index = n_skills, index
        self.set_rule(os.environ.get(SKILL_VARIABLE, "").strip() or skill)
        self.p: npt.NDArray[np.float64] = np.full(n_skills, 1 / n_skills)
        self.seed(None)

    def set_rule(self, skill: int | str) -> None:
        """
        :param skill: the standing rule from the next draw on
        :raises ValueError: if it is neither a rule nor one of the skills
        """
        if isinstance(skill, str) and skill not in SKILL_RULES:
            try:
                skill = int(skill)
            except ValueError:
                raise ValueError(
                    f"skill={skill!r} is not a rule for drawing skills; expected an index or one "
                    f"of {SKILL_RULES}. It may also come from the variable {SKILL_VARIABLE}."
                ) from None
        self.rule = skill if isinstance(skill, str) else check_skill(skill, self.n_skills)

    def seed(self, seed: int | None) -> None:
        """
        Start the sequence of draws again.

        :param seed: of this environment; None for a random one
        """
        self.is_seeded = seed is not None
        self._seed = int(np.random.SeedSequence().generate_state(1)[0] if seed is None else seed)
        # Not the seed itself: the environment's own generator may have it, and would give the same
        # numbers.
        self._rng = np.random.default_rng([self._seed, UNIFORM])
        self._n_draws = 0

    @property
    def stratum(self) -> int:
        """:return: the skill that ``"stratified"`` always draws"""
        return self._seed % self.n_skills

    def join(self, index: int, seed: int) -> None:
        """
        Become one of several environments of a training.

        :param index: of this environment
        :param seed: of the first environment, for one that has no seed yet
        """
        self.index = index
        if not self.is_seeded:
            self.seed(seed + index)

    def go_on(self, n_steps: int) -> None:
        """
        Draw other skills than at the beginning of a training with the same seed. When SB3 loads a
        model, it seeds the environments as it does for a new model.

        :param n_steps: that the training has made
        """
        n_draws = self._n_draws
        # Strata and places in a round stay what they are.
        self.seed(self._seed + n_steps * self.n_skills * SHUFFLE_GROUP)
        self._n_draws = n_draws

    def draw(self, options: dict[str, Any] | None = None) -> int:
        """
        :param options: of a reset; with ``{"skill": 3}`` that one is taken and nothing is drawn
        :return: index of the next skill
        :raises ValueError: if ``options`` name none of the skills
        """
        if options is not None and "skill" in options:
            return check_skill(options["skill"], self.n_skills)
        if isinstance(self.rule, int):
            return self.rule
        number = self._n_draws
        self._n_draws += 1
        if self.rule == "uniform":
            return int(self._rng.choice(self.n_skills, p=self.p))
        if self.rule == "stratified":
            return self.stratum
        if self.rule == "cycle":
            return (self.index + number) % self.n_skills
        group, block = self._seed // SHUFFLE_GROUP, number // self.n_skills
        shuffle = np.random.default_rng([group, BALANCED, block])
        return int(shuffle.permutation(self.n_skills)[(self._seed + number) % self.n_skills])

    def redraw(self, skill: int) -> int:
        """
        :param skill: what has been played for ``skill_duration`` steps
        :return: what follows within the episode: a fixed skill is changed between episodes only
        """
        return skill if isinstance(self.rule, int) else self.draw()

    def state(self) -> dict[str, Any]:
        """:return: all that the next draws depend on, but for the rule; plain values"""
        return {
            "seed": self._seed,
            "is_seeded": self.is_seeded,
            "generator": self._rng.bit_generator.state,
            "n_draws": self._n_draws,
            "index": self.index,
            "p": self.p,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """:param state: from :meth:`state`"""
        self._seed, self.is_seeded = state["seed"], state["is_seeded"]
        self._rng.bit_generator.state = state["generator"]
        self._n_draws, self.index, self.p = state["n_draws"], state["index"], state["p"]


def probabilities(log_p: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """
    :param log_p: log p(z) of a discriminator, shape ``(K,)``
    :return: p(z); float32 logarithms do not sum to 1 in float64, this does
    """
    p = np.exp(log_p.astype(np.float64))
    normalized: npt.NDArray[np.float64] = p / p.sum()
    return normalized


def check_duration(skill_duration: int | None) -> int | None:
    """
    :param skill_duration: steps for which a skill is held; None for the episode
    :return: the same
    :raises ValueError: if it is not a positive integer
    """
    if skill_duration is None:
        return None
    hint = "Leave it out to hold a skill for the whole episode."
    return check_positive("skill_duration", skill_duration, hint)
