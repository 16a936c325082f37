"""Guidance: logits that go from those without a condition to those with it, and on.

Each picture is computed twice a step, along its own path and along that of a guide, which has the same tokens. Ho and
Salimans 2022, arXiv:2207.12598.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bisquit.errors import ConfigError
from bisquit.priors import Path, SequentialPrior
from bisquit.sampling.settings import SamplingConfig


def guided(logits: Tensor, scale: float | Tensor) -> Tensor:
    """Return logits (B, ..., codebook) that go from those of the guides on, given theirs below those of their pictures.

    logits: (2 B, ..., codebook). scale: 0 for the guides' own, 1 for the pictures', above 1 for more than that; one for
    all, or what spreads over them, such as (B, 1).
    """
    own, guides = logits.chunk(2)
    return guides + (own - guides) * scale


def guided_logits(
    prior: SequentialPrior, tokens: Tensor, step: int, settings: SamplingConfig, path: Path | None, guide: Path | None
) -> Tensor:
    """Return the logits (B, symbols) of one step of tokens (B, h, w), guided as the settings have it."""
    own = prior.logits_at(tokens, step, path)
    if settings.guidance == 1:
        return own
    return guided(torch.cat((own, prior.logits_at(tokens, step, guide))), settings.guidance_scales(prior.steps)[step])


def guided_doubt(doubt: float, scale: float) -> float:
    """Return by how much guided logits may be off if what they are made of is off by the doubt."""
    return doubt * (abs(scale) + abs(scale - 1))


def both_ways(settings: SamplingConfig, path: Path | None, guide: Path | None) -> Path | None:
    """Return the ways of all pictures, and behind them those of their guides if there is guidance.

    Raises ConfigError for guidance without a way to go from, and one to go to.
    """
    if settings.guidance == 1:
        return path
    if path is None or guide is None:
        raise nowhere_to_lead(settings)
    return path.beside(guide)


def nowhere_to_lead(settings: SamplingConfig) -> ConfigError:
    """Return the error that there is guidance, and nothing that pictures are to show."""
    return ConfigError(f"guidance is {settings.guidance}: it leads towards a class or a prompt, and none is given")
