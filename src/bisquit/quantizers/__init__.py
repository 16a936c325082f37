"""The family of quantizers. A new one is a file here and a line in `QUANTIZERS`; the family's tests then run on it."""

from __future__ import annotations

from bisquit.quantizers.base import Quantized, Quantizer
from bisquit.quantizers.bsq import BSQ, BSQConfig

QuantizerConfig = BSQConfig  # the union of all configurations, told apart by their `kind`

QUANTIZERS = {BSQConfig: BSQ}


def build_quantizer(config: QuantizerConfig, width: int) -> Quantizer:
    """Return the quantizer that `config` describes, for latents of `width` channels."""
    return QUANTIZERS[type(config)](config, width)


__all__ = ["BSQ", "QUANTIZERS", "BSQConfig", "Quantized", "Quantizer", "QuantizerConfig", "build_quantizer"]
