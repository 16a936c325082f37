"""A pyramid of binary spherical quantisers: tokens of a picture from coarse to fine.

    latents ──linear──> v ──u = v / abs(v)──> residual            estimate ──linear──> codes
                                                 │ ^                  ^
    for each scale:                       average│ │take from it      │add
                                                 v └──────────────────┤
                                         sign(s) / sqrt(bits) ──x magnitude──enlarge

with latents and codes (B, width, h, w), u, residual and estimate (B, bits, h, w), and s (B, bits, rows, columns) of the
scale. The last scale is the grid itself. Tokens of all scales lie one after another in one row, (B, 1, total), those of
a scale in raster order; a picture's first tokens say what it is like as a whole, and `coarse` shows it.

Scales: Tian et al. 2024, "Visual Autoregressive Modeling", arXiv:2404.02905, algorithms 1 and 2. Binary spherical
quantisation at each, on one sphere for all of them: Han et al. 2024, "Infinity", arXiv:2412.04431.

The gradient of the codes is the straight-through one: that of u, as if all scales together gave it back. Residuals
shrink from scale to scale, and so must what is taken from them: each scale has a magnitude, the one number that makes
its corners fit its s best, sqrt(bits) times the mean of abs(s). It is learned by the term of the loss that says so, and
by nothing else: a gradient that came through the codes would take the bits as given and see what decoders like, not
that a magnitude too large or too small leaves the scales behind it a residual that they cannot express.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ShapeError
from bisquit.processes import WHOLE, Part, own_part, whole_mean
from bisquit.pyramids import averaged, enlarged, scale_grids
from bisquit.quantizers.base import Quantized, Quantizer, straight_through
from bisquit.quantizers.bits import pack_bits, unpack_bits

FIRST_MAGNITUDE = 0.5  # of every scale before training; on noise, what fits the last one is 0.8


@dataclass(frozen=True)
class PyramidBSQConfig(Settings):
    """How many bits, and which scales."""

    kind: Literal["pyramid"] = field(default="pyramid", kw_only=True)
    bits: int = 10
    """Bits a token, 1 to 32: the codebook has 2**bits codes, and all scales share it."""
    scales: tuple[float, ...] = (0.0, 0.1, 0.2, 0.5, 1.0)
    """Sides of each scale as a fraction of the grid's, from coarse to fine; each has one place at least, and the last
    is the grid itself."""
    truncated: float = 0.0
    """Share of the pictures in training of whose codes only the first few scales are left, a number drawn at random:
    what few scales show then looks better."""

    def __post_init__(self) -> None:
        require(1 <= self.bits <= 32, "bits", self.bits, "between 1 and 32")
        rises = all(coarse < fine for coarse, fine in pairwise(self.scales))
        is_whole = bool(self.scales) and self.scales[0] >= 0 and self.scales[-1] == 1
        require(rises and is_whole, "scales", self.scales, "fractions that rise from at least 0 to 1")
        most = 1 if len(self.scales) > 1 else 0
        require(0 <= self.truncated <= most, "truncated", self.truncated, "in [0, 1], and 0 for a single scale")

    @classmethod
    def of_bits(cls, bits: int) -> Self:
        """Return the default settings with so many bits. Raises ConfigError if they are not 1 to 32."""
        return cls(bits=bits)


class _Scale(NamedTuple):
    """What a scale makes of latents."""

    tokens: Tensor
    """(B, rows columns) int64."""
    right: Tensor
    """(B, rows columns) int64, the tokens but for the bits that were flipped."""
    estimate: Tensor
    """(B, bits, h, w), with all scales before."""
    fitting: Tensor
    """() float, the magnitude that would have fitted best."""


class Flawed(NamedTuple):
    """Tokens of pictures of which some bits are wrong, and what would be right at each place given what came before."""

    seen: Tensor
    """(B, 1, total) int64, some of their bits flipped."""
    right: Tensor
    """(B, 1, total) int64: each scale's best, for what the scales before it have left as they are seen."""


class PyramidBSQ(Quantizer):
    """Binary spherical quantisation scale by scale; what it computes is drawn at the top of this module."""

    def __init__(self, config: PyramidBSQConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.width = width
        self.bits = config.bits
        self.down = nn.Conv2d(width, config.bits, kernel_size=1)
        self.up = nn.Conv2d(config.bits, width, kernel_size=1)
        self.magnitudes = nn.Parameter(torch.full((len(config.scales),), FIRST_MAGNITUDE))
        nn.init.normal_(self.up.weight)  # estimates are of about unit size, so the codes start there too

    def scale_grids(self, latent_grid: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Return the grid (rows, columns) of each scale for latents of a grid (h, w)."""
        return scale_grids(self.config.scales, latent_grid)

    def grid(self, latent_grid: tuple[int, int]) -> tuple[int, int]:
        """Return the grid of the tokens of latents of a grid (h, w): one row of as many as all scales have places."""
        return 1, sum(map(math.prod, self.scale_grids(latent_grid)))

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents scale by scale.

        latents: (B, width, h, w) float. Returns tokens (B, 1, total), codes (B, width, h, w) and by how much magnitudes
        miss what would fit. Raises ShapeError if the channels are not `width`.
        """
        self.check_latents(latents)
        u = self._on_sphere(self.down(latents))
        kept, shown = self._kept(u), torch.zeros_like(u)
        tokens, fitting = [], []
        for number, scale in enumerate(self._scales(u.detach())):
            tokens.append(scale.tokens)
            fitting.append(scale.fitting)
            shown = torch.where(kept > number, scale.estimate, shown)
        best = whole_mean(torch.stack(fitting)) if self.training else torch.stack(fitting)
        loss = F.mse_loss(self.magnitudes, best)
        return Quantized(torch.cat(tokens, dim=1).unsqueeze(1), self.up(straight_through(shown, u)), loss)

    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens (B, 1, total) of v (B, bits, h, w)."""
        tokens = [scale.tokens for scale in self._scales(self._on_sphere(projected))]
        return torch.cat(tokens, dim=1).unsqueeze(1)

    @torch.no_grad()
    def flawed(self, projected: Tensor, most: float) -> Flawed:
        """Return tokens of v (B, bits, h, w) with bits flipped, and those that mend it: what Infinity learns from.

        most: the largest share of a picture's bits; each picture has a share of its own, drawn from 0 to there.
        """
        u, mine = self._on_sphere(projected), own_part()
        shares = mine.of(torch.rand((mine.whole(len(u)), 1, 1, 1), device=u.device))
        scales = [*self._scales(u, most * shares, mine)]
        seen, right = ([getattr(scale, name) for scale in scales] for name in ("tokens", "right"))
        return Flawed(torch.cat(seen, dim=1).unsqueeze(1), torch.cat(right, dim=1).unsqueeze(1))

    def _on_sphere(self, projected: Tensor) -> Tensor:
        """Return u, laid out as `codes` has it, to sum alike."""
        return F.normalize(projected.float(), dim=1).contiguous()

    @torch.no_grad()
    def _scales(self, u: Tensor, flipped: Tensor | None = None, mine: Part = WHOLE) -> Iterator[_Scale]:
        """Yield what each scale makes of u (B, bits, h, w), from coarse to fine.

        flipped: (B, 1, 1, 1), the chance of each picture's bits to be flipped. mine: which part of a batch u is.
        """
        grid, estimate = (u.shape[2], u.shape[3]), torch.zeros_like(u)
        for number, size in enumerate(self.scale_grids(grid)):
            s = averaged(u - estimate, size)
            is_one = right = s >= 0
            if flipped is not None:
                drawn = torch.rand((mine.whole(len(s)), *s.shape[1:]), device=s.device)
                is_one = right ^ (mine.of(drawn) < flipped)
            estimate = estimate + self._detail(is_one, number, grid)
            tokens, best = (pack_bits(bits).flatten(1) for bits in (is_one, right))
            yield _Scale(tokens, best, estimate, math.sqrt(self.bits) * s.abs().mean())

    def codes(self, tokens: Tensor, grid: tuple[int, int] | None = None) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, 1, total) for latents of a grid (h, w).

        Raises ShapeError if that grid has another number of tokens, or is not said, TokenError if one is not in [0,
        2**bits).
        """
        if grid is None:
            raise ShapeError("tokens of a pyramid do not tell the grid of their latents: say which")
        return self.coarse(tokens, grid, len(self.config.scales))

    def coarse(self, tokens: Tensor, grid: tuple[int, int], scales: int) -> Tensor:
        """Return the codes (B, width, h, w) that the first scales alone make; the tokens of others do not matter.

        tokens: (B, 1, total), for latents of a grid (h, w). scales: how many, 0 for the codes of nothing. Raises what
        `codes` does, and ConfigError for more scales than there are.
        """
        self.check_grid(tokens, grid)
        require(0 <= scales <= len(self.config.scales), "scales", scales, f"between 0 and {len(self.config.scales)}")
        sizes = self.scale_grids(grid)
        bits = unpack_bits(tokens, self.bits).squeeze(2).split(list(map(math.prod, sizes)), dim=2)
        estimate = self.magnitudes.new_zeros(len(tokens), self.bits, *grid)
        for scale in range(scales):
            estimate = estimate + self._detail(bits[scale].unflatten(2, sizes[scale]), scale, grid)
        codes: Tensor = self.up(estimate)
        return codes

    def codes_so_far(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Return the codes of those scales that are there whole, in all pictures."""
        is_there = (tokens >= 0).all(dim=0).flatten()
        ends = accumulate(map(math.prod, self.scale_grids(grid)))
        return self.coarse(tokens.clamp_min(0), grid, sum(bool(is_there[:end].all()) for end in ends))

    def freeze_encoding(self) -> None:
        """Have no gradient reach what decides on tokens, magnitudes too; what makes codes of them still learns."""
        self.down.requires_grad_(False)
        self.magnitudes.requires_grad_(False)

    def _detail(self, is_one: Tensor, scale: int, grid: tuple[int, int]) -> Tensor:
        """Return what the bits (B, bits, rows, columns) of a scale add to the estimate, (B, bits, h, w)."""
        corner = self.magnitudes[scale] / math.sqrt(self.bits)
        return enlarged(torch.where(is_one, corner, -corner), grid)

    def _kept(self, u: Tensor) -> Tensor:
        """Return how many scales the codes of each picture have in this pass, (B, 1, 1, 1)."""
        scales = len(self.config.scales)
        if not self.training or not self.config.truncated:
            return torch.full((len(u), 1, 1, 1), scales, device=u.device)
        mine = own_part()
        shape = (mine.whole(len(u)), 1, 1, 1)
        is_truncated = torch.rand(shape, device=u.device) < self.config.truncated
        return mine.of(torch.where(is_truncated, torch.randint(1, scales, shape, device=u.device), scales))
