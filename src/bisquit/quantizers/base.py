"""What every quantizer does: latents in, tokens and codes out, and from tokens to codes again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class Quantized(NamedTuple):
    """What a quantizer makes of latents."""

    tokens: Tensor
    """(B, h, w) int64 in [0, 2**bits)."""
    codes: Tensor
    """(B, width, h, w) float, what the decoder takes; gradients flow through it to the latents."""
    loss: Tensor
    """() float, the quantizer's own terms of the training loss; 0 where it has none."""


class Quantizer(nn.Module, ABC):
    """Turns latents of `width` channels into tokens of `bits` bits."""

    width: int
    bits: int

    @abstractmethod
    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents (B, width, h, w)."""

    @abstractmethod
    def codes(self, tokens: Tensor) -> Tensor:
        """Return the codes (B, width, h, w) of tokens (B, h, w); equal to those of `forward` to the last bit."""

    @abstractmethod
    def freeze_encoding(self) -> None:
        """Have no gradient reach what decides on tokens; what makes codes of them still learns."""

    def grow_from(self, other: Quantizer) -> bool:
        """Become another quantizer of fewer bits, whose codes further bits begin to change only as they learn.

        Returns whether it could; by default none can.
        """
        return False
