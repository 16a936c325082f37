"""Painting with a flow: steps by closed forms, what is given or started from, guidance, and pictures that no batch
changes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from tests.conftest import roughen
from torch import Tensor

from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.priors import FlowConfig, FlowPrior
from bisquit.priors.flow import pace, to_points
from bisquit.sampling import FLOW_STEPS, SamplingConfig, picture_noise, sample_flow
from bisquit.sampling.flow import Field, advance
from bisquit.transformer import TransformerConfig

TINY = TransformerConfig(width=8, n_layers=2, n_heads=2, feed_forward=12)
GRID = (3, 4)
FEW = SamplingConfig(steps=4)
WAYS = [FEW, SamplingConfig(steps=3, solver="heun"), SamplingConfig(), SamplingConfig(steps=4, temperature=0.5)]


def made(seed: int = 0, **fields: Any) -> FlowPrior:
    """A prior over tokens of 3 bits, of random weights that lead other noise to other pictures, as few do by chance."""
    prior = FlowPrior(FlowConfig(transformer=TINY, **fields), 3, GRID)
    roughen(prior, seed)
    with torch.no_grad():
        prior.between.weight *= 5
        prior.head.weight.copy_(prior.between.weight.mT)
        prior.transformer.norm.weight.fill_(1)
    return prior.eval()


def tokens_of(batch: int, seed: int = 1) -> Tensor:
    return torch.randint(8, (batch, *GRID), generator=torch.Generator().manual_seed(seed))


def some_of(tokens: Tensor) -> Tensor:
    """Half of these tokens, -1 at the other places."""
    return tokens.where(torch.rand(tokens.shape, generator=torch.Generator().manual_seed(7)) < 0.5, -1)


class HandMade(FlowPrior):
    """Moves as `flow` says, and remembers each pass."""

    def __init__(self, flow: Any, condition_size: int = 0) -> None:
        """flow: from x, t, condition and guess to velocities."""
        super().__init__(FlowConfig(transformer=TINY, condition_size=condition_size), 3, GRID)
        self.flow = flow
        self.passes: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor | None = None, guess: Tensor | None = None) -> Tensor:
        assert condition is not None
        assert guess is not None
        self.passes.append((x, t, condition, guess))
        return self.flow(x, t, condition, guess)


def to_point(tokens: Tensor) -> HandMade:
    """A prior whose every path ends at one picture, tokens (h, w)."""
    corners = to_points(tokens.unsqueeze(0), 3)
    return HandMade(lambda x, t, *_: pace(corners.to(x) - x, t))


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_flow_to_a_single_picture_lands_on_it(steps: int, solver: Any):
    target = tokens_of(1)[0]
    painted = sample_flow(to_point(target), range(5), seed=0, settings=SamplingConfig(steps=steps, solver=solver))
    assert painted.dtype == torch.int64
    assert torch.equal(painted, target.expand(5, -1, -1))


def test_a_flow_of_levels_lands_on_its_picture():
    target = torch.randint(64, GRID, generator=torch.Generator().manual_seed(1))
    prior = FlowPrior(FlowConfig(transformer=TINY, digit_bits=3), 6, GRID)
    points = prior.points(target.unsqueeze(0))
    prior.velocity = lambda x, t, *_: pace(points.to(x) - x, t)  # every path ends there
    painted = sample_flow(prior, range(3), seed=0, settings=FEW)
    assert torch.equal(painted, target.expand(3, -1, -1))


def test_one_step_lands_on_the_estimate():
    prior = made()
    painted = sample_flow(prior, range(4), seed=3, settings=SamplingConfig(steps=1))
    noise = picture_noise(3, range(4), (3, *GRID)).float()
    with torch.no_grad():
        estimate = prior.estimate(noise, torch.zeros(4))
    assert torch.equal(to_points(painted, 3) > 0, estimate >= 0)


def ended(x: Tensor, steps: int, solver: Any) -> Tensor:
    """Where the flow to normal data of mean 2 and deviation 3 leads from noise x, by so many steps."""

    def velocity(x: Tensor, t: float) -> Tensor:
        return 2 + (9 * t - (1 - t)) / ((1 - t) ** 2 + 9 * t**2) * (x - 2 * t)

    for step in range(steps):
        x = advance(velocity, x, step / steps, (step + 1) / steps, solver)
    return x


def test_heun_is_of_second_order_and_euler_of_first():
    noise = picture_noise(0, range(3), (2, 2, 2))
    exact = 2 + 3 * noise
    errors = {
        solver: [(ended(noise, steps, solver) - exact).abs().max().item() for steps in (50, 100, 200)]
        for solver in ("euler", "heun")
    }
    for coarse, fine in pairwise(errors["euler"]):
        assert coarse / fine == pytest.approx(2, rel=0.1)
    for coarse, fine in pairwise(errors["heun"]):
        assert coarse / fine == pytest.approx(4, rel=0.1)
    assert errors["heun"][0] < 0.1 * errors["euler"][0]


def test_a_step_goes_by_the_velocity_at_its_start_or_by_the_mean_of_both_ends():
    x = torch.tensor([2.0])
    assert advance(lambda x, t: t * x, x, 0.25, 0.75, "euler").item() == 2 + 0.5 * 0.5
    assert advance(lambda x, t: t * x, x, 0.25, 0.75, "heun").item() == 2 + 0.5 * (0.5 + 0.75 * 2.25) / 2
    assert advance(lambda x, t: t * x, x, 0.25, 1.0, "heun").item() == 2 + 0.75 * 0.5


@pytest.mark.parametrize(
    ("settings", "passes"),
    [
        (SamplingConfig(), FLOW_STEPS),
        (SamplingConfig(steps=4), 4),
        (SamplingConfig(steps=4, solver="heun"), 7),
        (SamplingConfig(steps=1, solver="heun"), 1),
        (SamplingConfig(steps=4, guidance=2.0), 4),
    ],
    ids=str,
)
def test_each_picture_takes_a_pass_of_its_own_a_step_and_by_heun_two_but_at_the_end(
    settings: SamplingConfig, passes: int
):
    prior = HandMade(lambda x, *_: -x, condition_size=2)
    sample_flow(prior, range(3), seed=0, settings=settings, condition=torch.ones(3, 2))
    rows = 1 if settings.guidance == 1 else 2  # the picture, and its guide
    assert [len(x) for x, *_ in prior.passes] == [rows] * (3 * passes)


def test_steps_are_equal_and_end_at_one():
    prior, seen = HandMade(lambda x, *_: -x), []
    sample_flow(prior, [0], seed=0, settings=FEW, on_step=lambda done, _: seen.append(done))
    assert [t.item() for _, t, *_ in prior.passes] == [0, 0.25, 0.5, 0.75]
    assert seen == [1, 2, 3, 4]


@pytest.mark.parametrize("settings", WAYS, ids=str)
@pytest.mark.parametrize("self_conditioning", [False, True])
def test_the_same_seed_gives_the_same_tokens_in_any_batch(settings: SamplingConfig, self_conditioning: bool):
    prior = made(self_conditioning=self_conditioning)
    together = sample_flow(prior, range(16), seed=0, settings=settings)
    assert together.shape == (16, *GRID)
    assert len(together.flatten(1).unique(dim=0)) > 4
    for batch in (1, 3):
        parts = [range(start, min(start + batch, 16)) for start in range(0, 16, batch)]
        assert torch.equal(torch.cat([sample_flow(prior, part, seed=0, settings=settings) for part in parts]), together)


def test_a_prior_that_rounds_differently_in_each_batch_gives_the_same_pictures():
    """Paths part at 0 and run to corners far from it: who looks at ends alone would not see which are in doubt."""

    def parting(x: Tensor, t: Tensor, *_: Tensor) -> Tensor:
        off = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(len(x)))
        return pace((20 * (x + off)).tanh() - x, t)

    together = sample_flow(HandMade(parting), range(16), seed=0, settings=FEW)
    for i in range(16):
        assert torch.equal(sample_flow(HandMade(parting), [i], seed=0, settings=FEW), together[i : i + 1])


def test_a_told_started_guided_and_given_picture_is_the_same_in_any_batch():
    prior, given, start = made(condition_size=2), some_of(tokens_of(6)), tokens_of(6, seed=2)
    condition = 10 * torch.eye(2).repeat(3, 1)
    settings = SamplingConfig(steps=4, solver="heun", guidance=2.5, guidance_schedule="linear")

    def painted(numbers: list[int]) -> Tensor:
        told = {"given": given[numbers], "start": start[numbers], "condition": condition[numbers]}
        return sample_flow(prior, numbers, seed=1, settings=settings, strength=0.7, **told)

    together = painted(list(range(6)))
    assert torch.equal(torch.cat([painted([i]) for i in range(6)]), together)
    assert torch.equal(painted([4, 1]), together[[4, 1]])


def test_other_seeds_and_other_numbers_give_other_pictures():
    prior = made()
    first, second = (sample_flow(prior, range(6), seed=seed) for seed in (0, 1))
    assert len(torch.cat((first, second)).flatten(1).unique(dim=0)) == 12


def test_noise_is_normal_and_that_of_the_picture():
    noise = picture_noise(5, [3, 8], (8, 20, 30))
    assert noise.dtype == torch.float64
    assert torch.equal(picture_noise(5, [8], (8, 20, 30)), noise[1:])
    assert noise.flatten(1).mean(dim=1).tolist() == pytest.approx([0, 0], abs=0.06)
    assert noise.flatten(1).std(dim=1).tolist() == pytest.approx([1, 1], abs=0.04)


def test_the_temperature_is_the_scale_of_the_noise():
    noise = picture_noise(0, [0], (3, *GRID))
    for temperature in (0.0, 0.5, 1.0):
        prior = HandMade(lambda x, *_: -x)
        sample_flow(prior, [0], seed=0, settings=SamplingConfig(temperature=temperature, steps=1))
        torch.testing.assert_close(prior.passes[0][0], temperature * noise.float())


def test_painting_draws_nothing_from_the_global_generator_and_drops_nothing():
    prior = made().train()
    prior.transformer.dropout.p = 0.5
    before = torch.get_rng_state()
    painted = sample_flow(prior, range(2), seed=0, settings=FEW)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(painted, sample_flow(made(), range(2), seed=0, settings=FEW))


def test_no_pictures_are_no_tokens():
    assert sample_flow(made(), [], seed=0, settings=FEW).shape == (0, *GRID)


def test_each_step_is_told_with_all_tokens_as_they_stand():
    seen: list[Tensor] = []
    given = some_of(tokens_of(2))
    painted = sample_flow(made(), range(2), seed=0, settings=FEW, given=given, on_step=lambda _, now: seen.append(now))
    assert len(seen) == 4
    assert torch.equal(seen[-1], painted)
    assert all(torch.equal(now[given >= 0], given[given >= 0]) for now in seen)


# What is given, and what is started from.


@pytest.mark.parametrize("settings", WAYS, ids=str)
def test_given_tokens_stay(settings: SamplingConfig):
    given = some_of(tokens_of(8))
    before = given.clone()
    painted = sample_flow(made(), range(8), seed=0, settings=settings, given=given)
    assert torch.equal(given, before)
    assert torch.equal(painted[given >= 0], given[given >= 0])
    assert not torch.equal(painted, sample_flow(made(), range(8), seed=0, settings=settings))


@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_prior_sees_given_tokens_on_the_straight_path_from_their_noise(solver: Any):
    prior, given = HandMade(lambda x, *_: 0 * x + 9), some_of(tokens_of(1))
    sample_flow(prior, [4], seed=0, settings=SamplingConfig(steps=5, solver=solver), given=given)
    is_given = (given >= 0).unsqueeze(1).expand(-1, 3, -1, -1)
    noise, corners = picture_noise(0, [4], (3, *GRID)).float(), to_points(given.clamp_min(0), 3)
    for x, t, _, _ in prior.passes:
        torch.testing.assert_close(x[is_given], torch.lerp(noise, corners, t)[is_given])
        torch.testing.assert_close(x[~is_given], (noise + 9 * t)[~is_given])


def test_given_tokens_are_in_the_guesses_that_the_prior_is_told():
    prior, given = HandMade(lambda x, *_: 0 * x), some_of(tokens_of(1))
    sample_flow(prior, [0], seed=0, settings=FEW, given=given)
    is_given = (given >= 0).unsqueeze(1).expand(-1, 3, -1, -1)
    guesses = [guess for *_, guess in prior.passes]
    assert not guesses[0].any()
    for guess in guesses[1:]:
        torch.testing.assert_close(guess[is_given], to_points(given.clamp_min(0), 3)[is_given])


def test_each_pass_is_told_what_the_one_before_it_led_to():
    prior = made()
    heard: list[tuple[Tensor, Tensor, Tensor]] = []
    estimate = prior.estimate

    def listening(x: Tensor, t: Tensor, condition: Tensor | None = None, guess: Tensor | None = None) -> Tensor:
        found = estimate(x, t, condition, guess)
        assert guess is not None
        heard.append((t, guess, found))
        return found

    prior.estimate = listening  # type: ignore[method-assign]
    sample_flow(prior, [0], seed=0, settings=SamplingConfig(steps=4, solver="heun"))
    assert [t.item() for t, *_ in heard] == [0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]
    for (_, _, before), (_, guess, _) in pairwise(heard):
        torch.testing.assert_close(guess, before, rtol=1e-5, atol=1e-5)


def test_pictures_that_are_given_in_full_come_back():
    whole = tokens_of(3)
    assert torch.equal(sample_flow(made(), range(3), seed=0, settings=FEW, given=whole), whole)


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_a_strength_near_0_returns_the_start(steps: int, solver: Any):
    start, settings = tokens_of(4), SamplingConfig(steps=steps, solver=solver)
    assert torch.equal(sample_flow(made(), range(4), seed=0, settings=settings, start=start, strength=1e-3), start)


def test_it_starts_as_far_back_from_the_start_as_the_strength_says():
    prior, start = HandMade(lambda x, *_: 0 * x), tokens_of(1)
    sample_flow(prior, [2], seed=0, settings=FEW, start=start, strength=0.25)
    assert [t.item() for _, t, *_ in prior.passes] == [0.75, 0.8125, 0.875, 0.9375]
    wanted = torch.lerp(picture_noise(0, [2], (3, *GRID)).float(), to_points(start, 3), 0.75)
    torch.testing.assert_close(prior.passes[0][0], wanted)


def test_the_more_strength_the_less_is_left_of_the_start():
    prior, start = HandMade(lambda x, *_: 0 * x), tokens_of(16)
    kept = [
        (sample_flow(prior, range(16), seed=0, settings=FEW, start=start, strength=strength) == start).float().mean()
        for strength in (0.2, 0.4, 0.6, 1.0)
    ]
    assert kept[0] > kept[1] > kept[2] > kept[3]


def test_at_full_strength_nothing_is_left_of_the_start():
    prior = made()
    painted = sample_flow(prior, range(4), seed=0, settings=FEW)
    assert torch.equal(sample_flow(prior, range(4), seed=0, settings=FEW, start=tokens_of(4)), painted)


def test_given_tokens_stay_where_a_start_says_otherwise():
    given, start = some_of(tokens_of(4)), tokens_of(4, seed=2)
    painted = sample_flow(made(), range(4), seed=0, settings=FEW, given=given, start=start, strength=1e-3)
    assert torch.equal(painted, torch.where(given < 0, start, given))


# Guidance.


def drawn_to(scale: float, guidance_schedule: Any = "constant") -> bool:
    """Whether one step, guided from estimates of -1 towards those of -0.5, ends at bits of one."""
    prior = HandMade(lambda x, t, condition, _: pace(-1 + condition.view(-1, 1, 1, 1) - x, t), condition_size=1)
    settings = SamplingConfig(steps=1, guidance=scale, guidance_schedule=guidance_schedule)
    painted = sample_flow(prior, [0], seed=0, settings=settings, condition=torch.tensor([[0.5]]))
    assert painted.unique().tolist() in ([0], [7])
    return bool(painted[0, 0, 0] == 7)


def test_guidance_leads_on_in_a_straight_line():
    assert [drawn_to(scale) for scale in (0.0, 1.0, 1.9, 2.1, 10.0)] == [False, False, False, True, True]


def test_guided_velocities_go_from_those_told_nothing_to_those_told_and_on():
    prior, x = made(condition_size=2, self_conditioning=False), picture_noise(0, [0], (3, *GRID))
    told = torch.tensor([[[0.0, 1.0], [0.0, 0.0]]])
    field = Field(prior, told, torch.zeros(1, 1, *GRID, dtype=torch.bool), torch.zeros_like(x))
    with torch.no_grad():
        own, guide = (prior.velocity(x.float(), torch.tensor([0.5]), told[:, way]) for way in (0, 1))
        for scale in (0.0, 1.0, 3.0):
            torch.testing.assert_close(field(x, 0.5, scale).float(), guide + scale * (own - guide), rtol=0, atol=1e-4)


def test_guidance_grows_along_its_schedule():
    prior = HandMade(lambda x, t, condition, _: condition.view(-1, 1, 1, 1).expand_as(x), condition_size=1)
    settings = SamplingConfig(steps=3, guidance=5.0, guidance_schedule="linear")
    sample_flow(prior, [0], seed=0, settings=settings, condition=torch.ones(1, 1))
    moved = [((after - before)[0] * 3).mean().item() for (before, *_), (after, *_) in pairwise(prior.passes)]
    assert moved == pytest.approx([1, 3], rel=1e-5)


def test_picture_and_guide_are_each_told_their_own_guess():
    prior = HandMade(lambda x, t, condition, _: pace(condition.view(-1, 1, 1, 1) - x, t), condition_size=1)
    sample_flow(prior, [0], seed=0, settings=SamplingConfig(steps=3, guidance=4.0), condition=torch.full((1, 1), 0.5))
    *_, guess = prior.passes[-1]
    torch.testing.assert_close(guess[0], torch.full_like(guess[0], 0.5))
    torch.testing.assert_close(guess[1], torch.zeros_like(guess[1]), rtol=0, atol=1e-6)


def test_guidance_of_one_is_none():
    prior, condition = made(condition_size=2), 10 * torch.eye(2)
    plain = sample_flow(prior, range(2), seed=0, settings=FEW, condition=condition)
    assert not torch.equal(plain, sample_flow(prior, range(2), seed=0, settings=FEW))
    assert torch.equal(
        sample_flow(prior, range(2), seed=0, settings=FEW.replace(guidance=1.0), condition=condition), plain
    )


# What is refused.


@pytest.mark.parametrize("fields", [{"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}], ids=str)
def test_settings_that_choose_among_tokens_are_refused(fields: dict[str, float]):
    with pytest.raises(ConfigError, match="top_k, top_p and min_p"):
        sample_flow(made(), range(2), seed=0, settings=SamplingConfig(**fields))


@pytest.mark.parametrize("steps", [-1, 1001])
def test_steps_out_of_their_range_are_refused(steps: int):
    with pytest.raises(ConfigError, match=f"^steps is {steps}: it must be "):
        SamplingConfig(steps=steps)


def test_guidance_without_anything_to_be_guided_to_is_refused():
    with pytest.raises(ConfigError, match="a class or a prompt"):
        sample_flow(made(condition_size=2), range(2), seed=0, settings=SamplingConfig(guidance=2.0))


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, math.nan])
def test_a_strength_out_of_its_range_is_refused(strength: float):
    with pytest.raises(ConfigError, match=f"^strength is {strength}"):
        sample_flow(made(), range(2), seed=0, start=tokens_of(2), strength=strength)


def test_a_strength_without_a_start_is_refused():
    with pytest.raises(ConfigError, match=r"strength is 0\.5: .* none is given"):
        sample_flow(made(), range(2), seed=0, strength=0.5)


@pytest.mark.parametrize(
    ("told", "error", "message"),
    [
        ({"given": tokens_of(3)}, ShapeError, "3 pictures are given for 2"),
        ({"given": tokens_of(2) - 9}, TokenError, "a given token is -9"),
        ({"start": tokens_of(3)}, ShapeError, "3 pictures are to start from for 2"),
        ({"start": tokens_of(2).mT}, ShapeError, r"\(B, 3, 4\)"),
        ({"start": tokens_of(2) - 1}, TokenError, "-1"),
        ({"condition": torch.zeros(2, 3)}, ShapeError, "condition"),
        ({"condition": torch.zeros(1, 2)}, ShapeError, "condition"),
    ],
)
def test_what_does_not_fit_is_refused(told: dict[str, Tensor], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        sample_flow(made(condition_size=2), range(2), seed=0, settings=FEW, **told)


def test_velocities_that_are_not_finite_are_an_error():
    prior = made()
    with torch.no_grad():
        prior.head.bias[1] = math.nan
    with pytest.raises(ModelError, match="velocities are not finite"):
        sample_flow(prior, range(2), seed=0, settings=FEW)
