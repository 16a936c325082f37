"""The engine: a raster prior decoded fast, behind the interface of every sequential prior, and tokenizers in integers.

RasterPrior ──prepare──> EnginePrior   native, on the CPU, in float32 or int8
                         GraphedPrior  a captured step, on a GPU
                         IntegerPrior  the reference of int8, in plain PyTorch

Tokenizer ──prepare_tokenizer──> EngineTokenizer   native, on the CPU
                                 IntegerTokenizer  the reference, in plain PyTorch
"""

from __future__ import annotations

from bisquit.engine.backend import BACKENDS, PRECISIONS, Backend, Precision, paint, prepare, prepare_tokenizer
from bisquit.engine.graphed import GraphedPrior
from bisquit.engine.integer import IntegerPrior
from bisquit.engine.integer_tokenizer import IntegerTokenizer
from bisquit.engine.native import EnginePrior, engine_missing, usable_kernels
from bisquit.engine.native_tokenizer import EngineTokenizer

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Backend",
    "EnginePrior",
    "EngineTokenizer",
    "GraphedPrior",
    "IntegerPrior",
    "IntegerTokenizer",
    "Precision",
    "engine_missing",
    "paint",
    "prepare",
    "prepare_tokenizer",
    "usable_kernels",
]
