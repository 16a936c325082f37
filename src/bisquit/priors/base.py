"""What every prior does: say how likely tokens are, and paint new ones.

Every prior has a loss; only a `SequentialPrior` has a next-token distribution, and only that is what
sampling token by token and the codec take, so that a prior without exact likelihood is refused by its type.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bisquit.config import Settings
from bisquit.errors import ShapeError, TokenError


class Prior(nn.Module, ABC):
    """A distribution over grids of tokens."""

    config: Settings
    bits: int
    grid: tuple[int, int]

    @property
    def codebook_size(self) -> int:
        """How many tokens there are: 2**bits."""
        return 2**self.bits

    @property
    def length(self) -> int:
        """Tokens an image: h w."""
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def loss(self, tokens: Tensor) -> Tensor:
        """Return the training loss of tokens (B, h, w), in nats a token. Raises ShapeError on another grid."""

    def check(self, tokens: Tensor) -> None:
        """Raise ShapeError unless tokens are int64 (B, h, w) on this prior's grid, TokenError if one is no code."""
        if tokens.dtype != torch.int64 or tokens.ndim != 3 or tuple(tokens.shape[1:]) != self.grid:
            raise ShapeError(
                f"tokens are {tokens.dtype} {tuple(tokens.shape)}: "
                f"this prior takes int64 (B, {self.grid[0]}, {self.grid[1]})"
            )
        if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codebook_size:
            raise TokenError(
                f"tokens run from {int(tokens.min())} to {int(tokens.max())}: "
                f"this prior's codebook ends at {self.codebook_size - 1}"
            )


class SequentialPrior(Prior):
    """A prior that says of each token in turn, in raster order, how likely it is given those before it."""

    @abstractmethod
    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits (B, h w, codebook) of each token of (B, h, w) given those before it, in one pass."""

    @abstractmethod
    def start(self, batch: int) -> Any:
        """Return an empty state (a cache) for `batch` sequences; `next_logits` fills it."""

    @abstractmethod
    def next_logits(self, state: Any, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook) of the next token, given the one before it.

        state: as `start` gave it and the calls since have filled it. last: (B,) int64, the token at the step before;
        None at the first.
        """

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the cross-entropy of tokens (B, h, w) in nats a token."""
        return F.cross_entropy(self.logits(tokens).flatten(0, 1).float(), tokens.flatten())

    @torch.no_grad()
    def token_bits(self, tokens: Tensor) -> Tensor:
        """Return how many bits each token of (B, h, w) costs, as float32 (B, h, w)."""
        logits = self.logits(tokens).float().transpose(1, 2)
        nats = F.cross_entropy(logits, tokens.flatten(1), reduction="none")
        return nats.view(tokens.shape) / math.log(2)
