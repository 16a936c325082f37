"""Appeals: races that are in doubt, decided once more in float64, on the CPU and for one picture alone."""

from __future__ import annotations

from torch import Tensor

from bisquit.priors import Path, SequentialPrior
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
        """Return what one of the pictures decides at a step, () int64.

        steps: (B, steps) int64 on the CPU, what all pictures decided, of which the steps before matter. noise:
        (symbols,), that of the race.
        """
        self._exact = exact = self._exact or self._prior.exact()
        one = slice(picture, picture + 1)
        own, guide = (way and way.rows(one).to(exact.device) for way in (self._path, self._guide))
        tokens = self._prior.to_tokens(steps[one].to(exact.device), own)
        logits = guided_logits(exact, tokens, step, self._settings, own, guide).cpu()
        return race(logits, noise.unsqueeze(0), self._settings).tokens[0]
