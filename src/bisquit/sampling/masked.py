"""The loop that paints with a masked prior: in rounds, each of which keeps the tokens that are surest.

    all masked ──logits──> a token for each masked place ──the surest──> kept ──logits──> ... ──> none masked

A token is the winner of a race at its place, as in `bisquit.sampling.races`. How sure it is, its confidence, is the
logarithm of its chance plus noise that fades from round to round; how many are kept follows a cosine, few at first and
most in the last rounds, when all that is known tells of them. Chang et al. 2022, arXiv:2202.04200, section 3.2.
Their code has less noise, 4.5 for our 15, by which pictures here are farther from real ones: docs/compare-priors.md.

Most places have no race in a round: one is run only where the likeliest token would be sure enough to be kept.

As in all races, the noise is made of the seed and the picture's number alone, for each place of every round by itself,
whatever is known or has no race, and what hangs on less than a doubt is decided again in float64: tokens that win
narrowly, and the cut between the last place that is kept and the first that is not. It then takes the whole round of
that picture, alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bisquit.config import require
from bisquit.priors import MaskedPrior
from bisquit.sampling.guidance import guided, guided_doubt, nowhere_to_lead
from bisquit.sampling.races import DOUBT, Seeds, all_finite, gumbel, picture_seeds, race, require_finite
from bisquit.sampling.sequential import OnToken, check_given
from bisquit.sampling.settings import SamplingConfig
from bisquit.seeds import derive_seed

STEPS = 16  # rounds, unless settings say how many; of fewer tokens, one each


@torch.no_grad()
def sample_masked(
    prior: MaskedPrior,
    numbers: Sequence[int],
    *,
    seed: Seeds,
    settings: SamplingConfig | None = None,
    given: Tensor | None = None,
    condition: Tensor | None = None,
    on_token: OnToken | None = None,
) -> Tensor:
    """Paint pictures as one batch, in rounds that each take one pass of the prior.

    The prior computes logits wherever it is; the rest is done on the CPU. numbers: which pictures of the seed. given:
    (len(numbers), h, w) int64, tokens that are kept as they are, -1 where one is to be painted. condition:
    (len(numbers), condition_size), what each is to show; with guidance other than 1, a pass is of each picture twice.
    on_token: called after each round, with how many tokens each picture has at least; those to come are -1.
    Returns their tokens, int64 (len(numbers), h, w), on the CPU. Raises ModelError if the prior's logits are not
    finite, ShapeError or TokenError if `given` or the condition does not fit, ConfigError for more rounds than a
    picture has tokens, and for guidance without a condition.
    """
    settings = settings or SamplingConfig()
    prior.eval()
    batch, length = len(numbers), prior.length
    require(settings.steps <= length, "steps", settings.steps, f"at most {length}, the tokens of a picture")
    given = check_given(given, prior, batch)
    if condition is not None:
        prior.check_condition(condition, batch)
    elif settings.guidance != 1:
        raise nowhere_to_lead(settings)
    seeds = picture_seeds(seed, numbers)
    tokens, known = given.clamp_min(0).contiguous(), (given >= 0).contiguous()
    steps = settings.steps or min(STEPS, length)
    counts = [kept_in_rounds(masked, steps) for masked in (~known).flatten(1).sum(dim=1).tolist()]
    exact: MaskedPrior | None = None

    for step, scale in enumerate(settings.guidance_scales(steps)):
        if known.all():
            break
        leading = None if settings.guidance == 1 else scale
        doubt = DOUBT if leading is None else guided_doubt(DOUBT, leading)
        confidence_noise = settings.confidence_noise * (1 - (step + 1) / steps)
        by_picture = _logits(prior, tokens, known, condition, leading)
        for i in [i for i in range(batch) if counts[i][step]]:
            masked = (~known[i]).flatten()
            noise = RoundNoise(derive_seed(seeds[i], "round", step), masked, prior.codebook_size, confidence_noise)
            kept = keep_surest(by_picture[i], noise, counts[i][step], settings, doubt)
            if kept.in_doubt:
                exact, one = exact or prior.exact(), slice(i, i + 1)
                told = None if condition is None else condition[one]
                (again,) = _logits(exact, tokens[one], known[one], told, leading)
                kept = keep_surest(again, noise, counts[i][step], settings, doubt)
            places = masked.nonzero().flatten()[kept.places]
            tokens[i].view(-1)[places] = kept.tokens
            known[i].view(-1)[places] = True
        if on_token:
            on_token(int(known.flatten(1).sum(dim=1).min()), tokens.where(known, -1))
    return tokens


def kept_in_rounds(masked: int, steps: int) -> list[int]:
    """Return how many of so many masked tokens each round keeps: by a cosine, and at least one while any is masked."""
    counts, left = [], masked
    for step in range(1, steps + 1):
        share = math.cos(math.pi / 2 * step / steps)
        wanted = math.floor(masked * share + 1e-9)  # no last digit of a cosine, another elsewhere, is to tell
        counts.append(left - max(0, min(wanted, left - 1)))
        left -= counts[-1]
    return counts


def _logits(
    prior: MaskedPrior, tokens: Tensor, known: Tensor, condition: Tensor | None, scale: float | None
) -> tuple[Tensor, ...]:
    """Return each picture's logits (masked, codebook) of one pass on the CPU, guided where there is a scale."""
    masked = (~known).flatten(1).sum(dim=1).tolist()
    if condition is not None:
        condition = condition.to(prior.mask_vector)
        if scale is not None:
            tokens, known = tokens.repeat(2, 1, 1), known.repeat(2, 1, 1)
            condition = torch.cat((condition, torch.zeros_like(condition)))
    logits = prior.masked_logits(tokens.to(prior.device), known.to(prior.device), condition).cpu()
    require_finite(all_finite(logits))
    return (logits if scale is None else guided(logits, scale)).split(masked)


class RoundNoise:
    """The noise of one picture's round, at its N masked places; that of a race is drawn when it is run."""

    confidence: Tensor
    """(N,) float64, what is added to confidences."""

    def __init__(self, seed: int, masked: Tensor, codebook_size: int, confidence_noise: float) -> None:
        """seed: of this round of this picture. masked: bool (h w,). confidence_noise: how large confidences' is."""
        self._seed, self._codebook_size = seed, codebook_size
        self._places = masked.nonzero().flatten()
        self._generator = torch.Generator().manual_seed(seed)
        uniform = torch.rand(len(masked), generator=self._generator, dtype=torch.float64)
        self.confidence = confidence_noise * gumbel(uniform[masked])

    def of_races(self, which: Tensor) -> Tensor:
        """Return the Gumbel noise of races at some of the masked places, int64 (n,): float64 (n, codebook)."""
        uniform = torch.empty(len(which), self._codebook_size, dtype=torch.float64)
        for row, place in zip(uniform, self._places[which].tolist(), strict=True):
            row.uniform_(generator=self._generator.manual_seed(derive_seed(self._seed, "race", place)))
        return gumbel(uniform)


class Kept(NamedTuple):
    """The outcome of a picture's round."""

    places: Tensor
    """(count,) int64, which of the masked places are kept."""
    tokens: Tensor
    """(count,) int64, the tokens there."""
    in_doubt: bool
    """Whether a change of the logits by the doubt could keep other places, or other tokens there."""


def keep_surest(logits: Tensor, noise: RoundNoise, count: int, settings: SamplingConfig, doubt: float) -> Kept:
    """Choose tokens for masked places from logits (N, codebook), and keep the count that is surest, 1 to N.

    A confidence hangs on a token's logit and on the logarithm of the sum of all, and may be off by both. A place whose
    likeliest token would not be sure enough has no need of a race: first the likeliest to be kept race, then all others
    that could still be. A narrow race matters only at such a place.
    """
    offset = noise.confidence - logits.logsumexp(dim=1)  # from a logit to the confidence of its token
    most = logits.amax(dim=1) + offset
    tokens, in_doubt = most.new_zeros(len(most), dtype=torch.int64), torch.zeros_like(most, dtype=torch.bool)
    confidence = torch.full_like(most, -torch.inf)

    def run_races(which: Tensor) -> None:
        outcome = race(logits[which], noise.of_races(which), settings, doubt)
        tokens[which], in_doubt[which] = outcome
        confidence[which] = logits[which, outcome.tokens] + offset[which]

    run_races(most.topk(min(count + count // 2 + 1, len(most))).indices)  # few others are left
    least = confidence.topk(count).values[-1]
    run_races(((most > least - 2 * doubt) & (confidence == -torch.inf)).nonzero().flatten())
    surest = confidence.sort(descending=True, stable=True)
    places, least = surest.indices[:count], surest.values[count - 1]
    is_narrow_cut = count < len(most) and bool(least - surest.values[count] < 2 * doubt)
    is_narrow_race = bool((in_doubt & (most > least - 2 * doubt)).any())
    return Kept(places, tokens[places], is_narrow_cut or is_narrow_race)
