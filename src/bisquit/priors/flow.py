"""The flow prior: from noise to the numbers of all tokens at once, along the velocities that a transformer computes.

    point   x1  the bits of each token as -1 and +1     (B, numbers, h, w), where BSQ's latents snap to, but for scale
    noise   x0  a normal number for each                (B, numbers, h, w)
    between x_t = (1 - t) x0 + t x1                     t in [0, 1], the time

    x_t ──linear──┐
    guess ─linear─┤
    place ────────┼──> (B, h w, width) ──transformer, not causal──linear──> estimate of x1 ──> velocity
    time ────mlp──┤
    condition ────┘

Flow matching (Lipman et al. 2022, arXiv:2210.02747) on straight paths (rectified flow, Liu et al. 2022,
arXiv:2209.03003), over bits as real numbers (analog bits, Chen et al. 2022, arXiv:2208.04202): the velocity at x_t is
the mean of x1 - x0 over all paths through it. To follow it from noise ends at points, which are tokens.

Or a token's numbers are its digits, those of finite scalar quantisation, of `digit_bits` bits each: evenly spaced
levels about zero, of unit variance where all are as frequent. With many levels these are the continuous latents of
latent diffusion (Rombach et al. 2022, arXiv:2112.10752), kept in bounds by their tanh, and still tokens to be stored.

The network's output is the mean of x1, linear and unbounded, and the velocity is (estimate - x_t) / (1 - t). So all
that there is to learn is to tell points from one another; a network whose output is the velocity must carry the noise
through its width too, to subtract it (Li and He 2025, arXiv:2511.13720). The estimate has the same scale at all times,
so that time is simply added to the input. The next step is told of where this one would have led, of the estimate but
where next to no time is left, as a guess (the self-conditioning of analog bits).

A condition, what a picture is to show, is a vector of numbers; a linear map of it is added to every place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from bisquit.config import Settings, require
from bisquit.errors import ShapeError
from bisquit.priors.base import FIRST_STD, ConditionalPrior, require_condition_size
from bisquit.processes import WHOLE, own_part
from bisquit.quantizers.bits import check_tokens
from bisquit.transformer import Transformer, TransformerConfig

TIME_WAVES = 32
LEAST_LEFT = 0.05
"""The time that is taken to be left, at least, where a velocity leads to an estimate: or the last would be endless."""


@dataclass(frozen=True)
class FlowConfig(Settings):
    """The shape of a `FlowPrior`, and the times that it learns from."""

    kind: Literal["flow"] = field(default="flow", kw_only=True)
    transformer: TransformerConfig = field(default_factory=TransformerConfig)
    condition_size: int = 0
    """Numbers of a condition that says what to paint; 0 for a prior that takes none."""
    self_conditioning: bool = True
    """Whether a flow is told its last guess of where it ends; in training every other picture is, at half a pass more.
    """
    time_mean: float = 0.0
    """Mean of the log-odds of the times to learn from: below 0 for more noise, above for less."""
    time_deviation: float = 1.0
    """Standard deviation of the log-odds of the times to learn from."""
    digit_bits: int = 1
    """Bits of each number that a token is made of: 1 for signs, more for the levels of finite scalar quantisation."""

    def __post_init__(self) -> None:
        require_condition_size(self.condition_size)
        require(-10 <= self.time_mean <= 10, "time_mean", self.time_mean, "between -10 and 10")
        require(0 < self.time_deviation <= 10, "time_deviation", self.time_deviation, "above 0 and at most 10")
        require(1 <= self.digit_bits <= 12, "digit_bits", self.digit_bits, "between 1 and 12")


class FlowPrior(ConditionalPrior):
    """A flow from noise to tokens; what it computes is drawn at the top of this module."""

    config: FlowConfig
    loss_name: ClassVar[str | None] = "velocity_error"

    def __init__(self, config: FlowConfig, bits: int, grid: tuple[int, int]) -> None:
        super().__init__()
        require(1 <= bits <= 32, "bits", bits, "between 1 and 32")
        wanted = f"a divisor of the {bits} bits of a token"
        require(bits % config.digit_bits == 0, "digit_bits", config.digit_bits, wanted)
        require(min(grid) >= 1, "grid", grid, "at least 1 x 1")
        self.config = config
        self.bits = bits
        self.grid = (int(grid[0]), int(grid[1]))
        width = config.transformer.width
        self.between = nn.Linear(self.numbers, width)
        self.guess = nn.Linear(self.numbers, width, bias=False) if config.self_conditioning else None
        self.time = nn.Sequential(nn.Linear(2 * TIME_WAVES, width), nn.SiLU(), nn.Linear(width, width))
        self.place = nn.Parameter(FIRST_STD * torch.randn(self.length, width))
        self.transformer = Transformer(config.transformer)
        self.head = nn.Linear(width, self.numbers)
        for layer in (self.between, self.guess, self.time[0], self.time[2], self.head):
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=FIRST_STD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        self.take_conditions(config.condition_size, width)

    @property
    def numbers(self) -> int:
        """How many numbers a token is made of."""
        return self.bits // self.config.digit_bits

    def points(self, tokens: Tensor) -> Tensor:
        """Return where paths to tokens (B, h, w) end, float32 (B, numbers, h, w)."""
        return to_points(tokens, self.bits, self.config.digit_bits)

    def tokens(self, x: Tensor) -> Tensor:
        """Return the tokens (B, h, w) nearest to x (B, numbers, h, w)."""
        return nearest_tokens(x, self.config.digit_bits)

    def estimate(self, x: Tensor, t: Tensor, condition: Tensor | None = None, guess: Tensor | None = None) -> Tensor:
        """Return the mean of the points that pictures at x may end at, (B, numbers, h, w).

        x: (B, numbers, h, w). t: (B,), their times in [0, 1]. condition: see `Prior.loss`. guess: like x, an estimate
        made before, zeros for none; a prior without self-conditioning takes no notice. Raises ShapeError on another
        grid or size.
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != (self.numbers, *self.grid):
            wanted = f"(B, {self.numbers}, {self.grid[0]}, {self.grid[1]})"
            raise ShapeError(f"what is between noise and tokens is {tuple(x.shape)}: this prior takes {wanted}")
        inputs = self.between(x.flatten(2).mT) + self.place + self.time(time_waves(t)).unsqueeze(1)  # (B, h w, width)
        if guess is not None and self.guess is not None:
            inputs = inputs + self.guess(guess.flatten(2).mT)
        if condition is not None:
            inputs = self.add_condition(inputs, condition)
        ends: Tensor = self.head(self.transformer(inputs, causal=False))
        return ends.mT.unflatten(2, self.grid)

    def velocity(self, x: Tensor, t: Tensor, condition: Tensor | None = None, guess: Tensor | None = None) -> Tensor:
        """Return where pictures at x move to, the change of x (B, numbers, h, w) in a unit of time, of the type of x.

        All is as `estimate` takes it.
        """
        return pace(self.estimate(x, t, condition, guess).to(x.dtype) - x, t)

    def loss(self, tokens: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the flow-matching loss of tokens (B, h, w): the mean squared error of velocities, for each number.

        It is no likelihood and has no unit: numbers have a variance of 1, time goes from 0 to 1, and to always estimate
        the middle costs 1 / (1 - t)^2. Paths and times are drawn anew each time; in evaluation from the same seed each
        time. condition: see `Prior.loss`.
        """
        self.check(tokens)
        if condition is not None:
            self.check_condition(condition, len(tokens))
        generator, mine = (None, own_part()) if self.training else (torch.Generator().manual_seed(0), WHOLE)
        points = self.points(tokens).to(self.place.dtype)
        noise = mine.of(torch.randn(mine.whole(len(points)), *points.shape[1:], generator=generator)).to(points)
        whole = mine.whole(len(tokens))
        t = mine.of(draw_times(whole, self.config.time_mean, self.config.time_deviation, generator)).to(points)
        first = (int(torch.randint(2, (), generator=generator)) - mine.first(len(tokens))) % 2
        x = torch.lerp(noise, points, t.view(-1, 1, 1, 1))
        velocity = self.velocity(x, t, condition, self._first_guess(x, t, condition, slice(first, None, 2)))
        return (velocity - pace(points - x, t)).square().mean()

    def _first_guess(self, x: Tensor, t: Tensor, condition: Tensor | None, told: slice) -> Tensor | None:
        """Return what pictures at x are estimated without a guess, for those that are to be told; zeros for others."""
        if self.guess is None:
            return None
        guess = torch.zeros_like(x)
        if len(x[told]):
            with torch.no_grad():
                guess[told] = self.estimate(x[told], t[told], None if condition is None else condition[told]).to(x)
        return guess


def to_points(tokens: Tensor, bits: int, digit_bits: int = 1) -> Tensor:
    """Return the digits of tokens, int64 (B, h, w), the lowest first, as numbers: float32 (B, bits / digit_bits, h, w).

    They are evenly spaced about zero, with a variance of 1 where all are as frequent: bits are -1 and +1.
    """
    check_tokens(tokens, bits)
    places = torch.arange(0, bits, digit_bits, device=tokens.device).view(-1, 1, 1)
    levels = 2**digit_bits
    digits = tokens.unsqueeze(1) >> places & (levels - 1)
    return (digits - (levels - 1) / 2) * spacing(levels)


def nearest_tokens(x: Tensor, digit_bits: int = 1) -> Tensor:
    """Return the tokens (B, h, w) whose numbers are nearest to x (B, numbers, h, w); between two, the higher."""
    levels = 2**digit_bits
    digits = (x / spacing(levels) + levels / 2).floor().clamp(0, levels - 1).long()
    places = digit_bits * torch.arange(x.shape[1], device=x.device).view(-1, 1, 1)
    return (digits << places).sum(dim=1)


def spacing(levels: int) -> float:
    """Return the distance of neighbours among so many evenly spaced numbers of variance 1."""
    return math.sqrt(12 / (levels**2 - 1))


def pace(way: Tensor, t: Tensor) -> Tensor:
    """Return the velocity that goes a way (B, numbers, h, w) in the time that is left at times t (B,)."""
    return way / (1 - t).clamp_min(LEAST_LEFT).view(-1, 1, 1, 1)


def time_waves(t: Tensor) -> Tensor:
    """Return sines and cosines of times (B,) in [0, 1]: (B, 2 TIME_WAVES). The fastest turns by 1000 radians."""
    angles = t.unsqueeze(1) * torch.logspace(0, 3, TIME_WAVES, dtype=t.dtype, device=t.device)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def draw_times(batch: int, mean: float, deviation: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw times in [0, 1] whose log-odds are normal (Esser et al. 2024, arXiv:2403.03206, section 3.1): (batch,).

    Each is of that distribution; together they are spread over it evenly, by one draw (Kingma et al. 2021,
    arXiv:2107.00630), which makes the loss of a batch less noisy.
    """
    quantiles = (torch.rand((), generator=generator) + torch.arange(batch) / batch) % 1
    return (mean + deviation * torch.special.ndtri(quantiles)).sigmoid()
