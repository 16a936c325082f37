"""Tokens of shards to train on, streamed, for sets that no memory holds: `bisquit.shards` made them.

The pictures of all shards are numbered in the order of the shards' names. An epoch takes the shards in an order of its
own, some of them together as a block, and the pictures of a block in an order of their own. Both orders are drawn from
(seed, epoch), so that what comes at a place of an epoch does not depend on what was read before: a step's batch is a
function of its number, as `bisquit.training.data` has it, and a run that is resumed reads but the block it goes on in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from bisquit.config import require
from bisquit.errors import TokenError
from bisquit.seeds import derive_seed
from bisquit.shards import find_shards
from bisquit.tokenizer import Tokenizer

BLOCK_PICTURES = 65_536
_LOOKING = 8  # shards that are looked into at once


class _Blocks(NamedTuple):
    """The blocks of an epoch."""

    shards: list[np.ndarray]
    """Which shards each is of."""
    ends: np.ndarray
    """The place in the epoch after the last of each."""


class StreamedTokens:
    """The tokens of shards, of which two blocks at most are held: one, and the next where a batch is of both."""

    def __init__(self, url: str, block_pictures: int = BLOCK_PICTURES) -> None:
        """url: a folder of shards on any storage, or some of it, with * in its last part.

        block_pictures: how many pictures are shuffled together, in whole shards, one at least. Looks into each shard
        for how many pictures it has, and of which classes. Raises TokenError if there are none, or any is damaged.
        """
        require(block_pictures >= 1, "block_pictures", block_pictures, "at least 1")
        self.block_pictures = block_pictures
        self._shards = find_shards(url)
        with ThreadPoolExecutor(_LOOKING) as pool:
            seen = list(pool.map(self._shards.contents, range(len(self._shards))))
        self._rows = np.array([rows for rows, _ in seen], dtype=np.int64)
        self._ends = np.cumsum(self._rows)
        if not len(self):
            raise TokenError(f"{url}: its shards hold no picture")
        self.classes = tuple(sorted(set().union(*(names for _, names in seen))))
        self._together = max(1, block_pictures // int(self._rows.max()))
        self._read = lru_cache(2 * self._together)(self._tokens_and_labels)
        self._blocks = lru_cache(2)(self._drawn_blocks)
        self._order = lru_cache(2)(self._drawn_order)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @property
    def tokenizer(self) -> Tokenizer:
        """What made the tokens."""
        return self._shards.tokenizer

    @property
    def frame_size(self) -> tuple[int, int]:
        """(H, W) of the frames in pixels."""
        return self._shards.frame_size

    @property
    def grid(self) -> tuple[int, int]:
        """The grid (h, w) of each picture."""
        return self._shards.grid

    def batch(self, indices: np.ndarray) -> Tensor:
        """Return the tokens of some pictures as int64 (B, h, w)."""
        tokens = np.empty((len(indices), *self.grid), dtype=np.int64)
        for shard, places, rows in self._places(indices):
            tokens[places] = self._read(shard)[0][rows]
        return torch.from_numpy(tokens)

    def labels_of(self, indices: np.ndarray) -> np.ndarray:
        """Return the labels of some pictures, int64 (B,), -1 where unknown."""
        labels = np.empty(len(indices), dtype=np.int64)
        for shard, places, rows in self._places(indices):
            labels[places] = self._read(shard)[1][rows]
        return labels

    def order(self, seed: int) -> Callable[[int, int, int], np.ndarray]:
        """Return what says, of an epoch, which pictures come at places start to stop - 1: int64 (stop - start,)."""
        return partial(self._drawn, seed)

    def _places(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Yield each shard that pictures are of, which of them (B,) those are, and their rows there."""
        shards = np.searchsorted(self._ends, indices, side="right")
        for shard in np.unique(shards):
            places = shards == shard
            yield int(shard), places, indices[places] - (self._ends[shard] - self._rows[shard])

    def _tokens_and_labels(self, shard: int) -> tuple[np.ndarray, np.ndarray]:
        tokens, names = self._shards.read(shard)
        if len(tokens) != self._rows[shard]:
            raise TokenError(f"{self._shards.names[shard]} has changed since it was looked into: start anew")
        numbers = {name: number for number, name in enumerate(self.classes)}
        return tokens, np.array([-1 if name is None else numbers[name] for name in names], dtype=np.int64)

    def _drawn(self, seed: int, epoch: int, start: int, stop: int) -> np.ndarray:
        ends = self._blocks(seed, epoch).ends
        first, last = np.searchsorted(ends, (start, stop - 1), side="right")
        orders = [self._order(seed, epoch, int(block)) for block in range(first, last + 1)]
        begin = int(ends[first]) - len(orders[0])
        return np.concatenate(orders)[start - begin : stop - begin]

    def _drawn_blocks(self, seed: int, epoch: int) -> _Blocks:
        order = _permutation(len(self._shards), derive_seed(seed, "shards", epoch))
        shards = [order[first : first + self._together] for first in range(0, len(order), self._together)]
        return _Blocks(shards, np.cumsum([self._rows[block].sum() for block in shards]))

    def _drawn_order(self, seed: int, epoch: int, block: int) -> np.ndarray:
        shards = self._blocks(seed, epoch).shards[block]
        pictures = np.concatenate([np.arange(self._ends[one] - self._rows[one], self._ends[one]) for one in shards])
        return pictures[_permutation(len(pictures), derive_seed(seed, "block", epoch, block))]


def _permutation(count: int, seed: int) -> np.ndarray:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).numpy()
