"""What a prior is told of the pictures that it learns from: their class, a sentence about it, or nothing.

Of a sentence it is told what a reader makes of it, the chance of each class; so it meets in training what a prompt will
tell it later, doubt included.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bisquit.conditioning import Conditions


class Teller:
    """Says something of pictures by their labels. What it draws, it draws from PyTorch's own generator."""

    def __init__(self, conditions: Conditions, unsaid: float, captions: Sequence[Sequence[str]] = ()) -> None:
        """Say one of these conditions.

        unsaid: the chance of saying nothing. captions: for each class, sentences about it, for conditions that know
        words; one is said half of the time, where there is any.
        """
        self.conditions, self.unsaid = conditions, unsaid
        self._captions = self._counts = None
        if conditions.reader is not None:
            self._captions = conditions.reader.read([sentence for of_class in captions for sentence in of_class])
            self._counts = torch.tensor([len(of_class) for of_class in captions])

    def draw(self, labels: Tensor) -> Tensor:
        """Return what is said of pictures with labels (B,), -1 where the class is not known: (B, size)."""
        labels = torch.where(torch.rand(len(labels)) < self.unsaid, -1, labels)
        said = self.conditions.of_labels(labels)
        if self._captions is not None and self._counts is not None:
            counts = torch.where(labels >= 0, self._counts[labels], 0)
            number = (torch.rand(len(labels)) * counts).long() + (self._counts.cumsum(0) - self._counts)[labels]
            by_caption = (torch.rand(len(labels)) < 0.5) & (counts > 0)
            said[by_caption] = self._captions[number[by_caption]]
        return said

    def plain(self, labels: Tensor) -> Tensor:
        """Return what is said in validation: the class of each."""
        return self.conditions.of_labels(labels)
