"""Pyramids: the scales of a grid, from one place for all of it to the grid itself, and the ways between them.

To a smaller scale, a place becomes the mean over its area; to a larger one, places are joined by cubic convolution.
Both are linear and take rows and columns apart, so that each is two matrices, made of sums, products and quotients of
float64 alone: they work for any two sizes, and alike wherever a matrix is multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def scale_grids(fractions: Sequence[float], grid: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the grid of each scale: that fraction of a grid (h, w), a half rounded up, and at least one place.

    Of a grid that is too small for so many scales, some are alike.
    """
    rows, columns = ([max(1, math.floor(fraction * side + 0.5)) for fraction in fractions] for side in grid)
    return tuple(zip(rows, columns, strict=True))


def averaged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return x (..., h, w) at a smaller size (rows, columns), each place the mean over its area; never in half."""
    return _mapped(x, *(averaging(large, small) for large, small in zip(x.shape[-2:], size, strict=True)))


def enlarged(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return x (..., h, w) at a larger size (rows, columns), by cubic convolution; never in half precision."""
    return _mapped(x, *(enlarging(small, large) for small, large in zip(x.shape[-2:], size, strict=True)))


def averaging(large: int, small: int) -> Tensor:
    """Return the matrix, float64 (small, large), that takes the mean of `large` values over each of `small` areas.

    A value that lies in two areas counts in each by its part.
    """
    edges = torch.arange(small + 1, dtype=torch.float64).unsqueeze(1) * large / small
    values = torch.arange(large, dtype=torch.float64)
    covered = torch.minimum(edges[1:], values + 1) - torch.maximum(edges[:-1], values)
    return covered.clamp_min(0) * small / large


def enlarging(small: int, large: int) -> Tensor:
    """Return the matrix, float64 (large, small), that puts `large` values in the places of `small`.

    Cubic convolution, which keeps what is linear: R. Keys, "Cubic Convolution Interpolation for Digital Image
    Processing", 1981, equation 15. Beyond the ends, the first and the last value go on.
    """
    centres = (torch.arange(large, dtype=torch.float64).unsqueeze(1) + 0.5) * small / large - 0.5
    taps = centres.floor() + torch.arange(-1, 3)  # (large, 4)
    d = (centres - taps).abs()
    weights = torch.where(d <= 1, (1.5 * d - 2.5) * d * d + 1, ((2.5 - 0.5 * d) * d - 4) * d + 2)
    matrix = torch.zeros(large, small, dtype=torch.float64)
    return matrix.scatter_add_(1, taps.long().clamp(0, small - 1), weights)


def _mapped(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        return rows.to(x) @ x @ columns.to(x).mT
