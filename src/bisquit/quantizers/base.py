"""What every quantizer does: latents in, tokens and codes out, and from tokens to codes again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bisquit.errors import ShapeError, TokenError


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

    @abstractmethod
    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (B, width, h, w)."""

    @abstractmethod
    def codes(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, *self.grid(grid)) for latents of a grid (h, w).

        They equal those of `forward` to the last bit. Raises ShapeError if the tokens are of another grid, TokenError
        if one is not in [0, 2**bits).
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
        """Have no gradient reach what decides on tokens; what makes codes of them still learns."""

    def grow_from(self, other: Quantizer) -> bool:
        """Become another quantizer of fewer bits, whose codes further bits begin to change only as they learn.

        Returns whether it could; by default none can.
        """
        return False


def pack_bits(is_one: Tensor) -> Tensor:
    """Pack booleans (B, bits, h, w) into int64 tokens (B, h, w); bit 0 is the least significant."""
    bits = is_one.shape[1]
    places = torch.arange(bits, device=is_one.device).view(1, bits, 1, 1)
    return (is_one.long() << places).sum(dim=1)


def unpack_bits(tokens: Tensor, bits: int) -> Tensor:
    """Unpack int64 tokens (B, h, w) into booleans (B, bits, h, w). Raises TokenError if one is not in [0, 2**bits)."""
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >> bits):
        raise TokenError(f"tokens run from {int(tokens.min())} to {int(tokens.max())}: they must be in [0, 2**{bits})")
    places = torch.arange(bits, device=tokens.device).view(1, bits, 1, 1)
    return (tokens.unsqueeze(1) >> places & 1).bool()
