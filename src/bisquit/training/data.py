"""Batches as a pure function of the step.

The frames of epoch e, each once or by weights, are in an order drawn from (seed, e), and step k takes the next batch of
it. A run that is resumed at step k therefore goes on with the very batch that it would have had, and its loader has no
state to save. Of several processes each fetches its own part of that batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from torch import Tensor

from bisquit.errors import ConfigError
from bisquit.processes import own_part
from bisquit.seeds import derive_seed


class Labelled(NamedTuple):
    """Pictures and their classes."""

    pictures: Tensor
    """Frames, (B, H, W, 3) uint8, or tokens, (B, h, w) int64."""
    labels: Tensor
    """(B,) int64, -1 where the class is not known."""


Batch = Tensor | Labelled
Fetch = Callable[[np.ndarray], Batch]
"""From indices (B,) to the batch that they name."""
Order = Callable[[int, int, int], np.ndarray]
"""From an epoch and the first of some places in it, and the one after the last, to which pictures come there."""


class StepLoader:
    """Yields the batches of `steps` steps, one fetched ahead. The first step is asked for when iteration begins."""

    def __init__(self, load: Callable[[int], Batch], steps: int, first: Callable[[], int]) -> None:
        self._load, self._steps, self._first = load, steps, first

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Batch]:
        first = self._first()
        with ThreadPoolExecutor(max_workers=1) as pool:
            ahead = pool.submit(self._load, first)
            for step in range(first, first + self._steps):
                batch = ahead.result()
                if step + 1 < first + self._steps:
                    ahead = pool.submit(self._load, step + 1)
                yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: where the loader goes on is the trainer's step, which the checkpoint holds."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take nothing, as `state_dict` gave nothing."""


class Batches(L.LightningDataModule):
    """A training and a valid set, each as a size and a function that fetches some of it."""

    def __init__(
        self,
        train: tuple[int, Fetch],
        valid: tuple[int, Fetch],
        batch_size: int,
        seed: int,
        valid_batch_size: int = 64,
        weights: np.ndarray | None = None,
        order: Order | None = None,
    ) -> None:
        """weights: (N,), how often each picture to train on is drawn, up to a factor; else each is once an epoch.

        order: in which epochs take the pictures, where they are not drawn from all of them.

        Raises ConfigError unless the processes of the training can have equal parts of a batch.
        """
        super().__init__()
        self._weights = None if weights is None else torch.from_numpy(weights).double()
        self._train_size, self._fetch_train = train
        self._valid_size, self._fetch_valid = valid
        self.batch_size = min(batch_size, self._train_size)
        self._part = own_part()
        if self.batch_size % self._part.count:
            raise ConfigError(
                f"a batch is of {self.batch_size} pictures: {self._part.count} processes need a multiple of that; "
                "change --batch-size or --devices"
            )
        self.steps_per_epoch = self._train_size // self.batch_size
        self._valid_batch_size = valid_batch_size
        self._seed = seed
        self._places = order
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def indices(self, step: int) -> np.ndarray:
        """Return which pictures step `step` of the run trains on, (batch_size,) int64."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._places is not None:
            return self._places(epoch, place * self.batch_size, (place + 1) * self.batch_size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
            self._epoch, self._order = epoch, self._drawn(generator).numpy()
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]

    def _drawn(self, generator: torch.Generator) -> Tensor:
        if self._weights is None:
            return torch.randperm(self._train_size, generator=generator)
        return torch.multinomial(self._weights, self._train_size, replacement=True, generator=generator)

    def train_batch(self, step: int) -> Batch:
        """Return this process's part of the batch of step `step` of the run."""
        rows = self.batch_size // self._part.count
        first = self._part.first(rows)
        return self._fetch_train(self.indices(step)[first : first + rows])

    def train_dataloader(self) -> StepLoader:
        """Return the batches of an epoch, from the trainer's step on."""
        trainer = self.trainer
        assert trainer is not None
        return StepLoader(self.train_batch, self.steps_per_epoch, lambda: trainer.global_step)

    def val_dataloader(self) -> StepLoader:
        """Return the batches of the valid set, in its own order.

        Of several processes each has every so-manieth; all have as many, for they take their steps together, and so
        the last may come again as surplus.
        """
        size, batches = self._valid_batch_size, self._valid_batches

        def load(step: int) -> Batch:
            first = size * min(self._part.count * step + self._part.index, batches - 1)
            return self._fetch_valid(np.arange(first, min(first + size, self._valid_size)))

        return StepLoader(load, -(-batches // self._part.count), lambda: 0)

    def is_surplus(self, step: int) -> bool:
        """Whether another process has this process's valid batch of a step too, and counts it."""
        return self._part.count * step + self._part.index >= self._valid_batches

    @property
    def _valid_batches(self) -> int:
        return -(-self._valid_size // self._valid_batch_size)


def balancing_weights(labels: np.ndarray) -> np.ndarray:
    """Return for labels (N,) how often to draw each picture so that each class comes as often: float64 (N,).

    Pictures without a class, -1, count as a class.
    """
    _, members, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights: np.ndarray = 1 / counts[members]
    return weights
