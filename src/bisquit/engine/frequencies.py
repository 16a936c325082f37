"""Logits to whole numbers, the same on every machine: what a range coder takes for chances.

A model in integers offers `intervals(tokens)`, for who encodes, and `decode(batch, choose)`, for who decodes.
`native/frequencies.hpp` does the same operations in the same order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from bisquit.engine.arithmetic import CHANCE_ONE, LOG2_E, exp2

TOTAL = 2**24
"""What the frequencies of a token's codes sum to; the smallest chance is 1 / TOTAL."""

Choose = Callable[[int, np.ndarray], np.ndarray]
"""Called for each step of some pictures of a batch, with the number of the first and their frequencies, integers (n,
codebook); returns their tokens, int64 (n,). Several threads call it at once, for different pictures; they are not
Python's own, so that context variables and PyTorch's grad mode are not those of the caller."""


def frequencies(logits: Tensor) -> np.ndarray:
    """Turn logits, float32 (..., codebook), into integers, int64, each at least 1, that sum to TOTAL row by row.

    A code's chance is exp2 of its logit below the row's largest, in units of 2**-16, rounded; what is shared out is
    TOTAL less one for each code, rounded down, and what is left of that goes to the first of the likeliest.
    """
    logits = logits.cpu()
    exponents = (logits - logits.amax(dim=-1, keepdim=True)) * LOG2_E
    chances = (exp2(exponents) * CHANCE_ONE).round().numpy().astype(np.int64)
    free = TOTAL - chances.shape[-1]
    shares = chances * free // chances.sum(axis=-1, keepdims=True)
    left = free - shares.sum(axis=-1, keepdims=True)
    likeliest = chances.argmax(axis=-1, keepdims=True)
    np.put_along_axis(shares, likeliest, np.take_along_axis(shares, likeliest, -1) + left, -1)
    return shares + 1


def intervals(logits: Tensor, tokens: Tensor) -> np.ndarray:
    """Return where tokens (...) lie among the frequencies of their logits (..., codebook), int64 (..., 2).

    First what the frequencies of the codes before a token sum to, then its own.
    """
    of_codes, chosen = frequencies(logits), tokens.cpu().numpy()[..., None]
    own = np.take_along_axis(of_codes, chosen, -1)
    return np.concatenate((np.take_along_axis(of_codes.cumsum(axis=-1), chosen, -1) - own, own), axis=-1)
