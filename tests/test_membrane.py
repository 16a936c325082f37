"""The membrane over a hole: what it meets, what it leaves, and that it is the smoothest."""

from __future__ import annotations

import numpy as np
import pytest

from bisquit.membrane import membrane


def hole_of(height: int = 12, width: int = 14) -> np.ndarray:
    hole = np.zeros((height, width), dtype=np.bool_)
    hole[3:8, 4:11] = True
    hole[6:10, 2:6] = True
    return hole


def test_what_is_known_stays():
    values = np.random.default_rng(0).normal(size=(12, 14, 3))
    hole = hole_of()
    np.testing.assert_array_equal(membrane(values, hole)[~hole], values[~hole])


def test_over_a_slope_it_is_the_slope():
    rows, columns = np.mgrid[:12, :14]
    slope = np.stack([3.0 * rows + 2 * columns, 5.0 - columns, np.full((12, 14), 7.0)], axis=2)
    np.testing.assert_allclose(membrane(slope, hole_of(), 1e-9), slope, atol=1e-6)


def test_each_value_in_the_hole_is_the_mean_of_its_neighbours():
    values, hole = np.random.default_rng(0).normal(size=(12, 14, 2)), hole_of()
    hole[0, 5:9] = hole[11, 13] = True  # at the edge, neighbours are fewer
    found = membrane(values, hole, 1e-10)
    for y, x in np.argwhere(hole):
        beside = [(y + a, x + b) for a, b in ((0, 1), (1, 0), (0, -1), (-1, 0)) if 0 <= y + a < 12 and 0 <= x + b < 14]
        np.testing.assert_allclose(found[y, x], np.mean([found[place] for place in beside], axis=0), atol=1e-8)


def test_without_a_hole_nothing_changes_and_without_anything_known_it_is_zero():
    values = np.random.default_rng(0).normal(size=(5, 6, 3))
    np.testing.assert_array_equal(membrane(values, np.zeros((5, 6), dtype=np.bool_)), values)
    np.testing.assert_array_equal(membrane(values, np.ones((5, 6), dtype=np.bool_)), np.zeros((5, 6, 3)))


@pytest.mark.parametrize("place", [(0, 0), (4, 5), (2, 3)])
def test_a_single_known_value_is_everywhere(place: tuple[int, int]):
    hole = np.ones((5, 6), dtype=np.bool_)
    hole[place] = False
    values = np.zeros((5, 6, 1))
    values[place] = 3.0
    np.testing.assert_allclose(membrane(values, hole, 1e-9), 3.0, atol=1e-6)
