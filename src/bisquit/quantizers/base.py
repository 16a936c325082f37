"""What every quantizer does: latents in, tokens and codes out, and from tokens to codes again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from bisquit.errors import ShapeError


class Quantized(NamedTuple):
    """What a quantizer makes of latents."""

    tokens: Tensor
    """(B, *grid) int64 in [0, 2**bits), with the grid that `Quantizer.grid` says."""
    codes: Tensor
    """(B, width, h, w) float, what the decoder takes; gradients flow through it to the latents."""
    loss: Tensor
    """() float, the quantizer's own terms of the training loss; 0 where it has none."""


class Quantizer(nn.Module, ABC):
    """Turns latents of `width` channels into tokens of `bits` bits."""

    width: int
    bits: int
    down: nn.Conv2d
    """A 1 x 1 convolution: latents to what decides on their tokens."""

    @abstractmethod
    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (B, width, h, w). Raises ShapeError if the channels are not `width`."""

    @abstractmethod
    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens (B, h, w) of what `down` makes of latents, (B, channels, h, w); no gradient is kept."""

    @abstractmethod
    def codes(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, *self.grid(grid)) for latents of a grid (h, w).

        By default the grid is that of the tokens. Codes equal those of `forward` to the last bit. Raises ShapeError if
        the tokens are of another grid, TokenError if one is not in [0, 2**bits).
        """

    def grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        """Return the grid (h, w) of the tokens of latents of a grid (h, w): by default the same, a token a place."""
        return latent_grid

    def check_grid(self, tokens: Tensor, latent_grid: tuple[int, int]) -> None:
        """Raise ShapeError unless tokens are (B, h, w) as latents of a grid (h, w) have them."""
        h, w = self.grid(latent_grid)
        if tokens.ndim != 3 or tuple(tokens.shape[1:]) != (h, w):
            raise ShapeError(f"tokens are {tuple(tokens.shape)}: those of latents of {latent_grid} are (B, {h}, {w})")

    def codes_so_far(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor | None:
        """Return the codes of tokens of which some are not there yet, -1, if those that are tell of whole pictures.

        By default None: a token tells of its own place.
        """
        return None

    @abstractmethod
    def freeze_encoding(self) -> None:
        """Have nothing change what decides on tokens; what makes codes of them still learns."""

    def grow_from(self, other: Quantizer) -> bool:
        """Become another quantizer of fewer bits, whose codes further bits begin to change only as they learn.

        Returns whether it could; by default none can.
        """
        return False

    def check_latents(self, latents: Tensor) -> None:
        """Raise ShapeError unless latents are (B, width, h, w)."""
        if latents.ndim != 4 or latents.shape[1] != self.width:
            raise ShapeError(f"latents are {tuple(latents.shape)}: they must be (B, {self.width}, h, w)")


def straight_through(hard: Tensor, soft: Tensor) -> Tensor:
    """Return `hard` to the last bit, with the gradient of `soft`."""
    return hard.detach() + (soft - soft.detach())  # in another order, rounding would change it
