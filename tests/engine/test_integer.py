"""int8: the integer prior is near the prior that it rounds, the same in every batch, and to the bit the engine's."""

from __future__ import annotations

import functools

import pytest
import torch
from tests.engine.driver import GRIDS, NEIGHBOURS, POSITIONS, Case, cases, every_kernel, needs_engine
from torch import Tensor

from bisquit.engine import EnginePrior, IntegerPrior, integer
from bisquit.engine.integer import turn_table
from bisquit.errors import ModelError, ShapeError, TokenError
from bisquit.priors import RasterPrior

ROUGH, LARGE, TINY, ZERO = 0.5, 3.0, 1e-3, 0.0  # deviations of weights
CASES = cases((ROUGH, LARGE, ROUGH, TINY, ZERO))

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@functools.cache
def integer_prior(case: Case) -> IntegerPrior:
    return IntegerPrior(case.prior())


@functools.cache
def wanted_logits(case: Case) -> Tensor:
    return integer_prior(case).logits(case.tokens())


def cached_logits(prior: IntegerPrior | EnginePrior, tokens: Tensor) -> Tensor:
    """The logits of all steps, one by one."""
    state, before = prior.start(len(tokens)), [None, *tokens.flatten(1).T[:-1]]
    return torch.stack([prior.next_logits(state, last) for last in before], dim=1)


@every_case
def test_steps_give_the_bits_of_a_full_pass(case: Case):
    assert torch.equal(cached_logits(integer_prior(case), case.tokens()), wanted_logits(case))


@needs_engine
@every_kernel
@every_case
def test_the_engine_gives_the_same_bits(case: Case, kernels: str):
    engine = EnginePrior(integer_prior(case), case.threads, kernels)
    assert torch.equal(engine.logits(case.tokens()), wanted_logits(case))


@needs_engine
@every_kernel
@every_case
def test_the_engine_gives_the_same_costs(case: Case, kernels: str):
    tokens = case.tokens()
    wanted = integer_prior(case).token_bits(tokens)
    bits = EnginePrior(integer_prior(case), case.threads, kernels).token_bits(tokens)
    torch.testing.assert_close(bits, wanted, rtol=2e-6, atol=2e-5)


@needs_engine
@every_kernel
def test_the_engines_costs_are_the_same_bits_on_any_number_of_threads_and_in_any_batch(kernels: str):
    case = Case(grid=(5, 7), width=24, n_heads=3, bits=5, batch=64)
    tokens = case.tokens()
    wanted = EnginePrior(integer_prior(case), threads=1, kernels=kernels).token_bits(tokens)
    for threads in (1, 2, 3):
        engine = EnginePrior(integer_prior(case), threads, kernels)
        for batch in (1, 3, 64):
            assert torch.equal(torch.cat([engine.token_bits(part) for part in tokens.split(batch)]), wanted)


@needs_engine
@every_kernel
def test_rows_of_the_largest_sums_have_the_same_bits(kernels: str):
    """All weights and inputs at the ends of their codes: what would overflow or lose digits does it here."""
    prior = Case(width=72, n_heads=3, feed_forward=1100, grid=(5, 7), n_layers=1).prior()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(parameter.sign())
    rounded, tokens = IntegerPrior(prior), torch.zeros(2, 5, 7, dtype=torch.int64)
    assert torch.equal(EnginePrior(rounded, kernels=kernels).logits(tokens), rounded.logits(tokens))


def test_logits_are_the_same_bits_in_any_batch_and_on_any_number_of_threads():
    case = Case("rotary", (9, 9), width=24, n_heads=3, bits=5, batch=4, neighbours=4)
    prior, tokens, before = integer_prior(case), case.tokens(), torch.get_num_threads()
    wanted = torch.cat([prior.logits(part) for part in tokens.split(1)])
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(prior.logits(tokens), wanted)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("neighbours", [0, *NEIGHBOURS])
@pytest.mark.parametrize("positions", POSITIONS)
def test_logits_are_near_those_of_float32(positions: str, neighbours: int):
    case = Case(positions, (5, 7), 24, 2, 40, bits=5, neighbours=neighbours)
    wanted = case.prior().logits(case.tokens())
    assert (wanted_logits(case) - wanted).std() < 0.03 * wanted.std()


def test_a_trained_priors_bits_are_within_one_percent_of_float32(seed_prior: RasterPrior, seed_pictures: Tensor):
    rounded = IntegerPrior(seed_prior).token_bits(seed_pictures).sum().item()
    assert rounded == pytest.approx(seed_prior.token_bits(seed_pictures).sum().item(), rel=0.01)


def test_the_prior_is_left_as_it_is():
    prior = Case().prior()
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    rounded, tokens = IntegerPrior(prior), Case().tokens()
    logits = rounded.logits(tokens)
    assert all(torch.equal(value, before[name]) for name, value in prior.state_dict().items())
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.zero_()
    assert torch.equal(rounded.logits(tokens), logits)
    assert not logits.requires_grad
    assert not list(rounded.parameters())


def test_a_double_prior_is_rounded_as_its_float32_copy():
    prior, tokens = Case().prior(), Case().tokens()
    assert torch.equal(IntegerPrior(prior.double()).logits(tokens), wanted_logits(Case()))


def test_close_races_are_decided_by_the_integers_themselves():
    prior = IntegerPrior(Case().prior())
    assert prior.exact() is prior


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_turns_are_those_of_the_float_prior(grid: tuple[int, int]):
    prior = Case("rotary", grid, 48, 2).prior()
    assert prior.angles is not None
    wanted = torch.stack((prior.angles.double().cos(), prior.angles.double().sin()))
    table = turn_table(prior)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table.double(), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(table.square().sum(dim=0), torch.ones(prior.length, 12), rtol=0, atol=2e-7)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(
    "name", ["embedding.weight", "neighbours.0.weight", "transformer.blocks.1.mlp.2.bias", "head.weight"]
)
def test_weights_that_are_not_finite_are_refused(name: str, value: float):
    prior = Case(neighbours=1).prior()
    with torch.no_grad():
        prior.get_parameter(name).view(-1)[-1] = value
    with pytest.raises(ModelError, match="not finite"):
        IntegerPrior(prior)


def test_pictures_whose_sums_could_overflow_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(integer, "MOST_STEPS", 5)
    IntegerPrior(Case(grid=(1, 5)).prior())
    with pytest.raises(ModelError, match="6 tokens are too long in int8: 5 is the most"):
        IntegerPrior(Case(grid=(2, 3)).prior())


def test_a_full_state_is_refused():
    prior = integer_prior(Case())
    state = prior.start(2)
    for step in range(6):
        prior.next_logits(state, torch.zeros(2, dtype=torch.int64) if step else None)
    with pytest.raises(ShapeError, match="6 tokens, and all are there"):
        prior.next_logits(state, torch.zeros(2, dtype=torch.int64))


def test_tokens_that_do_not_fit_are_refused():
    prior = integer_prior(Case())
    with pytest.raises(ShapeError, match=r"\(B, 2, 3\)"):
        prior.logits(torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(TokenError, match="8"):
        prior.logits(torch.full((1, 2, 3), 8))
