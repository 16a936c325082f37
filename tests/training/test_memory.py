"""Memory that is freed is kept: what is allocated again costs no page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from bisquit.training.memory import freed_memory_kept

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is for glibc's allocator")


FAULTS = """
import resource
import torch
from bisquit.training.memory import freed_memory_kept

with freed_memory_kept():
    faults = []
    for _ in range(6):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(10 * 2**20)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""
"""Fills and frees 40 MiB some times, and prints the page faults of the last."""


@needs_glibc
def test_freed_memory_is_used_again_without_page_faults():
    own = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(own.stdout) < 100  # in a process of its own, whose heap nothing else has cut up


def test_an_exception_passes_through():
    with pytest.raises(ValueError, match="through"), freed_memory_kept():
        raise ValueError("through")
