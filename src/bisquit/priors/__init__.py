"""The family of priors. A new one is a file here and a line in `PRIORS`; the family's tests then run on it."""

from __future__ import annotations

from bisquit.priors.anyorder import AnyOrderConfig, AnyOrderPrior
from bisquit.priors.base import Path, Prior, SequentialPrior
from bisquit.priors.causal import CausalPrior
from bisquit.priors.pyramid import PyramidConfig, PyramidPrior
from bisquit.priors.raster import RasterConfig, RasterPrior

PriorConfig = RasterConfig | AnyOrderConfig | PyramidConfig  # told apart by their `kind`

PRIORS: dict[type, type[RasterPrior | AnyOrderPrior | PyramidPrior]] = {
    RasterConfig: RasterPrior,
    AnyOrderConfig: AnyOrderPrior,
    PyramidConfig: PyramidPrior,
}


def build_prior(config: PriorConfig, bits: int, grid: tuple[int, int]) -> Prior:
    """Return the prior that `config` describes, for grids (h, w) of tokens of `bits` bits."""
    return PRIORS[type(config)](config, bits, grid)  # type: ignore[arg-type]  # each takes what it is found by


__all__ = [
    "PRIORS",
    "AnyOrderConfig",
    "AnyOrderPrior",
    "CausalPrior",
    "Path",
    "Prior",
    "PriorConfig",
    "PyramidConfig",
    "PyramidPrior",
    "RasterConfig",
    "RasterPrior",
    "SequentialPrior",
    "build_prior",
]
