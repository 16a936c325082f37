"""The pyramid prior: a transformer that predicts all tokens of a scale at once, given those of the scales before.

    tokens        a | b b b ... | c c c c c c c c ...        (B, total), scale by scale, each in raster order
                    └──────┐  └──────┐
    picture         nothing  of a      of a + b              each scale's corners times its gain, at the next one's size
    input         S | + + + ... | + + + + + + + + ...        (B, total, width)  a linear map of it + scale + place
    output        a | b b b ... | c c c c c c c c ...        (B, total, codebook)  logits

A step sees its own scale's inputs and those before, and its own are made of tokens before that scale alone: given them,
the tokens of a scale are independent of one another. That is what makes it fast, a pass of the network for each scale
instead of one for each token, and the likelihood is as exact as that of any other order. The start S is what the first
scale's vector adds, for its picture is nothing.

Tokens are those of `bisquit.quantizers.pyramid`, whose bits are the signs of corners; by how much a scale's corners
count is learned here anew, a gain for each, so that a prior needs nothing of the quantizer but the scales. A condition,
what a picture is to show, is a vector of numbers; a linear map of it is added to every place.

A prior that has only seen right tokens does not know what to do about wrong ones, and its own are at times. So it may
learn from tokens of which some bits are flipped: they are what it sees, and what it predicts is each scale's best for
what is then left. The quantizer makes both rows.

Tian et al. 2024, "Visual Autoregressive Modeling", arXiv:2404.02905, section 3. Flipped bits: Han et al. 2024,
"Infinity", arXiv:2412.04431, section 3.4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from bisquit.config import Settings, require
from bisquit.errors import ShapeError
from bisquit.priors.base import (
    FIRST_STD,
    ConditionalPrior,
    Path,
    Prior,
    SequentialPrior,
    require_condition_size,
    token_nats,
)
from bisquit.priors.causal import require_softmax
from bisquit.pyramids import averaging, enlarging
from bisquit.transformer import KeyValueCache, Transformer, TransformerConfig

MOST_SCALES = 64
MOST_PLACES = 4096
"""Of all scales together: what each place takes of each other one is held in a table."""


@dataclass(frozen=True)
class PyramidConfig(Settings):
    """The shape of a `PyramidPrior`."""

    kind: Literal["pyramid"] = field(default="pyramid", kw_only=True)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    scales: tuple[tuple[int, int], ...] = ((1, 1), (2, 3), (4, 6), (10, 15), (20, 30))
    """Rows and columns of each scale, from coarse to fine: those that the quantizer has for frames of one size."""
    condition_size: int = 0
    """Numbers of a condition that says what to paint; 0 for a prior that takes none."""

    def __post_init__(self) -> None:
        grows = all(coarse <= fine for pair in pairwise(self.scales) for coarse, fine in zip(*pair, strict=True))
        wanted = "grids of at least 1 x 1, none lower or narrower than the one before it"
        require(bool(self.scales) and min(self.scales[0]) >= 1 and grows, "scales", self.scales, wanted)
        require(len(self.scales) <= MOST_SCALES, "scales", len(self.scales), f"at most {MOST_SCALES}")
        require_condition_size(self.condition_size)


class PyramidPrior(ConditionalPrior, SequentialPrior):
    """A transformer over tokens scale by scale; what it computes is drawn at the top of this module.

    A step is a token as everywhere, and all logits of a scale are computed when its first step is asked for.
    """

    config: PyramidConfig
    spans: tuple[slice, ...]
    """The steps of each scale."""
    scale_of: Tensor
    """(total,) int64, the scale of each step."""
    pictures: Tensor
    """(total, total), by how much each step's picture takes of the corners of each step; 0 but for scales before."""
    mask: Tensor
    """(total, total), 0 where a step sees another, -inf where it is of a later scale."""

    def __init__(self, config: PyramidConfig, bits: int, grid: tuple[int, int]) -> None:
        super().__init__()
        require_softmax(bits)
        counts = [math.prod(size) for size in config.scales]
        wanted = f"of {sum(counts)} places, as many as the scales {config.scales} have together"
        require(min(grid) >= 1 and math.prod(grid) == sum(counts), "grid", grid, wanted)
        require(sum(counts) <= MOST_PLACES, "scales", config.scales, f"of at most {MOST_PLACES:,} places together")
        self.config = config
        self.bits = bits
        self.grid = (int(grid[0]), int(grid[1]))
        self.spans = tuple(slice(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True))
        scale_of = torch.tensor([scale for scale, count in enumerate(counts) for _ in range(count)])
        self.register_buffer("scale_of", scale_of, persistent=False)
        self.register_buffer("pictures", pictures_of_scales(config.scales).float(), persistent=False)
        is_later = scale_of > scale_of.unsqueeze(1)
        mask = torch.zeros(self.length, self.length).masked_fill_(is_later, -torch.inf)
        self.register_buffer("mask", mask, persistent=False)
        width = config.transformer.width
        self.gains = nn.Parameter(torch.ones(len(counts) - 1))  # none sees the last scale
        self.embedding = nn.Linear(bits, width, bias=False)
        self.scale = nn.Parameter(torch.empty(len(counts), width))
        self.place = nn.Parameter(torch.empty(self.length, width))
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, self.codebook_size)
        for parameter in (self.scale, self.place, self.embedding.weight, self.head.weight):
            nn.init.normal_(parameter, std=FIRST_STD)
        nn.init.zeros_(self.head.bias)
        self.take_conditions(config.condition_size, width)

    @torch.no_grad()
    def grow_from(self, other: Prior) -> bool:
        """Take from another prior, over tokens of fewer bits, what stands for them; return whether it could."""
        if not isinstance(other, PyramidPrior) or other.bits >= self.bits or other.config.scales != self.config.scales:
            return False
        if other.config.transformer.width != self.config.transformer.width:
            return False
        self.embedding.weight.zero_()
        self.embedding.weight[:, : other.bits] = other.embedding.weight * math.sqrt(self.bits / other.bits)
        low_bits = torch.arange(self.codebook_size, device=self.device) % other.codebook_size
        for name, array in self.head.state_dict().items():
            array.copy_(other.head.state_dict()[name][low_bits])
        return True

    def conditioned(self, condition: Tensor, batch: int) -> Path:
        """Return the way of pictures that are to show what a condition, (batch, condition_size), says of each.

        Raises ShapeError if it is of another size.
        """
        places = self.add_condition(self.places().expand(batch, -1, -1), condition)
        return Path(places, self.scale_of.new_empty(batch, self.length, 0))

    def places(self) -> Tensor:
        """Return what is added to the input of each step, (total, width): what tells its place and its scale."""
        return self.place + self.scale[self.scale_of]

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return the logits (B, total, codebook) of tokens (B, h, w), each given the scales before it, in one pass."""
        self.check(tokens)
        logits: Tensor = self.head(self._features(tokens, len(self.spans) - 1, path))
        return logits

    def loss(self, tokens: Tensor, condition: Tensor | None = None, seen: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of tokens (B, h, w) in nats a token.

        condition: see `Prior.loss`. seen: (B, h, w), what the scales before look like where they are not right.
        """
        if seen is None:
            return super().loss(tokens, condition)
        self.check(tokens)
        path = None if condition is None else self.conditioned(condition, len(tokens))
        return token_nats(self.logits(seen, path), tokens.flatten(1)).mean()

    def logits_at(self, tokens: Tensor, step: int, path: Path | None = None) -> Tensor:
        """Return the logits (B, codebook) of the token of (B, h, w) at one step, given the scales before its own."""
        self.check(tokens)
        logits: Tensor = self.head(self._features(tokens, int(self.scale_of[step]), path)[:, step])
        return logits

    def start(self, batch: int, path: Path | None = None) -> PyramidState:
        """Return an empty key-value cache for `batch` sequences, with room for their tokens."""
        cache = KeyValueCache(self.config.transformer, batch, capacity=self.length, like=self.place)
        tokens = self.scale_of.new_zeros(batch, self.length)
        return PyramidState(cache, tokens, path, self.place.new_empty(batch, 0, self.codebook_size))

    def next_logits(self, state: PyramidState, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook) of the next token given the last, (B,) int64 or None at the first step."""
        step = state.step
        if step == self.length:
            raise ShapeError(f"a picture has {self.length} tokens, and all are there")
        self.check_last(last, step, len(state.tokens))
        if last is not None:
            state.tokens[:, step - 1] = last
        scale = int(self.scale_of[step])
        first = self.spans[scale].start
        if step == first:
            state.logits = self.next_scale(state, state.tokens[:, self.spans[scale - 1]] if scale else None)
        state.step = step + 1
        return state.logits[:, step - first]

    def next_scale(self, state: PyramidState, last: Tensor | None) -> Tensor:
        """Return the logits (B, n, codebook) of all tokens of the next scale, by one pass of the network.

        state: as `start` gave it and the calls since have filled it. last: int64, all tokens of the scale before, in
        raster order; None at the first scale. Raises ShapeError if they are not as many, or if all scales are there.
        """
        scale = state.passes
        if scale == len(self.spans):
            raise ShapeError(f"a picture has {scale} scales, and all are there")
        span, batch = self.spans[scale], len(state.tokens)
        if scale:
            before = self.spans[scale - 1]
            wanted = (batch, before.stop - before.start)
            if last is None or last.shape != wanted:
                given = "no tokens" if last is None else f"tokens {tuple(last.shape)}"
                raise ShapeError(f"scale {scale} was given {given}: it takes those of the scale before, {wanted}")
            state.tokens[:, before] = last
        elif last is not None:
            raise ShapeError(f"scale 0 was given tokens {tuple(last.shape)}: it takes None")
        x = self._inputs(state.tokens[:, : span.start], span, state.path)
        logits: Tensor = self.head(self.transformer(x, causal=False, cache=state.cache))
        state.passes = scale + 1
        return logits

    def _features(self, tokens: Tensor, scale: int, path: Path | None) -> Tensor:
        """Return what the head reads, (B, T, width), for all steps up to a scale's last; tokens (B, h, w)."""
        span = self.spans[scale]
        x = self._inputs(tokens.flatten(1)[:, : span.start], slice(0, span.stop), path)
        features: Tensor = self.transformer(x, causal=False, mask=self.mask[: span.stop, : span.stop])
        return features

    def _inputs(self, before: Tensor, steps: slice, path: Path | None) -> Tensor:
        """Return the transformer's input (B, n, width) for some steps, of tokens (B, T) of whole scales before."""
        known = before.shape[1]
        bits = before.unsqueeze(-1) >> torch.arange(self.bits, device=before.device) & 1  # (B, T, bits)
        corners = (2 * bits - 1) * self.gains[self.scale_of[:known]].unsqueeze(1) / math.sqrt(self.bits)
        x = self.embedding(self.pictures[steps, :known] @ corners)
        return x + (self.places() if path is None else path.places)[..., steps, :]


@dataclass
class PyramidState:
    """What the steps so far leave behind, and the way that they take."""

    cache: KeyValueCache
    tokens: Tensor
    """(B, total) int64, those so far."""
    path: Path | None
    logits: Tensor
    """(B, n, codebook), of the scale that steps are in."""
    step: int = 0
    """Tokens that `next_logits` was asked for."""
    passes: int = 0
    """Scales computed so far, each by one pass of the network."""


def pictures_of_scales(scales: tuple[tuple[int, int], ...]) -> Tensor:
    """Return by how much the picture at each place of each scale takes of each place of the scales before it.

    float64 (total, total), of places scale by scale: each scale before is enlarged to the last one's size, and averaged
    to its own.
    """
    rows, columns = scales[-1]
    up = [torch.kron(enlarging(h, rows), enlarging(w, columns)) for h, w in scales]  # (rows columns, h w)
    down = [torch.kron(averaging(rows, h), averaging(columns, w)) for h, w in scales]
    blocks = [
        [down[to] @ up[of] if of < to else up[of].new_zeros(len(down[to]), len(down[of])) for of in range(len(scales))]
        for to in range(len(scales))
    ]
    return torch.cat([torch.cat(row, dim=1) for row in blocks])
