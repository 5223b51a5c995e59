"""
A window in which keys switch between the skills of a model. It needs the extra ``report``.

:class:`Controls` is what the keys change, :class:`SkillPlayer` plays, and the window shows both.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from sb3_diayn.arguments import check_positive, check_seed
from sb3_diayn.checks import check_info
from sb3_diayn.discriminator import Discriminator
from sb3_diayn.evaluation.playing import SkillPolicy
from sb3_diayn.evaluation.trajectories import as_vec_env, borrow
from sb3_diayn.evaluation.video import (
    Frame,
    render,
    require_rendering,
    simplify_rendering,
    steps_per_second,
)
from sb3_diayn.files import require_extra
from sb3_diayn.model_zip import model_discriminator
from sb3_diayn.observations import Obs, index_obs, map_obs
from sb3_diayn.skills import SkillSpace, check_skill

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")  # some environments start the sound, too
# With OpenGL for the window, SDL and MuJoCo would take each other's context.
os.environ.setdefault("SDL_FRAMEBUFFER_ACCELERATION", "0")
with require_extra("report"):
    import pygame

__all__ = ["KEYS", "Controls", "SkillPlayer", "require_display", "view_skills"]

# Keys, and what they do, in words.
KEYS = {
    "0 to 9": "choose a skill, 1 2 is 12",
    "left, right": "previous skill, next skill",
    "up, down": "more, less of the second",
    "m, M": "next, previous second skill",
    "space": "pause, continue",
    ".": "pause, one step",
    "r": "reset",
    "+, -": "faster, slower",
    "q": "close",
}
TYPING_SECONDS = 1.0  # between the digits of one number
SHARE_STEP = 10  # percent
MIN_SPEED, MAX_SPEED = 1 / 16, 16.0
MAX_FPS = 30  # of the window
MAX_CATCH_UP = 0.1  # seconds; what is later than that is not made up for
N_GUESSES = 3
DISPLAY_VARIABLES = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
NO_WINDOW = {"dummy", "offscreen"}  # drivers of SDL without anything to see


class Controls:
    """
    What the keys of the viewer change.

    Example::

        >>> from sb3_diayn.evaluation.viewer import Controls
        >>> controls = Controls(n_skills=4, skill=2, second=0)
        >>> for key in ("right", "up", "up", "space"):  # skill 3, and a fifth of skill 0
        ...     controls.press(key)
        >>> controls.skill, [round(float(weight), 1) for weight in controls.weights]
        (3, [0.2, 0.0, 0.0, 0.8])
        >>> controls.is_paused
        True

    :param n_skills: the number of skills, K
    :param skill: the first one to play
    :param second: the one to mix it with, of which there is nothing at first; None for the next
        one
    :raises ValueError: if a skill does not exist
    """

    def __init__(self, n_skills: int, *, skill: int = 0, second: int | None = None) -> None:
        self.n_skills = n_skills
        self.skill = check_skill(skill, n_skills)
        self.second = (skill + 1) % n_skills if second is None else check_skill(second, n_skills)
        self.share = 0  # of the second skill, in percent
        self.speed = 1.0
        self.is_open, self.is_paused, self.is_reset_due = True, False, True
        self._is_step_due, self._owed_steps = False, 0.0
        self._typed, self._typed_at = "", -TYPING_SECONDS
        self._actions: dict[str, Callable[[], None]] = {
            "left": partial(self._choose, -1),
            "right": partial(self._choose, 1),
            "up": partial(self._mix, SHARE_STEP),
            "down": partial(self._mix, -SHARE_STEP),
            "m": partial(self._choose_second, 1),
            "M": partial(self._choose_second, -1),
            "space": self._pause,
            ".": self._step,
            "r": self._reset,
            "+": partial(self._change_speed, 2.0),
            "=": partial(self._change_speed, 2.0),  # the key of + on many keyboards
            "-": partial(self._change_speed, 0.5),
            "q": self._close,
            "escape": self._close,
        }

    @property
    def weights(self) -> npt.NDArray[np.float32]:
        """:return: the mixture of skills that acts, shape ``(K,)``"""
        weights = np.zeros(self.n_skills, np.float32)
        weights[self.second] += self.share / 100
        weights[self.skill] += 1 - self.share / 100
        return weights

    def press(self, key: str, *, now: float = 0.0) -> None:
        """
        :param key: the letter that it writes, or its name; without a meaning here it does nothing
        :param now: when, in seconds
        """
        if len(key) == 1 and key in "0123456789":
            self._type(key, now)
        else:
            action = self._actions.get(key) or self._actions.get(key.lower())
            if action is not None:
                action()

    def steps_due(self, seconds: float, steps_per_second: float) -> int:
        """
        :param seconds: how long the last frame was shown
        :param steps_per_second: of the environment in real time
        :return: how many steps to play before the next one
        """
        if self.is_paused:
            n_steps, self._is_step_due, self._owed_steps = int(self._is_step_due), False, 0.0
            return n_steps
        self._owed_steps += min(seconds, MAX_CATCH_UP) * steps_per_second * self.speed
        n_steps = int(self._owed_steps)
        self._owed_steps -= n_steps
        return n_steps

    def _type(self, digit: str, now: float) -> None:
        number = self._typed + digit if now - self._typed_at < TYPING_SECONDS else digit
        if int(number) >= self.n_skills:
            number = digit
        if int(number) < self.n_skills:
            self.skill = int(number)
        self._typed, self._typed_at = number, now

    def _choose(self, change: int) -> None:
        self.skill = (self.skill + change) % self.n_skills

    def _choose_second(self, change: int) -> None:
        self.second = (self.second + change) % self.n_skills

    def _mix(self, change: int) -> None:
        self.share = min(max(self.share + change, 0), 100)

    def _pause(self) -> None:
        self.is_paused = not self.is_paused

    def _step(self) -> None:
        self.is_paused = self._is_step_due = True

    def _reset(self) -> None:
        self.is_reset_due = True

    def _change_speed(self, factor: float) -> None:
        self.speed = min(max(self.speed * factor, MIN_SPEED), MAX_SPEED)

    def _close(self) -> None:
        self.is_open = False


class SkillPlayer:
    """
    Plays one environment step by step, with a mixture of skills that may change at each step.

    :param model: a model with skills
    :param env: one vectorised environment with ``DIAYNWrapper``
    :param discriminator: of the model
    :param deterministic: play the mode of the policy instead of samples
    :param seed: of the environment: each :meth:`reset` leads to the same start. None for any
    :raises ValueError: if there are several environments, or model and environment do not fit
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        env: VecEnv,
        discriminator: Discriminator,
        *,
        deterministic: bool = True,
        seed: int | None = None,
    ) -> None:
        if env.num_envs != 1:
            raise ValueError(f"env has {env.num_envs} environments; expected one, to look at.")
        self._policy, self._env, self._discriminator = SkillPolicy(model, env), env, discriminator
        self._space = SkillSpace.from_vec_env(env, discriminator.n_skills)
        self._normalizer = unwrap_vec_normalize(env)
        self._deterministic, self._seed = deterministic, check_seed(seed)
        self.last_episode: tuple[float, int] | None = None
        env.env_method("set_skill", 0)  # its own choice is not played
        self.reset()

    def reset(self) -> None:
        """Begin a new episode."""
        if self._seed is not None:
            self._env.seed(self._seed)
        self._obs: Any = self._env.reset()
        self._memory: Any = None
        self._starts = np.ones(1, bool)
        self._begin()

    def _begin(self) -> None:
        self.task_return, self.n_steps = 0.0, 0
        self._seen: tuple[Obs, npt.NDArray[Any]] | None = None

    def step(self, weights: npt.NDArray[np.float32]) -> None:
        """
        Play a step. After the last one of an episode, the next episode has begun, and
        ``last_episode`` holds return and length.

        :param weights: the mixture of skills that acts, shape ``(K,)``
        """
        obs = self._obs_with(weights)
        actions, self._memory = self._policy.predict(
            obs, self._memory, self._starts, self._deterministic
        )
        if self._starts[0]:
            self._begin()
        self._obs, _, self._starts, infos = self._env.step(np.array(actions))
        check_info(infos[0])
        self.task_return += infos[0]["task_reward"]
        self.n_steps += 1
        self._seen = self._next_obs(infos[0]), np.array(actions)
        if self._starts[0]:
            self.last_episode = self.task_return, self.n_steps

    def _obs_with(self, weights: npt.NDArray[np.float32]) -> Any:
        """The observation with the mixture in place of the skill that the environment has drawn."""
        env_obs, skills = self._space.split(self._raw_obs())
        is_played = np.asarray(skills)[..., None] >= 0  # a frame of before the episode has no skill
        obs: Any = self._space.append_weights(env_obs, np.where(is_played, weights, np.float32(0)))
        return obs if self._normalizer is None else self._normalizer.normalize_obs(obs)

    def _raw_obs(self) -> Any:
        return self._obs if self._normalizer is None else self._normalizer.get_original_obs()

    def _next_obs(self, info: dict[str, Any]) -> Obs:
        if self._starts[0]:
            return self._space.terminal_env_obs(info, self._normalizer)
        return index_obs(self._space.split_newest(self._raw_obs())[0], 0)

    @property
    def has_probabilities(self) -> bool:
        """:return: whether the skills have probabilities, unlike METRA's"""
        return self._discriminator.has_probabilities

    def probabilities(self) -> npt.NDArray[np.float64] | None:
        """
        :return: q(z|s') of each skill for the state after the last step, shape ``(K,)``; None
            before the first step of an episode, and with METRA's phi, which has none
        """
        if self._seen is None or not self.has_probabilities:
            return None
        next_obs, actions = self._seen
        device = self._discriminator.log_p.device
        scaled = self._discriminator.scale_action(actions).reshape(1, -1)
        with th.no_grad():
            obs = map_obs(lambda part: th.as_tensor(np.array(part)[None], device=device), next_obs)
            logits = self._discriminator(obs, th.as_tensor(scaled, device=device))
            known: npt.NDArray[np.float64] = logits[0].double().softmax(dim=0).cpu().numpy()
        return known


def view_skills(
    model: BaseAlgorithm,
    env: Any,
    *,
    skill: int = 0,
    second: int | None = None,
    discriminator: Discriminator | None = None,
    deterministic: bool = True,
    seed: int | None = 0,
    max_width: int | None = 480,
    title: str = "Skills",
) -> None:
    """
    Open a window in which keys switch the skill, mix two skills, pause, reset and change the speed;
    ``KEYS`` has all of them. A switch acts at once, within the episode. The window shows the
    present skill, the task return so far and the discriminator's three likeliest skills, which
    METRA's phi does not have. The call returns when the window is closed.

    Example::

        from sb3_diayn.evaluation.viewer import view_skills

        env = DIAYNWrapper(gym.make("Hopper-v5", render_mode="rgb_array"), n_skills=20)
        view_skills(SAC.load("hopper_skills"), env, skill=3)

    :param model: a model trained with ``DIAYNCallback``, just trained or loaded from its zip
    :param env: a ``DIAYNWrapper`` environment made with ``render_mode="rgb_array"``. It is reset
    :param skill: the first one to play
    :param second: the one to mix it with, once a key asks for it; None for any
    :param discriminator: None for the model's own
    :param deterministic: play the mode of the policy instead of samples
    :param seed: of environment and sampled actions: each reset leads to the same start. None for
        any
    :param max_width: see :func:`~sb3_diayn.evaluation.video.record_skills`
    :param title: of the window
    :raises ImportError: if the extra ``report`` is missing
    :raises OSError: if there is no display
    :raises RenderingError: if the environment renders no frame
    :raises ValueError: if an argument does not fit
    """
    require_display()
    vec_env = as_vec_env(env)
    if max_width is not None:
        simplify_rendering(vec_env, check_positive("max_width", max_width))
    with borrow(model, vec_env, seed):
        discriminator = discriminator or model_discriminator(model)
        controls = Controls(discriminator.n_skills, skill=skill, second=second)
        frame = require_rendering(vec_env)  # before the window opens
        player = SkillPlayer(model, vec_env, discriminator, deterministic=deterministic, seed=seed)
        with _window(title, frame) as screen:
            _show(controls, player, vec_env, screen)


def require_display() -> None:
    """
    Find out before the work whether a window can be seen.

    :raises OSError: if not
    """
    if not _has_display():
        raise OSError(
            "There is no display for a window; expected one. Look at the films on the page that "
            "sb3-diayn report RUN writes, or set DISPLAY."
        )


def _has_display() -> bool:
    if sys.platform == "linux" and not any(map(os.environ.get, DISPLAY_VARIABLES)):
        return False  # SDL would complain on the standard error stream
    try:
        pygame.display.init()
    except pygame.error:
        return False
    if pygame.display.get_driver() not in NO_WINDOW:
        return True
    pygame.display.quit()
    return False


# -- the window --------------------------------------------------------------------------------

FRAME_HEIGHT, PANEL_WIDTH, MARGIN = 480, 310, 16
PAPER, INK, SOFT, ACCENT = (24, 27, 32), (235, 238, 242), (150, 160, 172), (0, 168, 150)


@contextmanager
def _window(title: str, frame: Frame) -> Iterator[pygame.Surface]:
    height, width, _ = frame.shape
    pygame.font.init()
    size = (round(width * FRAME_HEIGHT / height) + PANEL_WIDTH, FRAME_HEIGHT)
    screen = pygame.display.set_mode(size, pygame.RESIZABLE)
    pygame.display.set_caption(title)
    pygame.key.set_repeat(400, 100)  # milliseconds
    try:
        yield screen
    finally:
        pygame.display.quit()


def _show(controls: Controls, player: SkillPlayer, env: VecEnv, screen: pygame.Surface) -> None:
    """Play until the window is closed."""
    clock, fps, panel, seconds = pygame.time.Clock(), steps_per_second(env), _Panel(), 0.0
    while controls.is_open:
        for key in _keys():
            controls.press(key, now=time.monotonic())
        if is_new := controls.is_reset_due:
            player.reset()
            controls.is_reset_due = False
        for _ in range(n_steps := controls.steps_due(seconds, fps)):
            player.step(controls.weights)
        if is_new or n_steps:
            frame = render(env).copy()
        screen.fill(PAPER)
        _draw_frame(screen, frame)
        panel.draw(screen, controls, player)
        pygame.display.flip()
        seconds = clock.tick(MAX_FPS) / 1000


def _keys() -> Iterator[str]:
    """What was pressed: the letter that a key writes, which knows the keyboard, or its name."""
    for event in pygame.event.get():
        if event.type == pygame.QUIT:
            yield "q"
        elif event.type == pygame.KEYDOWN:
            letter = event.unicode if event.unicode.isprintable() else ""
            yield letter.strip() or pygame.key.name(event.key)


def _draw_frame(screen: pygame.Surface, frame: Frame) -> None:
    """As large as fits next to the panel."""
    height, width, _ = frame.shape
    room = screen.get_width() - PANEL_WIDTH, screen.get_height()
    scale = max(min(room[0] / width, room[1] / height), 1 / min(width, height))
    size = round(width * scale), round(height * scale)
    picture = pygame.image.frombuffer(np.ascontiguousarray(frame).tobytes(), (width, height), "RGB")
    corner = max(room[0] - size[0], 0) // 2, max(room[1] - size[1], 0) // 2
    screen.blit(pygame.transform.smoothscale(picture, size), corner)


class _Panel:
    """The text on the right."""

    def __init__(self) -> None:
        sizes = {"large": 44, "normal": 26, "small": 20}
        self._fonts = {name: pygame.font.Font(None, size) for name, size in sizes.items()}

    def draw(self, screen: pygame.Surface, controls: Controls, player: SkillPlayer) -> None:
        """Draw everything, from top to bottom."""
        self._screen, self._left = screen, screen.get_width() - PANEL_WIDTH + MARGIN
        self._top = MARGIN
        self._write(f"skill {controls.skill} of {controls.n_skills}", "large")
        if controls.share:
            text = f"{100 - controls.share} % and {controls.share} % of skill {controls.second}"
            self._write(text, color=ACCENT)
        else:
            self._write(f"second skill: {controls.second}", color=SOFT)
        self._top += MARGIN // 2
        self._write(f"return {player.task_return:.1f}   step {player.n_steps}")
        if player.last_episode is not None:
            task_return, n_steps = player.last_episode
            self._write(f"last episode: {task_return:.1f}, {n_steps} steps", "small", SOFT)
        self._write("paused" if controls.is_paused else f"speed {controls.speed:g}", "small", SOFT)
        self._top += MARGIN
        if player.has_probabilities:
            self._draw_guesses(controls, player.probabilities())
            self._top += MARGIN
        for key, meaning in KEYS.items():
            self._write_key(key, meaning)

    def _draw_guesses(
        self, controls: Controls, probabilities: npt.NDArray[np.float64] | None
    ) -> None:
        self._write("discriminator's guess", "small", SOFT)
        if probabilities is None:
            probabilities = np.zeros(controls.n_skills)
        for skill in np.argsort(-probabilities, kind="stable")[:N_GUESSES]:
            share, top = float(probabilities[skill]), self._top
            is_played = controls.weights[skill] > 0
            self._write(f"{skill}", color=ACCENT if is_played else INK)
            room = PANEL_WIDTH - 2 * MARGIN - 90
            bar = pygame.Rect(self._left + 32, top + 2, max(round(room * share), 1), 14)
            pygame.draw.rect(self._screen, ACCENT if is_played else SOFT, bar)
            self._put(f"{100 * share:.0f} %", "small", INK, (self._left + 40 + room, top + 2))

    def _write_key(self, key: str, meaning: str) -> None:
        self._put(key, "small", INK, (self._left, self._top))
        self._put(meaning, "small", SOFT, (self._left + 84, self._top))
        self._top += 18

    def _write(self, text: str, font: str = "normal", color: tuple[int, int, int] = INK) -> None:
        self._top += self._put(text, font, color, (self._left, self._top)) + 4

    def _put(
        self, text: str, font: str, color: tuple[int, int, int], corner: tuple[int, int]
    ) -> int:
        """Draw a line and return its height."""
        picture = self._fonts[font].render(text, True, color)
        self._screen.blit(picture, corner)
        return picture.get_height()
