"""The raster prior: a causal transformer over the tokens of a picture, row after row.

What it computes is drawn at the top of `bisquit.priors.causal`; steps are those of raster order, so that the neighbours
of a step are tokens above its own, known since long.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bisquit.config import require
from bisquit.priors.causal import ABOVE, CausalConfig, CausalPrior, places_around


@dataclass(frozen=True)
class RasterConfig(CausalConfig):
    """The shape of a `RasterPrior`."""

    most_neighbours: ClassVar[int] = len(ABOVE)
    kind: Literal["raster"] = field(default="raster", kw_only=True)
    positions: Literal["none", "learned", "row-column", "rotary"] = "learned"
    """How a step knows its place: not at all, a vector for each place, one for the row plus one for the column, or
    rotation by row and column."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions == "rotary":
            head_width = self.transformer.head_width
            require(
                head_width % 4 == 0, "positions", "rotary", f"with heads of a multiple of 4 channels, not {head_width}"
            )


class RasterPrior(CausalPrior):
    """A causal transformer over tokens in raster order."""

    config: RasterConfig

    def __init__(self, config: RasterConfig, bits: int, grid: tuple[int, int]) -> None:
        require(min(grid) >= 1, "grid", grid, "at least 1 x 1")
        super().__init__(config, bits, grid, places_around(grid, config.neighbours))

    def add_positions(self) -> None:
        """Make the kind of positions that the configuration names."""
        transformer = self.config.transformer
        self.positions = POSITIONS[self.config.positions](self.grid, transformer.width)
        if self.config.positions == "rotary":
            self.angles = axial_angles(self.grid, transformer.head_width)

    def places(self) -> Tensor:
        """Return what positions add to the input of each step, (h w, width); zeros where they add nothing."""
        added: Tensor | None = self.positions()
        return self.start_vector.new_zeros(self.length, self.config.transformer.width) if added is None else added


class NoPositions(nn.Module):
    """Adds nothing; also what rotary positions, which act inside of attention, leave to do here."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()

    def forward(self) -> None:
        """Return None."""


class LearnedPositions(nn.Module):
    """Has a learned vector for each place of the grid."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.place = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1], width))

    def forward(self) -> Tensor:
        """Return what is added at each place, (h w, width)."""
        return self.place


class RowColumnPositions(nn.Module):
    """Has a learned vector for the row and one for the column."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.row = nn.Parameter(0.02 * torch.randn(grid[0], 1, width))
        self.column = nn.Parameter(0.02 * torch.randn(1, grid[1], width))

    def forward(self) -> Tensor:
        """Return what is added at each place, (h w, width)."""
        return (self.row + self.column).flatten(0, 1)


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
