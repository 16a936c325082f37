"""Laws of quantizers: what holds for every kind at any number of bits, on any grid, for any latents and tokens."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bisquit.errors import ShapeError, TokenError
from bisquit.quantizers import Quantizer, build_quantizer, default_quantizer, quantizer_kinds

few = settings(max_examples=20)
WIDTH = 12
SIDES = st.integers(1, 5)


@cache
def quantizer_of(kind: str, bits: int) -> Quantizer:
    torch.manual_seed(0)
    return build_quantizer(default_quantizer(kind, bits), WIDTH).eval()


QUANTIZERS = st.builds(quantizer_of, st.sampled_from(sorted(quantizer_kinds())), st.integers(1, 12))


def drawn_tokens(data: st.DataObject, quantizer: Quantizer, grid: tuple[int, int]) -> Tensor:
    """Tokens (2, *quantizer.grid(grid)), the first and the last of the codebook among those that are drawn."""
    shape = (2, *quantizer.grid(grid))
    top = 2**quantizer.bits - 1
    values = st.integers(0, top) | st.sampled_from([0, top])
    count = 2 * shape[1] * shape[2]
    return torch.tensor(data.draw(st.lists(values, min_size=count, max_size=count))).view(shape)


@few
@given(QUANTIZERS, st.tuples(SIDES, SIDES), st.integers(0, 2**32), st.floats(-6, 6))
def test_latents_of_any_size_and_grid_become_tokens_whose_codes_are_those_of_the_pass(
    quantizer: Quantizer, grid: tuple[int, int], seed: int, magnitude: float
):
    latents = 10**magnitude * torch.randn(2, WIDTH, *grid, generator=torch.Generator().manual_seed(seed))
    tokens, codes, _ = quantizer(latents)
    assert tokens.dtype == torch.int64
    assert tokens.shape == (2, *quantizer.grid(grid))
    assert 0 <= tokens.min() <= tokens.max() < 2**quantizer.bits
    assert codes.shape == latents.shape
    assert codes.isfinite().all()
    assert torch.equal(quantizer.codes(tokens, grid), codes)
    assert torch.equal(quantizer.tokens_of(quantizer.down(latents)), tokens)


@few
@given(st.data(), QUANTIZERS, st.tuples(SIDES, SIDES))
def test_any_tokens_have_codes_each_picture_its_own(data: st.DataObject, quantizer: Quantizer, grid: tuple[int, int]):
    tokens = drawn_tokens(data, quantizer, grid)
    codes = quantizer.codes(tokens, grid)
    assert codes.shape == (2, WIDTH, *grid)
    assert codes.isfinite().all()
    torch.testing.assert_close(torch.cat([quantizer.codes(one, grid) for one in tokens.split(1)]), codes)


@few
@given(st.data(), QUANTIZERS, st.tuples(SIDES, SIDES), st.sampled_from([0, 1, 2**40]), st.booleans())
def test_one_token_outside_of_the_codebook_is_refused_wherever_it_is(
    data: st.DataObject, quantizer: Quantizer, grid: tuple[int, int], beyond: int, above: bool
):
    tokens = drawn_tokens(data, quantizer, grid)
    place = data.draw(st.integers(0, tokens.numel() - 1))
    tokens.view(-1)[place] = 2**quantizer.bits + beyond if above else -1 - beyond
    with pytest.raises(TokenError):
        quantizer.codes(tokens, grid)


@few
@given(QUANTIZERS, st.tuples(SIDES, SIDES), st.tuples(SIDES, SIDES))
def test_tokens_of_another_grid_than_is_said_are_refused(
    quantizer: Quantizer, grid: tuple[int, int], other: tuple[int, int]
):
    tokens = torch.zeros(1, *quantizer.grid(grid), dtype=torch.int64)
    if quantizer.grid(grid) == quantizer.grid(other):
        assert quantizer.codes(tokens, other).shape[2:] == other
    else:
        with pytest.raises(ShapeError):
            quantizer.codes(tokens, other)
