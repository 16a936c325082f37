"""The loop that paints all tokens of a picture at once, along the velocities of a flow prior.

A picture goes from noise, at time 0, to the points that are its tokens, at time 1, in a few equal steps. What is given
moves straight from its noise to its point meanwhile, so that the prior sees it as it saw known tokens in training.

Picture i of a seed is the same in any batch, and a rule that mends only what is in doubt, as races have it, does not
give that here. Noise on one side of a border ends at one point, and noise on the other side at another; so what is off
by a last digit beside such a border, early on, is off by a whole bit in the end, and that bit is as far from zero as
any. No look at the end can tell. Therefore each picture passes through the prior by itself: then its numbers are the
same, on one device with one number of threads, whatever is painted beside it. With some hundreds of places to a picture
a pass is work enough for a device, and a flow takes tens of passes where token after token takes hundreds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from bisquit.config import require
from bisquit.errors import ConfigError, ShapeError
from bisquit.priors import FlowPrior
from bisquit.sampling.guidance import guided, nowhere_to_lead
from bisquit.sampling.races import Seeds, all_finite, picture_seeds, require_finite
from bisquit.sampling.sequential import check_given
from bisquit.sampling.settings import SamplingConfig

OnStep = Callable[[int, Tensor], None]
"""Called after each step with how many are done and with all tokens (B, h, w) as they stand; early ones are noise."""
Velocity = Callable[[Tensor, float], Tensor]
"""From what pictures are at a time, (B, numbers, h, w), to their change in a unit of time."""

FLOW_STEPS = 20
"""How many steps a flow takes where the settings leave it to the prior."""


@torch.no_grad()
def sample_flow(
    prior: FlowPrior,
    numbers: Sequence[int],
    *,
    seed: Seeds,
    settings: SamplingConfig | None = None,
    given: Tensor | None = None,
    condition: Tensor | None = None,
    start: Tensor | None = None,
    strength: float = 1.0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Paint pictures, each from noise of its own, in the settings' steps.

    The prior computes velocities wherever it is; all else is float64 on the CPU. numbers: which pictures of the seed.
    given: (len(numbers), h, w) int64, tokens that are kept as they are, -1 where one is to be painted. condition:
    (len(numbers), condition_size), what each picture is to show; guidance leads there from nothing said. start:
    (len(numbers), h, w) int64, tokens to start from, and strength, in (0, 1], how far back from them towards noise: 1
    leaves nothing of them. The temperature is what the noise is multiplied by. Returns tokens, int64 (len(numbers), h,
    w), on the CPU. Raises ModelError if velocities are not finite, ShapeError or TokenError if `given`, `start` or the
    condition does not fit, ConfigError for guidance without a condition, a strength below 1 without a start, and
    settings that choose among tokens.
    """
    settings = settings or SamplingConfig()
    prior.eval()
    batch = len(numbers)
    given = check_given(given, prior, batch)
    _check_start(start, strength, prior, batch)
    told = _told(prior, condition, batch, settings)

    steps = settings.steps or FLOW_STEPS
    times = [1 - strength * (steps - step) / steps for step in range(steps + 1)]
    noise = settings.temperature * picture_noise(seed, numbers, (prior.numbers, *prior.grid))
    known = given.clamp_min(0) if start is None else torch.where(given < 0, start, given)
    points = prior.points(known).double()
    field = Field(prior, told, (given >= 0).unsqueeze(1), points - noise)
    x = torch.lerp(noise, points, times[0])
    scales = settings.guidance_scales(steps)
    for step, (t, later) in enumerate(pairwise(times)):
        x = advance(partial(field, scale=scales[step]), x, t, later, settings.solver)
        if on_step:
            on_step(step + 1, torch.where(given < 0, prior.tokens(x), given))
    return torch.where(given < 0, prior.tokens(x), given)


class Field:
    """Where pictures move to at a time: straight ahead where they are given, and else as a flow prior has it."""

    def __init__(self, prior: FlowPrior, told: Tensor, is_given: Tensor, straight: Tensor) -> None:
        """told: (B, ways, condition_size), what each picture is told, and its guide, if there is guidance. is_given:
        bool (B, 1, h, w). straight: (B, numbers, h, w), the velocity of what is given."""
        self.prior = prior
        self._like = next(prior.parameters())
        self._told = told.to(self._like)
        self._is_given = is_given
        self._straight = straight
        self._guesses = straight.new_zeros(len(straight), told.shape[1], *straight.shape[1:])

    def __call__(self, x: Tensor, t: float, scale: float) -> Tensor:
        """Return the velocities at x (B, numbers, h, w), guided by a scale, each picture's computed by itself."""
        velocities = [self._one(i, picture, t, scale) for i, picture in enumerate(x)]
        return torch.stack(velocities) if velocities else x

    def _one(self, i: int, x: Tensor, t: float, scale: float) -> Tensor:
        """Return the velocity of one picture at x (numbers, h, w), and keep where it leads to as the next guess."""
        ways = self._told.shape[1]
        at = x.expand(ways, -1, -1, -1).to(self._like)
        times, guess = at.new_full((ways,), t), self._guesses[i].to(at)
        velocity = self.prior.velocity(at, times, self._told[i], guess).to(x)
        require_finite(all_finite(velocity), "velocities")
        velocity = torch.where(self._is_given[i], self._straight[i], velocity)
        self._guesses[i] = x + (1 - t) * velocity
        return guided(velocity, scale)[0] if ways == 2 else velocity[0]


def advance(
    velocity: Velocity, x: Tensor, start: float, end: float, solver: Literal["euler", "heun"] = "euler"
) -> Tensor:
    """Return what pictures at x (B, numbers, h, w) become from one time to another, in one step.

    Heun's step goes by the mean of the velocities at both ends, but for that to time 1, which is Euler's: there a flow
    has no velocity (Karras et al. 2022, arXiv:2206.00364, algorithm 1).
    """
    here = velocity(x, start)
    ahead = x + (end - start) * here
    if solver == "euler" or end >= 1:
        return ahead
    return x + (end - start) / 2 * (here + velocity(ahead, end))


def picture_noise(seed: Seeds, numbers: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return the normal noise of some pictures of a seed, each from a generator of its own: float64 (B, *shape)."""
    noise = torch.empty(len(numbers), *shape, dtype=torch.float64)
    for picture, own in zip(noise, picture_seeds(seed, numbers), strict=True):
        picture.normal_(generator=torch.Generator().manual_seed(own))
    return noise


def _told(prior: FlowPrior, condition: Tensor | None, batch: int, settings: SamplingConfig) -> Tensor:
    """Return what pictures are told, (batch, 1, condition_size), or 2 for 1 with guides, which are told nothing.

    Raises ConfigError for settings that a flow cannot follow, ShapeError for a condition that does not fit.
    """
    if settings.drops_tokens:
        raise ConfigError(
            "top_k, top_p and min_p choose among likely tokens: a flow has no such choice, leave them out"
        )
    if condition is None:
        if settings.guidance != 1:
            raise nowhere_to_lead(settings)
        return torch.zeros(batch, 1, prior.condition_size)
    prior.check_condition(condition, batch)
    own = condition.cpu().unsqueeze(1)
    return own if settings.guidance == 1 else torch.cat((own, torch.zeros_like(own)), dim=1)


def _check_start(start: Tensor | None, strength: float, prior: FlowPrior, batch: int) -> None:
    """Raise an error unless `start` and `strength` are what `sample_flow` takes."""
    require(0 < strength <= 1, "strength", strength, "above 0 and at most 1")
    if start is None:
        if strength < 1:
            raise ConfigError(f"strength is {strength}: it says how far to leave a start, and none is given")
        return
    if len(start) != batch:
        raise ShapeError(f"{len(start)} pictures are to start from for {batch}")
    prior.check(start)
