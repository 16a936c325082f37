"""Laws of priors: what holds for every kind at any number of bits, on any grid, whatever is known and asked for."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import roughen
from torch import Tensor

from bisquit.errors import BisquitError, TokenError
from bisquit.painting import Painter
from bisquit.priors import KINDS, AnyOrderPrior, PartsConfig, Prior, PyramidConfig, SequentialPrior, build_prior
from bisquit.priors.base import joined, split, to_grid, to_steps
from bisquit.sampling import SamplingConfig
from bisquit.transformer import TransformerConfig

few = settings(max_examples=15)
TINY = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
BITS = (2, 4, 6)
GRIDS = [(1, 1), (1, 4), (2, 3), (3, 2), (5, 1)]
SEQUENTIAL = sorted(kind for kind in KINDS if kind not in ("masked", "flow"))


@cache
def painter_of(kind: str, bits: int, grid: tuple[int, int]) -> Painter:
    fitted: dict[str, Any] = {}
    if KINDS[kind] is PyramidConfig:
        length = math.prod(grid)
        fitted["scales"] = ((1, 1), (1, length - 1)) if length > 1 else ((1, 1),)
    if KINDS[kind] is PartsConfig:
        fitted |= {"parts": 2, "part_width": 12}
    prior = build_prior(KINDS[kind](transformer=TINY, **fitted), bits, grid).eval()
    roughen(prior, 0)
    return Painter(prior, backend="torch")


def painters(kinds: list[str]) -> st.SearchStrategy[Painter]:
    return st.builds(painter_of, st.sampled_from(kinds), st.sampled_from(BITS), st.sampled_from(GRIDS))


def drawn(data: st.DataObject, prior: Prior, batch: int, values: st.SearchStrategy[int] | None = None) -> Tensor:
    """Numbers (batch, h, w) on a prior's grid: by default tokens, the last of the codebook among them."""
    top = prior.codebook_size - 1
    values = st.integers(0, top) | st.just(top) if values is None else values
    count = batch * prior.length
    return torch.tensor(data.draw(st.lists(values, min_size=count, max_size=count))).view(batch, *prior.grid)


def known_some(data: st.DataObject, prior: Prior, batch: int) -> Tensor:
    """Tokens (batch, h, w), any of which may not be known: -1."""
    return drawn(data, prior, batch, st.just(-1) | st.integers(0, prior.codebook_size - 1))


@few
@given(st.data(), painters(sorted(KINDS)))
def test_any_tokens_have_a_loss_and_any_others_have_none(data: st.DataObject, painter: Painter):
    prior = painter.prior
    tokens = drawn(data, prior, 2)
    assert prior.loss(tokens).isfinite()
    place = data.draw(st.integers(0, tokens.numel() - 1))
    tokens.view(-1)[place] = data.draw(
        st.integers(max_value=-1, min_value=-(2**40)) | st.integers(2**prior.bits, 2**40)
    )
    with pytest.raises(TokenError):
        prior.loss(tokens)


@few
@given(st.data(), painters(SEQUENTIAL))
def test_steps_decide_on_tokens_and_tokens_on_steps_along_any_way(data: st.DataObject, painter: Painter):
    prior = painter.prior
    assert isinstance(prior, SequentialPrior)
    tokens = drawn(data, prior, 2)
    order = torch.tensor([data.draw(st.permutations(range(prior.length))) for _ in tokens])
    path = prior.along(order) if isinstance(prior, AnyOrderPrior) else None
    symbols = prior.to_symbols(tokens, path)
    assert symbols.shape == (2, prior.steps)
    assert 0 <= symbols.min() <= symbols.max() < prior.symbols
    assert torch.equal(prior.to_tokens(symbols, path), tokens)
    assert torch.equal(to_grid(to_steps(tokens, path), path, prior.grid), tokens)


@few
@given(st.integers(1, 8), st.integers(1, 5), st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=5))
def test_parts_of_tokens_are_their_bits_the_lowest_first(parts: int, part_bits: int, values: list[int]):
    tokens = torch.tensor([[value % 2 ** (parts * part_bits) for value in values]])
    symbols = split(tokens, parts, part_bits)
    assert symbols.shape == (1, parts * len(values))
    assert symbols[0, 0] == tokens[0, 0] % 2**part_bits
    assert torch.equal(joined(symbols, parts, part_bits), tokens)


SETTINGS = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    top_k=st.integers(0, 5),
    top_p=st.sampled_from([0.01, 0.7, 1.0]),
    min_p=st.sampled_from([0.0, 0.3, 1.0]),
)


@few
@given(st.data(), painters(sorted(KINDS)), SETTINGS, st.integers(0, 2**63 - 1))
def test_what_is_painted_is_tokens_keeps_what_is_known_and_is_alike_alone(
    data: st.DataObject, painter: Painter, config: SamplingConfig, seed: int
):
    prior, given_tokens = painter.prior, known_some(data, painter.prior, 2)
    if not_heard := refusal(painter, config):
        assert "\n" not in not_heard
        config = SamplingConfig(temperature=config.temperature)
    painted = painter.paint(range(2), seed=seed, settings=config, given=given_tokens)
    assert (painted.dtype, tuple(painted.shape)) == (torch.int64, (2, *prior.grid))
    prior.check(painted)
    known = given_tokens >= 0
    assert torch.equal(painted[known], given_tokens[known])
    for number in range(2):
        alone = painter.paint([number], seed=seed, settings=config, given=given_tokens[number : number + 1])
        assert torch.equal(alone[0], painted[number])


def refusal(painter: Painter, config: SamplingConfig) -> str:
    """What a painter says of settings that its family does not hear; "" if it hears them."""
    try:
        painter.paint([0], seed=0, settings=config)
    except BisquitError as error:
        return str(error)
    return ""


@few
@given(st.data(), painters(SEQUENTIAL))
def test_bits_of_each_picture_are_its_own_and_none_is_negative(data: st.DataObject, painter: Painter):
    tokens = drawn(data, painter.prior, 3)
    bits = painter.bits(tokens)
    assert bits.shape == tokens.shape
    assert (bits >= -1e-5).all()
    for number in range(3):
        torch.testing.assert_close(painter.bits(tokens[number : number + 1])[0], bits[number], rtol=1e-4, atol=1e-4)
