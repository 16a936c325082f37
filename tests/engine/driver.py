"""What the tests of the engine share: rough priors of awkward sizes, and the kernels that this machine can run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from bisquit.engine import engine_missing, usable_kernels
from bisquit.priors import RasterConfig, RasterPrior
from bisquit.transformer import TransformerConfig

POSITIONS = ("none", "learned", "row-column", "rotary")
GRIDS = ((1, 1), (2, 3), (5, 7), (9, 9))  # the last is longer than four blocks of 16 steps

NEIGHBOURS = (1, 3, 4)

KERNELS = [""] if engine_missing() else usable_kernels()
needs_engine = pytest.mark.skipif(engine_missing() is not None, reason=f"the engine is not built: {engine_missing()}")
every_kernel = pytest.mark.parametrize("kernels", KERNELS)


@dataclass(frozen=True)
class Case:
    """A prior and what is asked of it."""

    positions: Any = "learned"
    grid: tuple[int, int] = (2, 3)
    width: int = 8
    n_heads: int = 2
    feed_forward: int = 12
    n_layers: int = 2
    bits: int = 3
    deviation: float = 0.5
    batch: int = 3
    threads: int = 1
    neighbours: int = 0

    def prior(self) -> RasterPrior:
        """A prior all of whose weights are drawn with this deviation: each matters."""
        transformer = TransformerConfig(self.width, self.n_layers, self.n_heads, self.feed_forward)
        config = RasterConfig(transformer=transformer, positions=self.positions, neighbours=self.neighbours)
        prior = RasterPrior(config, self.bits, self.grid)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in prior.parameters():
                parameter.copy_(self.deviation * torch.randn(parameter.shape, generator=generator))
        return prior.eval()

    def tokens(self) -> Tensor:
        """Random tokens of the batch."""
        generator = torch.Generator().manual_seed(1)
        return torch.randint(2**self.bits, (self.batch, *self.grid), generator=generator)

    def __str__(self) -> str:
        return (
            f"{self.positions}-{self.grid[0]}x{self.grid[1]}-{self.width}w{self.n_heads}h{self.feed_forward}f"
            f"-{self.bits}bits-{self.deviation}-batch{self.batch}-threads{self.threads}-{self.neighbours}neighbours"
        )


# Widths, heads and feed-forwards that fill neither a vector nor a panel; those of the second row take rotary positions.
SIZES = ((6, 2, 12), (20, 2, 33), (35, 5, 7), (72, 3, 100), (1, 1, 1), (33, 1, 65))
ROTARY_SIZES = ((8, 2, 12), (20, 5, 33), (24, 2, 7), (72, 3, 600))


def cases(deviations: tuple[float, ...]) -> list[Case]:
    """Cases in which every kind of positions meets every grid, and all else takes turns; some again with neighbours."""
    found = []
    for i, (positions, grid, _) in enumerate(product(POSITIONS, GRIDS, range(2))):
        sizes = ROTARY_SIZES if positions == "rotary" else SIZES
        width, n_heads, feed_forward = sizes[i % len(sizes)]
        found.append(
            Case(
                positions,
                grid,
                width,
                n_heads,
                feed_forward,
                n_layers=1 + i % 3,
                bits=1 + i % 11,
                deviation=deviations[i % len(deviations)],
                batch=(1, 3, 20)[(i + i // 3) % 3],
                threads=(1, 2, 3)[(i + i // 9) % 3],
            )
        )
    again = [replace(case, neighbours=NEIGHBOURS[i % len(NEIGHBOURS)]) for i, case in enumerate(found[::3])]
    return found + again
