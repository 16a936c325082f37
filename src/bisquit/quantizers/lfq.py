"""Lookup-free quantisation: a token is the signs of a vector, as it comes.

    latents ──linear──> v ──> sign(v) ──linear──> codes

with latents and codes (B, width, h, w), v (B, bits, h, w). The sign's gradient is the straight-through one: that of v.
Unlike BSQ's, v has no bounds: a commitment term keeps it near the corners of the cube, and two entropy terms have each
token sure of its code and all codes used. Yu et al., "Language Model Beats Diffusion: Tokenizer is Key to Visual
Generation", 2023, arXiv:2310.05737, section 3.1. The paper counts zero as -1; here it is +1, as elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from bisquit.config import require
from bisquit.quantizers.base import Quantized, straight_through
from bisquit.quantizers.bits import SignsConfig, SignsQuantizer, entropy_loss, pack_bits


@dataclass(frozen=True)
class LFQConfig(SignsConfig):
    """How many bits, and the terms of the loss."""

    kind: Literal["lfq"] = field(default="lfq", kw_only=True)
    sample_entropy_weight: float = 0.001
    codebook_entropy_weight: float = 0.001
    entropy_temperature: float = 1.0
    """Softness of the soft codes: a code's log chance is minus its squared distance over this."""
    commitment_weight: float = 0.01
    """Weight of the mean squared distance between what is quantized and what it becomes, which keeps it near."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.entropy_temperature > 0, "entropy_temperature", self.entropy_temperature, "above 0")
        require(self.commitment_weight >= 0, "commitment_weight", self.commitment_weight, "at least 0")


class LFQ(SignsQuantizer):
    """Lookup-free quantisation; what it computes is drawn at the top of this module."""

    def __init__(self, config: LFQConfig, width: int) -> None:
        super().__init__(config.bits, width, corner=1.0)
        self.config = config

    def forward(self, latents: Tensor) -> Quantized:
        """Snap latents to the nearest corner of the cube of side 2.

        latents: (B, width, h, w) float. Returns tokens (B, h, w), codes (B, width, h, w) and the weighted terms of the
        loss. Raises ShapeError if the channels are not `width`.
        """
        self.check_latents(latents)
        v = self.down(latents).float()  # (B, bits, h, w)
        is_one = v >= 0
        corners = self.corners(is_one)
        return Quantized(pack_bits(is_one), self.up(straight_through(corners, v)), self._loss(v, corners))

    def _loss(self, v: Tensor, corners: Tensor) -> Tensor:
        """Return the weighted entropy and commitment terms of the loss.

        The squared distances of v_k to 1 and -1 differ by 4 v_k, so the chance that bit k of the soft token is one is
        sigmoid(4 v_k / temperature).
        """
        commitment = F.mse_loss(v, corners)
        entropies = entropy_loss((4 / self.config.entropy_temperature) * v, self.config, self.training)
        return self.config.commitment_weight * commitment + entropies
