"""What counting alone can do: the tokens' bits under counts of what followed each pair of left and upper neighbours.

Any prior worth its training time must beat it. A token's probability is taken from what was counted after its left and
upper neighbours, backed off to what came after the left one, then to tokens alone, then to the uniform distribution, by
interpolated Kneser-Ney smoothing (Chen and Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling",
1998, section 2.7): a discount is taken from each count, and what it frees goes to the level below, which counts not how
often a token was seen but in how many distinct contexts of the level above:

    p(t | c) = max(n(c, t) - d, 0) / n(c)  +  d * kinds(c) / n(c) * p(t | c'),      p(t | c) = p(t | c') where n(c) = 0

with n(c) the sum of n(c, t) over t, kinds(c) the number of tokens t with n(c, t) > 0, and c' the context without its
upper, then without its left token. Outside of the grid lies a symbol of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from bisquit.config import require
from bisquit.errors import ShapeError, TokenError

MAX_CODEBOOK_SIZE = 2**18
"""A token and its two neighbours share one int64 key."""

_HELD_OUT_EVERY = 10
_USUAL_DISCOUNT = 0.75
_DISCOUNTS = tuple(step / 20 for step in range(1, 20))  # below 1 and above 0, so that no token's probability is 0
_TUNING_TOKENS = 200_000
_TUNING_ROUNDS = 3
_TOKENS_AT_ONCE = 2_000_000  # bounds the memory of `bits`


@dataclass(frozen=True, eq=False)
class CountModel:
    """Counts of tokens after their left and upper neighbours; made by `fit`, read by `bits`."""

    codebook_size: int
    frames: int
    """The number of frames that it was fitted on."""
    discounts: tuple[float, float, float]
    """What is taken from each count: after no neighbour, after the left, after the left and upper; each in (0, 1)."""
    levels: tuple[_Level, _Level, _Level]
    """The counts after no neighbour, after the left, after the left and upper."""

    @classmethod
    def fit(cls, tokens: np.ndarray, codebook_size: int) -> Self:
        """Count tokens (N, h, w) in [0, codebook_size).

        The discounts are those that give every tenth frame (an even pick of them, if there are many) the fewest bits
        under the counts of the other nine, 0.75 each if there are fewer than ten frames; the counts are then taken anew
        from all frames. Raises ConfigError if the codebook is empty or has more than 2**18 codes, ShapeError if tokens
        are not (N, h, w), and TokenError if one is out of range.
        """
        wanted = f"from 1 to {MAX_CODEBOOK_SIZE}"
        require(1 <= codebook_size <= MAX_CODEBOOK_SIZE, "codebook_size", codebook_size, wanted)
        _check(tokens, codebook_size)
        held_out = np.arange(len(tokens)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
        discounts = (_USUAL_DISCOUNT, _USUAL_DISCOUNT, _USUAL_DISCOUNT)
        if held_out.any():
            levels = _counted(tokens[~held_out], codebook_size)
            thinning = -(-tokens[held_out].size // _TUNING_TOKENS)
            seen = _looked_up(levels, tokens[held_out][::thinning], codebook_size)
            discounts = _best_discounts(seen, codebook_size)
        return cls(codebook_size, len(tokens), discounts, _counted(tokens, codebook_size))

    def bits(self, tokens: np.ndarray) -> np.ndarray:
        """Return the bits of each image of tokens (N, h, w), float64 (N,); raises what `fit` does for unfit tokens."""
        _check(tokens, self.codebook_size)
        images_at_once = max(1, _TOKENS_AT_ONCE // tokens[0].size)
        parts = []
        for start in range(0, len(tokens), images_at_once):
            part = tokens[start : start + images_at_once]
            seen = _looked_up(self.levels, part, self.codebook_size)
            token_bits = -np.log2(_probabilities(seen, self.discounts, self.codebook_size))
            parts.append(token_bits.reshape(len(part), -1).sum(axis=1))
        return np.concatenate(parts)


@dataclass(frozen=True, eq=False)
class _Seen:
    """What was counted for each of some tokens, all float64 (tokens,)."""

    count: np.ndarray
    """n(c, t)."""
    total: np.ndarray
    """n(c)."""
    kinds: np.ndarray
    """kinds(c)."""


@dataclass(frozen=True, eq=False)
class _Level:
    """The counts of one length of context, as sorted int64 keys: context * codebook_size + token."""

    codebook_size: int
    keys: np.ndarray
    counts: np.ndarray
    contexts: np.ndarray
    totals: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray, codebook_size: int) -> Self:
        """Count equal keys."""
        distinct, counts = np.unique(keys, return_counts=True)
        contexts, first = np.unique(distinct // codebook_size, return_index=True)
        kinds = np.diff(np.append(first, len(distinct)))
        return cls(codebook_size, distinct, counts, contexts, np.add.reduceat(counts, first), kinds)

    def look_up(self, keys: np.ndarray) -> _Seen:
        """Return what was counted for each key; zeros where it, or its context, was never seen."""
        key_at, key_found = _find(self.keys, keys)
        context_at, context_found = _find(self.contexts, keys // self.codebook_size)
        return _Seen(
            count=np.where(key_found, self.counts[key_at], 0.0),
            total=np.where(context_found, self.totals[context_at], 0.0),
            kinds=np.where(context_found, self.kinds[context_at], 0.0),
        )


def _find(ordered: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where in `ordered` each wanted value would be, and whether it is there."""
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return at, ordered[at] == wanted


def _keys(tokens: np.ndarray, codebook_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the keys of tokens (N, h, w) after no neighbour, the left, and the upper and left; each int64 (N*h*w,)."""
    own = tokens.astype(np.int64)
    left, upper = np.full_like(own, codebook_size), np.full_like(own, codebook_size)
    left[:, :, 1:] = own[:, :, :-1]
    upper[:, 1:] = own[:, :-1]
    after_left = left * codebook_size + own
    # The upper token leads, so that what is left of the key without it is the key of the level below.
    after_both = upper * _left_keys(codebook_size) + after_left
    return own.ravel(), after_left.ravel(), after_both.ravel()


def _left_keys(codebook_size: int) -> int:
    """The number of keys after a left neighbour: each of the codes or the outside, then a token."""
    return (codebook_size + 1) * codebook_size


def _counted(tokens: np.ndarray, codebook_size: int) -> tuple[_Level, _Level, _Level]:
    """Count tokens (N, h, w) after both neighbours, and below that the distinct contexts of each token."""
    after_both = _Level.of(_keys(tokens, codebook_size)[2], codebook_size)
    after_left = _Level.of(after_both.keys % _left_keys(codebook_size), codebook_size)
    after_none = _Level.of(after_left.keys % codebook_size, codebook_size)
    return after_none, after_left, after_both


def _looked_up(levels: tuple[_Level, _Level, _Level], tokens: np.ndarray, codebook_size: int) -> tuple[_Seen, ...]:
    return tuple(level.look_up(keys) for level, keys in zip(levels, _keys(tokens, codebook_size), strict=True))


def _probabilities(seen: tuple[_Seen, ...], discounts: tuple[float, ...], codebook_size: int) -> np.ndarray:
    """Return p of each token looked up, float64 (tokens,), from the shortest context to the longest."""
    p = np.full(seen[0].count.shape, 1 / codebook_size)
    for level, discount in zip(seen, discounts, strict=True):
        kept = np.maximum(level.count - discount, 0) + discount * level.kinds * p
        p = np.where(level.total > 0, kept / np.maximum(level.total, 1), p)
    return p


def _best_discounts(seen: tuple[_Seen, ...], codebook_size: int) -> tuple[float, float, float]:
    """Descend one discount at a time, the longest context's first, to the fewest bits for what was seen."""

    def fitness(discounts: tuple[float, ...]) -> float:
        return float(np.log2(_probabilities(seen, discounts, codebook_size)).sum())

    best: tuple[float, ...] = (_USUAL_DISCOUNT,) * len(seen)
    for _ in range(_TUNING_ROUNDS):
        for level in reversed(range(len(seen))):
            best = max(((*best[:level], discount, *best[level + 1 :]) for discount in _DISCOUNTS), key=fitness)
    none, left, both = best
    return none, left, both


def _check(tokens: np.ndarray, codebook_size: int) -> None:
    if tokens.ndim != 3 or 0 in tokens.shape:
        raise ShapeError(f"tokens are {tokens.shape}: they must be (N, h, w), none of them 0")
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < codebook_size:
        raise TokenError(f"tokens run from {tokens.min()} to {tokens.max()}: the codebook ends at {codebook_size - 1}")
