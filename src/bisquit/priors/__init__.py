"""The family of priors. A new one is a file here and a line in `PRIORS`; the family's tests then run on it."""

from __future__ import annotations

from bisquit.priors.base import Prior, SequentialPrior
from bisquit.priors.raster import RasterConfig, RasterPrior

PriorConfig = RasterConfig  # the union of all configurations, told apart by their `kind`

PRIORS = {RasterConfig: RasterPrior}


def build_prior(config: PriorConfig, bits: int, grid: tuple[int, int]) -> Prior:
    """Return the prior that `config` describes, for grids (h, w) of tokens of `bits` bits."""
    return PRIORS[type(config)](config, bits, grid)


__all__ = ["PRIORS", "Prior", "PriorConfig", "RasterConfig", "RasterPrior", "SequentialPrior", "build_prior"]
