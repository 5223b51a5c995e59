"""Small synthetic environments whose numbers can be checked by hand."""

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces


class CountingEnv(gym.Env):
    """
    The observation is (steps of this episode, episodes so far); the task reward is the step.

    :param length: steps of an episode
    :param truncate: end episodes by a time limit instead of a terminal state
    """

    def __init__(self, length: int = 5, truncate: bool = False, discrete: bool = False) -> None:
        self.observation_space = spaces.Box(-1e6, 1e6, (2,), np.float64)
        box = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = spaces.Discrete(3) if discrete else box
        self.length, self.truncate = length, truncate
        self.steps, self.episodes = 0, -1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.episodes = 0, self.episodes + 1
        return np.array([0.0, self.episodes]), {"options": options}

    def step(self, action):
        self.steps += 1
        done = self.steps == self.length
        obs = np.array([float(self.steps), float(self.episodes)])
        return obs, float(self.steps), done and not self.truncate, done and self.truncate, {}


class PointEnv(gym.Env):
    """
    A point in the plane. The action is a velocity of at most ``speed`` per coordinate and step;
    the task reward is the x coordinate; ``info`` tells the position as MuJoCo does.

    :param length: steps of an episode, which ends by a time limit
    :param speed: distance of a full action
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self, length: int = 20, speed: float = 1.0, render_mode: str | None = None
    ) -> None:
        self.observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.length, self.speed, self.render_mode = length, speed, render_mode
        self.position = np.zeros(2)
        self.steps = 0

    def _info(self) -> dict[str, float]:
        return {"x_position": self.position[0], "y_position": self.position[1]}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-0.05, 0.05, 2)
        self.steps = 0
        return self.position.copy(), self._info()

    def step(self, action):
        self.position = self.position + self.speed * np.clip(action, -1.0, 1.0)
        self.steps += 1
        obs = self.position.copy()
        return obs, float(obs[0]), False, self.steps >= self.length, self._info()

    def render(self):
        frame = np.full((64, 64, 3), 255, np.uint8)
        x, y = np.clip(self.position / (self.speed * self.length) * 28 + 32, 2, 61).astype(int)
        frame[y - 2 : y + 3, x - 2 : x + 3] = (200, 30, 30)
        return frame


class TwoStateEnv(gym.Env):
    """
    Two states, and the action chooses the next one: with two skills the best skill reward is
    log 2.
    """

    def __init__(self, length: int = 10) -> None:
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.length = length
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.array([1.0, 0.0], np.float32), {}

    def step(self, action):
        self.steps += 1
        obs = np.eye(2, dtype=np.float32)[int(action[0] > 0)]
        return obs, 0.0, False, self.steps >= self.length, {}
