"""Frames from Parquet files as Hugging Face `datasets` writes them.

Columns: `image`, a struct with the encoded picture in `bytes` (or the bytes themselves); optionally one of `track`,
`label` and `class`, the frame's class; optionally `race`, the recording that the frame is from. Read in small
batches, so that neither the number nor the size of the files is bounded by memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bisquit.errors import FrameError
from bisquit.frames.listing import Listing
from bisquit.frames.record import CLASS_COLUMNS, RACE_COLUMN, BadFrames, Known, Record

_IMAGE_COLUMN = "image"
_BATCH_ROWS = 16
_READ_BUFFER_BYTES = 1 << 20
_ARROW_ERRORS = (pa.ArrowException, OSError)


@dataclass(frozen=True)
class _Shard:
    """One Parquet file whose footer and columns are in order."""

    path: Path
    name: str
    n_rows: int
    class_column: str | None
    race_column: str | None

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [_IMAGE_COLUMN, *(column for column in (self.class_column, self.race_column) if column is not None)]


class ParquetRecords:
    """The records of Parquet files, by file and row; a record is named `file.parquet#row`.

    Footers are read at once, so that a cut file is found before any frame is decoded; it is reported to `bad` as one
    entry.
    """

    def __init__(self, listing: Listing, bad: BadFrames) -> None:
        self._bad = bad
        self._shards: list[_Shard] = []
        for path in listing.parquet:
            name = listing.name(path)
            try:
                self._shards.append(_open_shard(path, name))
            except FrameError as error:
                bad.report(name, error)

    def __len__(self) -> int:
        return sum(shard.n_rows for shard in self._shards)

    def __iter__(self) -> Iterator[Record]:
        for shard in self._shards:
            try:
                yield from self._rows(shard)
            except _ARROW_ERRORS as error:
                self._bad.report(shard.name, FrameError(f"{shard.name} is damaged: {_first_line(error)}"))

    def _rows(self, shard: _Shard) -> Iterator[Record]:
        row = 0
        # Without pre-buffering: it would hold a whole row group, which may be the whole file.
        with pq.ParquetFile(shard.path, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=shard.columns):
                    cells = batch.column(_IMAGE_COLUMN).to_pylist()
                    classes = _column(batch, shard.class_column)
                    races = _column(batch, shard.race_column)
                    for cell, class_name, race in zip(cells, classes, races, strict=True):
                        # An empty cell goes on as no bytes: the decoder reports it as it does any broken picture.
                        encoded = cell["bytes"] if isinstance(cell, dict) else cell
                        yield Record(Known(f"{shard.name}#{row}", class_name, race), encoded or b"")
                        row += 1


def _open_shard(path: Path, name: str) -> _Shard:
    try:
        with pq.ParquetFile(path) as file:
            schema, n_rows = file.schema_arrow, file.metadata.num_rows
    except _ARROW_ERRORS as error:
        raise FrameError(f"{name} is no readable Parquet file: {_first_line(error)}") from error
    if _IMAGE_COLUMN not in schema.names or not _holds_bytes(schema.field(_IMAGE_COLUMN).type):
        raise FrameError(f"{name} has no column 'image' of encoded pictures: its columns are {', '.join(schema.names)}")
    class_column = next((column for column in CLASS_COLUMNS if column in schema.names), None)
    race_column = RACE_COLUMN if RACE_COLUMN in schema.names else None
    return _Shard(path, name, n_rows, class_column, race_column)


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _column(batch: pa.RecordBatch, name: str | None) -> list[str | None]:
    """Return a column's values as text, None for those that are missing or empty."""
    values: list[Any] = batch.column(name).to_pylist() if name is not None else [None] * batch.num_rows
    return [None if value is None or value == "" else str(value) for value in values]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
