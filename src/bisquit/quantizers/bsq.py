"""Binary spherical quantisation: a token is the signs of a unit vector.

    latents ──linear──> v ──u = v / abs(v)──> sign(u) / sqrt(bits) ──linear──> codes

with latents and codes (B, width, h, w), v and u (B, bits, h, w). The sign's gradient is the straight-through one: that
of u. Zhao, Xiong and Kraehenbuehl, "Image and Video Tokenization with Binary Spherical Quantization", 2024,
arXiv:2406.07548, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import require
from bisquit.quantizers.base import Quantized, Quantizer, straight_through
from bisquit.quantizers.bits import SignsConfig, entropy_loss, grow_maps, pack_bits, unpack_bits


@dataclass(frozen=True)
class BSQConfig(SignsConfig):
    """How many bits, and the optional entropy terms."""

    kind: Literal["bsq"] = field(default="bsq", kw_only=True)
    entropy_temperature: float = 0.5
    """Softness of the soft codes, in units of u sqrt(bits): at 5 a usual latent is nearly uniform, at 0.1 nearly hard.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.entropy_temperature > 0, "entropy_temperature", self.entropy_temperature, "above 0")


class BSQ(Quantizer):
    """Binary spherical quantisation; what it computes is drawn at the top of this module."""

    def __init__(self, config: BSQConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.bits = config.bits
        self.down = nn.Conv2d(width, config.bits, kernel_size=1)
        self.up = nn.Conv2d(config.bits, width, kernel_size=1)
        nn.init.normal_(self.up.weight)  # corners are unit vectors, so the codes start at unit size too

    def forward(self, latents: Tensor) -> Quantized:
        """Snap latents to the nearest corner of the cube inscribed in the unit sphere.

        latents: (B, width, h, w) float. Returns tokens (B, h, w), codes (B, width, h, w) and the weighted entropy
        terms. Raises ShapeError if the channels are not `width`. Equations 4 to 6 of the paper.
        """
        self.check_latents(latents)
        u = F.normalize(self.down(latents).float(), dim=1)  # (B, bits, h, w)
        is_one = u >= 0
        codes = self.up(straight_through(self._corners(is_one), u))
        return Quantized(pack_bits(is_one), codes, self._entropy_loss(u))

    @torch.no_grad()
    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens (B, h, w) of v (B, bits, h, w)."""
        return pack_bits(projected >= 0)

    def codes(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, h, w), by default of their own grid.

        Raises ShapeError if they are of another grid than is said, TokenError if one is not in [0, 2**bits).
        """
        if grid is not None:
            self.check_grid(tokens, grid)
        codes: Tensor = self.up(self._corners(unpack_bits(tokens, self.bits)))
        return codes

    def freeze_encoding(self) -> None:
        """Have nothing change what decides on tokens; what makes codes of them still learns."""
        self.down.requires_grad_(False)

    def grow_from(self, other: Quantizer) -> bool:
        """Become another BSQ of fewer bits: the low bits are its own, and others begin without a say in the codes.

        Tokens begin with its bits, and codes are its codes but for rounding. Returns whether it could.
        """
        if not isinstance(other, BSQ) or other.width != self.width or not other.bits < self.bits:
            return False
        grow_maps(self.down, self.up, other.down, other.up, scale=math.sqrt(self.bits / other.bits))
        return True

    def _corners(self, is_one: Tensor) -> Tensor:
        scale = 1 / math.sqrt(self.bits)
        return torch.where(is_one, scale, -scale)

    def _entropy_loss(self, u: Tensor) -> Tensor:
        """The chance that bit k of the soft token is one is sigmoid(2 u_k sqrt(bits) / temperature)."""
        return entropy_loss((2 * math.sqrt(self.bits) / self.config.entropy_temperature) * u, self.config)
