"""The family of priors. A new one is a file here and a line in `PRIORS`; the family's tests then run on it."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

from pydantic import Field

from bisquit.config import require
from bisquit.priors.anyorder import AnyOrderConfig, AnyOrderPrior
from bisquit.priors.base import Path, Prior, SequentialPrior
from bisquit.priors.causal import CausalPrior
from bisquit.priors.flow import FlowConfig, FlowPrior
from bisquit.priors.masked import MaskedConfig, MaskedPrior
from bisquit.priors.parts import PartsConfig, PartsPrior
from bisquit.priors.pyramid import PyramidConfig, PyramidPrior
from bisquit.priors.raster import RasterConfig, RasterPrior

PriorConfig = Annotated[
    RasterConfig | AnyOrderConfig | PartsConfig | PyramidConfig | MaskedConfig | FlowConfig,
    Field(discriminator="kind"),
]

PRIORS: dict[type, type[Prior]] = {
    RasterConfig: RasterPrior,
    AnyOrderConfig: AnyOrderPrior,
    PartsConfig: PartsPrior,
    PyramidConfig: PyramidPrior,
    MaskedConfig: MaskedPrior,
    FlowConfig: FlowPrior,
}

KINDS: dict[str, type[PriorConfig]] = {config().kind: config for config in PRIORS}


def build_prior(config: PriorConfig, bits: int, grid: tuple[int, int]) -> Prior:
    """Return the prior that `config` describes, for grids (h, w) of tokens of `bits` bits."""
    return PRIORS[type(config)](config, bits, grid)


def of_kind(config: PriorConfig, kind: str) -> PriorConfig:
    """Return the configuration of a kind of prior that has what `config` has, wherever both have it.

    Of neighbours it has at most as many as its kind takes. Raises ConfigError if there is no such kind.
    """
    require(kind in KINDS, "prior", kind, "one of " + ", ".join(KINDS))
    wanted: Any = KINDS[kind]
    names = {field.name for field in fields(wanted)} - {"kind"}
    shared = {field.name: getattr(config, field.name) for field in fields(config) if field.name in names}
    if "neighbours" in shared:
        shared["neighbours"] = min(shared["neighbours"], wanted.most_neighbours)
    made: PriorConfig = wanted(**shared)
    return made


def starts_from_bits(kind: str) -> bool:
    """Return whether priors of a kind can begin with tokens as alike as their bits."""
    return PRIORS[KINDS[kind]].start_from_bits is not Prior.start_from_bits


__all__ = [
    "KINDS",
    "PRIORS",
    "AnyOrderConfig",
    "AnyOrderPrior",
    "CausalPrior",
    "FlowConfig",
    "FlowPrior",
    "MaskedConfig",
    "MaskedPrior",
    "PartsConfig",
    "PartsPrior",
    "Path",
    "Prior",
    "PriorConfig",
    "PyramidConfig",
    "PyramidPrior",
    "RasterConfig",
    "RasterPrior",
    "SequentialPrior",
    "build_prior",
    "of_kind",
    "starts_from_bits",
]
