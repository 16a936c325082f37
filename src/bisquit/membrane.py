"""A membrane over a hole: the smoothest surface that meets what surrounds it (Poisson editing, Perez et al. 2003).

In the hole each value is the mean of its neighbours; at the edge of the picture nothing pulls.
"""

from __future__ import annotations

import numpy as np

MOST_STEPS = 2000
SIDES = ((0, 1), (0, -1), (1, 1), (1, -1))
"""Axis and direction of a pixel's four neighbours."""


def membrane(values: np.ndarray, hole: np.ndarray, tolerance: float = 1e-3) -> np.ndarray:
    """Return values, float (H, W, C), with those in a hole, bool (H, W), replaced by the membrane over it.

    tolerance: to which the equations are solved, in the values' units. Where nothing is known, values become zero.
    """
    if not hole.any() or hole.all():
        return np.where(hole[..., None], 0.0, values)
    rows, columns = np.nonzero(hole)
    filled, window = values.astype(np.float64), (_span(rows), _span(columns))
    filled[window] = _solved(values[window], hole[window], tolerance)
    return filled


def _span(places: np.ndarray) -> slice:
    """Return from where to where places reach along an axis, with one more on each side, where there is one."""
    return slice(max(0, int(places.min()) - 1), int(places.max()) + 2)


def _solved(values: np.ndarray, hole: np.ndarray, tolerance: float) -> np.ndarray:
    """Return what `membrane` does, of the part of a picture that the hole and its edge are in."""
    out: np.ndarray = np.where(hole[..., None], 0.0, values)
    inside = hole[..., None].astype(np.float64)
    degree = sum(_beside(np.ones_like(inside), axis, step) for axis, step in SIDES)

    def pull(x: np.ndarray) -> np.ndarray:
        """What the equations make of values in the hole."""
        result: np.ndarray = inside * (degree * x - sum(_beside(x, axis, step) for axis, step in SIDES))
        return result

    residual = inside * sum(_beside(out, axis, step) for axis, step in SIDES)  # conjugate gradients, from zero
    x, direction = np.zeros_like(out), residual.copy()
    energy = _dot(residual, residual)
    for _ in range(MOST_STEPS):
        if np.abs(residual).max() <= tolerance:
            break
        pulled = pull(direction)
        rate = energy / np.maximum(_dot(direction, pulled), 1e-300)
        x += rate * direction
        residual -= rate * pulled
        fresh = _dot(residual, residual)
        direction = residual + fresh / np.maximum(energy, 1e-300) * direction
        energy = fresh
    return np.where(hole[..., None], x, values)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the products of each channel, (C,)."""
    return np.einsum("hwc,hwc->c", a, b)


def _beside(x: np.ndarray, axis: int, step: int) -> np.ndarray:
    """Return each pixel's neighbour on one side; zero beyond the edge."""
    moved = np.zeros_like(x)
    ours, theirs = (slice(None, -1), slice(1, None)) if step > 0 else (slice(1, None), slice(None, -1))
    index = (slice(None),) * axis
    moved[(*index, ours)] = x[(*index, theirs)]
    return moved
