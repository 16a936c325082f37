"""Tiny frames, and a cache of its own for each test."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bisquit.frames import FrameSet

MakeFrames = Callable[..., np.ndarray]
Encode = Callable[..., bytes]
WriteParquet = Callable[..., Path]
MakeFrameSet = Callable[..., FrameSet]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of this test, which does not exist yet."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BISQUIT_CACHE", str(folder))
    return folder


@pytest.fixture
def make_frames() -> MakeFrames:
    """A function of (count, height, width) that returns noise, uint8 (count, height, width, 3)."""

    def make(count: int, height: int = 6, width: int = 9, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def encode() -> Encode:
    """A function that returns a frame as the bytes of a picture file."""

    def encoded(frame: np.ndarray, kind: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, kind)
        return buffer.getvalue()

    return encoded


@pytest.fixture
def write_parquet(encode: Encode) -> WriteParquet:
    """A function that writes frames (or ready cells) and further columns as the data card has them."""

    def write(path: Path, frames: Sequence[Any], **columns: Sequence[Any]) -> Path:
        cells = [
            {"bytes": encode(frame), "path": None} if isinstance(frame, np.ndarray) else {"bytes": frame, "path": None}
            for frame in frames
        ]
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": pa.array(cells, kind), **columns}), path, row_group_size=2)
        return path

    return write


@pytest.fixture
def make_frame_set() -> MakeFrameSet:
    """A function that returns a set of blank frames with the given classes' labels and groups."""

    def make(labels: Sequence[int], groups: Sequence[int] | None) -> FrameSet:
        count = len(labels)
        return FrameSet(
            pixels=np.zeros((count, 2, 2, 3), dtype=np.uint8),
            rows=np.arange(count),
            names=tuple(f"frame-{index}.png" for index in range(count)),
            classes=tuple(f"class-{label}" for label in range(max(labels) + 1)),
            labels=np.array(labels, dtype=np.int64),
            groups=None if groups is None else np.array(groups, dtype=np.int64),
        )

    return make
