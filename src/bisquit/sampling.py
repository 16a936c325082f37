"""Sampling: from logits to tokens, and the loop that paints token after token in raster order.

A token is the winner of a race: each competes with its logit plus temperature times Gumbel noise, which takes token k
with its chance softmax(logits / temperature)_k. The noise is made of the seed and the picture's number alone, so that
picture i of a seed has the same tokens in any batch and on any device. That takes one more care, for float32 logits
differ in their last digits from batch to batch: where a race hangs on less than such a difference, its logits are
computed once more, for that picture alone, in float64 and on the CPU.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ModelError
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


# Logits of one model differ by about 1e-6 from batch to batch and from device to device; what hangs on less than this
# is decided in float64.
DOUBT = 2e-4


class Race(NamedTuple):
    """The outcome of choosing a token for each picture of a batch."""

    tokens: Tensor
    """(B,) int64, the winners."""
    in_doubt: Tensor
    """(B,) bool, where a change of one logit by `DOUBT` could make another token win."""


def race(logits: Tensor, noise: Tensor, settings: SamplingConfig) -> Race:
    """Choose a token for each picture from logits (B, codebook) and Gumbel noise (B, codebook)."""
    scores = logits.double() + settings.temperature * noise
    winners = scores.masked_fill(~allowed(logits, settings), -torch.inf).argmax(dim=1)
    rivals = scores.masked_fill(~allowed(logits, settings, DOUBT), -torch.inf).topk(2, dim=1)
    lead = rivals.values[:, 0] - rivals.values[:, 1]
    is_surely_allowed = allowed(logits, settings, -DOUBT).gather(1, rivals.indices[:, :1])[:, 0]
    return Race(winners, (lead < DOUBT) | ~is_surely_allowed)


def allowed(logits: Tensor, settings: SamplingConfig, slack: float = 0.0) -> Tensor:
    """Return which tokens top-k, top-p and min-p leave in the race, bool (B, codebook); the likeliest always stays.

    They judge by the chances softmax(logits / temperature), equal ones alike. slack: each token is judged as if its own
    logit were higher by that much, all others as they are; lower, if it is negative.
    """
    kept = torch.ones_like(logits, dtype=torch.bool)
    if settings.temperature == 0 or not settings.drops_tokens:
        return kept
    chances = (logits.double() / settings.temperature).softmax(dim=1)
    descending, order = logits.sort(dim=1, descending=True)
    likelier = torch.searchsorted(-descending, -(logits + slack))  # how many others there are above each token
    likelier_chance = F.pad(chances.gather(1, order).cumsum(dim=1), (1, 0)).gather(1, likelier)
    if slack < 0:  # then each was counted among those above itself
        likelier, likelier_chance = likelier - 1, likelier_chance - chances
    if settings.top_k > 0:
        kept &= likelier < settings.top_k
    if settings.top_p < 1:  # the smallest set of likeliest tokens that has top_p together: Holtzman et al. 2020
        kept &= likelier_chance < settings.top_p + slack / settings.temperature
    if settings.min_p > 0:
        kept &= logits + slack >= descending[:, :1] + settings.temperature * math.log(settings.min_p)
    return kept | (likelier == 0)


class Noise:
    """The Gumbel noise of some pictures of a seed, a row of the grid at a time, as it is asked for."""

    def __init__(self, seed: int, numbers: Sequence[int], row: int, codebook_size: int) -> None:
        self._generators = [torch.Generator().manual_seed(derive_seed(seed, "picture", number)) for number in numbers]
        self._shape = (row, codebook_size)
        self._drawn: list[Tensor] = []

    def next(self) -> Tensor:
        """Return the noise of the next token, float64 (B, codebook)."""
        if not self._drawn:
            uniform = [torch.rand(self._shape, generator=g, dtype=torch.float64) for g in self._generators]
            gumbel = -(-torch.stack(uniform, dim=1).log()).log()  # (row, B, codebook)
            self._drawn = list(gumbel.flip(0))
        return self._drawn.pop()


@torch.no_grad()
def sample(
    prior: SequentialPrior,
    numbers: Sequence[int],
    *,
    seed: int,
    settings: SamplingConfig | None = None,
    on_token: OnToken | None = None,
) -> Tensor:
    """Paint pictures as one batch, token after token, with the prior's cache.

    The prior computes logits wherever it is; the races are run on the CPU. numbers: which pictures of the seed. Returns
    their tokens, int64 (len(numbers), h, w), on the CPU. Raises ModelError if the prior's logits are not finite.
    """
    settings = settings or SamplingConfig()
    prior.eval()
    device = next(prior.parameters()).device
    noise = Noise(seed, numbers, prior.grid[1], prior.codebook_size)
    exact: SequentialPrior | None = None
    tokens = torch.zeros(len(numbers), *prior.grid, dtype=torch.int64)
    flat = tokens.view(len(numbers), prior.length)
    state = prior.start(len(numbers))
    for step in range(prior.length):
        last = flat[:, step - 1].to(device) if step else None
        here, logits = noise.next(), prior.next_logits(state, last).cpu()
        if not logits.isfinite().all():
            raise ModelError("the prior's logits are not finite: its weights are damaged, or its training diverged")
        flat[:, step], in_doubt = race(logits, here, settings)
        for i in in_doubt.nonzero().flatten().tolist():
            exact = exact or copy.deepcopy(prior).cpu().double()
            flat[i, step] = race(exact.logits(tokens[i : i + 1])[:, step], here[i : i + 1], settings).tokens[0]
        if on_token:
            on_token(step + 1, tokens)
    return tokens
