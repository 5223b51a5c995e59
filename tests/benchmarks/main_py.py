"""
The algorithm of a widespread PyTorch script of DIAYN, written from its description, to be compared
with: one environment, one update per step, a replay memory of transitions in a list, and the first
version of SAC, with a net for the value of a state. All nets have two hidden layers of 300.
"""

import copy
import math
import random
from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from torch import nn
from torch.distributions import Normal
from torch.nn import functional as F

WIDTH, BATCH, ALPHA, GAMMA, TAU, RATE = 300, 256, 0.1, 0.99, 0.005, 3e-4
Array = np.ndarray[Any, Any]


def make_net(n_inputs: int, n_outputs: int) -> nn.Sequential:
    return nn.Sequential(*create_mlp(n_inputs, n_outputs, [WIDTH, WIDTH]))


class MainPy:
    """
    :param env: environment without skills, actions from -1 to 1
    :param n_skills: number of skills
    :param memory_size: transitions that are kept
    """

    def __init__(
        self, env: gym.Env[Any, Any], n_skills: int, seed: int, memory_size: int = 1_000_000
    ) -> None:
        th.manual_seed(seed)
        random.seed(seed)
        self.env, self.n_skills = env, n_skills
        assert env.observation_space.shape is not None and env.action_space.shape is not None
        n_obs, self.n_actions = env.observation_space.shape[0], env.action_space.shape[0]
        n_inputs = n_obs + n_skills
        self.policy = make_net(n_inputs, 2 * self.n_actions)
        self.critics = nn.ModuleList(make_net(n_inputs + self.n_actions, 1) for _ in range(2))
        self.value = make_net(n_inputs, 1)
        self.target = copy.deepcopy(self.value)
        self.discriminator = make_net(n_obs, n_skills)
        learning = (self.policy, self.critics, self.value, self.discriminator)
        self.optimizers = [th.optim.Adam(net.parameters(), RATE) for net in learning]
        self.memory: deque[tuple[th.Tensor, ...]] = deque(maxlen=memory_size)
        self.rng = np.random.default_rng(seed)
        self.n_updates = self.n_steps = 0
        self._begin(seed)

    def _begin(self, seed: int | None = None) -> None:
        self.skill = int(self.rng.integers(self.n_skills))
        obs, _ = self.env.reset(seed=seed)
        self.state = self._augment(obs)

    def _augment(self, obs: Array) -> Array:
        return np.concatenate([obs, np.eye(self.n_skills)[self.skill]]).astype(np.float32)

    def learn(self, n_steps: int) -> None:
        """Steps of the environment, each with an update once a batch is there."""
        for _ in range(n_steps):
            with th.no_grad():
                action = self._sample(th.as_tensor(self.state)[None])[0][0].numpy()
            obs, _, terminated, truncated, _ = self.env.step(action)
            after = self._augment(obs)
            self.memory.append(
                (
                    th.from_numpy(self.state),
                    th.tensor([self.skill]),
                    th.tensor([terminated]),
                    th.from_numpy(action),
                    th.from_numpy(after),
                )
            )
            self.state = after
            self.n_steps += 1
            if len(self.memory) >= BATCH:
                self._update()
            if terminated or truncated:
                self._begin()

    def _sample(self, states: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        mean, log_std = self.policy(states).chunk(2, dim=1)
        gauss = Normal(mean, log_std.clamp(-20, 2).exp())
        raw = gauss.rsample()
        log_prob = gauss.log_prob(raw) - 2 * (math.log(2) - raw - F.softplus(-2 * raw))
        return th.tanh(raw), log_prob.sum(dim=1, keepdim=True)

    def _update(self) -> None:
        batch = random.sample(self.memory, BATCH)
        states, skills, ends, actions, after = map(th.stack, zip(*batch, strict=True))
        sampled, log_prob = self._sample(states)
        of_sampled = self._smaller(states, sampled)
        value_loss = F.mse_loss(self.value(states), (of_sampled - ALPHA * log_prob).detach())
        policy_loss = (ALPHA * log_prob - of_sampled).mean()
        with th.no_grad():
            log_q = F.log_softmax(self.discriminator(after[:, : -self.n_skills]), dim=1)
            rewards = log_q.gather(1, skills) + math.log(self.n_skills)
            targets = rewards + GAMMA * ~ends * self.target(after)
        both = th.cat([states, actions], dim=1)
        critic_loss = sum(F.mse_loss(critic(both), targets) for critic in self.critics)
        logits = self.discriminator(states[:, : -self.n_skills])
        losses = (policy_loss, critic_loss, value_loss, F.cross_entropy(logits, skills[:, 0]))
        for optimizer, loss in zip(self.optimizers, losses, strict=True):
            optimizer.zero_grad()
            loss.backward()  # type: ignore[union-attr]
            optimizer.step()
        with th.no_grad():
            pairs = zip(self.target.parameters(), self.value.parameters(), strict=True)
            for target, parameter in pairs:
                target.lerp_(parameter, TAU)
        self.n_updates += 1

    def _smaller(self, states: th.Tensor, actions: th.Tensor) -> th.Tensor:
        both = th.cat([states, actions], dim=1)
        return th.min(self.critics[0](both), self.critics[1](both))

    def act(self, obs: Array, skills: Array) -> Array:
        """:return: sampled actions of many environments"""
        states = np.concatenate([obs, np.eye(self.n_skills)[skills]], axis=1).astype(np.float32)
        with th.no_grad():
            actions: Array = self._sample(th.as_tensor(states))[0].numpy()
        return actions
