"""Painting scale after scale: the very pictures of the loop that goes token after token, in a few passes."""

from __future__ import annotations

import math

import pytest
import torch
from tests.conftest import roughen
from torch import Tensor

from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.priors import Path, PyramidConfig, PyramidPrior
from bisquit.priors.pyramid import PyramidState
from bisquit.sampling import SamplingConfig, sample, sample_pyramid
from bisquit.transformer import TransformerConfig

SCALES = ((1, 1), (2, 2), (3, 4))
LENGTH = 17
FIVE_WAYS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=0.7, top_k=3),
    SamplingConfig(temperature=1.3, top_p=0.8),
    SamplingConfig(min_p=0.2),
]
GUIDED = [
    SamplingConfig(guidance=2.5),
    SamplingConfig(guidance=0.0, temperature=0.0),
    SamplingConfig(guidance=3.0, guidance_schedule="linear", top_p=0.9),
]


def made(kind: type[PyramidPrior] = PyramidPrior, dropout: float = 0.0) -> PyramidPrior:
    """A prior of random weights that can be told three things."""
    transformer = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12, dropout=dropout)
    prior = kind(PyramidConfig(transformer, SCALES, condition_size=3), bits=4, grid=(1, LENGTH))
    roughen(prior, 0)
    return prior.eval()


def in_pairs(logits: Tensor) -> Tensor:
    """Logits of which each even one stands for the odd one behind it too."""
    return logits[..., ::2].repeat_interleave(2, dim=-1)


class ShakyPrior(PyramidPrior):
    """Finds tokens equally likely two by two; in float32, each batch is off by its own noise."""

    def next_scale(self, state: PyramidState, last: Tensor | None) -> Tensor:
        logits = in_pairs(super().next_scale(state, last))
        generator = torch.Generator().manual_seed(1000 * len(logits) + state.passes)
        return logits + 1e-5 * torch.randn(logits.shape, generator=generator)

    def logits_at(self, tokens: Tensor, step: int, path: Path | None = None) -> Tensor:
        return in_pairs(super().logits_at(tokens, step, path))


def told_ways(prior: PyramidPrior, batch: int) -> dict[str, Path]:
    conditions = torch.eye(3).repeat(batch, 1)[:batch]
    with torch.no_grad():
        return {
            "path": prior.conditioned(conditions, batch),
            "guide": prior.conditioned(torch.zeros_like(conditions), batch),
        }


def some_given(batch: int) -> Tensor:
    """Random tokens at half of the places, -1 at the others."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(16, (batch, 1, LENGTH), generator=generator)
    return tokens.where(torch.rand(tokens.shape, generator=generator) < 0.5, -1)


@pytest.mark.parametrize("settings", FIVE_WAYS, ids=str)
def test_pictures_are_those_that_are_painted_token_after_token(settings: SamplingConfig):
    prior = made()
    painted = sample_pyramid(prior, range(8), seed=3, settings=settings)
    assert painted.dtype == torch.int64
    assert torch.equal(painted, sample(prior, range(8), seed=3, settings=settings))


@pytest.mark.parametrize("settings", GUIDED, ids=str)
def test_guided_pictures_are_those_that_are_painted_token_after_token(settings: SamplingConfig):
    prior = made()
    ways = told_ways(prior, 6)
    painted = sample_pyramid(prior, range(6), seed=3, settings=settings, **ways)
    assert torch.equal(painted, sample(prior, range(6), seed=3, settings=settings, **ways))
    assert not torch.equal(painted, sample_pyramid(prior, range(6), seed=3, path=ways["path"]))


@pytest.mark.parametrize("settings", FIVE_WAYS, ids=str)
def test_pictures_are_those_of_their_numbers_in_any_batch(settings: SamplingConfig):
    prior = made()
    whole = sample_pyramid(prior, range(8), seed=0, settings=settings)
    for numbers in ([5], [7, 1, 2], range(8)):
        assert torch.equal(sample_pyramid(prior, numbers, seed=0, settings=settings), whole[list(numbers)])
    if settings.temperature:
        assert len(whole.flatten(1).unique(dim=0)) == 8
        assert not torch.equal(sample_pyramid(prior, range(8), seed=1, settings=settings), whole)


@pytest.mark.parametrize("settings", GUIDED, ids=str)
def test_a_guided_picture_is_the_same_in_any_batch(settings: SamplingConfig):
    prior = made()
    ways = told_ways(prior, 6)
    together = sample_pyramid(prior, range(6), seed=1, settings=settings, **ways)
    for i in range(6):
        one = {name: way.rows(slice(i, i + 1)) for name, way in ways.items()}
        assert torch.equal(sample_pyramid(prior, [i], seed=1, settings=settings, **one), together[i : i + 1])


@pytest.mark.parametrize("settings", FIVE_WAYS, ids=str)
def test_logits_that_differ_in_their_last_digits_give_the_same_pictures(settings: SamplingConfig):
    prior = made(ShakyPrior)
    whole = sample_pyramid(prior, range(12), seed=0, settings=settings)
    for batch in (1, 5):
        parts = [range(start, min(start + batch, 12)) for start in range(0, 12, batch)]
        painted = torch.cat([sample_pyramid(prior, numbers, seed=0, settings=settings) for numbers in parts])
        assert torch.equal(painted, whole)


@pytest.mark.parametrize(("settings", "copies"), [(SamplingConfig(), 1), (SamplingConfig(guidance=2.0), 2)], ids=str)
def test_the_network_is_used_once_for_each_scale(settings: SamplingConfig, copies: int):
    prior = made()
    shapes: list[tuple[int, ...]] = []
    prior.transformer.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape[:2])))
    sample_pyramid(prior, range(3), seed=0, settings=settings, **told_ways(prior, 3))
    assert shapes == [(3 * copies, 1), (3 * copies, 4), (3 * copies, 12)]


def test_given_tokens_stay_and_what_is_painted_follows_from_them():
    prior, fixed = made(), some_given(8)
    before, settings = fixed.clone(), SamplingConfig(temperature=0.0)
    painted = sample_pyramid(prior, range(8), seed=0, settings=settings, given=fixed)
    assert torch.equal(fixed, before)
    assert torch.equal(painted[fixed >= 0], fixed[fixed >= 0])
    with torch.inference_mode():
        likeliest = prior.logits(painted).argmax(dim=2).view_as(painted)
    assert torch.equal(painted[fixed < 0], likeliest[fixed < 0])
    assert torch.equal(painted, sample(prior, range(8), seed=0, settings=settings, given=fixed))


def test_giving_what_would_be_painted_anyway_changes_nothing():
    """Each place has noise of its own, which is drawn whether it is needed or not."""
    prior = made()
    whole = sample_pyramid(prior, range(8), seed=0)
    for kept in (whole.where(some_given(8) >= 0, -1), torch.full_like(whole, -1), whole):
        assert torch.equal(sample_pyramid(prior, range(8), seed=0, given=kept), whole)


def test_each_scale_is_told_with_all_so_far():
    told: list[tuple[int, Tensor]] = []
    painted = sample_pyramid(
        made(), range(2), seed=0, on_scale=lambda done, tokens: told.append((done, tokens.clone()))
    )
    assert [done for done, _ in told] == [1, 2, 3]
    for (_, so_far), end in zip(told, (1, 5, 17), strict=True):
        assert torch.equal(so_far[..., :end], painted[..., :end])
        assert not so_far[..., end:].any()


def test_a_prior_paints_pictures_as_often_as_it_finds_them_likely():
    transformer = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
    prior = PyramidPrior(PyramidConfig(transformer, ((1, 1), (1, 2))), bits=1, grid=(1, 3))
    roughen(prior, 0)
    every_picture = torch.tensor([[[i >> 2 & 1, i >> 1 & 1, i & 1]] for i in range(8)])
    expected = 4000 * (-prior.token_bits(every_picture).sum(dim=(1, 2))).exp2()
    drawn = sample_pyramid(prior, range(4000), seed=0).flatten(1) @ torch.tensor([4, 2, 1])
    chi_square = ((drawn.bincount(minlength=8) - expected) ** 2 / expected).sum().item()
    assert chi_square < 24.3  # for 7 degrees of freedom, exceeded once in a thousand times


def test_sampling_draws_nothing_from_the_global_generator():
    prior, before = made(), torch.get_rng_state()
    sample_pyramid(prior, range(2), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_off_while_sampling():
    prior = made(dropout=0.5).train()
    assert torch.equal(sample_pyramid(prior, range(4), seed=0), sample_pyramid(made(), range(4), seed=0))


def test_logits_that_are_not_finite_are_an_error():
    prior = made()
    with torch.no_grad():
        prior.head.bias[3] = math.nan
    with pytest.raises(ModelError, match="not finite"):
        sample_pyramid(prior, range(2), seed=0)


def test_guidance_without_anything_to_be_guided_to_is_refused():
    with pytest.raises(ConfigError, match="a class or a prompt"):
        sample_pyramid(made(), range(2), seed=0, settings=SamplingConfig(guidance=2.0))


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (torch.full((1, 1, LENGTH), -1), ShapeError, "1 pictures are given for 2"),
        (torch.full((2, LENGTH, 1), -1), ShapeError, r"\(B, 1, 17\)"),
        (torch.full((2, 1, LENGTH), 16), TokenError, "16"),
    ],
)
def test_given_tokens_that_do_not_fit_are_refused(wrong: Tensor, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        sample_pyramid(made(), range(2), seed=0, given=wrong)
