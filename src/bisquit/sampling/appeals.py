"""Appeals: races that are in doubt, decided once more in float64, on the CPU and for one picture alone."""

from __future__ import annotations

from torch import Tensor

from bisquit.priors import Path, SequentialPrior
from bisquit.priors.base import to_grid
from bisquit.sampling.guidance import guided_logits
from bisquit.sampling.races import race
from bisquit.sampling.settings import SamplingConfig


class Appeals:
    """Decides races of pictures that a prior paints. Its exact copy of the prior is made when the first one comes."""

    def __init__(
        self, prior: SequentialPrior, settings: SamplingConfig, path: Path | None = None, guide: Path | None = None
    ) -> None:
        """path, guide: the ways of the pictures and of their guides, as `bisquit.sampling.sample` takes them."""
        self._prior, self._settings, self._path, self._guide = prior, settings, path, guide
        self._exact: SequentialPrior | None = None

    def decide(self, steps: Tensor, picture: int, step: int, noise: Tensor) -> Tensor:
        """Return the token, () int64, that one of the pictures takes at a step.

        steps: (B, h w) int64 on the CPU, the tokens of all pictures in the order of the steps, of which those before
        matter. noise: (codebook,), that of the race.
        """
        self._exact = exact = self._exact or self._prior.exact()
        one = slice(picture, picture + 1)
        own, guide = (way and way.rows(one).to(exact.device) for way in (self._path, self._guide))
        tokens = to_grid(steps[one].to(exact.device), own, self._prior.grid)
        logits = guided_logits(exact, tokens, step, self._settings, own, guide).cpu()
        return race(logits, noise.unsqueeze(0), self._settings).tokens[0]
