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
    :param first_episode: where the episodes are counted from
    """

    def __init__(
        self,
        length: int = 5,
        truncate: bool = False,
        discrete: bool = False,
        first_episode: int = 0,
    ) -> None:
        self.observation_space = spaces.Box(-1e6, 1e6, (2,), np.float64)
        box = spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.action_space = spaces.Discrete(3) if discrete else box
        self.length, self.truncate = length, truncate
        self.steps, self.episodes = 0, first_episode - 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.episodes = 0, self.episodes + 1
        return np.array([0.0, self.episodes]), {"options": options}

    def step(self, action):
        self.steps += 1
        done = self.steps == self.length
        obs = np.array([float(self.steps), float(self.episodes)])
        return obs, float(self.steps), done and not self.truncate, done and self.truncate, {}


class StepEnv(gym.Env):
    """
    The observation is the step of the episode; each step brings a reward of 1.

    :param length: steps of an episode, which ends by a time limit
    """

    observation_space = spaces.Box(0, 100, (1,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length: int = 100) -> None:
        self.length, self.steps = length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.steps += 1
        return np.full(1, self.steps, np.float32), 1.0, False, self.steps == self.length, {}


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


class EchoEnv(gym.Env):
    """
    The observation shows which of four actions was the last one, in any space; the first
    observation of an episode shows action 0. An episode ends after ``length`` steps.

    :param kind: name of the space
    :param box: take actions from a ``Box`` of two numbers, whose signs choose one of the four
    :param truncate: end episodes by a time limit instead of a terminal state
    """

    SPACES: ClassVar[dict[str, spaces.Space]] = {
        "vector": spaces.Box(0.0, 1.0, (4,), np.float64),
        "matrix": spaces.Box(0.0, 1.0, (2, 2), np.float64),
        "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
        "image_first": spaces.Box(0, 255, (3, 36, 36), np.uint8),
        "discrete": spaces.Discrete(5),
        "multi_discrete": spaces.MultiDiscrete([2, 3]),
        "multi_binary": spaces.MultiBinary(2),
        "dict": spaces.Dict(
            position=spaces.Box(-np.inf, np.inf, (2,), np.float64),
            clock=spaces.Discrete(100),
            noise=spaces.Box(-1.0, 1.0, (3,), np.float32),
        ),
        "image_dict": spaces.Dict(
            camera=spaces.Box(0, 255, (36, 36, 1), np.uint8),
            clock=spaces.Box(0.0, 100.0, (1,), np.float32),
        ),
        "goal": spaces.Dict(
            observation=spaces.Box(0.0, 1.0, (4,), np.float64),
            achieved_goal=spaces.Box(0.0, 1.0, (2,), np.float64),
            desired_goal=spaces.Box(0.0, 1.0, (2,), np.float64),
        ),
    }

    def __init__(
        self, kind: str, box: bool = False, length: int = 5, truncate: bool = True
    ) -> None:
        self.observation_space = self.SPACES[kind]
        self.action_space = spaces.Box(-1.0, 1.0, (2,)) if box else spaces.Discrete(4)
        self.kind, self.length, self.truncate = kind, length, truncate

    def observe(self, shown: int) -> Any:
        """The observation that shows an action; NumPy's types as environments give them."""
        bits = np.array([shown // 2, shown % 2])
        one_hot = np.eye(4)[shown]
        image = np.kron(one_hot.reshape(2, 2), np.full((18, 18), 255)).astype(np.uint8)
        return {
            "vector": one_hot,
            "matrix": one_hot.reshape(2, 2),
            "image": image[..., None].repeat(3, axis=2),
            "image_first": image[None].repeat(3, axis=0),
            "discrete": np.int64(shown),
            "multi_discrete": bits,
            "multi_binary": bits.astype(np.int8),
            "dict": {
                "position": bits.astype(np.float64),
                "clock": np.int64(self.steps),
                "noise": self.np_random.uniform(-1, 1, 3).astype(np.float32),
            },
            "image_dict": {
                "camera": image[..., None],
                "clock": np.array([self.steps], np.float32),
            },
            "goal": {
                "observation": one_hot,
                "achieved_goal": bits.astype(np.float64),
                "desired_goal": np.ones(2),
            },
        }[self.kind]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observe(0), {}

    def step(self, action):
        self.steps += 1
        shown = int(action) if np.ndim(action) == 0 else int(2 * (action[0] > 0) + (action[1] > 0))
        over = self.steps == self.length
        return self.observe(shown), 0.0, over and not self.truncate, over and self.truncate, {}


class ActionEnv(gym.Env):
    """
    The observation is the last action: one number, or a one-hot. Skills can be
    distinguished as soon as they act differently.

    :param discrete: three actions of which the third is masked after every odd step
    """

    def __init__(self, discrete: bool = False, length: int = 10) -> None:
        box = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = spaces.Discrete(3) if discrete else box
        self.observation_space = spaces.Box(-1.0, 1.0, (3,), np.float32) if discrete else box
        self.length, self.steps = length, 0

    def action_masks(self) -> np.ndarray:
        return np.array([True, True, self.steps % 2 == 0])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(self.observation_space.shape, np.float32), {}

    def step(self, action):
        is_discrete = isinstance(self.action_space, spaces.Discrete)
        obs = np.eye(3, dtype=np.float32)[action] if is_discrete else np.array(action, np.float32)
        self.steps += 1
        return obs, 0.0, False, self.steps >= self.length, {}


class SameArrayEnv(gym.Env):
    """
    Returns the same arrays and the same ``info`` each time, and writes into the actions that it
    gets. Step s of episode e, both counted from 1, shows 100 e + s; episodes have 5 steps.

    :param kind: of the observation: ``"vector"``, ``"matrix"`` or ``"dict"``
    """

    def __init__(self, kind: str = "vector") -> None:
        self.array = np.zeros({"vector": 1, "matrix": (2, 1), "dict": 1}[kind], np.float32)
        box = spaces.Box(-1e4, 1e4, self.array.shape, np.float32)
        self.observation_space = spaces.Dict({"n": box}) if kind == "dict" else box
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.obs = {"n": self.array} if kind == "dict" else self.array
        self.info, self.count = {"x_position": self.array.reshape(-1)[:1].reshape(())}, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 100 * (self.count // 100 + 1)
        self.array[:] = self.count
        return self.obs, self.info

    def step(self, action):
        self.count += 1
        self.array[:] = self.count
        action[:] = 0.5
        return self.obs, float(self.count), False, self.count % 100 == 5, self.info


class NoOptionsEnv(PointEnv):
    """A point whose ``reset`` takes no options, which SB3 accepts."""

    def reset(self, *, seed=None):
        return super().reset(seed=seed)
