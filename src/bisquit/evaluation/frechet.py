"""The Frechet distance of two sets of features, as that of Inception's features is defined (FID).

Heusel et al. 2017, arXiv:1706.08500: the squared Frechet (2-Wasserstein) distance of the Gaussians that have the sets'
means m and covariances C,

    |m_a - m_b|^2  +  tr C_a  +  tr C_b  -  2 tr (C_a C_b)^(1/2)

It falls with the number of frames, even where both sets are of one distribution, so that only distances of as many
frames to the same frames can be compared.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from bisquit.errors import ShapeError
from bisquit.evaluation.bootstrap import Units, half_width, resamples, units

ROUNDS = 200


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return the squared Frechet distance of features a (N, d) and b (M, d), worked out in float64.

    Raises ShapeError for other shapes, and unless there are more rows than dimensions on each side: the covariance of
    fewer says nothing of some directions.
    """
    _check(a, b)
    return _distance(_fit(a.double()), _fit(b.double()))


def frechet_interval(
    a: Tensor,
    b: Tensor,
    generator: torch.Generator,
    *,
    a_units: Units | None = None,
    b_units: Units | None = None,
    rounds: int = ROUNDS,
) -> float:
    """Return half the width of the 95% interval of `frechet_distance(a, b)`: 1.96 bootstrap standard deviations.

    Both sets are drawn anew in each round: row by row, as is right for samples of a model, which are independent, or
    unit by unit, as `units` has it for frames: a race's frames are alike, and other races of the same tracks would have
    given another distance. Two models that are compared on the same frames share the part that the choice of frames has
    in it; their difference is surer than it says. Only the spread of the rounds is used: their mean lies above the
    distance, since a drawn set repeats rows. Not to be trusted while there are only few rows more than dimensions.
    """
    _check(a, b)
    a, b = a.double(), b.double()
    a_rows = resamples(a_units or units(len(a)), rounds, generator)
    b_rows = resamples(b_units or units(len(b)), rounds, generator)
    return half_width([_distance(_fit(a[ours]), _fit(b[theirs])) for ours, theirs in zip(a_rows, b_rows, strict=True)])


class _Gaussian(NamedTuple):
    """A Gaussian fitted to features."""

    mean: Tensor
    """(d,) float64."""
    root: Tensor
    """(min(N, d), d) float64, upper triangular; the covariance is root^T root."""


def _fit(x: Tensor) -> _Gaussian:
    mean = x.mean(dim=0)
    return _Gaussian(mean, torch.linalg.qr((x - mean) / (len(x) - 1) ** 0.5, mode="r").R)


def _distance(a: _Gaussian, b: _Gaussian) -> float:
    """C_a C_b has the eigenvalues of R_b R_a^T R_a R_b^T, whose roots are the singular values of R_a R_b^T."""
    shared = torch.linalg.svdvals(a.root @ b.root.T).sum()
    squared = (a.mean - b.mean).square().sum() + a.root.square().sum() + b.root.square().sum() - 2 * shared
    return max(0.0, float(squared))


def _check(a: Tensor, b: Tensor) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ShapeError(f"features are {tuple(a.shape)} and {tuple(b.shape)}: they must be (N, d) and (M, d)")
    fewest, d = min(len(a), len(b)), a.shape[1]
    if fewest <= d:
        raise ShapeError(
            f"features are {tuple(a.shape)} and {tuple(b.shape)}: the covariance of {d} dimensions needs {d + 1} rows "
            "at least"
        )
