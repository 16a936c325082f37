"""How many bytes, how good: what is asked of a compressed picture, and the search for the quality that gives it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np

from bisquit.config import Settings, require

BEST_QUALITY = 100
LARGEST_TRADE = 2.0**14
"""Squared levels of 255 that a bit is worth at quality 0; beyond, bytes hardly fall and the error soars."""
QUALITIES_TO_HALVE = 16
LARGEST_EFFORT = 9
ROUNDS = 7
"""The most times that `furthest` goes through the pictures."""


@dataclass(frozen=True)
class RateConfig(Settings):
    """What is asked of a compressed picture: a quality, or so few bytes, or so little error."""

    quality: int = 50
    """From 0, for the fewest bytes, to 100, for the least error."""
    target_bytes: int | None = None
    """The best quality of at most so many bytes, in place of one for all."""
    target_psnr: float | None = None
    """The fewest bytes of at least so many dB, in place of one quality for all."""
    effort: int = 2
    """Rounds of the search for better tokens; with 0 they are the nearest ones, whatever the quality, and no target can
    be had."""

    def __post_init__(self) -> None:
        require(0 <= self.quality <= BEST_QUALITY, "quality", self.quality, f"between 0 and {BEST_QUALITY}")
        require(0 <= self.effort <= LARGEST_EFFORT, "effort", self.effort, f"between 0 and {LARGEST_EFFORT}")
        is_either = self.target_bytes is None or self.target_psnr is None
        require(is_either, "target_psnr", self.target_psnr, "left out where there is a target_bytes")
        for name, target in (("target_bytes", self.target_bytes), ("target_psnr", self.target_psnr)):
            require(target is None or 0 < target < np.inf, name, target, "above 0")
            require(target is None or self.effort > 0, "effort", self.effort, f"at least 1 where there is a {name}")


def trades(qualities: np.ndarray) -> np.ndarray:
    """Return the squared levels that a bit is worth at qualities (B,): whole numbers, the same on every machine."""
    falling = np.rint(LARGEST_TRADE * 2.0 ** (-qualities / QUALITIES_TO_HALVE))
    return np.where(qualities >= BEST_QUALITY, 0.0, falling)


def most_error(psnr: float, values: int) -> float:
    """Return the largest sum of squared errors, in levels of 255, of so many values that is at least `psnr` dB."""
    return float(np.rint(values * 255.0**2 * 10.0 ** (-psnr / 10)))


@dataclass(frozen=True)
class Try:
    """A picture file, and whether it is what was asked for."""

    data: bytes
    is_good: bool


def furthest(count: int, attempt: Callable[[np.ndarray, np.ndarray], list[Try]]) -> list[Try]:
    """Return for each of `count` pictures the good try furthest along, of steps 0 to 100; that of step 0 if none is.

    attempt: takes pictures and a step for each, int64 arrays. Where a step is good, all before it are taken to be good.
    """
    good, bad = np.full(count, -1), np.full(count, BEST_QUALITY + 1)
    found: list[Try | None] = [None] * count
    while len(pictures := np.flatnonzero(bad - good > 1)):
        steps = (good[pictures] + bad[pictures]) // 2
        for picture, step, tried in zip(pictures, steps, attempt(pictures, steps), strict=True):
            if tried.is_good:
                good[picture] = step
            else:
                bad[picture] = step
            if tried.is_good or step == 0:
                found[picture] = tried
    assert all(found)  # step 0 was tried, or a good one further along
    return cast(list[Try], found)
