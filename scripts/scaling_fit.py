"""A law of loss by parameters and tokens, fitted to runs; where it is least for a budget; and how sure all that is.

    L(N, D) = E + A / N^a + B / D^b        Hoffmann et al. 2022, arXiv:2203.15556, approach 3

The constants minimise the Huber loss of log L's residuals, as there. They are found from many starts at once, not by
L-BFGS but by damped Gauss-Newton steps with Huber's weights: the problem has five unknowns, so that a step for each of
thousands of starts and draws is one batched solve. Exponents are kept within bounds, for a few runs alone would also
allow one that falls for ever by nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from itertools import product
from typing import NamedTuple

import numpy as np

HUBER_DELTA = 1e-3
EXPONENTS = (0.05, 2.0)
LEAST_RUNS, LEAST_VALUES = 7, 3
"""How many runs a fit needs, and of how many sizes and how many lengths; it has five constants."""
ROUNDS = 120
DRAWS = 400


class Runs(NamedTuple):
    """What a law is fitted to, each an array of a value for each run."""

    parameters: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray

    def is_enough(self, count: np.ndarray | int = 1) -> bool:
        """Whether runs, each taken `count` times, tell of both ways to grow."""
        taken = np.broadcast_to(count, self.loss.shape) > 0
        kinds = [len(np.unique(values[taken])) for values in (self.parameters, self.tokens)]
        return int(np.sum(count * np.ones_like(self.loss))) >= LEAST_RUNS and min(kinds) >= LEAST_VALUES


@dataclass(frozen=True, eq=False)
class Law:
    """The constants of a law, or of many: scalars, or arrays of one shape."""

    e: np.ndarray
    a: np.ndarray
    b: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray

    def loss(self, parameters: np.ndarray | float, tokens: np.ndarray | float) -> np.ndarray:
        """Return what the law forecasts; arguments and constants broadcast."""
        return self.e + self.a * np.power(parameters, -self.alpha) + self.b * np.power(tokens, -self.beta)


class Fit(NamedTuple):
    """A law, and those that other draws of the same runs would have given."""

    law: Law
    draws: Law
    residual: float
    """Root mean square of the residuals of log loss."""


@dataclass(frozen=True)
class Family:
    """How the products of a token grow with the parameters: P = N + p N^q, of which the power is attention's."""

    p: float
    q: float

    @classmethod
    def through(cls, parameters: Sequence[int], products: Sequence[int]) -> Family:
        """Fit the power to sizes, at least two, by least squares in logarithms."""
        n = np.log(np.array(parameters, dtype=float))
        q, log_p = np.polyfit(n, np.log(np.array(products, dtype=float) - np.exp(n)), 1)
        return cls(float(np.exp(log_p)), float(q))

    def products(self, parameters: np.ndarray) -> np.ndarray:
        """Return P."""
        return parameters + self.p * parameters**self.q

    def elasticity(self, parameters: np.ndarray) -> np.ndarray:
        """Return d log P / d log N."""
        return (parameters + self.q * self.p * parameters**self.q) / self.products(parameters)


class Optimum(NamedTuple):
    """The least loss for a budget, and where it is."""

    parameters: np.ndarray
    tokens: np.ndarray
    loss: np.ndarray


def fit(runs: Runs, draws: int = DRAWS, seed: int = 0) -> Fit | None:
    """Fit the law, and `draws` others to as many runs drawn with replacement. None if there are too few.

    Draws of fewer than three sizes or lengths, which leave an exponent open, are drawn anew.
    """
    if not runs.is_enough():
        return None
    n, d = np.log(runs.parameters.astype(float)), np.log(runs.tokens.astype(float))
    centre = float(n.mean()), float(d.mean())
    points = np.stack((n - centre[0], d - centre[1], np.log(runs.loss)))
    found = _descend(_starts(points, (0.15, 0.4, 1.0), (0.2, 0.6, 0.9)), points, np.ones((1, len(n))))
    counts = np.array(list(_counts(runs, draws, np.random.default_rng(seed))))
    starts = np.concatenate((found, _starts(points, (0.2, 0.7), (0.4, 0.8))))
    redrawn = _descend(np.tile(starts, (len(counts), 1)), points, counts, len(starts))
    law = _law(found, centre)
    best = Law(*(value[0] for value in astuple(law)))
    residual = np.log(best.loss(runs.parameters.astype(float), runs.tokens.astype(float)) / runs.loss)
    return Fit(best, _law(redrawn, centre), float(np.sqrt(np.mean(residual**2))))


def _counts(runs: Runs, draws: int, generator: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield how often each run is in a draw."""
    size, drawn = len(runs.loss), 0
    while drawn < draws:
        count = np.bincount(generator.integers(0, size, size), minlength=size).astype(float)
        if runs.is_enough(count):
            drawn += 1
            yield count


def _starts(points: np.ndarray, exponents: Sequence[float], shares: Sequence[float]) -> np.ndarray:
    """Return starts (S, 5): log E, log A and log B at the centre of the runs, log alpha, log beta."""
    losses = np.exp(points[2])
    rows = []
    for alpha, beta, share in product(exponents, exponents, shares):
        e = share * losses.min()
        half = np.log((losses.mean() - e) / 2)
        rows.append((np.log(e), half, half, np.log(alpha), np.log(beta)))
    return np.array(rows)


def _descend(theta: np.ndarray, points: np.ndarray, counts: np.ndarray, starts: int | None = None) -> np.ndarray:
    """Return the best end, (problems, 5), of `starts` starts of each problem; theta: (problems starts, 5).

    points: log N and log D from their centre and log L, (3, n). counts: how often each problem has each run,
    (problems, n). A step is kept if it lowers the loss, and damped less or more as it was or was not.
    """
    counts = np.repeat(counts, starts or len(theta), axis=0)
    lowest, highest = np.full(5, -40.0), np.full(5, 40.0)
    lowest[3:], highest[3:] = np.log(EXPONENTS)
    residual, slopes = _residuals(theta, points)
    value, damping = _huber(residual, counts), np.full(len(theta), 0.01)
    for _ in range(ROUNDS):
        weights = counts * np.minimum(1.0, HUBER_DELTA / np.maximum(np.abs(residual), 1e-300))
        weighted = slopes * weights[:, None]  # (S, 5, n)
        square = weighted @ slopes.swapaxes(1, 2)
        diagonal = np.einsum("sii->si", square)  # a view
        diagonal += damping[:, None] * (diagonal + 1e-12) + 1e-15
        step = np.linalg.solve(square, weighted @ residual[:, :, None])[:, :, 0]
        trial = np.clip(theta - step, lowest, highest)
        tried, tried_slopes = _residuals(trial, points)
        tried_value = _huber(tried, counts)
        is_better = tried_value < value
        theta, residual = np.where(is_better[:, None], trial, theta), np.where(is_better[:, None], tried, residual)
        slopes, value = (
            np.where(is_better[:, None, None], tried_slopes, slopes),
            np.where(is_better, tried_value, value),
        )
        damping = np.clip(np.where(is_better, damping / 4, damping * 3), 1e-9, 1e9)
    ends, values = theta.reshape(-1, starts or len(theta), 5), value.reshape(-1, starts or len(theta))
    return ends[np.arange(len(ends)), values.argmin(axis=1)]


def _residuals(theta: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the residuals of log L, (S, n), and their slopes by theta (S, 5), which are (S, 5, n)."""
    n, d, log_loss = points
    e, a, b = (theta[:, i, None] for i in range(3))
    fall_n, fall_d = np.exp(theta[:, 3, None]) * n, np.exp(theta[:, 4, None]) * d
    logs = np.stack(np.broadcast_arrays(e, a - fall_n, b - fall_d), axis=1)  # (S, 3, n)
    total = np.logaddexp.reduce(logs, axis=1)
    share = np.exp(logs - total[:, None])
    slopes = np.concatenate((share, (-share[:, 1] * fall_n)[:, None], (-share[:, 2] * fall_d)[:, None]), axis=1)
    return total - log_loss, slopes


def _huber(residual: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the Huber loss (S,) of residuals (S, n)."""
    size = np.abs(residual)
    each = np.where(size <= HUBER_DELTA, size**2 / 2, HUBER_DELTA * (size - HUBER_DELTA / 2))
    return (counts * each).sum(axis=1)


def _law(theta: np.ndarray, centre: tuple[float, float]) -> Law:
    """Return the laws that theta (S, 5) means about a centre."""
    alpha, beta = np.exp(theta[:, 3]), np.exp(theta[:, 4])
    a, b = np.exp(theta[:, 1] + alpha * centre[0]), np.exp(theta[:, 2] + beta * centre[1])
    return Law(np.exp(theta[:, 0]), a, b, alpha, beta)


def optimum(law: Law, family: Family, flops: np.ndarray | float) -> Optimum:
    """Return where a law's loss is least for a budget of training FLOPs C = 6 P(N) D; laws and budgets broadcast.

    There alpha A / N^alpha = beta B / D^beta x d log P / d log N: a little more of N gains what the D that it costs
    would. The left side falls with N and the right one rises, so that halving an interval of log N finds it.
    """
    shape = np.broadcast_shapes(law.e.shape, np.shape(flops))
    low, high = np.full(shape, np.log(1.0)), np.full(shape, np.log(1e18))
    for _ in range(80):
        middle = (low + high) / 2
        n = np.exp(middle)
        d = flops / (6 * family.products(n))
        by_n = law.alpha * law.a * n**-law.alpha
        by_d = law.beta * law.b * d**-law.beta * family.elasticity(n)
        is_below = by_n > by_d
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    n = np.exp((low + high) / 2)
    d = flops / (6 * family.products(n))
    return Optimum(n, d, law.loss(n, d))


def interval(draws: np.ndarray) -> tuple[float, float]:
    """Return the 95% interval of values drawn."""
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
