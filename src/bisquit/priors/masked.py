"""The masked prior: one transformer that sees both ways and predicts all tokens that are not known, at once.

    tokens   t0  ?   t2  ?   ...                      (B, h w), known or not
    input    t0  M   t2  M   ...   + neighbours + places  (B, h w, width)     M: a learned mask vector, no token
    output   .   t1  .   t3  ...                      (B, h w, codebook)  logits; those of known tokens mean nothing

It paints a picture in a few rounds, of which each takes the tokens that are surest: `bisquit.sampling.masked`. What it
knows may lie anywhere, so that it fills holes as it paints. It has no exact likelihood, and the codec refuses it by its
type; its loss is a bound on one. After MaskGIT (Chang et al. 2022, arXiv:2202.04200).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.priors.base import (
    FIRST_STD,
    ConditionalPrior,
    Prior,
    require_condition_size,
    require_neighbours,
    token_nats,
)
from bisquit.priors.causal import (
    AROUND,
    CausalPrior,
    add_embedded,
    around_steps,
    draw_from_bits,
    grow_tables,
    places_around,
    require_softmax,
)
from bisquit.processes import WHOLE, Part, own_part
from bisquit.transformer import Transformer, TransformerConfig

Masking = Literal["uniform", "cosine"]


@dataclass(frozen=True)
class MaskedConfig(Settings):
    """The shape of a `MaskedPrior`, and how it learns."""

    most_neighbours: ClassVar[int] = len(AROUND)
    kind: Literal["masked"] = field(default="masked", kw_only=True)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    neighbours: int = 0
    """Tokens near each one to predict that its input takes too, where they are known."""
    condition_size: int = 0
    """Numbers of a condition that says what to paint; 0 for a prior that takes none."""
    masking: Masking = "uniform"
    """How the share of a picture is drawn that is masked to learn from: all alike, or most often nearly all of it."""

    def __post_init__(self) -> None:
        require_neighbours(self.neighbours, self.most_neighbours)
        require_condition_size(self.condition_size)


class MaskedPrior(ConditionalPrior):
    """A transformer over tokens of which some are known; what it computes is drawn at the top of this module."""

    config: MaskedConfig
    beside: Tensor
    """(h w, neighbours) int64, the places around each place of the grid, known or not; h w for those outside."""

    def __init__(self, config: MaskedConfig, bits: int, grid: tuple[int, int]) -> None:
        super().__init__()
        require(min(grid) >= 1, "grid", grid, "at least 1 x 1")
        require_softmax(bits)
        self.config = config
        self.bits = bits
        self.grid = (int(grid[0]), int(grid[1]))
        width = config.transformer.width
        self.embedding = nn.Embedding(self.codebook_size, width)
        self.mask_vector = nn.Parameter(torch.empty(width))
        self.neighbours = nn.ModuleList(nn.Embedding(self.codebook_size + 1, width) for _ in range(config.neighbours))
        self.register_buffer("beside", places_around(self.grid, config.neighbours), persistent=False)
        self.place = nn.Parameter(torch.empty(self.length, width))
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, self.codebook_size)
        drawn = (self.embedding, self.neighbours, self.head)
        for parameter in (self.mask_vector, self.place, *(p for part in drawn for p in part.parameters())):
            nn.init.normal_(parameter, std=FIRST_STD)
        nn.init.zeros_(self.head.bias)
        self.take_conditions(config.condition_size, width)

    def start_from_bits(self) -> None:
        """Draw what stands for each token in the inputs and in the head as a sum of vectors for its bits."""
        draw_from_bits((self.embedding.weight, self.head.weight, *self.neighbours.parameters()), self.bits)

    def grow_from(self, other: Prior) -> bool:
        """Take from another prior, masked or causal, over tokens of fewer bits, what stands for them, if it fits."""
        return isinstance(other, MaskedPrior | CausalPrior) and grow_tables(self, other)

    def exact(self) -> MaskedPrior:
        """Return the prior that decides what is too close for float32: a copy in float64, on the CPU."""
        return copy.deepcopy(self).cpu().double()

    def logits(self, tokens: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the logits (B, h w, codebook) of each token of (B, h, w) given all that are known, in one pass.

        known: bool (B, h, w); what tokens are elsewhere is not looked at. condition: see `Prior.loss`. Logits are in
        raster order; those of known tokens mean nothing. Raises ShapeError on another grid or size.
        """
        logits: Tensor = self.head(self._features(tokens, known, condition))
        return logits

    def masked_logits(self, tokens: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the logits (masked, codebook) of the tokens that are not known, those of one picture after another.

        They are those of `logits` at these places, up to rounding: the head is spared the others.
        """
        logits: Tensor = self.head(self._features(tokens, known, condition)[~known.flatten(1)])
        return logits

    def _features(self, tokens: Tensor, known: Tensor, condition: Tensor | None) -> Tensor:
        """Return what the head reads, (B, h w, width)."""
        self.check(tokens)
        self.check_known(known, len(tokens))
        tokens, known = tokens.flatten(1), known.flatten(1)
        x = torch.where(known.unsqueeze(2), self.embedding(tokens), self.mask_vector) + self.place
        if self.neighbours:
            seen = F.pad(tokens.where(known, self.codebook_size), (0, 1), value=self.codebook_size)
            codes = around_steps(seen, self.beside, 0, self.length)  # (B, h w, neighbours)
            x = add_embedded(x, self.neighbours, codes)
        if condition is not None:
            x = self.add_condition(x, condition)
        features: Tensor = self.transformer(x, causal=False)
        return features

    def loss(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the order-agnostic bound on what tokens (B, h, w) cost, in nats a token, estimated by a mask each.

        To paint a picture token by token, in an order of the places that is drawn at random, has a likelihood: the mean
        of those of all orders. By Jensen's inequality its nats are at most the mean of the orders' nats, and that mean
        is what this loss estimates. The next token of a random order is any of those still masked, with equal chances,
        so that each number of masked places, from 1 to h w, counts alike, with the mean nats of its places; or, with
        the masked share drawn evenly, summed nats are weighted by 1 / share. Uria et al. 2014, arXiv:1310.1757;
        Hoogeboom et al. 2021, arXiv:2110.02037.

        Masks are drawn anew each time; in evaluation from the same seed each time, and evenly whatever the
        configuration. Cosine masking in training lets large shares count for more, as often as the rounds of sampling
        meet them: the loss is then that bound in evaluation alone. condition: see `Prior.loss`.
        """
        generator, mine = (None, own_part()) if self.training else (torch.Generator().manual_seed(0), WHOLE)
        masking = self.config.masking if self.training else "uniform"
        masked = draw_masks(len(tokens), self.length, masking, generator, mine).view(-1, *self.grid)
        return self.bound(tokens, masked.to(tokens.device), condition).mean()

    def bound(self, tokens: Tensor, masked: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the mean cross-entropy of the masked tokens of each picture, in nats a token, float32 (B,).

        masked: bool (B, h, w), one place of each at least. Its mean over masks, drawn as `draw_masks` does evenly, is
        the bound of `loss`.
        """
        nats = token_nats(self.masked_logits(tokens, ~masked, condition), tokens[masked])
        masked = masked.flatten(1)
        by_place = nats.new_zeros(masked.shape).masked_scatter(masked, nats)
        return by_place.sum(dim=1) / masked.sum(dim=1)


def draw_masks(
    batch: int,
    length: int,
    masking: Masking = "uniform",
    generator: torch.Generator | None = None,
    part: Part = WHOLE,
) -> Tensor:
    """Draw which places of pictures of `length` tokens are masked, bool (batch, length), one of each at least.

    The share of places is even in (0, 1], or cos(pi u / 2) of an even u, which is how much is masked in a round of
    sampling. Each picture's share is drawn in a part of the range of its own, so that those of a batch are spread over
    all of it; Kingma et al. 2021, arXiv:2107.00630, do the same with times. Which places it is, is even. part: which
    part of a batch they are for.
    """
    whole = part.whole(batch)
    first, within = torch.rand(1, generator=generator), torch.rand(whole, generator=generator)
    even = part.of((first + (torch.arange(whole) + within) / max(whole, 1)) % 1)
    share = {"uniform": even, "cosine": (math.pi / 2 * even).cos()}[masking]
    count = (share * length).ceil().clamp(1, length)
    ranks = part.of(torch.rand(whole, length, generator=generator)).argsort(dim=1).argsort(dim=1)
    return ranks < count.unsqueeze(1)
