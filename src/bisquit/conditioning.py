"""Conditions: what a picture is to show, as a vector of numbers that a prior takes.

    class "icy" ──> one at its place among the classes ───────┐
                                                              ├──> (classes,)      all zeros: whatever comes
    prompt "a beach at noon" ──reader──> the chance of each ──┘

A prior learns from pictures of which it is told the class, or what a sentence about it says of classes, or nothing; so
one model paints with a condition and without, and can be guided from the one to the other.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from bisquit.config import require
from bisquit.errors import ConditionError
from bisquit.text import Reader

LONGEST_PROMPT = 1000


@dataclass(frozen=True)
class Conditions:
    """What can be said of a picture to a prior."""

    classes: tuple[str, ...] = ()
    """The names of the classes that it knows."""
    reader: Reader | None = None
    """What sentences say of them; None if it knows no words."""

    def __post_init__(self) -> None:
        require(len(set(self.classes)) == len(self.classes), "classes", self.classes, "names that differ")
        if self.reader is not None:
            read = len(self.reader.bias)
            require(read == len(self.classes), "the number of classes that are read", read, f"{len(self.classes)}")

    @property
    def size(self) -> int:
        """How many numbers a condition has."""
        return len(self.classes)

    def shared_with(self, other: Conditions) -> tuple[list[int], list[int]]:
        """Return which numbers of these conditions say what some of another's say, and which of the other's do."""
        shared = [name for name in self.classes if name in other.classes]
        own, others = ([one.classes.index(name) for name in shared] for one in (self, other))
        return own, others

    def nothing(self, count: int) -> Tensor:
        """Return the conditions of so many pictures of which nothing is said, (count, size) zeros."""
        return torch.zeros(count, self.size)

    def of_labels(self, labels: Tensor) -> Tensor:
        """Return the conditions of pictures by their classes, labels (B,) int64 that index `classes`: (B, size).

        Of a picture whose label is -1, nothing is said.
        """
        return F.one_hot(labels + 1, len(self.classes) + 1)[:, 1:].float()

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
        if self.reader is None:
            raise ConditionError("this model knows no words: train a prior with --captions")
        if not prompt.strip():
            raise ConditionError("the prompt is empty: say what to paint, or leave it out")
        if len(prompt) > LONGEST_PROMPT:
            raise ConditionError(f"the prompt has {len(prompt):,} characters: at most {LONGEST_PROMPT:,} are read")
        return self.reader.read([prompt])[0]
