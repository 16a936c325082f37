"""What holds for every prior: the tests run on each in `PRIORS`, and on each way of it that `VARIANTS` names."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.errors import ConfigError, ShapeError, TokenError
from bisquit.priors import (
    KINDS,
    PRIORS,
    AnyOrderConfig,
    CausalPrior,
    FlowConfig,
    FlowPrior,
    MaskedConfig,
    MaskedPrior,
    PartsConfig,
    Prior,
    PriorConfig,
    PyramidConfig,
    PyramidPrior,
    RasterConfig,
    SequentialPrior,
    build_prior,
    of_kind,
)
from bisquit.priors.base import token_nats
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
DROPPING = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12, dropout=0.5)
PYRAMIDS = {  # scales that have so many places together
    1: ((1, 1),),
    2: ((1, 1), (1, 1)),
    3: ((1, 1), (1, 2)),
    4: ((1, 1), (1, 3)),
    5: ((1, 1), (2, 2)),
    6: ((1, 1), (1, 2), (1, 3)),
}
VARIANTS: dict[type, dict[str, PriorConfig]] = {
    RasterConfig: {
        f"raster-{positions}": RasterConfig(transformer=TINY, positions=positions)
        for positions in ("none", "learned", "row-column", "rotary")
    }
    | {
        f"raster-{neighbours}-neighbours": RasterConfig(transformer=TINY, positions="none", neighbours=neighbours)
        for neighbours in (1, 4)
    }
    | {"raster-told": RasterConfig(transformer=TINY, condition_size=5)},
    AnyOrderConfig: {
        f"any-order-{neighbours}-neighbours": AnyOrderConfig(transformer=TINY, neighbours=neighbours)
        for neighbours in (0, 8, 12)
    }
    | {"any-order-told": AnyOrderConfig(transformer=TINY, neighbours=4, condition_size=5)},
    PartsConfig: {
        "parts-1": PartsConfig(transformer=TINY, parts=1, part_width=12),
        "parts-3": PartsConfig(transformer=TINY, parts=3, part_width=12, neighbours=3),
        "parts-told": PartsConfig(transformer=TINY, parts=3, part_width=12, condition_size=5),
    },
    MaskedConfig: {
        f"masked-{neighbours}-neighbours": MaskedConfig(transformer=TINY, neighbours=neighbours)
        for neighbours in (0, 12)
    }
    | {
        "masked-cosine": MaskedConfig(transformer=TINY, masking="cosine"),
        "masked-told": MaskedConfig(transformer=TINY, neighbours=4, condition_size=5),
    },
    FlowConfig: {
        "flow": FlowConfig(transformer=TINY),
        "flow-without-guesses": FlowConfig(transformer=TINY, self_conditioning=False),
        "flow-told": FlowConfig(transformer=TINY, condition_size=5),
        "flow-of-levels": FlowConfig(transformer=TINY, digit_bits=3),
    },
    PyramidConfig: {
        f"pyramid{told}": PyramidConfig(transformer=TINY, scales=PYRAMIDS[6], condition_size=size)
        for told, size in (("", 0), ("-told", 5))
    },
}
CONFIGS = {
    name: config
    for config_class in PRIORS
    for name, config in VARIANTS.get(config_class, {config_class.__name__: config_class()}).items()
}
WITH_TABLES = {
    name: config for name, config in CONFIGS.items() if issubclass(PRIORS[type(config)], (CausalPrior, MaskedPrior))
}
PYRAMIDAL = {name: config for name, config in CONFIGS.items() if isinstance(config, PyramidConfig)}
SEQUENTIAL = {name: config for name, config in CONFIGS.items() if issubclass(PRIORS[type(config)], SequentialPrior)}
WITH_LOGITS = {name: config for name, config in CONFIGS.items() if not isinstance(config, FlowConfig)}
GRIDS = [(1, 1), (2, 3), (5, 1), (1, 4)]

TOLD = {name: config for name, config in CONFIGS.items() if config.condition_size}
TOLD_SEQUENTIAL = {name: config for name, config in SEQUENTIAL.items() if name in TOLD}

every_told_prior = pytest.mark.parametrize("config", TOLD.values(), ids=TOLD)
every_told_sequential_prior = pytest.mark.parametrize("config", TOLD_SEQUENTIAL.values(), ids=TOLD_SEQUENTIAL)
every_prior = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
every_sequential_prior = pytest.mark.parametrize("config", SEQUENTIAL.values(), ids=SEQUENTIAL)
every_prior_with_tables = pytest.mark.parametrize("config", WITH_TABLES.values(), ids=WITH_TABLES)
every_prior_that_grows = pytest.mark.parametrize(
    "config", [*WITH_TABLES.values(), *PYRAMIDAL.values()], ids=[*WITH_TABLES, *PYRAMIDAL]
)
every_prior_with_logits = pytest.mark.parametrize("config", WITH_LOGITS.values(), ids=WITH_LOGITS)
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=str)


def fitted(config: PriorConfig, grid: tuple[int, int]) -> PriorConfig:
    """The configuration of a prior over a grid: a pyramid's scales have as many places as that."""
    return config.replace(scales=PYRAMIDS[math.prod(grid)]) if isinstance(config, PyramidConfig) else config


def rough(config: PriorConfig, bits: int = 3, grid: tuple[int, int] = (2, 3)) -> Prior:
    """A prior in evaluation mode whose weights are large enough for each to matter."""
    prior = build_prior(fitted(config, grid), bits, grid).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return prior


def sequential(config: PriorConfig, bits: int = 3, grid: tuple[int, int] = (2, 3)) -> SequentialPrior:
    prior = rough(config, bits, grid)
    assert isinstance(prior, SequentialPrior)
    return prior


def random_tokens(batch: int, bits: int, grid: tuple[int, int]) -> Tensor:
    return torch.randint(2**bits, (batch, *grid), generator=torch.Generator().manual_seed(1))


def condition_of(prior: Prior, batch: int) -> Tensor | None:
    """Something to tell a prior, where it takes conditions."""
    size = prior.condition_size
    return torch.randn(batch, size, generator=torch.Generator().manual_seed(2)) if size else None


def all_logits(prior: Prior, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
    """Logits (B, steps, symbols) of tokens, every other column known to a masked prior; a flow's estimates."""
    if isinstance(prior, FlowPrior):
        half_way = torch.full((len(tokens),), 0.5).to(prior.place)
        points = prior.points(tokens).to(prior.place)
        return prior.estimate(points / 2, half_way, condition, points).flatten(2).mT
    if isinstance(prior, MaskedPrior):
        known = torch.zeros_like(tokens, dtype=torch.bool)
        known[:, :, ::2] = True
        return prior.logits(tokens, known, condition)
    assert isinstance(prior, SequentialPrior)
    return prior.logits(tokens, None if condition is None else prior.conditioned(condition, len(tokens)))


@every_prior
@every_grid
def test_the_loss_is_a_finite_number_on_any_grid(config: PriorConfig, grid: tuple[int, int]):
    prior = rough(config, grid=grid)
    assert (prior.codebook_size, prior.length) == (8, grid[0] * grid[1])
    loss = prior.loss(random_tokens(4, 3, grid))
    assert loss.shape == ()
    assert loss.isfinite()


@every_prior
def test_the_gradient_reaches_every_parameter(config: PriorConfig):
    prior = rough(config).train()
    prior.loss(random_tokens(4, 3, (2, 3)), condition_of(prior, 4)).backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_what_is_said_of_a_picture_is_added_alike_in_any_batch():
    transformer = TransformerConfig(width=256, n_layers=1, n_heads=2, feed_forward=12)
    prior = sequential(RasterConfig(transformer=transformer, condition_size=404))
    condition = condition_of(prior, 65)
    assert condition is not None
    together = prior.conditioned(condition, 65)
    assert together is not None
    for number in (0, 30, 64):
        rows = slice(number, number + 1)
        alone = prior.conditioned(condition[rows], 1)
        assert alone is not None
        assert torch.equal(alone.places, together.places[rows])


@every_sequential_prior
def test_bits_are_measured_some_pictures_at_a_time(config: PriorConfig, monkeypatch: pytest.MonkeyPatch):
    prior, tokens = sequential(config), random_tokens(5, 3, (2, 3))
    wanted = prior.token_bits(tokens)
    monkeypatch.setattr("bisquit.priors.base.MOST_LOGITS", 2 * prior.steps * prior.symbols + 1)  # two pictures
    torch.testing.assert_close(prior.token_bits(tokens), wanted, rtol=1e-5, atol=1e-5)
    assert prior.token_bits(tokens[:0]).shape == (0, 2, 3)


@every_prior
@pytest.mark.parametrize("shape", [(1, 3, 2), (1, 2, 4), (1, 6), (2, 3)], ids=str)
def test_tokens_of_another_grid_are_refused(config: PriorConfig, shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"\(B, 2, 3\)"):
        rough(config).loss(torch.zeros(shape, dtype=torch.int64))


@every_prior
def test_tokens_that_are_no_integers_are_refused(config: PriorConfig):
    with pytest.raises(ShapeError, match="float32"):
        rough(config).loss(torch.zeros(1, 2, 3))


@every_prior
@pytest.mark.parametrize("outside", [-1, 8])
def test_tokens_outside_of_the_codebook_are_refused(config: PriorConfig, outside: int):
    tokens = torch.full((1, 2, 3), 3)
    tokens[0, 1, 1] = outside
    with pytest.raises(TokenError, match=str(outside)):
        rough(config).loss(tokens)


@every_prior
@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32, torch.float32])
def test_tokens_of_another_type_than_int64_are_refused(config: PriorConfig, dtype: torch.dtype):
    with pytest.raises(ShapeError, match="int64"):
        rough(config).loss(random_tokens(2, 3, (2, 3)).to(dtype))


@every_prior
def test_training_lowers_the_loss(config: PriorConfig):
    prior, tokens = rough(config), random_tokens(2, 3, (2, 3))
    optimizer = torch.optim.Adam(prior.parameters(), lr=0.02)
    before = prior.loss(tokens).item()
    for _ in range(40):
        optimizer.zero_grad()
        prior.loss(tokens).backward()
        optimizer.step()
    assert prior.loss(tokens).item() < 0.5 * before


@every_prior
@pytest.mark.parametrize("wrong", [(4, 6), (3, 5), (5,)], ids=str)
def test_a_condition_of_another_size_is_refused(config: PriorConfig, wrong: tuple[int, ...]):
    with pytest.raises(ShapeError, match="condition"):
        rough(config).loss(random_tokens(4, 3, (2, 3)), torch.zeros(wrong))


@every_told_prior
def test_to_say_nothing_is_to_say_zeros(config: PriorConfig):
    prior, tokens = rough(config), random_tokens(4, 3, (2, 3))
    torch.testing.assert_close(all_logits(prior, tokens, torch.zeros(4, 5)), all_logits(prior, tokens))
    assert prior.loss(tokens, torch.zeros(4, 5)).item() == pytest.approx(prior.loss(tokens).item(), rel=1e-6)


@every_told_prior
def test_each_picture_hears_its_own_condition(config: PriorConfig):
    prior, tokens, condition = rough(config), random_tokens(4, 3, (2, 3)), torch.eye(5)[:4]
    told = all_logits(prior, tokens, condition)
    assert (told != all_logits(prior, tokens)).any(dim=2).all()
    condition[2] = torch.eye(5)[4]
    other = all_logits(prior, tokens, condition)
    assert torch.equal(told[[0, 1, 3]], other[[0, 1, 3]])
    assert (told[2] != other[2]).any(dim=1).all()


@every_sequential_prior
def test_a_step_is_given_the_outcome_of_the_one_before_and_the_first_nothing(config: PriorConfig):
    prior = sequential(config)
    with pytest.raises(ShapeError, match="step 0"):
        prior.next_logits(prior.start(2), torch.tensor([0, 1]))
    for wrong in (None, torch.tensor([0])):
        state = prior.start(2)
        prior.next_logits(state, None)
        with pytest.raises(ShapeError, match="step 1"):
            prior.next_logits(state, wrong)


@every_told_sequential_prior
def test_cached_logits_of_told_pictures_equal_those_of_a_full_pass(config: PriorConfig):
    prior, tokens = sequential(config), random_tokens(3, 3, (2, 3))
    path = prior.conditioned(torch.eye(5)[:3], 3)
    full, symbols = prior.logits(tokens, path), prior.to_symbols(tokens)
    state, last = prior.start(3, path), None
    for step in range(prior.steps):
        torch.testing.assert_close(prior.next_logits(state, last), full[:, step], rtol=0, atol=1e-5)
        torch.testing.assert_close(prior.logits_at(tokens, step, path), full[:, step], rtol=0, atol=1e-5)
        last = symbols[:, step]


@every_prior
def test_the_configuration_survives_plain_data(config: PriorConfig):
    assert type(config).from_dict(config.to_dict()) == config


@every_sequential_prior
@every_grid
@pytest.mark.parametrize("batch", [1, 3])
def test_cached_logits_equal_those_of_a_full_pass(config: PriorConfig, grid: tuple[int, int], batch: int):
    prior, tokens = sequential(config, grid=grid), random_tokens(batch, 3, grid)
    full = prior.logits(tokens)
    assert full.shape == (batch, prior.steps, prior.symbols)
    symbols, state, last = prior.to_symbols(tokens), prior.start(batch), None  # the start needs no token
    for step in range(prior.steps):
        torch.testing.assert_close(prior.next_logits(state, last), full[:, step], rtol=0, atol=1e-5)
        last = symbols[:, step]


@every_sequential_prior
@every_grid
def test_the_logits_at_a_step_are_those_of_a_full_pass(config: PriorConfig, grid: tuple[int, int]):
    prior, tokens = sequential(config, grid=grid), random_tokens(3, 3, grid)
    full = prior.logits(tokens)
    for step in range(prior.steps):
        later = tokens.clone()
        later.flatten(1)[:, -(-step // prior.parts) :] = 0  # what is not painted yet
        torch.testing.assert_close(prior.logits_at(later, step), full[:, step], rtol=0, atol=1e-5)


@every_sequential_prior
@pytest.mark.parametrize("shape", [(1, 3, 2), (1, 6)], ids=str)
def test_logits_at_a_step_of_another_grid_are_refused(config: PriorConfig, shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"\(B, 2, 3\)"):
        sequential(config).logits_at(torch.zeros(shape, dtype=torch.int64), 0)


@every_prior_with_logits
def test_the_exact_prior_is_the_same_one_in_float64_and_a_copy(config: PriorConfig):
    prior, tokens = rough(config), random_tokens(3, 3, (2, 3))
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    exact = prior.exact()
    logits = all_logits(exact, tokens)
    assert logits.dtype == torch.float64
    torch.testing.assert_close(logits, all_logits(prior, tokens).double(), rtol=0, atol=1e-5)
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.zero_()
    for name, value in prior.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.dtype == before[name].dtype


def first_to_hear(prior: SequentialPrior, step: int) -> int:
    """The first step that is given the token of a step."""
    return prior.spans[int(prior.scale_of[step])].stop if isinstance(prior, PyramidPrior) else step + 1


@every_sequential_prior
@pytest.mark.parametrize("changed", range(6))
def test_future_tokens_do_not_change_logits(config: PriorConfig, changed: int):
    prior, tokens = sequential(config), random_tokens(1, 3, (2, 3))
    other = tokens.clone()
    other.view(-1)[changed] = (other.view(-1)[changed] + 1) % 8
    differs = (prior.logits(tokens) != prior.logits(other)).any(dim=-1)[0].view(-1, prior.parts)
    assert not differs[: first_to_hear(prior, changed), 0].any()
    assert not differs[:changed].any()
    assert differs[first_to_hear(prior, changed) :].all()


@every_sequential_prior
@pytest.mark.parametrize(("bits", "grid"), [(1, (2, 3)), (2, (1, 3)), (2, (3, 1)), (3, (1, 2))], ids=str)
def test_the_chances_of_all_pictures_sum_to_one(config: PriorConfig, bits: int, grid: tuple[int, int]):
    if bits % getattr(config, "parts", 1):  # which need so many bits at least
        bits, grid = getattr(config, "parts", 1), (1, 2)
    prior = sequential(config, bits, grid).double()
    every_picture = torch.tensor(list(itertools.product(range(2**bits), repeat=prior.length))).view(-1, *grid)
    chances = prior.logits(every_picture).log_softmax(-1).gather(2, prior.to_symbols(every_picture)[..., None])
    assert chances.sum(dim=(1, 2)).exp().sum().item() == pytest.approx(1, abs=1e-12)


@every_sequential_prior
def test_bits_are_those_of_the_chances_and_their_mean_is_the_loss(config: PriorConfig):
    prior, tokens = sequential(config), random_tokens(4, 3, (2, 3))
    bits = prior.token_bits(tokens)
    assert bits.shape == tokens.shape
    assert bits.dtype == torch.float32
    assert (bits > 0).all()
    if not isinstance(config, AnyOrderConfig):  # which learns from other orders too
        assert bits.mean().item() * math.log(2) == pytest.approx(prior.loss(tokens).item(), rel=1e-6)
    chances = prior.logits(tokens).softmax(-1).gather(2, prior.to_symbols(tokens)[..., None])
    torch.testing.assert_close(bits.flatten(), -chances.log2().view(-1, prior.parts).sum(dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_another_kind_keeps_what_both_have(kind: str):
    config = RasterConfig(transformer=TINY, neighbours=2, condition_size=3, positions="rotary")
    other = of_kind(config, kind)
    assert other.kind == kind
    assert (other.transformer, other.condition_size) == (TINY, 3)
    assert of_kind(other, kind) == other


def test_a_kind_that_there_is_not_is_refused():
    with pytest.raises(ConfigError, match="one of raster, any-order"):
        of_kind(RasterConfig(), "mystery")


@pytest.mark.parametrize("rows", [1, 7, 1025])
def test_token_nats_and_their_gradient_are_those_of_cross_entropy(rows: int):
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn(rows, 1024, generator=generator, requires_grad=True)  # 512 rows are taken at a time
    theirs = ours.detach().clone().requires_grad_()
    tokens = torch.randint(1024, (rows,), generator=generator)
    nats, wanted = token_nats(ours, tokens), F.cross_entropy(theirs, tokens, reduction="none")
    torch.testing.assert_close(nats, wanted)
    weights = torch.randn(rows, generator=generator)
    (nats * weights).sum().backward()
    (wanted * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@every_prior_that_grows
def test_a_prior_grows_from_one_over_tokens_of_fewer_bits(config: PriorConfig):
    small, grown = rough(config, bits=2), rough(config, bits=4)
    weights = {
        name: array for name, array in small.state_dict().items() if grown.state_dict()[name].shape == array.shape
    }
    grown.load_state_dict(weights, strict=False)
    assert grown.grow_from(small)
    tokens = random_tokens(3, 4, (2, 3))
    wanted = all_logits(small, tokens % 4).log_softmax(-1)
    found = all_logits(grown, tokens).log_softmax(-1)
    torch.testing.assert_close(found, wanted[..., torch.arange(16) % 4] - math.log(4))


@every_prior_with_tables
def test_a_prior_that_starts_from_bits_has_tokens_of_the_same_bits_alike(config: PriorConfig):
    """What stands for a token is a sum over its bits, so that 0 and 3 add up to what 1 and 2 do."""
    prior = rough(config, bits=2)
    prior.start_from_bits()
    for table in (prior.embedding.weight, prior.head.weight, *prior.neighbours.parameters()):
        torch.testing.assert_close(table[0] + table[3], table[1] + table[2])
        assert (table[:4] != 0).any(dim=1).all()
        assert not table[4:].any()


@every_prior_that_grows
def test_a_prior_grows_from_no_other(config: PriorConfig):
    prior = rough(config, bits=3)
    wider = build_prior(config.replace(transformer=TINY.replace(width=16)), 2, (2, 3))
    before = {name: array.clone() for name, array in prior.state_dict().items()}
    assert not prior.grow_from(rough(config, bits=3))
    assert not prior.grow_from(wider)
    assert all(torch.equal(array, before[name]) for name, array in prior.state_dict().items())
