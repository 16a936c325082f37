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

from torch import Tensor
from torch.nn import functional as F

from bisquit.config import require
from bisquit.quantizers.base import Quantized, straight_through
from bisquit.quantizers.bits import SignsConfig, SignsQuantizer, entropy_loss, pack_bits


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


class BSQ(SignsQuantizer):
    """Binary spherical quantisation; what it computes is drawn at the top of this module."""

    def __init__(self, config: BSQConfig, width: int) -> None:
        super().__init__(config.bits, width, corner=1 / math.sqrt(config.bits))
        self.config = config

    def forward(self, latents: Tensor) -> Quantized:
        """Snap latents to the nearest corner of the cube inscribed in the unit sphere.

        latents: (B, width, h, w) float. Returns tokens (B, h, w), codes (B, width, h, w) and the weighted entropy
        terms. Raises ShapeError if the channels are not `width`. Equations 4 to 6 of the paper.
        """
        self.check_latents(latents)
        u = F.normalize(self.down(latents).float(), dim=1)  # (B, bits, h, w)
        is_one = u >= 0
        codes = self.up(straight_through(self.corners(is_one), u))
        return Quantized(pack_bits(is_one), codes, self._entropy_loss(u))

    def _entropy_loss(self, u: Tensor) -> Tensor:
        """The chance that bit k of the soft token is one is sigmoid(2 u_k sqrt(bits) / temperature)."""
        log_odds = (2 * math.sqrt(self.bits) / self.config.entropy_temperature) * u
        return entropy_loss(log_odds, self.config, self.training)
