"""Memory that is freed is kept: what is allocated again costs no page faults."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from bisquit.training.memory import freed_memory_kept

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is for glibc's allocator")


def faults_of_allocating_again() -> int:
    """Fill and free 40 MiB some times, and return the page faults of the last."""
    faults = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(10 * 2**20)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return faults[-1]


@needs_glibc
def test_freed_memory_is_used_again_without_page_faults():
    with freed_memory_kept():
        assert faults_of_allocating_again() < 100


def test_an_exception_passes_through():
    with pytest.raises(ValueError, match="through"), freed_memory_kept():
        raise ValueError("through")
