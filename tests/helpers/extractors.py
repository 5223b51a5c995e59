"""Features extractors as users write them, for a policy of SB3 and for the discriminator."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class SmallCNN(BaseFeaturesExtractor):
    """Two convolutions, which images of any size survive."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 16) -> None:
        super().__init__(observation_space, features_dim)
        n_channels = observation_space.shape[0]
        self.net = nn.Sequential(
            nn.Conv2d(n_channels, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.last = nn.Linear(8 * 4, features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return th.relu(self.last(self.net(observations)))


class ImageAndSkill(BaseFeaturesExtractor):
    """What a policy reads of an image and of a skill."""

    def __init__(self, observation_space: spaces.Dict, features_dim: int = 16) -> None:
        n_skills: Any = observation_space["skill"].shape
        super().__init__(observation_space, features_dim + n_skills[0])
        image: Any = observation_space["observation"]
        self.image = SmallCNN(image, features_dim)

    def forward(self, observations: dict[str, th.Tensor]) -> th.Tensor:
        return th.cat([self.image(observations["observation"]), observations["skill"]], dim=1)


class LearnedLinear(BaseFeaturesExtractor):
    """A linear layer over a vector."""

    def __init__(self, observation_space: spaces.Box, features_dim: int = 3) -> None:
        super().__init__(observation_space, features_dim)
        self.layer = nn.Linear(observation_space.shape[0], features_dim)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.layer(observations)


class First(BaseFeaturesExtractor):
    """The first numbers of a vector, without parameters."""

    def __init__(self, observation_space: spaces.Box, n: int = 1) -> None:
        super().__init__(observation_space, n)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return observations[:, : self.features_dim]


class NeedsContent(LearnedLinear):
    """It computes with numbers as it is built, and has a spectral norm of its own."""

    def __init__(self, observation_space: spaces.Box) -> None:
        super().__init__(observation_space)
        if self.layer.weight.abs().sum().item() == 0:
            raise AssertionError
        nn.utils.parametrizations.spectral_norm(self.layer)


class WrongWidth(First):
    """It says that there are more features than there are."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return observations[:, :1]


class CannotRead(First):
    """It fails with its first batch."""

    def forward(self, observations: th.Tensor) -> th.Tensor:
        raise RuntimeError("no such layer")
