"""What a prior is told of the pictures that it learns from: their class, a sentence about it, or nothing.

There are many pictures to a class and but a few dozen sentences: a prior learns them by heart, and then other words for
the same mean little to it. Noise in what an encoder made of a sentence lets it learn of the surroundings too, as a
penalty on the weights that read it would (Bishop 1995, "Training with Noise is Equivalent to Tikhonov Regularization").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bisquit.conditioning import Conditions


class Teller:
    """Says something of pictures by their labels. What it draws, it draws from PyTorch's own generator."""

    def __init__(
        self, conditions: Conditions, unsaid: float, captions: Sequence[Tensor] = (), noise: float = 0.0
    ) -> None:
        """Say one of these conditions.

        unsaid: the chance of saying nothing. captions: for each class (n, width), what an encoder made of sentences
        about it, of which one is said half of the time; none, where n is 0. noise: the standard deviation of what is
        added to each number of it.
        """
        self.conditions, self.unsaid, self.noise = conditions, unsaid, noise
        self._captions = torch.cat(list(captions)) if captions else None
        self._counts = torch.tensor([len(of_class) for of_class in captions])

    def draw(self, labels: Tensor) -> Tensor:
        """Return what is said of pictures with labels (B,), -1 where the class is not known: (B, size)."""
        labels = torch.where(torch.rand(len(labels)) < self.unsaid, -1, labels)
        said = self.conditions.of_labels(labels)
        if self._captions is not None:
            counts = torch.where(labels >= 0, self._counts[labels], 0)
            number = (torch.rand(len(labels)) * counts).long() + (self._counts.cumsum(0) - self._counts)[labels]
            by_caption = (torch.rand(len(labels)) < 0.5) & (counts > 0)
            embeddings = self._captions[number[by_caption]]
            if self.noise:
                embeddings = embeddings + self.noise * torch.randn_like(embeddings)
            said[by_caption] = self.conditions.of_embeddings(embeddings)
        return said

    def plain(self, labels: Tensor) -> Tensor:
        """Return what is said in validation: the class of each."""
        return self.conditions.of_labels(labels)
