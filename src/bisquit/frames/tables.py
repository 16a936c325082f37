"""Frames from tables as Hugging Face `datasets` writes them: Parquet files, and the Arrow files of `save_to_disk`.

Columns: `image`, a struct with the encoded picture in `bytes` (or the bytes themselves); optionally one of `track`,
`label` and `class`, the frame's class, by its name or by the number of a name in the schema; optionally `race`, the
recording that the frame is from. Read in small batches, so that neither the number nor the size of the files is bounded
by memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bisquit.errors import FrameError
from bisquit.frames.listing import ARROW_SUFFIX, Listing
from bisquit.frames.record import CLASS_COLUMNS, RACE_COLUMN, BadFrames, Known, Record

IMAGE_COLUMN = "image"
_BATCH_ROWS = 16
_READ_BUFFER_BYTES = 1 << 20
ARROW_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, OverflowError)
"""The last three: names that are no UTF-8, times and zones that there are not."""


@dataclass(frozen=True)
class _Shard:
    """One file whose footer and columns are in order."""

    path: Path
    name: str
    n_rows: int
    class_column: str | None
    class_names: tuple[str, ...]
    """Of classes that are numbers; empty where they are names."""
    race_column: str | None

    @property
    def columns(self) -> list[str]:
        """The columns to read."""
        return [IMAGE_COLUMN, *(column for column in (self.class_column, self.race_column) if column is not None)]


class TableRecords:
    """The records of Parquet or Arrow files, by file and row; a record is named `file.parquet#row`.

    What tells the number of rows is read at once, so that a cut file is found before any frame is decoded; it is
    reported to `bad` as one entry.
    """

    def __init__(self, listing: Listing, bad: BadFrames) -> None:
        self._bad = bad
        self._shards: list[_Shard] = []
        for path in listing.tables:
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
            except ARROW_ERRORS as error:
                self._bad.report(shard.name, FrameError(f"{shard.name} is damaged: {_first_line(error)}"))

    def _rows(self, shard: _Shard) -> Iterator[Record]:
        row = 0
        for batch in _batches(shard):
            batch.validate(full=True)  # else lengths that a damaged file names lead out of its memory
            pictures = encoded_of(batch)
            classes = values_of(batch, shard.class_column, shard.class_names)
            races = values_of(batch, shard.race_column)
            for encoded, class_name, race in zip(pictures, classes, races, strict=True):
                yield Record(Known(f"{shard.name}#{row}", class_name, race), encoded)
                row += 1


def _batches(shard: _Shard) -> Iterator[pa.RecordBatch]:
    """Yield the columns of a file that are read, some rows at a time."""
    if _is_arrow(shard.path):
        with pa.memory_map(str(shard.path)) as file, pa.ipc.open_stream(file) as stream:
            for batch in stream:
                columns = batch.select(shard.columns)
                yield from (columns.slice(start, _BATCH_ROWS) for start in range(0, len(batch), _BATCH_ROWS))
        return
    # Without pre-buffering: it would hold a whole row group, which may be the whole file.
    with pq.ParquetFile(shard.path, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False) as file:
        for group in range(file.num_row_groups):
            yield from file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=shard.columns)


def _open_shard(path: Path, name: str) -> _Shard:
    kind = "Arrow" if _is_arrow(path) else "Parquet"
    try:
        schema, n_rows = _open_arrow(path) if _is_arrow(path) else _open_parquet(path)
        names = schema.names
    except ARROW_ERRORS as error:
        raise FrameError(f"{name} is no readable {kind} file: {_first_line(error)}") from error
    if not holds_pictures(schema):
        raise FrameError(f"{name} has no column 'image' of encoded pictures: its columns are {', '.join(names)}")
    class_column = class_column_of(schema)
    race_column = RACE_COLUMN if RACE_COLUMN in names else None
    return _Shard(path, name, n_rows, class_column, class_names_of(schema, class_column), race_column)


def _is_arrow(path: Path) -> bool:
    return path.suffix.lower() == ARROW_SUFFIX


def _open_parquet(path: Path) -> tuple[pa.Schema, int]:
    """Return a Parquet file's schema, and how many rows it has."""
    with pq.ParquetFile(path) as file:
        return file.schema_arrow, file.metadata.num_rows


def _open_arrow(path: Path) -> tuple[pa.Schema, int]:
    """Return an Arrow file's schema, and how many rows it has: nothing says so, but to pass over them reads little."""
    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as stream:
        return stream.schema, sum(len(batch) for batch in stream)


def class_column_of(schema: pa.Schema) -> str | None:
    """Return the column that says which class a picture has; None if there is none."""
    return next((column for column in CLASS_COLUMNS if column in schema.names), None)


def class_names_of(schema: pa.Schema, column: str | None) -> tuple[str, ...]:
    """Return the names of classes that a column has as numbers, as `datasets` notes them; none where it does not."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[column]["names"]))
    except (KeyError, TypeError, ValueError):
        return ()


def holds_pictures(schema: pa.Schema) -> bool:
    """Whether there is one column of encoded pictures."""
    return schema.names.count(IMAGE_COLUMN) == 1 and _holds_bytes(schema.field(IMAGE_COLUMN).type)


def encoded_of(batch: pa.RecordBatch) -> list[bytes]:
    """Return the encoded pictures of a batch.

    An empty cell goes on as no bytes: the decoder reports it as it does any broken picture.
    """
    cells = batch.column(IMAGE_COLUMN).to_pylist()
    return [(cell["bytes"] if isinstance(cell, dict) else cell) or b"" for cell in cells]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _holds_bytes(kind.field(index).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def values_of(batch: pa.RecordBatch, name: str | None, names: tuple[str, ...] = ()) -> list[str | None]:
    """Return a column's values as text, None for those that are missing, empty, or -1 of the `names` of classes."""
    values: list[Any] = batch.column(name).to_pylist() if name is not None else [None] * batch.num_rows
    if names:
        values = [names[value] if isinstance(value, int) and 0 <= value < len(names) else None for value in values]
    return [None if value is None or value == "" else str(value) for value in values]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
