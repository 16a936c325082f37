"""Tokens and what they stand for in whole numbers: vectors of int8, in steps of one size for a whole codebook.

what `down` gives (B, h, w, channels) ──tokens_of──> tokens (B, h, w) ──vectors──> int8 (B, h, w, channels) ──x step──>
what `up` takes

As everything in integers, they are the same on every machine: `bisquit.engine.arithmetic`.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.engine.arithmetic import SIGNED_LIMIT, to_codes
from bisquit.errors import ModelError
from bisquit.quantizers import FSQ, VQ, Quantizer
from bisquit.quantizers.bits import SignsQuantizer, check_tokens

MOST_DISTANCES = 2**18
"""Held at a time, of so many places as that allows to all vectors: 2 MB, which a processor has near."""
MOST_STEPS = 2.0**12
"""What lies further out is taken to lie here; vectors have at most 127 steps."""
MOST_LEVELS = 128
"""Of a channel: of more, some would be the same in int8."""
BORDER_UNITS = 2**16
"""Borders between levels are multiples of one of so many parts of 1, far enough from half-way for any libm to agree."""


class Codebook(nn.Module, ABC):
    """What a quantizer's tokens stand for, as vectors of whole numbers."""

    bits: int
    """Of a token."""
    step: float
    """The size of a step of the vectors, in units of what `up` takes."""
    spread: Tensor
    """(channels,) int64, how many steps vectors lie apart in each channel, by and large; at least 1."""

    def __init__(self, bits: int, step: float, spread: Sequence[int]) -> None:
        super().__init__()
        self.bits, self.step = bits, step
        self.register_buffer("spread", torch.tensor(spread).clamp_min(1), persistent=False)

    @abstractmethod
    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens, int64 (B, h, w), of what `down` makes of latents, float32 (B, h, w, channels)."""

    @abstractmethod
    def vectors(self, tokens: Tensor) -> Tensor:
        """Return the vectors, int8 (..., channels), of tokens, int64 (...), where the codebook is.

        Raises TokenError if a token is not in [0, 2**bits).
        """


class LevelsCodebook(Codebook):
    """A level for each channel: tokens of FSQ, and signs, of BSQ and LFQ, which are levels too, of two a channel.

    A level is known by its number, its digit; digits are packed as `bisquit.quantizers.fsq` says.
    """

    borders: Tensor
    """(channels, most levels - 1) float32, where each level but the first begins; infinite beyond the last."""
    values: Tensor
    """(channels, most levels) int8."""
    places: Tensor
    """(channels,) int64, the lowest bit of each channel's digit."""
    masks: Tensor
    """(channels,) int64, the largest digit of each channel."""

    def __init__(self, borders: Sequence[Sequence[float]], values: Sequence[Sequence[int]], step: float) -> None:
        """borders, values: of each channel, of levels whose numbers are powers of two."""
        counts = [len(of_channel) for of_channel in values]
        widths = [count.bit_length() - 1 for count in counts]
        spread = [round((of[-1] - of[0]) / (len(of) - 1)) for of in values]
        super().__init__(sum(widths), step, spread)
        padded = torch.full((len(counts), max(counts) - 1), math.inf, dtype=torch.float32)
        table = torch.zeros((len(counts), max(counts)), dtype=torch.int8)
        for channel, (starts, of) in enumerate(zip(borders, values, strict=True)):
            padded[channel, : len(starts)] = torch.tensor(starts, dtype=torch.float32)
            table[channel, : len(of)] = torch.tensor(of)
        self.register_buffer("borders", padded, persistent=False)
        self.register_buffer("values", table, persistent=False)
        places = [0, *itertools.accumulate(widths[:-1])]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("masks", torch.tensor(counts) - 1, persistent=False)

    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens, int64 (B, h, w), of z (B, h, w, channels): a level's border is the level's own."""
        channels = projected.flatten(0, 2).T.contiguous()
        beyond = torch.searchsorted(self.borders, channels, right=True)
        digits = torch.minimum(beyond, self.masks[:, None])  # what is infinite, or no number, is the last
        return (digits << self.places[:, None]).sum(dim=0).view(projected.shape[:3])

    def vectors(self, tokens: Tensor) -> Tensor:
        """Return the levels, int8 (..., channels). Raises TokenError if a token is not in [0, 2**bits)."""
        check_tokens(tokens, self.bits)
        digits = tokens.to(self.places.device)[..., None] >> self.places & self.masks
        return self.values[torch.arange(len(self.values), device=digits.device), digits]


class VectorsCodebook(Codebook):
    """A vector for each token, the nearest one: tokens of VQ."""

    table: Tensor
    """(2**bits, channels) int8."""
    norms: Tensor
    """(2**bits,) float64 holding integers, the squared lengths of the vectors."""

    def __init__(self, codebook: Tensor) -> None:
        """codebook: float (2**bits, channels)."""
        rounded = to_codes(codebook.detach().float().flatten())
        table = rounded.codes.view_as(codebook)
        mean_squares = table.double().square().sum(dim=0).long() // len(table)
        super().__init__(len(table).bit_length() - 1, rounded.step.item(), list(map(math.isqrt, mean_squares.tolist())))
        self.register_buffer("table", table.to(torch.int8), persistent=False)
        self.register_buffer("norms", table.double().square().sum(dim=1), persistent=False)

    def tokens_of(self, projected: Tensor) -> Tensor:
        """Return the tokens, int64 (B, h, w), of v (B, h, w, channels), rounded to steps: the first of equals."""
        step = torch.full_like(projected[..., :1], self.step)
        steps = (projected.nan_to_num() * (torch.ones_like(step) / step)).round().clamp(-MOST_STEPS, MOST_STEPS)
        places, codes = steps.double().flatten(0, 2), len(self.table)
        # A whole number tells of the distance, but for what all codes share, and below it of the code: exact, and below
        # 2**53, for codes that have at most 2**32 numbers together.
        along = self.table.double().T * (-2 * codes)
        nothing = self.norms * codes + torch.arange(codes, device=places.device)
        parts = places.split(max(1, MOST_DISTANCES // codes))
        least = torch.cat([torch.addmm(nothing, part, along).amin(dim=1) for part in parts])
        return least.long().remainder(codes).view(projected.shape[:3])

    def vectors(self, tokens: Tensor) -> Tensor:
        """Return the rows of the table, int8 (..., channels). Raises TokenError if a token is not in [0, 2**bits)."""
        check_tokens(tokens, self.bits)
        return F.embedding(tokens.to(self.table.device), self.table)


def codebook_of(quantizer: Quantizer) -> Codebook:
    """Return what a quantizer's tokens stand for, in whole numbers, where the quantizer is.

    Signs are exact. Levels are rounded to 127ths, vectors to 127ths of the largest number in any: one that is far out
    is dear to all others. Raises ModelError if tokens are not of a place each, or their levels too many to be told
    apart.
    """
    return _codebook_of(quantizer).to(quantizer.down.weight.device)


def _codebook_of(quantizer: Quantizer) -> Codebook:
    if isinstance(quantizer, SignsQuantizer):
        return LevelsCodebook([[0.0]] * quantizer.bits, [[-1, 1]] * quantizer.bits, quantizer.corner)
    if isinstance(quantizer, FSQ):
        counts = quantizer.config.levels
        if max(counts) > MOST_LEVELS:
            raise ModelError(f"a channel has {max(counts)} levels: in integers it can have {MOST_LEVELS} at most")
        return LevelsCodebook([_borders(n) for n in counts], [_values(n) for n in counts], 1 / SIGNED_LIMIT)
    if isinstance(quantizer, VQ):
        return VectorsCodebook(quantizer.codebook)
    raise ModelError(
        f"the tokenizer's quantizer is {type(quantizer).__name__}: only tokens that stand for a place each, those of "
        "BSQ, LFQ, FSQ and VQ, can be computed in integers, and so compressed"
    )


def _borders(levels: int) -> list[float]:
    """Return where z lies, whose tanh is half-way between two of so many levels."""
    middles = [(2 * digit - levels) / (levels - 1) for digit in range(1, levels)]
    return [round(math.atanh(y) * BORDER_UNITS) / BORDER_UNITS for y in middles]


def _values(levels: int) -> list[int]:
    """Return so many levels from -1 to 1, in 127ths."""
    return [round((2 * digit - (levels - 1)) * SIGNED_LIMIT / (levels - 1)) for digit in range(levels)]
