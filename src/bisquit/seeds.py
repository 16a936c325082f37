"""Seeds from seeds: every random draw has one of its own, made from what it is for, never from what was drawn before.

So step k of a run draws the same whether the run was resumed or not, and picture i of a seed is the same in any batch.
PyTorch's generator on a CPU hears the low 32 bits of a seed alone: among n draws some n**2 / 2**33 pairs are the same,
one among a hundred thousand.
"""

from __future__ import annotations

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed in [0, 2**63) for one purpose, such as ("order", epoch); other purposes give unrelated seeds."""
    parts = [part if isinstance(part, str) else int(part) for part in (seed, *purpose)]  # NumPy's numbers too
    digest = hashlib.sha256(repr(tuple(parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
