"""Sampling: races that follow the chances, what top-k, top-p and min-p leave, and pictures that no batch changes."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import roughen
from torch import Tensor, nn

from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.priors import AnyOrderConfig, AnyOrderPrior, Path, RasterConfig, RasterPrior, SequentialPrior
from bisquit.sampling import DOUBT, Noise, SamplingConfig, all_finite, check_given, guided, race, sample
from bisquit.sampling.races import Ranking, gumbel, surely_allowed
from bisquit.transformer import TransformerConfig

FIVE_WAYS = [
    SamplingConfig(),
    SamplingConfig(temperature=0.0),
    SamplingConfig(temperature=0.7, top_k=3),
    SamplingConfig(temperature=1.3, top_p=0.8),
    SamplingConfig(min_p=0.2),
]


CHI_SQUARE_OF_SEVEN = 24.3  # for 7 degrees of freedom, exceeded once in a thousand times


def chances(*values: float) -> Tensor:
    """Logits (1, codebook) with these chances at temperature 1."""
    return torch.tensor([values]).log()


def kept(logits: Tensor, **fields: float) -> list[int]:
    return Ranking(logits, SamplingConfig(**fields)).allowed()[0].nonzero().flatten().tolist()


def chi_square(drawn: Tensor, wanted: Tensor) -> float:
    expected = wanted * len(drawn)
    return float(((drawn.bincount(minlength=len(wanted)) - expected) ** 2 / expected).sum())


class ShakyPrior(SequentialPrior):
    """Knows the logits of each step after each token; in float32, each batch size and step is off by its own noise.

    Many logits are equal, or nearly, so that what is decided often hangs on that noise.
    """

    def __init__(self, shake: float) -> None:
        super().__init__()
        self.bits, self.grid, self.shake = 3, (3, 4), shake
        generator = torch.Generator().manual_seed(0)
        shape = (self.length, self.codebook_size + 1, self.codebook_size)  # the last row: no token before
        levels = torch.randint(4, shape, generator=generator) * 0.5
        self.table = nn.Parameter(levels + 3e-6 * torch.randn(shape, generator=generator))

    def after(self, step: int, last: Tensor) -> Tensor:
        logits = self.table[step, last]
        if self.table.dtype == torch.float64:
            return logits
        generator = torch.Generator().manual_seed(1000 * len(last) + step)
        return logits + self.shake * torch.randn(logits.shape, generator=generator)

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        start = torch.full((len(tokens), 1), self.codebook_size)
        before = torch.cat((start, tokens.flatten(1)[:, :-1]), dim=1)
        return torch.stack([self.after(step, before[:, step]) for step in range(self.length)], dim=1)

    def start(self, batch: int, path: Path | None = None) -> list[int]:
        return [0, batch]

    def next_logits(self, state: list[int], last: Tensor | None) -> Tensor:
        step, batch = state
        state[0] += 1
        return self.after(step, torch.full((batch,), self.codebook_size) if last is None else last)


def in_batches(prior: SequentialPrior, n: int, batch: int, settings: SamplingConfig, seed: int = 0) -> Tensor:
    parts = [range(start, min(start + batch, n)) for start in range(0, n, batch)]
    return torch.cat([sample(prior, numbers, seed=seed, settings=settings) for numbers in parts])


@pytest.mark.parametrize("settings", FIVE_WAYS, ids=str)
def test_the_same_seed_gives_the_same_tokens_in_any_batch(make_prior, settings: SamplingConfig):
    prior = make_prior(bits=4, grid=(3, 4))
    alone = in_batches(prior, 16, 1, settings)
    assert alone.shape == (16, 3, 4)
    assert alone.dtype == torch.int64
    for batch in (3, 16):
        assert torch.equal(in_batches(prior, 16, batch, settings), alone)


@pytest.mark.parametrize(
    "settings",
    [
        SamplingConfig(),
        SamplingConfig(temperature=0.0),
        SamplingConfig(top_k=1),
        SamplingConfig(top_k=3),
        SamplingConfig(top_p=0.1),
        SamplingConfig(top_p=0.5),
        SamplingConfig(temperature=2.0, top_p=0.9),
        SamplingConfig(min_p=1.0),
        SamplingConfig(min_p=math.exp(-0.5)),
        SamplingConfig(temperature=0.5, top_k=4, top_p=0.7, min_p=0.1),
    ],
    ids=str,
)
def test_logits_that_differ_in_their_last_digits_give_the_same_pictures(settings: SamplingConfig):
    wanted = in_batches(ShakyPrior(shake=0.0).double(), 48, 48, settings)
    for batch in (1, 5, 48):
        differs = (in_batches(ShakyPrior(shake=1e-5), 48, batch, settings) != wanted).flatten(1).any(dim=1)
        assert not differs.any(), f"{int(differs.sum())} of 48 pictures are others in batches of {batch}"


def test_pictures_are_those_of_their_numbers(make_prior):
    prior = make_prior()
    whole = sample(prior, range(6), seed=3)
    assert torch.equal(sample(prior, [4, 1], seed=3), whole[[4, 1]])
    assert len(whole.flatten(1).unique(dim=0)) == 6


def test_other_seeds_give_other_pictures(make_prior):
    prior = make_prior()
    assert not torch.equal(sample(prior, range(4), seed=0), sample(prior, range(4), seed=1))


def test_sampling_draws_nothing_from_the_global_generator(make_prior):
    prior, before = make_prior(), torch.get_rng_state()
    sample(prior, range(2), seed=0)
    assert torch.equal(torch.get_rng_state(), before)


def test_sampling_leaves_the_prior_as_it_was():
    prior = ShakyPrior(shake=1e-5)
    before = prior.table.detach().clone()
    sample(prior, range(8), seed=0, settings=SamplingConfig(temperature=0.0))
    assert prior.table.dtype == torch.float32
    assert torch.equal(prior.table, before)
    assert prior.table.requires_grad


def test_dropout_is_off_while_sampling(make_prior):
    prior = make_prior(dropout=0.5).train()
    assert torch.equal(sample(prior, range(4), seed=0), sample(make_prior(dropout=0.0), range(4), seed=0))


def test_at_temperature_zero_each_token_is_the_likeliest(make_prior):
    prior = make_prior()
    tokens = sample(prior, range(2), seed=0, settings=SamplingConfig(temperature=0.0))
    with torch.inference_mode():
        assert torch.equal(prior.logits(tokens).argmax(dim=2).view_as(tokens), tokens)
    assert torch.equal(tokens[0], tokens[1])


def test_each_token_is_told_with_all_so_far(make_prior):
    prior = make_prior()
    told: list[tuple[int, Tensor]] = []
    tokens = sample(prior, range(2), seed=0, on_token=lambda done, so_far: told.append((done, so_far.clone())))
    assert [done for done, _ in told] == [1, 2, 3, 4, 5, 6]
    for done, so_far in told:
        assert torch.equal(so_far.flatten(1)[:, :done], tokens.flatten(1)[:, :done])
        assert not so_far.flatten(1)[:, done:].any()


def some_given(whole: Tensor, codebook_size: int) -> Tensor:
    """Random tokens at half of the places of these pictures, -1 at the others."""
    generator = torch.Generator().manual_seed(7)
    tokens = torch.randint(codebook_size, whole.shape, generator=generator)
    return tokens.where(torch.rand(whole.shape, generator=generator) < 0.5, -1)


@pytest.mark.parametrize("settings", FIVE_WAYS, ids=str)
def test_given_tokens_stay_in_any_batch(make_prior, settings: SamplingConfig):
    prior = make_prior(bits=4, grid=(3, 4))
    fixed = some_given(torch.zeros(8, 3, 4), 16)
    before = fixed.clone()
    painted = sample(prior, range(8), seed=0, settings=settings, given=fixed)
    assert torch.equal(fixed, before)
    assert painted.dtype == torch.int64
    assert torch.equal(painted[fixed >= 0], fixed[fixed >= 0])
    assert (painted[fixed < 0] >= 0).all()
    for i in range(8):
        assert torch.equal(sample(prior, [i], seed=0, settings=settings, given=fixed[i : i + 1]), painted[i : i + 1])


def test_what_is_painted_follows_from_what_is_given(make_prior):
    prior = make_prior(bits=4, grid=(3, 4))
    fixed = some_given(torch.zeros(8, 3, 4), 16)
    painted = sample(prior, range(8), seed=0, settings=SamplingConfig(temperature=0.0), given=fixed)
    with torch.inference_mode():
        likeliest = prior.logits(painted).argmax(dim=2).view_as(painted)
    assert torch.equal(painted[fixed < 0], likeliest[fixed < 0])


def test_giving_what_would_be_painted_anyway_changes_nothing(make_prior):
    """Each place has noise of its own, which is drawn whether it is needed or not."""
    prior = make_prior(bits=4, grid=(3, 4))
    whole = sample(prior, range(8), seed=0)
    kept = whole.where(some_given(whole, 16) >= 0, -1)
    assert torch.equal(sample(prior, range(8), seed=0, given=kept), whole)
    assert torch.equal(sample(prior, range(8), seed=0, given=torch.full_like(whole, -1)), whole)


def test_pictures_that_are_given_in_full_come_back(make_prior):
    prior = make_prior(bits=4, grid=(3, 4))
    whole = some_given(torch.zeros(3, 3, 4), 16).clamp_min(5)
    assert torch.equal(sample(prior, range(3), seed=0, given=whole), whole)


def test_what_is_given_is_never_in_doubt():
    """Many races of this prior are: whoever decides them leaves the given tokens alone."""
    fixed = some_given(torch.zeros(48, 3, 4), 8)
    wanted = sample(ShakyPrior(shake=0.0).double(), range(48), seed=0, given=fixed)
    assert torch.equal(wanted[fixed >= 0], fixed[fixed >= 0])
    assert torch.equal(sample(ShakyPrior(shake=1e-5), range(48), seed=0, given=fixed), wanted)


def test_given_tokens_are_told_of_from_the_start(make_prior):
    fixed = torch.tensor([[[-1, 5, -1], [-1, -1, 7]]])
    told: list[Tensor] = []
    sample(make_prior(), [0], seed=0, given=fixed, on_token=lambda _, so_far: told.append(so_far.clone()))
    assert all((tokens[0, 0, 1], tokens[0, 1, 2]) == (5, 7) for tokens in told)


def test_no_pictures_are_no_tokens(make_prior):
    assert sample(make_prior(), [], seed=0).shape == (0, 2, 3)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (torch.full((1, 2, 3), -1), ShapeError, "1 pictures are given for 2"),
        (torch.full((3, 2, 3), -1), ShapeError, "3 pictures are given for 2"),
        (torch.full((2, 3, 2), -1), ShapeError, r"\(B, 2, 3\)"),
        (torch.full((2, 6), -1), ShapeError, r"\(B, 2, 3\)"),
        (torch.full((2, 2, 3), -1, dtype=torch.int32), ShapeError, "int32"),
        (torch.full((2, 2, 3), -1.0), ShapeError, "float32"),
        (torch.full((2, 2, 3), -2), TokenError, "a given token is -2"),
        (torch.full((2, 2, 3), 8), TokenError, "8"),
    ],
)
def test_given_tokens_that_do_not_fit_are_refused(make_prior, wrong: Tensor, error: type[Exception], message: str):
    prior = make_prior()
    with pytest.raises(error, match=message):
        check_given(wrong, prior, 2)
    with pytest.raises(error, match=message):
        sample(prior, range(2), seed=0, given=wrong)


def test_given_tokens_that_fit_are_taken(make_prior):
    check_given(torch.full((2, 2, 3), -1), make_prior(), 2)
    check_given(torch.full((2, 2, 3), 7), make_prior(), 2)


def test_logits_that_are_not_finite_are_an_error(make_prior):
    prior = make_prior()
    with torch.no_grad():
        prior.head.bias[3] = math.nan
    with pytest.raises(ModelError, match="not finite"):
        sample(prior, range(2), seed=0)


def test_a_prior_paints_pictures_as_often_as_it_finds_them_likely(make_prior):
    prior = make_prior(bits=1, grid=(1, 3))
    every_picture = torch.tensor([[[i >> 2 & 1, i >> 1 & 1, i & 1]] for i in range(8)])
    wanted = (-prior.token_bits(every_picture).sum(dim=(1, 2))).exp2()
    drawn = sample(prior, range(4000), seed=0).flatten(1) @ torch.tensor([4, 2, 1])
    assert chi_square(drawn, wanted) < CHI_SQUARE_OF_SEVEN


@pytest.mark.parametrize("temperature", [0.6, 1.0, 2.0])
def test_winners_follow_the_softmax(temperature: float):
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, 0.5, -0.5, 1.5])
    noise = Noise(0, range(2000), row=10, codebook_size=8)
    settings = SamplingConfig(temperature=temperature)
    drawn = torch.cat([race(logits.expand(2000, 8), noise.next(), settings).tokens for _ in range(10)])
    assert chi_square(drawn, (logits / temperature).softmax(0)) < CHI_SQUARE_OF_SEVEN


def test_winners_follow_the_softmax_of_what_is_allowed():
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, 0.5, -0.5, 1.5])
    noise = Noise(0, range(2000), row=5, codebook_size=8)
    settings = SamplingConfig(top_k=3)
    drawn = torch.cat([race(logits.expand(2000, 8), noise.next(), settings).tokens for _ in range(5)])
    assert set(drawn.tolist()) == {1, 3, 7}
    shares = drawn.bincount(minlength=8)[[1, 3, 7]] / len(drawn)
    assert shares.tolist() == pytest.approx(torch.tensor([1.0, 2.0, 1.5]).softmax(0).tolist(), abs=0.02)


def test_noise_is_that_of_the_picture_and_not_of_its_neighbours():
    both = Noise(0, [3, 8], row=2, codebook_size=4)
    alone = Noise(0, [8], row=2, codebook_size=4)
    for _ in range(5):  # over borders of rows
        assert torch.equal(both.next()[1:], alone.next())


def test_a_clear_race_is_in_no_doubt():
    noise = torch.zeros(2, 3, dtype=torch.float64)
    outcome = race(torch.tensor([[0.0, 1.0, 0.5], [2.0, 1.0, 0.5]]), noise, SamplingConfig())
    assert outcome.tokens.tolist() == [1, 0]
    assert outcome.in_doubt.tolist() == [False, False]


@pytest.mark.parametrize("gap", [0.0, 0.5 * DOUBT, -0.5 * DOUBT])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ties_and_near_ties_are_in_doubt(gap: float, temperature: float):
    logits, noise = torch.tensor([[1.0, 2.0, 0.0]]), torch.zeros(1, 3, dtype=torch.float64)
    if temperature:
        noise[0, 0] = 1 + gap  # the noise, not the logits, makes it close
    else:
        logits[0, 0] = 2 + gap
    assert race(logits, noise, SamplingConfig(temperature=temperature)).in_doubt.tolist() == [True]


@pytest.mark.parametrize(
    ("logits", "settings"),
    [
        ([3.0, 1.0 + 1e-5, 1.0, 0.0], {"top_k": 2}),
        ([3.0, 3.0 - 1e-5, 1.0, 0.0], {"top_k": 1}),
        ([math.log(0.5 + 1e-6), math.log(0.5 - 1e-6)], {"top_p": 0.5}),
        ([math.log(0.4), math.log(0.3), math.log(0.3)], {"top_p": 0.6}),
        ([math.log(0.4), math.log(0.4), math.log(0.2)], {"top_p": 0.3}),
        ([0.0, math.log(0.3) + 1e-6, -5.0], {"min_p": 0.3}),
        ([0.0, -1e-6, -5.0], {"min_p": 1.0}),
    ],
    ids=["last of top-k", "top-1", "top-p", "tie in top-p", "tie of the first in top-p", "min-p", "min-p of 1"],
)
@pytest.mark.parametrize("favoured", [0, 1, 2])
def test_a_token_on_the_border_of_what_is_allowed_is_in_doubt_where_it_would_win(
    logits: list[float], settings: dict[str, float], favoured: int
):
    """Whichever token the noise favours: where last digits of a logit change who wins, the outcome is in doubt."""
    x, config = torch.tensor([logits], dtype=torch.float64), SamplingConfig(**settings)
    noise = torch.zeros_like(x)
    noise[0, favoured % len(logits)] = 20
    outcome = race(x, noise, config)
    nudges = 5e-5 * torch.cat((torch.eye(len(logits)), -torch.eye(len(logits))))
    winners = {race(x + nudge, noise, config).tokens.item() for nudge in nudges}
    assert outcome.in_doubt.item() or winners == {outcome.tokens.item()}


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(-2, 2), st.integers(-2, 2), st.sampled_from([0, 0, 9])),
        min_size=2,
        max_size=6,
    ),
    st.sampled_from(
        [
            SamplingConfig(temperature=0.0),
            SamplingConfig(),
            SamplingConfig(top_k=1),
            SamplingConfig(top_k=2),
            SamplingConfig(top_p=0.25),
            SamplingConfig(temperature=0.5, top_p=0.75),
            SamplingConfig(min_p=1.0),
            SamplingConfig(min_p=math.exp(-0.5)),
            SamplingConfig(top_k=3, top_p=0.75, min_p=math.exp(-0.5)),
        ]
    ),
)
def test_what_is_in_no_doubt_is_the_same_for_logits_a_little_off(
    tokens: list[tuple[int, int, int, int]], config: SamplingConfig
):
    level, jitter, off, noise = torch.tensor(tokens, dtype=torch.float64).T[:, None]
    logits = 0.5 * level + 1e-5 * jitter
    here, there = race(logits, noise, config), race(logits + 1e-5 * off, noise, config)
    assert here.in_doubt.item() or torch.equal(here.tokens, there.tokens)


def test_top_k_leaves_the_k_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0]])
    assert kept(logits, top_k=1) == [1]
    assert kept(logits, top_k=3) == [1, 2, 3]
    assert kept(logits, top_k=4) == kept(logits, top_k=100) == kept(logits, top_k=0) == [0, 1, 2, 3]


def test_top_p_leaves_the_fewest_that_have_its_chance_together():
    logits = chances(0.1, 0.4, 0.3, 0.2)
    assert kept(logits, top_p=0.35) == [1]
    assert kept(logits, top_p=0.45) == [1, 2]
    assert kept(logits, top_p=0.85) == [1, 2, 3]
    assert kept(logits, top_p=0.95) == [0, 1, 2, 3]
    assert kept(logits, top_p=1e-9) == [1]


def test_min_p_leaves_those_of_its_share_of_the_likeliest():
    logits = chances(0.1, 0.4, 0.3, 0.2)
    assert kept(logits, min_p=1.0) == [1]
    assert kept(logits, min_p=0.7) == [1, 2]
    assert kept(logits, min_p=0.45) == [1, 2, 3]
    assert kept(logits, min_p=0.2) == [0, 1, 2, 3]


def test_each_is_judged_at_the_temperature():
    logits = 2 * chances(0.1, 0.4, 0.3, 0.2)  # at temperature 2, the chances above
    assert kept(logits, temperature=2.0, top_p=0.45) == [1, 2]
    assert kept(logits, temperature=2.0, min_p=0.45) == [1, 2, 3]
    assert kept(logits, temperature=1.0, min_p=0.45) == [1, 2]


def test_together_they_leave_what_each_leaves():
    logits = chances(0.1, 0.4, 0.3, 0.2)
    assert kept(logits, top_k=3, top_p=0.95, min_p=0.7) == [1, 2]
    assert kept(logits, top_k=2, top_p=0.95, min_p=0.2) == [1, 2]
    assert kept(logits, top_k=4, top_p=0.45, min_p=0.2) == [1, 2]


def test_slack_judges_each_as_if_it_alone_were_likelier_or_less_likely():
    ranking = Ranking(torch.tensor([[3.0, 2.0, 1.9, 0.0]]), SamplingConfig(top_k=2))
    assert ranking.allowed()[0].tolist() == [True, True, False, False]
    assert ranking.allowed(0.2)[0].tolist() == [True, True, True, False]
    assert ranking.allowed(-0.2)[0].tolist() == [True, False, False, False]
    for slack in (0.0, 0.2, -0.2):
        some = ranking.allowed(slack, torch.tensor([[2, 0]]))
        assert some[0].tolist() == ranking.allowed(slack)[0, [2, 0]].tolist()


def test_rows_of_a_batch_are_judged_apart():
    logits = torch.cat((chances(0.6, 0.3, 0.1), chances(0.1, 0.45, 0.45)))
    assert Ranking(logits, SamplingConfig(top_p=0.5)).allowed().tolist() == [[True, False, False], [False, True, True]]


LOGITS = st.lists(st.integers(-8, 8).map(lambda i: i / 4), min_size=2, max_size=6)
DROPPING = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.integers(0, 7),
    top_p=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    min_p=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
)


@given(
    LOGITS,
    DROPPING,
    st.lists(st.sampled_from([-0.3, -DOUBT, 0.0, DOUBT, 0.3]), min_size=2, max_size=2, unique=True).map(sorted),
)
def test_slack_only_ever_lets_more_in(logits: list[float], config: SamplingConfig, slacks: list[float]):
    ranking = Ranking(torch.tensor([logits]), config)
    tight, loose = (ranking.allowed(slack) for slack in slacks)
    assert not (tight & ~loose).any()


@given(LOGITS, st.integers(0, 7), st.sampled_from([0.1, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0]))
def test_the_likeliest_always_stays_and_none_stays_before_a_likelier_one(
    logits: list[float], top_k: int, top_p: float, min_p: float
):
    stays = Ranking(torch.tensor([logits]), SamplingConfig(1.0, top_k, top_p, min_p)).allowed()[0].tolist()
    ranked = [stay for _, stay in sorted(zip(logits, stays, strict=True), key=lambda pair: (-pair[0], not pair[1]))]
    assert ranked[0]
    assert all(before or not after for before, after in pairwise(ranked))


@given(
    LOGITS,
    DROPPING,
    st.sampled_from([DOUBT, 0.3]),
)
def test_what_surely_stays_is_found_without_a_ranking(logits: list[float], config: SamplingConfig, doubt: float):
    tokens = torch.arange(len(logits))
    found = surely_allowed(torch.tensor([logits]).expand(len(logits), -1), tokens, config, doubt)
    assert torch.equal(found, Ranking(torch.tensor([logits]), config).allowed(-doubt, tokens.unsqueeze(0))[0])


def test_of_many_tokens_the_winner_is_that_of_those_that_stay():
    """Most of these races are decided without a ranking, and some are not."""
    generator = torch.Generator().manual_seed(0)
    logits, config = 2.5 * torch.randn(500, 64, generator=generator), SamplingConfig(top_p=0.9)
    noise = gumbel(torch.rand(500, 64, generator=generator, dtype=torch.float64))
    scores = logits.double() + noise
    outcome = race(logits, noise, config)
    staying = scores.masked_fill(~Ranking(logits, config).allowed(), -torch.inf)
    assert torch.equal(outcome.tokens, staying.argmax(dim=1))
    assert 0 < (outcome.tokens != scores.argmax(dim=1)).sum() < 100
    assert outcome.in_doubt.sum() < 5


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.inf),
        ("temperature", math.nan),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -0.1),
        ("min_p", 1.1),
    ],
)
def test_settings_out_of_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        SamplingConfig(**{field: value})


# Guidance and paths.


def told_prior() -> RasterPrior:
    """A prior of random weights that can be told three things."""
    transformer = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
    prior = RasterPrior(RasterConfig(transformer=transformer, neighbours=2, condition_size=3), bits=4, grid=(3, 4))
    roughen(prior, 0)
    return prior.eval()


def told_ways(prior: RasterPrior, batch: int) -> dict[str, Path | None]:
    conditions = torch.eye(3).repeat(batch, 1)[:batch]
    with torch.no_grad():
        return {
            "path": prior.conditioned(conditions, batch),
            "guide": prior.conditioned(torch.zeros_like(conditions), batch),
        }


def test_guidance_goes_from_the_guides_logits_to_the_pictures_and_on():
    own, guides = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])
    for scale, wanted in [(0.0, [0.0, 4.0]), (1.0, [1.0, 2.0]), (3.0, [3.0, -2.0])]:
        assert guided(torch.cat((own, guides)), scale).tolist() == [wanted]


@pytest.mark.parametrize(
    ("schedule", "wanted"), [("constant", [3, 3, 3]), ("linear", [1, 2, 3]), ("cosine", [1, 2, 3])]
)
def test_schedules_of_guidance_end_at_its_value(schedule: str, wanted: list[float]):
    settings = SamplingConfig(guidance=3.0, guidance_schedule=schedule)
    assert settings.guidance_scales(3) == pytest.approx(wanted)


def test_a_cosine_schedule_is_slower_at_both_ends():
    linear, cosine = (
        SamplingConfig(guidance=2.0, guidance_schedule=schedule).guidance_scales(9) for schedule in ("linear", "cosine")
    )
    assert cosine[1] < linear[1]
    assert cosine[7] > linear[7]


@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_guided_tokens_are_those_of_logits_guided_in_full_passes(guidance: float):
    prior, settings = told_prior(), SamplingConfig(temperature=0.0, guidance=guidance)
    ways = told_ways(prior, 3)
    tokens = sample(prior, range(3), seed=0, settings=settings, **ways)
    with torch.no_grad():
        both = torch.cat([prior.logits(tokens, way) for way in ways.values()])
    assert torch.equal(guided(both.flatten(1), guidance).view(3, 12, 16).argmax(dim=2), tokens.flatten(1))


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_a_guided_picture_is_the_same_in_any_batch(schedule: str):
    prior, settings = told_prior(), SamplingConfig(guidance=3.0, guidance_schedule=schedule)
    ways = told_ways(prior, 6)
    together = sample(prior, range(6), seed=1, settings=settings, **ways)
    for i in range(6):
        one = {name: way.rows(slice(i, i + 1)) for name, way in ways.items()}
        assert torch.equal(sample(prior, [i], seed=1, settings=settings, **one), together[i : i + 1])


def test_guidance_of_one_is_none():
    prior, ways = told_prior(), told_ways(told_prior(), 4)
    plain = sample(prior, range(4), seed=0, path=ways["path"])
    assert torch.equal(sample(prior, range(4), seed=0, settings=SamplingConfig(guidance=1.0), **ways), plain)


def test_guidance_without_anything_to_be_guided_to_is_refused(make_prior):
    with pytest.raises(ConfigError, match="a class or a prompt"):
        sample(make_prior(), range(2), seed=0, settings=SamplingConfig(guidance=2.0))


@pytest.mark.parametrize("guidance", [-0.1, 1001.0, math.nan])
def test_guidance_out_of_its_range_is_refused(guidance: float):
    with pytest.raises(ConfigError, match="guidance"):
        SamplingConfig(guidance=guidance)


def test_given_tokens_stay_where_they_are_along_any_order():
    transformer = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
    prior = AnyOrderPrior(AnyOrderConfig(transformer=transformer, neighbours=8), bits=4, grid=(3, 4))
    roughen(prior, 0)
    generator = torch.Generator().manual_seed(0)
    wanted = torch.randint(16, (5, 3, 4), generator=generator)
    known = torch.rand(5, 3, 4, generator=generator) < 0.5
    path = prior.after(known)
    seen = []
    painted = sample(
        prior,
        range(5),
        seed=0,
        given=torch.where(known, wanted, -1),
        path=path,
        on_token=lambda done, tokens: seen.append((done, tokens.clone())),
    )
    assert torch.equal(painted[known], wanted[known])
    assert not torch.equal(painted, wanted)
    assert torch.equal(seen[-1][1], painted)
    most = int(known.flatten(1).sum(dim=1).max())
    done = dict(seen)[most]  # by then all that is known is in its place
    assert torch.equal(done[known], wanted[known])
    alone = sample(prior, [3], seed=0, given=torch.where(known, wanted, -1)[3:4], path=path.rows(slice(3, 4)))
    assert torch.equal(alone, painted[3:4])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [(1,), (3, 1024), (2, 5, 37)])
def test_one_number_that_is_not_finite_is_seen_anywhere(dtype: torch.dtype, bad: float, shape: tuple[int, ...]) -> None:
    numbers = (3e38 * torch.linspace(-1, 1, math.prod(shape))).to(dtype).view(shape)  # whose sums are not finite either
    assert all_finite(numbers)
    for place in {0, numbers.numel() // 2, numbers.numel() - 1}:
        damaged = numbers.clone()
        damaged.view(-1)[place] = bad
        assert not all_finite(damaged)


def test_of_no_numbers_all_are_finite() -> None:
    assert all_finite(torch.empty(0, 4))
