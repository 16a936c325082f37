"""The parts prior: what is not already in the contract that it shares with all priors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.conftest import roughen
from torch import Tensor

from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import PartsConfig, PartsPrior
from bisquit.priors.base import joined, split
from bisquit.sampling import SamplingConfig, sample
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)


def made(bits: int = 6, parts: int = 3, grid: tuple[int, int] = (2, 3), **changes: Any) -> PartsPrior:
    prior = PartsPrior(PartsConfig(transformer=TINY, parts=parts, part_width=12, **changes), bits, grid)
    roughen(prior, 0)
    return prior.eval()


def tokens_of(prior: PartsPrior, batch: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(prior.codebook_size, (batch, *prior.grid), generator=generator)


@pytest.mark.parametrize(("parts", "part_bits"), [(1, 5), (2, 3), (4, 8), (3, 1)])
def test_parts_are_a_tokens_bits_from_the_lowest_on(parts: int, part_bits: int):
    tokens = torch.tensor([[2 ** (parts * part_bits) - 1, 0, 5 % 2 ** (parts * part_bits)]])
    found = split(tokens, parts, part_bits)
    assert found.shape == (1, 3 * parts)
    for token, of_token in zip(tokens[0].tolist(), found[0].view(3, parts).tolist(), strict=True):
        assert sum(part << part_bits * place for place, part in enumerate(of_token)) == token
    assert torch.equal(joined(found, parts, part_bits), tokens)


def test_a_part_knows_those_before_it_and_none_after():
    prior = made()
    tokens = tokens_of(prior, 1)
    before = prior.logits(tokens)[0].view(6, 3, 4)
    for part in range(3):
        other = tokens.clone()
        other[0, 0, 1] ^= 1 << 2 * part  # a bit of that part of token 1
        differs = (prior.logits(other)[0].view(6, 3, 4) != before).any(dim=2)
        assert not differs[0].any()
        assert differs[1].tolist() == [later > part for later in range(3)]
        assert differs[2:].all()


def test_the_chances_of_all_tokens_sum_to_one():
    prior = made(bits=4, parts=2, grid=(1, 2)).double()
    every_picture = torch.tensor(list(itertools.product(range(16), repeat=2))).view(-1, 1, 2)
    assert (-prior.token_bits(every_picture).double().sum(dim=(1, 2))).exp2().sum().item() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("settings", [{}, {"top_p": 0.7}, {"temperature": 0.0}], ids=str)
def test_pictures_are_the_same_in_any_batch(settings: dict[str, float]):
    prior, config = made(neighbours=4), SamplingConfig(**settings)
    together = sample(prior, range(5), seed=3, settings=config)
    assert together.shape == (5, 2, 3)
    for number in range(5):
        assert torch.equal(sample(prior, [number], seed=3, settings=config), together[number : number + 1])


def test_tokens_are_drawn_with_their_chances():
    prior = made(bits=4, parts=2, grid=(1, 1))
    chances = (-prior.token_bits(torch.arange(16).view(-1, 1, 1))).exp2().flatten()
    drawn = sample(prior, range(4000), seed=0).flatten()
    shares = torch.bincount(drawn, minlength=16) / 4000
    assert (shares - chances).abs().max() < 4 * (0.25 / 4000) ** 0.5


def test_given_tokens_stay_and_progress_counts_tokens():
    prior, seen = made(), []
    given = torch.full((2, 2, 3), -1)
    given[:, 1, 1] = 37
    painted = sample(prior, range(2), seed=0, given=given, on_token=lambda done, tokens: seen.append(done))
    assert (painted[:, 1, 1] == 37).all()
    assert seen == [1, 2, 3, 4, 5, 6]


def test_races_in_doubt_are_decided_in_float64(monkeypatch: pytest.MonkeyPatch):
    prior = made(neighbours=4)
    wanted = sample(prior.exact(), range(4), seed=2)
    monkeypatch.setattr("bisquit.sampling.sequential.DOUBT", 50.0)  # then every one is
    assert torch.equal(sample(prior, range(4), seed=2), wanted)


def test_a_codebook_that_no_softmax_fits_is_trained():
    prior = made(bits=32, parts=4).train()
    tokens = tokens_of(prior)
    loss = prior.loss(tokens)
    loss.backward()
    assert loss.item() > 0
    assert prior.token_bits(tokens).sum().item() == pytest.approx(18 * loss.item() / 0.6931472, rel=1e-5)


def test_parts_may_begin_as_alike_as_their_bits():
    prior = made(bits=8, parts=2, neighbours=2)
    before = {name: array.clone() for name, array in prior.state_dict().items()}
    prior.start_from_bits()
    for name, array in prior.state_dict().items():
        if name.endswith(("tables", ".head.weight")) or ".tables." in name:
            rows = array if array.ndim == 3 else array[None]  # (..., 16, width)
            assert (rows[:, 0] - rows[:, 1] - rows[:, 2] + rows[:, 3]).abs().max() < 1e-6, name
            assert not torch.equal(array, before[name]), name
        else:
            assert torch.equal(array, before[name]), name


def test_the_transformer_runs_once_a_token(monkeypatch: pytest.MonkeyPatch):
    prior, passes = made(), []
    forward = prior.transformer.forward

    def counted(*args: Any, **options: Any) -> Tensor:
        passes.append(1)
        return forward(*args, **options)

    monkeypatch.setattr(prior.transformer, "forward", counted)
    sample(prior, range(2), seed=0)
    assert len(passes) == 6


def test_a_full_state_is_refused():
    prior = made(bits=2, parts=2, grid=(1, 1))
    state = prior.start(1)
    prior.next_logits(state, None)
    prior.next_logits(state, torch.tensor([1]))
    with pytest.raises(ShapeError, match="all are there"):
        prior.next_logits(state, torch.tensor([0]))


@pytest.mark.parametrize(
    ("bits", "fields"), [(10, {"parts": 3}), (32, {"parts": 2}), (8, {"parts": 0}), (8, {"part_width": 0})], ids=str
)
def test_parts_that_cannot_be_are_refused(bits: int, fields: dict[str, int]):
    with pytest.raises(ConfigError, match=next(iter(fields))):
        PartsPrior(PartsConfig(transformer=TINY, **fields), bits, (2, 3))


def test_independent_parts_are_told_of_other_tokens_and_not_of_one_another():
    prior = made(independent=True)
    tokens = tokens_of(prior, 1)
    before = prior.logits(tokens)[0].view(6, 3, 4)
    for part in range(3):
        other = tokens.clone()
        other[0, 0, 1] ^= 1 << 2 * part  # a bit of that part of token 1
        differs = (prior.logits(other)[0].view(6, 3, 4) != before).any(dim=2)
        assert not differs[:2].any()
        assert differs[2:].all()


def test_independent_parts_are_painted_with_their_chances_step_by_step():
    prior = made(independent=True)
    tokens = tokens_of(prior)
    symbols, state = prior.to_symbols(tokens), prior.start(3)
    full = prior.logits(tokens)
    for step in range(prior.steps):
        logits = prior.next_logits(state, symbols[:, step - 1] if step else None)
        torch.testing.assert_close(logits, full[:, step])
        torch.testing.assert_close(prior.logits_at(tokens, step), full[:, step])


def test_a_prior_is_named_as_it_was_before_parts_could_be_independent():
    prior = made()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.fill_(0.25)
    assert prior.fingerprint() == "157429f418df2ca4"
