"""Frames from Parquet files on any storage, a piece at a time, for sets that no machine holds.

A piece is rows of one row group, so that it can be read without the others, on any machine; what is made of it has a
name that follows from where it lies. The storage is what fsspec knows: a folder, s3://, gs://, http:// ... Columns are
those of `bisquit.frames.tables`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import pyarrow.parquet as pq

from bisquit.errors import FrameError
from bisquit.frames.decode import decode_records
from bisquit.frames.frameset import FrameSet
from bisquit.frames.record import BadFrames, Known, Record
from bisquit.frames.tables import (
    ARROW_ERRORS,
    IMAGE_COLUMN,
    class_column_of,
    class_names_of,
    encoded_of,
    holds_pictures,
    values_of,
)

_BATCH_ROWS = 64


@dataclass(frozen=True)
class Piece:
    """Some rows of a row group of a file."""

    url: str
    """Of the file."""
    file: int
    """Its number among all, in the order of their names."""
    row_group: int
    first: int
    """The first of the rows, counted in the row group."""
    rows: int

    @property
    def name(self) -> str:
        """What tells this piece from all others of a set, in their order."""
        return f"{self.file:06d}-{self.row_group:05d}-{self.first:07d}"


def storage_of(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, and its path there. Raises FrameError if there is none for it."""
    try:
        system, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise FrameError(f"{url}: {error}") from error
    return system, str(path)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Have the errors that are a storage's client's own, of keys that are missing or a lost connection, be FrameError.

    Nothing else belongs into the block than calls of the client.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # each client has a tree of its own
        raise FrameError(f"{url} cannot be reached: {error}") from error


def find_pieces(url: str, at_most: int) -> list[Piece]:
    """Return all pieces of the Parquet files that a URL with * names, of so many rows at most, in order.

    Raises FrameError if there is no file, or one that cannot be read or holds no pictures.
    """
    system, pattern = storage_of(url)
    try:
        with reaching(url):
            paths = sorted(str(path) for path in system.glob(pattern))
    except OSError as error:
        raise FrameError(f"{url} cannot be listed: {error}") from error
    if not paths:
        raise FrameError(f"{url} names no file")
    found = []
    for number, path in enumerate(paths):
        full = str(system.unstrip_protocol(path))
        with _opened(full) as file:
            schema = file.schema_arrow
            if not holds_pictures(schema):
                raise FrameError(f"{full} has no column 'image' of encoded pictures")
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                starts = range(0, rows, at_most)
                found += [Piece(full, number, group, start, min(at_most, rows - start)) for start in starts]
    return found


def read_piece(piece: Piece, size: tuple[int, int], bad: BadFrames) -> FrameSet:
    """Return the frames of a piece, of a size (H, W) to which others are resized; broken ones go to `bad`.

    Raises FrameError if the file cannot be read.
    """
    known, pixels = [], []
    for of_one, picture in decode_records(_Rows(piece), size, bad):
        known.append(of_one)
        pixels.append(picture)
    classes = tuple(sorted({of_one.class_name for of_one in known if of_one.class_name is not None}))
    numbers = {name: number for number, name in enumerate(classes)}
    return FrameSet(
        pixels=np.stack(pixels) if pixels else np.empty((0, *size, 3), dtype=np.uint8),
        rows=np.arange(len(pixels)),
        names=tuple(of_one.name for of_one in known),
        classes=classes,
        labels=np.array([numbers.get(of_one.class_name or "", -1) for of_one in known], dtype=np.int64),
        groups=None,
    )


class _Rows:
    """The records of a piece."""

    def __init__(self, piece: Piece) -> None:
        self._piece = piece

    def __len__(self) -> int:
        return self._piece.rows

    def __iter__(self) -> Iterator[Record]:
        piece = self._piece
        end, row = piece.first + piece.rows, 0
        with _opened(piece.url) as file:
            schema = file.schema_arrow
            class_column = class_column_of(schema)
            columns = [IMAGE_COLUMN, *([class_column] if class_column else ())]
            names = class_names_of(schema, class_column)
            for batch in file.iter_batches(_BATCH_ROWS, row_groups=[piece.row_group], columns=columns):
                batch.validate(full=True)  # else lengths that a damaged file names lead out of its memory
                first = max(0, piece.first - row)
                part = batch.slice(first, max(0, min(end - row, batch.num_rows) - first))
                pictures, classes = encoded_of(part), values_of(part, class_column, names)
                for i, (encoded, class_name) in enumerate(zip(pictures, classes, strict=True)):
                    name = f"{piece.url}#{piece.row_group}.{row + first + i}"
                    yield Record(Known(name, class_name, None), encoded)
                row += batch.num_rows
                if row >= end:
                    return


@contextmanager
def _opened(url: str) -> Iterator[pq.ParquetFile]:
    """Yield a Parquet file on any storage. Raises FrameError if it cannot be read."""
    system, path = storage_of(url)
    try:
        with system.open(path, "rb") as file:
            yield pq.ParquetFile(file, pre_buffer=False)
    except ARROW_ERRORS as error:
        raise FrameError(f"{url} is no readable Parquet file: {error}".partition("\n")[0]) from error
