"""Memory that a step frees is kept for the next one.

By default glibc gives large pieces back to the system, and every step of a training faults them in again, page by page:
34,000 faults a step of the `seed` prior, a tenth of its time. See mallopt(3).
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
MIB = 2**20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Have this process keep the memory that it frees, and give it back at the end. Does nothing without glibc."""
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(M_MMAP_MAX, 0)
    libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        libc.mallopt(M_MMAP_MAX, 65536)
        libc.mallopt(M_MMAP_THRESHOLD, 32 * MIB)  # these two are what a process that frees large pieces comes to have
        libc.mallopt(M_TRIM_THRESHOLD, 64 * MIB)
        libc.malloc_trim(0)
