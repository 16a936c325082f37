"""Conditions: what a picture is to show, as a vector of numbers that a prior takes.

    class "icy" ──> one at its place among the classes ──┐
                                                         ├──> (size,)      all zeros: whatever comes
    prompt "a beach at noon" ──sentence encoder──────────┘

A prior learns from pictures of which it is told the class, or a caption, or nothing; so one model paints with a
condition and without, and can be guided from the one to the other.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.config import Settings, require
from bisquit.errors import ConditionError
from bisquit.text import TEXT_ENCODERS, load_text_encoder

LONGEST_PROMPT = 1000


@dataclass(frozen=True)
class Conditions(Settings):
    """What can be said of a picture to a prior."""

    classes: tuple[str, ...] = ()
    """The names of the classes that it knows."""
    text_encoder: str = ""
    """What turns sentences into numbers, one of `bisquit.text.TEXT_ENCODERS`; empty if it knows no words."""

    def __post_init__(self) -> None:
        require(len(set(self.classes)) == len(self.classes), "classes", self.classes, "names that differ")
        known = f"one of {', '.join(TEXT_ENCODERS)}, or empty"
        require(not self.text_encoder or self.text_encoder in TEXT_ENCODERS, "text_encoder", self.text_encoder, known)

    @property
    def size(self) -> int:
        """How many numbers a condition has."""
        return len(self.classes) + (TEXT_ENCODERS[self.text_encoder].width if self.text_encoder else 0)

    def shared_with(self, other: Conditions) -> tuple[list[int], list[int]]:
        """Return which numbers of these conditions say what some of another's say, and which of the other's do."""
        shared = [name for name in self.classes if name in other.classes]
        own, others = ([one.classes.index(name) for name in shared] for one in (self, other))
        if self.text_encoder and self.text_encoder == other.text_encoder:
            own += range(len(self.classes), self.size)
            others += range(len(other.classes), other.size)
        return own, others

    def nothing(self, count: int) -> Tensor:
        """Return the conditions of so many pictures of which nothing is said, (count, size) zeros."""
        return torch.zeros(count, self.size)

    def of_labels(self, labels: Tensor) -> Tensor:
        """Return the conditions of pictures by their classes, labels (B,) int64 that index `classes`: (B, size).

        Of a picture whose label is -1, nothing is said.
        """
        one_hot = F.one_hot(labels + 1, len(self.classes) + 1)[:, 1:].float()
        return F.pad(one_hot, (0, self.size - len(self.classes)))

    def of_embeddings(self, embeddings: Tensor) -> Tensor:
        """Return the conditions of pictures by what an encoder made of sentences, (B, width): (B, size)."""
        return F.pad(embeddings, (len(self.classes), 0))

    def of_class(self, name: str) -> Tensor:
        """Return the condition of a class, (size,). Raises ConditionError if there is none of this name."""
        if not self.classes:
            raise ConditionError("this model knows no classes: train a prior with --classes")
        if name not in self.classes:
            near = difflib.get_close_matches(name, self.classes, n=3, cutoff=0.4) or self.classes
            raise ConditionError(f"this model knows no class {name!r}; near it are: {', '.join(near)}")
        return self.of_labels(torch.tensor([self.classes.index(name)]))[0]

    def of_prompt(self, prompt: str) -> Tensor:
        """Return the condition of a prompt, (size,).

        Raises ConditionError if the model knows no words, if the prompt is empty or of more than `LONGEST_PROMPT`
        characters, or if the encoder is not installed.
        """
        if not self.text_encoder:
            raise ConditionError("this model knows no words: train a prior with --captions")
        if not prompt.strip():
            raise ConditionError("the prompt is empty: say what to paint, or leave it out")
        if len(prompt) > LONGEST_PROMPT:
            raise ConditionError(f"the prompt has {len(prompt):,} characters: at most {LONGEST_PROMPT:,} are read")
        return self.of_embeddings(self.embed([prompt]))[0]

    def embed(self, sentences: Sequence[str]) -> Tensor:
        """Return what the encoder makes of sentences, (N, width), each by itself."""
        return load_text_encoder(self.text_encoder).encode(sentences)
