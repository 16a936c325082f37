"""The loop that paints token after token, in the order of a sequential prior's steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bisquit.errors import ShapeError, TokenError
from bisquit.priors import Path, Prior, SequentialPrior
from bisquit.priors.base import to_steps
from bisquit.sampling.appeals import Appeals
from bisquit.sampling.guidance import both_ways, guided, guided_doubt
from bisquit.sampling.races import DOUBT, Noise, Seeds, all_finite, race, require_finite
from bisquit.sampling.settings import SamplingConfig

OnToken = Callable[[int, Tensor], None]
"""Called after each token with how many are done and with all tokens (B, h, w); those to come are 0."""


@torch.no_grad()
def sample(
    prior: SequentialPrior,
    numbers: Sequence[int],
    *,
    seed: Seeds,
    settings: SamplingConfig | None = None,
    given: Tensor | None = None,
    path: Path | None = None,
    guide: Path | None = None,
    on_token: OnToken | None = None,
) -> Tensor:
    """Paint pictures as one batch, token after token, with the prior's cache.

    The prior computes logits wherever it is; the races are run on the CPU. numbers: which pictures of the seed, or each
    of a seed of its own. given: (len(numbers), h, w) int64, tokens that are kept as they are, -1 where one is to be
    painted. path: the pictures' way, else the prior's own. guide: the way of the guides, of the same order, for
    guidance other than 1. Returns their tokens, int64 (len(numbers), h, w), on the CPU. Raises ModelError if the
    prior's logits are not finite, ShapeError or TokenError if `given` does not fit, ConfigError for guidance without a
    guide, and unless there are as many seeds as pictures.
    """
    settings = settings or SamplingConfig()
    prior.eval()
    batch = len(numbers)
    given = check_given(given, prior, batch)
    ways = both_ways(settings, path, guide)
    path = None if path is None else path.to("cpu")
    noise = Noise(seed, numbers, prior.grid[1] * prior.parts, prior.symbols)
    appeals = Appeals(prior, settings, path, guide)
    steps = prior.to_symbols(given.clamp_min(0), path).clone()
    is_given = to_steps(given >= 0, path).repeat_interleave(prior.parts, dim=1)
    scales = settings.guidance_scales(prior.steps)
    is_guided = settings.guidance != 1

    state = prior.start(2 * batch if is_guided else batch, ways)
    for step, scale in enumerate(scales):
        last = steps[:, step - 1].to(prior.device) if step else None
        if last is not None and is_guided:
            last = last.repeat(2)
        here, logits = noise.next(), prior.next_logits(state, last).cpu()
        require_finite(all_finite(logits))
        if is_guided:
            logits = guided(logits, scale)
        winners, in_doubt = race(logits, here, settings, guided_doubt(DOUBT, scale) if is_guided else DOUBT)
        steps[:, step] = torch.where(is_given[:, step], steps[:, step], winners)
        for i in (in_doubt & ~is_given[:, step]).nonzero().flatten().tolist():
            steps[i, step] = appeals.decide(steps, i, step, here[i])
        if on_token and (step + 1) % prior.parts == 0:
            on_token((step + 1) // prior.parts, prior.to_tokens(steps, path))
    return prior.to_tokens(steps, path)


def check_given(given: Tensor | None, prior: Prior, batch: int) -> Tensor:
    """Return what is given, int64 (batch, h, w), -1 where a token is to be painted: everywhere, if it is None.

    Raises ShapeError unless it is so on the prior's grid, TokenError for what is no code and not -1.
    """
    if given is None:
        return torch.full((batch, *prior.grid), -1)
    if len(given) != batch:
        raise ShapeError(f"{len(given)} pictures are given for {batch}")
    prior.check(given.clamp_min(0) if given.dtype == torch.int64 else given)
    if (given < -1).any():
        raise TokenError(f"a given token is {int(given.min())}: a code, or -1 where one is to be painted")
    return given
