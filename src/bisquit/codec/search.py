"""The search for better tokens: those of the least squared error and bits together, not merely the nearest ones.

A token's cost is the squared error around it and, times `trade`, its bits under the prior. A sweep takes bits and the
slopes of the error as they are, then goes through the grid in turns, each of cells three apart:

    quadratic model of the error ──> the cheapest code of each cell ──decode──> kept where error and bits really fell

The model's curvature is measured on the picture itself; the error that decides is that of the cell and those next to
it. What a changed token does further away, and to the bits of later ones, is left out until the next sweep. Everything
that decides is a whole number, so that the same tokens come out on every machine and in any batch.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bisquit.engine import EngineTokenizer, IntegerTokenizer
from bisquit.engine.arithmetic import LOG2_E
from bisquit.priors import SequentialPrior
from bisquit.progress import Progress

APART = 3
"""Cells between those that are changed at a time: what each does to its neighbours is told from what others do."""
PROBES_APART = 5
"""Cells between those whose bits are flipped to measure the curvature: responses reach two cells far, by and large."""

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
    curvature, errors = pictures.curvature(tokens), pictures.errors(tokens)
    for sweep in range(sweeps):
        logits = prior.logits(tokens).view(*tokens.shape, -1).cpu().numpy()
        slopes = np.rint(tokenizer.slopes(tokens, frames).cpu().numpy().astype(np.float64))
        for turn in range(APART**2):
            cells = (slice(None), slice(turn // APART, None, APART), slice(turn % APART, None, APART))
            prices = np.rint(logits[cells] * (-LOG2_E * trade[:, None, None, None]))  # but for what all codes share
            before = tokens.cpu().numpy()
            here, tried = before[cells], before.copy()
            best = _cheapest(here, slopes[cells], curvature, prices)
            tried[cells] = best
            gains = _around(errors - pictures.errors(torch.from_numpy(tried)))[cells]
            gains += _at(prices, here) - _at(prices, best)
            tried[cells] = np.where(gains > 0, best, here)
            tokens = torch.from_numpy(tried).to(tokens.device)
            errors = pictures.errors(tokens)
            if progress is not None:
                progress(sweep * APART**2 + turn + 1, sweeps * APART**2)
    return tokens


def _cheapest(tokens: np.ndarray, slopes: np.ndarray, curvature: np.ndarray, prices: np.ndarray) -> np.ndarray:
    """Return for each cell the code, int64 (B, h, w), of the least cost by the quadratic model of the error.

    tokens: int64 (B, h, w). slopes: (B, h, w, bits). curvature: (B, bits, bits). prices: (B, h, w, codebook), what
    codes cost. All are whole numbers small enough for their sums to be exact, however they are made.
    """
    n = slopes.shape[-1]
    signs = _signs(np.arange(2**n), n)
    # (c - t) (slopes + M (c - t)), but for what is alike for all codes c: c (slopes - 2 M t) + c M c
    linear = slopes - 2 * _signs(tokens, n) @ curvature[:, None]
    square = ((signs @ curvature) * signs).sum(axis=2)
    costs = linear @ signs.T
    costs += square[:, None, None]
    costs += prices
    return costs.argmin(axis=3)


def _at(prices: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return what the codes (B, h, w) cost, of prices (B, h, w, codebook)."""
    return np.take_along_axis(prices, codes[..., None], axis=3)[..., 0]


def _signs(codes: np.ndarray, bits: int) -> np.ndarray:
    """Return the bits of codes (...) as -1 and 1, float64 (..., bits)."""
    return (codes[..., None] >> np.arange(bits) & 1) * 2.0 - 1


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

    def _decoded(self, tokens: Tensor) -> np.ndarray:
        size = (self._frames.shape[1], self._frames.shape[2])
        return self._tokenizer.decode(tokens, size).cpu().numpy().astype(np.float64)

    def errors(self, tokens: Tensor) -> np.ndarray:
        """Return the squared error of each patch, whole numbers (B, h, w)."""
        p, (batch, rows, columns) = self._tokenizer.patch_size, tokens.shape
        squares = np.square(self._decoded(tokens) - self._frames).sum(axis=3)
        whole = np.pad(squares, ((0, 0), (0, rows * p - squares.shape[1]), (0, columns * p - squares.shape[2])))
        return whole.reshape(batch, rows, p, columns, p).sum(axis=(2, 4))

    def curvature(self, tokens: Tensor) -> np.ndarray:
        """Return the mean products of what two bits of a cell do to the pixels, whole numbers (B, bits, bits).

        A bit counts as -1 or 1. They are measured at cells so far apart that they hardly meet.
        """
        p, bits, (batch, rows, columns) = self._tokenizer.patch_size, self._tokenizer.bits, tokens.shape
        plain, codes = self._decoded(tokens), tokens.cpu().numpy()
        is_probe = np.zeros((rows, columns), dtype=bool)
        is_probe[np.ix_(_probes(rows), _probes(columns))] = True
        nearest = np.ix_(_nearest_probe(plain.shape[1], rows, p), _nearest_probe(plain.shape[2], columns, p))
        changes = []
        for bit in range(bits):
            flipped = self._decoded(torch.from_numpy(np.where(is_probe, codes ^ (1 << bit), codes)))
            signs = _signs(codes, bits)[:, nearest[0], nearest[1], bit]
            changes.append(((flipped - plain) * signs[..., None]).reshape(batch, -1))
        stacked = np.stack(changes, axis=1)
        return np.rint(stacked @ stacked.transpose(0, 2, 1) / (4 * is_probe.sum()))  # a flip is a step of two


def _probes(cells: int) -> np.ndarray:
    """Return the rows, or columns, of a grid in which curvature is measured."""
    return np.arange(min(PROBES_APART // 2, (cells - 1) // 2), cells, PROBES_APART)


def _nearest_probe(pixels: int, cells: int, patch_size: int) -> np.ndarray:
    """Return the row, or column, of the probe that is nearest to each row, or column, of pixels."""
    probes = _probes(cells)
    index = (np.arange(pixels) // patch_size - probes[0] + PROBES_APART // 2) // PROBES_APART
    return probes[index.clip(0, len(probes) - 1)]
