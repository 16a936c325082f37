"""The engine: a raster prior decoded fast, behind the interface of every sequential prior.

RasterPrior ──prepare──> EnginePrior   native, on the CPU, in float32 or int8
                         GraphedPrior  a captured step, on a GPU
                         IntegerPrior  the reference of int8, in plain PyTorch
"""

from __future__ import annotations

from bisquit.engine.backend import BACKENDS, PRECISIONS, Backend, Precision, paint, prepare
from bisquit.engine.graphed import GraphedPrior
from bisquit.engine.integer import IntegerPrior
from bisquit.engine.native import EnginePrior, engine_missing, usable_kernels

__all__ = [
    "BACKENDS",
    "PRECISIONS",
    "Backend",
    "EnginePrior",
    "GraphedPrior",
    "IntegerPrior",
    "Precision",
    "engine_missing",
    "paint",
    "prepare",
    "usable_kernels",
]
