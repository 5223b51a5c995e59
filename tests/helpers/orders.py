"""
Orders of wrappers: which work and which are refused. The rows of the table in
``docs/pages/wrappers.md``, and of the tests.
"""

import gymnasium as gym
import numpy as np
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecEnvWrapper,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

from sb3_diayn import DIAYNWrapper, VecDIAYNWrapper
from tests.helpers.envs import StepEnv


class ActionRepeat(gym.Wrapper):
    def step(self, action):
        total = 0.0
        for _ in range(4):
            obs, reward, terminated, truncated, info = self.env.step(action)
            total += reward
            if terminated or truncated:
                break
        return obs, total, terminated, truncated, info


class Last(ActionRepeat):
    """Repeats actions, but returns the last reward alone."""

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, info.get("skill_reward", 0.0), terminated, truncated, info


class Hide(gym.Wrapper):
    def step(self, action):
        *rest, _ = self.env.step(action)
        return *rest, {}


class Shift(gym.Wrapper):
    """Writes into the observations that it gets."""

    def reset(self, **kwargs):
        obs, info = self.env.reset(**kwargs)
        obs += 0.5
        return obs, info

    def step(self, action):
        obs, *rest = self.env.step(action)
        obs += 0.5
        return obs, *rest


class VecShift(VecEnvWrapper):
    def reset(self):
        obs = self.venv.reset()
        obs += 0.5
        return obs

    def step_wait(self):
        obs, *rest = self.venv.step_wait()
        obs += 0.5
        return obs, *rest


def vec(env: gym.Env) -> DummyVecEnv:
    return DummyVecEnv([lambda: env])


def inner(n_skills: int = 3) -> gym.Env:
    return DIAYNWrapper(Monitor(StepEnv()), n_skills=n_skills)


# What works: how it is made, and what it means.
WORKS = {
    "`DIAYNWrapper(Monitor(env))`": (
        lambda: vec(inner()),
        "`rollout/ep_rew_mean` is the task return",
    ),
    "`Monitor(DIAYNWrapper(env))`": (
        lambda: vec(Monitor(DIAYNWrapper(StepEnv(), 3))),
        "`rollout/ep_rew_mean` is the skill return",
    ),
    "`DIAYNWrapper(TimeLimit(env))`": (
        lambda: vec(DIAYNWrapper(TimeLimit(StepEnv(), 20), 3)),
        "a time limit is no terminal state",
    ),
    "`TimeLimit(DIAYNWrapper(env))`": (
        lambda: vec(TimeLimit(inner(), 20)),
        "the same; under `VecNormalize` the last observation has been clipped",
    ),
    "`DIAYNWrapper(ActionRepeat(env))`": (
        lambda: vec(DIAYNWrapper(ActionRepeat(StepEnv()), 3)),
        "a step is a step of `ActionRepeat`",
    ),
    "`DIAYNWrapper(TransformReward(env))`": (
        lambda: vec(DIAYNWrapper(gym.wrappers.TransformReward(StepEnv(), lambda r: 2 * r), 3)),
        "the task reward is the transformed one",
    ),
    "`RescaleAction(DIAYNWrapper(env))`": (
        lambda: vec(gym.wrappers.RescaleAction(inner(), np.float32(-0.5), np.float32(0.5))),
        "without `use_actions`",
    ),
    "`VecNormalize(DIAYNWrapper)`": (
        lambda: VecNormalize(vec(inner()), norm_reward=False),
        "with `norm_reward=False`; the discriminator reads raw observations",
    ),
    "`VecMonitor(DIAYNWrapper)`": (
        lambda: VecMonitor(vec(DIAYNWrapper(StepEnv(), 3))),
        "`rollout/ep_rew_mean` is the skill return",
    ),
    "`VecFrameStack(DIAYNWrapper)`": (
        lambda: VecFrameStack(vec(inner()), 2),
        "each frame has the skill of its step; the discriminator reads the newest one",
    ),
    "`VecNormalize(VecFrameStack(DIAYNWrapper))`": (
        lambda: VecNormalize(VecFrameStack(vec(inner()), 2), norm_reward=False),
        "`VecNormalize` is the outermost of the two",
    ),
    "`VecDIAYNWrapper(VecFrameStack)`": (
        lambda: VecDIAYNWrapper(VecFrameStack(vec(StepEnv()), 2), 3),
        "the frames are the environment's own; the discriminator reads all of them",
    ),
    "`VecDIAYNWrapper(VecMonitor)`": (
        lambda: VecDIAYNWrapper(VecMonitor(vec(StepEnv())), 3),
        "`rollout/ep_rew_mean` is the task return",
    ),
    "`VecNormalize(VecDIAYNWrapper)`": (
        lambda: VecNormalize(VecDIAYNWrapper(vec(StepEnv()), 3), norm_reward=False),
        "as around `DIAYNWrapper`",
    ),
}
# What is refused: how it is made, what the error says (a pattern), and what to do instead.
REFUSED = {
    "`ActionRepeat(DIAYNWrapper(env))`": (
        lambda: vec(ActionRepeat(inner())),
        "4 steps of DIAYNWrapper in one; expected one.*outside the wrapper that repeats",
        "`DIAYNWrapper(ActionRepeat(env))`",
    ),
    "a wrapper outside that repeats actions and returns the last reward": (
        lambda: vec(Last(inner())),
        "4 steps of DIAYNWrapper in one; expected one.*outside the wrapper that repeats",
        "`DIAYNWrapper` outside",
    ),
    "`TransformReward(DIAYNWrapper(env))`": (
        lambda: vec(gym.wrappers.TransformReward(inner(), lambda r: 2 * r + 1)),
        "changes the rewards .* expected them unchanged.*reward_scale",
        "`reward_scale` of `DIAYNCallback`, or `DIAYNWrapper` outside",
    ),
    "`ClipReward(DIAYNWrapper(env))`": (
        lambda: vec(gym.wrappers.ClipReward(inner(), 3.0, 4.0)),
        "changes the rewards .* expected them unchanged.*reward_scale",
        "`log_q_min` of `DIAYNCallback`, or `DIAYNWrapper` outside",
    ),
    "a wrapper outside that replaces `info`": (
        lambda: vec(Hide(inner())),
        r"has no \['skill', 'task_reward', 'skill_reward'\].*outside every wrapper that replaces",
        "`DIAYNWrapper` outside",
    ),
    "`TransformObservation(DIAYNWrapper(env))`": (
        lambda: vec(
            gym.wrappers.TransformObservation(
                inner(), lambda obs: obs + np.float32(0.5), inner().observation_space
            )
        ),
        "changes the observation .* expected it unchanged.*Put DIAYNWrapper outside",
        "`DIAYNWrapper(TransformObservation(env))`",
    ),
    "a wrapper outside that writes into observations": (
        lambda: vec(Shift(inner())),
        "changes the observation .* expected it unchanged.*Put DIAYNWrapper outside",
        "`DIAYNWrapper` outside",
    ),
    "a vectorised wrapper outside that writes into observations": (
        lambda: VecShift(VecDIAYNWrapper(vec(StepEnv()), 3)),
        "changes the observation .* expected it unchanged.*Put DIAYNWrapper outside",
        "`VecDIAYNWrapper` outside",
    ),
    "`FrameStackObservation(DIAYNWrapper(env))`": (
        lambda: vec(gym.wrappers.FrameStackObservation(inner(), 2)),
        "(?s)observation_space=.*expected the space of a DIAYNWrapper",
        "`DIAYNWrapper(FrameStackObservation(env))`, or `VecFrameStack` outside",
    ),
    "`DIAYNWrapper(DIAYNWrapper(env))`": (
        lambda: DIAYNWrapper(inner(), 3),
        "already has a DIAYNWrapper; .*Wrap it once",
        "one of them",
    ),
    "`VecDIAYNWrapper(VecNormalize)`": (
        lambda: VecDIAYNWrapper(VecNormalize(vec(StepEnv())), 3),
        r"has VecNormalize.*expected it outside.*VecNormalize\(VecDIAYNWrapper",
        "`VecNormalize(VecDIAYNWrapper, norm_reward=False)`",
    ),
    "`VecNormalize(DIAYNWrapper)` with `norm_reward=True`": (
        lambda: VecNormalize(vec(inner())),
        "norm_reward=True.*expected False",
        "`norm_reward=False`",
    ),
    "`VecFrameStack(VecNormalize(DIAYNWrapper))`": (
        lambda: VecFrameStack(VecNormalize(vec(inner()), norm_reward=False), 2),
        "VecNormalize is within VecFrameStack; expected it outside",
        "`VecNormalize(VecFrameStack(DIAYNWrapper))`",
    ),
}
