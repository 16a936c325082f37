"""The search for better tokens: those of the least squared error and bits together, not merely the nearest ones.

A token's cost is the squared error around it and, times `trade`, its bits under the prior. A sweep takes bits and the
slopes of the error along the channels of what tokens stand for as they are, then goes through the grid in turns, each
of cells three apart:

    quadratic model of the error ──> the cheapest code of each cell ──decode──> kept where error and bits really fell

The model takes each channel by itself; its curvature is measured on the picture. The error that decides is that of the
cell and those next to it: cells three apart share out the whole picture, so that one decoding decides on all of a turn,
and tells what the error is after it. What a changed token does further away, and to the bits of later ones, is left out
until the next sweep. Everything that decides is a whole number of parts of 1, so that the same tokens come out on every
machine and in any batch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bisquit.autoencoder import patch_grid
from bisquit.engine import EngineTokenizer, IntegerTokenizer
from bisquit.engine.arithmetic import LOG2_E
from bisquit.engine.codebooks import Codebook
from bisquit.priors import SequentialPrior
from bisquit.progress import Progress

APART = 3
"""Cells between those that are changed at a time: what each does to its neighbours is told from what others do."""
PROBES_APART = 5
"""Cells between those that are moved along a channel to measure the curvature: responses reach two cells far, by and
large.
"""
PROBES_OF_A_CHANNEL = 4
"""How often each channel is moved along at least, in a picture that has so many probes."""

AnyTokenizer = IntegerTokenizer | EngineTokenizer


@torch.no_grad()
def improve(
    tokenizer: AnyTokenizer,
    prior: SequentialPrior,
    frames: Tensor,
    tokens: Tensor,
    trade: np.ndarray,
    sweeps: int,
    progress: Progress | None = None,
) -> Tensor:
    """Return tokens, int64 (B, h, w), of less cost than those given, by and large.

    frames: uint8 (B, H, W, 3), what they stand for. trade: float64 (B,), squared levels of 255 that a bit is worth in
    each picture. The prior is one whose logits are the same on every machine. progress: called with the turns done and
    to do.
    """
    if sweeps == 0:
        return tokens
    pictures = _Pictures(tokenizer, frames)
    table = vectors_of(tokenizer.codebook)
    exact = Exact.of(table)
    curvature = exact.curvatures(pictures.curvature(tokens))
    for sweep in range(sweeps):
        logits = prior.logits(tokens).view(*tokens.shape, -1).cpu().numpy()
        slopes = exact.slopes(tokenizer.slopes(tokens, frames).cpu().numpy().astype(np.float64))
        errors = pictures.errors(tokens)
        for turn in range(APART**2):
            cells = (slice(None), slice(turn // APART, None, APART), slice(turn % APART, None, APART))
            prices = np.rint(logits[cells] * (-LOG2_E * trade[:, None, None, None]))  # but for what all codes share
            before = tokens.cpu().numpy()
            here, tried = before[cells], before.copy()
            best = _cheapest(here, slopes[cells], curvature, prices, table)
            tried[cells] = best
            errors_tried = pictures.errors(torch.from_numpy(tried))
            gains = _around(errors - errors_tried)[cells] + _at(prices, here) - _at(prices, best)
            tried[cells] = np.where(gains > 0, best, here)
            is_kept = np.zeros_like(errors)
            is_kept[cells] = gains > 0
            errors = np.where(_around(is_kept) > 0, errors_tried, errors)
            tokens = torch.from_numpy(tried).to(tokens.device)
            if progress is not None:
                progress(sweep * APART**2 + turn + 1, sweeps * APART**2)
    return tokens


def vectors_of(codebook: Codebook) -> np.ndarray:
    """Return what all of a codebook's codes stand for, whole numbers (codebook, channels), float64."""
    return codebook.vectors(torch.arange(2**codebook.bits)).cpu().numpy().astype(np.float64)


class Exact(NamedTuple):
    """How slopes and curvatures are rounded, and how large they can be, for their sums to be exact in any order.

    Those of whole numbers that codes stand for, up to `top` in each of `channels`: then all sums of `_cheapest`, in
    parts of 1, are whole numbers of at most channels top (slope + 2 top curvature) parts = 2**52.
    """

    parts: float
    """Of 1, of which all are multiples: about top**2, so that what is rounded off decides nothing; 1 for signs."""
    largest_slope: float
    largest_curvature: float

    @classmethod
    def of(cls, table: np.ndarray) -> Exact:
        """Return those for what all codes stand for, (codebook, channels)."""
        top, channels = int(np.abs(table).max(initial=1)), table.shape[1]
        parts = 2 ** (top**2 - 1).bit_length()
        return cls(parts, 2**51 // (channels * top * parts), 2**50 // (channels * top**2 * parts))

    def slopes(self, slopes: np.ndarray) -> np.ndarray:
        """Round slopes of the error."""
        return self._rounded(slopes, self.largest_slope)

    def curvatures(self, curvatures: np.ndarray) -> np.ndarray:
        """Round curvatures of the error."""
        return self._rounded(curvatures, self.largest_curvature)

    def _rounded(self, values: np.ndarray, largest: float) -> np.ndarray:
        return (np.rint(values * self.parts) / self.parts).clip(-largest, largest)


def _cheapest(
    tokens: np.ndarray, slopes: np.ndarray, curvature: np.ndarray, prices: np.ndarray, table: np.ndarray
) -> np.ndarray:
    """Return for each cell the code, int64 (B, h, w), of the least cost by the quadratic model of the error.

    tokens: int64 (B, h, w). slopes: (B, h, w, channels). curvature: (B, channels). prices: (B, h, w, codebook), what
    codes cost. table: (codebook, channels), what they stand for. The sums are exact, however they are made: `Exact`.
    """
    # (c - t) slopes + (c - t)^2 curvature, but for what is alike for all codes c
    linear = slopes - 2 * table[tokens] * curvature[:, None, None]
    squares = curvature @ np.square(table).T  # (B, codebook)
    return (linear @ table.T + (prices + squares[:, None, None])).argmin(axis=3)


def _at(prices: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return what the codes (B, h, w) cost, of prices (B, h, w, codebook)."""
    return np.take_along_axis(prices, codes[..., None], axis=3)[..., 0]


def _around(errors: np.ndarray) -> np.ndarray:
    """Return the sums over each cell of (B, h, w) and those next to it."""
    height, width = errors.shape[1:]
    wide = np.pad(errors, ((0, 0), (1, 1), (1, 1)))
    return np.sum([wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], axis=0)


class _Pictures:
    """Frames, and how far from them tokens are."""

    def __init__(self, tokenizer: AnyTokenizer, frames: Tensor) -> None:
        self._tokenizer = tokenizer
        self._frames = frames.cpu().numpy().astype(np.float64)

    def _decoded(self, vectors: Tensor) -> np.ndarray:
        size = (self._frames.shape[1], self._frames.shape[2])
        return self._tokenizer.decode_vectors(vectors, size).cpu().numpy().astype(np.float64)

    def errors(self, tokens: Tensor) -> np.ndarray:
        """Return the squared error of each patch, whole numbers (B, h, w)."""
        return self._patches(np.square(self._decoded(self._tokenizer.codebook.vectors(tokens)) - self._frames))

    def _patches(self, values: np.ndarray) -> np.ndarray:
        """Return the sums over each patch of (B, H, W, 3), as (B, h, w)."""
        p = self._tokenizer.patch_size
        rows, columns = patch_grid(values.shape[1], values.shape[2], p)
        whole = np.pad(
            values.sum(axis=3), ((0, 0), (0, rows * p - values.shape[1]), (0, columns * p - values.shape[2]))
        )
        return whole.reshape(-1, rows, p, columns, p).sum(axis=(2, 4))

    def curvature(self, tokens: Tensor) -> np.ndarray:
        """Return the mean squares of what a step along each channel of a cell does to the pixels, (B, channels).

        They are measured at cells so far apart that they hardly meet, along a channel at each, in as few decodings as
        give every channel its probes: each as far as codes lie apart there, towards zero and beyond, so that a sign
        becomes the other.
        """
        codebook, (rows, columns) = self._tokenizer.codebook, tokens.shape[1:]
        spread = codebook.spread.cpu().numpy()
        channels, down, right = len(spread), _probes(rows)[:, None], _probes(columns)
        vectors = codebook.vectors(tokens).cpu()
        plain, steps = self._decoded(vectors), vectors.numpy().astype(np.int64)
        around = _nearest_probe(rows)[:, None] * len(right) + _nearest_probe(columns)  # the number of a cell's
        count = len(down) * len(right)
        rounds = min(-(-PROBES_OF_A_CHANNEL * channels // count), channels)
        squares, moves = np.zeros((len(tokens), channels)), np.zeros(channels)
        for round_ in range(rounds):
            channel = (np.arange(count) + round_ * channels // rounds) % channels
            along = channel.reshape(len(down), -1)
            at, moved = (np.arange(len(tokens))[:, None, None], down, right, along), steps.copy()
            moved[at] -= np.where(moved[at] < 0, -1, 1) * spread[along]
            changes = self._patches(np.square(self._decoded(torch.from_numpy(moved.astype(np.int8))) - plain))
            for of in range(channels):
                squares[:, of] += changes[:, channel[around] == of].sum(axis=1)
            moves += np.bincount(channel, minlength=channels)
        return squares / (np.square(spread) * moves)


def _probes(cells: int) -> np.ndarray:
    """Return the rows, or columns, of a grid in which curvature is measured."""
    return np.arange(min(PROBES_APART // 2, (cells - 1) // 2), cells, PROBES_APART)


def _nearest_probe(cells: int) -> np.ndarray:
    """Return for each row, or column, of a grid which of the probes' is nearest."""
    probes = _probes(cells)
    return ((np.arange(cells) - probes[0] + PROBES_APART // 2) // PROBES_APART).clip(0, len(probes) - 1)
