"""Vector quantisation: a token is the number of the nearest vector in a codebook that is learnt.

    latents ──linear──> v ──nearest of 2**bits vectors e──> e ──linear──> codes

with latents and codes (B, width, h, w), v and e (B, code_width, h, w). The gradient is the straight-through one: that
of v. A term of the loss draws vectors to their latents, another, whose weight is the paper's beta, latents to their
vectors: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017, arXiv:1711.00937,
equation 3. The codebook learns by that term and not by moving averages, as in the paper's appendix: so it is a
parameter like others, and what a training does with those, schedule, average, freezing, resuming, holds for it too.

A vector that no latent is nearest to learns nothing and would stay so. In training, one that was nearest to none for
`restart_steps` steps in a row is moved onto a latent of the batch, drawn at random, as in Dhariwal et al. 2020,
arXiv:2005.00341; the first step moves all that it does not use, so that the codebook begins where latents
are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.processes import own_part, total
from bisquit.quantizers.base import Quantized, Quantizer, straight_through
from bisquit.quantizers.bits import check_tokens

MOST_DISTANCES = 2**24
"""Held at a time, of so many latents as that allows to all vectors: 64 MB."""


@dataclass(frozen=True)
class VQConfig(Settings):
    """The size of the codebook, and how it learns."""

    kind: Literal["vq"] = field(default="vq", kw_only=True)
    bits: int = 10
    """Bits a token, 1 to 16: the codebook has 2**bits vectors."""
    code_width: int = 8
    """Channels of a vector of the codebook; of few, more vectors stay in use."""
    commitment_weight: float = 0.25
    """Weight of the mean squared distance between what is quantized and what it becomes, which keeps it near."""
    restart_steps: int = 100
    """Steps after which a vector that no latent was nearest to begins anew at one of them; 0 never does."""

    def __post_init__(self) -> None:
        wanted = "between 1 and 16, for each code is a vector to keep and to compare with: bsq, lfq and fsq take more"
        require(1 <= self.bits <= 16, "bits", self.bits, wanted)
        require(self.code_width >= 1, "code_width", self.code_width, "at least 1")
        require(self.commitment_weight >= 0, "commitment_weight", self.commitment_weight, "at least 0")
        require(self.restart_steps >= 0, "restart_steps", self.restart_steps, "at least 0")

    @classmethod
    def of_bits(cls, bits: int) -> Self:
        """Return the default settings with so many bits. Raises ConfigError if they are not 1 to 16."""
        return cls(bits=bits)


class VQ(Quantizer):
    """Vector quantisation; what it computes is drawn at the top of this module."""

    idle_steps: Tensor
    """(2**bits,) int64, the steps of training since a latent was nearest to each vector."""

    def __init__(self, config: VQConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.bits = config.bits
        self.down = nn.Conv2d(width, config.code_width, kernel_size=1)
        self.up = nn.Conv2d(config.code_width, width, kernel_size=1)
        nn.init.normal_(self.up.weight, std=1 / math.sqrt(config.code_width))
        self.codebook = nn.Parameter(torch.randn(2**config.bits, config.code_width))
        self.register_buffer("idle_steps", torch.full((2**config.bits,), config.restart_steps))

    def forward(self, latents: Tensor) -> Quantized:
        """Replace latents by the nearest vectors of the codebook.

        latents: (B, width, h, w) float. Returns tokens (B, h, w), codes (B, width, h, w) and the codebook's and the
        commitment term of the loss. In training, vectors that no latent is nearest to may change by it; what it draws,
        it draws from PyTorch's own generator. Raises ShapeError if the channels are not `width`.
        """
        self.check_latents(latents)
        v = self.down(latents).float()  # (B, code_width, h, w)
        tokens = self.tokens_of(v)
        nearest = self._vectors(tokens)
        commitment = F.mse_loss(v, nearest.detach())
        loss = F.mse_loss(nearest, v.detach()) + self.config.commitment_weight * commitment
        if self.training and torch.is_grad_enabled() and self.codebook.requires_grad and self.config.restart_steps:
            self._restart_idle(v, tokens)
        return Quantized(tokens, self.up(straight_through(nearest, v)), loss)

    @torch.no_grad()
    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens (B, h, w) of v (B, code_width, h, w): by least squared distance, the first of equals."""
        v = projected.float().movedim(1, -1)  # (B, h, w, code_width)
        with torch.autocast(v.device.type, enabled=False):  # bfloat16 cannot tell near vectors apart
            norms = self.codebook.square().sum(dim=1)
            parts = v.flatten(0, 2).split(max(1, MOST_DISTANCES // len(norms)))
            # Without the square of v, which is the same for all vectors.
            nearest = [torch.addmm(norms, part, self.codebook.T, alpha=-2).argmin(dim=1) for part in parts]
        return torch.cat(nearest).view(v.shape[:3])

    def codes(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, h, w), by default of their own grid.

        Raises ShapeError if they are of another grid than is said, TokenError if one is not in [0, 2**bits).
        """
        if grid is not None:
            self.check_grid(tokens, grid)
        check_tokens(tokens, self.bits)
        codes: Tensor = self.up(self._vectors(tokens))
        return codes

    def freeze_encoding(self) -> None:
        """Have nothing change what decides on tokens; what makes codes of them still learns."""
        self.down.requires_grad_(False)
        self.codebook.requires_grad_(False)

    def _vectors(self, tokens: Tensor) -> Tensor:
        """Return the vectors (B, code_width, h, w) of tokens (B, h, w)."""
        vectors = F.embedding(tokens, self.codebook).movedim(-1, 1)
        return vectors.clone(memory_format=torch.contiguous_format)  # another layout is another convolution's rounding

    @torch.no_grad()
    def _restart_idle(self, v: Tensor, tokens: Tensor) -> None:
        """Count a step, and move vectors that have been idle for long onto latents of v (B, code_width, h, w)."""
        mine = own_part()
        is_used = torch.zeros_like(self.idle_steps)
        is_used[tokens.flatten()] = 1
        self.idle_steps += 1
        self.idle_steps[total(is_used) > 0] = 0
        begin_anew = self.idle_steps >= self.config.restart_steps
        latents = v.movedim(1, -1).flatten(0, 2)
        count = mine.whole(len(latents))
        drawn = torch.randperm(count)[torch.arange(len(self.codebook)) % count].to(v.device)  # each as often, nearly
        drawn -= mine.first(len(latents))
        is_mine = (drawn >= 0) & (drawn < len(latents))
        chosen = latents.new_zeros(self.codebook.shape)
        chosen[is_mine] = latents[drawn[is_mine]]
        moved = torch.where(begin_anew.unsqueeze(1), total(chosen), self.codebook)
        self.codebook.copy_(moved)
        self.idle_steps.masked_fill_(begin_anew, 0)
