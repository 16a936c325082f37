"""Views: surprise that holds back what it asks about, and attention that sums to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.conftest import roughen

from bisquit.errors import ModelError, ShapeError
from bisquit.evaluation.views import attention, attention_picture, surprise
from bisquit.priors import AnyOrderConfig, AnyOrderPrior, RasterConfig, RasterPrior
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
GRID = (5, 6)


@pytest.fixture
def raster() -> RasterPrior:
    prior = RasterPrior(RasterConfig(transformer=TINY), 3, GRID)
    roughen(prior, 0)
    return prior.eval()


@pytest.fixture
def any_order() -> AnyOrderPrior:
    prior = AnyOrderPrior(AnyOrderConfig(transformer=TINY, neighbours=4), 3, GRID)
    roughen(prior, 0)
    return prior.eval()


def tokens_of(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 8, (count, *GRID))


def test_a_raster_priors_surprise_is_the_bits_of_its_tokens(raster: RasterPrior):
    bits = surprise(raster, tokens_of())
    np.testing.assert_allclose(bits, raster.token_bits(torch.from_numpy(tokens_of())).numpy())


def test_an_any_order_prior_judges_a_token_by_what_is_after_it_too(any_order: AnyOrderPrior):
    tokens = tokens_of(1)
    before = surprise(any_order, tokens)
    changed = tokens.copy()
    changed[0, 4, 5] = (changed[0, 4, 5] + 1) % 8
    after = surprise(any_order, changed)
    assert before[0, 0, 2] != after[0, 0, 2]
    assert before[0, 3, 5] != after[0, 3, 5]


def test_each_token_is_judged_with_none_but_a_few_far_ones_held_back(any_order: AnyOrderPrior):
    tokens = torch.from_numpy(tokens_of(1))
    for row, column in [(0, 0), (2, 3), (4, 5)]:
        known = torch.ones(1, *GRID, dtype=torch.bool)
        known[0, row % 4 :: 4, column % 4 :: 4] = False
        bits = any_order.token_bits(tokens, any_order.after(known))[0, row, column]
        assert surprise(any_order, tokens.numpy())[0, row, column] == pytest.approx(bits.item(), rel=1e-5)


def test_attention_goes_to_the_tokens_before_and_sums_to_one_with_the_start(raster: RasterPrior):
    weights = attention(raster, tokens_of()[0], 2, 3)
    assert weights.shape == (2, 2, *GRID)
    assert (weights.reshape(2, 2, -1)[:, :, 2 * 6 + 3 :] == 0).all()
    assert (weights.reshape(2, 2, -1)[:, :, : 2 * 6 + 3] > 0).all()
    full = raster.attention_at(torch.from_numpy(tokens_of()[:1]), 15)[0]
    np.testing.assert_allclose(full.sum(dim=-1).numpy(), 1.0, rtol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=(2, 3)), 1 - full[:, :, 0].numpy(), rtol=1e-4)


def test_attention_weights_mix_the_values_as_attention_does(raster: RasterPrior):
    """The weights of the last step times the values are what attention gives its last step."""
    x = torch.randn(1, 7, 8, generator=torch.Generator().manual_seed(0))
    attended = raster.transformer.blocks[0].attention
    with torch.no_grad():
        weights = attended.weights(x, 6, None)
        _, _, v = attended._heads(x, None)
        mixed = attended.out((weights.unsqueeze(2) @ v).transpose(1, 2).flatten(2))
        wanted = attended(x, causal=True, rotary=None, cache=None, layer=0)
    torch.testing.assert_close(mixed[:, 0], wanted[:, -1])


def test_an_any_order_prior_looks_everywhere_but_at_the_token_itself(any_order: AnyOrderPrior):
    weights = attention(any_order, tokens_of()[0], 1, 1)
    assert (weights[:, :, 1, 1] == 0).all()
    assert (np.delete(weights.reshape(2, 2, -1), 1 * 6 + 1, axis=2) > 0).all()


@pytest.mark.parametrize("place", [(-1, 0), (5, 0), (0, 6)])
def test_a_place_outside_of_the_grid_is_refused(raster: RasterPrior, place: tuple[int, int]):
    with pytest.raises(ShapeError, match="outside of the grid of 5 x 6"):
        attention(raster, tokens_of()[0], *place)


def test_a_prior_without_likelihood_or_attention_is_refused():
    with pytest.raises(ModelError, match="how likely"):
        surprise(torch.nn.Linear(1, 1), tokens_of())  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="no attention"):
        attention(torch.nn.Linear(1, 1), tokens_of()[0], 0, 0)  # type: ignore[arg-type]


def test_the_picture_is_brightest_where_the_token_looks_and_frames_the_token():
    frame = np.full((20, 24, 3), 200, dtype=np.uint8)
    weights = np.zeros(GRID)
    weights[0, 0], weights[0, 1] = 1.0, 0.25
    shown = attention_picture(frame, weights, (2, 3), 4)
    assert shown[1, 1].tolist() == [200, 200, 200]
    assert 50 < shown[1, 5, 0] < 200
    assert shown[1, 9].tolist() == [50, 50, 50]
    assert shown[8, 12].tolist() == [255, 120, 0]
    assert shown[9, 13].tolist() == [200, 200, 200]
    with pytest.raises(ShapeError, match="weights are"):
        attention_picture(frame, weights[:4], (2, 3), 4)
