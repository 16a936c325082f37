"""Random changes to frames in training: mirrored, shifted, other colours. Each frame of a batch gets its own.

The one module of frames that needs torch, and so the one that the package does not import by itself. Randomness comes
from the generator alone: the same state of the generator gives the same frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bisquit.config import Settings, require
from bisquit.errors import ShapeError
from bisquit.processes import WHOLE, Part

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@dataclass(frozen=True)
class Augmentation(Settings):
    """How frames are changed at random; by default not at all."""

    flip: bool = False
    """Mirror a frame, left to right, with a chance of one half."""
    shift_px: int = 0
    """Shift frames by up to this many pixels each way, the edge repeated."""
    colour: float = 0.0
    """Multiply brightness, contrast and saturation each by a random factor, 1 plus or minus at most this."""

    def __post_init__(self) -> None:
        require(self.shift_px >= 0, "shift_px", self.shift_px, "zero or more pixels")
        require(0.0 <= self.colour <= 1.0, "colour", self.colour, "between 0 and 1")


def augment(x: Tensor, settings: Augmentation, generator: torch.Generator, part: Part = WHOLE) -> Tensor:
    """Return frames changed at random, each in its own way. x and result: (B, 3, H, W) float in [-0.5, 0.5].

    The generator may be on another device than the frames. part: which part of a batch they are; they are then changed
    as in the whole batch. Raises ShapeError for another array.
    """
    if x.ndim != 4 or x.shape[1] != 3 or not x.is_floating_point():
        raise ShapeError(f"frames: got {x.dtype} {tuple(x.shape)}, need float (B, 3, H, W)")
    if settings.flip:
        x = _flip(x, generator, part)
    if settings.shift_px:
        x = _shift(x, settings.shift_px, generator, part)
    if settings.colour:
        x = _recolour(x, settings.colour, generator, part)
    return x


def _flip(x: Tensor, generator: torch.Generator, part: Part) -> Tensor:
    draws = torch.rand(part.whole(len(x)), 1, 1, 1, generator=generator, device=generator.device)
    mirrored = part.of(draws) < 0.5
    return torch.where(mirrored.to(x.device), x.flip(-1), x)


def _shift(x: Tensor, shift_px: int, generator: torch.Generator, part: Part) -> Tensor:
    height, width = x.shape[2:]
    shape = (2, part.whole(len(x)), 1)
    draws = torch.randint(-shift_px, shift_px + 1, shape, generator=generator, device=generator.device)
    down, right = part.of(draws, 1).to(x.device)  # (B, 1) each
    rows = (torch.arange(height, device=x.device) - down).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=x.device) - right).clamp(0, width - 1)  # (B, W)
    x = torch.take_along_dim(x, rows[:, None, :, None], dim=2)
    return torch.take_along_dim(x, columns[:, None, None, :], dim=3)


def _recolour(x: Tensor, strength: float, generator: torch.Generator, part: Part) -> Tensor:
    draws = torch.rand(3, part.whole(len(x)), 1, 1, 1, generator=generator, device=generator.device)
    brightness, contrast, saturation = (1 + strength * (2 * part.of(draws, 1) - 1)).to(x)
    x = (x + 0.5) * brightness
    grey = _luma(x)
    x = grey + (x - grey) * saturation
    mean = _luma(x).mean(dim=(2, 3), keepdim=True)
    return (mean + (x - mean) * contrast).clamp(0.0, 1.0) - 0.5


def _luma(x: Tensor) -> Tensor:
    """Return the brightness that the eye sees. (B, 3, H, W) to (B, 1, H, W)."""
    red, green, blue = _LUMA
    return red * x[:, 0:1] + green * x[:, 1:2] + blue * x[:, 2:3]
