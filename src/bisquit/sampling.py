"""Sampling: from logits to tokens, and the loop that paints token after token in raster order.

A token is the winner of a race: each competes with its logit plus temperature times Gumbel noise, which takes token k
with its chance softmax(logits / temperature)_k. The noise is made of the seed and the picture's number alone, so that
picture i of a seed has the same tokens in any batch and on any device. That takes one more care, for float32 logits
differ in their last digits from batch to batch: where a race hangs on less than such a difference, its logits are
computed once more, for that picture alone, in float64 and on the CPU.

Guidance (Ho and Salimans 2022, arXiv:2207.12598) goes from logits without a condition to those with it, and on: each
picture is then computed twice a step, along its own path and along that of a guide, which has the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ConfigError, ModelError, ShapeError, TokenError
from bisquit.priors import Path, SequentialPrior
from bisquit.priors.base import to_grid, to_steps
from bisquit.seeds import derive_seed

OnToken = Callable[[int, Tensor], None]
"""Called after each token with how many are done and with all tokens (B, h, w); those to come are 0."""


MOST_GUIDANCE = 1000


@dataclass(frozen=True)
class SamplingConfig(Settings):
    """Which of the likely tokens are taken."""

    temperature: float = 1.0
    """Logits are divided by it: below 1 likelier tokens are taken more often; 0 always takes the likeliest."""
    top_k: int = 0
    """Take one of the k likeliest tokens; 0 leaves all."""
    top_p: float = 1.0
    """Take one of the likeliest tokens that together have this chance; 1 leaves all."""
    min_p: float = 0.0
    """Take none whose chance is below this share of the likeliest one's; 0 leaves all."""
    guidance: float = 1.0
    """How far logits go from those without a condition, 0, to those with it, 1, and beyond."""
    guidance_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Whether guidance is the same for all tokens, or grows from 1 at the first to its full value at the last."""

    def __post_init__(self) -> None:
        require(0 <= self.temperature < float("inf"), "temperature", self.temperature, "at least 0")
        require(self.top_k >= 0, "top_k", self.top_k, "at least 0")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        require(0 <= self.min_p <= 1, "min_p", self.min_p, "in [0, 1]")
        require(0 <= self.guidance <= MOST_GUIDANCE, "guidance", self.guidance, f"between 0 and {MOST_GUIDANCE}")

    @property
    def drops_tokens(self) -> bool:
        """Whether any token is left out of the race."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def guidance_scales(self, steps: int) -> list[float]:
        """Return the guidance of each of so many steps, as float32 has it."""
        done = torch.linspace(0, 1, steps, dtype=torch.float64)
        grown = {"constant": torch.ones_like(done), "linear": done, "cosine": (1 - (math.pi * done).cos()) / 2}
        scales: list[float] = (1 + (self.guidance - 1) * grown[self.guidance_schedule]).float().tolist()
        return scales


# float32 logits of the seed prior are off by up to 1e-5, and not alike in each batch, on each device and in the engine;
# what hangs on less than this is decided in float64.
DOUBT = 1e-4


class Race(NamedTuple):
    """The outcome of choosing a token for each picture of a batch."""

    tokens: Tensor
    """(B,) int64, the winners."""
    in_doubt: Tensor
    """(B,) bool, where a change of one logit by the doubt could make another token win."""


def race(logits: Tensor, noise: Tensor, settings: SamplingConfig, doubt: float = DOUBT) -> Race:
    """Choose a token for each picture from logits (B, codebook), off by less than the doubt, and Gumbel noise."""
    scores = logits.double() + settings.temperature * noise
    if settings.temperature == 0 or not settings.drops_tokens:
        first, second = scores.topk(2, dim=1).values.unbind(dim=1)
        return Race(scores.argmax(dim=1), first - second < doubt)
    ranking = Ranking(logits, settings)
    winners = scores.masked_fill(~ranking.allowed(), -torch.inf).argmax(dim=1)
    rivals = scores.masked_fill(~ranking.allowed(doubt), -torch.inf).topk(2, dim=1)
    lead = rivals.values[:, 0] - rivals.values[:, 1]
    is_surely_allowed = ranking.allowed(-doubt).gather(1, rivals.indices[:, :1])[:, 0]
    return Race(winners, (lead < doubt) | ~is_surely_allowed)


class Ranking:
    """How the tokens of logits (B, codebook) stand among one another, and which may therefore take part in a race."""

    def __init__(self, logits: Tensor, settings: SamplingConfig) -> None:
        """Rank tokens by their chances softmax(logits / temperature), equal ones alike. The temperature is not 0."""
        self.logits, self.settings = logits, settings
        self.chances = (logits.double() / settings.temperature).softmax(dim=1)
        self.descending, order = logits.sort(dim=1, descending=True)
        self.chance_before = F.pad(self.chances.gather(1, order).cumsum(dim=1), (1, 0))

    def allowed(self, slack: float = 0.0) -> Tensor:
        """Return which tokens top-k, top-p and min-p leave, bool (B, codebook); the likeliest always stays.

        slack: each token is judged as if its own logit were higher by that much, all others as they are; lower, if it
        is negative.
        """
        settings, kept = self.settings, torch.ones_like(self.logits, dtype=torch.bool)
        likelier = torch.searchsorted(-self.descending, -(self.logits + slack))  # how many others there are above each
        likelier_chance = self.chance_before.gather(1, likelier)
        if slack < 0:  # then each was counted among those above itself
            likelier, likelier_chance = likelier - 1, likelier_chance - self.chances
        if settings.top_k > 0:
            kept &= likelier < settings.top_k
        if settings.top_p < 1:  # the smallest set of likeliest tokens that has top_p together: Holtzman et al. 2020
            kept &= likelier_chance < settings.top_p + slack / settings.temperature
        if settings.min_p > 0:
            least = self.descending[:, :1] + settings.temperature * math.log(settings.min_p)
            kept &= self.logits + slack >= least
        return kept | (likelier == 0)


def gumbel(uniform: Tensor) -> Tensor:
    """Return Gumbel noise, float64, of numbers that are uniform in (0, 1)."""
    return -(-uniform.log()).log()


def picture_seed(seed: int, number: int) -> int:
    """Return the seed of the generator from which picture `number` of a seed takes its noise."""
    return derive_seed(seed, "picture", number)


class Noise:
    """The Gumbel noise of some pictures of a seed, a row of the grid at a time, as it is asked for."""

    def __init__(self, seed: int, numbers: Sequence[int], row: int, codebook_size: int) -> None:
        self._generators = [torch.Generator().manual_seed(picture_seed(seed, number)) for number in numbers]
        self._shape = (row, codebook_size)
        self._drawn: list[Tensor] = []

    def next(self) -> Tensor:
        """Return the noise of the next token, float64 (B, codebook)."""
        if not self._drawn:
            uniform = [torch.rand(self._shape, generator=g, dtype=torch.float64) for g in self._generators]
            self._drawn = list(gumbel(torch.stack(uniform, dim=1)).flip(0))  # (row, B, codebook)
        return self._drawn.pop()


def guided(logits: Tensor, scale: float) -> Tensor:
    """Return logits (B, codebook) that go from those of the guides on, given theirs below those of their pictures.

    logits: (2 B, codebook). scale: 0 for the guides' own, 1 for the pictures', above 1 for more than that.
    """
    own, guides = logits.chunk(2)
    return guides + (own - guides) * scale


def guided_logits(
    prior: SequentialPrior, tokens: Tensor, step: int, settings: SamplingConfig, path: Path | None, guide: Path | None
) -> Tensor:
    """Return the logits (B, codebook) of the token of (B, h, w) at one step, guided as the settings have it."""
    own = prior.logits_at(tokens, step, path)
    if settings.guidance == 1:
        return own
    return guided(torch.cat((own, prior.logits_at(tokens, step, guide))), settings.guidance_scales(prior.length)[step])


def guided_doubt(doubt: float, scale: float) -> float:
    """Return by how much guided logits may be off if what they are made of is off by the doubt."""
    return doubt * (abs(scale) + abs(scale - 1))


@torch.no_grad()
def sample(
    prior: SequentialPrior,
    numbers: Sequence[int],
    *,
    seed: int,
    settings: SamplingConfig | None = None,
    given: Tensor | None = None,
    path: Path | None = None,
    guide: Path | None = None,
    on_token: OnToken | None = None,
) -> Tensor:
    """Paint pictures as one batch, token after token, with the prior's cache.

    The prior computes logits wherever it is; the races are run on the CPU. numbers: which pictures of the seed. given:
    (len(numbers), h, w) int64, tokens that are kept as they are, -1 where one is to be painted. path: the pictures'
    way, else the prior's own. guide: the way of the guides, of the same order, for guidance other than 1. Returns
    their tokens, int64 (len(numbers), h, w), on the CPU. Raises ModelError if the prior's logits are not finite,
    ShapeError or TokenError if `given` does not fit, ConfigError for guidance without a guide.
    """
    settings = settings or SamplingConfig()
    prior.eval()
    batch = len(numbers)
    if given is None:
        given = torch.full((batch, *prior.grid), -1)
    check_given(given, prior, batch)
    ways = both_ways(settings, path, guide)
    path = None if path is None else path.to("cpu")
    guide = None if guide is None else guide.to("cpu")
    noise = Noise(seed, numbers, prior.grid[1], prior.codebook_size)
    exact: SequentialPrior | None = None
    steps, is_given = to_steps(given.clamp_min(0), path).clone(), to_steps(given, path) >= 0
    scales = settings.guidance_scales(prior.length)
    is_guided = settings.guidance != 1

    state = prior.start(2 * batch if is_guided else batch, ways)
    for step, scale in enumerate(scales):
        last = steps[:, step - 1].to(prior.device) if step else None
        if last is not None and is_guided:
            last = last.repeat(2)
        here, logits = noise.next(), prior.next_logits(state, last).cpu()
        require_finite(bool(logits.isfinite().all()))
        if is_guided:
            logits = guided(logits, scale)
        winners, in_doubt = race(logits, here, settings, guided_doubt(DOUBT, scale) if is_guided else DOUBT)
        steps[:, step] = torch.where(is_given[:, step], steps[:, step], winners)
        for i in (in_doubt & ~is_given[:, step]).nonzero().flatten().tolist():
            exact, one = exact or prior.exact(), slice(i, i + 1)
            own, guides = (way and way.rows(one).to(exact.device) for way in (path, guide))
            tokens = to_grid(steps[one].to(exact.device), own, prior.grid)
            again = guided_logits(exact, tokens, step, settings, own, guides).cpu()
            steps[i, step] = race(again, here[one], settings).tokens[0]
        if on_token:
            on_token(step + 1, to_grid(steps, path, prior.grid))
    return to_grid(steps, path, prior.grid)


def both_ways(settings: SamplingConfig, path: Path | None, guide: Path | None) -> Path | None:
    """Return the ways of all pictures, and behind them those of their guides if there is guidance.

    Raises ConfigError for guidance without a way to go from, and one to go to.
    """
    if settings.guidance == 1:
        return path
    if path is None or guide is None:
        raise ConfigError(f"guidance is {settings.guidance}: it leads towards a class or a prompt, and none is given")
    return path.beside(guide)


def require_finite(is_finite: bool) -> None:
    """Raise ModelError unless a prior's logits are finite."""
    if not is_finite:
        raise ModelError("the prior's logits are not finite: its weights are damaged, or its training diverged")


def check_given(given: Tensor, prior: SequentialPrior, batch: int) -> None:
    """Raise ShapeError unless `given` is int64 (batch, h, w) on the prior's grid, TokenError for no code and not -1."""
    if len(given) != batch:
        raise ShapeError(f"{len(given)} pictures are given for {batch}")
    prior.check(given.clamp_min(0) if given.dtype == torch.int64 else given)
    if (given < -1).any():
        raise TokenError(f"a given token is {int(given.min())}: a code, or -1 where one is to be painted")
