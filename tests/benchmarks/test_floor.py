from __future__ import annotations

import pytest
from floor import Peaks, floor, keys_and_values, weights

from bisquit.priors import RasterConfig, RasterPrior
from bisquit.transformer import TransformerConfig

MIB = 2**20


@pytest.fixture(scope="module")
def prior() -> RasterPrior:
    return RasterPrior(RasterConfig(TransformerConfig()), bits=10, grid=(20, 30))


def peaks(operations_per_s: float, in_cache: float, beyond: float) -> Peaks:
    return Peaks(
        {"float32": operations_per_s, "int8": 4 * operations_per_s},
        {size * MIB: in_cache if size < 32 else beyond for size in (1, 2, 4, 8, 16, 32, 64, 128)},
    )


def test_weights_are_those_of_all_matrices(prior: RasterPrior) -> None:
    matrices = [*prior.transformer.blocks.parameters(), *prior.head.parameters()]
    assert weights(prior) == sum(matrix.numel() for matrix in matrices if matrix.ndim == 2)


def test_keys_and_values_are_as_many_as_the_cache_holds(prior: RasterPrior) -> None:
    cache = prior.start(2).cache
    assert 2 * keys_and_values(prior, prior.length) == cache.keys.numel() + cache.values.numel()


def test_slow_products_make_a_floor_of_operations(prior: RasterPrior) -> None:
    found = floor(prior, 1, peaks(1e9, 1e15, 1e15), "float32")
    a_token = 2 * (weights(prior) + keys_and_values(prior, 300.5))
    assert found.seconds == found.operations_s == pytest.approx(600 * a_token / 1e9)


def test_slow_memory_makes_a_floor_of_bytes(prior: RasterPrior) -> None:
    found = floor(prior, 64, peaks(1e15, 1e9, 1e9), "float32")
    a_token = 4 * (weights(prior) / 64 + keys_and_values(prior, 300.5))
    assert found.group == 64
    assert found.seconds == found.reading_s == pytest.approx(600 * a_token / 1e9)


def test_a_batch_is_split_where_its_groups_stay_in_cache(prior: RasterPrior) -> None:
    speeds = peaks(1e15, 100e9, 10e9)
    found = floor(prior, 64, speeds, "float32")
    assert found.group == 16  # with 2.9 MB of weights and 1.8 MB a picture, 31 MiB
    assert found.seconds < floor(prior, 64, speeds, "float32", group=64).seconds / 5


def test_a_small_set_is_read_no_slower_than_a_large_one() -> None:
    speeds = Peaks({}, {MIB: 1.0, 2 * MIB: 3.0, 4 * MIB: 2.0})
    assert [speeds.bandwidth(size * MIB) for size in (0.5, 1, 3, 4, 9)] == [3.0, 3.0, 3.0, 2.0, 2.0]


def test_of_two_measurements_the_faster_count() -> None:
    better = Peaks({"float32": 1.0, "int8": 5.0}, {MIB: 1.0}).or_better(
        Peaks({"float32": 2.0, "int8": 4.0}, {MIB: 3.0})
    )
    assert better == Peaks({"float32": 2.0, "int8": 5.0}, {MIB: 3.0})
