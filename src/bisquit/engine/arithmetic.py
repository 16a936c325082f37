"""Arithmetic that gives the same bits on every machine, in any batch, on any number of threads.

Two kinds of operation are allowed. Sums are of integers small enough to be exact, so that their order does not matter:
int8 products, or float32 and float64 holding integers below 2**24 and 2**53. Everything else works on one element at a
time, by single operations that IEEE 754 rounds correctly: + - x / sqrt and rounding to an integer, one after another
and never fused, on float32 unless float64 is named. No sum of floats, no library's exp, tanh or power. Tensors are
divided by tensors alone, since a GPU turns a division by a number into a product.

`native/int8.cpp` and `pictures.cpp` do the same operations in the same order; the tests compare them bit by bit.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

SIGNED_LIMIT = 127
UNSIGNED_LIMIT = 255
SMALLEST_LARGEST = 1e-30  # rows of zeros are divided by this

LOG2_E = 1.4426950408889634  # written out, for libraries of functions may differ
NORMAL_PEAK = 0.3989422804014327  # 1 / sqrt(2 pi)
NORMAL_EXPONENT = -LOG2_E / 2  # the normal distribution's density is 2**(NORMAL_EXPONENT x x) NORMAL_PEAK

# 2**f - 1 on [-1/2, 1/2] is a polynomial in f without its constant: relative error 1e-7 before rounding.
EXP2 = (
    0.6931470036506653,
    0.24022242426872253,
    0.05550733581185341,
    0.009671512991189957,
    0.001326472731307149,
)
LEAST_EXPONENT = -100.0

# erf(x / sqrt(2)) = x P(x x) / Q(x x) for |x| up to 5.2, where it is 1 in float32: error 5e-7, rounding included.
ERF_REACH = 5.2
ERF_P = (
    0.797883510589599609375,
    0.120553880929946899414,
    0.012161314487457275391,
    0.000823595735710114241,
    1.074865213013254106e-05,
    -3.2329118937184350216e-08,
)
ERF_Q = (1.0, 0.31774964928627014160, 0.043216835707426071167, 0.003253384958952665329, 0.000138323783176019788)

STATISTICS_BITS = 19  # layer norm sums squares of integers below 2**19: exact in float64 for up to 2**14 channels
CHANCE_ONE = 65536.0  # softmax sums integers of this scale


class Codes(NamedTuple):
    """Rows as integers and their scales: x is about codes * step."""

    codes: Tensor
    """(..., n) float32 holding integers."""
    step: Tensor
    """(..., 1) float32."""


def to_codes(x: Tensor, limit: int = SIGNED_LIMIT) -> Codes:
    """Round rows x (..., n) to integers, the largest magnitude of each row to `limit`."""
    largest = x.abs().amax(dim=-1, keepdim=True).clamp_min(SMALLEST_LARGEST)
    step = largest * (1 / limit)
    codes = (x * (torch.ones_like(step) / step)).round()
    return Codes(codes.clamp(-limit, limit), step)


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return the matrix product of codes a (..., m, k) and b (..., k, n), summed exactly, rounded once to float32.

    In float32 a sum of 512 products of a magnitude up to 255 x 127 stays below 2**24; sums of more go on in float64.
    """
    k = a.shape[-1]
    with torch.autocast(a.device.type, enabled=False):  # whatever surrounds this must not round the products
        if k <= 512:
            return a @ b
        parts = (a[..., i : i + 512] @ b[..., i : i + 512, :] for i in range(0, k, 512))
        total = next(parts).double()
        for part in parts:
            total += part
        return total.float()


def linear(x: Tensor, weight: Codes, bias: Tensor) -> Tensor:
    """Map rows x (..., k), rounded to codes, by a matrix (n, k) of codes with a step for each of its rows."""
    rows = to_codes(x)
    return product(rows.codes, weight.codes.T) * (rows.step * weight.step[:, 0]) + bias


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
    """Normalise rows x (..., n), as `torch.nn.functional.layer_norm` does up to rounding.

    Mean and deviation are those of x rounded to integers on a grid of a power of two, float64.
    """
    scale = _grid(x.abs().amax(dim=-1, keepdim=True))
    scaled = x * scale
    bound = 2.0**STATISTICS_BITS
    integers = scaled.round().clamp(-bound, bound).double()
    one_by_n = 1.0 / x.shape[-1]
    mean = integers.sum(dim=-1, keepdim=True) * one_by_n
    variance = (integers * integers).sum(dim=-1, keepdim=True) * one_by_n - mean * mean
    floor = scale.double() * scale.double() * epsilon
    deviation = (variance.clamp_min(0) + floor).sqrt()
    inverse = torch.ones_like(deviation) / deviation
    return (scaled - mean.float()) * inverse.float() * weight + bias


def _grid(largest: Tensor) -> Tensor:
    """Return the power of two that takes magnitudes up to `largest`, float32, below 2**STATISTICS_BITS."""
    exponent = ((largest.view(torch.int32) >> 23) & 0xFF).clamp(STATISTICS_BITS + 1, 253)
    return ((STATISTICS_BITS - 1 + 254 - exponent) << 23).view(torch.float32)


def exp2(x: Tensor) -> Tensor:
    """Return 2**x of x <= 0, to a relative error of 3e-7; below 2**-100 it stays there."""
    x = x.clamp_min(LEAST_EXPONENT)
    whole = x.round()
    f = x - whole
    p = torch.full_like(f, EXP2[-1])
    for coefficient in reversed(EXP2[:-1]):
        p = p * f + coefficient
    p = p * f + 1.0
    return p * ((whole.to(torch.int32) + 127) << 23).view(torch.float32)


def gelu(x: Tensor) -> Tensor:
    """Return x times the normal distribution's function of x, to within 2e-6 (3e-7 of |x| where that is more)."""
    return x * 0.5 * (_erf(x.clamp(-ERF_REACH, ERF_REACH)) + 1.0)


def gelu_slope(x: Tensor) -> Tensor:
    """Return the slope of `gelu`, the normal distribution's function plus x times its density, to within 1e-5."""
    z = x.clamp(-ERF_REACH, ERF_REACH)
    return (_erf(z) + 1.0) * 0.5 + x * (exp2(x * x * NORMAL_EXPONENT) * NORMAL_PEAK)


def _erf(z: Tensor) -> Tensor:
    """Return erf(z / sqrt(2)) for |z| up to ERF_REACH."""
    t = z * z
    p, q = torch.full_like(t, ERF_P[-1]), torch.full_like(t, ERF_Q[-1])
    for coefficient in reversed(ERF_P[:-1]):
        p = p * t + coefficient
    for coefficient in reversed(ERF_Q[:-1]):
        q = q * t + coefficient
    return z * p / q


def attention(q: Codes, k: Codes, v: Codes, per_score: float, mask: Tensor | None) -> Tensor:
    """Return the values (..., m, c) that queries (..., m, c) find among n keys and values (..., n, c), all as codes.

    Scores are q k times `per_score`, as exponents of two. mask: (m, n) bool, where a query may look; None: everywhere.
    A query's chances times the steps of the values are rounded to codes up to 255, its chances alone to units of
    1 / CHANCE_ONE, and the sums of both are exact.
    """
    scores = product(q.codes, k.codes.transpose(-1, -2)) * (q.step * per_score * k.step.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    chances = exp2(scores - scores.amax(dim=-1, keepdim=True))
    if mask is not None:
        chances = chances * mask
    weights = to_codes(chances * v.step.transpose(-1, -2), UNSIGNED_LIMIT)
    total = (chances * CHANCE_ONE).round().double().sum(dim=-1, keepdim=True).float()
    return product(weights.codes, v.codes) * (weights.step * CHANCE_ONE / total)
