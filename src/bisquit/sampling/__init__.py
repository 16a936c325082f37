"""Sampling: from what a prior computes to tokens, a loop for each family of priors; the sampler is not the model."""

from __future__ import annotations

from bisquit.sampling.flow import FLOW_STEPS, OnStep, picture_noise, sample_flow
from bisquit.sampling.guidance import both_ways, guided, guided_logits
from bisquit.sampling.masked import sample_masked
from bisquit.sampling.pyramid import OnScale, sample_pyramid
from bisquit.sampling.races import (
    DOUBT,
    Noise,
    Race,
    Seeds,
    all_finite,
    gumbel,
    picture_seed,
    picture_seeds,
    race,
    require_finite,
)
from bisquit.sampling.sequential import OnToken, check_given, sample
from bisquit.sampling.settings import SamplingConfig

__all__ = [
    "DOUBT",
    "FLOW_STEPS",
    "Noise",
    "OnScale",
    "OnStep",
    "OnToken",
    "Race",
    "SamplingConfig",
    "Seeds",
    "all_finite",
    "both_ways",
    "check_given",
    "guided",
    "guided_logits",
    "gumbel",
    "picture_noise",
    "picture_seed",
    "picture_seeds",
    "race",
    "require_finite",
    "sample",
    "sample_flow",
    "sample_masked",
    "sample_pyramid",
]
