"""What those priors share that predict token after token with one causal transformer.

    tokens   t0  t1  t2  ...                        (B, h w), in the order of the steps
    input    S   t0  t1  ...   + neighbours + places  (B, h w, width)     S: a learned start vector, no token
    output   t0  t1  t2  ...                        (B, h w, codebook)  logits

The shift by one is inside the model: logits at step i see the tokens before i only. A step's place is that of the token
to be predicted, and so are its neighbours: tokens near it in the picture that are known by then. Attention can find
them, but must learn how; in the input, they are a count model's context from the first step of training on.

A condition, what a picture is to show, is a vector of numbers; a linear map of it is added to every place.

The functions below the prior are of its parts, the neighbours, the condition and the tables of tokens, which a prior
that is not causal may have as well.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ShapeError
from bisquit.priors.base import (
    FIRST_STD,
    ConditionalPrior,
    Path,
    Prior,
    SequentialPrior,
    require_condition_size,
    require_neighbours,
    to_steps,
)
from bisquit.transformer import KeyValueCache, Transformer, TransformerConfig

LARGEST_SOFTMAX_BITS = 18  # 2**18 logits a token: beyond it, memory goes to the head alone
ABOVE = ((-1, 0), (-1, -1), (-1, 1), (-2, 0))  # (rows, columns) from the token to be predicted
AROUND = (*ABOVE, (0, -1), (0, 1), (1, 0), (1, -1), (1, 1), (0, -2), (0, 2), (2, 0))


@dataclass(frozen=True)
class CausalConfig(Settings):
    """The shape of a `CausalPrior`."""

    most_neighbours: ClassVar[int] = 64
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    neighbours: int = 0
    """Tokens near a step's own that its input takes beside the last."""
    condition_size: int = 0
    """Numbers of a condition that says what to paint; 0 for a prior that takes none."""

    def __post_init__(self) -> None:
        require_neighbours(self.neighbours, self.most_neighbours)
        require_condition_size(self.condition_size)


class CausalPrior(ConditionalPrior, SequentialPrior):
    """A causal transformer over tokens; what it computes is drawn at the top of this module.

    around: (h w, neighbours) int64, the steps of each step's neighbours in raster order, all before it, h w for none.
    """

    config: CausalConfig
    around: Tensor
    angles: Tensor | None
    """(h w, head_width / 2), by which each step's queries and keys are turned, in radians; None where they are not."""

    def __init__(self, config: CausalConfig, bits: int, grid: tuple[int, int], around: Tensor) -> None:
        super().__init__()
        require_softmax(bits)
        self.config = config
        self.bits = bits
        self.grid = (int(grid[0]), int(grid[1]))
        width = config.transformer.width
        self.embedding = nn.Embedding(self.codebook_size, width)
        self.start_vector = nn.Parameter(torch.empty(width))
        self.neighbours = nn.ModuleList(nn.Embedding(self.codebook_size + 1, width) for _ in range(config.neighbours))
        self.register_buffer("around", around, persistent=False)
        self.register_buffer("angles", None, persistent=False)
        self.add_positions()
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, self.codebook_size)
        for parameter in (self.embedding.weight, self.start_vector, self.head.weight, *self.neighbours.parameters()):
            nn.init.normal_(parameter, std=FIRST_STD)
        nn.init.zeros_(self.head.bias)
        self.take_conditions(config.condition_size, width)

    @abstractmethod
    def add_positions(self) -> None:
        """Make what tells the places of the grid apart."""

    @abstractmethod
    def places(self) -> Tensor:
        """Return what is added to the input of each step in raster order, (h w, width); zeros where nothing is."""

    def start_from_bits(self) -> None:
        """Draw what stands for each token in the inputs and in the head as a sum of vectors for its bits.

        Tokens that differ in one bit look alike, and so are then their vectors, before training has told: it goes
        faster, most of all for rare ones. (As `__init__` has it, each token begins by itself.)
        """
        draw_from_bits((self.embedding.weight, self.head.weight, *self.neighbours.parameters()), self.bits)

    def grow_from(self, other: Prior) -> bool:
        """Take from another prior, over tokens of fewer bits, what stands for them; return whether it could."""
        return isinstance(other, CausalPrior) and grow_tables(self, other)

    def conditioned(self, condition: Tensor, batch: int) -> Path:
        """Return the way of pictures that are to show what a condition, (batch, condition_size), says of each.

        Raises ShapeError if it is of another size.
        """
        return self.shown(Path(*(own.expand(batch, -1, -1) for own in (self.places(), self.around))), condition)

    def shown(self, path: Path, condition: Tensor) -> Path:
        """Return the way of pictures that are also to show what a condition (B, condition_size) says.

        What is added for a picture does not depend on the others of its batch. Raises ShapeError if the condition is
        of another size.
        """
        return path._replace(places=self.add_condition(path.places, condition))

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return the logits (B, h w, codebook) of each token of (B, h, w) given those before it, in one pass."""
        self.check(tokens)
        logits: Tensor = self.head(self._features(to_steps(tokens, path)[:, :-1], path))
        return logits

    def logits_at(self, tokens: Tensor, step: int, path: Path | None = None) -> Tensor:
        """Return the logits (B, codebook) of the token of (B, h, w) at one step, given those before it."""
        self.check(tokens)
        logits: Tensor = self.head(self._features(to_steps(tokens, path)[:, :step], path)[:, -1])
        return logits

    @torch.no_grad()
    def attention_at(self, tokens: Tensor, step: int, path: Path | None = None) -> Tensor:
        """Return how much the step for a token of (B, h, w) looks at each input up to its own.

        (B, n_layers, n_heads, step + 1); the first input is the start, and each other one that of the token before.
        """
        self.check(tokens)
        x, angles = self._inputs(to_steps(tokens, path)[:, :step], path)
        return self.transformer.attention_at(x, step, angles)

    def _features(self, before: Tensor, path: Path | None) -> Tensor:
        """Return what the head reads, (B, T + 1, width), after the start and the first T tokens, (B, T)."""
        x, angles = self._inputs(before, path)
        features: Tensor = self.transformer(x, causal=True, rotary=angles)
        return features

    def _inputs(self, before: Tensor, path: Path | None) -> tuple[Tensor, Tensor | None]:
        """Return the transformer's input (B, T + 1, width) for the start and T tokens (B, T), and its angles."""
        steps = before.shape[1] + 1
        x = torch.cat((self.start_vector.expand(len(before), 1, -1), self.embedding(before)), dim=1)
        if self.neighbours:
            known = F.pad(before, (0, self.length + 1 - before.shape[1]), value=self.codebook_size)
            x = self.add_neighbours(x, around_steps(known, self.around if path is None else path.around, 0, steps))
        places = self.places() if path is None else path.places
        return x + places[..., :steps, :], None if self.angles is None else self.angles[:steps]

    def add_neighbours(self, x: Tensor, codes: Tensor) -> Tensor:
        """Add to inputs x (..., width) what neighbours of codes (..., neighbours) add; the last code means none."""
        return add_embedded(x, self.neighbours, codes)

    def start(self, batch: int, path: Path | None = None) -> CausalState:
        """Return an empty key-value cache for `batch` sequences, with room for their tokens."""
        cache = KeyValueCache(self.config.transformer, batch, capacity=self.length, like=self.start_vector)
        return CausalState(cache, self.unknown(batch), path)

    def unknown(self, batch: int) -> Tensor:
        """Return the tokens, int64 (B, h w + 1), of sequences of which none is known: all are the code for none.

        `around` points at tokens in them, and at the last, which stays as it is, for what is outside or not known.
        """
        return self.around.new_full((batch, self.length + 1), self.codebook_size)

    def next_logits(self, state: CausalState, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook) of the next token given the last, (B,) int64 or None at the first step."""
        cache, tokens, path = state
        step = cache.length
        if step == self.length:
            raise ShapeError(f"a picture has {self.length} tokens, and all are there")
        self.check_last(last, step, len(tokens))
        if last is None:
            before = self.start_vector.expand(len(tokens), -1)
        else:
            tokens[:, step - 1] = last
            before = self.embedding(last)
        around = self.around if path is None else path.around
        x = self.add_neighbours(before.unsqueeze(1), around_steps(tokens, around, step, step + 1))
        places = self.places() if path is None else path.places
        x = x + places[..., step : step + 1, :]
        angles = None if self.angles is None else self.angles[step : step + 1]
        logits: Tensor = self.head(self.transformer(x, causal=True, rotary=angles, cache=cache)[:, 0])
        return logits


class CausalState(NamedTuple):
    """What the steps so far leave behind, and the way that they take."""

    cache: KeyValueCache
    tokens: Tensor
    """(B, h w + 1) int64 in the order of the steps, as `CausalPrior.unknown` has them where none is known yet."""
    path: Path | None


def around_steps(known: Tensor, around: Tensor, first: int, end: int) -> Tensor:
    """Return the codes (B, end - first, neighbours) around some steps, among tokens (B, h w + 1) in their order.

    around: (h w, neighbours), or (B, h w, neighbours) if each picture has its own way.
    """
    part = around[..., first:end, :]
    return known[:, part] if part.ndim == 2 else known.gather(1, part.flatten(1)).view(part.shape)


def add_embedded(x: Tensor, tables: Iterable[nn.Module], codes: Tensor) -> Tensor:
    """Return x (..., width) with what each of some tables has for its code, of codes (..., tables), added in turn."""
    for table, code in zip(tables, codes.unbind(-1), strict=True):
        x = x + table(code)
    return x


def require_softmax(bits: int) -> None:
    """Raise ConfigError unless one softmax can be over all tokens of so many bits."""
    wanted = f"between 1 and {LARGEST_SOFTMAX_BITS} for one softmax over the codebook"
    require(1 <= bits <= LARGEST_SOFTMAX_BITS, "bits", bits, wanted)


def places_around(grid: tuple[int, int], neighbours: int) -> Tensor:
    """Return for each place the places around it, int64 (h w, neighbours), h w for those outside of the grid."""
    h, w = grid
    offsets = torch.tensor(AROUND[:neighbours], dtype=torch.int64).view(-1, 2)
    rows = torch.arange(h).view(-1, 1, 1) + offsets[:, 0]  # each (h, w, neighbours) when combined
    columns = torch.arange(w).view(1, -1, 1) + offsets[:, 1]
    is_inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    return torch.where(is_inside, rows * w + columns, h * w).flatten(0, 1)


@torch.no_grad()
def draw_from_bits(tables: Iterable[Tensor], bits: int) -> None:
    """Draw the vectors of all tokens, the first 2**bits rows of each table, as sums of vectors for their bits.

    tables: (2**bits or more, width). Rows behind those of the tokens become zeros: a neighbour's last is for none.
    """
    for table in tables:
        codes = torch.arange(2**bits, device=table.device).unsqueeze(1)
        signs = (codes >> torch.arange(bits, device=table.device) & 1) * 2.0 - 1  # (codebook, bits)
        vectors = torch.randn(bits, table.shape[1], device=table.device) * (0.1 / bits**0.5)
        table.zero_()
        table[: len(codes)] = signs @ vectors


class WithTables(Protocol):
    """A prior that has a vector for each token in some tables, and a head over all tokens."""

    bits: int
    embedding: nn.Embedding
    neighbours: nn.ModuleList
    head: nn.Linear

    @property
    def codebook_size(self) -> int: ...


@torch.no_grad()
def grow_tables(prior: WithTables, other: WithTables) -> bool:
    """Give each token what another prior has for the token of fewer bits with its low ones; return whether it could.

    Rows behind those of the tokens are taken as they are.
    """
    if other.bits >= prior.bits or other.head.in_features != prior.head.in_features:
        return False
    size, other_size = prior.codebook_size, other.codebook_size
    tables: list[tuple[nn.Module, nn.Module]] = [(prior.embedding, other.embedding), (prior.head, other.head)]
    tables += zip(prior.neighbours, other.neighbours, strict=False)  # as many as both have
    for ours, theirs in tables:
        values = theirs.state_dict()
        for name, array in ours.state_dict().items():
            array[:size] = values[name][torch.arange(size, device=array.device) % other_size]
            array[size:] = values[name][other_size:]
    return True
