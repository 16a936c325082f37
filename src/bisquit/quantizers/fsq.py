"""Finite scalar quantisation: a token is a few numbers, each rounded to one of a few levels.

    latents ──linear──> z ──tanh──> y in [-1, 1] ──round──> levels ──linear──> codes

with latents and codes (B, width, h, w), z and y (B, channels, h, w). The L levels of a channel are evenly spaced from
-1 to 1; rounding has the straight-through gradient, that of y. There is nothing else to learn and no term of the loss.
Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023, arXiv:2309.15505, section 3.1 and appendix A.1.

L is a power of two, so that tokens fill their bits. In units of the spacing an even number of levels lies half-way
between whole numbers, so zero is a border between two of them and rounds up, as a sign would: with two levels each, the
levels are LFQ's corners. The paper also moves z so that zero lands on a level; the bias of the linear map can do that.

A token packs the numbers of its levels, its digits, from 0 for -1 to L - 1 for 1, each in log2(L) bits of its own, the
first channel in the least significant ones: of levels 8, 4 it is digit_0 | digit_1 << 3.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor, nn

from bisquit.config import Settings, require
from bisquit.quantizers.base import Quantized, Quantizer, straight_through
from bisquit.quantizers.bits import check_tokens


@dataclass(frozen=True)
class FSQConfig(Settings):
    """How many levels each channel has."""

    kind: Literal["fsq"] = field(default="fsq", kw_only=True)
    levels: tuple[int, ...] = (8, 8, 4, 4)
    """Levels of each channel, powers of two such as 8,8,4,4, whose product is the size of the codebook."""

    def __post_init__(self) -> None:
        are_powers = all(2 <= count <= 4096 and count & (count - 1) == 0 for count in self.levels)
        require(are_powers and len(self.levels) > 0, "levels", self.levels, "powers of two from 2 to 4096")
        require(self.bits <= 32, "levels", self.levels, f"of 32 bits together at most, not {self.bits}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Bits of each channel's digit."""
        return tuple(count.bit_length() - 1 for count in self.levels)

    @property
    def bits(self) -> int:
        """Bits a token: the product of the levels is 2**bits."""
        return sum(self.widths)

    @classmethod
    def of_bits(cls, bits: int) -> Self:
        """Return the settings for so many bits: channels of 8 levels, and of 4 where those leave a rest.

        The paper finds at least 5 levels best. Raises ConfigError if bits are not 1 to 32.
        """
        require(1 <= bits <= 32, "bits", bits, "between 1 and 32")
        fours = -bits % 3
        return cls((8,) * ((bits - 2 * fours) // 3) + (4,) * fours if bits > 1 else (2,))


class FSQ(Quantizer):
    """Finite scalar quantisation; what it computes is drawn at the top of this module."""

    levels: Tensor
    """(channels, 1, 1) int64, how many each channel has."""
    places: Tensor
    """(channels, 1, 1) int64, the lowest bit of each channel's digit in a token."""

    def __init__(self, config: FSQConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.bits = config.bits
        channels = len(config.levels)
        places = [0, *itertools.accumulate(config.widths[:-1])]
        self.register_buffer("levels", torch.tensor(config.levels).view(-1, 1, 1), persistent=False)
        self.register_buffer("places", torch.tensor(places).view(-1, 1, 1), persistent=False)
        self.down = nn.Conv2d(width, channels, kernel_size=1)
        self.up = nn.Conv2d(channels, width, kernel_size=1)
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(channels))  # so the codes start near unit size

    def forward(self, latents: Tensor) -> Quantized:
        """Round latents to the nearest levels.

        latents: (B, width, h, w) float. Returns tokens (B, h, w), codes (B, width, h, w) and a loss of 0. Raises
        ShapeError if the channels are not `width`.
        """
        self.check_latents(latents)
        y = torch.tanh(self.down(latents).float())  # (B, channels, h, w)
        digits = self._digits(y)
        codes = self.up(straight_through(self._values(digits), y))
        return Quantized(self._pack(digits), codes, y.new_zeros(()))

    @torch.no_grad()
    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens (B, h, w) of z (B, channels, h, w)."""
        return self._pack(self._digits(torch.tanh(projected.float())))

    def codes(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, h, w), by default of their own grid.

        Raises ShapeError if they are of another grid than is said, TokenError if one is not in [0, 2**bits).
        """
        if grid is not None:
            self.check_grid(tokens, grid)
        check_tokens(tokens, self.bits)
        digits = tokens.unsqueeze(1) >> self.places & (self.levels - 1)
        codes: Tensor = self.up(self._values(digits))
        return codes

    def freeze_encoding(self) -> None:
        """Have nothing change what decides on tokens; what makes codes of them still learns."""
        self.down.requires_grad_(False)

    def _digits(self, y: Tensor) -> Tensor:
        """Return the number of the level nearest to each of y in [-1, 1], the upper one of two; int64."""
        return (y * ((self.levels - 1) / 2) + self.levels / 2).floor().long()

    def _values(self, digits: Tensor) -> Tensor:
        """Return the levels of these numbers, float32 in [-1, 1]."""
        return (2 * digits - (self.levels - 1)) / (self.levels - 1)

    def _pack(self, digits: Tensor) -> Tensor:
        return (digits << self.places).sum(dim=1)  # no two share a bit, so the sum is their union
