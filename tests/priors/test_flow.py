"""The flow prior: bits as corners, velocities from estimates, the loss by closed forms, and what it learns from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.conftest import roughen
from torch import Tensor

from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import FlowConfig, FlowPrior
from bisquit.priors.flow import LEAST_LEFT, draw_times, nearest_tokens, pace, time_waves, to_points
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
GRID = (2, 3)
ALWAYS_AT_HALF = {"time_mean": 0.0, "time_deviation": 1e-6}


def made(bits: int = 3, grid: tuple[int, int] = GRID, **fields: Any) -> FlowPrior:
    """A prior of random weights, large enough for each to matter."""
    prior = FlowPrior(FlowConfig(transformer=TINY, **fields), bits, grid)
    roughen(prior, 0)
    return prior.eval()


def tokens_of(batch: int, bits: int = 3, grid: tuple[int, int] = GRID) -> Tensor:
    return torch.randint(2**bits, (batch, *grid), generator=torch.Generator().manual_seed(1))


def noise_of(batch: int, bits: int = 3, grid: tuple[int, int] = GRID, seed: int = 2) -> Tensor:
    return torch.randn(batch, bits, *grid, generator=torch.Generator().manual_seed(seed))


class FixedFlow(FlowPrior):
    """Estimates the same corners, whatever it is shown."""

    def __init__(self, ends: Tensor, **fields: Any) -> None:
        """ends: (bits, h, w) or (B, bits, h, w)."""
        super().__init__(FlowConfig(transformer=TINY, **fields), ends.shape[-3], (ends.shape[-2], ends.shape[-1]))
        self.ends = ends

    def estimate(self, x: Tensor, t: Tensor, condition: Tensor | None = None, guess: Tensor | None = None) -> Tensor:
        return self.ends.expand_as(x)


def test_corners_are_the_bits_of_tokens_least_significant_first():
    corners = to_points(torch.tensor([[[0, 1], [6, 7]]]), 3)
    assert corners.dtype == torch.float32
    assert corners[0, :, 0, 0].tolist() == [-1, -1, -1]
    assert corners[0, :, 0, 1].tolist() == [1, -1, -1]
    assert corners[0, :, 1, 0].tolist() == [-1, 1, 1]
    assert corners[0, :, 1, 1].tolist() == [1, 1, 1]


def test_digits_are_evenly_spaced_numbers_of_unit_variance():
    tokens = torch.arange(64).view(1, 8, 8)  # each pair of two digits of three bits once
    points = to_points(tokens, 6, 3)
    assert points.shape == (1, 2, 8, 8)
    low, high = points[0]
    torch.testing.assert_close(low, low[:1].expand(8, 8))
    torch.testing.assert_close(high, low.mT)
    torch.testing.assert_close(low[0].diff(), torch.full((7,), math.sqrt(12 / 63)))
    torch.testing.assert_close(points.mean(dim=(2, 3)), torch.zeros(1, 2))
    torch.testing.assert_close(points.square().mean(dim=(2, 3)), torch.ones(1, 2))


@pytest.mark.parametrize("digit_bits", [1, 2, 3, 6, 12])
def test_the_nearest_tokens_are_those_whose_numbers_are_nearest(digit_bits: int):
    tokens = torch.randint(2**12, (3, 4, 5), generator=torch.Generator().manual_seed(0))
    points = to_points(tokens, 12, digit_bits).double()
    half = math.sqrt(12 / (4**digit_bits - 1)) / 2
    for nudge in (0.0, 0.99 * half, -0.99 * half):
        assert torch.equal(nearest_tokens(points + nudge, digit_bits), tokens)
    assert torch.equal(nearest_tokens(points + 1000, digit_bits), torch.full_like(tokens, 2**12 - 1))
    assert not nearest_tokens(points - 1000, digit_bits).any()


def test_a_flow_of_levels_takes_and_gives_as_many_numbers():
    prior = made(bits=6, digit_bits=3)
    tokens = tokens_of(2, 6)
    assert prior.numbers == 2
    assert torch.equal(prior.tokens(prior.points(tokens)), tokens)
    assert prior.estimate(noise_of(2, 2), torch.zeros(2)).shape == (2, 2, *GRID)
    with pytest.raises(ConfigError, match="digit_bits is 4: it must be a divisor of the 6 bits"):
        made(bits=6, digit_bits=4)


def test_tokens_of_32_bits_have_as_many_corners():
    prior = made(bits=32, grid=(1, 2))
    tokens = torch.tensor([[[2**32 - 1, 2**31]]])
    assert to_points(tokens, 32).sum(dim=1).tolist() == [[[32, -30]]]
    assert prior.loss(tokens).isfinite()


def test_the_velocity_leads_to_the_estimate_in_the_time_that_is_left():
    prior, x = made(), noise_of(3)
    for t in (0.0, 0.5, 1 - LEAST_LEFT):
        times = torch.full((3,), t)
        arrived = x + (1 - t) * prior.velocity(x, times)
        torch.testing.assert_close(arrived, prior.estimate(x, times), rtol=1e-4, atol=1e-4)


def test_near_the_end_velocities_stay_finite():
    way = torch.ones(4, 1, 1, 1)
    found = pace(way, torch.tensor([0.0, 0.5, 0.99, 1.0])).flatten().tolist()
    assert found == pytest.approx([1, 2, 1 / LEAST_LEFT, 1 / LEAST_LEFT])


def test_each_picture_moves_by_itself():
    prior, x, t = made(condition_size=4), noise_of(3), torch.tensor([0.1, 0.5, 0.9])
    condition, guess = torch.eye(4)[:3], noise_of(3, seed=5)
    together = prior.velocity(x, t, condition, guess)
    for i in range(3):
        rows = slice(i, i + 1)
        alone = prior.velocity(x[rows], t[rows], condition[rows], guess[rows])
        torch.testing.assert_close(alone, together[rows], rtol=1e-4, atol=1e-4)


def test_every_bit_is_seen_from_everywhere():
    prior, x, t = made(), noise_of(1), torch.tensor([0.5])
    before = prior.estimate(x, t)
    for place in range(18):
        other = x.clone()
        other.view(-1)[place] += 1
        assert (prior.estimate(other, t) != before).all()


@pytest.mark.parametrize("what", ["time", "condition", "guess"])
def test_what_it_is_told_matters(what: str):
    prior, x, t, condition = made(condition_size=4), noise_of(2), torch.full((2,), 0.5), torch.eye(4)[:2]
    told = {"t": t, "condition": condition, "guess": noise_of(2, seed=5)}
    before = prior.estimate(x, **told)
    other = {"time": {"t": t + 0.01}, "condition": {"condition": condition.flip(1)}, "guess": {"guess": None}}
    assert (prior.estimate(x, **(told | other[what])) != before).flatten(1).any(dim=1).all()


def test_no_guess_is_a_guess_of_zeros_and_nothing_said_a_condition_of_zeros():
    prior, x, t = made(condition_size=4), noise_of(2), torch.full((2,), 0.5)
    told_nothing = prior.estimate(x, t, torch.zeros(2, 4), torch.zeros_like(x))
    torch.testing.assert_close(told_nothing, prior.estimate(x, t))
    tokens = tokens_of(4)
    assert prior.loss(tokens, torch.zeros(4, 4)).item() == pytest.approx(prior.loss(tokens).item(), rel=1e-6)


def test_a_prior_without_self_conditioning_takes_no_notice_of_a_guess():
    prior, x, t = made(self_conditioning=False), noise_of(2), torch.full((2,), 0.5)
    assert torch.equal(prior.estimate(x, t, guess=noise_of(2, seed=5)), prior.estimate(x, t))
    assert not any(name.startswith("guess") for name, _ in prior.named_parameters())


def test_what_is_said_of_a_picture_is_added_alike_in_any_batch():
    prior = FlowPrior(FlowConfig(transformer=TransformerConfig(256, 1, 2, 12), condition_size=404), 3, GRID)
    condition = torch.randn(65, 404, generator=torch.Generator().manual_seed(2))
    nothing = torch.zeros(65, 1, 256)
    together = prior.add_condition(nothing, condition)
    for number in (0, 30, 64):
        rows = slice(number, number + 1)
        assert torch.equal(prior.add_condition(nothing[rows], condition[rows]), together[rows])


@pytest.mark.parametrize("shape", [(2, 3, 3, 2), (2, 2, 2, 3), (3, 2, 3)], ids=str)
def test_what_lies_between_must_be_of_its_bits_and_grid(shape: tuple[int, ...]):
    with pytest.raises(ShapeError, match=r"\(B, 3, 2, 3\)"):
        made().velocity(torch.zeros(shape), torch.zeros(2))


def test_to_know_the_end_costs_nothing():
    tokens = tokens_of(6)
    assert FixedFlow(to_points(tokens, 3), self_conditioning=False).loss(tokens).item() == 0


@pytest.mark.parametrize("self_conditioning", [False, True])
def test_an_estimate_that_is_off_costs_its_square_over_that_of_the_time_left(self_conditioning: bool):
    tokens = torch.full((6, *GRID), 7)
    ends = torch.full((3, *GRID), 0.25)  # off by 0.75, at time 1/2
    prior = FixedFlow(ends, self_conditioning=self_conditioning, **ALWAYS_AT_HALF)
    assert prior.loss(tokens).item() == pytest.approx(0.75**2 / 0.5**2, rel=1e-5)


def test_to_stand_still_costs_the_mean_square_of_a_path():
    """A velocity of 0 is off by x1 - x0, whose square is 2 on average: 1 for corners and 1 for normal noise."""

    class Still(FlowPrior):
        def estimate(
            self, x: Tensor, t: Tensor, condition: Tensor | None = None, guess: Tensor | None = None
        ) -> Tensor:
            return x

    prior = Still(FlowConfig(transformer=TINY, **ALWAYS_AT_HALF), 8, (20, 30))
    assert prior.loss(tokens_of(8, 8, (20, 30))).item() == pytest.approx(2, rel=0.02)


def test_paths_are_drawn_anew_in_training_and_not_in_evaluation():
    prior, tokens = made(), tokens_of(4)
    assert prior.loss(tokens).item() == prior.loss(tokens).item()
    prior.train()
    assert prior.loss(tokens).item() != prior.loss(tokens).item()


def test_evaluation_draws_nothing_from_the_global_generator():
    prior, before = made(), torch.get_rng_state()
    prior.loss(tokens_of(4))
    assert torch.equal(torch.get_rng_state(), before)


class Listening(FlowPrior):
    """Remembers the guesses that it is told."""

    def estimate(self, x: Tensor, t: Tensor, condition: Tensor | None = None, guess: Tensor | None = None) -> Tensor:
        self.told = [*getattr(self, "told", []), (x, t, guess, torch.is_grad_enabled())]
        return super().estimate(x, t, condition, guess)


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_every_other_picture_is_told_what_it_was_guessed_to_become(batch: int):
    prior = Listening(FlowConfig(transformer=TINY), 3, GRID)
    roughen(prior, 0)
    firsts = set()
    for _ in range(20):
        prior.told = []
        prior.loss(tokens_of(batch))
        x, t, guess, has_gradient = prior.told[-1]
        assert has_gradient
        is_told = guess.flatten(1).any(dim=1)
        first = 0 if is_told[0] else 1
        assert is_told[first::2].all()
        assert not is_told[1 - first :: 2].any()
        torch.testing.assert_close(guess[is_told], FlowPrior.estimate(prior, x, t)[is_told], rtol=1e-4, atol=1e-4)
        assert not guess.requires_grad
        assert [has_gradient for *_, has_gradient in prior.told[:-1]] == [False] * (len(prior.told) - 1)
        firsts.add(first)
    assert firsts == {0, 1}


def test_in_lower_precision_the_gradient_still_reaches_every_parameter():
    prior = made(condition_size=4).train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = prior.loss(tokens_of(4), torch.eye(4))
    assert loss.dtype == torch.float32
    loss.backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (-1.5, 0.5)])
def test_times_have_normal_log_odds(mean: float, deviation: float):
    times = draw_times(4000, mean, deviation, torch.Generator().manual_seed(0))
    assert times.shape == (4000,)
    log_odds = times.double().logit().sort().values
    wanted = torch.distributions.Normal(mean, deviation).icdf((torch.arange(4000).double() + 0.5) / 4000)
    assert (log_odds - wanted)[40:-40].abs().max() < 0.05


def test_the_times_of_a_batch_are_spread_evenly_and_each_may_be_any():
    generator = torch.Generator().manual_seed(0)
    batches = torch.stack([draw_times(4, 0.0, 1.0, generator) for _ in range(400)])
    quarters = torch.special.ndtr(batches.logit()).mul(4).floor()
    assert (quarters.sort(dim=1).values == torch.arange(4)).all()
    assert (quarters[:, 0].long().bincount(minlength=4) > 60).all()


def test_waves_tell_all_times_apart():
    waves = time_waves(torch.linspace(0, 1, 1001))
    assert waves.abs().max() <= 1
    assert torch.cdist(waves, waves).fill_diagonal_(math.inf).min() > 0.5


def test_its_loss_has_a_name_for_it_is_no_likelihood():
    assert made().loss_name == "velocity_error"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("condition_size", -1),
        ("time_mean", 11.0),
        ("time_mean", math.nan),
        ("time_deviation", 0.0),
        ("time_deviation", 11.0),
    ],
)
def test_settings_out_of_their_range_are_refused(field: str, value: float):
    with pytest.raises(ConfigError, match=f"^{field} is {value}: it must be "):
        FlowConfig(transformer=TINY, **{field: value})


@pytest.mark.parametrize("bits", [0, 33])
def test_bits_out_of_their_range_are_refused(bits: int):
    with pytest.raises(ConfigError, match=f"bits is {bits}"):
        FlowPrior(FlowConfig(transformer=TINY), bits, GRID)
