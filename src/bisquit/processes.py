"""The processes of a training, where there are several: which part of a batch is this one's, and what they share.

The processes are those of PyTorch's default group; without a group a process is alone, and then nothing here changes
anything. Of a batch, process 0 of W has the first of W equal parts, and so on. Whatever is drawn at random for a batch
is drawn for all of it by each process, from the same seed, and each takes its part: so W processes learn from the very
batch that one would, and a loss that averages over the whole batch is told of the others' parts.

What says here that it communicates must be called by all processes alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as group

from bisquit.errors import ProcessLost

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """One of equal parts of a batch; by default all of it."""

    index: int = 0
    count: int = 1

    def whole(self, rows: int) -> int:
        """Return how many rows the batch has of which this part has `rows`."""
        return rows * self.count

    def first(self, rows: int) -> int:
        """Return the number in the batch of this part's first row."""
        return rows * self.index

    def of(self, whole: Tensor, dim: int = 0) -> Tensor:
        """Return this part of what there is for a whole batch, along a dimension."""
        return whole if self.count == 1 else whole.chunk(self.count, dim)[self.index]


WHOLE = Part()
"""All of a batch."""


def own_part() -> Part:
    """Return which part of each batch is this process's."""
    if not (group.is_available() and group.is_initialized()):
        return Part()
    return Part(group.get_rank(), group.get_world_size())


def whole_mean(mean: Tensor) -> Tensor:
    """Return the mean over the whole batch of what this process has the mean of over its part. It communicates.

    The gradient is that of this process's part alone, as if nothing were divided: processes average the gradients of
    their weights, and the average of those is the gradient of what is returned here.
    """
    count = own_part().count
    if count == 1:
        return mean
    whole = mean.detach().clone()
    group.all_reduce(whole)
    return whole / count + (mean - mean.detach())


def total(x: Tensor) -> Tensor:
    """Return the sum of x over all processes. It communicates, and keeps no gradient."""
    if own_part().count == 1:
        return x
    whole = x.detach().clone()
    group.all_reduce(whole)
    return whole


def gathered(rows: Tensor) -> Tensor:
    """Return the rows (N, ...) of all processes, of which each may have another number. It communicates."""
    count = own_part().count
    if count == 1:
        return rows
    lengths = total(torch.eye(count, dtype=torch.int64, device=rows.device)[own_part().index] * len(rows)).tolist()
    padded = rows.new_zeros(max(lengths), *rows.shape[1:])
    padded[: len(rows)] = rows.detach()
    every = [torch.empty_like(padded) for _ in lengths]
    group.all_gather(every, padded)
    return torch.cat([of_one[:length] for of_one, length in zip(every, lengths, strict=True)])


def largest(number: int) -> int:
    """Return the largest of the processes' numbers. It communicates."""
    if own_part().count == 1:
        return number
    whole = torch.tensor(number)
    group.all_reduce(whole, group.ReduceOp.MAX)
    return int(whole)


def on_first(work: Callable[[], T]) -> T:
    """Have the first process alone do something, and return to all what it returned. It communicates.

    Raises what the work raised in the first process, ProcessLost in the others.
    """
    part = own_part()
    if part.count == 1:
        return work()
    answer: list[T | str | None] = [None, None]  # what the work returned, and what went wrong
    if part.index == 0:
        try:
            answer[0] = work()
        except BaseException as error:
            answer[1] = str(error) or type(error).__name__
            group.broadcast_object_list(answer)
            raise
    group.broadcast_object_list(answer)
    returned, wrong = answer
    if wrong is not None:
        raise ProcessLost(f"the first process cannot go on: {wrong}")
    return returned  # type: ignore[return-value]
