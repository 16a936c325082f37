"""The parts prior: a token's bits in parts, one after another, for codebooks that no softmax fits.

    tokens    t0  t1  ...                         (B, h w), each of `parts` parts, the lowest bits first
    input     S   t0  t1  ...  + neighbours + place + condition     a token is embedded as the sum of its parts
    features  f0  f1  ...                         (B, h w, width)   by one causal transformer, in raster order
    parts     f0 ──> p00,  f0 + p00 ──> p01,  f0 + p00 + p01 ──> p02 ...   each by a small network of its own
    output    p00 p01 p02  p10 p11 p12 ...        (B, h w parts, 2**part_bits)  logits

The chain rule makes it exact: every bit is predicted given all before it, and the transformer still runs but once a
token. `independent` parts are told nothing of one another; as small as a bit each, they are the head of Infinity (Han
et al. 2024, arXiv:2412.04431), which takes the bits of a token for independent. What that loses, the likelihood shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ShapeError
from bisquit.priors.base import (
    FIRST_STD,
    ConditionalPrior,
    Path,
    SequentialPrior,
    joined,
    require_condition_size,
    require_neighbours,
    to_steps,
)
from bisquit.priors.causal import ABOVE, add_embedded, around_steps, draw_from_bits, places_around
from bisquit.transformer import KeyValueCache, Transformer, TransformerConfig

MOST_PART_BITS = 12  # 4,096 logits a step


@dataclass(frozen=True)
class PartsConfig(Settings):
    """The shape of a `PartsPrior`."""

    most_neighbours: ClassVar[int] = len(ABOVE)
    kind: Literal["parts"] = field(default="parts", kw_only=True)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    neighbours: int = 0
    """Tokens near a step's own that its input takes beside the last."""
    condition_size: int = 0
    """Numbers of a condition that says what to paint; 0 for a prior that takes none."""
    parts: int = 2
    """How many parts of equally many bits a token is predicted in, one after another."""
    part_width: int = 256
    """Hidden channels of the network between one part and the next."""
    independent: bool = False
    """Take the parts of a token as independent of one another, given the tokens before."""

    def __post_init__(self) -> None:
        require_neighbours(self.neighbours, self.most_neighbours)
        require_condition_size(self.condition_size)
        require(1 <= self.parts <= 32, "parts", self.parts, "between 1 and 32")
        require(1 <= self.part_width <= 65536, "part_width", self.part_width, "between 1 and 65536")


class PartsPrior(ConditionalPrior, SequentialPrior):
    """A causal transformer over tokens in raster order whose bits come in parts; drawn at the top of this module."""

    config: PartsConfig
    around: Tensor

    def __init__(self, config: PartsConfig, bits: int, grid: tuple[int, int]) -> None:
        """Raises ConfigError unless the parts are of equally many bits, `MOST_PART_BITS` at most."""
        super().__init__()
        require(min(grid) >= 1, "grid", grid, "at least 1 x 1")
        require(1 <= bits <= 32, "bits", bits, "between 1 and 32")
        require(bits % config.parts == 0, "parts", config.parts, f"a divisor of the {bits} bits of a token")
        wanted = f"so many that each has at most {MOST_PART_BITS} of the {bits} bits"
        require(bits // config.parts <= MOST_PART_BITS, "parts", config.parts, wanted)
        self.config, self.bits, self.grid = config, bits, (int(grid[0]), int(grid[1]))
        self.parts = config.parts
        width = config.transformer.width
        self.embedding = PartsEmbedding(self.parts, self.symbols, width)
        self.start_vector = nn.Parameter(FIRST_STD * torch.randn(width))
        self.neighbours = nn.ModuleList(
            PartsEmbedding(self.parts, self.symbols, width, none=True) for _ in range(config.neighbours)
        )
        self.register_buffer("around", places_around(grid, config.neighbours), persistent=False)
        self.place = nn.Parameter(FIRST_STD * torch.randn(self.length, width))
        self.take_conditions(config.condition_size, width)
        self.transformer = Transformer(config.transformer)
        self.heads = nn.ModuleList(
            PartHead(0 if config.independent else before, self.symbols, width, config.part_width)
            for before in range(self.parts)
        )

    @torch.no_grad()
    def start_from_bits(self) -> None:
        """Draw what stands for each part in the inputs and in the heads as a sum of vectors for its bits."""
        heads = [table for head in self._heads() for table in (head.head.weight, *head.tables)]
        embeddings = [table for module in (self.embedding, *self.neighbours) for table in module.tables.unbind()]
        draw_from_bits((*heads, *embeddings), self.bits // self.parts)

    def conditioned(self, condition: Tensor, batch: int) -> Path:
        """Return the way of pictures that are to show what a condition, (batch, condition_size), says of each.

        Raises ShapeError if it is of another size.
        """
        places = self.add_condition(self.place.expand(batch, -1, -1), condition)
        return Path(places, self.around.expand(batch, -1, -1))

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return the logits (B, h w parts, 2**part_bits) of each part of tokens (B, h, w) given those before it."""
        self.check(tokens)
        features = self._features(to_steps(tokens, path)[:, :-1], path)  # (B, h w, width)
        parts = self.to_symbols(tokens, path).unflatten(1, (-1, self.parts))  # (B, h w, parts)
        logits = [head(features, parts) for head in self._heads()]
        return torch.stack(logits, dim=2).flatten(1, 2)

    def logits_at(self, tokens: Tensor, step: int, path: Path | None = None) -> Tensor:
        """Return the logits (B, 2**part_bits) of one step of tokens (B, h, w), given those before it."""
        self.check(tokens)
        token, part = divmod(step, self.parts)
        features = self._features(to_steps(tokens, path)[:, :token], path)[:, -1]
        parts = self.to_symbols(tokens, path)[:, token * self.parts : step]
        return self._heads()[part](features, parts)

    def start(self, batch: int, path: Path | None = None) -> PartsState:
        """Return an empty state for `batch` sequences."""
        cache = KeyValueCache(self.config.transformer, batch, capacity=self.length, like=self.start_vector)
        unknown = self.around.new_full((batch, self.length + 1), self.codebook_size)
        return PartsState(cache, unknown, path)

    def next_logits(self, state: PartsState, last: Tensor | None) -> Tensor:
        """Return the logits (B, 2**part_bits) of the next part given the last, (B,) int64 or None at the first step."""
        self.check_last(last, state.cache.length, len(state.tokens))
        if last is not None:
            state.parts.append(last)
        if state.cache.length == 0 or len(state.parts) == self.parts:
            self._next_token(state)
        parts = torch.stack(state.parts, dim=1) if state.parts else state.tokens[:, :0]
        return self._heads()[len(state.parts)](state.features, parts)

    def _next_token(self, state: PartsState) -> None:
        """Take the parts of the last token, and compute the features of the next."""
        step, path = state.cache.length, state.path
        if step == self.length:
            raise ShapeError(f"a picture has {self.length} tokens, and all are there")
        before = self.start_vector.expand(len(state.tokens), -1)
        if step:
            last = joined(torch.stack(state.parts, dim=1), self.parts, self.bits // self.parts)[:, 0]
            state.tokens[:, step - 1] = last
            before = self.embedding(last)
            state.parts.clear()
        around = self.around if path is None else path.around
        x = add_embedded(before.unsqueeze(1), self.neighbours, around_steps(state.tokens, around, step, step + 1))
        x = x + (self.place if path is None else path.places)[..., step : step + 1, :]
        state.features = self.transformer(x, causal=True, cache=state.cache)[:, 0]

    def _features(self, before: Tensor, path: Path | None) -> Tensor:
        """Return what the heads read, (B, T + 1, width), after the start and the first T tokens, (B, T)."""
        count = before.shape[1] + 1
        x = torch.cat((self.start_vector.expand(len(before), 1, -1), self.embedding(before)), dim=1)
        if self.neighbours:
            known = F.pad(before, (0, self.length + 1 - before.shape[1]), value=self.codebook_size)
            around = self.around if path is None else path.around
            x = add_embedded(x, self.neighbours, around_steps(known, around, 0, count))
        places = self.place if path is None else path.places
        features: Tensor = self.transformer(x + places[..., :count, :], causal=True)
        return features

    def _heads(self) -> list[PartHead]:
        return list(self.heads)  # type: ignore[arg-type]  # a ModuleList knows of modules alone


class PartsState:
    """What the steps so far leave behind: of whole tokens, and of the token whose parts are being decided."""

    def __init__(self, cache: KeyValueCache, tokens: Tensor, path: Path | None) -> None:
        self.cache, self.tokens, self.path = cache, tokens, path
        self.features = cache.keys.new_empty(0)
        self.parts: list[Tensor] = []


class PartsEmbedding(nn.Module):
    """Embeds a token as the sum of what stands for each of its parts."""

    def __init__(self, parts: int, symbols: int, width: int, none: bool = False) -> None:
        """none: whether there is a vector, too, for a token that is not there, of the code behind the last."""
        super().__init__()
        self.parts, self.part_bits = parts, (symbols - 1).bit_length()
        self.tables = nn.Parameter(FIRST_STD * torch.randn(parts, symbols, width))
        self.none = nn.Parameter(FIRST_STD * torch.randn(width)) if none else None

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (..., width) for tokens (...)."""
        x = sum(
            F.embedding(tokens >> self.part_bits * part & (2**self.part_bits - 1), self.tables[part])
            for part in range(self.parts)
        )
        assert isinstance(x, Tensor)
        if self.none is None:
            return x
        is_there = tokens < 2 ** (self.part_bits * self.parts)
        return torch.where(is_there.unsqueeze(-1), x, self.none)


class PartHead(nn.Module):
    """Predicts a part of a token from its features and the parts before it.

    x = features + parts;  x + down(gelu(up(norm(x)))) ──norm──> logits
    """

    def __init__(self, before: int, symbols: int, width: int, hidden: int) -> None:
        super().__init__()
        self.before = before
        self.tables = nn.ParameterList(FIRST_STD * torch.randn(symbols, width) for _ in range(before))
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols)
        nn.init.normal_(self.head.weight, std=FIRST_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, features: Tensor, parts: Tensor) -> Tensor:
        """Return logits (..., symbols) from features (..., width) and parts, (..., before or more) int64.

        Parts behind those before its own are not looked at.
        """
        x = features
        for table, part in zip(self.tables, parts[..., : self.before].unbind(-1), strict=True):
            x = x + F.embedding(part, table)
        logits: Tensor = self.head(self.norm(x + self.mix(x)))
        return logits
