"""The loop that paints scale after scale: one pass of the network for all tokens of a scale, then all their races."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bisquit.priors import Path, PyramidPrior
from bisquit.sampling.appeals import Appeals
from bisquit.sampling.guidance import both_ways, guided, guided_doubt
from bisquit.sampling.races import DOUBT, Seeds, all_finite, gumbel, picture_seeds, race, require_finite
from bisquit.sampling.sequential import check_given
from bisquit.sampling.settings import SamplingConfig

OnScale = Callable[[int, Tensor], None]
"""Called after each scale with how many are done and with all tokens (B, h, w); those to come are 0."""


@torch.no_grad()
def sample_pyramid(
    prior: PyramidPrior,
    numbers: Sequence[int],
    *,
    seed: Seeds,
    settings: SamplingConfig | None = None,
    given: Tensor | None = None,
    path: Path | None = None,
    guide: Path | None = None,
    on_scale: OnScale | None = None,
) -> Tensor:
    """Paint pictures as one batch, scale after scale: those that `bisquit.sampling.sample` paints token after token.

    Arguments, result and errors are those of `sample`; tokens given at coarse scales are what finer ones are painted
    to fit. With guidance, pictures and guides go through the network side by side, two for each picture.
    """
    settings = settings or SamplingConfig()
    prior.eval()
    batch = len(numbers)
    given = check_given(given, prior, batch)
    ways = both_ways(settings, path, guide)
    appeals = Appeals(prior, settings, path, guide)
    generators = [torch.Generator().manual_seed(own) for own in picture_seeds(seed, numbers)]
    steps, is_given = given.clamp_min(0).flatten(1), given.flatten(1) >= 0
    scales = torch.tensor(settings.guidance_scales(prior.length)).unsqueeze(1)  # those of guidance, (total, 1)
    copies = 1 if settings.guidance == 1 else 2

    state, last = prior.start(copies * batch, ways), None
    for done, span in enumerate(prior.spans):
        logits = prior.next_scale(state, last).cpu().unflatten(0, (copies, batch))  # (copies, B, n, codebook)
        require_finite(all_finite(logits))
        doubt = max(guided_doubt(DOUBT, scale) for scale in scales[span].flatten().tolist())
        for i, generator in enumerate(generators):
            noise = gumbel(torch.rand(logits.shape[2:], generator=generator, dtype=torch.float64))
            own = logits[0, i] if copies == 1 else guided(logits[:, i].flatten(0, 1), scales[span])
            winners, in_doubt = race(own, noise, settings, doubt)
            steps[i, span] = torch.where(is_given[i, span], steps[i, span], winners)
            for place in (in_doubt & ~is_given[i, span]).nonzero().flatten().tolist():
                steps[i, span.start + place] = appeals.decide(steps, i, span.start + place, noise[place])
        last = steps[:, span].to(prior.device).repeat(copies, 1)
        if on_scale:
            on_scale(done + 1, steps.view(-1, *prior.grid))
    return steps.view(-1, *prior.grid)
