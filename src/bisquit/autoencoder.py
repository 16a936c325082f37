"""The patch auto-encoder: frames to a grid of latent vectors, and back.

    x (B, 3, H, W) ──patches──> (B, 3 p p, h, w) ──linear──> (B, width, h, w) ──residual 3 x 3 convolutions──> latents
    x' (B, 3, H, W) <─patches── (B, 3 p p, h, w) <─linear── (B, width, h, w) <─residual 3 x 3 convolutions── latents

with h = H / p and w = W / p for patches of p x p pixels. It is the first stage of the tokenizer; a quantizer stands
between its two halves. Any H and W that p divides work, for every layer slides over the grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ShapeError


@dataclass(frozen=True)
class AutoEncoderConfig(Settings):
    """The shape of a `PatchAutoEncoder`."""

    patch_size: int = 5
    """Side of a square patch in pixels; one patch becomes one token."""
    width: int = 128
    """Channels of the latent grid and of every convolution."""
    depth: int = 1
    """Residual blocks of two 3 x 3 convolutions on each side."""

    def __post_init__(self) -> None:
        require(1 <= self.patch_size <= 64, "patch_size", self.patch_size, "between 1 and 64")
        require(1 <= self.width <= 8192, "width", self.width, "between 1 and 8192")
        require(0 <= self.depth <= 256, "depth", self.depth, "between 0 and 256")


class ResidualBlock(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), both 3 x 3, the grid's size kept; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, kernel_size=3, padding=1)
        self.second = nn.Conv2d(width, width, kernel_size=3, padding=1)
        nn.init.kaiming_normal_(self.first.weight, nonlinearity="relu")
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.gelu(self.first(F.gelu(x))))


class PatchAutoEncoder(nn.Module):
    """An encoder and a decoder that mirror each other; what they compute is drawn at the top of this module."""

    def __init__(self, config: AutoEncoderConfig) -> None:
        super().__init__()
        self.config = config
        values = 3 * config.patch_size**2
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(config.patch_size),
            nn.Conv2d(values, config.width, kernel_size=1),
            *(ResidualBlock(config.width) for _ in range(config.depth)),
        )
        self.decoder = nn.Sequential(
            *(ResidualBlock(config.width) for _ in range(config.depth)),
            nn.Conv2d(config.width, values, kernel_size=1),
            nn.PixelShuffle(config.patch_size),
        )
        self._initialise()

    def _initialise(self) -> None:
        """Start with latents of about unit size, where GELU bends, and with frames near grey.

        Pixels are a quarter in size, hence the 4. PyTorch's own start leaves latents so small that all is nearly
        linear, and slow to learn.
        """
        values, width = 3 * self.config.patch_size**2, self.config.width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.encoder[1].weight, std=4 / math.sqrt(values))  # type: ignore[arg-type]
        nn.init.normal_(self.decoder[-2].weight, std=0.1 / math.sqrt(width))  # type: ignore[arg-type]

    def encode(self, x: Tensor) -> Tensor:
        """Turn frames into latents.

        x: (B, 3, H, W) float in [-0.5, 0.5]. Returns (B, width, H / p, W / p). Raises ShapeError if p does not divide H
        and W.
        """
        p = self.config.patch_size
        if x.ndim != 4 or x.shape[1] != 3 or x.shape[2] % p or x.shape[3] % p:
            raise ShapeError(
                f"frames are {tuple(x.shape)}: they must be (B, 3, H, W) with H and W multiples of the patch size {p}"
            )
        latents: Tensor = self.encoder(x)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Turn latents (B, width, h, w) into frames (B, 3, h p, w p), about [-0.5, 0.5] but not clipped."""
        frames: Tensor = self.decoder(latents)
        return frames


def pad_to_patches(x: Tensor, patch_size: int) -> Tensor:
    """Grow frames (B, 3, H, W) at the right and the bottom, edges repeated, until `patch_size` divides H and W."""
    bottom, right = -x.shape[2] % patch_size, -x.shape[3] % patch_size
    return F.pad(x, (0, right, 0, bottom), mode="replicate") if bottom or right else x


def to_float(frames: Tensor) -> Tensor:
    """Turn frames, uint8 (B, H, W, 3), into float32 (B, 3, H, W) in [-0.5, 0.5]. Raises ShapeError on other arrays."""
    if frames.dtype != torch.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.numel() == 0:
        raise ShapeError(
            f"frames are {frames.dtype} {tuple(frames.shape)}: they must be uint8 (B, H, W, 3), none empty"
        )
    return frames.permute(0, 3, 1, 2).to(torch.float32) / 255 - 0.5  # stays channels-last, which convolutions like


def to_uint8(x: Tensor) -> Tensor:
    """Turn frames from float (B, 3, H, W) into uint8 (B, H, W, 3); what lies outside of [-0.5, 0.5] is clipped."""
    return ((x.float() + 0.5) * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
