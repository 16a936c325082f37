"""Which of the ways to compute a prior is taken: PyTorch or the native engine, in float32, int8 or bfloat16."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Literal, get_args, overload

import torch
from torch import Tensor

from bisquit.config import require
from bisquit.engine.graphed import GraphedPrior
from bisquit.engine.integer import IntegerPrior
from bisquit.engine.integer_tokenizer import IntegerTokenizer
from bisquit.engine.native import EnginePrior, engine_missing
from bisquit.engine.native_tokenizer import EngineTokenizer
from bisquit.errors import ConfigError
from bisquit.priors import CausalPrior, Path, Prior, RasterPrior, SequentialPrior
from bisquit.sampling import OnToken, SamplingConfig, Seeds, both_ways, sample
from bisquit.tokenizer import Tokenizer

Backend = Literal["auto", "torch", "engine"]
Precision = Literal["float32", "int8", "bfloat16"]
BACKENDS: tuple[str, ...] = get_args(Backend)
PRECISIONS: tuple[str, ...] = get_args(Precision)


@overload
def prepare(prior: SequentialPrior, backend: Backend = ..., precision: Precision = ...) -> SequentialPrior: ...


@overload
def prepare(prior: Prior, backend: Backend = ..., precision: Precision = ...) -> Prior: ...


def prepare(prior: Prior, backend: Backend = "auto", precision: Precision = "float32") -> Prior:
    """Return a prior's model in the form that computes it fastest, or in the one that is asked for.

    "auto": on the CPU the engine, where it is built and takes this kind of prior; on a GPU a captured step. "torch" is
    the reference, "engine" the engine or an error. In float32 and in int8 every way paints the same pictures, other
    ones in each; bfloat16 is for GPUs. Weights are taken as they are now. Raises ConfigError for what cannot be.
    """
    require(precision in PRECISIONS, "precision", precision, "one of " + ", ".join(PRECISIONS))
    require(backend in BACKENDS, "backend", backend, "one of " + ", ".join(BACKENDS))
    device = prior.device
    if not isinstance(prior, CausalPrior):
        if backend == "engine" or precision != "float32":
            raise ConfigError(f"the engine and {precision} are for causal priors, not for a {type(prior).__name__}")
        return prior
    if precision == "bfloat16":
        if device.type != "cuda" or backend == "engine":
            raise ConfigError("bfloat16 is for PyTorch on a GPU: on a CPU, int8 is faster")
        if not isinstance(prior, RasterPrior):
            raise ConfigError(f"bfloat16 is for raster priors, not for a {type(prior).__name__}")
        return GraphedPrior(prior, torch.bfloat16)
    is_for_engine = _is_for_engine(device, backend)
    model = IntegerPrior(prior) if precision == "int8" else prior
    if is_for_engine:
        return EnginePrior(model)
    if backend == "auto" and device.type == "cuda" and isinstance(model, RasterPrior):
        return GraphedPrior(model, torch.float32)
    return model


def prepare_tokenizer(tokenizer: Tokenizer, backend: Backend = "auto") -> IntegerTokenizer | EngineTokenizer:
    """Return a tokenizer in integers in the form that computes it fastest, or in the one that is asked for.

    All give the same tokens and pixels. "auto": the engine, where the tokenizer is on the CPU and the engine is built.
    Raises ModelError if it cannot be rounded to integers, ConfigError for what cannot be.
    """
    require(backend in BACKENDS, "backend", backend, "one of " + ", ".join(BACKENDS))
    is_for_engine = _is_for_engine(tokenizer.device, backend)
    integer = IntegerTokenizer(tokenizer)
    return EngineTokenizer(integer) if is_for_engine else integer


def _is_for_engine(device: torch.device, backend: Backend) -> bool:
    """Whether the engine computes what is on a device. Raises ConfigError if it is asked for and cannot."""
    if backend == "engine" and device.type != "cpu":
        raise ConfigError(f"the engine computes on the CPU, and the model is on {device}: pass backend torch or auto")
    if backend != "auto" or device.type != "cpu":
        return backend == "engine"
    if (reason := engine_missing()) is not None:
        _say_once(f"the native engine is not built here ({reason}): PyTorch computes instead, many times slower")
    return reason is None


def paint(
    prior: SequentialPrior,
    numbers: Sequence[int],
    *,
    seed: Seeds,
    settings: SamplingConfig | None = None,
    given: Tensor | None = None,
    path: Path | None = None,
    guide: Path | None = None,
    on_token: OnToken | None = None,
) -> Tensor:
    """Paint pictures by the loop that fits the prior: its own where it has one, else `bisquit.sampling.sample`.

    Arguments and result are those of `sample`; on_token may be called less often, but always after as many tokens as a
    row of the grid has.
    """
    both_ways(settings or SamplingConfig(), path, guide)  # which must fit together, whatever takes them
    if isinstance(prior, GraphedPrior):
        if path is None:
            return prior.paint(numbers, seed=seed, settings=settings, given=given, on_token=on_token)
        prior = prior.inner  # whose steps are not of fixed addresses
        path, guide = (way and way.to(prior.device, prior.start_vector.dtype) for way in (path, guide))
    loop = prior.paint if isinstance(prior, EnginePrior) else functools.partial(sample, prior)
    return loop(numbers, seed=seed, settings=settings, given=given, path=path, guide=guide, on_token=on_token)


@functools.cache
def _say_once(message: str) -> None:
    logging.getLogger("bisquit").warning("bisquit: %s", message)
