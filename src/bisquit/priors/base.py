"""What every prior does: say how likely tokens are, and paint new ones.

Every prior has a loss; only a `SequentialPrior` has a next-token distribution, and only that is what
sampling token by token and the codec take, so that a prior without exact likelihood is refused by its type.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bisquit.config import Settings
from bisquit.errors import ConfigError, ShapeError, TokenError
from bisquit.fingerprint import fingerprint


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

    def start_from_bits(self) -> None:
        """Draw weights anew so that tokens begin as alike as their bits. Raises ConfigError if this prior cannot."""
        raise ConfigError(f"a {type(self).__name__} cannot start from bits: train it without")

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name this prior: its configuration and every weight, as float32."""
        return fingerprint({**self.config.to_dict(), "bits": self.bits, "grid": self.grid}, self)

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

    def logits_at(self, tokens: Tensor, step: int) -> Tensor:
        """Return the logits (B, codebook) of the token of (B, h, w) at one step, given those before it."""
        return self.logits(tokens)[:, step]

    @abstractmethod
    def start(self, batch: int) -> Any:
        """Return an empty state (a cache) for `batch` sequences; `next_logits` fills it."""

    @abstractmethod
    def next_logits(self, state: Any, last: Tensor | None) -> Tensor:
        """Return the logits (B, codebook) of the next token, given the one before it.

        state: as `start` gave it and the calls since have filled it. last: (B,) int64, the token at the step before;
        None at the first.
        """

    def check_last(self, last: Tensor | None, step: int, batch: int) -> None:
        """Raise ShapeError unless `last` is what `next_logits` takes at a step: None at the first, then (batch,)."""
        if (last is None) != (step == 0) or (last is not None and last.shape != (batch,)):
            given = "no tokens" if last is None else f"tokens {tuple(last.shape)}"
            wanted = f"those before it, ({batch},)" if step else "None"
            raise ShapeError(f"step {step} was given {given}: it takes {wanted}")

    def exact(self) -> SequentialPrior:
        """Return the prior that decides races too close for float32: by default a copy in float64, on the CPU."""
        return copy.deepcopy(self).cpu().double()

    def loss(self, tokens: Tensor) -> Tensor:
        """Return the cross-entropy of tokens (B, h, w) in nats a token."""
        return token_nats(self.logits(tokens), tokens.flatten(1)).mean()

    @torch.no_grad()
    def token_bits(self, tokens: Tensor) -> Tensor:
        """Return how many bits each token of (B, h, w) costs, as float32 (B, h, w)."""
        return token_nats(self.logits(tokens), tokens.flatten(1)).view(tokens.shape) / math.log(2)


def token_nats(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the cross-entropy of tokens (...) under logits (..., codebook), in nats, as float32 (...)."""
    nats: Tensor = TokenNats.apply(logits.flatten(0, -2), tokens.flatten())  # type: ignore[no-untyped-call]
    return nats.view(tokens.shape)


class TokenNats(torch.autograd.Function):
    """The cross-entropy of tokens (N,) under logits (N, codebook), some rows at a time.

    `torch.nn.functional.cross_entropy` would hold four float32 copies of the logits: themselves, their logarithms of
    chances, and the gradients of both.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor) -> Tensor:
        ctx.save_for_backward(logits, tokens)
        nats = [
            -rows.float().log_softmax(dim=1).gather(1, targets.unsqueeze(1)).squeeze(1)
            for rows, targets in zip(*(x.split(_rows(logits)) for x in (logits, tokens)), strict=True)
        ]
        return torch.cat(nats)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logits, tokens = ctx.saved_tensors
        grad_logits = torch.empty_like(logits)
        parts = (x.split(_rows(logits)) for x in (logits, tokens.unsqueeze(1), grad.unsqueeze(1), grad_logits))
        for rows, targets, grad_rows, out in zip(*parts, strict=True):
            chances = rows.float().softmax(dim=1)
            chances.scatter_add_(1, targets, chances.new_full(targets.shape, -1.0))
            out.copy_(chances.mul_(grad_rows))
        return grad_logits, None


def _rows(logits: Tensor) -> int:
    """Return how many rows of logits (N, codebook) to take at a time: 2 MB of float32, which a cache holds."""
    return max(1, 2**19 // logits.shape[1])
