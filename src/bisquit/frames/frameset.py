"""Frames of one size, memory-mapped, with what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

Indices = int | np.integer | slice | np.ndarray | Sequence[int]


@dataclass(frozen=True, eq=False)
class FrameSet:
    """Frames of one size in a fixed order. Nothing of their pixels is in memory until it is asked for."""

    pixels: np.ndarray
    """uint8 (M, H, W, 3), memory-mapped and shared by all subsets; frame i of this set is `pixels[rows[i]]`."""
    rows: np.ndarray
    """int64 (N,)."""
    names: tuple[str, ...]
    """A name for each frame, such as `train-01.parquet#17` or `icy/003.png`."""
    classes: tuple[str, ...]
    """The names of the classes, sorted; () where no frame has one."""
    labels: np.ndarray
    """int64 (N,), the index of each frame's class, -1 where it has none."""
    groups: np.ndarray | None
    """int64 (N,): frames of one recording (one race on one track) have one number. None where no recording is known."""
    skipped: tuple[str, ...] = ()
    """What was broken and left out when the frames were read."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def height(self) -> int:
        """Rows of pixels of each frame."""
        return int(self.pixels.shape[1])

    @property
    def width(self) -> int:
        """Columns of pixels of each frame."""
        return int(self.pixels.shape[2])

    def __getitem__(self, indices: Indices) -> np.ndarray:
        """Return a copy of some frames' pixels: uint8 (B, H, W, 3), or (H, W, 3) for a single index."""
        chosen = self.rows[indices]
        return np.array(self.pixels[chosen]) if np.ndim(chosen) == 0 else self.pixels[chosen]

    def subset(self, indices: slice | np.ndarray | Sequence[int]) -> FrameSet:
        """Return some of the frames as a set that shares this one's pixels and classes."""
        chosen = np.arange(len(self))[indices]
        return replace(
            self,
            rows=self.rows[chosen],
            names=tuple(self.names[index] for index in chosen),
            labels=self.labels[chosen],
            groups=None if self.groups is None else self.groups[chosen],
        )

    def with_classes(self, classes: tuple[str, ...]) -> FrameSet:
        """Return the same frames with labels that index `classes`, which must hold every class of this set."""
        return replace(self, classes=classes, labels=relabelled(self.labels, self.classes, classes))


def relabelled(labels: np.ndarray, classes: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Return labels (N,) that index other classes by the same names; -1 where it was, or where there is none such."""
    index = np.array([*(others.index(name) if name in others else -1 for name in classes), -1], dtype=np.int64)
    return index[labels]  # -1 takes the last


def spread(count: int, of: int) -> np.ndarray:
    """Return the numbers of so many of a row of things, evenly out of all: int64 (count,), fewer if there are fewer."""
    return np.linspace(0, of - 1, min(count, of)).astype(np.int64)
