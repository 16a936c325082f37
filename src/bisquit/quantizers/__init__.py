"""The family of quantizers. A new one is a file here and a line in `QUANTIZERS`; the family's tests then run on it."""

from __future__ import annotations

from bisquit.quantizers.base import Quantized, Quantizer
from bisquit.quantizers.bsq import BSQ, BSQConfig
from bisquit.quantizers.pyramid import PyramidBSQ, PyramidBSQConfig

QuantizerConfig = BSQConfig | PyramidBSQConfig  # told apart by their `kind`

QUANTIZERS: dict[type, type[BSQ | PyramidBSQ]] = {BSQConfig: BSQ, PyramidBSQConfig: PyramidBSQ}


def build_quantizer(config: QuantizerConfig, width: int) -> Quantizer:
    """Return the quantizer that `config` describes, for latents of `width` channels."""
    return QUANTIZERS[type(config)](config, width)  # type: ignore[arg-type]  # each takes what it is found by


__all__ = [
    "BSQ",
    "QUANTIZERS",
    "BSQConfig",
    "PyramidBSQ",
    "PyramidBSQConfig",
    "Quantized",
    "Quantizer",
    "QuantizerConfig",
    "build_quantizer",
]
