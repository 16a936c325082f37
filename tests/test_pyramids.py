"""The geometry of pyramids: sizes of scales, means over areas, cubic convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.pyramids import averaged, averaging, enlarged, enlarging, scale_grids

SIZES = [(1, 1), (7, 1), (5, 2), (5, 5), (30, 15), (10, 9)]


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize(
    ("grid", "wanted"),
    [
        ((20, 30), ((1, 1), (2, 3), (4, 6), (10, 15), (20, 30))),
        ((2, 3), ((1, 1), (1, 1), (1, 1), (1, 2), (2, 3))),
        ((1, 50), ((1, 1), (1, 5), (1, 10), (1, 25), (1, 50))),
    ],
)
def test_scales_are_fractions_of_any_grid(grid: tuple[int, int], wanted: tuple[tuple[int, int], ...]):
    assert scale_grids((0.0, 0.1, 0.2, 0.5, 1.0), grid) == wanted


@pytest.mark.parametrize(("large", "small"), SIZES)
def test_what_is_even_stays_as_it_is_either_way(large: int, small: int):
    torch.testing.assert_close(averaging(large, small).sum(dim=1), torch.ones(small, dtype=torch.float64))
    torch.testing.assert_close(enlarging(small, large).sum(dim=1), torch.ones(large, dtype=torch.float64))


@pytest.mark.parametrize("size", [1, 2, 9])
def test_the_way_to_the_same_size_changes_nothing(size: int):
    assert torch.equal(averaging(size, size), torch.eye(size, dtype=torch.float64))
    assert torch.equal(enlarging(size, size), torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize(("large", "small"), SIZES)
def test_the_mean_over_all_areas_is_that_of_all_values(large: int, small: int):
    torch.testing.assert_close(averaging(large, small).mean(dim=0), torch.full((large,), 1 / large).double())


def test_a_value_in_two_areas_counts_in_each_by_its_part():
    assert averaging(3, 2).flatten().tolist() == pytest.approx([2 / 3, 1 / 3, 0, 0, 1 / 3, 2 / 3])


def test_means_over_whole_areas_are_those_of_pooling():
    x = noise(2, 3, 6, 10)
    torch.testing.assert_close(averaged(x, (2, 5)), F.interpolate(x, size=(2, 5), mode="area"))


@pytest.mark.parametrize(("small", "large"), [(5, 10), (6, 15), (7, 10)])
def test_cubic_convolution_keeps_what_is_linear_away_from_the_ends(small: int, large: int):
    centres = (torch.arange(large, dtype=torch.float64) + 0.5) * small / large - 0.5
    found = enlarging(small, large) @ torch.arange(small, dtype=torch.float64)
    is_inside = (centres >= 1) & (centres <= small - 2)
    assert is_inside.any()
    torch.testing.assert_close(found[is_inside], centres[is_inside])


def test_rows_and_columns_are_enlarged_alike():
    x = noise(2, 3, 4, 5)
    torch.testing.assert_close(enlarged(x, (9, 12)), enlarged(x.mT, (12, 9)).mT)


def test_autocast_does_not_halve_the_precision():
    x = noise(2, 3, 6, 10).float()
    with torch.autocast("cpu", torch.bfloat16):
        there, back = averaged(x, (3, 4)), enlarged(averaged(x, (3, 4)), (6, 10))
    assert torch.equal(there, averaged(x, (3, 4)))
    assert torch.equal(back, enlarged(there, (6, 10)))
