"""What a tokenizer is trained for beside the squared error, which of all pictures that may be right paints the average.

    perceptual    how far the activations of a feature network on frames and their reconstructions are apart
    adversarial   how surely a discriminator, trained along, tells patches of reconstructions from real ones

Both give up some squared error for edges where there are edges in frames. Johnson et al. 2016, arXiv:1603.08155; the
discriminator of patches is that of Isola et al. 2017, arXiv:1611.07004, with the hinge loss of Lim and Ye 2017,
arXiv:1705.02894, as in the tokenizers of Esser et al. 2021, arXiv:2012.09841.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.features import FeatureNetwork


@dataclass(frozen=True)
class Sharpening(Settings):
    """How much the terms beside the squared error weigh; by default nothing."""

    perceptual_weight: float = 0.0
    """Weight of the distance of activations, which is about 1 for two frames that have nothing in common."""
    adversarial_weight: float = 0.0
    """Weight of the discriminator's judgement, about 1 where it is sure."""

    def __post_init__(self) -> None:
        require(self.perceptual_weight >= 0, "perceptual_weight", self.perceptual_weight, "at least 0")
        require(self.adversarial_weight >= 0, "adversarial_weight", self.adversarial_weight, "at least 0")


class PerceptualDistance(nn.Module):
    """The mean squared distance of a feature network's activations, each scaled to unit length over its channels.

    Zhang et al. 2018, arXiv:1801.03924, with all channels weighted alike. The network is frozen.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        super().__init__()
        self.network = network.train().requires_grad_(False)  # of whose layers none minds the mode

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the distance, (), of frames x and y (B, 3, H, W); gradients flow to both."""
        pairs = zip(self.network.activations(x), self.network.activations(y), strict=True)
        return torch.stack([(_unit(a) - _unit(b)).square().sum(dim=1).mean() for a, b in pairs]).mean() / 2


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.float(), dim=1, eps=1e-6)


class Judgement(NamedTuple):
    """What a discriminator says of reconstructions, and how it is to learn from them."""

    painter_loss: Tensor
    """() lower the more the reconstructions pass for real; its gradient leaves the discriminator alone."""
    loss: Tensor
    """() the discriminator's own; its gradient leaves the reconstructions alone."""


class PatchDiscriminator(nn.Module):
    """Tells real patches of about 22 x 22 pixels from others, one for each cell of 4 x 4 pixels."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 2 * width, kernel_size=3, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, kernel_size=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return how real patches look, (B, 1, H / 4, W / 4), above 0 for real, of frames (B, 3, H, W)."""
        verdict: Tensor = self.layers(x)
        return verdict

    def judge(self, real: Tensor, reconstructed: Tensor) -> Judgement:
        """Compare frames (B, 3, H, W) with reconstructions; one backward pass of both losses trains both sides."""
        frozen = {name: parameter.detach() for name, parameter in self.named_parameters()}
        painter_loss = -functional_call(self, frozen, reconstructed).float().mean()
        verdict_on_real, verdict_on_others = self(real).float(), self(reconstructed.detach()).float()
        loss = F.relu(1 - verdict_on_real).mean() + F.relu(1 + verdict_on_others).mean()
        return Judgement(painter_loss, loss)
