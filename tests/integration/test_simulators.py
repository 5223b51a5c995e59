"""
Environments of other packages: what a policy learns from is what the simulator has shown.

CI has MiniGrid. A test of another package is skipped where the package is not installed.
"""

import copy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_diayn import DIAYNWrapper, GymVecEnv, VecDIAYNWrapper
from sb3_diayn.observations import copy_obs, index_obs, map_obs
from sb3_diayn.skills import SkillSpace
from tests.helpers.extractors import ImageAndSkill, SmallCNN
from tests.helpers.models import K, make_callback

pytestmark = [
    pytest.mark.slow,
    # Of the packages themselves, as they are imported and as they make environments.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning"),
]
N_ENVS, N_STEPS = 2, 16


class Watch(BaseCallback):
    """Copies what a model collects, and the discriminator of each rollout."""

    def __init__(self, diayn: Any) -> None:
        super().__init__()
        self.diayn, self.steps = diayn, []

    def _on_rollout_start(self) -> None:
        self.discriminator = copy.deepcopy(self.diayn.discriminator)

    def _on_step(self) -> bool:
        step = {name: np.copy(self.locals[name]) for name in ("rewards", "dones")}
        step |= {"obs": copy_obs(self.locals["new_obs"]), "discriminator": self.discriminator}
        self.steps.append(step | {"infos": [dict(info) for info in self.locals["infos"]]})
        return True


def single(make_env: Any) -> VecEnv:
    return DummyVecEnv([lambda: DIAYNWrapper(make_env(), K, skill="cycle")] * N_ENVS)


def check_training(env: VecEnv, policy_kwargs: Any = None, **options: Any) -> None:
    """Train, and compare each reward with the answer for what the simulator showed last."""
    is_dict = isinstance(env.observation_space, spaces.Dict)
    policy = "MultiInputPolicy" if is_dict else "MlpPolicy"
    nets = {"net_arch": [16]} | (policy_kwargs or {})
    model = PPO(
        policy, env, n_steps=N_STEPS, batch_size=16, policy_kwargs=nets, seed=0, device="cpu"
    )
    callback = make_callback(**options)
    watch = Watch(callback)
    model.learn(2 * N_STEPS * N_ENVS, callback=[callback, watch])
    assert callback.trainer.n_updates > 0
    space = SkillSpace.from_vec_env(model.get_env(), K)
    n_ends = 0
    for step in watch.steps:
        for i, info in enumerate(step["infos"]):
            seen = index_obs(step["obs"], i)
            if step["dones"][i]:
                seen, n_ends = info["terminal_observation"], n_ends + 1
            env_obs, skill = space.split(seen)
            assert skill == info["skill"]
            batch = map_obs(lambda part: th.as_tensor(np.asarray(part)[None]), env_obs)
            expected = step["discriminator"].reward(batch, th.as_tensor([int(skill)])).item()
            assert step["rewards"][i] == pytest.approx(expected, abs=1e-4)
    assert n_ends >= 2 * N_ENVS
    env.close()


def test_gymnasium_in_processes_of_their_own():
    env = gym.make_vec("CartPole-v1", N_ENVS, vectorization_mode="async", max_episode_steps=8)
    check_training(VecDIAYNWrapper(GymVecEnv(env), K, skill="cycle"))


def make_minigrid() -> gym.Env:
    pytest.importorskip("minigrid")
    from minigrid.wrappers import ImgObsWrapper

    return ImgObsWrapper(gym.make("MiniGrid-Empty-5x5-v0", max_steps=8))


def test_minigrid_as_a_vector():
    check_training(single(lambda: gym.wrappers.FlattenObservation(make_minigrid())))


def test_minigrid_as_images_of_7_by_7():
    policy = {"features_extractor_class": ImageAndSkill}
    check_training(single(make_minigrid), policy, features_extractor_class=SmallCNN)


def test_highway_env():
    pytest.importorskip("highway_env")

    def make() -> gym.Env:
        return gym.make("highway-fast-v0", config={"duration": 5, "vehicles_count": 3})

    check_training(single(make))


@pytest.mark.parametrize("env_id", ["PointMaze_UMaze-v3", "FetchReach-v4"])
def test_gymnasium_robotics(env_id):
    robotics = pytest.importorskip("gymnasium_robotics")
    gym.register_envs(robotics)

    def make() -> gym.Env:
        try:
            return gym.make(env_id, max_episode_steps=8)
        except AssertionError:
            pytest.skip("Gymnasium-Robotics 1.4.2 cannot build it with MuJoCo 3.17 and later")

    check_training(single(make))


def test_dm_control():
    pytest.importorskip("dm_control")
    gym.register_envs(pytest.importorskip("shimmy"))

    def make() -> gym.Env:
        try:
            env = gym.make("dm_control/cartpole-balance-v0", max_episode_steps=8)
        except AttributeError:
            pytest.skip("dm_control 1.0.50 cannot load models with MuJoCo 4.0")
        return env

    check_training(single(make))


class BraxVectorEnv(VectorEnv):
    """
    Brax's environments as a ``VectorEnv``. Brax itself has a wrapper for the old gym alone, and its
    automatic reset loses the last observation of an episode.
    """

    metadata = {"autoreset_mode": AutoresetMode.DISABLED}  # noqa: RUF012

    def __init__(self, name: str, num_envs: int, max_steps: int, **kwargs: Any) -> None:
        import jax
        from brax import envs

        env = envs.create(
            name, episode_length=max_steps, auto_reset=False, batch_size=num_envs, **kwargs
        )
        self.num_envs, self.jax = num_envs, jax
        self.single_observation_space = spaces.Box(-np.inf, np.inf, (env.observation_size,))
        self.single_action_space = spaces.Box(-1.0, 1.0, (env.action_size,))
        self._reset, self._step, self._key = jax.jit(env.reset), jax.jit(env.step), None

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        random = self.jax.random
        if seed is not None or self._key is None:
            self._key = random.PRNGKey(seed or 0)
        self._key, key = random.split(self._key)
        fresh, mask = self._reset(key), (options or {}).get("reset_mask")
        if mask is not None:

            def choose(new: Any, old: Any) -> Any:
                where = mask.reshape(-1, *[1] * (new.ndim - 1))
                return self.jax.numpy.where(where, new, old)

            fresh = self.jax.tree.map(choose, fresh, self._state)
        self._state = fresh
        return np.asarray(fresh.obs), {}

    def step(self, actions: Any) -> Any:
        self._state = state = self._step(self._state, actions)
        truncated = np.asarray(state.info["truncation"]) > 0
        terminated = (np.asarray(state.done) > 0) & ~truncated
        return np.asarray(state.obs), np.asarray(state.reward), terminated, truncated, {}


@pytest.mark.parametrize("backend", ["spring", "mjx"])
def test_brax(backend):
    pytest.importorskip("brax")
    env = BraxVectorEnv("inverted_pendulum", N_ENVS, 8, backend=backend)
    check_training(VecDIAYNWrapper(GymVecEnv(env), K, skill="cycle"))
