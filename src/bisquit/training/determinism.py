"""Trainings that give the same weights to the bit, however often they are run.

On a CPU all that can differ is how many threads a sum is divided among. On a GPU some algorithms add in whatever order
their threads come, and PyTorch is told to take others. Another kind of processor, or another release of PyTorch, may
round otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda, cudnn

from bisquit.errors import RunError

THREADS = 2
"""Of a deterministic training on a CPU, however many cores that has."""


@contextmanager
def deterministic(is_wanted: bool) -> Iterator[None]:
    """Have PyTorch compute all alike each time while the block runs, if that is wanted.

    Raises RunError where it has no way to compute something so.
    """
    if not is_wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), cudnn.benchmark
    attention = cuda.mem_efficient_sdp_enabled(), cuda.cudnn_sdp_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first used
    _set(True, THREADS, False)
    _set_attention(False, False)  # whose gradients are summed in any order
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise RunError(f"this training cannot be deterministic on this device: {str(error).splitlines()[0]}") from error
    finally:
        _set(*before)
        _set_attention(*attention)


def _set(algorithms: bool, threads: int, benchmark: bool) -> None:
    torch.use_deterministic_algorithms(algorithms)
    torch.set_num_threads(threads)
    cudnn.benchmark = benchmark


def _set_attention(mem_efficient: bool, by_cudnn: bool) -> None:
    cuda.enable_mem_efficient_sdp(mem_efficient)
    cuda.enable_cudnn_sdp(by_cudnn)
