"""Denormal numbers are dropped while a training runs, by all threads, and by none after it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from bisquit.training.denormals import denormals_dropped, is_dropping_denormals

pytestmark = pytest.mark.skipif(not torch.set_flush_denormal(False), reason="is for processors that can drop them")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """With work done already, so that the second thread has begun before anything is dropped."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    share_dropped()
    yield
    torch.set_num_threads(before)


def share_dropped() -> float:
    """The share of denormal products that come out as zero, of as many as two threads work out."""
    products = torch.full((2_000_000,), 1e-30) * 1e-10
    return 1 - products.view(torch.int32).count_nonzero().item() / len(products)


def test_all_threads_drop_them_and_none_does_after():
    assert share_dropped() == 0
    with denormals_dropped():
        assert share_dropped() == 1
    assert share_dropped() == 0


def test_who_dropped_them_before_goes_on_with_it():
    torch.set_flush_denormal(True)
    try:
        with denormals_dropped():
            pass
        assert is_dropping_denormals()
    finally:
        torch.set_flush_denormal(False)
    assert not is_dropping_denormals()


def test_an_exception_passes_through():
    with pytest.raises(ValueError, match="through"), denormals_dropped():
        raise ValueError("through")
    assert not is_dropping_denormals()
