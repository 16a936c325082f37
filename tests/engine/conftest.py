"""The model that ships: the one trained prior that the tests may ask for."""

from __future__ import annotations

import pytest
from torch import Tensor

import bisquit
from bisquit.engine import paint, prepare
from bisquit.priors import RasterPrior


@pytest.fixture(scope="session")
def seed_prior() -> RasterPrior:
    """Return the prior of the seed model: 20 x 30 tokens of 10 bits."""
    prior = bisquit.load("seed").prior
    assert isinstance(prior, RasterPrior)
    return prior


@pytest.fixture(scope="session")
def seed_pictures(seed_prior: RasterPrior) -> Tensor:
    """Return the tokens of two pictures that the seed prior paints, int64 (2, 20, 30)."""
    return paint(prepare(seed_prior), range(2), seed=0)
