"""A small classifier of frames, whose last layer but one are the features in which sets of frames are compared.

    frames ──stem, a quarter of the size──> stages, each half as large as the last ──mean, norm──> linear ──> features
    features ──linear──> logits of the classes

It stands in for the Inception network of the Frechet inception distance (Heusel et al. 2017, arXiv:1706.08500): trained
on one's own frames it tells apart what matters in them, and it is small enough to ship and to run on a CPU. Its norms
are of each frame's own groups of channels (Wu and He 2018, arXiv:1803.08494), so that what it says of a frame does not
depend on the frames beside it. They stand in the branches of the stages, so that how bright a frame is stays known to
the end, where a last norm keeps brightness from outweighing all the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.autoencoder import to_float
from bisquit.config import Settings, require
from bisquit.fingerprint import fingerprint

_NORM_GROUPS = 8


@dataclass(frozen=True)
class FeatureNetworkConfig(Settings):
    """The shape of a `FeatureNetwork`."""

    widths: tuple[int, ...] = (32, 64, 96, 96)
    """Channels of each stage, such as 32,64,96,96, multiples of 8; each stage after the first halves the grid."""
    dimensions: int = 64
    """Numbers in a frame's features."""

    def __post_init__(self) -> None:
        is_fit = 1 <= len(self.widths) <= 8 and all(0 < width <= 1024 for width in self.widths)
        is_fit = is_fit and not any(width % _NORM_GROUPS for width in self.widths)
        require(is_fit, "widths", self.widths, f"1 to 8 multiples of {_NORM_GROUPS}, none above 1024")
        require(1 <= self.dimensions <= 4096, "dimensions", self.dimensions, "between 1 and 4096")


class FeatureOutput(NamedTuple):
    """What the network says of a batch of frames."""

    features: Tensor
    """(B, dimensions) float."""
    logits: Tensor
    """(B, classes) float."""


class Stage(nn.Module):
    """x = down(gelu(x)), then x + conv(gelu(norm(x))), both 3 x 3."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1)
        self.norm = nn.GroupNorm(_NORM_GROUPS, outputs)
        self.convolution = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(F.gelu(x))
        return x + self.convolution(F.gelu(self.norm(x)))


class FeatureNetwork(nn.Module):
    """A convolutional classifier of frames of any size; below 32 x 32 pixels little is left for its last stages."""

    def __init__(self, config: FeatureNetworkConfig, classes: tuple[str, ...]) -> None:
        """classes: the names of what is told apart. Raises ConfigError if there are fewer than two."""
        require(len(classes) >= 2, "classes", classes, "two names at least")
        super().__init__()
        self.config, self.classes = config, classes
        self.stem = nn.Conv2d(3, config.widths[0], kernel_size=7, stride=4, padding=3)
        inputs = (config.widths[0], *config.widths)
        self.stages = nn.Sequential(
            *(Stage(inputs[i], width, stride=2 if i else 1) for i, width in enumerate(config.widths))
        )
        self.norm = nn.LayerNorm(config.widths[-1])
        self.feature = nn.Linear(config.widths[-1], config.dimensions)
        self.head = nn.Linear(config.dimensions, len(classes))

    def forward(self, x: Tensor) -> FeatureOutput:
        """Judge frames (B, 3, H, W) in [-0.5, 0.5]."""
        x = F.gelu(self.stages(self.stem(x)))
        features = self.feature(self.norm(x.mean(dim=(2, 3))))
        return FeatureOutput(features, self.head(features))

    def activations(self, x: Tensor) -> list[Tensor]:
        """Return what each stage makes of frames (B, 3, H, W) in [-0.5, 0.5], each (B, channels, h, w)."""
        x, made = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            made.append(x)
        return made

    @torch.no_grad()
    def describe(self, frames: Tensor) -> FeatureOutput:
        """Judge frames, uint8 (B, H, W, 3), where the network is: float32. Raises ShapeError on other arrays."""
        output: FeatureOutput = self(to_float(frames.to(self.stem.weight.device)))
        return output

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name this network: its configuration, classes and weights, as float32."""
        return fingerprint({**self.config.to_dict(), "classes": self.classes}, self)
