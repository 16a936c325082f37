"""Entropy coding: tokens to as many bytes as the prior says they are worth, and back, the same on every machine.

    tokens ──prior in integers──> the interval of each among TOTAL ──range coder──> bytes

    bytes ──range coder──> a token ──prior in integers──> frequencies of the next
                  ^                                              │
                  └──────────────────────────────────────────────┘

Frequencies come from `IntegerPrior` or the engine's int8, which agree to the last bit, and whole numbers are all that
the range coder sees. docs/format.md defines it for who would write another.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import constriction
import numpy as np
from torch import Tensor

from bisquit.engine import EnginePrior, IntegerPrior
from bisquit.engine.frequencies import TOTAL
from bisquit.errors import CodecError, ModelError
from bisquit.priors import SequentialPrior
from bisquit.progress import Progress

AT_ONCE = 16
"""Pictures whose intervals are in memory together, and that are encoded between two calls of a progress."""


def encode(prior: SequentialPrior, tokens: Tensor, progress: Progress | None = None) -> list[bytes]:
    """Encode the tokens (B, h, w) of pictures, each on its own.

    progress: called with the pictures done and to do. Raises ModelError for a prior whose logits are not the same on
    every machine, and what `prior.check` does.
    """
    exact = require_exact(prior)
    contents: list[bytes] = []
    for part in tokens.split(AT_ONCE):
        flat = part.flatten(1).cpu().numpy()
        contents += map(encode_intervals, flat, exact.intervals(part), [prior.codebook_size] * len(part))
        if progress is not None:
            progress(len(contents), len(tokens))
    return contents


def decode(prior: SequentialPrior, contents: Sequence[bytes], progress: Progress | None = None) -> Tensor:
    """Return the tokens, int64 (B, h, w), of what `encode` made. Bytes that it did not make give other tokens.

    progress: called, by one thread after another, with the tokens done and to do. Raises ModelError as `encode` does,
    and CodecError for bytes that no encoder makes, where that shows.
    """
    exact = require_exact(prior)
    decoders = [Decoder(content) for content in contents]
    done, lock = 0, threading.Lock()

    def choose(first: int, frequencies: np.ndarray) -> np.ndarray:
        nonlocal done
        of_these = decoders[first : first + len(frequencies)]
        tokens = [decoder.take(row) for decoder, row in zip(of_these, _as_floats(frequencies), strict=True)]
        if progress is not None:
            with lock:
                done += len(tokens)
                progress(done, prior.length * len(decoders))
        return np.array(tokens, dtype=np.int64)

    return exact.decode(len(contents), choose)


def require_exact(prior: SequentialPrior) -> IntegerPrior | EnginePrior:
    """Return the prior if its logits are the same on every machine; raise ModelError if they are not."""
    if isinstance(prior, IntegerPrior) or (isinstance(prior, EnginePrior) and isinstance(prior.prior, IntegerPrior)):
        return prior
    of = prior.prior if isinstance(prior, EnginePrior) else prior
    raise ModelError(f"the codec needs a prior in integers, not a {type(of).__name__}: prepare it in int8")


def encode_intervals(tokens: np.ndarray, intervals: np.ndarray, codebook_size: int) -> bytes:
    """Encode tokens (T,) under their intervals (T, 2), big-endian, in as few bytes as a decoder needs that adds zeros.

    A model of three codes is enough for each, and many times faster than one of all: what lies before the token, the
    token, and what lies after it. Where there is nothing on a side, what is on the other is two codes, for none may be
    without a frequency. A codebook of two is taken as it is.
    """
    before, own = intervals.T
    after = TOTAL - before - own
    if codebook_size == 2:
        chosen = tokens
        parts = np.stack((np.where(tokens == 0, own, before), np.where(tokens == 0, after, own)), axis=1)
    else:
        is_first, is_last = before == 0, after == 0
        chosen = np.where(is_first, 0, np.where(is_last, 2, 1))
        parts = np.stack((before, own, after), axis=1)
        parts[is_first] = np.stack((own, after - 1, np.ones_like(own)), axis=1)[is_first]
        parts[is_last] = np.stack((np.ones_like(own), before - 1, own), axis=1)[is_last]
    encoder = constriction.stream.queue.RangeEncoder()
    encoder.encode(chosen.astype(np.int32), constriction.stream.model.Categorical(perfect=False), _as_floats(parts))
    return _sealed(encoder)


class Decoder:
    """What is left of a picture's content."""

    def __init__(self, content: bytes) -> None:
        words = np.frombuffer(content + bytes(-len(content) % 4 + 8), dtype=">u4")
        self._decoder = constriction.stream.queue.RangeDecoder(words.astype(np.uint32))

    def take(self, frequencies: np.ndarray) -> int:
        """Decode a token under its frequencies, float64 (codebook,). Raises CodecError for bytes of no encoder, if it
        shows.
        """
        model = constriction.stream.model.Categorical(frequencies, perfect=False, lazy=True)
        try:
            return int(self._decoder.decode(model))
        except (AssertionError, ValueError) as error:  # constriction's words for data that no encoder made
            raise CodecError("a picture's content is damaged: no encoder makes such bytes") from error


def _sealed(encoder: constriction.stream.queue.RangeEncoder) -> bytes:
    """Return the shortest bytes that lead a decoder into the encoder's interval.

    constriction ends with whole words of 32 bits; its state tells how many bytes of the last two are needed. Where a
    carry may still change the words before, they are left to constriction.
    """
    whole = encoder.get_compressed().astype(">u4").tobytes()
    written, (lower, width) = encoder.pos()
    if lower > 2**64 - 2**32:
        return whole.rstrip(b"\0")
    for length in range(8):
        unit = 2 ** (64 - 8 * length)
        point = -(-lower // unit) * unit
        if point < min(lower + width, 2**64):  # beyond, a carry would change the words before
            return (whole[: 4 * written] + (point >> (64 - 8 * length)).to_bytes(length)).rstrip(b"\0")
    return whole.rstrip(b"\0")


def _as_floats(frequencies: np.ndarray) -> np.ndarray:
    """Return frequencies (..., codebook) as constriction takes them.

    It gives each code 1 of TOTAL and shares out the rest in proportion, rounding down, so that rows whose rest is TOTAL
    less the number of codes come out as they are; their floats are exact. It takes any memory for contiguous.
    """
    return np.ascontiguousarray((frequencies - 1) * (1.0 / TOTAL))
