"""Binary spherical quantisation: a token is the signs of a unit vector.

    latents ──linear──> v ──u = v / abs(v)──> sign(u) / sqrt(bits) ──linear──> codes

with latents and codes (B, width, h, w), v and u (B, bits, h, w). The sign's gradient is the straight-through one: that
of u. Bit 0 of a token is its least significant; +1 means 1, and zero counts as +1. Zhao, Xiong and Kraehenbuehl, "Image
and Video Tokenization with Binary Spherical Quantization", 2024, arXiv:2406.07548, section 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ShapeError
from bisquit.quantizers.base import Quantized, Quantizer, pack_bits, unpack_bits


@dataclass(frozen=True)
class BSQConfig(Settings):
    """How many bits, and the optional entropy terms."""

    kind: Literal["bsq"] = field(default="bsq", kw_only=True)
    bits: int = 10
    """Bits a token, 1 to 32: the codebook has 2**bits codes."""
    sample_entropy_weight: float = 0.0
    """Weight of the mean entropy of each soft token, in bits a bit: pulls latents off the borders between codes."""
    codebook_entropy_weight: float = 0.0
    """Weight of the entropy that the soft codebook lacks, in bits a bit: spreads the tokens over the codes."""
    entropy_group_bits: int = 5
    """Bits whose joint distribution the codebook's entropy is taken over at a time; the last group may be smaller."""
    entropy_temperature: float = 0.5
    """Softness of the soft codes, in units of u sqrt(bits): at 5 a usual latent is nearly uniform, at 0.1 nearly hard.
    """

    def __post_init__(self) -> None:
        require(1 <= self.bits <= 32, "bits", self.bits, "between 1 and 32")
        require(self.sample_entropy_weight >= 0, "sample_entropy_weight", self.sample_entropy_weight, "at least 0")
        require(
            self.codebook_entropy_weight >= 0, "codebook_entropy_weight", self.codebook_entropy_weight, "at least 0"
        )
        require(1 <= self.entropy_group_bits <= 12, "entropy_group_bits", self.entropy_group_bits, "between 1 and 12")
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
        if latents.ndim != 4 or latents.shape[1] != self.width:
            raise ShapeError(f"latents are {tuple(latents.shape)}: they must be (B, {self.width}, h, w)")
        u = F.normalize(self.down(latents).float(), dim=1)  # (B, bits, h, w)
        is_one = u >= 0
        corners = self._corners(is_one)
        straight_through = corners + (u - u.detach())  # in this order it is the corners to the last bit
        return Quantized(pack_bits(is_one), self.up(straight_through), self._entropy_loss(u))

    def codes(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, h, w), by default of their own grid.

        Raises ShapeError if they are of another grid than is said, TokenError if one is not in [0, 2**bits).
        """
        if grid is not None:
            self.check_grid(tokens, grid)
        codes: Tensor = self.up(self._corners(unpack_bits(tokens, self.bits)))
        return codes

    def freeze_encoding(self) -> None:
        """Have no gradient reach what decides on tokens; what makes codes of them still learns."""
        self.down.requires_grad_(False)

    @torch.no_grad()
    def grow_from(self, other: Quantizer) -> bool:
        """Become another BSQ of fewer bits: the low bits are its own, and others begin without a say in the codes.

        Tokens begin with its bits, and codes are its codes but for rounding. Returns whether it could.
        """
        if not isinstance(other, BSQ) or other.width != self.width or not other.bits < self.bits:
            return False
        down, up = self.down.state_dict(), self.up.state_dict()
        for name, array in other.down.state_dict().items():
            down[name][: other.bits] = array
        up["weight"].zero_()
        up["weight"][:, : other.bits] = other.up.weight * math.sqrt(self.bits / other.bits)  # corners are smaller
        up["bias"].copy_(other.up.state_dict()["bias"])
        return True

    def _corners(self, is_one: Tensor) -> Tensor:
        scale = 1 / math.sqrt(self.bits)
        return torch.where(is_one, scale, -scale)

    def _entropy_loss(self, u: Tensor) -> Tensor:
        """Return the weighted entropy terms of the loss, each in bits a bit of the token.

        The chance that bit k of the soft token is one is sigmoid(2 u_k sqrt(bits) / temperature), bits independent of
        one another: then a token's entropy is the sum over its bits. The codebook's is that of the batch's mean
        distribution, over groups of bits.
        """
        sample_weight, codebook_weight = self.config.sample_entropy_weight, self.config.codebook_entropy_weight
        if sample_weight == 0 and codebook_weight == 0:
            return u.new_zeros(())
        with torch.autocast(u.device.type, enabled=False):  # near a uniform codebook, bfloat16 turns the gradient
            u = u.movedim(1, -1).flatten(0, -2)  # (N, bits)
            logits = (2 * math.sqrt(self.bits) / self.config.entropy_temperature) * u
            sample_entropy = _bit_entropy(logits).mean()
            groups = logits.split(self.config.entropy_group_bits, dim=1)
            codebook_entropy = torch.stack([_joint_entropy(group) for group in groups]).sum() / self.bits
            return sample_weight * sample_entropy + codebook_weight * (1 - codebook_entropy)


def _bit_entropy(logits: Tensor) -> Tensor:
    """Return the entropy in bits of two-way choices with log-odds `logits`, elementwise."""
    nats = F.softplus(logits) - logits * torch.sigmoid(logits)
    return nats / math.log(2)


def _joint_entropy(logits: Tensor) -> Tensor:
    """Return the entropy, in bits, of the average of N distributions over 2**g codes, each of g independent bits.

    logits: (N, g), the log-odds of each bit.
    """
    g = logits.shape[1]
    is_one = unpack_bits(torch.arange(2**g, device=logits.device).view(-1, 1, 1), g).flatten(1)  # (2**g, g)
    ones, zeros = is_one.to(logits.dtype), (~is_one).to(logits.dtype)
    log_chances = F.logsigmoid(logits) @ ones.T + F.logsigmoid(-logits) @ zeros.T  # (N, 2**g)
    mean = log_chances.exp().mean(dim=0)
    return -torch.xlogy(mean, mean).sum() / math.log(2)
