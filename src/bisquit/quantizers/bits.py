"""What quantizers share whose tokens are the signs of numbers: bits and their order, and how much soft bits tell.

Bit 0 of a token is its least significant; +1 means 1, and zero counts as +1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import TokenError
from bisquit.processes import whole_mean
from bisquit.quantizers.base import Quantizer


@dataclass(frozen=True)
class SignsConfig(Settings):
    """How many bits, and the entropy terms."""

    bits: int = 10
    """Bits a token, 1 to 32: the codebook has 2**bits codes."""
    sample_entropy_weight: float = 0.0
    """Weight of the mean entropy of each soft token, in bits a bit: pulls latents off the borders between codes."""
    codebook_entropy_weight: float = 0.0
    """Weight of the entropy that the soft codebook lacks, in bits a bit: spreads the tokens over the codes."""
    entropy_group_bits: int = 5
    """Bits whose joint distribution the codebook's entropy is taken over at a time; the last group may be smaller."""

    def __post_init__(self) -> None:
        require(1 <= self.bits <= 32, "bits", self.bits, "between 1 and 32")
        for name in ("sample_entropy_weight", "codebook_entropy_weight"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        require(1 <= self.entropy_group_bits <= 12, "entropy_group_bits", self.entropy_group_bits, "between 1 and 12")

    @classmethod
    def of_bits(cls, bits: int) -> Self:
        """Return the default settings with so many bits. Raises ConfigError if they are not 1 to 32."""
        return cls(bits=bits)


class SignsQuantizer(Quantizer):
    """A quantizer whose tokens are signs: latents snap to the corners of a cube about zero."""

    def __init__(self, bits: int, width: int, corner: float) -> None:
        """corner: the size of each coordinate of a corner. Codes of corners start at unit size."""
        super().__init__()
        self.width, self.bits, self.corner = width, bits, corner
        self.down = nn.Conv2d(width, bits, kernel_size=1)
        self.up = nn.Conv2d(bits, width, kernel_size=1)
        nn.init.normal_(self.up.weight, std=1 / (corner * math.sqrt(bits)))

    @torch.no_grad()
    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens (B, h, w) of what `down` makes of latents, (B, bits, h, w)."""
        return pack_bits(projected >= 0)

    def codes(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, h, w), by default of their own grid.

        Raises ShapeError if they are of another grid than is said, TokenError if one is not in [0, 2**bits).
        """
        if grid is not None:
            self.check_grid(tokens, grid)
        codes: Tensor = self.up(self.corners(unpack_bits(tokens, self.bits)))
        return codes

    def corners(self, is_one: Tensor) -> Tensor:
        """Return the corners of bits, both (B, bits, h, w)."""
        return torch.where(is_one, self.corner, -self.corner)

    def freeze_encoding(self) -> None:
        """Have nothing change what decides on tokens; what makes codes of them still learns."""
        self.down.requires_grad_(False)

    @torch.no_grad()
    def grow_from(self, other: Quantizer) -> bool:
        """Become another of this kind of fewer bits: the low bits are its own, others begin without a say in the codes.

        Tokens begin with its bits, and codes are its codes but for rounding. Returns whether it could.
        """
        if not isinstance(other, type(self)) or other.width != self.width or not other.bits < self.bits:
            return False
        down, up, others_up = self.down.state_dict(), self.up.state_dict(), other.up.state_dict()
        for name, array in other.down.state_dict().items():
            down[name][: other.bits] = array
        up["weight"].zero_()
        up["weight"][:, : other.bits] = others_up["weight"] * (other.corner / self.corner)  # of corners of another size
        up["bias"].copy_(others_up["bias"])
        return True


def pack_bits(is_one: Tensor) -> Tensor:
    """Pack booleans (B, bits, h, w) into int64 tokens (B, h, w); bit 0 is the least significant."""
    bits = is_one.shape[1]
    places = torch.arange(bits, device=is_one.device).view(1, bits, 1, 1)
    return (is_one.long() << places).sum(dim=1)


def unpack_bits(tokens: Tensor, bits: int) -> Tensor:
    """Unpack int64 tokens (B, h, w) into booleans (B, bits, h, w). Raises TokenError if one is not in [0, 2**bits)."""
    check_tokens(tokens, bits)
    places = torch.arange(bits, device=tokens.device).view(1, bits, 1, 1)
    return (tokens.unsqueeze(1) >> places & 1).bool()


def check_tokens(tokens: Tensor, bits: int) -> None:
    """Raise TokenError unless all of int64 tokens are in [0, 2**bits)."""
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >> bits):
        raise TokenError(f"tokens run from {int(tokens.min())} to {int(tokens.max())}: they must be in [0, 2**{bits})")


def entropy_loss(log_odds: Tensor, config: SignsConfig, is_part: bool = False) -> Tensor:
    """Return the weighted entropy terms of the loss, (), each in bits a bit of the token.

    log_odds: (B, bits, h, w), of each bit of the soft token to be one. Its bits are independent of one another: then a
    token's entropy is the sum over its bits. The codebook's is that of the batch's mean distribution, over groups of
    bits. is_part: whether the batch is divided among the processes of a training, and this is one's part.
    """
    sample_weight, codebook_weight = config.sample_entropy_weight, config.codebook_entropy_weight
    if sample_weight == 0 and codebook_weight == 0:
        return log_odds.new_zeros(())
    with torch.autocast(log_odds.device.type, enabled=False):  # near a uniform codebook, bfloat16 turns the gradient
        log_odds = log_odds.movedim(1, -1).flatten(0, -2)  # (N, bits)
        sample_entropy = bit_entropy(log_odds).mean()
        groups = log_odds.split(config.entropy_group_bits, dim=1)
        codebook_entropy = torch.stack([joint_entropy(group, is_part) for group in groups]).sum() / config.bits
        return sample_weight * sample_entropy + codebook_weight * (1 - codebook_entropy)


def bit_entropy(log_odds: Tensor) -> Tensor:
    """Return the entropy in bits of two-way choices with these log-odds, elementwise."""
    nats = F.softplus(log_odds) - log_odds * torch.sigmoid(log_odds)
    return nats / math.log(2)


def joint_entropy(log_odds: Tensor, is_part: bool = False) -> Tensor:
    """Return the entropy, in bits, of the average of N distributions over 2**g codes, each of g independent bits.

    log_odds: (N, g), of each bit. is_part: whether other processes have as many of the distributions each.
    """
    g = log_odds.shape[1]
    is_one = unpack_bits(torch.arange(2**g, device=log_odds.device).view(-1, 1, 1), g).flatten(1)  # (2**g, g)
    ones, zeros = is_one.to(log_odds.dtype), (~is_one).to(log_odds.dtype)
    log_chances = F.logsigmoid(log_odds) @ ones.T + F.logsigmoid(-log_odds) @ zeros.T  # (N, 2**g)
    mean = log_chances.exp().mean(dim=0)
    if is_part:  # the entropy of a mean is not the mean of entropies
        mean = whole_mean(mean)
    mean = mean.clamp_min(torch.finfo(mean.dtype).tiny)  # the gradient at 0 is no number
    return -torch.xlogy(mean, mean).sum() / math.log(2)
