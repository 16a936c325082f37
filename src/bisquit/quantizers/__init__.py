"""The family of quantizers. A new one is a file here and a line in `QUANTIZERS`; the family's tests then run on it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from bisquit.errors import ConfigError
from bisquit.quantizers.base import Quantized, Quantizer
from bisquit.quantizers.bsq import BSQ, BSQConfig
from bisquit.quantizers.fsq import FSQ, FSQConfig
from bisquit.quantizers.lfq import LFQ, LFQConfig
from bisquit.quantizers.pyramid import Flawed, PyramidBSQ, PyramidBSQConfig
from bisquit.quantizers.vq import VQ, VQConfig

QuantizerConfig = Annotated[
    BSQConfig | LFQConfig | FSQConfig | VQConfig | PyramidBSQConfig, Field(discriminator="kind")
]

QUANTIZERS: dict[type[QuantizerConfig], type[Quantizer]] = {
    BSQConfig: BSQ,
    LFQConfig: LFQ,
    FSQConfig: FSQ,
    VQConfig: VQ,
    PyramidBSQConfig: PyramidBSQ,
}


def build_quantizer(config: QuantizerConfig, width: int) -> Quantizer:
    """Return the quantizer that `config` describes, for latents of `width` channels."""
    return QUANTIZERS[type(config)](config, width)


def quantizer_kinds() -> dict[str, type[QuantizerConfig]]:
    """Return the settings of each quantizer by their `kind`."""
    return {config.kind: config for config in QUANTIZERS}


def default_quantizer(kind: str, bits: int) -> QuantizerConfig:
    """Return a kind's settings as they are by default, for tokens of so many bits.

    Raises ConfigError if there is no such kind, or if it takes no such number of bits.
    """
    kinds = quantizer_kinds()
    if kind not in kinds:
        raise ConfigError(f"there is no quantizer {kind}: there are {', '.join(kinds)}")
    return kinds[kind].of_bits(bits)


__all__ = [
    "BSQ",
    "FSQ",
    "LFQ",
    "QUANTIZERS",
    "VQ",
    "BSQConfig",
    "FSQConfig",
    "Flawed",
    "LFQConfig",
    "PyramidBSQ",
    "PyramidBSQConfig",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "VQConfig",
    "build_quantizer",
    "default_quantizer",
    "quantizer_kinds",
]
