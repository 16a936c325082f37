"""What every prior does: say how likely tokens are, and paint new ones.

Every prior has a loss; only a `SequentialPrior` has a next-token distribution, and only that is what
sampling token by token and the codec take, so that a prior without exact likelihood is refused by its type.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bisquit.config import Settings, require
from bisquit.errors import ConfigError, ShapeError, TokenError
from bisquit.fingerprint import fingerprint

FIRST_STD = 0.02  # of weights outside of the transformer, before training
MOST_LOGITS = 2**26
"""How many logits are made at once to measure bits, where one picture alone does not have more."""


class Prior(nn.Module, ABC):
    """A distribution over grids of tokens."""

    config: Settings
    bits: int
    grid: tuple[int, int]
    loss_name: ClassVar[str | None] = None
    """What a loss is that is no nats a token, and so cannot be told in bits; None where it is."""

    @property
    def condition_size(self) -> int:
        """How many numbers a condition has that tells this prior what to paint; 0 if it takes none."""
        return 0

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(chain(self.parameters(), self.buffers())).device

    @property
    def codebook_size(self) -> int:
        """How many tokens there are: 2**bits."""
        return 2**self.bits

    @property
    def length(self) -> int:
        """Tokens an image: h w."""
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def loss(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the training loss of tokens (B, h, w), in nats a token unless `loss_name` says otherwise.

        condition: (B, condition_size), what each picture shows; a row of zeros says nothing, as does None for all.
        Raises ShapeError on another grid or size.
        """

    def start_from_bits(self) -> None:
        """Draw weights anew so that tokens begin as alike as their bits. Raises ConfigError if this prior cannot."""
        raise ConfigError(f"a {type(self).__name__} cannot start from bits: train it without")

    def grow_from(self, other: Prior) -> bool:
        """Take from another prior, over tokens of fewer bits, what stands for them; return whether it could.

        Tokens then begin as likely as the other's are that they have their low bits from. By default none can.
        """
        return False

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name this prior: its configuration and every weight, as float32."""
        settings = {**self.config.to_dict(), "bits": self.bits, "grid": self.grid}
        if not self.condition_size:
            settings.pop("condition_size", None)  # which settings had not when the first priors were named
        if settings.get("independent") is False:
            del settings["independent"]  # nor this one
        return fingerprint(settings, self)

    def check(self, tokens: Tensor) -> None:
        """Raise ShapeError unless tokens are int64 (B, h, w) on this prior's grid, TokenError if one is no code."""
        if tokens.dtype != torch.int64 or tokens.ndim != 3 or tuple(tokens.shape[1:]) != self.grid:
            raise ShapeError(
                f"tokens are {tokens.dtype} {tuple(tokens.shape)}: "
                f"this prior takes int64 (B, {self.grid[0]}, {self.grid[1]})"
            )
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codebook_size:
            raise TokenError(
                f"tokens run from {int(tokens.min())} to {int(tokens.max())}: "
                f"this prior's codebook ends at {self.codebook_size - 1}"
            )

    def check_known(self, known: Tensor, batch: int) -> None:
        """Raise ShapeError unless what is known is bool (batch, h, w) on this prior's grid."""
        if known.dtype != torch.bool or tuple(known.shape) != (batch, *self.grid):
            wanted = f"bool ({batch}, {self.grid[0]}, {self.grid[1]})"
            raise ShapeError(f"what is known is {known.dtype} {tuple(known.shape)}: it must be {wanted}")

    def check_condition(self, condition: Tensor, batch: int) -> None:
        """Raise ShapeError unless a condition is (batch, condition_size)."""
        if condition.shape != (batch, self.condition_size):
            raise ShapeError(
                f"the condition is {tuple(condition.shape)}: for {batch} pictures this prior takes "
                f"({batch}, {self.condition_size})"
            )


class ConditionalPrior(Prior):
    """A prior that a condition may tell what to paint: what a linear map makes of it is added to every place."""

    condition: nn.Linear | None
    """The map; None in a prior that takes no condition."""

    def take_conditions(self, size: int, width: int) -> None:
        """Draw the map of conditions of so many numbers, 0 for none, to a transformer of some width."""
        self.condition = nn.Linear(size, width, bias=False) if size else None
        if self.condition is not None:
            nn.init.normal_(self.condition.weight, std=FIRST_STD)

    @property
    def condition_size(self) -> int:
        """How many numbers a condition has that tells this prior what to paint; 0 if it takes none."""
        return 0 if self.condition is None else self.condition.in_features

    def add_condition(self, x: Tensor, condition: Tensor) -> Tensor:
        """Return x (B, T, width) with what conditions (B, condition_size) say of each picture added to all its places.

        It does not depend on the other pictures of the batch. Raises ShapeError if the condition is of another size.
        """
        self.check_condition(condition, len(x))
        if self.condition is None:
            return x
        # one by one: at once, sums would round otherwise
        return x + torch.stack([self.condition(row) for row in condition.split(1)])


def require_condition_size(size: int) -> None:
    """Raise ConfigError unless a condition may have so many numbers."""
    require(0 <= size <= 65536, "condition_size", size, "between 0 and 65536")


def require_neighbours(neighbours: int, most: int) -> None:
    """Raise ConfigError unless a place may be told of so many tokens around it."""
    require(0 <= neighbours <= most, "neighbours", neighbours, f"between 0 and {most}")


class Path(NamedTuple):
    """How each picture of a batch goes from step to step, where that is not the prior's own way."""

    places: Tensor
    """(B, h w, width), what is added to the input of each step: where its token is, what it is to show."""
    around: Tensor
    """(B, h w, neighbours) int64, the steps that hold the neighbours of each step's token; h w where none is known."""
    order: Tensor | None = None
    """(B, h w) int64, which place of the grid, counted in raster order, each step is for; None for raster order."""

    def rows(self, rows: slice) -> Path:
        """Return the ways of some of the pictures."""
        return Path(self.places[rows], self.around[rows], None if self.order is None else self.order[rows])

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> Path:
        """Return the same ways on a device, and what is added to inputs in a type."""
        order = None if self.order is None else self.order.to(device)
        return Path(self.places.to(device, dtype), self.around.to(device), order)

    def expand(self, batch: int) -> Path:
        """Return the one way that this is for so many pictures, which share its memory."""
        order = None if self.order is None else self.order.expand(batch, -1)
        return Path(self.places.expand(batch, -1, -1), self.around.expand(batch, -1, -1), order)

    def beside(self, other: Path) -> Path:
        """Return the ways of these pictures and, behind them, those of others; both are in raster order or neither."""
        order = None if self.order is None or other.order is None else torch.cat((self.order, other.order))
        return Path(torch.cat((self.places, other.places)), torch.cat((self.around, other.around)), order)


class SequentialPrior(Prior):
    """A prior that says of each token in turn how likely it is given those before it.

    It goes from step to step in raster order, or along a `Path` of its making. Tokens are always on their grid; logits
    are in the order of the steps. A step decides on a token, or in priors for large codebooks on a part of one: there
    are then `parts` steps a token, each for some of its bits, and `symbols` outcomes of each, in place of the codebook.
    """

    parts: int = 1
    """How many steps a token takes, each for as many of its bits, the lowest first."""

    @property
    def steps(self) -> int:
        """Steps an image: h w parts."""
        return self.length * self.parts

    @property
    def symbols(self) -> int:
        """How many outcomes a step has: 2**(bits / parts)."""
        return 2 ** (self.bits // self.parts)

    def to_symbols(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return what each step decides, (B, steps), for tokens (B, h, w)."""
        return split(to_steps(tokens, path), self.parts, self.bits // self.parts)

    def to_tokens(self, symbols: Tensor, path: Path | None = None) -> Tensor:
        """Return the tokens (B, h, w) of what each step decided, (B, steps)."""
        return to_grid(joined(symbols, self.parts, self.bits // self.parts), path, self.grid)

    @abstractmethod
    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return the logits (B, steps, symbols) of each step of tokens (B, h, w) given those before, in one pass."""

    def logits_at(self, tokens: Tensor, step: int, path: Path | None = None) -> Tensor:
        """Return the logits (B, symbols) of one step of tokens (B, h, w), given those before it."""
        return self.logits(tokens, path)[:, step]

    @abstractmethod
    def start(self, batch: int, path: Path | None = None) -> Any:
        """Return an empty state (a cache) for `batch` sequences; `next_logits` fills it."""

    @abstractmethod
    def next_logits(self, state: Any, last: Tensor | None) -> Tensor:
        """Return the logits (B, symbols) of the next step, given the outcome of the one before it.

        state: as `start` gave it and the calls since have filled it. last: (B,) int64, the symbol at the step before;
        None at the first.
        """

    def check_last(self, last: Tensor | None, step: int, batch: int) -> None:
        """Raise ShapeError unless `last` is what `next_logits` takes at a step: None at the first, then (batch,)."""
        if (last is None) != (step == 0) or (last is not None and last.shape != (batch,)):
            given = "no tokens" if last is None else f"tokens {tuple(last.shape)}"
            wanted = f"those before it, ({batch},)" if step else "None"
            raise ShapeError(f"step {step} was given {given}: it takes {wanted}")

    def exact(self) -> SequentialPrior:
        """Return the prior that decides races too close for float32: by default a copy in float64, on the CPU."""
        return copy.deepcopy(self).cpu().double()

    def conditioned(self, condition: Tensor, batch: int) -> Path | None:
        """Return the way of pictures that are to show what a condition, (batch, condition_size), says of each.

        Raises ShapeError if it is of another size. None where the prior goes its own way.
        """
        self.check_condition(condition, batch)
        return None

    def loss(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of tokens (B, h, w) in nats a token. condition: see `Prior.loss`."""
        path = None if condition is None else self.conditioned(condition, len(tokens))
        return token_nats(self.logits(tokens, path), self.to_symbols(tokens, path)).mean() * self.parts

    @torch.no_grad()
    def token_bits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        """Return how many bits each token of (B, h, w) costs, as float32 (B, h, w)."""
        nats = []
        for start in range(0, len(tokens), at_once := max(1, MOST_LOGITS // (self.steps * self.symbols))):
            some, way = tokens[start : start + at_once], path and path.rows(slice(start, start + at_once))
            of_steps = token_nats(self.logits(some, way), self.to_symbols(some, way))
            nats.append(to_grid(of_steps.unflatten(1, (-1, self.parts)).sum(dim=2), way, self.grid))
        return torch.cat(nats) / math.log(2) if nats else tokens.float()


def to_steps(tokens: Tensor, path: Path | None) -> Tensor:
    """Return what lies on a grid, (B, h, w), in the order of the steps: (B, h w)."""
    flat = tokens.flatten(1)
    return flat if path is None or path.order is None else flat.gather(1, path.order)


def to_grid(steps: Tensor, path: Path | None, grid: tuple[int, int]) -> Tensor:
    """Return what is in the order of the steps, (B, h w), on its grid: (B, h, w)."""
    if path is not None and path.order is not None:
        steps = torch.empty_like(steps).scatter_(1, path.order, steps)
    return steps.view(-1, *grid)


def split(tokens: Tensor, parts: int, part_bits: int) -> Tensor:
    """Return the parts of tokens (B, T), each of so many of their bits, the lowest first: (B, T parts)."""
    if parts == 1:
        return tokens
    places = part_bits * torch.arange(parts, device=tokens.device)
    return (tokens.unsqueeze(2) >> places & (2**part_bits - 1)).flatten(1)


def joined(symbols: Tensor, parts: int, part_bits: int) -> Tensor:
    """Return the tokens (B, T) of their parts (B, T parts): what undoes `split`."""
    if parts == 1:
        return symbols
    places = part_bits * torch.arange(parts, device=symbols.device)
    return (symbols.unflatten(1, (-1, parts)) << places).sum(dim=2)


def token_nats(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the cross-entropy of tokens (...) under logits (..., codebook), in nats, as float32 (...)."""
    nats: Tensor = TokenNats.apply(logits.flatten(0, -2), tokens.flatten())  # type: ignore[no-untyped-call]
    return nats.view(tokens.shape)


class TokenNats(torch.autograd.Function):
    """The cross-entropy of tokens (N,) under logits (N, codebook), some rows at a time.

    `torch.nn.functional.cross_entropy` would hold four float32 copies of the logits: themselves, their logarithms of
    chances, and the gradients of both.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(logits, tokens)
        nats = [
            -rows.float().log_softmax(dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
            for rows, targets in zip(*(x.split(_rows(logits)) for x in (logits, tokens)), strict=True)
        ]
        return torch.cat(nats)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, tokens = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        parts = (x.split(_rows(logits)) for x in (logits, tokens.unsqueeze(1), grad.unsqueeze(1), grad_logits))
        for rows, targets, grad_rows, out in zip(*parts, strict=True):
            chances = rows.float().softmax(dim=1)
            chances.scatter_add_(1, targets, chances.new_full(targets.shape, -1.0))
            out.copy_(chances.mul_(grad_rows))
        return grad_logits, None


def _rows(logits: Tensor) -> int:
    """Return how many rows of logits (N, codebook) to take at a time: 2 MB of float32, which a cache holds."""
    return max(1, 2**19 // logits.shape[1])
