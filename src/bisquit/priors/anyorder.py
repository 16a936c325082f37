"""The any-order prior: one causal transformer that predicts the tokens of a picture in whatever order is asked for.

What it computes is drawn at the top of `bisquit.priors.causal`. A step is told which place of the grid its token is for
and which the one before it was for, and its neighbours are all tokens around that place that are known by then. So it
can be given any part of a picture first, and paints the rest knowing all of that: what is below and right of a hole as
well as what is above.

It learns from orders of the kinds that editing asks for: some of a picture known, the rest then painted row after row
or in random order. After sigma-GPT (Pannatier et al. 2024, arXiv:2404.09562), where orders are random throughout.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bisquit.config import require
from bisquit.errors import ShapeError
from bisquit.priors.base import Path, to_steps, token_nats
from bisquit.priors.causal import AROUND, CausalConfig, CausalPrior, places_around
from bisquit.processes import WHOLE, Part, own_part


@dataclass(frozen=True)
class AnyOrderConfig(CausalConfig):
    """The shape of an `AnyOrderPrior`."""

    most_neighbours: ClassVar[int] = len(AROUND)
    kind: Literal["any-order"] = field(default="any-order", kw_only=True)
    scattered: float = 0.5
    """Share of the pictures to learn from in which what is known is scattered; in the others it is within or without a
    rectangle."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.scattered <= 1, "scattered", self.scattered, "in [0, 1]")


class AnyOrderPrior(CausalPrior):
    """A causal transformer over tokens in any order. Its own way, where no path is given, is raster order."""

    config: AnyOrderConfig
    beside: Tensor
    """(h w, neighbours) int64, the places around each place of the grid, known or not; h w for those outside."""

    def __init__(self, config: AnyOrderConfig, bits: int, grid: tuple[int, int]) -> None:
        require(min(grid) >= 1, "grid", grid, "at least 1 x 1")
        beside = places_around(grid, config.neighbours)
        length = len(beside)
        is_known = beside < torch.arange(length).unsqueeze(1)
        super().__init__(config, bits, grid, torch.where(is_known, beside, length))
        self.register_buffer("beside", beside, persistent=False)

    def add_positions(self) -> None:
        """Make a vector for each place as the one to paint, and one for each as the one that was painted last."""
        shape = (self.length, self.config.transformer.width)
        self.target = nn.Parameter(0.02 * torch.randn(shape))
        self.source = nn.Parameter(0.02 * torch.randn(shape))

    def places(self) -> Tensor:
        """Return what is added to the input of each step in raster order, (h w, width)."""
        return self._places(torch.arange(self.length, device=self.target.device))

    def _places(self, order: Tensor) -> Tensor:
        """Return what is added to the input of each step of an order (..., h w): (..., h w, width)."""
        places = self.target[order]
        places[..., 1:, :] += self.source[order[..., :-1]]
        return places

    def along(self, order: Tensor) -> Path:
        """Return the way of pictures that are painted in an order (B, h w) of the places of the grid, int64.

        Raises ShapeError unless each row has each place once.
        """
        steps = torch.arange(self.length, device=order.device)
        if order.ndim != 2 or order.shape[1] != self.length or not (order.sort(dim=1).values == steps).all():
            raise ShapeError(f"an order is {tuple(order.shape)}: it must be (B, {self.length}), each place once a row")
        step_of = torch.empty_like(order).scatter_(1, order, steps.expand_as(order))
        step_of = torch.cat((step_of, step_of.new_full((len(order), 1), self.length)), dim=1)  # outside of the grid
        beside = step_of.gather(1, self.beside[order].flatten(1)).view(*order.shape, -1)  # (B, h w, neighbours)
        around = torch.where(beside < steps.unsqueeze(1), beside, self.length)
        return Path(self._places(order), around, order)

    def after(self, known: Tensor) -> Path:
        """Return the way of pictures of which some is known, bool (B, h, w): that comes first, then the rest, in rows.

        Raises ShapeError on another grid.
        """
        self.check_known(known, len(known))
        return self.along((~known).flatten(1).byte().argsort(dim=1, stable=True))

    def loss(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the cross-entropy of tokens (B, h, w) in nats a token, in orders that are drawn anew each time.

        In evaluation they are drawn from the same seed each time. condition: see `Prior.loss`.
        """
        generator, mine = (None, own_part()) if self.training else (torch.Generator().manual_seed(0), WHOLE)
        order = draw_orders(len(tokens), self.grid, self.config.scattered, generator, mine).to(tokens.device)
        path = self.along(order)
        if condition is not None:
            path = self.shown(path, condition)
        return token_nats(self.logits(tokens, path), to_steps(tokens, path)).mean()


def draw_orders(
    batch: int,
    grid: tuple[int, int],
    scattered: float = 0.5,
    generator: torch.Generator | None = None,
    part: Part = WHOLE,
) -> Tensor:
    """Draw orders to learn from, int64 (batch, h w): what is known in rows, then the rest in rows or at random.

    What is known is a share of all places, which is drawn too, scattered, in that share of the orders; in the others,
    half and half, what is within a rectangle or without. part: which part of a batch they are for.
    """
    h, w = grid

    def uniform(*shape: int) -> Tensor:
        return part.of(torch.rand(part.whole(batch), *shape, generator=generator))

    sides = torch.stack((1 + (uniform() * h).long(), 1 + (uniform() * w).long()))  # (2, B), of the rectangles
    corners = (torch.stack((uniform(), uniform())) * (torch.tensor([[h], [w]]) - sides + 1)).long()
    rows, columns = torch.arange(h).view(1, h, 1), torch.arange(w).view(1, 1, w)
    (top, left), (bottom, right) = (side.view(2, batch, 1, 1) for side in (corners, corners + sides))
    is_within = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)  # (B, h, w)
    within = is_within ^ (uniform(1, 1) < 0.5)
    known = torch.where(uniform(1, 1) < scattered, uniform(h, w) < uniform(1, 1), within).flatten(1)
    at_random = (uniform(1) < 0.5) & ~known
    raster = torch.arange(h * w) / (h * w)
    return (torch.where(at_random, uniform(h * w), raster) + (~known).float()).argsort(dim=1, stable=True)
