"""The family of priors. A new one is a file here and a line in `PRIORS`; the family's tests then run on it."""

from __future__ import annotations

from bisquit.priors.anyorder import AnyOrderConfig, AnyOrderPrior
from bisquit.priors.base import Path, Prior, SequentialPrior
from bisquit.priors.causal import CausalPrior
from bisquit.priors.parts import PartsConfig, PartsPrior
from bisquit.priors.raster import RasterConfig, RasterPrior

PriorConfig = RasterConfig | AnyOrderConfig | PartsConfig  # told apart by their `kind`

PRIORS: dict[type, type[Prior]] = {
    RasterConfig: RasterPrior,
    AnyOrderConfig: AnyOrderPrior,
    PartsConfig: PartsPrior,
}


def build_prior(config: PriorConfig, bits: int, grid: tuple[int, int]) -> Prior:
    """Return the prior that `config` describes, for grids (h, w) of tokens of `bits` bits."""
    return PRIORS[type(config)](config, bits, grid)


__all__ = [
    "PRIORS",
    "AnyOrderConfig",
    "AnyOrderPrior",
    "CausalPrior",
    "PartsConfig",
    "PartsPrior",
    "Path",
    "Prior",
    "PriorConfig",
    "RasterConfig",
    "RasterPrior",
    "SequentialPrior",
    "build_prior",
]
