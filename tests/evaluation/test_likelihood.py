"""Bits under priors whose probabilities are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.evaluation import likelihood, likelihood_bound
from bisquit.priors import MaskedConfig, MaskedPrior
from bisquit.transformer import TransformerConfig

TOKENS = np.array([[[0, 1, 0], [0, 0, 0]], [[0, 0, 1], [1, 0, 0]], [[1, 1, 1], [1, 1, 1]]], dtype=np.uint8)


def test_a_uniform_prior_needs_the_bits_of_the_codebook(uniform_prior):
    tokens = np.random.default_rng(0).integers(0, 1024, (5, 4, 6))
    measured = likelihood(uniform_prior(10, (4, 6)), tokens, batch_size=2)
    assert measured.bits_per_token == pytest.approx(10, abs=1e-6)
    assert measured.bits_per_image == pytest.approx(240, abs=1e-4)
    assert measured.bits_per_image_stderr == pytest.approx(0, abs=1e-4)


def test_bits_are_those_of_the_known_probabilities(position_prior):
    logits = torch.zeros(2, 3, 2)
    logits[..., 1] = math.log(3)  # p(1) = 3/4
    measured = likelihood(position_prior(1, logits), TOKENS, batch_size=2)
    one, zero = math.log2(4 / 3), 2.0
    per_image = np.array([one + 5 * zero, 2 * one + 4 * zero, 6 * one])
    np.testing.assert_allclose(measured.per_image_bits, per_image, rtol=1e-6)
    assert measured.bits_per_image == pytest.approx(per_image.mean())
    assert measured.bits_per_token == pytest.approx(per_image.mean() / 6)
    assert measured.bits_per_image_stderr == pytest.approx(per_image.std(ddof=1) / math.sqrt(3))


def test_the_map_has_the_mean_bits_of_each_position(position_prior):
    logits = torch.zeros(2, 3, 2)
    logits[1, 2, 0] = math.log(7)  # there p(0) = 7/8
    measured = likelihood(position_prior(1, logits), TOKENS, batch_size=3)
    wanted = np.ones((2, 3))
    wanted[1, 2] = (2 * math.log2(8 / 7) + 3) / 3  # tokens 0, 0, 1
    np.testing.assert_allclose(measured.bits_by_position, wanted, rtol=1e-6)


def test_batches_and_types_of_tokens_do_not_matter(position_prior):
    prior = position_prior(1, torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0)))
    whole = likelihood(prior, TOKENS, batch_size=8)
    parts = likelihood(prior, torch.from_numpy(TOKENS), batch_size=1)
    np.testing.assert_allclose(parts.per_image_bits, whole.per_image_bits, rtol=1e-6)


def test_dropout_is_off_and_comes_back(position_prior):
    prior = position_prior(1, torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(0))).train()
    assert likelihood(prior, TOKENS, 3).bits_per_image == likelihood(prior, TOKENS, 3).bits_per_image
    assert prior.dropout.training


def test_the_standard_error_takes_groups_to_be_independent_and_not_their_images(position_prior):
    logits = torch.zeros(2, 3, 2)
    logits[..., 1] = math.log(3)
    tokens = np.repeat(TOKENS, 4, axis=0)  # each image four times over tells no more than once
    together = likelihood(position_prior(1, logits), tokens, batch_size=5, groups=np.repeat([7, 3, 5], 4))
    once = likelihood(position_prior(1, logits), TOKENS, batch_size=5)
    assert together.bits_per_image_stderr == pytest.approx(once.bits_per_image_stderr)


def test_a_single_image_has_no_standard_error(uniform_prior):
    assert likelihood(uniform_prior(1, (2, 3)), TOKENS[:1], batch_size=4).bits_per_image_stderr is None


def test_progress_counts_images(uniform_prior):
    told: list[tuple[int, int]] = []
    likelihood(uniform_prior(1, (2, 3)), TOKENS, batch_size=2, progress=lambda *counts: told.append(counts))
    assert told == [(2, 3), (3, 3)]


def test_half_precision_logits_are_softmaxed_in_float32(position_prior):
    prior = position_prior(10, torch.zeros(2, 3, 1024)).to(torch.bfloat16)
    assert likelihood(prior, TOKENS, batch_size=3).bits_per_token == pytest.approx(10, abs=1e-5)


def test_bits_that_are_not_finite_are_an_error(position_prior):
    with pytest.raises(ModelError, match="not finite"):
        likelihood(position_prior(1, torch.full((2, 3, 2), math.nan)), TOKENS, batch_size=3)


def test_unfit_tokens_are_refused(uniform_prior):
    prior = uniform_prior(1, (2, 3))
    with pytest.raises(ShapeError, match="none of them 0"):
        likelihood(prior, TOKENS[:0], batch_size=1)
    with pytest.raises(ShapeError, match="2, 3"):
        likelihood(prior, TOKENS[:, :1], batch_size=1)
    with pytest.raises(TokenError, match="to 2"):
        likelihood(prior, TOKENS + 1, batch_size=1)
    with pytest.raises(ConfigError, match="batch_size is 0"):
        likelihood(prior, TOKENS, batch_size=0)


def made_masked(bits: int, grid: tuple[int, int]) -> MaskedPrior:
    """A masked prior of the weights that it begins with, made large enough for each to matter."""
    transformer = TransformerConfig(width=8, n_layers=1, n_heads=2, feed_forward=12)
    prior = MaskedPrior(MaskedConfig(transformer=transformer), bits, grid)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return prior


def test_a_bound_is_the_bits_themselves_where_tokens_tell_nothing_of_one_another():
    prior = made_masked(1, (2, 3))
    with torch.no_grad():
        prior.head.weight.zero_()
        prior.head.bias.copy_(torch.tensor([0.25, 0.75]).log())
    ones = np.ones((4, 2, 3), dtype=np.uint8)
    found = likelihood_bound(prior, ones, batch_size=3, masks=2)
    np.testing.assert_allclose(found.per_image_bits, 6 * math.log2(4 / 3), rtol=1e-6)
    assert found.bits_per_image_stderr == pytest.approx(0, abs=1e-6)


def test_a_bound_is_the_mean_of_the_bits_of_all_orders():
    prior, tokens = made_masked(2, (1, 2)).eval(), np.array([[[3, 1]]])
    x = torch.from_numpy(tokens)

    def chance(place: int, known: bool) -> float:
        masked = torch.ones(1, 1, 2, dtype=torch.bool)
        masked[0, 0, 1 - place] = not known
        return float(prior.logits(x, ~masked)[0, place].softmax(dim=0)[x[0, 0, place]])

    with torch.no_grad():
        orders = [chance(0, False) * chance(1, True), chance(1, False) * chance(0, True)]
    found = likelihood_bound(prior, tokens.repeat(200, axis=0), batch_size=64, masks=50)
    assert found.bits_per_image_stderr is not None
    off = found.bits_per_image + sum(map(math.log2, orders)) / 2
    assert abs(off) < 4 * found.bits_per_image_stderr
    assert 0 < found.bits_per_image_stderr < 0.01 * found.bits_per_image
    assert prior.training is False


def test_masks_hang_on_the_seed_alone():
    prior, tokens = made_masked(2, (2, 3)), np.random.default_rng(0).integers(0, 4, (5, 2, 3))
    first, again, other = (likelihood_bound(prior, tokens, 2, seed=seed).bits_per_image for seed in (0, 0, 1))
    assert first == again != other


def test_a_bound_takes_one_mask_at_least():
    with pytest.raises(ConfigError, match="masks is 0"):
        likelihood_bound(made_masked(2, (2, 3)), np.zeros((1, 2, 3), dtype=np.int64), 1, masks=0)
