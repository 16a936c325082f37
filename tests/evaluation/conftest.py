"""Fakes that are cheap and whose figures can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bisquit.priors.base import Path, SequentialPrior


class PositionPrior(SequentialPrior):
    """Logits that depend on the position alone, behind a dropout that would spoil them in training mode."""

    def __init__(self, bits: int, position_logits: Tensor) -> None:
        super().__init__()
        self.bits = bits
        self.grid = (position_logits.shape[0], position_logits.shape[1])
        self.position_logits = nn.Parameter(position_logits)  # (h, w, codebook)
        self.dropout = nn.Dropout(0.5)

    def logits(self, tokens: Tensor, path: Path | None = None) -> Tensor:
        return self.dropout(self.position_logits.flatten(0, 1).expand(len(tokens), -1, -1))

    def start(self, batch: int, path: Path | None = None) -> None:
        raise NotImplementedError

    def next_logits(self, state: None, last: Tensor | None) -> Tensor:
        raise NotImplementedError


@pytest.fixture
def position_prior() -> Callable[[int, Tensor], PositionPrior]:
    return PositionPrior


@pytest.fixture
def uniform_prior() -> Callable[[int, tuple[int, int]], PositionPrior]:
    return lambda bits, grid: PositionPrior(bits, torch.zeros(*grid, 2**bits))
