"""The raster prior: a causal transformer over the tokens of a picture, row after row.

    tokens   t0  t1  t2  ...                            (B, h w)
    input    S   t0  t1  ...   + neighbours + positions (B, h w, width)     S: a learned start vector, no token
    output   t0  t1  t2  ...                            (B, h w, codebook)  logits

The shift by one is inside the model: logits at step i see the tokens before i only. Positions are those of the token to
be predicted, and so are its neighbours: tokens above it, known since long in raster order. Attention can find them, but
must learn how; in the input, they are a count model's context from the first step of training on.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.priors.base import SequentialPrior
from bisquit.transformer import KeyValueCache, Transformer, TransformerConfig

NEIGHBOURS = ((-1, 0), (-1, -1), (-1, 1), (-2, 0))  # (rows, columns) from the token to be predicted
LARGEST_SOFTMAX_BITS = 18  # 2**18 logits a token: beyond it, memory goes to the head alone


@dataclass(frozen=True)
class RasterConfig(Settings):
    """The shape of a `RasterPrior`."""

    kind: Literal["raster"] = field(default="raster", kw_only=True)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    positions: Literal["none", "learned", "row-column", "rotary"] = "learned"
    """How a step knows its place: not at all, a vector for each place, one for the row plus one for the column, or
    rotation by row and column."""
    neighbours: int = 0
    """Tokens that a step's input takes beside the last: of the one above, those left and right of it, the next above.
    """

    def __post_init__(self) -> None:
        wanted = f"between 0 and {len(NEIGHBOURS)}"
        require(0 <= self.neighbours <= len(NEIGHBOURS), "neighbours", self.neighbours, wanted)
        if self.positions == "rotary":
            head_width = self.transformer.head_width
            require(
                head_width % 4 == 0, "positions", "rotary", f"with heads of a multiple of 4 channels, not {head_width}"
            )


class RasterPrior(SequentialPrior):
    """A causal transformer over tokens in raster order; what it computes is drawn at the top of this module."""

    config: RasterConfig
    around: Tensor

    def __init__(self, config: RasterConfig, bits: int, grid: tuple[int, int]) -> None:
        super().__init__()
        require(
            1 <= bits <= LARGEST_SOFTMAX_BITS,
            "bits",
            bits,
            f"between 1 and {LARGEST_SOFTMAX_BITS} for one softmax over the codebook",
        )
        require(min(grid) >= 1, "grid", grid, "at least 1 x 1")
        self.config = config
        self.bits = bits
        self.grid = (int(grid[0]), int(grid[1]))
        width = config.transformer.width
        self.embedding = nn.Embedding(self.codebook_size, width)
        self.start_vector = nn.Parameter(torch.empty(width))
        self.neighbours = nn.ModuleList(nn.Embedding(self.codebook_size + 1, width) for _ in range(config.neighbours))
        self.register_buffer("around", steps_around(self.grid, config.neighbours), persistent=False)
        self.positions = POSITIONS[config.positions](self.grid, width)
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, self.codebook_size)
        for parameter in (self.embedding.weight, self.start_vector, self.head.weight, *self.neighbours.parameters()):
            nn.init.normal_(parameter, std=0.02)
        nn.init.zeros_(self.head.bias)
        if config.positions == "rotary":
            self.register_buffer("angles", axial_angles(self.grid, config.transformer.head_width), persistent=False)
        else:
            self.angles = None

    @torch.no_grad()
    def start_from_bits(self) -> None:
        """Draw what stands for each token in the inputs and in the head as a sum of vectors for its bits.

        Tokens that differ in one bit look alike, and so are then their vectors, before training has told: it goes
        faster, most of all for rare ones. (As `__init__` has it, each token begins by itself.)
        """
        codes = torch.arange(self.codebook_size, device=self.start_vector.device).unsqueeze(1)
        signs = (codes >> torch.arange(self.bits, device=codes.device) & 1) * 2.0 - 1  # (codebook, bits)
        for table in (self.embedding.weight, self.head.weight, *self.neighbours.parameters()):
            vectors = torch.randn(self.bits, table.shape[1], device=codes.device) * (0.1 / self.bits**0.5)
            table.zero_()  # a neighbour's last row is for none
            table[: self.codebook_size] = signs @ vectors

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, h w, codebook) of each token of (B, h, w) given those before it, in one pass."""
        self.check(tokens)
        logits: Tensor = self.head(self._features(tokens.flatten(1)[:, :-1]))
        return logits

    def logits_at(self, tokens: Tensor, step: int) -> Tensor:
        """Return the logits (B, codebook) of the token of (B, h, w) at one step, given those before it."""
        self.check(tokens)
        logits: Tensor = self.head(self._features(tokens.flatten(1)[:, :step])[:, -1])
        return logits

    def _features(self, before: Tensor) -> Tensor:
        """Return what the head reads, (B, T + 1, width), after the start and the first T tokens, (B, T)."""
        steps = before.shape[1] + 1
        x = torch.cat((self.start_vector.expand(len(before), 1, -1), self.embedding(before)), dim=1)
        if self.neighbours:
            known = F.pad(before, (0, self.length + 1 - before.shape[1]), value=self.codebook_size)
            x = self.add_neighbours(x, known[:, self.around[:steps]])
        x = self.positions(x, first=0)
        angles = None if self.angles is None else self.angles[: x.shape[1]]
        features: Tensor = self.transformer(x, causal=True, rotary=angles)
        return features

    def add_neighbours(self, x: Tensor, codes: Tensor) -> Tensor:
        """Add to inputs x (..., width) what neighbours of codes (..., neighbours) add; the last code means none."""
        for embedding, code in zip(self.neighbours, codes.unbind(-1), strict=True):
            x = x + embedding(code)
        return x

    def places(self) -> Tensor:
        """Return what positions add to the input of each step, (h w, width); zeros where they add nothing."""
        nothing = self.start_vector.new_zeros(1, self.length, self.config.transformer.width)
        added: Tensor = self.positions(nothing, first=0)[0]
        return added

    def start(self, batch: int) -> RasterState:
        """Return an empty key-value cache for `batch` sequences, with room for their tokens."""
        cache = KeyValueCache(self.config.transformer, batch, capacity=self.length, like=self.start_vector)
        return RasterState(cache, self.unknown(batch))

    def unknown(self, batch: int) -> Tensor:
        """Return the tokens, int64 (B, h w + 1), of sequences of which none is known: all are the code for none.

        `around` points at tokens in them, and at the last, which stays as it is, for what lies outside of the grid.
        """
        return self.around.new_full((batch, self.length + 1), self.codebook_size)

    def next_logits(self, state: RasterState, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook) of the next token given the last, (B,) int64 or None at the first step."""
        cache, tokens = state
        step = cache.length
        if last is None:
            before = self.start_vector.expand(len(tokens), -1)
        else:
            tokens[:, step - 1] = last
            before = self.embedding(last)
        x = self.add_neighbours(before.unsqueeze(1), tokens[:, self.around[step : step + 1]])
        x = self.positions(x, first=step)
        angles = None if self.angles is None else self.angles[step : step + 1]
        logits: Tensor = self.head(self.transformer(x, causal=True, rotary=angles, cache=cache)[:, 0])
        return logits


class RasterState(NamedTuple):
    """What the steps so far leave behind."""

    cache: KeyValueCache
    tokens: Tensor
    """(B, h w + 1) int64, as `RasterPrior.unknown` has them where none is known yet."""


def steps_around(grid: tuple[int, int], neighbours: int) -> Tensor:
    """Return for each step the steps of its neighbours, int64 (h w, neighbours), h w for those outside of the grid."""
    h, w = grid
    rows, columns = torch.arange(h).view(-1, 1, 1), torch.arange(w).view(1, -1, 1)
    offsets = torch.tensor(NEIGHBOURS[:neighbours], dtype=torch.int64).view(-1, 2)
    rows, columns = rows + offsets[:, 0], columns + offsets[:, 1]  # each (h, w, neighbours) when combined
    is_inside = (rows >= 0) & (columns >= 0) & (columns < w)
    return torch.where(is_inside, rows * w + columns, h * w).flatten(0, 1)


class NoPositions(nn.Module):
    """Adds nothing; also what rotary positions, which act inside of attention, leave to do here."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, *, first: int) -> Tensor:
        return x


class LearnedPositions(nn.Module):
    """Adds a learned vector for each place of the grid."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], width))

    def forward(self, x: Tensor, *, first: int) -> Tensor:
        """x: (B, T, width), the steps from `first` on."""
        return x + self.place[first : first + x.shape[1]]


class RowColumnPositions(nn.Module):
    """Adds a learned vector for the row and one for the column."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(0.02 * torch.randn(grid[0], 1, width))
        self.column = nn.Parameter(0.02 * torch.randn(1, grid[1], width))

    def forward(self, x: Tensor, *, first: int) -> Tensor:
        """x: (B, T, width), the steps from `first` on."""
        return x + (self.row + self.column).flatten(0, 1)[first : first + x.shape[1]]


POSITIONS = {"none": NoPositions, "learned": LearnedPositions, "row-column": RowColumnPositions, "rotary": NoPositions}


def axial_angles(grid: tuple[int, int], head_width: int) -> Tensor:
    """Return rotary angles (h w, head_width / 2) in radians; half of the pairs turn with the row, half with the column.

    Wave lengths run from 2 pi towards 200 pi places, in equal ratios: a grid has tens of rows, not the thousands of
    words of a text.
    """
    pairs = head_width // 4
    frequencies = 100.0 ** -(torch.arange(pairs) / pairs)
    rows = torch.arange(grid[0]).view(-1, 1, 1) * frequencies
    columns = torch.arange(grid[1]).view(1, -1, 1) * frequencies
    shape = (grid[0], grid[1], pairs)
    return torch.cat((rows.expand(shape), columns.expand(shape)), dim=-1).flatten(0, 1)
