"""Races for tokens: from logits and noise to the token that each picture takes.

A token is the winner of a race: each competes with its logit plus temperature times Gumbel noise, which takes token k
with its chance softmax(logits / temperature)_k. The noise is made of the seed and the picture's number alone, so that
picture i of a seed has the same tokens in any batch and on any device. That takes one more care, for float32 logits
differ in their last digits from batch to batch: a race that hangs on less than such a difference is in doubt, and its
logits are computed once more, for that picture alone, in float64 and on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.errors import ConfigError, ModelError
from bisquit.sampling.settings import SamplingConfig
from bisquit.seeds import derive_seed

# float32 logits of the seed prior are off by up to 1e-5, and not alike in each batch, on each device and in the engine;
# what hangs on less than this is decided in float64.
DOUBT = 1e-4

# By how much a sum of chances in float32 may be off.
FLOAT32_SUMS = 1e-5

Seeds = int | Sequence[int]
"""One seed, of which pictures are told apart by their numbers, or a seed for each picture."""


class Race(NamedTuple):
    """The outcome of choosing a token for each picture of a batch."""

    tokens: Tensor
    """(B,) int64, the winners."""
    in_doubt: Tensor
    """(B,) bool, where a change of one logit by the doubt could make another token win."""


def race(logits: Tensor, noise: Tensor, settings: SamplingConfig, doubt: float = DOUBT) -> Race:
    """Choose a token for each picture from logits (B, codebook), off by less than the doubt, and Gumbel noise.

    To rank tokens is most of the work, and needless where the winner among all surely stays whatever is dropped.
    """
    scores = torch.add(logits, noise, alpha=settings.temperature)  # float64, as the noise is
    first, second = scores.topk(2, dim=1).values.unbind(dim=1)
    winners, in_doubt = scores.argmax(dim=1), first - second < doubt
    if settings.temperature > 0 and settings.drops_tokens:
        left = (in_doubt | ~surely_allowed(logits, winners, settings, doubt)).nonzero().flatten()
        winners[left], in_doubt[left] = _ranked_race(logits[left], scores[left], settings, doubt)
    return Race(winners, in_doubt)


def _ranked_race(logits: Tensor, scores: Tensor, settings: SamplingConfig, doubt: float) -> Race:
    """Choose, by scores (B, codebook), among the tokens that are not dropped."""
    ranking = Ranking(logits, settings)
    winners = scores.masked_fill(~ranking.allowed(), -torch.inf).argmax(dim=1)
    rivals = scores.masked_fill(~ranking.allowed(doubt), -torch.inf).topk(2, dim=1)
    lead = rivals.values[:, 0] - rivals.values[:, 1]
    is_surely_allowed = ranking.allowed(-doubt, rivals.indices[:, :1])[:, 0]
    return Race(winners, (lead < doubt) | ~is_surely_allowed)


def surely_allowed(logits: Tensor, tokens: Tensor, settings: SamplingConfig, doubt: float) -> Tensor:
    """Return whether top-k, top-p and min-p would leave each picture's token if its logit were lower by the doubt.

    logits: (B, codebook). tokens: (B,) int64. The temperature is not 0. Returns bool (B,): what `Ranking.allowed` says,
    found without a ranking, but where chances decide by less than float32 adds them to: that is no.
    """
    own = logits.gather(1, tokens.unsqueeze(1))
    likelier = logits >= own - doubt
    likelier.scatter_(1, tokens.unsqueeze(1), False)
    kept = torch.ones_like(tokens, dtype=torch.bool)
    if settings.top_k > 0:
        kept &= likelier.sum(dim=1) < settings.top_k
    if settings.top_p < 1:
        chances = (logits / settings.temperature).softmax(dim=1)
        kept &= (chances * likelier).sum(dim=1) < settings.top_p - doubt / settings.temperature - FLOAT32_SUMS
    if settings.min_p > 0:
        least = logits.amax(dim=1) + settings.temperature * math.log(settings.min_p)
        kept &= own[:, 0] - doubt >= least
    return kept | ~likelier.any(dim=1)


class Ranking:
    """How the tokens of logits (B, codebook) stand among one another, and which may therefore take part in a race."""

    def __init__(self, logits: Tensor, settings: SamplingConfig) -> None:
        """Rank tokens by their chances softmax(logits / temperature), equal ones alike. The temperature is not 0."""
        self.logits, self.settings = logits, settings
        self.chances = (logits.double() / settings.temperature).softmax(dim=1)
        self.descending, order = logits.sort(dim=1, descending=True)
        self.chance_before = F.pad(self.chances.gather(1, order).cumsum(dim=1), (1, 0))

    def allowed(self, slack: float = 0.0, tokens: Tensor | None = None) -> Tensor:
        """Return which tokens top-k, top-p and min-p leave, bool (B, codebook); the likeliest always stays.

        slack: each token is judged as if its own logit were higher by that much, all others as they are; lower, if it
        is negative. tokens: (B, n) int64, if only some are asked about; the result is then (B, n).
        """
        logits = self.logits if tokens is None else self.logits.gather(1, tokens)
        if slack >= 0:
            return logits + slack >= self._least(slack)
        settings, chances = self.settings, self.chances if tokens is None else self.chances.gather(1, tokens)
        above = torch.searchsorted(-self.descending, -(logits + slack))  # how many there are, each itself among them
        likelier, likelier_chance = above - 1, self.chance_before.gather(1, above) - chances
        kept = torch.ones_like(logits, dtype=torch.bool)
        if settings.top_k > 0:
            kept &= likelier < settings.top_k
        if settings.top_p < 1:
            kept &= likelier_chance < settings.top_p + slack / settings.temperature
        if settings.min_p > 0:
            kept &= logits + slack >= self._least_of_min_p()
        return kept | (likelier == 0)

    def _least(self, slack: float) -> Tensor:
        """Return the logit from which on a token is left, (B, 1): that of one in the ranking, for all are judged alike.

        None of those above a token is the token itself, where slack is at least 0.
        """
        settings = self.settings
        least = torch.full_like(self.descending[:, :1], -torch.inf)
        if settings.top_k > 0:
            last = min(settings.top_k, self.descending.shape[1]) - 1
            least = torch.maximum(least, self.descending[:, last : last + 1])
        if settings.top_p < 1:  # the smallest set of likeliest tokens that has top_p together: Holtzman et al. 2020
            is_left = self.chance_before[:, :-1] < settings.top_p + slack / settings.temperature
            least = torch.maximum(least, self.descending.gather(1, is_left.sum(dim=1, keepdim=True) - 1))
        if settings.min_p > 0:
            least = torch.maximum(least, self._least_of_min_p())
        return least

    def _least_of_min_p(self) -> Tensor:
        return self.descending[:, :1] + self.settings.temperature * math.log(self.settings.min_p)


def gumbel(uniform: Tensor) -> Tensor:
    """Return Gumbel noise, float64, of numbers that are uniform in (0, 1)."""
    return uniform.log().neg_().log_().neg_()  # in place: these are large


def picture_seed(seed: int, number: int) -> int:
    """Return the seed of the generator from which picture `number` of a seed takes its noise."""
    return derive_seed(seed, "picture", number)


def picture_seeds(seed: Seeds, numbers: Sequence[int]) -> list[int]:
    """Return the `picture_seed` of each picture. Raises ConfigError unless there are as many seeds as pictures."""
    seeds = seed if isinstance(seed, Sequence) else [seed] * len(numbers)
    if len(seeds) != len(numbers):
        raise ConfigError(f"there are {len(seeds)} seeds for {len(numbers)} pictures: pass one, or one for each")
    return [picture_seed(own, number) for own, number in zip(seeds, numbers, strict=True)]


class Noise:
    """The Gumbel noise of some pictures of a seed, a row of the grid at a time, as it is asked for."""

    def __init__(self, seed: Seeds, numbers: Sequence[int], row: int, codebook_size: int) -> None:
        self._generators = [torch.Generator().manual_seed(own) for own in picture_seeds(seed, numbers)]
        self._shape = (row, codebook_size)
        self._drawn: list[Tensor] = []

    def next(self) -> Tensor:
        """Return the noise of the next token, float64 (B, codebook)."""
        if not self._drawn:
            row, codebook_size = self._shape
            uniform = torch.empty(row, len(self._generators), codebook_size, dtype=torch.float64)
            for i, generator in enumerate(self._generators):
                uniform[:, i] = torch.rand(self._shape, generator=generator, dtype=torch.float64)
            self._drawn = list(gumbel(uniform).flip(0))
        return self._drawn.pop()


def all_finite(numbers: Tensor) -> bool:
    """Whether all numbers are finite: a NaN is what `aminmax` then returns, in a tenth of the time of `isfinite`."""
    return numbers.numel() == 0 or all(bool(end.isfinite()) for end in numbers.aminmax())


def require_finite(is_finite: bool, what: str = "logits") -> None:
    """Raise ModelError unless a prior's logits are finite, or what else it computes."""
    if not is_finite:
        raise ModelError(f"the prior's {what} are not finite: its weights are damaged, or its training diverged")
