"""How well tokens use their bits: dead codes, constant bits, bits that repeat one another, and what to change.

All figures are of the hard tokens, as they are stored and modelled, and not of a soft relaxation as in a training loss.
Entropies are those of the observed shares, which fall short of the true ones while there are few tokens for each code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bisquit.config import require
from bisquit.errors import ShapeError, TokenError

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_BITS = 32
LISTED_CODES = 16
LISTED_PAIRS = 5

# What is worth a word of advice.
_FEW_TOKENS_PER_CODE = 10
_LOW_USAGE_SHARE = 0.9
_LOW_BIT_ENTROPY_BITS = 0.5  # a bit that is 1 in less than 11% or more than 89% of the tokens
_HIGH_CORRELATION = 0.5
_LOW_JOINT_ENTROPY_SHARE = 0.75

_SPREAD = "raise the weight of the codebook's entropy (BSQ and LFQ have one)"

_CODES_AT_ONCE = 65_536


class BitPair(NamedTuple):
    """Two bits of the token and how they go together."""

    first: int
    second: int
    correlation: float


@dataclass(frozen=True, eq=False)
class CodebookHealth:
    """How tokens of `bits` bits use them. Bit 0 is the least significant."""

    bits: int
    tokens: int
    """How many tokens were looked at."""
    images: int
    codes: int
    """2**bits."""
    codes_used: int
    usage_share: float
    """codes_used / codes."""
    dead_codes: int
    """How many codes no token has."""
    listed_dead_codes: tuple[int, ...]
    """The smallest of them, at most 16."""
    joint_entropy_bits: float
    """Entropy of the tokens, of `bits` possible."""
    perplexity: float
    """2**joint_entropy_bits: as many codes used evenly would have that entropy."""
    shared_bits: float
    """What the bits of a token tell of one another: the sum of the bits' entropies less the joint entropy."""
    bit_means: np.ndarray
    """float64 (bits,): the share of tokens in which each bit is 1."""
    bit_entropies_bits: np.ndarray
    """float64 (bits,)."""
    constant_bits: tuple[int, ...]
    """Bits that are the same in all tokens."""
    constant_positions: tuple[tuple[int, int], ...]
    """Grid cells (row, column) that hold the same token in all images; () for a single image."""
    bit_correlation: np.ndarray
    """float64 (bits, bits): Pearson's; a constant bit has 0 with the others."""
    strongest_pairs: tuple[BitPair, ...]
    """The pairs furthest from 0, at most 5, the strongest first."""

    @property
    def advice(self) -> tuple[str, ...]:
        """What to change, each with the figure that asks for it; () where nothing does."""
        return tuple(advice for judge in _JUDGES if (advice := judge(self)) is not None)


def codebook_health(tokens: np.ndarray | Tensor, bits: int) -> CodebookHealth:
    """Look at tokens (N, h, w) in [0, 2**bits), of any integer type.

    The memory needed grows with the tokens, never with 2**bits. Raises ConfigError if bits are not 1 to 32, ShapeError
    if tokens are not integers of shape (N, h, w), and TokenError if one is out of range.
    """
    require(1 <= bits <= LARGEST_BITS, "bits", bits, f"from 1 to {LARGEST_BITS}")
    grids = tokens if isinstance(tokens, np.ndarray) else tokens.cpu().numpy()
    _check(grids, bits)
    used, counts = np.unique(grids, return_counts=True)
    used = used.astype(np.int64)
    codes = 2**bits
    joint_entropy_bits = float(_entropy_bits(counts / counts.sum()))
    bit_means, correlation = _bit_statistics(used, counts, bits)
    bit_entropies_bits = _entropy_bits(np.stack((bit_means, 1 - bit_means)))
    return CodebookHealth(
        bits=bits,
        tokens=grids.size,
        images=len(grids),
        codes=codes,
        codes_used=len(used),
        usage_share=len(used) / codes,
        dead_codes=codes - len(used),
        listed_dead_codes=_smallest_missing(used, codes),
        joint_entropy_bits=joint_entropy_bits,
        perplexity=2**joint_entropy_bits,
        shared_bits=max(0.0, float(bit_entropies_bits.sum()) - joint_entropy_bits),
        bit_means=bit_means,
        bit_entropies_bits=bit_entropies_bits,
        constant_bits=tuple(np.flatnonzero((bit_means == 0) | (bit_means == 1)).tolist()),
        constant_positions=_constant_positions(grids),
        bit_correlation=correlation,
        strongest_pairs=_strongest_pairs(correlation),
    )


def _check(tokens: np.ndarray, bits: int) -> None:
    if tokens.ndim != 3 or 0 in tokens.shape or tokens.dtype.kind not in "iu":
        raise ShapeError(f"tokens are {tokens.dtype} {tokens.shape}: they must be integers (N, h, w), none of them 0")
    lowest, highest = int(tokens.min()), int(tokens.max())
    if not 0 <= lowest <= highest < 2**bits:
        raise TokenError(f"tokens run from {lowest} to {highest}: {bits} bits hold 0 to {2**bits - 1}")


def _entropy_bits(shares: np.ndarray) -> np.ndarray:
    """Return the entropy of shares that sum to 1 along the first axis."""
    return -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=0) + 0.0  # + 0.0: no negative zero


def _smallest_missing(used: np.ndarray, codes: int) -> tuple[int, ...]:
    first_codes = np.arange(min(codes, len(used) + LISTED_CODES))  # enough: at most len(used) of them are not missing
    return tuple(np.setdiff1d(first_codes, used)[:LISTED_CODES].tolist())


def _bit_statistics(used: np.ndarray, counts: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of each bit (bits,) and the bits' correlation (bits, bits), from how often each code occurs."""
    both_ones = np.zeros((bits, bits))  # whole numbers, exact in float64 up to 2**53
    for start in range(0, len(used), _CODES_AT_ONCE):
        part = slice(start, start + _CODES_AT_ONCE)
        ones = (used[part, None] >> np.arange(bits) & 1).astype(np.float64)  # (codes, bits)
        both_ones += (ones * counts[part, None]).T @ ones
    total = int(counts.sum())
    means = np.diag(both_ones) / total
    covariance = both_ones / total - np.outer(means, means)
    deviation = np.sqrt(means * (1 - means))
    scale = np.outer(deviation, deviation)
    correlation = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    np.fill_diagonal(correlation, 1.0)
    return means, correlation.clip(-1, 1)


def _constant_positions(tokens: np.ndarray) -> tuple[tuple[int, int], ...]:
    if len(tokens) == 1:
        return ()
    return tuple((int(row), int(column)) for row, column in np.argwhere((tokens == tokens[0]).all(axis=0)))


def _strongest_pairs(correlation: np.ndarray) -> tuple[BitPair, ...]:
    first, second = np.triu_indices(len(correlation), k=1)
    values = correlation[first, second]
    order = np.argsort(-np.abs(values), kind="stable")[:LISTED_PAIRS]
    return tuple(BitPair(int(first[at]), int(second[at]), float(values[at])) for at in order)


def _too_few_tokens(health: CodebookHealth) -> str | None:
    per_code = health.tokens / health.codes
    if per_code >= _FEW_TOKENS_PER_CODE:
        return None
    return (
        f"{health.tokens:,} tokens are {per_code:.2g} for each of {health.codes:,} codes, too few to judge dead codes "
        f"and joint entropy: measure at least {_FEW_TOKENS_PER_CODE} a code, or go by the single bits"
    )


def _dead_codes(health: CodebookHealth) -> str | None:
    if _too_few_tokens(health) or health.usage_share >= _LOW_USAGE_SHARE:
        return None
    return (
        f"{health.dead_codes:,} of {health.codes:,} codes are dead ({1 - health.usage_share:.0%}): train longer, "
        f"{_SPREAD}, or use fewer bits"
    )


def _constant_bits(health: CodebookHealth) -> str | None:
    if not health.constant_bits:
        return None
    values = ", ".join(f"bit {bit} is always {health.bit_means[bit]:.0f}" for bit in health.constant_bits)
    fewer = max(1, health.bits - len(health.constant_bits))
    return f"{values}: use {fewer} bits instead of {health.bits}, or {_SPREAD}"


def _lopsided_bits(health: CodebookHealth) -> str | None:
    lopsided = [
        bit
        for bit in np.flatnonzero(health.bit_entropies_bits < _LOW_BIT_ENTROPY_BITS).tolist()
        if bit not in health.constant_bits
    ]
    if not lopsided:
        return None
    values = ", ".join(
        f"bit {bit} is 1 in {health.bit_means[bit]:.1%} of tokens and tells {health.bit_entropies_bits[bit]:.2f} bits"
        for bit in lopsided
    )
    return f"{values}: {_SPREAD}, or use fewer bits"


def _correlated_bits(health: CodebookHealth) -> str | None:
    pairs = [pair for pair in health.strongest_pairs if abs(pair.correlation) >= _HIGH_CORRELATION]
    if not pairs:
        return None
    values = ", ".join(f"bits {pair.first} and {pair.second} correlate by {pair.correlation:.2f}" for pair in pairs)
    return f"{values}: {_SPREAD}, with each pair in one group, or use fewer bits"


def _low_joint_entropy(health: CodebookHealth) -> str | None:
    if _too_few_tokens(health) or health.joint_entropy_bits >= _LOW_JOINT_ENTROPY_SHARE * health.bits:
        return None
    return (
        f"the tokens tell {health.joint_entropy_bits:.2f} of {health.bits} bits, as {health.perplexity:,.0f} evenly "
        f"used codes would: use fewer bits, or {_SPREAD}"
    )


def _constant_cells(health: CodebookHealth) -> str | None:
    if not health.constant_positions:
        return None
    row, column = health.constant_positions[0]
    cells = health.tokens // health.images
    return (
        f"{len(health.constant_positions)} of {cells} grid cells hold the same token in all {health.images:,} images "
        f"(first: row {row}, column {column}): crop what never changes, or give the prior positions"
    )


_JUDGES = (
    _too_few_tokens,
    _dead_codes,
    _constant_bits,
    _lopsided_bits,
    _correlated_bits,
    _low_joint_entropy,
    _constant_cells,
)
