"""Sampling with a masked prior: rounds that keep the surest tokens, and pictures that no batch changes."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import roughen
from torch import Tensor, nn

from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.priors import MaskedConfig, MaskedPrior
from bisquit.sampling import DOUBT, SamplingConfig, guided, masked, sample_masked
from bisquit.sampling.masked import STEPS, RoundNoise, keep_surest, kept_in_rounds
from bisquit.sampling.races import race
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
GRID = (3, 4)
WAYS = [
    SamplingConfig(),
    SamplingConfig(steps=4, temperature=0.0),
    SamplingConfig(steps=12, temperature=0.7, top_k=3),
    SamplingConfig(steps=5, temperature=1.3, top_p=0.8, confidence_noise=0.0),
    SamplingConfig(steps=1, min_p=0.2),
]
CHI_SQUARE_OF_SEVEN = 24.3  # for 7 degrees of freedom, exceeded once in a thousand times


def made(bits: int = 4, grid: tuple[int, int] = GRID, condition_size: int = 0, dropout: float = 0.0) -> MaskedPrior:
    """A prior of random weights, large enough for each to matter."""
    config = MaskedConfig(transformer=TINY.replace(dropout=dropout), neighbours=4, condition_size=condition_size)
    prior = MaskedPrior(config, bits, grid)
    roughen(prior, 0)
    return prior.eval()


class Pass(NamedTuple):
    """What one pass was given."""

    tokens: Tensor
    known: Tensor
    condition: Tensor | None


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Pass]:
    """The passes of masked priors in float32, in turn: not those by which doubts are decided."""
    found: list[Pass] = []
    logits = MaskedPrior.masked_logits

    def watched(self: MaskedPrior, tokens: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.place.dtype == torch.float32:
            found.append(Pass(tokens.clone(), known.clone(), condition))
        return logits(self, tokens, known, condition)

    monkeypatch.setattr(MaskedPrior, "masked_logits", watched)
    return found


class ShakyPrior(MaskedPrior):
    """Knows the logits of each place beside each token to its left; in float32, each batch size is off by its noise.

    Many logits are equal, or nearly, and so are many confidences, so that what is decided often hangs on that noise.
    """

    def __init__(self, shake: float) -> None:
        super().__init__(MaskedConfig(transformer=TINY, condition_size=1), 3, GRID)
        self.shake = shake
        generator = torch.Generator().manual_seed(0)
        shape = (self.length, self.codebook_size + 1, self.codebook_size)  # the last row: none known there
        levels = torch.randint(4, shape, generator=generator) * 0.5
        self.table = nn.Parameter(levels + 3e-6 * torch.randn(shape, generator=generator))

    def masked_logits(self, tokens: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        left = tokens.where(known, self.codebook_size).flatten(1).roll(1, dims=1)
        logits = self.table[torch.arange(self.length), left]
        if condition is not None:
            logits = logits + 0.5 * condition.view(-1, 1, 1) * torch.arange(8)
        logits = logits[~known.flatten(1)]
        if self.table.dtype == torch.float64:
            return logits
        generator = torch.Generator().manual_seed(1000 * len(tokens) + int(known.sum()))
        return logits + self.shake * torch.randn(logits.shape, generator=generator)


def in_batches(prior: MaskedPrior, n: int, batch: int, settings: SamplingConfig, told: bool = False) -> Tensor:
    parts = [range(start, min(start + batch, n)) for start in range(0, n, batch)]
    painted = []
    for numbers in parts:
        condition = torch.ones(len(numbers), 1) if told else None
        painted.append(sample_masked(prior, numbers, seed=0, settings=settings, condition=condition))
    return torch.cat(painted)


def some_given(n: int, codebook_size: int = 16) -> Tensor:
    """Random tokens at half of the places of n pictures, -1 at the others."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(codebook_size, (n, *GRID), generator=generator)
    return tokens.where(torch.rand(n, *GRID, generator=generator) < 0.5, -1)


# Pictures that no batch changes.


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_the_same_seed_gives_the_same_tokens_in_any_batch(settings: SamplingConfig):
    prior = made()
    alone = in_batches(prior, 16, 1, settings)
    assert alone.shape == (16, 3, 4)
    assert alone.dtype == torch.int64
    assert 0 <= alone.min() <= alone.max() < 16
    for batch in (3, 16):
        assert torch.equal(in_batches(prior, 16, batch, settings), alone)


SHAKEN = [
    SamplingConfig(steps=4),
    SamplingConfig(steps=4, confidence_noise=0.0),
    SamplingConfig(steps=5, temperature=0.0),
    SamplingConfig(steps=6, temperature=0.0, confidence_noise=0.0),
    SamplingConfig(steps=6, top_k=3, confidence_noise=0.1),
    SamplingConfig(steps=3, top_p=0.5, confidence_noise=0.0),
    SamplingConfig(steps=4, min_p=math.exp(-0.5), confidence_noise=0.0),
    SamplingConfig(steps=1),
]


@pytest.mark.parametrize("settings", SHAKEN, ids=str)
def test_logits_that_differ_in_their_last_digits_give_the_same_pictures(settings: SamplingConfig):
    wanted = in_batches(ShakyPrior(shake=0.0).double(), 24, 24, settings)
    for batch in (1, 5, 24):
        differs = (in_batches(ShakyPrior(shake=1e-5), 24, batch, settings) != wanted).flatten(1).any(dim=1)
        assert not differs.any(), f"{int(differs.sum())} of 24 pictures are others in batches of {batch}"


@pytest.mark.parametrize("settings", [SHAKEN[1], SHAKEN[3]], ids=str)
def test_without_a_doubt_they_would_not(settings: SamplingConfig, monkeypatch: pytest.MonkeyPatch):
    """Or the test above would tell nothing."""
    monkeypatch.setattr(masked, "DOUBT", 0.0)
    assert not torch.equal(
        in_batches(ShakyPrior(shake=1e-5), 24, 5, settings), in_batches(ShakyPrior(shake=1e-5), 24, 24, settings)
    )


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_guided_logits_that_differ_in_their_last_digits_give_the_same_pictures(schedule: str):
    settings = SamplingConfig(steps=4, guidance=3.0, guidance_schedule=schedule, confidence_noise=0.0)
    wanted = in_batches(ShakyPrior(shake=0.0).double(), 24, 24, settings, told=True)
    for batch in (1, 5):
        assert torch.equal(in_batches(ShakyPrior(shake=1e-5), 24, batch, settings, told=True), wanted)


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_what_is_decided_again_is_what_float64_decides(settings: SamplingConfig, monkeypatch: pytest.MonkeyPatch):
    """With a doubt that is larger than any lead, every round of every picture is computed again, alone."""
    wanted, alone = in_batches(made().double(), 6, 1, settings), []
    logits = MaskedPrior.masked_logits

    def watched(self: MaskedPrior, tokens: Tensor, known: Tensor, condition: Tensor | None = None) -> Tensor:
        if self.place.dtype == torch.float64:
            alone.append(len(tokens))
        return logits(self, tokens, known, condition)

    monkeypatch.setattr(MaskedPrior, "masked_logits", watched)
    monkeypatch.setattr(masked, "DOUBT", 1e6)
    assert torch.equal(in_batches(made(), 6, 6, settings), wanted)
    assert alone == [1] * (6 * (settings.steps or 12))


def test_what_is_clear_is_not_computed_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MaskedPrior, "exact", lambda self: pytest.fail("a round was in doubt"))
    sample_masked(made(), range(8), seed=0)


def test_pictures_are_those_of_their_numbers():
    prior = made()
    whole = sample_masked(prior, range(6), seed=3)
    assert torch.equal(sample_masked(prior, [4, 1], seed=3), whole[[4, 1]])
    assert len(whole.flatten(1).unique(dim=0)) == 6
    assert not torch.equal(sample_masked(prior, range(6), seed=4), whole)


def test_sampling_draws_nothing_from_the_global_generator():
    prior, before = made(), torch.get_rng_state()
    sample_masked(prior, range(2), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_off_while_sampling():
    prior = made(dropout=0.5).train()
    assert torch.equal(sample_masked(prior, range(4), seed=0), sample_masked(made(), range(4), seed=0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_a_gpu_paints_the_pictures_that_a_cpu_does(settings: SamplingConfig):
    wanted = sample_masked(made(), range(16), seed=0, settings=settings)
    assert torch.equal(sample_masked(made().cuda(), range(16), seed=0, settings=settings), wanted)


# Rounds.


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_each_round_takes_one_pass(passes: list[Pass], steps: int):
    prior = made()
    sample_masked(prior, range(3), seed=0, settings=SamplingConfig(steps=steps))
    assert [len(tokens) for tokens, _, _ in passes] == [3] * steps


@pytest.mark.parametrize("steps", [1, 3, 12])
def test_with_guidance_a_pass_is_of_each_picture_twice(passes: list[Pass], steps: int):
    prior, condition = made(condition_size=3), torch.eye(3)
    settings = SamplingConfig(steps=steps, guidance=2.0)
    sample_masked(prior, range(3), seed=0, settings=settings, condition=condition)
    assert [len(tokens) for tokens, _, _ in passes] == [6] * steps
    for tokens, known, told in passes:
        assert torch.equal(tokens[:3], tokens[3:])
        assert torch.equal(known[:3], known[3:])
        assert torch.equal(told, torch.cat((condition, torch.zeros(3, 3))))


def test_by_default_a_picture_takes_as_many_rounds_as_the_family_has_it(passes: list[Pass]):
    sample_masked(made(grid=(3, 4)), range(2), seed=0)
    assert len(passes) == 12 < STEPS  # one for each token
    passes.clear()
    sample_masked(made(grid=(4, 5)), range(2), seed=0)
    assert len(passes) == STEPS


def test_with_as_many_rounds_as_tokens_each_keeps_one(passes: list[Pass]):
    prior = made()
    sample_masked(prior, range(3), seed=0, settings=SamplingConfig(steps=12))
    assert [known.flatten(1).sum(dim=1).tolist() for _, known, _ in passes] == [[i] * 3 for i in range(12)]


def test_what_a_round_keeps_stays_and_the_next_is_told_of_it(passes: list[Pass]):
    prior = made()
    painted = sample_masked(prior, range(3), seed=0, settings=SamplingConfig(steps=5))
    counts = []
    for tokens, known, _ in passes:
        assert torch.equal(tokens[known], painted[known])
        assert not tokens[~known].any()
        counts.append(known.flatten(1).sum(dim=1).tolist())
    assert counts == [[0] * 3, [1] * 3, [3] * 3, [5] * 3, [9] * 3]
    for (_, before, _), (_, after, _) in itertools.pairwise(passes):
        assert not (before & ~after).any()


@given(st.integers(0, 700), st.integers(1, 64))
def test_rounds_keep_all_in_the_end_and_one_at_least_while_any_is_masked(tokens: int, steps: int):
    counts = kept_in_rounds(tokens, steps)
    assert len(counts) == steps
    assert sum(counts) == tokens
    left = tokens
    for count in counts:
        assert count >= min(1, left)
        left -= count


@pytest.mark.parametrize("length", [1, 2, 15, 16, 600])
def test_as_many_rounds_as_tokens_keep_one_each(length: int):
    assert kept_in_rounds(length, length) == [1] * length


def test_rounds_keep_few_tokens_first_and_most_at_last():
    assert kept_in_rounds(600, 1) == [600]
    assert kept_in_rounds(600, 3) == [81, 219, 300]  # cos(pi / 3) is a half, whatever its last digit is
    counts = kept_in_rounds(600, 16)
    assert all(after >= before - 1 for before, after in itertools.pairwise(counts))  # whole tokens, of a cosine
    assert (counts[0], counts[-1]) == (3, 58)


def test_a_single_round_draws_each_token_by_itself():
    """All three tokens of a picture are what the prior says of each without the others."""
    prior = made(bits=1, grid=(1, 3))
    nothing = torch.zeros(1, 1, 3, dtype=torch.bool)
    with torch.no_grad():
        chances = prior.logits(torch.zeros(1, 1, 3, dtype=torch.int64), nothing).softmax(dim=2)[0]
    wanted = torch.tensor(
        [math.prod(float(chances[place, i >> (2 - place) & 1]) for place in range(3)) for i in range(8)]
    )
    drawn = sample_masked(prior, range(1500), seed=0, settings=SamplingConfig(steps=1)).flatten(1)
    counts = (drawn @ torch.tensor([4, 2, 1])).bincount(minlength=8)
    assert float(((counts - 1500 * wanted) ** 2 / (1500 * wanted)).sum()) < CHI_SQUARE_OF_SEVEN


def test_a_token_each_round_in_an_order_at_random_has_the_likelihood_that_the_loss_bounds():
    """With much more noise than confidence, the order is any, and each token is drawn given those before it."""
    prior = made(bits=1, grid=(1, 3))
    every_picture = torch.tensor(list(itertools.product(range(2), repeat=3))).view(-1, 1, 3)
    wanted = torch.zeros(8)
    for order in itertools.permutations(range(3)):
        chance, known = torch.ones(8), torch.zeros(8, 1, 3, dtype=torch.bool)
        for place in order:
            with torch.no_grad():
                chances = prior.logits(every_picture, known).softmax(dim=2)[:, place]
            chance *= chances.gather(1, every_picture.flatten(1)[:, place : place + 1])[:, 0]
            known[:, 0, place] = True
        wanted += chance / 6
    settings = SamplingConfig(steps=3, confidence_noise=1e6)
    drawn = sample_masked(prior, range(1500), seed=0, settings=settings).flatten(1)
    counts = (drawn @ torch.tensor([4, 2, 1])).bincount(minlength=8)
    assert float(((counts - 1500 * wanted) ** 2 / (1500 * wanted)).sum()) < CHI_SQUARE_OF_SEVEN


# What is kept.


class ToldNoise(NamedTuple):
    """What stands for a `RoundNoise`: float64 noise of all races (N, codebook), and of confidences (N,)."""

    races: Tensor
    confidence: Tensor

    def of_races(self, which: Tensor) -> Tensor:
        return self.races[which]


def still(places: int, codebook_size: int) -> ToldNoise:
    """No noise."""
    return ToldNoise(torch.zeros(places, codebook_size, dtype=torch.float64), torch.zeros(places, dtype=torch.float64))


def test_the_surest_are_kept():
    logits = torch.tensor([[0.0, 1.0], [5.0, 0.0], [0.0, 3.0]])
    kept = keep_surest(logits, still(3, 2), 2, SamplingConfig(), DOUBT)
    assert kept.places.tolist() == [1, 2]
    assert kept.tokens.tolist() == [0, 1]
    assert not kept.in_doubt


def test_how_sure_a_token_is_is_its_own_chance_and_not_the_likeliest_ones():
    logits, noise = torch.tensor([[5.0, 0.0], [0.0, 0.4]]), still(2, 2)
    noise.races[0, 1] = 9  # the unlikely one wins
    kept = keep_surest(logits, noise, 1, SamplingConfig(), DOUBT)
    assert (kept.places.tolist(), kept.tokens.tolist()) == ([1], [1])


def test_noise_may_keep_others():
    logits, noise = torch.tensor([[0.0, 1.0], [0.0, 2.0]]), still(2, 2)
    assert keep_surest(logits, noise, 1, SamplingConfig(), DOUBT).places.tolist() == [1]
    noise.confidence[0] = 3
    assert keep_surest(logits, noise, 1, SamplingConfig(), DOUBT).places.tolist() == [0]


@pytest.mark.parametrize(
    ("logits", "count", "in_doubt"),
    [
        ([[0.0, 3.0], [0.0, 1.0]], 1, False),
        ([[0.0, 1.0], [0.0, 1.0 + 1e-5]], 1, True),  # a cut that hangs on less than the doubt
        ([[0.0, 1.0], [0.0, 1.0 + 1e-5]], 2, False),  # both are kept whatever their order
        ([[0.0, 1e-5], [0.0, 3.0]], 2, True),  # a token that wins narrowly, and is kept
        ([[0.0, 1e-5], [0.0, 3.0]], 1, False),  # one that is not kept, whichever wins
        ([[1.0, 1.0, 9.0], [0.0, 0.0, 3.0]], 1, False),
    ],
)
def test_a_round_is_in_doubt_where_last_digits_could_change_it(logits: list[list[float]], count: int, in_doubt: bool):
    x = torch.tensor(logits)
    assert keep_surest(x, still(*x.shape), count, SamplingConfig(), DOUBT).in_doubt == in_doubt


def test_a_narrow_race_is_in_doubt_where_its_other_token_would_be_kept():
    logits, noise = torch.tensor([[4.0, 0.0], [0.0, 1.0]]), still(2, 2)
    noise.races[0, 1] = 4 + 1e-5  # the unlikely token of the first place is just ahead, and would not be kept
    kept = keep_surest(logits, noise, 1, SamplingConfig(), DOUBT)
    assert kept.places.tolist() == [1]
    assert kept.in_doubt


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 2), st.integers(-2, 2), st.integers(-2, 2)), min_size=3, max_size=3),
        min_size=2,
        max_size=4,
    ),
    st.integers(1, 4),
    st.sampled_from(
        [
            SamplingConfig(temperature=0.0),
            SamplingConfig(),
            SamplingConfig(top_k=2),
            SamplingConfig(top_p=0.5),
            SamplingConfig(min_p=math.exp(-0.5)),
        ]
    ),
    st.integers(0, 3),
)
def test_what_is_in_no_doubt_is_the_same_for_logits_a_little_off(
    places: list[list[tuple[int, int, int]]], count: int, config: SamplingConfig, seed: int
):
    level, jitter, off = torch.tensor(places, dtype=torch.float64).permute(2, 0, 1)
    logits, count = 0.5 * level + 1e-5 * jitter, min(count, len(places))
    uniform = torch.rand(len(places), 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    noise = ToldNoise((2 * uniform[:, 1:]).round(), (2 * uniform[:, 0]).round())  # so that ties are many
    here, there = (keep_surest(x, noise, count, config, DOUBT) for x in (logits, logits + 1e-5 * off))
    if not here.in_doubt:
        assert dict(zip(here.places.tolist(), here.tokens.tolist(), strict=True)) == dict(
            zip(there.places.tolist(), there.tokens.tolist(), strict=True)
        )


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 1.0, 15.0]), st.integers(0, 2**32))
def test_places_that_have_no_race_would_not_be_kept(places: int, count: int, confidence_noise: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    logits, count = 3 * torch.randn(places, 6, generator=generator), min(count, places)
    noise = RoundNoise(seed, torch.ones(places, dtype=torch.bool), 6, confidence_noise)
    kept = keep_surest(logits, noise, count, SamplingConfig(top_p=0.9), DOUBT)
    every = race(logits, noise.of_races(torch.arange(places)), SamplingConfig(top_p=0.9), DOUBT).tokens
    sure = logits.double().log_softmax(dim=1).gather(1, every.unsqueeze(1))[:, 0] + noise.confidence
    assert kept.in_doubt or sorted(kept.places.tolist()) == sorted(sure.topk(count).indices.tolist())
    assert torch.equal(kept.tokens, every[kept.places])


def test_few_places_have_a_race_where_few_are_kept(monkeypatch: pytest.MonkeyPatch):
    raced = []
    monkeypatch.setattr(masked, "race", lambda logits, *rest: raced.append(len(logits)) or race(logits, *rest))
    generator = torch.Generator().manual_seed(0)
    noise = RoundNoise(0, torch.ones(600, dtype=torch.bool), 16, 15.0)
    keep_surest(torch.randn(600, 16, generator=generator), noise, 10, SamplingConfig(), DOUBT)
    assert 10 <= sum(raced) < 40


def test_noise_of_a_place_is_the_same_whatever_is_known_or_raced_before():
    every, one = torch.ones(3, dtype=torch.bool), torch.tensor([False, True, False])
    all_of_it, some = RoundNoise(7, every, 4, 2.0), RoundNoise(7, one, 4, 2.0)
    first, last = all_of_it.of_races(torch.tensor([1])), all_of_it.of_races(torch.tensor([2, 0, 1]))
    assert torch.equal(first, last[2:])
    assert torch.equal(some.of_races(torch.tensor([0])), first)
    assert torch.equal(some.confidence, all_of_it.confidence[1:2])


def test_noise_differs_from_place_to_place_and_from_round_to_round():
    places = torch.ones(3, dtype=torch.bool)
    drawn = [RoundNoise(seed, places, 4, 1.0).of_races(torch.arange(3)) for seed in (1, 2)]
    assert torch.cat(drawn).unique().numel() == 2 * 3 * 4


def test_noise_of_races_is_gumbels():
    noise = RoundNoise(0, torch.ones(20, dtype=torch.bool), 1024, 0.0).of_races(torch.arange(20)).flatten()
    assert float(noise.mean()) == pytest.approx(0.5772, abs=0.03)  # Euler's constant, and pi**2 / 6: of 20,480
    assert float(noise.var()) == pytest.approx(math.pi**2 / 6, abs=0.1)


def test_confidence_noise_is_scaled_and_that_of_races_is_not():
    one, two = (RoundNoise(3, torch.ones(5, dtype=torch.bool), 4, scale) for scale in (1.0, 2.0))
    assert torch.equal(two.confidence, 2 * one.confidence)
    assert torch.equal(two.of_races(torch.arange(5)), one.of_races(torch.arange(5)))


# Settings.


def test_at_temperature_zero_without_noise_all_pictures_are_the_likeliest(passes: list[Pass]):
    prior, settings = made(), SamplingConfig(steps=4, temperature=0.0, confidence_noise=0.0)
    painted = sample_masked(prior, range(3), seed=0, settings=settings)
    assert torch.equal(painted[0], painted[1])
    tokens, known, _ = passes[-1]
    with torch.no_grad():
        likeliest = prior.logits(tokens, known).argmax(dim=2).view_as(tokens)
    assert torch.equal(painted[~known], likeliest[~known])


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 2},
        {"temperature": 0.5},
        {"top_k": 2},
        {"top_p": 0.5},
        {"min_p": 0.5},
        {"confidence_noise": 0.0},
        {"confidence_noise": 1.0},
        {"guidance": 3.0},
        {"guidance": 3.0, "guidance_schedule": "linear"},
    ],
    ids=str,
)
def test_each_setting_is_heard(changes: dict[str, float]):
    prior, condition, usual = made(condition_size=3), torch.eye(3).repeat(3, 1)[:8], SamplingConfig(steps=6)
    if "guidance_schedule" in changes:
        usual = usual.replace(guidance=3.0)
    plain, changed = (
        sample_masked(prior, range(8), seed=0, settings=settings, condition=condition)
        for settings in (usual, usual.replace(**changes))
    )
    assert not torch.equal(plain, changed)


def test_top_k_of_one_takes_the_likeliest_as_temperature_zero_does():
    settings = SamplingConfig(steps=4, confidence_noise=2.0)
    likeliest, first = (
        sample_masked(made(), range(4), seed=0, settings=settings.replace(**changes))
        for changes in ({"temperature": 0.0}, {"top_k": 1})
    )
    assert torch.equal(first, likeliest)


@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_guided_tokens_are_those_of_guided_logits(passes: list[Pass], guidance: float):
    prior, condition = made(condition_size=3), torch.eye(3)
    settings = SamplingConfig(steps=1, temperature=0.0, guidance=guidance)
    painted = sample_masked(prior, range(3), seed=0, settings=settings, condition=condition)
    with torch.no_grad():
        logits = guided(prior.logits(*passes[0]), guidance)
    assert torch.equal(painted.flatten(1), logits.argmax(dim=2))


def test_guidance_grows_from_round_to_round(monkeypatch: pytest.MonkeyPatch):
    scales = []
    monkeypatch.setattr(masked, "guided", lambda logits, scale: scales.append(scale) or guided(logits, scale))
    settings = SamplingConfig(steps=5, guidance=3.0, guidance_schedule="linear")
    sample_masked(made(condition_size=3), range(3), seed=0, settings=settings, condition=torch.eye(3))
    assert list(dict.fromkeys(scales)) == [1.0, 1.5, 2.0, 2.5, 3.0]  # once more where a round is in doubt


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_guided_picture_is_the_same_in_any_batch(schedule: str):
    prior, condition = made(condition_size=3), torch.eye(3).repeat(2, 1)
    settings = SamplingConfig(steps=6, guidance=3.0, guidance_schedule=schedule)
    together = sample_masked(prior, range(6), seed=1, settings=settings, condition=condition)
    for i in range(6):
        alone = sample_masked(prior, [i], seed=1, settings=settings, condition=condition[i : i + 1])
        assert torch.equal(alone, together[i : i + 1])


def test_pictures_show_what_they_are_told():
    prior = made(condition_size=3)
    told = sample_masked(prior, range(4), seed=0, condition=torch.eye(3)[[0, 1, 2, 0]])
    plain = sample_masked(prior, range(4), seed=0)
    assert not torch.equal(told, plain)
    assert torch.equal(sample_masked(prior, range(4), seed=0, condition=torch.zeros(4, 3)), plain)


def test_guidance_without_anything_to_be_guided_to_is_refused():
    with pytest.raises(ConfigError, match="a class or a prompt"):
        sample_masked(made(condition_size=3), range(2), seed=0, settings=SamplingConfig(guidance=2.0))


def test_a_condition_of_another_size_is_refused():
    with pytest.raises(ShapeError, match="condition"):
        sample_masked(made(condition_size=3), range(2), seed=0, condition=torch.zeros(2, 4))


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", -1), ("confidence_noise", -0.1), ("confidence_noise", math.inf), ("confidence_noise", math.nan)],
)
def test_settings_out_of_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        SamplingConfig(**{field: value})


def test_more_rounds_than_tokens_are_refused():
    with pytest.raises(ConfigError, match="steps is 13: it must be at most 12"):
        sample_masked(made(), range(2), seed=0, settings=SamplingConfig(steps=13))


def test_logits_that_are_not_finite_are_an_error():
    prior = made()
    with torch.no_grad():
        prior.head.bias[3] = math.nan
    with pytest.raises(ModelError, match="not finite"):
        sample_masked(prior, range(2), seed=0)


# What is given.


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_given_tokens_stay_in_any_batch(settings: SamplingConfig):
    prior, fixed = made(), some_given(8)
    before = fixed.clone()
    painted = sample_masked(prior, range(8), seed=0, settings=settings, given=fixed)
    assert torch.equal(fixed, before)
    assert torch.equal(painted[fixed >= 0], fixed[fixed >= 0])
    assert (painted[fixed < 0] >= 0).all()
    for i in range(8):
        alone = sample_masked(prior, [i], seed=0, settings=settings, given=fixed[i : i + 1])
        assert torch.equal(alone, painted[i : i + 1])


def test_given_tokens_are_known_from_the_start_wherever_they_are(passes: list[Pass]):
    prior, fixed = made(), torch.full((1, *GRID), -1)
    fixed[0, 2, 3] = 5
    sample_masked(prior, [0], seed=0, given=fixed)
    tokens, known, _ = passes[0]
    assert known.flatten().tolist() == [False] * 11 + [True]
    assert tokens[0, 2, 3] == 5


def test_given_tokens_may_lie_in_memory_in_any_order():
    fixed = some_given(4)
    turned = fixed.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert not turned.is_contiguous()
    assert torch.equal(
        sample_masked(made(), range(4), seed=0, given=turned), sample_masked(made(), range(4), seed=0, given=fixed)
    )


def test_pictures_of_which_more_is_given_are_done_sooner(passes: list[Pass]):
    fixed = some_given(3)
    fixed[0] = 5
    fixed[1].view(-1)[2:] = 5
    fixed[1].view(-1)[:2] = -1
    prior = made()
    sample_masked(prior, range(3), seed=0, given=fixed)
    most = int((fixed < 0).flatten(1).sum(dim=1).max())
    assert len(passes) == most
    assert [int(known[1].sum()) for _, known, _ in passes][:3] == [10, 11, 12]


def test_pictures_that_are_given_in_full_come_back_without_a_pass(passes: list[Pass]):
    prior, whole = made(), some_given(3).clamp_min(5)
    assert torch.equal(sample_masked(prior, range(3), seed=0, given=whole), whole)
    assert not passes


def test_each_round_tells_how_many_tokens_every_picture_has():
    fixed = some_given(4)
    told: list[tuple[int, Tensor]] = []
    settings = SamplingConfig(steps=4)
    painted = sample_masked(
        made(),
        range(4),
        seed=0,
        settings=settings,
        given=fixed,
        on_token=lambda done, so_far: told.append((done, so_far.clone())),
    )
    assert len(told) == 4
    done = [count for count, _ in told]
    assert done == sorted(done)
    assert done[-1] == 12
    assert torch.equal(told[-1][1], painted)
    for _, so_far in told:
        assert ((so_far == painted) | (so_far == -1)).all()
        assert torch.equal(so_far[fixed >= 0], fixed[fixed >= 0])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (torch.full((1, 3, 4), -1), ShapeError, "1 pictures are given for 2"),
        (torch.full((2, 4, 3), -1), ShapeError, r"\(B, 3, 4\)"),
        (torch.full((2, 3, 4), -1.0), ShapeError, "float32"),
        (torch.full((2, 3, 4), -2), TokenError, "a given token is -2"),
        (torch.full((2, 3, 4), 16), TokenError, "16"),
    ],
)
def test_given_tokens_that_do_not_fit_are_refused(wrong: Tensor, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        sample_masked(made(), range(2), seed=0, given=wrong)
