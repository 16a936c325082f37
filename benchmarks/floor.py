"""The least time in which a prior could paint: what there is to multiply and to read, at the best speed measured here.

    floor = max(operations / peak, bytes read / bandwidth)      seconds an image

Operations: two for each weight of the matrices and for each key and value attended to, at the speed of one large matrix
product. Bytes: the weights once a step for all pictures that are painted together, and each picture's keys and values.
A batch may be painted in groups, so that the keys and values of one stay in cache; the floor is that of the best group.
How fast bytes are read depends on where they lie, so it is measured for several sizes, and the one counts that is next
below all that a group reads. What is left out makes it lower still: norms, softmax, GELU, noise, writing.
"""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from bisquit.priors import RasterPrior

BYTES = {"float32": 4, "int8": 1}
GEMM_SIZE = 1024
ROUNDS = 40  # the fastest of which counts
READ_SIZES = tuple(2**power for power in range(18, 29))  # 256 KiB to 256 MiB
READ_AT_LEAST = 2**27  # bytes a round: short of that, a clock and starting the threads would count


@dataclass(frozen=True)
class Peaks:
    """The best speeds measured on this machine, with all the threads that the sides use."""

    operations_per_s: dict[str, float]
    """By precision, of a product of two 1,024 x 1,024 matrices."""
    bytes_per_s: dict[int, float]
    """By how many bytes are read over and over."""

    def bandwidth(self, working_set: float) -> float:
        """Return the bytes a second at which so many bytes can be read again and again.

        That is the speed measured for the next size below, or for a larger one if that was read faster.
        """
        below = max((size for size in self.bytes_per_s if size <= working_set), default=min(self.bytes_per_s))
        return max(speed for size, speed in self.bytes_per_s.items() if size >= below)

    def or_better(self, other: Peaks) -> Peaks:
        """Return the better of two measurements of each speed: what runs beside one only makes it slower."""
        return Peaks(
            {name: max(speed, other.operations_per_s[name]) for name, speed in self.operations_per_s.items()},
            {size: max(speed, other.bytes_per_s[size]) for size, speed in self.bytes_per_s.items()},
        )

    def summary(self) -> dict[str, dict[str, float]]:
        """Return it as an object of a JSON line."""
        return {
            "gemm_giga_operations_per_s": {name: value / 1e9 for name, value in self.operations_per_s.items()},
            "read_gb_per_s_by_mib": {f"{size / 2**20:g}": value / 1e9 for size, value in self.bytes_per_s.items()},
        }


def measure_peaks() -> Peaks:
    """Measure them, in a few seconds."""
    a = torch.randn(GEMM_SIZE, GEMM_SIZE)
    b = torch.randint(-127, 128, (GEMM_SIZE, GEMM_SIZE), dtype=torch.int8)
    seconds = {"float32": _fastest(lambda: a @ a), "int8": _fastest(lambda: torch._int_mm(b, b))}
    operations = {name: 2 * GEMM_SIZE**3 / fastest for name, fastest in seconds.items()}
    return Peaks(operations, {size: _read_speed(size, torch.get_num_threads()) for size in READ_SIZES})


def _fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some rounds."""
    fastest = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        run()
        fastest = min(fastest, time.perf_counter() - begin)
    return fastest


def _read_speed(size: int, threads: int) -> float:
    """Return the bytes a second at which threads, each its own share, read so many bytes again and again.

    They search for a byte that is not there with the C library's memchr, which reads all bytes once, with the widest
    loads there are, and runs outside of Python's lock.
    """
    memchr = ctypes.CDLL(None).memchr
    memchr.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    memory = np.ones(size, np.uint8)
    share, repeats = size // threads, -(-READ_AT_LEAST // size)

    def read(thread: int) -> None:
        for _ in range(repeats):
            memchr(memory.ctypes.data + thread * share, 0, share)

    def read_all() -> None:
        readers = [threading.Thread(target=read, args=(thread,)) for thread in range(threads)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()

    return share * threads * repeats / _fastest(read_all)


@dataclass(frozen=True)
class Floor:
    """The least seconds an image, and what they are made of."""

    seconds: float
    operations_s: float
    """Seconds an image that the products take."""
    reading_s: float
    """Seconds an image that the reading takes."""
    group: int
    """Pictures that are painted together."""
    giga_operations: float
    """10**9 additions and multiplications an image."""
    gigabytes: float
    """10**9 bytes read an image."""
    working_set_mb: float
    """10**6 bytes read again and again: the weights, and the group's keys and values at the last step."""
    bandwidth_gb_per_s: float
    """At which such a working set is read."""


def weights(prior: RasterPrior) -> int:
    """Return how many weights the matrices of a step have: of the blocks and of the head."""
    shape = prior.config.transformer
    block = 4 * shape.width**2 + 2 * shape.width * shape.feed_forward
    return shape.n_layers * block + shape.width * prior.codebook_size


def keys_and_values(prior: RasterPrior, steps: float) -> float:
    """Return how many numbers the keys and values of so many steps of one picture are."""
    return 2 * prior.config.transformer.n_layers * prior.config.transformer.width * steps


def floor(prior: RasterPrior, batch: int, peaks: Peaks, precision: str, group: int | None = None) -> Floor:
    """Return the floor of painting `batch` pictures in groups of `group`; by default of the best of 1, 2, 4...batch."""
    if group is None:
        sizes = {min(2**power, batch) for power in range(batch.bit_length() + 1)}
        return min((floor(prior, batch, peaks, precision, size) for size in sorted(sizes)), key=lambda f: f.seconds)
    seen = keys_and_values(prior, (prior.length + 1) / 2)  # at an average step
    operations = 2 * prior.length * (weights(prior) + seen)
    read = BYTES[precision] * prior.length * (weights(prior) / group + seen)
    working_set = BYTES[precision] * (weights(prior) + group * keys_and_values(prior, prior.length))
    bandwidth = peaks.bandwidth(working_set)
    operations_s, reading_s = operations / peaks.operations_per_s[precision], read / bandwidth
    return Floor(
        seconds=max(operations_s, reading_s),
        operations_s=operations_s,
        reading_s=reading_s,
        group=group,
        giga_operations=operations / 1e9,
        gigabytes=read / 1e9,
        working_set_mb=working_set / 1e6,
        bandwidth_gb_per_s=bandwidth / 1e9,
    )
