"""Entropy coding: tokens to as many bytes as the prior says they are worth, and back, the same on every machine.

    prior in integers ──logits──> frequencies ──range coder──> bytes
                          ^                                      │
                          └────────── tokens so far <────────────┘

Logits come from `IntegerPrior` or the engine's int8, which agree to the last bit. They become integer frequencies by
operations that do (`bisquit.engine.arithmetic`), and integers are all that the range coder sees. docs/format.md defines
it for who would write another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import constriction
import numpy as np
import torch
from torch import Tensor

from bisquit.engine import EnginePrior, IntegerPrior
from bisquit.engine.arithmetic import CHANCE_ONE, LOG2_E, exp2
from bisquit.errors import CodecError, ModelError
from bisquit.priors import SequentialPrior
from bisquit.progress import Progress

TOTAL_BITS = 24
TOTAL = 2**TOTAL_BITS
"""What the frequencies of a token sum to; the smallest chance is 1 / TOTAL."""

Choose = Callable[[int, np.ndarray], np.ndarray]
"""Called with a step and its frequencies, int64 (B, codebook); returns the tokens of that step, int64 (B,)."""


def frequencies(logits: Tensor) -> np.ndarray:
    """Turn logits, float32 (B, codebook), into integers, int64, each at least 1, that sum to TOTAL row by row.

    A token's chance is exp2 of its logit below the row's largest, in units of 2**-16, rounded; what is shared out is
    TOTAL less one for each token, rounded down, and what is left of that goes to the first of the likeliest.
    """
    logits = logits.cpu()
    exponents = (logits - logits.amax(dim=1, keepdim=True)) * LOG2_E
    chances = (exp2(exponents) * CHANCE_ONE).round().numpy().astype(np.int64)
    free = TOTAL - chances.shape[1]
    shares = chances * free // chances.sum(axis=1, keepdims=True)
    shares[np.arange(len(shares)), chances.argmax(axis=1)] += free - shares.sum(axis=1)
    return shares + 1


@torch.no_grad()
def walk(prior: SequentialPrior, batch: int, choose: Choose, progress: Progress | None = None) -> Tensor:
    """Go through `batch` pictures token by token, each chosen by its frequencies; return them, int64 (B, h, w).

    progress: called with the tokens of a picture that are done and to do. Raises ModelError for a prior whose logits
    are not the same on every machine.
    """
    check_exact(prior)
    state, last = prior.start(batch), None
    steps = []
    for step in range(prior.length):
        logits = prior.next_logits(state, last)
        last = torch.from_numpy(choose(step, frequencies(logits))).to(logits.device)
        steps.append(last)
        if progress is not None:
            progress(step + 1, prior.length)
    return torch.stack(steps, dim=1).view(batch, *prior.grid)


def check_exact(prior: SequentialPrior) -> None:
    """Raise ModelError unless a prior's logits are the same on every machine."""
    exact = prior.prior if isinstance(prior, EnginePrior) else prior
    if not isinstance(exact, IntegerPrior):
        raise ModelError(f"the codec needs a prior in integers, not a {type(exact).__name__}: prepare it in int8")


class Encoders:
    """A range encoder for each picture of a batch."""

    def __init__(self, batch: int) -> None:
        self._encoders = [constriction.stream.queue.RangeEncoder() for _ in range(batch)]

    def put(self, tokens: np.ndarray, frequencies_: np.ndarray) -> None:
        """Encode a token of each picture, (B,), under its frequencies (B, codebook)."""
        for encoder, token, model in zip(self._encoders, tokens.tolist(), _models(frequencies_), strict=True):
            encoder.encode(token, model)

    def finish(self) -> list[bytes]:
        """Return what was encoded, big-endian, in as few bytes as a decoder needs that goes on with zeros."""
        return [_sealed(encoder) for encoder in self._encoders]


class Decoders:
    """A range decoder for each picture of a batch."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self._decoders = [_decoder(content) for content in contents]

    def take(self, frequencies_: np.ndarray) -> np.ndarray:
        """Decode a token of each picture, int64 (B,), under its frequencies (B, codebook)."""
        try:
            pairs = zip(self._decoders, _models(frequencies_), strict=True)
            return np.array([decoder.decode(model) for decoder, model in pairs], dtype=np.int64)
        except (AssertionError, ValueError) as error:  # constriction's words for data that no encoder made
            raise CodecError("a picture's content is damaged: no encoder makes such bytes") from error


def encode(prior: SequentialPrior, tokens: Tensor, progress: Progress | None = None) -> list[bytes]:
    """Encode the tokens (B, h, w) of pictures, each on its own. Raises ModelError and what `prior.check` does."""
    prior.check(tokens)
    encoders, flat = Encoders(len(tokens)), tokens.flatten(1).cpu().numpy()

    def given(step: int, of_step: np.ndarray) -> np.ndarray:
        encoders.put(flat[:, step], of_step)
        return flat[:, step]

    walk(prior, len(tokens), given, progress)
    return encoders.finish()


def decode(prior: SequentialPrior, contents: Sequence[bytes], progress: Progress | None = None) -> Tensor:
    """Return the tokens, int64 (B, h, w), of what `encode` made. Bytes that it did not make give other tokens."""
    decoders = Decoders(contents)
    return walk(prior, len(contents), lambda step, of_step: decoders.take(of_step), progress)


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


def _models(frequencies_: np.ndarray) -> list[constriction.stream.model.Categorical]:
    """Return constriction's models of rows of frequencies, which it takes as floats.

    It gives each token 1 of TOTAL and shares out the rest in proportion, rounding down, so that rows whose rest is
    TOTAL less the number of tokens come out as they are; their floats are exact.
    """
    return [constriction.stream.model.Categorical(row, perfect=False) for row in (frequencies_ - 1) * (1.0 / TOTAL)]


def _decoder(content: bytes) -> constriction.stream.queue.RangeDecoder:
    words = np.frombuffer(content + bytes(-len(content) % 4 + 8), dtype=">u4")
    return constriction.stream.queue.RangeDecoder(words.astype(np.uint32))
