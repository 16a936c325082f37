"""Sampling: from logits to tokens, and the loop that paints token after token in raster order.

A token is the winner of a race: each competes with its logit plus temperature times Gumbel noise, which takes token k
with its chance softmax(logits / temperature)_k. The noise is made of the seed and the picture's number alone, so that
picture i of a seed has the same tokens in any batch and on any device. That takes one more care, for float32 logits
differ in their last digits from batch to batch: where a race hangs on less than such a difference, its logits are
computed once more, for that picture alone, in float64 and on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ModelError, ShapeError, TokenError
from bisquit.priors import SequentialPrior
from bisquit.seeds import derive_seed

OnToken = Callable[[int, Tensor], None]
"""Called after each token with how many are done and with all tokens (B, h, w); those to come are 0."""


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

    def __post_init__(self) -> None:
        require(0 <= self.temperature < float("inf"), "temperature", self.temperature, "at least 0")
        require(self.top_k >= 0, "top_k", self.top_k, "at least 0")
        require(0 < self.top_p <= 1, "top_p", self.top_p, "in (0, 1]")
        require(0 <= self.min_p <= 1, "min_p", self.min_p, "in [0, 1]")

    @property
    def drops_tokens(self) -> bool:
        """Whether any token is left out of the race."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0


# float32 logits of the seed prior are off by up to 1e-5, and not alike in each batch, on each device and in the engine;
# what hangs on less than this is decided in float64.
DOUBT = 1e-4


class Race(NamedTuple):
    """The outcome of choosing a token for each picture of a batch."""

    tokens: Tensor
    """(B,) int64, the winners."""
    in_doubt: Tensor
    """(B,) bool, where a change of one logit by `DOUBT` could make another token win."""


def race(logits: Tensor, noise: Tensor, settings: SamplingConfig) -> Race:
    """Choose a token for each picture from logits (B, codebook) and Gumbel noise (B, codebook)."""
    scores = logits.double() + settings.temperature * noise
    if settings.temperature == 0 or not settings.drops_tokens:
        first, second = scores.topk(2, dim=1).values.unbind(dim=1)
        return Race(scores.argmax(dim=1), first - second < DOUBT)
    ranking = Ranking(logits, settings)
    winners = scores.masked_fill(~ranking.allowed(), -torch.inf).argmax(dim=1)
    rivals = scores.masked_fill(~ranking.allowed(DOUBT), -torch.inf).topk(2, dim=1)
    lead = rivals.values[:, 0] - rivals.values[:, 1]
    is_surely_allowed = ranking.allowed(-DOUBT).gather(1, rivals.indices[:, :1])[:, 0]
    return Race(winners, (lead < DOUBT) | ~is_surely_allowed)


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


@torch.no_grad()
def sample(
    prior: SequentialPrior,
    numbers: Sequence[int],
    *,
    seed: int,
    settings: SamplingConfig | None = None,
    given: Tensor | None = None,
    on_token: OnToken | None = None,
) -> Tensor:
    """Paint pictures as one batch, token after token, with the prior's cache.

    The prior computes logits wherever it is; the races are run on the CPU. numbers: which pictures of the seed. given:
    (len(numbers), h, w) int64, tokens that are kept as they are, -1 where one is to be painted. Returns their tokens,
    int64 (len(numbers), h, w), on the CPU. Raises ModelError if the prior's logits are not finite, ShapeError or
    TokenError if `given` does not fit.
    """
    settings = settings or SamplingConfig()
    prior.eval()
    if given is None:
        given = torch.full((len(numbers), *prior.grid), -1)
    check_given(given, prior, len(numbers))
    device = next(iter(prior.state_dict().values())).device
    noise = Noise(seed, numbers, prior.grid[1], prior.codebook_size)
    exact: SequentialPrior | None = None
    tokens = given.clamp_min(0)
    flat, is_given = tokens.view(len(numbers), prior.length), given.flatten(1) >= 0
    state = prior.start(len(numbers))
    for step in range(prior.length):
        last = flat[:, step - 1].to(device) if step else None
        here, logits = noise.next(), prior.next_logits(state, last).cpu()
        require_finite(bool(logits.isfinite().all()))
        winners, in_doubt = race(logits, here, settings)
        flat[:, step] = torch.where(is_given[:, step], flat[:, step], winners)
        for i in (in_doubt & ~is_given[:, step]).nonzero().flatten().tolist():
            exact = exact or prior.exact()
            flat[i, step] = race(exact.logits_at(tokens[i : i + 1], step), here[i : i + 1], settings).tokens[0]
        if on_token:
            on_token(step + 1, tokens)
    return tokens


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
