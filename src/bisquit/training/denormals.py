"""Numbers too small for float32's usual form are taken for zero while a training runs.

Far below zero GELU has hardly a slope, and gradients come out of it below 1e-38: denormal, with which a processor's
arithmetic takes many times as long. A step of a trained tokenizer took 2.9 times as long, by docs/performance.md;
a GPU does not mind. See `torch.set_flush_denormal`.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

OMP_PAUSE_SOFT = 1


@contextmanager
def denormals_dropped() -> Iterator[None]:
    """Have the calling thread, and those that share its arithmetic, take denormal numbers for zero, and not after it.

    Does nothing on a processor that cannot.
    """
    before = is_dropping_denormals()
    _drop(True)
    try:
        yield
    finally:
        _drop(before)


def is_dropping_denormals() -> bool:
    """Whether the calling thread takes denormal numbers for zero."""
    return not torch.tensor(1e-30).mul(1e-10).view(torch.int32).item()


def _drop(is_wanted: bool) -> None:
    """Set it for the calling thread, and end OpenMP's others: the next ones begin as the thread is that calls them.

    GNU's ends them when it is paused; LLVM's takes the caller's setting over each time, and loses nothing by a pause.
    """
    torch.set_flush_denormal(is_wanted)
    own = ctypes.CDLL(None) if os.name == "posix" else None
    pause = getattr(own, "omp_pause_resource_all", None)  # of OpenMP 5.0
    if pause is not None:
        pause(OMP_PAUSE_SOFT)
